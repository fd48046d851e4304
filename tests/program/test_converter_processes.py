"""However many processes convert records, the tables are the same, and none outlives the run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .harness import Emulator, Running, Target, eventually, is_alive, record, schema, state

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

ROWS = 15_000
KEYS = 700
PADDING = "x" * 300
"""Some four megabytes in all: several blocks."""


def numbered(stream: str, numbers: Iterable[int], keys: int) -> list[bytes]:
    return [record(stream, id=n % keys, text=f"{n} {PADDING}") for n in numbers]


def seen(emulator: Emulator, stream: str) -> list[tuple[int, int]]:
    """Return keys and numbers of all rows."""
    found = emulator.query(
        f'SELECT id, split_part("text", \' \', 1) FROM local."{stream}" ORDER BY 1, 2'
    )
    return sorted((int(key or 0), int(number or 0)) for key, number in found)


def newest(numbers: int) -> list[tuple[int, int]]:
    return sorted({n % KEYS: n for n in range(numbers)}.items())


def converters(running: Running) -> set[int]:
    """Return the processes that convert records for a run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if parent == running.process.pid:
            found.add(int(path.parent.name))
    return found


def with_converters(target: Target, stream: str, processes: int = 2) -> tuple[Running, set[int]]:
    """Start a run, and wait until its processes are there."""
    running = target.start(converter_processes=processes, load_method="append-only")
    running.write(schema(stream), *numbered(stream, range(100), KEYS))
    eventually(lambda: len(converters(running)) == processes, "the processes are started")
    running.write(*numbered(stream, range(100, ROWS), KEYS))
    return running, converters(running)


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_each_record_is_a_row(
    target: Target, emulator: Emulator, stream: str, processes: int
) -> None:
    name = f"{stream}_{processes}"
    target.load(
        schema(name),
        *numbered(name, range(ROWS), KEYS),
        state({"n": 1}),
        converter_processes=processes,
        load_method="append-only",
    )
    assert seen(emulator, name) == sorted((n % KEYS, n) for n in range(ROWS))


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_the_last_row_of_each_key_stays(
    target: Target, emulator: Emulator, stream: str, processes: int
) -> None:
    first, second = f"{stream}_{processes}", f"{stream}_{processes}_b"
    half = ROWS // 2
    ended = target.load(
        schema(first),
        *numbered(first, range(half), KEYS),
        state({"n": 1}),
        schema(second),
        *numbered(second, range(half), KEYS),
        *numbered(first, range(half, ROWS), KEYS),
        state({"n": 2}),
        converter_processes=processes,
    )
    assert ended.states[-1] == b'{"n": 2}'  # the other may come out before it
    assert seen(emulator, first) == newest(ROWS)
    assert seen(emulator, second) == newest(half)


def test_a_checkpoint_takes_what_all_processes_hold(
    target: Target, emulator: Emulator, stream: str
) -> None:
    running = target.start(converter_processes=2, checkpoint_interval_minutes=0.01)
    running.write(schema(stream), *numbered(stream, range(ROWS), KEYS), state({"n": 1}))
    eventually(lambda: b'{"n": 1}' in running.out(), "a checkpoint lets the state out")
    assert seen(emulator, stream) == newest(ROWS)
    assert len(converters(running)) == 2
    running.write(*numbered(stream, range(ROWS, ROWS + 5_000), KEYS), state({"n": 2}))
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert ended.states[-1] == b'{"n": 2}'
    assert seen(emulator, stream) == newest(ROWS + 5_000)


# --- nothing is left


def none_left(processes: set[int]) -> bool:
    return not any(map(is_alive, processes))


def test_no_process_is_left_behind_a_good_run(target: Target, stream: str) -> None:
    running, processes = with_converters(target, stream, 3)
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert none_left(processes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_no_process_is_left_behind_a_signal(
    target: Target, emulator: Emulator, stream: str, number: signal.Signals, code: int
) -> None:
    running, processes = with_converters(target, stream)
    for pid in processes:  # Ctrl-C reaches all of them
        os.kill(pid, number)
    running.signal(number)
    ended = running.wait(close=False)
    assert ended.code == code, ended.err
    assert none_left(processes)
    assert emulator.count(stream) is None


def test_no_process_is_left_behind_a_fault_of_the_input(
    target: Target, emulator: Emulator, stream: str
) -> None:
    running, processes = with_converters(target, stream)
    running.write(b"no JSON")
    ended = running.wait()
    assert ended.code == 4
    assert f"ine {ROWS + 2} " in ended.last_words
    assert none_left(processes)
    assert emulator.count(stream) is None


def test_no_process_is_left_behind_a_run_that_is_killed(target: Target, stream: str) -> None:
    running, processes = with_converters(target, stream)
    running.signal(signal.SIGKILL)
    running.wait()
    eventually(lambda: none_left(processes), "the processes end by themselves")
    target.load(schema(stream), *numbered(stream, range(3), KEYS))  # and the next run cleans up


def test_a_run_ends_when_one_of_its_processes_is_killed(
    target: Target, emulator: Emulator, stream: str
) -> None:
    running, processes = with_converters(target, stream)
    os.kill(min(processes), signal.SIGKILL)
    running.write(*numbered(stream, range(100), KEYS))
    ended = running.wait()
    assert ended.code == 7
    assert "[TC-LIMIT-09]" in ended.last_words
    assert "SIGKILL" in ended.last_words
    assert PADDING[:20] not in ended.err
    assert none_left(processes)
    assert emulator.count(stream) is None
