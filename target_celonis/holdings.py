"""What all streams together hold in memory, and which of their files are open.

Guarantees: records in memory stay below a bound, whatever the number of streams; no more files are
open at a time than a process may surely have. Must not know: messages, pushes, states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

T = TypeVar("T")

_OPEN_FILES = 64
"""Chunk files that are open at a time; the one written to the longest ago is closed first."""


class Holder(Protocol):
    """A stream, or whatever else holds rows of a table."""

    @property
    def name(self) -> str:
        """Tells it from the others."""
        ...

    @property
    def held_bytes(self) -> int:
        """Memory that its rows take."""
        ...

    @property
    def has_open_file(self) -> bool:
        """Whether a chunk file is being written."""
        ...

    def flush(self) -> None:
        """Have no row in memory any more."""
        ...

    def close_file(self) -> None:
        """Close the chunk file that is being written."""
        ...


class Holdings:
    """What streams hold.

    Args:
        limit_bytes: What their records may take in memory.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._open_files: dict[str, Holder] = {}

    def changing(self, stream: Holder, change: Callable[[], T]) -> T:
        """Do something with a stream; keep account of its memory and its open file."""
        self._held_bytes -= stream.held_bytes
        try:
            return change()
        finally:
            self._held_bytes += stream.held_bytes
            self._open_files.pop(stream.name, None)
            if stream.has_open_file:
                self._open_files[stream.name] = stream
                if len(self._open_files) > _OPEN_FILES:
                    self._open_files.pop(next(iter(self._open_files))).close_file()

    def bound(self, streams: Collection[Holder]) -> None:
        """Have the streams that hold most write it out, until all is within the limit."""
        while self._held_bytes > self._limit_bytes:
            largest = max(streams, key=lambda stream: stream.held_bytes)
            self.changing(largest, largest.flush)
