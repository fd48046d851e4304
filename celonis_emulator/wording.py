"""How refusals are worded: as JSON, as plain text, or with no body at all.

Hides: which of the JSON shapes a refusal had. Guarantees: status and headers stay; answers of the
emulator's own endpoints, of the token endpoint, and good ones, pass untouched.
Must not know: why something was refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from starlette.types import Message, Send

_UNTOUCHED: Final = ("/_emulator/", "/oauth2/")
_ABOUT_BODY: Final = frozenset({b"content-type", b"content-length"})
_FIRST_ERROR_STATUS: Final = 400


def worded(style: str, path: str, send: Send) -> Send:
    """Return where an answer is to be sent, so that a refusal is worded in a style.

    Args:
        style: ``json``, ``text`` or ``empty``.
        path: What was asked.
        send: Where the answer goes then.
    """
    if style == "json" or path.startswith(_UNTOUCHED):
        return send
    start: Message | None = None
    body = bytearray()

    async def reword(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            if message["status"] < _FIRST_ERROR_STATUS:
                await send(message)
            else:
                start = message
        elif start is None:
            await send(message)
        else:
            body.extend(message.get("body", b""))
            if message.get("more_body", False):
                return
            said = _text(bytes(body)).encode() if style == "text" else b""
            headers = [(n, v) for n, v in start["headers"] if n.lower() not in _ABOUT_BODY]
            headers.append((b"content-length", str(len(said)).encode()))
            if said:
                headers.append((b"content-type", b"text/plain; charset=utf-8"))
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": said})

    return reword


def _text(body: bytes) -> str:
    """Return the sentence in a refusal of any shape."""
    content: Any = json.loads(body or b"null")
    if not isinstance(content, dict):
        return ""
    if content.get("errors"):
        content = content["errors"][0]
    names = ("error", "message", "detail")
    return next((str(content[name]) for name in names if name in content), "")
