"""A file as a multipart body, read from disk piece by piece.

``requests`` would read the whole file into memory. Guarantees: one part, with its length known
beforehand, so that it is not sent in pieces of unknown number; each ``open`` begins anew, so that a
request can be repeated; a file that is gone, cannot be read or changes its size on the way is a
``LimitError``, and its body is never sent whole. Must not know: what is in the file.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, BinaryIO

from target_celonis.clock import Clock, StoppedError
from target_celonis.errors import LimitError

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
        """Return the body from its beginning; reading it ends when the clock is stopped.

        Raises:
            LimitError: The file is gone or cannot be read.
        """
        try:
            file = self._path.open("rb")
        except OSError as error:
            raise _unreadable(self._path, error) from None
        return _Body(self._path, self._head, file, self._tail, clock)


class _Body:
    """A file-like body with a known length, as ``requests`` streams it."""

    def __init__(self, path: Path, head: bytes, file: BinaryIO, tail: bytes, clock: Clock) -> None:
        self._path = path
        self._head = head
        self._file = file
        self._tail = tail
        self._clock = clock
        self._size = self._left = os.fstat(file.fileno()).st_size
        self._length = len(head) + self._size + len(tail)

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, none at the end; more than asked for, in few large reads.

        Raises:
            LimitError: The file cannot be read, or is no longer as long as was announced.
            StoppedError: The run is to stop.
        """
        if self._clock.stopped:
            raise StoppedError
        if self._head:
            data, self._head = self._head, b""
        elif self._left:
            data = self._piece(max(size, _READ_BYTES))
            self._left -= len(data)
        else:
            data, self._tail = self._tail, b""
            if data:
                self._piece(0)  # what is complete with its tail must be as it was
        return data

    def _piece(self, size: int) -> bytes:
        try:
            data = self._file.read(min(size, self._left))
            same = os.fstat(self._file.fileno()).st_size == self._size
        except OSError as error:
            raise _unreadable(self._path, error) from None
        if not same or (self._left and not data):
            raise LimitError(
                "TC-LIMIT-02",
                f"The chunk file {self._path} changed while it was uploaded.",
                "Let nothing else write into `spool_dir`, and run again with the last state.",
            )
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _unreadable(path: Path, error: OSError) -> LimitError:
    return LimitError(
        "TC-LIMIT-02",
        f"The chunk file {path} is gone or cannot be read ({error.strerror or 'input fault'}).",
        "Let nothing else tidy up `spool_dir`, check its disk, and run again with the last state.",
    )
