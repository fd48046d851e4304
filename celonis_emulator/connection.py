"""A client's connection, as far as a request may break it.

Hides: uvicorn's protocol classes and transports, plain and TLS. Guarantees: a request finds its
line in ``scope["state"]``; a line that is held on purpose does not hold the end of the server.
Must not know: faults, requests, answers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from starlette.types import Scope

_STATE: Final = "line"


class Line:
    """The connection that a request came by."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._gone = asyncio.Event()
        self.held = False
        """Whether a fault keeps it: the server then ends it rather than wait for it."""

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._gone.is_set()

    async def last(self, seconds: float | None) -> bool:
        """Wait; return whether the connection is still there."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), seconds)
        return not self.gone

    async def cut(self) -> None:
        """End it now; what was not sent yet is lost."""
        self._transport.abort()
        await self._gone.wait()

    async def end(self) -> None:
        """End it when all that was written is sent."""
        self._transport.close()
        await self._gone.wait()

    def abandon(self) -> None:
        """End it now, without waiting for that."""
        self._transport.abort()

    def lost(self) -> None:
        """Take note that it has ended."""
        self._gone.set()


def line_of(scope: Scope) -> Line:
    """Return the connection of a request."""
    line: Line = scope["state"][_STATE]
    return line


class BreakableProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol of HTTP, with a line for those who break it."""

    app_state: dict[str, Any]
    transport: Any

    def connection_made(self, transport: Any) -> None:
        """Give all requests of the connection its line."""
        super().connection_made(transport)
        self._line = Line(transport)
        # Each request gets a copy as its scope's state.
        self.app_state = {**self.app_state, _STATE: self._line}

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for it."""
        super().connection_lost(exc)
        self._line.lost()

    def shutdown(self) -> None:
        """Begin the end of the server."""
        super().shutdown()
        # Closing is under way for one that is idle; over TLS it would wait for the client's word.
        idle = self.transport.is_closing() and not self.transport.get_write_buffer_size()
        if self._line.held or idle:
            self._line.abandon()
