"""Who we are to Celonis: the header that carries the key.

Guarantees: the key leaves its ``Secret`` only for the Authorization header of a request to the
configured host. Must not know: requests other than the one it signs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import requests.auth

if TYPE_CHECKING:
    from target_celonis.config import Secret

SCHEMES = {"app_key": "AppKey", "api_key": "Bearer"}
"""Word before the key, by ``auth_method``. The two kinds of key look alike, so that ``auto`` tries
the application key first, as Celonis' own client does."""


class KeyAuth(requests.auth.AuthBase):
    """Signs requests with a key.

    Args:
        method: A key of ``SCHEMES``.
        key: The key.
        base_url: Requests to any other host stay unsigned.
    """

    def __init__(self, method: str, key: Secret, base_url: str) -> None:
        self.method = method
        self._key = key
        self._host = urlsplit(base_url).netloc

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        if urlsplit(request.url or "").netloc == self._host:
            request.headers["Authorization"] = f"{SCHEMES[self.method]} {self._key.reveal()}"
        return request


def candidates(auth_method: str) -> tuple[str, ...]:
    """Return the methods to try for a configured ``auth_method``."""
    return tuple(SCHEMES) if auth_method == "auto" else (auth_method,)
