"""A file as a multipart body, read from disk piece by piece.

``requests`` would read the whole file into memory. Guarantees: one part, with its length known
beforehand, so that it is not sent in pieces of unknown number; each ``open`` begins anew, so that a
request can be repeated. Must not know: what is in the file.
"""

from __future__ import annotations

import io
import os
import secrets
from typing import TYPE_CHECKING, BinaryIO

from target_celonis.clock import Clock, StoppedError

if TYPE_CHECKING:
    from pathlib import Path

_READ_BYTES = 1 << 18


class FilePart:
    """A multipart body of one file, read from disk piece by piece.

    Args:
        path: The file.
        name: Name of the form's field, also sent as the file's name.
    """

    def __init__(self, path: Path, name: str = "file") -> None:
        boundary = secrets.token_hex(16)  # no content can hold it by chance or by design
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._path = path
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()

    def open(self, clock: Clock) -> _Body:
        """Return the body from its beginning; reading it ends when the clock is stopped."""
        return _Body(self._head, self._path.open("rb"), self._tail, clock)


class _Body:
    """A file-like body with a known length, as ``requests`` streams it."""

    def __init__(self, head: bytes, file: BinaryIO, tail: bytes, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._parts: list[BinaryIO] = [io.BytesIO(head), file, io.BytesIO(tail)]
        self._length = len(head) + os.fstat(file.fileno()).st_size + len(tail)

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, none at the end; more than asked for, in few large reads."""
        if self._clock.stopped:
            raise StoppedError
        while self._parts:
            data = self._parts[0].read(max(size, _READ_BYTES))
            if data:
                return data
            self._parts.pop(0)
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
