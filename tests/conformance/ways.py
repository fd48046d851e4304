"""One input read in several ways: with care, in bulk, by several converters, in odd pieces.

All of them must come to the same tables, states, counts, notes and errors.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from mmap import mmap
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from unit.test_messages import Pieces

from target_celonis.blocks import BlockConverter, Rows
from target_celonis.clock import FakeClock
from target_celonis.config import parse
from target_celonis.converter_orders import WorkShare
from target_celonis.converter_process import serve
from target_celonis.converters import Converters
from target_celonis.dry_run import DryRun
from target_celonis.errors import InputError, TargetCelonisError
from target_celonis.feed import Feed
from target_celonis.lines import Blocks, Source
from target_celonis.loader import Loader
from target_celonis.mapping import StreamMapper
from target_celonis.message_parser import MessageParser
from target_celonis.messages import RecordRun, SchemaMessage, watch_time
from target_celonis.metadata import METADATA_COLUMNS
from target_celonis.pusher import Pusher
from target_celonis.run_directory import RunDirectory
from target_celonis.table import plan_table, widen
from target_celonis.typed import Intake

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.converter_start import Child, Memory
    from target_celonis.converters import Start
    from target_celonis.stream_rules import ColumnRule
    from target_celonis.table import TablePlan


@dataclass(frozen=True)
class Way:
    """How an input is read.

    Attributes:
        is_fast: Whether records are decoded in bulk.
        converters: How many converters there are beside the reading one.
        sizes: Sizes of the pieces in which the input comes, the last for ever; all at once if none.
        aim_bytes: Size of a block, if not the usual one.
    """

    is_fast: bool = True
    converters: int = 0
    sizes: tuple[int, ...] = ()
    aim_bytes: int | None = None


CAREFUL = Way(is_fast=False)
WAYS = (Way(), Way(converters=1), Way(converters=3))


@dataclass
class Result:
    """What an input came to."""

    tables: dict[str, tuple[str, list[tuple[Any, ...]]]] = field(default_factory=dict)
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    notes: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)
    states: list[bytes] = field(default_factory=list)
    error: tuple[str, str, str] | None = None


class Thread:
    """A converter that runs in a thread: the same code and the same socket, and quickly there."""

    pid = None

    def __init__(self, connection: Connection, memory: mmap) -> None:
        self._thread = threading.Thread(target=self._serve, args=(connection, memory))
        self._thread.start()

    @staticmethod
    def _serve(connection: Connection, memory: mmap) -> None:
        with connection, memory:
            serve(connection, memory)

    def wait(self, seconds: float | None = None) -> int | None:
        self._thread.join(seconds)
        return None

    def end(self) -> None:
        self._thread.join()


def start_thread(memory: Memory) -> tuple[Connection, Child]:
    ours, theirs = socket.socketpair()
    thread = Thread(Connection(theirs.detach()), mmap(memory.fd, memory.size_bytes))
    return Connection(ours.detach()), thread


def read(
    data: bytes, way: Way, directory: Path, start: Start = start_thread, **settings: Any
) -> Result:
    """Read an input, as far as the chunks that would be uploaded."""
    directory.mkdir()
    given = {
        "base_url": "embedded",
        "spool_dir": str(directory / "spool"),
        "trust_end_of_input": True,
    }
    config = parse(given | settings, {})
    clock = FakeClock()
    result = Result()
    run_directory = RunDirectory(config.spool_dir, clock)
    share = WorkShare(way.converters, True, 50_000_000, config.chunk_size_bytes, "int96")  # noqa: FBT003  # at once
    converters = Converters(share, run_directory, start)
    keep = directory / "kept"
    pusher = Pusher(DryRun(config, keep), 1)
    loader = Loader(
        config, run_directory, pusher, clock, result.states.append, converters=converters
    )
    feed = Feed(
        config,
        StreamMapper(config, clock),
        loader,
        converters=converters,
        changes=None,
        clock=clock,
        is_fast=way.is_fast,
        block_bytes=way.aim_bytes,
    )
    try:
        feed.run(Source(Pieces(data, *(way.sizes or (1 << 30,)))), lambda: False)
        loader.finish()
    except TargetCelonisError as error:
        result.error = error.code, error.message, error.next_step
        loader.settle_after_failure()
    finally:
        converters.close()
        pusher.close()
    for report in loader.reports():
        result.counts[report.stream] = (
            report.read,
            report.loaded,
            report.merged,
            report.deleted,
            report.superseded,
            report.filtered,
            report.not_loaded,
        )
        result.notes[report.stream] = dict(report.rules)
    for table in sorted(keep.glob("*")):
        result.tables[table.name] = _table(table)
    run_directory.close()
    return result


def _table(directory: Path) -> tuple[str, list[tuple[Any, ...]]]:
    """Return a table's schema, and its rows in an order of their own."""
    schemas = set()
    rows: list[tuple[Any, ...]] = []
    for path in sorted(directory.glob("*.parquet")):
        with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
            table = file.read()
        schemas.add(str(table.schema))
        job = path.name[:3]
        rows += [(job, *map(repr, row.values())) for row in table.to_pylist()]
    (schema,) = schemas
    return schema, sorted(rows)


@dataclass
class Decoded:
    """What the lines of an input came to, before anything is made of it."""

    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    notes: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    times: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    others: list[Any] = field(default_factory=list)
    error: tuple[str, str, str] | None = None


def decode(
    data: bytes,
    way: Way,
    rules: Sequence[ColumnRule] = (),
    *,
    adds_metadata: bool = False,
    watches_time: bool = False,
    **intake: bool,
) -> Decoded:
    """Read an input, as far as converted rows; without other converters."""
    parser = MessageParser(keep_time_extracted=adds_metadata, watch_time_extracted=watches_time)
    converter = BlockConverter(parser, is_fast=way.is_fast)
    blocks = Blocks(Source(Pieces(data, *(way.sizes or (1 << 30,)))), 50_000_000, way.aim_bytes)
    decoded = Decoded()
    plans: dict[str, TablePlan] = {}
    try:
        for block in blocks.read():
            if block is None:
                continue
            for item in converter.convert(block.data, 1_700_000_000.25, last=block.is_last):
                if isinstance(item, Rows):
                    _take_rows(item, decoded)
                elif isinstance(item, RecordRun):
                    raise InputError("TC-INPUT-05", item.place(0))
                else:
                    decoded.others.append(item)
                if isinstance(item, SchemaMessage):
                    name, schema = item.stream, item.schema
                    if adds_metadata:
                        schema = {"properties": schema["properties"] | METADATA_COLUMNS}
                    plan = plan_table(name, "t", schema, item.key_properties, rules)
                    plan = plans[name] = widen(plans[name], plan) if name in plans else plan
                    more = {"adds_metadata": adds_metadata, "watches_time": watches_time}
                    converter.set_stream(Intake(name, plan, started_at=7, **more, **intake))
    except TargetCelonisError as error:
        decoded.error = error.code, error.message, error.next_step
    decoded.others.sort(key=lambda message: message.line)
    return decoded


def _take_rows(rows: Rows, decoded: Decoded) -> None:
    found = decoded.rows.setdefault(rows.stream, [])
    before = len(found)
    for batch, deleted in rows.batches:
        gone = [False] * batch.num_rows if deleted is None else deleted.to_pylist()
        columns = [map(repr, column.to_pylist()) for column in batch.columns]
        found += zip(gone, [rows.version] * batch.num_rows, *columns, strict=True)
    assert len(found) - before == rows.count > 0
    assert rows.last_sequence - rows.first_sequence >= rows.count - 1
    decoded.notes.setdefault(rows.stream, Counter()).update(rows.notes.counts)
    times = decoded.times.setdefault(rows.stream, {})
    for text in rows.extracted.values():
        watch_time(text, times)
