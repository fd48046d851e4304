"""Who is calling: user API keys, application keys and OAuth tokens.

Hides: how a header is matched to a key or a token. Guarantees: keys are compared in constant time
and never shown by ``repr``. Must not know: routes, pools, what a caller wants to do.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celonis_emulator.rights import EVERYTHING, Right, rights_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celonis_emulator.oauth import OAuthServer


@dataclass(frozen=True)
class Caller:
    """A caller who was recognised; ``kind`` is ``api_key``, ``app_key`` or ``oauth``."""

    kind: str
    rights: frozenset[Right] = EVERYTHING


class Identities:
    """The keys and tokens that this server takes; ``oauth`` gives out the tokens."""

    def __init__(
        self, api_keys: Iterable[str], app_keys: Iterable[str], oauth: OAuthServer
    ) -> None:
        self._keys = {
            "bearer": ("api_key", tuple(key.encode() for key in api_keys)),
            "appkey": ("app_key", tuple(key.encode() for key in app_keys)),
        }
        self.oauth = oauth

    def caller(self, authorization: bytes | None) -> Caller | None:
        """Return who sent this ``Authorization`` header, or None."""
        word, _, rest = (authorization or b"").strip().partition(b" ")
        scheme, key = word.decode("latin-1").lower(), rest.strip()
        kind, keys = self._keys.get(scheme, ("", ()))
        # Every key is compared, so that the time taken does not tell which one was near.
        matches = [hmac.compare_digest(known, key) for known in keys]
        if any(matches):
            return Caller(kind)
        scopes = self.oauth.scopes_of(key) if scheme == "bearer" else None
        return None if scopes is None else Caller("oauth", rights_of(scopes))
