"""OAuth clients and the tokens that they were given.

Hides: how tokens are made, kept and forgotten. Guarantees: tokens are random, kept as digests only
and never written down; secrets are compared in constant time and never shown by ``repr``; an error
is one of those that RFC 6749 names. Must not know: HTTP beyond the words of a request, routes, what
a scope or a permission allows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from celonis_emulator.refusals import Refusal
from celonis_emulator.rights import EVERYWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celonis_emulator.rights import Right
    from celonis_emulator.switches import Switches

TOKEN_BYTES: Final = 32
GRANT_TYPE: Final = "client_credentials"


@dataclass(frozen=True)
class OAuthClient:
    """A registered client.

    Attributes:
        id: Its name.
        secret: What proves that it is the client.
        auth: How it says so: ``basic``, ``post`` or ``both``; None as switched.
        scopes: What it may ask for; None as switched.
        permissions: What it may do, by pool id or for every pool.
    """

    id: str
    secret: str = field(repr=False)
    auth: str | None = None
    scopes: tuple[str, ...] | None = None
    permissions: Mapping[str, frozenset[Right]] = field(default_factory=lambda: EVERYWHERE)


@dataclass(frozen=True)
class _Credentials:
    """What a request says of its client, and ``how``: ``basic`` or ``post``."""

    how: str
    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Granted:
    """What a token stands for: scopes, and its client's permissions.

    ``dies`` is a time on the clock of the server that gave the token.
    """

    scopes: frozenset[str]
    permissions: Mapping[str, frozenset[Right]]
    dies: float


def refused(status: int, error: str, description: str) -> Refusal:
    """Return an error of RFC 6749, section 5.2."""
    # Section 5.2 asks for this header where a client tried to log in by one.
    headers = {"WWW-Authenticate": 'Basic realm="celonis-emulator"'} if status == 401 else {}  # noqa: PLR2004
    return Refusal(status, {"error": error, "error_description": description}, headers)


class OAuthServer:
    """The clients of the team, and the tokens that live.

    Args:
        clients: Who may ask.
        switches: How long a token lives; how clients log in, and the scopes they have, where a
            client does not say.
        clock: Seconds; not the time of day, which may jump.
    """

    def __init__(
        self,
        clients: Iterable[OAuthClient],
        switches: Switches,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = tuple(clients)
        self._way = switches.oauth_client_auth
        self._scopes = tuple(switches.oauth_scope.split())
        self._seconds = switches.token_seconds
        self._lives = max(0, switches.token_seconds - switches.token_early_seconds)
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[bytes, Granted] = {}

    def grant(self, parameters: Mapping[str, str], authorization: str | None) -> dict[str, Any]:
        """Answer a token request.

        Args:
            parameters: Those of the request, each once.
            authorization: Its ``Authorization`` header.

        Raises:
            Refusal: The client is not known, or asks for what it cannot have.
        """
        grant_type = parameters.get("grant_type")
        if not grant_type:
            raise refused(400, "invalid_request", "The parameter grant_type is missing.")
        client = self._logged_in(_credentials(parameters, authorization))
        if grant_type != GRANT_TYPE:
            raise refused(400, "unsupported_grant_type", f"Only {GRANT_TYPE} is supported.")
        has = self._scopes if client.scopes is None else client.scopes
        # Without a scope a client gets all that it has.
        asked = tuple(dict.fromkeys(parameters.get("scope", "").split())) or has
        if not set(asked) <= set(has):
            raise refused(400, "invalid_scope", "The client does not have the requested scope.")
        token = secrets.token_urlsafe(TOKEN_BYTES)
        now = self._clock()
        with self._lock:
            self._tokens = {key: kept for key, kept in self._tokens.items() if kept.dies > now}
            dies = now + self._lives
            kept = Granted(frozenset(asked), client.permissions, dies)
            self._tokens[_digest(token.encode())] = kept
        return {
            "access_token": token,
            "scope": " ".join(asked),
            "token_type": "Bearer",
            "expires_in": self._seconds,
        }

    def granted(self, token: bytes) -> Granted | None:
        """Return what a token stands for; None for one that is unknown or dead."""
        with self._lock:
            kept = self._tokens.get(_digest(token))
        return kept if kept is not None and kept.dies > self._clock() else None

    def forget_tokens(self) -> None:
        """End the life of all tokens given so far."""
        with self._lock:
            self._tokens.clear()

    def _logged_in(self, credentials: _Credentials) -> OAuthClient:
        """Return the client that says who it is, in the way that it was registered for."""
        # RFC 6749 has a client quote both parts before they go into the header; many do not.
        pairs = {(credentials.id, credentials.secret)}
        if credentials.how == "basic":
            pairs.add((unquote_plus(credentials.id), unquote_plus(credentials.secret)))
        # Every client is compared, so that the time taken does not tell which one was near.
        matches = [
            client
            for client in self._clients
            for pair in pairs
            if hmac.compare_digest(f"{client.id}:{client.secret}".encode(), ":".join(pair).encode())
        ]
        if not matches:
            raise refused(401, "invalid_client", "The client or its secret is not known.")
        if (matches[0].auth or self._way) not in (credentials.how, "both"):
            description = f"The client was not registered for client_secret_{credentials.how}."
            raise refused(401, "invalid_client", description)
        return matches[0]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _credentials(parameters: Mapping[str, str], authorization: str | None) -> _Credentials:
    """Return who asks, by header or by parameters."""
    posted = parameters.get("client_secret")
    if authorization is None:
        if not parameters.get("client_id") or posted is None:
            raise refused(401, "invalid_client", "The client does not say who it is.")
        return _Credentials("post", parameters["client_id"], posted)
    if posted is not None:
        raise refused(400, "invalid_request", "The client logs in twice: by header and by body.")
    scheme, _, encoded = authorization.strip().partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    identity, colon, secret = text.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise refused(401, "invalid_client", "The Authorization header is not HTTP Basic.")
    if parameters.get("client_id") not in (None, identity, unquote_plus(identity)):
        raise refused(400, "invalid_request", "Header and parameters name different clients.")
    return _Credentials("basic", identity, secret)
