"""Who is calling: user API keys, application keys and OAuth tokens.

Hides: how a header is matched to a key or a token. Guarantees: keys are compared in constant time
and never shown by ``repr``. Must not know: routes, pools, what a caller wants to do.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from celonis_emulator.rights import EVERYWHERE, Caller, rights_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celonis_emulator.oauth import OAuthServer
    from celonis_emulator.setup import Key

_SCHEMES = {"bearer": "api", "appkey": "app"}


class Identities:
    """The keys and tokens that this server takes; ``oauth`` gives out the tokens."""

    def __init__(self, keys: Iterable[Key], oauth: OAuthServer) -> None:
        self._keys = tuple((key, key.key.encode()) for key in keys)
        self.oauth = oauth

    def caller(self, authorization: bytes | None) -> Caller | None:
        """Return who sent this ``Authorization`` header, or None."""
        word, _, rest = (authorization or b"").strip().partition(b" ")
        scheme, given = word.decode("latin-1").lower(), rest.strip()
        kind = _SCHEMES.get(scheme)
        # Every key is compared, so that the time taken does not tell which one was near.
        matches = [key for key, known in self._keys if hmac.compare_digest(known, given)]
        for key in matches:
            if key.kind == kind:
                everywhere = EVERYWHERE if key.permissions is None else key.permissions
                return Caller(f"{kind}_key", everywhere)
        granted = self.oauth.granted(given) if scheme == "bearer" else None
        if granted is None:
            return None
        return Caller("oauth", granted.permissions, rights_of(granted.scopes))
