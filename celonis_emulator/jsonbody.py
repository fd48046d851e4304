"""JSON bodies, read ahead of the routes.

Hides: which texts JSON can spell that are no Unicode. Guarantees: no route sees half a surrogate
pair, which nothing can store or answer with, nor a body that does not fit into memory.
Must not know: routes, what a body says.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from celonis_emulator.refusals import invalid, too_large

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

MAX_JSON_BYTES: Final = 64_000_000
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def is_json(scope: Scope) -> bool:
    """Say whether a request claims to come with JSON."""
    return any(name == b"content-type" and b"json" in value for name, value in scope["headers"])


async def read_ahead(receive: Receive) -> Receive:
    """Read and check a body; return the channel on which it can be read again.

    Raises:
        Refusal: 413 for one that is too large, 400 for a text that is no Unicode.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _replayed(message, receive)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_JSON_BYTES:
            raise too_large(MAX_JSON_BYTES)
    if _SURROGATE.search(body) and not _is_unicode(bytes(body)):
        raise invalid("body", "A text holds half a surrogate pair.", "UNREADABLE")
    return _replayed({"type": "http.request", "body": bytes(body), "more_body": False}, receive)


def _is_unicode(body: bytes) -> bool:
    """Say whether all texts are; a body that is no JSON at all is for others to refuse."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except (ValueError, RecursionError):
        pass
    return True


def _replayed(first: Message, receive: Receive) -> Receive:
    messages = [first]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
