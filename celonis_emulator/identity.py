"""Who is calling: user API keys and application keys.

Hides: how a header is matched to a key. Guarantees: keys are compared in constant time and never
shown by ``repr``. Must not know: routes, pools, what a caller wants to do.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Caller:
    """A caller whose key was valid; ``kind`` is ``api_key`` or ``app_key``."""

    kind: str


class Identities:
    """The keys that this server takes."""

    def __init__(self, api_keys: Iterable[str], app_keys: Iterable[str]) -> None:
        self._keys = {
            "bearer": ("api_key", tuple(key.encode() for key in api_keys)),
            "appkey": ("app_key", tuple(key.encode() for key in app_keys)),
        }

    def caller(self, authorization: bytes | None) -> Caller | None:
        """Return who sent this ``Authorization`` header, or None."""
        scheme, _, key = (authorization or b"").strip().partition(b" ")
        kind, keys = self._keys.get(scheme.decode("latin-1").lower(), ("", ()))
        # Every key is compared, so that the time taken does not tell which one was near.
        matches = [hmac.compare_digest(known, key.strip()) for known in keys]
        return Caller(kind) if any(matches) else None
