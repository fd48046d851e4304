"""Who we are to Celonis: the header that every request carries.

Hides the kinds of keys, and how OAuth tokens are got and renewed. Guarantees: a secret leaves its
``Secret`` only for a request to the configured host; a token is renewed at 80 % of its life, and
once when it is refused, also between two requests of one upload. Must not know: any other request
than the one it signs and the one that asks for a token.

OAuth as documented by Celonis ("Registering your OAuth client"): client credentials at
``/oauth2/token``, tokens of some 15 minutes, no refresh token.
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import requests.auth

from target_celonis.config import Secret
from target_celonis.errors import AccessError, RemoteError
from target_celonis.http import expect

if TYPE_CHECKING:
    from target_celonis.answers import Answer
    from target_celonis.clock import Clock
    from target_celonis.config import OAuthClient
    from target_celonis.http import Http

SCHEMES = {"app_key": "AppKey", "api_key": "Bearer"}
"""Word before a key, by ``auth_method``. The two kinds of key look alike, so that ``auto`` tries
the application key first, as Celonis' own client does."""

TOKEN_PATH = "/oauth2/token"  # noqa: S105  # a path
PUSH_SCOPES = frozenset({"integration.data-pools", "integration.data-pools:data_push"})
"""Either lets a client push."""

_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_RENEWED_AT = 0.8
_DEFAULT_LIFE_SECONDS = 899.0


class KeyAuth(requests.auth.AuthBase):
    """Signs with a key.

    Args:
        method: A key of ``SCHEMES``.
        key: The key.
        base_url: Requests to any other host stay unsigned.
    """

    def __init__(self, method: str, key: Secret, base_url: str) -> None:
        self.kind = SCHEMES[method]
        self._key = key
        self._host = urlsplit(base_url).netloc.lower()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        if urlsplit(request.url or "").netloc.lower() == self._host:
            request.headers["Authorization"] = f"{self.kind} {self._key.reveal()}"
        return request

    def renew(self) -> bool:
        """A key does not change."""
        return False

    def lacks_scope(self) -> bool:
        """Keys have no scopes."""
        return False


class OAuth(requests.auth.AuthBase):
    """Signs with tokens of the client credentials grant.

    Args:
        client: The OAuth client.
        http: For asking for tokens.
        clock: For their age.
    """

    kind = "OAuth client"

    def __init__(self, client: OAuthClient, http: Http, clock: Clock) -> None:
        self._client = client
        self._http = http
        self._clock = clock
        self._host = urlsplit(http.base_url).netloc.lower()
        self._lock = threading.Lock()
        self._token: Secret | None = None
        self._renew_at = 0.0
        self._scope: str | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header, with a fresh token where the old one ages.

        Raises:
            AccessError: Celonis gives no token.
        """
        if urlsplit(request.url or "").netloc.lower() == self._host:
            with self._lock:
                if self._clock.monotonic() >= self._renew_at:
                    self._get_token()
                token = self._token.reveal() if self._token is not None else ""
                request.headers["Authorization"] = f"Bearer {token}"
        return request

    def renew(self) -> bool:
        """Have the next request get a new token."""
        with self._lock:
            self._renew_at = 0.0
        return True

    def lacks_scope(self) -> bool:
        """Return whether the token's scope, where it was told, leaves out pushing."""
        return self._scope is not None and not PUSH_SCOPES & set(self._scope.split())

    def _get_token(self) -> None:
        form = {"grant_type": "client_credentials", "scope": self._client.scope}
        basic: tuple[str, str] | None = None
        if self._client.client_auth == "basic":
            basic = (self._client.client_id, self._client.secret.reveal())
        else:
            form["client_id"] = self._client.client_id
            form["client_secret"] = self._client.secret.reveal()
        answer = self._http.post_form(TOKEN_PATH, form, basic)
        if answer.status in _REFUSALS:
            raise _no_token(answer, self._client)
        expect(answer, "give a token")
        content = answer.json()
        token = content.get("access_token") if isinstance(content, dict) else None
        if not isinstance(token, str) or not _is_word(token):
            raise RemoteError("TC-REMOTE-05", "Celonis answered without an access token.")
        life = content.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) else _DEFAULT_LIFE_SECONDS
        scope = content.get("scope")
        self._scope = scope if isinstance(scope, str) and scope else None
        self._token = Secret(token)
        self._renew_at = self._clock.monotonic() + _RENEWED_AT * seconds


def _is_word(token: str) -> bool:
    """Return whether a token can stand in a header."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def _no_token(answer: Answer, client: OAuthClient) -> AccessError:
    said = answer.explanation()
    if "scope" in said:
        return AccessError(
            "TC-ACCESS-04",
            f"The OAuth client may not have the scope `{client.scope}`.",
            "Give the client this scope in Celonis, or name those it has as `oauth_scope`.",
        )
    return AccessError(
        "TC-ACCESS-04",
        f"Celonis does not accept the OAuth client (status {answer.status}).",
        "Check `oauth_client_id` and `oauth_client_secret`, and whether the client was registered "
        "for `oauth_client_auth` basic or post.",
    )


def candidates(auth_method: str) -> tuple[str, ...]:
    """Return the kinds of key to try for a configured ``auth_method``."""
    return tuple(SCHEMES) if auth_method == "auto" else (auth_method,)
