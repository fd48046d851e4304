"""Bytes become blocks of whole lines, of a size worth reading and not too late."""

from __future__ import annotations

import io
import os
import threading
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.lines import Block, Blocks, LongLineError, Source

from .test_messages import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1_000_000


def read(reading: Blocks) -> Iterator[Block | None]:
    """Yield blocks that can be kept: one may be good only until the next is read."""
    for block in reading.read():
        yield block and Block(bytes(block.data), block.is_last)


def blocks(data: bytes, *sizes: int, aim: int = 100, limit: int = LIMIT) -> list[Block | None]:
    return list(read(Blocks(Source(Pieces(data, *sizes)), limit, aim)))


@pytest.mark.parametrize(
    ("data", "tail"),
    [
        (b"", b""),
        (b"a", b"a"),
        (b"a\n", b""),
        (b"a\nb", b"b"),
        (b"\n\n", b""),
    ],
)
def test_only_a_line_without_its_end_is_the_last(data: bytes, tail: bytes) -> None:
    *whole, last = blocks(data, 1000)
    assert last == Block(tail, is_last=True)
    assert b"".join(block.data for block in whole if block) == data.removesuffix(tail)
    assert not any(block.is_last for block in whole if block)


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"x")), max_size=40),
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.integers(1, 90),
)
@settings(deadline=None)
def test_no_byte_is_lost_and_no_line_is_cut(lines: list[bytes], sizes: list[int], aim: int) -> None:
    data = b"\n".join(lines)
    found = blocks(data, *sizes, aim=aim)
    seen = [block for block in found if block is not None]
    assert b"".join(block.data for block in seen) == data
    assert all(block.data.endswith(b"\n") for block in seen[:-1])
    assert [block.is_last for block in seen] == [False] * (len(seen) - 1) + [True]


def test_lines_are_gathered_to_the_size_that_is_aimed_at() -> None:
    data = b"123456789\n" * 50
    found = blocks(data, 15, aim=100)
    sizes = [len(block.data) for block in found if block and block.data]
    assert sum(sizes) == len(data)
    assert all(100 <= size <= 120 for size in sizes[:-1])


def test_the_size_can_be_changed_on_the_way() -> None:
    reading = Blocks(Source(Pieces(b"123456789\n" * 100, 10)), LIMIT, 50)
    found = read(reading)
    sizes = [len(next(found).data)]  # type: ignore[union-attr]  # no wait
    reading.aim_bytes = 200
    sizes += [len(next(found).data) for _ in range(2)]  # type: ignore[union-attr]
    assert sizes == [50, 200, 200]


def test_a_file_is_read_by_the_usual_size() -> None:
    reading = Blocks(Source(io.BytesIO(b"123456789\n" * 300_000)), LIMIT)
    (first, *_) = read(reading)
    assert first is not None
    assert abs(len(first.data) - reading.aim_bytes) < 1_000


@pytest.mark.parametrize("limit", [100, 999])
def test_a_line_that_is_too_long_is_refused(limit: int) -> None:
    reading = Blocks(Source(Pieces(b"a\nb\n" + b"x" * 1_100, 50)), limit, 10)
    seen: list[Block | None] = []
    with pytest.raises(LongLineError):
        seen.extend(read(reading))
    assert b"".join(block.data for block in seen if block) == b"a\nb\n"


def test_a_long_line_within_the_limit_is_whole() -> None:
    data = b"a\n" + b"x" * 900 + b"\nb\n"
    assert b"".join(block.data for block in blocks(data, 50, aim=10, limit=1_000) if block) == data


# --- pipes


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb", buffering=0) as file,
        os.fdopen(writing, "wb", buffering=0) as writer,
    ):
        yield file, writer


def test_who_is_waited_for() -> None:
    with pipe() as (file, writer):
        reading = Blocks(Source(file, idle_seconds=0.05), LIMIT, 100)
        found = read(reading)
        writer.write(b"123456789\n" * 10)
        assert next(found) == Block(b"123456789\n" * 10)
        assert reading.is_waited_for
        writer.write(b"slow\n")
        assert next(found) == Block(b"slow\n")  # not more came, and it is not kept waiting
        assert not reading.is_waited_for
        assert next(found) is None


def test_a_silent_pipe_says_so_and_keeps_the_half_line() -> None:
    with pipe() as (file, writer):
        found = read(Blocks(Source(file, idle_seconds=0.01), LIMIT, 100))
        assert next(found) is None
        writer.write(b"ha")
        assert next(found) is None
        writer.write(b"lf\nrest")
        assert next(found) == Block(b"half\n")
        assert next(found) is None
        writer.close()
        assert list(found) == [Block(b"rest", is_last=True)]


def test_lines_that_drip_in_are_not_gathered_for_long() -> None:
    stop = threading.Event()

    def drip(writer: IO[bytes]) -> None:
        while not stop.wait(0.02):
            writer.write(b"x\n")

    with pipe() as (file, writer):
        thread = threading.Thread(target=drip, args=(writer,))
        thread.start()
        try:
            started = time.monotonic()
            block = next(read(Blocks(Source(file, idle_seconds=5), LIMIT)))
            waited = time.monotonic() - started
        finally:
            stop.set()
            thread.join()
    assert block is not None
    assert set(bytes(block.data).splitlines()) == {b"x"}
    assert waited < 3
