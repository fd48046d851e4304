"""How much is read at a time, and when others are asked to help."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from target_celonis.blocks import BlockConverter, Rows
from target_celonis.clock import FakeClock
from target_celonis.converter_orders import WorkShare
from target_celonis.converter_start import can_fork
from target_celonis.converters import Converters
from target_celonis.kinds import Kind
from target_celonis.lines import Blocks, Source
from target_celonis.message_parser import MessageParser
from target_celonis.reading import _WORTH_A_START, Reader
from target_celonis.run_directory import RunDirectory
from target_celonis.typed import Intake

from .chunks import plan_of

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from target_celonis.converter_start import Child, Memory

AIM_BYTES = 100_000
RECORDS = 3_000


class Starts:
    """Counts the processes that are asked for; none can be had."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, memory: Memory) -> tuple[Connection, Child]:
        self.count += 1
        raise OSError(memory.fd, "none")


def read(directory: Path, columns: int, data: bytes) -> tuple[Blocks, int, Starts]:
    """Read an input; return its blocks, how many rows they had, and the starts that there were."""
    run_directory = RunDirectory(directory / "spool", FakeClock())
    starts = Starts()
    share = WorkShare(2, False, 50_000_000, 1_000_000, "int96")  # noqa: FBT003  # not at once
    converters = Converters(share, run_directory, starts)
    blocks = Blocks(Source(io.BytesIO(data)), 10**6, AIM_BYTES)
    reader = Reader(blocks, BlockConverter(MessageParser()), converters, FakeClock())
    reader.set_stream(Intake("s", plan_of({f"c{n}": Kind.INTEGER for n in range(columns)}, "c0")))
    rows = sum(found.count for found in reader.messages() if isinstance(found, Rows))
    converters.close()
    run_directory.close()
    return blocks, rows, starts


def records(columns: int, count: int = RECORDS) -> bytes:
    values = b",".join(b'"c%d":1000' % n for n in range(columns))
    return b'{"type":"RECORD","stream":"s","record":{%b}}\n' % values * count


@pytest.mark.parametrize(("columns", "grows"), [(3, False), (100, True)])
def test_blocks_grow_where_many_columns_share_them(
    tmp_path: Path, columns: int, grows: bool
) -> None:
    data = records(columns)
    blocks, rows, _ = read(tmp_path, columns, data)
    assert len(data) > 2 * AIM_BYTES
    assert rows == RECORDS
    assert (blocks.aim_bytes > AIM_BYTES) == grows


def test_others_are_started_where_the_tap_is_the_faster_one(tmp_path: Path) -> None:
    worth = _WORTH_A_START[can_fork()]
    line = records(3, 1)
    for blocks, expected in ((worth - 1, 0), (worth + 1, 1)):
        data = line * (blocks * AIM_BYTES // len(line))
        directory = tmp_path / str(blocks)
        directory.mkdir()
        _, rows, starts = read(directory, 3, data)
        assert rows == len(data) // len(line)
        assert starts.count == expected
