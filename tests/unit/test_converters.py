"""The processes that convert blocks: real ones, and what becomes of a run when they fail."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis.batch import Notes
from target_celonis.blocks import BlockConverter, Rows
from target_celonis.clock import FakeClock
from target_celonis.converter_orders import Ready, Setup, WorkShare
from target_celonis.converter_start import Memory, _environment, fork, launch
from target_celonis.converters import Converters, Process, _memory_file
from target_celonis.errors import LimitError
from target_celonis.kinds import Kind
from target_celonis.lines import Blocks, Source
from target_celonis.message_parser import MessageParser
from target_celonis.messages import StateMessage
from target_celonis.reading import Reader
from target_celonis.run_directory import RunDirectory
from target_celonis.typed import Intake

from .chunks import batch_of, plan_of, read
from .loading import running

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from target_celonis.converters import Flight, Start
    from target_celonis.spool import Chunk

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

PATIENCE_SECONDS = 30
INTAKE = Intake("s", plan_of({"id": Kind.INTEGER, "t": Kind.TEXT}, "id"))
STATE = b'{"type":"STATE","value":{"n":1}}\n'
SCHEMA = b'{"type":"SCHEMA","stream":"s","schema":{"properties":{}},"key_properties":[]}\n'
SECRET_VALUE = "p4tient-n4me"


def records(numbers: Iterable[int], text: str = "x") -> bytes:
    return b"".join(
        b'{"type":"RECORD","stream":"s","record":{"id":%d,"t":"%b"}}\n' % (n, text.encode())
        for n in numbers
    )


@pytest.fixture(params=[fork, launch])
def start(request: pytest.FixtureRequest) -> Start:
    return request.param  # type: ignore[no-any-return]


@contextmanager
def started(
    directory: Path, start: Start, processes: int = 1, *, at_once: bool = True
) -> Iterator[tuple[Converters, RunDirectory]]:
    before = children()
    run_directory = RunDirectory(directory / "spool", FakeClock())
    share = WorkShare(processes, at_once, 50_000_000, 1_000_000, "int96")
    converters = Converters(share, run_directory, start)
    try:
        converters.start()
        converters.look()
        if converters.is_running:
            converters.set_streams([INTAKE])
        yield converters, run_directory
    finally:
        converters.close()
        run_directory.close()
    assert children() == before


def children() -> set[int]:
    """Return the processes that this one started, also those that wait to be reaped."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(words[1]) == os.getpid():
            found.add(int(path.parent.name))
    return found


def pid_of(converters: Converters, number: int = 0) -> int:
    pid = converters._processes[number]._child.pid
    assert pid is not None
    return pid


def keep(converters: Converters, flight: Flight, order: int) -> int:
    """Keep all rows of a block; return how many."""
    converted = converters.converted(flight)
    assert converted.items is not None
    rows = [item for item in converted.items if isinstance(item, Rows)]
    for each in rows:
        converters.keep(each, order)
    converters.forget(flight)
    return sum(each.count for each in rows)


def ids(chunks: Iterable[Chunk]) -> list[int]:
    return [row["id"] for chunk in chunks for row in read([chunk])]


# --- what they do


def test_a_block_is_converted_and_kept(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start) as (converters, run_directory):
        assert converters.is_running
        assert not converters.can_start
        flight = converters.convert(records([1, 2]) + STATE + records([3]), 0.0)
        (rows, state) = converters.converted(flight).items or ()
        assert isinstance(rows, Rows)
        assert isinstance(state, StateMessage)
        assert (rows.count, rows.first_sequence, rows.last_sequence) == (3, 1, 4)
        assert (rows.batches, state.line) == ([], 3)
        converters.keep(rows, 1)
        converters.forget(flight)
        other = converters.convert(records([4]), 0.0)
        assert keep(converters, other, 9) == 1
        (chunk,) = converters.finish("s")
        assert ids([chunk]) == [1, 2, 3, 4]
        assert chunk.spans == ((1, 3), (9, 1))
        assert run_directory.path in chunk.path.parents
        assert run_directory.room.used_bytes() > chunk.size_bytes
        assert "chunk closed" in run_directory.journal.path.read_text()
        assert converters.finish("s") == []


def test_what_is_not_asked_for_is_not_kept(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start) as (converters, run_directory):
        forgotten = converters.convert(records([1]), 0.0)
        converters.converted(forgotten)
        converters.forget(forgotten)
        assert keep(converters, converters.convert(records([2]), 0.0), 1) == 1
        converters.abandon("s")
        assert keep(converters, converters.convert(records([3]), 0.0), 2) == 1
        assert ids(converters.finish("s")) == [3]
        assert len(list(run_directory.path.rglob("*.parquet"))) == 1


@pytest.mark.parametrize(
    "data",
    [
        records([1]) + SCHEMA,
        records([1]) + b"no JSON\n",
        records([1]).replace(b'"id":1', b'"id":"p4tient-n4me"'),
    ],
)
def test_what_needs_more_is_left_to_the_other_process(
    start: Start, tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path, start) as (converters, _):
        flight = converters.convert(data, 0.0)
        assert converters.converted(flight).items is None
        assert converters.data(flight) == data
        converters.forget(flight)
        assert keep(converters, converters.convert(records([2]), 0.0), 1) == 1
        for number in range(3):
            assert Path(f"/proc/{pid_of(converters)}/fd/{number}").readlink() == Path("/dev/null")
    assert capfd.readouterr() == ("", "")


def test_blocks_are_spread_and_their_order_is_told(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start, 2) as (converters, _):
        flights = [converters.convert(records([n]), 0.0) for n in range(4)]
        assert [flight.process for flight in flights] == [0, 1, 0, 1]
        for order, flight in enumerate(flights, 1):
            keep(converters, flight, order)
        found = converters.finish("s")
        assert [ids([chunk]) for chunk in found] == [[0, 2], [1, 3]]
        assert [chunk.spans for chunk in found] == [((1, 1), (3, 1)), ((2, 1), (4, 1))]


def test_there_is_room_for_so_many_blocks(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start) as (converters, _):
        flights = []
        while converters.has_room:
            flights.append(converters.convert(records([len(flights)]), 0.0))
        assert len(flights) == 8
        keep(converters, flights[0], 1)
        assert converters.has_room
        again = converters.convert(records([9]), 0.0)
        assert [keep(converters, flight, 2) for flight in (*flights[1:], again)] == [1] * 8
        assert ids(converters.finish("s")) == [0, 1, 2, 3, 4, 5, 6, 7, 9]


def test_there_is_room_for_so_many_bytes(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start) as (converters, _):
        flights = []
        while converters.has_room:
            flights.append(converters.convert(records([0]) + b" " * 3_900_000, 0.0))
        assert len(flights) == 4
        for flight in flights:
            keep(converters, flight, 1)
        assert converters.has_room


@pytest.mark.timeout(60)
def test_neither_waits_for_the_other_when_both_have_much_to_say(
    tmp_path: Path, start: Start
) -> None:
    with started(tmp_path, start) as (converters, _):
        states = b'{"type":"STATE","value":{"a":"%b"}}\n' % (b"x" * 10_000)
        flight = converters.convert(states * 300, 0.0)  # more than what a socket holds
        for _ in range(50_000):
            converters.forget(flight, frees_slot=False)
        converters.convert(records([1]), 0.0)  # with all that was posted
        assert len(converters.converted(flight).items or ()) == 300


def test_they_are_ready_when_they_are(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start, 2, at_once=False) as (converters, _):
        clock = 0
        while not converters.is_running:
            clock += 1
            assert clock < PATIENCE_SECONDS * 100
            signal.sigtimedwait([], 0.01)  # a short pause
            converters.look()
        converters.set_streams([INTAKE])
        assert keep(converters, converters.convert(records([1]), 0.0), 1) == 1


# --- when they fail


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_is_killed_ends_the_run(
    tmp_path: Path, start: Start, number: signal.Signals
) -> None:
    with started(tmp_path, start, 2) as (converters, _):
        flight = converters.convert(records([1], SECRET_VALUE), 0.0)
        keep(converters, flight, 1)
        os.kill(pid_of(converters), number)
        with pytest.raises(LimitError, match="TC-LIMIT-09") as caught:
            converters.finish("s")
        assert number.name in str(caught.value)
        assert SECRET_VALUE not in str(caught.value)
        with pytest.raises(LimitError, match="TC-LIMIT-09"):
            converters.convert(records([2]), 0.0)  # the first has least to do


def test_a_disk_that_is_gone_is_one_sentence(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start) as (converters, run_directory):
        (run_directory.path / "converter-0").write_text("in the way")
        keep(converters, converters.convert(records([1]), 0.0), 1)
        with pytest.raises(LimitError, match="TC-LIMIT-02") as caught:
            converters.finish("s")
        assert caught.value.exit_code == 7
        assert str(run_directory.path) in str(caught.value)


def test_what_went_wrong_is_known_though_it_has_ended(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start) as (converters, run_directory):
        (run_directory.path / "converter-0").write_text("in the way")
        flight = converters.convert(records([1]), 0.0)
        (rows,) = converters.converted(flight).items or ()
        assert isinstance(rows, Rows)
        converters.keep(rows, 1)
        converters.convert(records([2]), 0.0)
        assert converters._processes[0]._child.wait(PATIENCE_SECONDS) == 0
        with pytest.raises(LimitError, match="TC-LIMIT-02"):
            converters.convert(records([3]), 0.0)


def test_signals_are_for_the_other_process(tmp_path: Path, start: Start) -> None:
    with started(tmp_path, start) as (converters, _):
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid_of(converters), number)
            assert keep(converters, converters.convert(records([1]), 0.0), 1) == 1
        assert ids(converters.finish("s")) == [1, 1]


def test_it_ends_when_the_other_process_has(tmp_path: Path, start: Start) -> None:
    memory_fd = _memory_file()
    os.ftruncate(memory_fd, 4096)
    share = WorkShare(
        1, at_once=True, memory_bytes=1, chunk_limit_bytes=1, timestamp_encoding="int96"
    )
    process = Process(Setup(0, tmp_path, share), Memory(memory_fd, 4096), start)
    os.close(memory_fd)
    assert process.answer() == Ready()
    process._connection.close()
    assert process._child.wait(PATIENCE_SECONDS) == 0
    process.end()


def test_a_new_python_knows_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGET_CELONIS_API_KEY", "s3cr3t")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not [name for name in _environment() if name.startswith("TARGET_CELONIS")]
    with started(tmp_path, launch) as (converters, _):
        seen = Path(f"/proc/{pid_of(converters)}/environ").read_bytes()
    assert b"TARGET_CELONIS" not in seen
    assert b"s3cr3t" not in seen
    assert b"MALLOC_ARENA_MAX=2" in seen


def test_nothing_of_the_other_process_stays_open(tmp_path: Path, start: Start) -> None:
    with (tmp_path / "open").open("wb"), started(tmp_path, start, 2) as (converters, _):
        for number in range(2):
            links = Path(f"/proc/{pid_of(converters, number)}/fd").iterdir()
            found = [str(link.readlink()).partition(":")[0] for link in links]
            assert set(found) == {"/dev/null", "/memfd", "socket"}
            assert found.count("socket") == 1


def test_a_copy_is_made_only_where_no_other_thread_is() -> None:
    program = (
        "import threading\n"
        "from target_celonis.converter_start import can_fork\n"
        "alone = can_fork()\n"
        "end = threading.Event()\n"
        "threading.Thread(target=end.wait).start()\n"
        "print(alone, can_fork())\n"
        "end.set()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ended.stdout == b"True False\n"


# --- doing without


def through(converters: Converters, data: bytes) -> list[Any]:
    """Return what a reader says of an input, in small blocks."""
    converter = BlockConverter(MessageParser())
    reader = Reader(Blocks(Source(io.BytesIO(data)), 10**6, 50), converter, converters, FakeClock())
    reader.set_stream(INTAKE)
    return [
        (item.count, [batch.to_pylist() for batch, _ in item.batches])
        if isinstance(item, Rows)
        else item
        for item in reader.messages()
    ]


def _no_fork() -> int:
    raise OSError(errno.EAGAIN, "no more processes")


@pytest.mark.parametrize("program", ["", "/nowhere/python", "/bin/false", "no copy"])
def test_without_processes_all_is_the_same(
    tmp_path: Path,
    program: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = records(range(100)) + STATE + records(range(50))
    with started(tmp_path, launch, 0) as (converters, _):
        expected = through(converters, data)
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(os, "fork", _no_fork)
    caplog.set_level(logging.INFO, "target-celonis")
    with started(tmp_path, fork if program == "no copy" else launch, 2) as (converters, _):
        assert not converters.is_running
        assert not converters.can_start
        assert through(converters, data) == expected
    (said,) = [record for record in caplog.records if "one process" in record.getMessage()]
    assert said.levelno == logging.INFO


# --- what a stream says of the order of its rows


class Kept:
    """Takes the place of processes, and remembers what was kept."""

    def __init__(self) -> None:
        self.orders: list[int] = []

    def keep(self, _: Rows, order: int) -> None:
        self.orders.append(order)

    def finish(self, _: str) -> list[Chunk]:
        return []


def test_rows_are_told_apart_only_where_another_process_had_some_between(tmp_path: Path) -> None:
    kept = Kept()
    holders = [None, None, 0, 0, 1, 1, 0, None, None, 0]
    with running(tmp_path) as run:
        run.schema("s", "id")
        stream = run.loader._streams["s"]
        stream._converters = kept  # type: ignore[assignment]  # as much as is needed
        for line, holder in enumerate(holders, 2):
            rows = Rows("s", None, 1, line, line, Notes())
            if holder is None:
                batch = batch_of(stream.plan, [{"line": line, "id": line}])
                rows.batches = [(batch, None)]
            else:
                rows.ticket = holder, 1, 0
            stream.take_rows(rows)
        stream.close_writer()
        (chunk,) = stream._chunks
    assert kept.orders == [4, 4, 6, 6, 8, 11]
    assert chunk.spans == ((0, 2), (9, 2))
