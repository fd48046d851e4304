"""Receiving a chunk: a multipart body streamed to a file.

Hides: multipart parsing, hashing, writing off the event loop. Guarantees: the body is never held
in memory; the file is complete when :func:`receive` returns, and the caller's to remove when it
raises. Must not know: jobs, Parquet.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO, Final

from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from celonis_emulator.refusals import Refusal, invalid, too_large

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from python_multipart.multipart import MultipartCallbacks

_BLOCK_BYTES: Final = 1 << 20
PART_NAME: Final = "file"


async def receive(
    body: AsyncIterator[bytes], content_type: str, path: Path, limit_bytes: int
) -> str:
    """Write the part ``file`` of a multipart body to ``path`` and return its MD5.

    Raises:
        Refusal: 400 for a body of another form, 413 above the limit.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise _malformed("The chunk must be sent as multipart/form-data.")
    with path.open("wb") as target:
        sink = _PartSink(target, limit_bytes)
        parser = MultipartParser(boundary, sink.callbacks())
        pending = bytearray()
        try:
            async for block in body:
                pending += block
                if len(pending) >= _BLOCK_BYTES:
                    await to_thread.run_sync(parser.write, bytes(pending))
                    pending.clear()
            await to_thread.run_sync(parser.write, bytes(pending))
        except FormParserError as error:
            msg = "The multipart body is malformed."
            raise _malformed(msg) from error
        if not sink.ended:
            raise _malformed("The multipart body ends too early.")
        if not sink.found:
            raise _malformed(f"The multipart body has no part named {PART_NAME}.")
    return sink.digest.hexdigest()


def _malformed(message: str) -> Refusal:
    return invalid(PART_NAME, message, "MULTIPART_EXPECTED")


class _PartSink:
    """Takes the parser's events; writes the wanted part and drops the others."""

    def __init__(self, target: BinaryIO, limit_bytes: int) -> None:
        self._target = target
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._header = b""
        self._value = b""
        self._wanted = False
        self.found = False
        self.ended = False
        # The checksum is not a safeguard: no other algorithm is claimed for it.
        self.digest = hashlib.md5(usedforsecurity=False)

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._wanted = False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            # Of several parts with the name the first one counts.
            self._wanted = options.get(b"name") == PART_NAME.encode() and not self.found
            self.found = self.found or self._wanted
        self._header = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._wanted:
            return
        self._size_bytes += end - start
        if self._size_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        piece = memoryview(data)[start:end]
        self._target.write(piece)
        self.digest.update(piece)

    def _end(self) -> None:
        self.ended = True
