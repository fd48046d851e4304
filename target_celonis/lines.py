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
from typing import IO, Any

from target_celonis.errors import InputError

BLOCK_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIPE_BYTES = 1 << 20
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
        self._buffer = bytearray(BLOCK_BYTES)
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

    def read(self) -> bytes | None:
        """Return the next bytes: empty at the end, None when nothing came for a while."""
        if self._fd is not None:
            watched = [self._fd] if self._wake_fd is None else [self._fd, self._wake_fd]
            ready, _, _ = select.select(watched, [], [], self._idle_seconds)
            if self._fd not in ready:
                return None
        got = self._file.readinto(self._buffer)  # type: ignore[attr-defined]  # raw or BytesIO
        return None if got is None else bytes(memoryview(self._buffer)[:got])


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
