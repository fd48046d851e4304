"""How a call meets a fault: what is sent, when, and how the connection ends.

Hides: the order of work and fault, bodies of answers that a gateway would give. Guarantees: a call
that is to do nothing does nothing; a client that gives up ends its fault.
Must not know: which call meets which fault, jobs, pools.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from celonis_emulator.connection import line_of
from celonis_emulator.faults import BODILESS
from celonis_emulator.refusals import usual_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive, Scope, Send

    from celonis_emulator.connection import Line
    from celonis_emulator.faults import Answer, Fault, Slow

    Handle = Callable[[Scope, Receive, Send], Awaitable[None]]

DRIPS_PER_SECOND: Final = 10
_JSON: Final = "application/json"
_ENDLESS_BLOCK: Final = b" " * 65_536


class Misfortune:
    """Lets calls meet faults.

    Args:
        handle: What happens to a call without one.
        forget_tokens: Ends the life of all OAuth tokens.
    """

    def __init__(self, handle: Handle, forget_tokens: Callable[[], None]) -> None:
        self._handle = handle
        self._forget_tokens = forget_tokens

    async def meet(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out a fault on a call."""
        line = line_of(scope)
        if fault.tokens is not None:
            await self._kill_tokens(fault, scope, receive, send)
        elif fault.slow is not None and fault.answer is None:
            await self._slowly(fault, fault.slow, scope, receive, send)
        elif fault.cut is not None and fault.cut.after_bytes is not None:
            await self._cut_in_body(fault.cut.after_bytes, scope, receive, send)
        else:
            if fault.when == "after":
                await self._handle(scope, receive, _nowhere)
            elif fault.when == "during":
                await receive()
            else:
                await _drain(receive)
            await _break(fault, line, send)

    async def _kill_tokens(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_to_holder_of_nothing(message: Message) -> None:
            # Before the answer is seen: its reader may ask again at once.
            if message["type"] == "http.response.start":
                self._forget_tokens()
            await send(message)

        if fault.when == "before":
            self._forget_tokens()
            await self._handle(scope, receive, send)
        else:
            await self._handle(scope, receive, send_to_holder_of_nothing)

    async def _slowly(
        self, fault: Fault, slow: Slow, scope: Scope, receive: Receive, send: Send
    ) -> None:
        line = line_of(scope)
        line.held = True
        slowly = _Slowly(slow, line, send)
        if fault.when == "before":
            # Who gave up meanwhile has asked for nothing.
            if await line.last(slow.delay_seconds):
                await self._handle(scope, receive, slowly.drip)
        else:
            await self._handle(scope, receive, slowly.delay_and_drip)
        line.held = False

    async def _cut_in_body(
        self, after_bytes: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        line = line_of(scope)
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._handle(scope, receive, keep)
        body = b"".join(message.get("body", b"") for message in messages)
        if not body:
            # Half a head reads like an answer without a body to some clients.
            await line.cut()
            return
        for message in messages:
            if message["type"] == "http.response.start":
                await send(message)
        # Whatever was asked for, the whole of it never comes.
        sent = body[: min(after_bytes, len(body) - 1)]
        await send({"type": "http.response.body", "body": sent, "more_body": True})
        await line.end()


class _Slowly:
    """A channel of answers that takes its time."""

    def __init__(self, slow: Slow, line: Line, send: Send) -> None:
        self._slow = slow
        self._line = line
        self._send = send

    async def delay_and_drip(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._line.last(self._slow.delay_seconds)
        await self.drip(message)

    async def drip(self, message: Message) -> None:
        rate = self._slow.bytes_per_second
        body = message.get("body", b"")
        if rate is None or not body:
            await self._send(message)
            return
        step = max(1, rate // DRIPS_PER_SECOND)
        for start in range(0, len(body), step):
            await self._line.last(step / rate)
            last = start + step >= len(body)
            more = not last or message.get("more_body", False)
            piece = body[start : start + step]
            await self._send({"type": message["type"], "body": piece, "more_body": more})


async def _nowhere(_: Message) -> None:
    """Take an answer that nobody is to see."""


async def _drain(receive: Receive) -> None:
    message = await receive()
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()


async def _break(fault: Fault, line: Line, send: Send) -> None:
    """Do what comes in place of an answer."""
    if fault.answer is not None:
        if fault.slow is not None:
            line.held = True
            await _answer(fault.answer, _Slowly(fault.slow, line, send).delay_and_drip)
            line.held = False
        else:
            await _answer(fault.answer, send)
    elif fault.cut is not None:
        await line.cut()
    else:
        line.held = True
        if fault.endless is not None:
            await _answer_endlessly(line, send)
        await line.last(None)


async def _answer(answer: Answer, send: Send) -> None:
    body, content_type = _rendered(answer)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if body or answer.content_type:
        headers.setdefault("content-type", answer.content_type or content_type)
    if answer.status not in BODILESS:
        headers["content-length"] = str(len(body))
    await send(_start(answer.status, headers))
    await send({"type": "http.response.body", "body": body})


def _rendered(answer: Answer) -> tuple[bytes, str]:
    """Return a body and its content type."""
    body: Any = answer.body
    if body is None:
        body = usual_body(answer.status) if answer.status >= HTTPStatus.BAD_REQUEST else ""
    if isinstance(body, str):
        return body.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    return json.dumps(body).encode(), _JSON


async def _answer_endlessly(line: Line, send: Send) -> None:
    await send(_start(200, {"content-type": _JSON}))
    while not line.gone:
        await send({"type": "http.response.body", "body": _ENDLESS_BLOCK, "more_body": True})
        # Others have their turn, and the end of the connection is seen.
        await asyncio.sleep(0)


def _start(status: int, headers: dict[str, str]) -> Message:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}
