"""Blocks of bytes become lines, and lines become JSON where a tap's printer was careless.

Hides a pipe that falls silent, lines split over blocks, and what Python's JSON printers write that
is no JSON (NaN, lone surrogates). Guarantees: no byte is lost or read twice; memory is bounded by
the block and the longest line allowed. Must not know: messages, streams, files of a run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from target_celonis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIPE_BYTES = 1 << 20
_AIM_BYTES = 1 << 20
_LARGEST_BUFFER_BYTES = 1 << 22
_GATHER_SECONDS = 0.25
"""How long lines are gathered at most, where they come slowly."""
_F_SETPIPE_SZ = 1031  # not in fcntl before Python 3.10, Linux only


class Source:
    """Where the bytes come from.

    Args:
        file: A file; a text file's buffer is taken.
        wake_fd: A file descriptor that becomes readable when waiting must end at once.
        idle_seconds: How long a read waits before it says that nothing came.
    """

    def __init__(
        self, file: IO[Any], wake_fd: int | None = None, idle_seconds: float = 1.0
    ) -> None:
        binary = getattr(file, "buffer", file)
        self._file: IO[bytes] = getattr(binary, "raw", binary)
        if isinstance(file, io.StringIO):
            self._file = io.BytesIO(file.read().encode())
        self._wake_fd = wake_fd
        self._idle_seconds = idle_seconds
        self._first: bytes | None = None
        self._fd = self._selectable_fd()

    def _selectable_fd(self) -> int | None:
        if os.name != "posix":
            return None
        try:
            fd = self._file.fileno()
        except (OSError, AttributeError, io.UnsupportedOperation):
            return None
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # absent on Windows

            fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        return fd

    def is_ready(self, wait_seconds: float | None = None) -> bool:
        """Wait a while for bytes, or the end; return whether a read would find them.

        Args:
            wait_seconds: How long to wait, if not as long as ever.
        """
        if self._fd is None:
            return True
        watched = [self._fd] if self._wake_fd is None else [self._fd, self._wake_fd]
        wait = self._idle_seconds if wait_seconds is None else wait_seconds
        ready, _, _ = select.select(watched, [], [], min(wait, self._idle_seconds))
        return self._fd in ready

    def begin(self) -> bool:
        """Wait a while for the first bytes, which ``read`` is to return; return if they came."""
        self._first = self.read()
        return self._first is not None

    def read(self, wait_seconds: float | None = None) -> bytes | None:
        """Return the next bytes: empty at the end, None when nothing came for a while.

        Args:
            wait_seconds: How long to wait, if not as long as ever.
        """
        buffer = bytearray(BLOCK_BYTES)
        got = self.read_into(memoryview(buffer), wait_seconds)
        return None if got is None else bytes(memoryview(buffer)[:got])

    def read_into(self, buffer: memoryview, wait_seconds: float | None = None) -> int | None:
        """Put the next bytes into a buffer; return how many: 0 at the end, None when none came.

        Args:
            buffer: Where they go; not empty.
            wait_seconds: How long to wait, if not as long as ever.
        """
        if self._first is not None:
            first, rest = self._first[: len(buffer)], self._first[len(buffer) :]
            self._first = rest or None
            buffer[: len(first)] = first
            return len(first)
        if not self.is_ready(wait_seconds):
            return None
        got: int | None = self._file.readinto(buffer)  # type: ignore[attr-defined]  # raw or BytesIO
        return got


class LongLineError(Exception):
    """A line is longer than may be."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines.

    Attributes:
        data: The lines; a view is good until the next block is read.
        is_last: Whether the end of the input came behind them, and may have cut the last.
    """

    data: bytes | memoryview
    is_last: bool = False


class Blocks:
    """Gathers whole lines, so that many can be read at a time.

    Args:
        source: Where the bytes come from.
        line_limit_bytes: No line may be longer.
        aim_bytes: Size of a block to begin with, if not the usual one.

    Attributes:
        line_limit_bytes: As given.
        aim_bytes: Size of a block, but for the lines that its ends fall into.
        is_waited_for: Whether more was there at once when the last block was read: who takes the
            blocks is slower than who writes them.
    """

    def __init__(self, source: Source, line_limit_bytes: int, aim_bytes: int | None = None) -> None:
        self.line_limit_bytes = line_limit_bytes
        self.aim_bytes = aim_bytes or _AIM_BYTES
        self.is_waited_for = False
        self._source = source
        # One buffer for all blocks: a new one each time would cost more than to read into it.
        self._buffer = bytearray(self.aim_bytes)
        self._filled = 0
        self._whole = 0  # where its last whole line ends

    def read(self) -> Iterator[Block | None]:
        """Yield blocks to the end of the input; None whenever nothing came for a while.

        A block is good until the next is asked for.

        Raises:
            LongLineError: A line is too long.
        """
        since = time.monotonic()
        while (got := self._read_more()) != 0:
            if not self._filled:
                since = time.monotonic()
            self._take(got or 0)
            enough = self._filled >= self.aim_bytes
            late = got is None or time.monotonic() - since >= _GATHER_SECONDS
            if self._whole and (enough or late):
                self.is_waited_for = enough and not late
                yield Block(self._lines())
                self._keep_rest()
                since = time.monotonic()
            if got is None:
                yield None
            elif not self._whole and self._filled > self.line_limit_bytes:
                raise LongLineError
        self.is_waited_for = False
        if self._whole:
            yield Block(self._lines())
            self._keep_rest()
        yield Block(bytes(memoryview(self._buffer)[: self._filled]), is_last=True)

    def _read_more(self) -> int | None:
        """Read into the buffer, behind what it holds."""
        if self._filled == len(self._buffer):
            larger = bytearray(2 * len(self._buffer))
            larger[: self._filled] = self._buffer
            self._buffer = larger
        wait_seconds = _GATHER_SECONDS if self._whole else None
        return self._source.read_into(memoryview(self._buffer)[self._filled :], wait_seconds)

    def _take(self, count: int) -> None:
        """Take note of bytes that were read."""
        end = self._filled + count
        self._whole = self._buffer.rfind(b"\n", self._filled, end) + 1 or self._whole
        self._filled = end

    def _lines(self) -> bytes | memoryview:
        """Return the whole lines; a very long one is not held in the buffer, too."""
        lines = memoryview(self._buffer)[: self._whole]
        if self._whole <= _LARGEST_BUFFER_BYTES:
            return lines
        own = bytes(lines)
        rest = self._buffer[self._whole : self._filled]
        self._buffer = bytearray(max(self.aim_bytes, len(rest) + 1))
        self._buffer[: len(rest)] = rest
        self._filled, self._whole = len(rest), 0
        return own

    def _keep_rest(self) -> None:
        """Go on with what is behind the last whole line."""
        rest = self._buffer[self._whole : self._filled]
        if len(self._buffer) < self.aim_bytes:
            self._buffer = bytearray(self.aim_bytes)
        self._buffer[: len(rest)] = rest
        self._filled, self._whole = len(rest), 0


class LineSplitter:
    """Blocks in, whole lines out.

    Lists of lines are in reverse, so that whoever takes them can let go of each line as it is
    read: a line may take a quarter of all memory, and few copies of it may live at a time.

    Attributes:
        held_bytes: Size of the line that has no end yet.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self._held: list[bytes] = []

    def add(self, block: bytes) -> list[bytes]:
        """Take a block; return the lines that are whole by now, the last one first."""
        end = block.rfind(b"\n") + 1
        lines: list[bytes] = []
        if end:
            self._held.append(block[:end])
            lines = self.rest()
        if end < len(block):
            self._held.append(block[end:])
            self.held_bytes += len(block) - end
        return lines

    def rest(self) -> list[bytes]:
        """Return the lines of all that is held, the last one first; at the end, it has no end."""
        lines = b"".join(self._held).split(b"\n")
        self._held.clear()
        self.held_bytes = 0
        if not lines[-1]:
            lines.pop()  # behind the last line end
        lines.reverse()
        return lines


def line_too_long(subject: str, limit_bytes: int) -> InputError:
    """Return the refusal of a line; the subject says which."""
    return InputError(
        "TC-INPUT-09",
        f"{subject} is longer than {limit_bytes // 1_000_000} MB.",
        "Raise `memory_limit_mb`; a line may take a quarter of it.",
    )


_STRING_OR_CONSTANT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?Infinity|NaN')
_LONE_SURROGATE = re.compile(
    rb"(\\\\)|(\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def repair(line: bytes) -> tuple[bytes, int, int]:
    """Make JSON of what Python's ``json`` and ``simplejson`` print in its place.

    Returns:
        The line with NaN and infinities as null and lone surrogates as U+FFFD, and how many of
        each there were.
    """
    not_finite = surrogates = 0

    def surrogate(match: re.Match[bytes]) -> bytes:
        nonlocal surrogates
        if match.group(1) or match.group(2):
            return match.group(0)
        surrogates += 1
        return rb"\ufffd"

    def token(match: re.Match[bytes]) -> bytes:
        nonlocal not_finite
        found = match.group(0)
        if found.startswith(b'"'):
            return _LONE_SURROGATE.sub(surrogate, found)
        not_finite += 1
        return b"null"

    return _STRING_OR_CONSTANT.sub(token, line), not_finite, surrogates
