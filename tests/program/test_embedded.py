"""The target with a Celonis of its own: a child that lives as long as the run, and no longer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import duckdb

from .harness import (
    Running,
    Target,
    eventually,
    is_alive,
    lines,
    rows,
    schema,
    state,
    syncing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def count(database: Path, table: str, place: str = "local") -> int:
    with duckdb.connect(str(database), read_only=True) as connection:
        found = connection.execute(f'SELECT count(*) FROM "{place}"."{table}"').fetchone()
    assert found is not None
    return int(found[0])


def emulator_of(target: Target) -> int:
    """Return the process id of the child, once it answers."""

    def ready() -> int:
        for path in target.spool.glob("run-*/emulator.json"):
            return int(json.loads(path.read_text())["pid"])
        return 0

    return eventually(ready, "the emulator answers")


def begin(target: Target, stream: str) -> tuple[Running, int]:
    """Start a run and return it in the middle of its reading, with its child."""
    running = target.start(checkpoint_interval_minutes=0.0001)
    running.write(schema(stream), *rows(stream, [1, 2]), state({"n": 1}))
    child = emulator_of(target)
    eventually(lambda: b'{"n": 1}' in running.out(), "the first rows are loaded")
    return running, child


def test_a_run_with_a_celonis_of_its_own(make_target: Callable[..., Target], stream: str) -> None:
    target = make_target(base_url="embedded", embedded_database="mine.duckdb", connection_id="erp")
    for _ in range(2):
        ended = target.load(schema(stream), *rows(stream, range(5)), state({"a": 1}))
        assert ended.states == [b'{"a": 1}']
    assert count(target.directory / "mine.duckdb", stream, "local_erp") == 5
    shown = subprocess.run(
        [sys.executable, "-m", "celonis_emulator", "tables", "--database", "mine.duckdb"],
        cwd=target.directory,
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert shown.count(f"local / erp / {stream}  DELTA  DONE") == 2


def test_killed_and_started_again_at_once(make_target: Callable[..., Target], stream: str) -> None:
    target = make_target(base_url="embedded")
    running, child = begin(target, stream)
    running.write(*rows(stream, [3]))
    running.signal(signal.SIGKILL)
    killed = time.monotonic()
    assert running.process.wait(10) == -signal.SIGKILL
    ended = target.run(lines(schema(stream), *rows(stream, [2, 3, 4]), state({"n": 2})))
    assert ended.code == 0, ended.err
    assert ended.states == [b'{"n": 2}']
    assert count(target.directory / "celonis.duckdb", stream) == 4
    assert not is_alive(child)
    assert time.monotonic() - killed < 60
    running.close()


def test_the_child_is_gone_within_a_second_and_holds_no_pipe_of_ours(
    make_target: Callable[..., Target], stream: str
) -> None:
    """Meltano waits until nobody holds the pipes; a child that does is waited for without end."""
    target = make_target(base_url="embedded")
    running, child = begin(target, stream)
    stdout = running.process.stdout
    assert stdout is not None
    os.kill(child, signal.SIGSTOP)
    try:
        running.signal(signal.SIGKILL)
        running.process.wait(10)
        os.set_blocking(stdout.fileno(), False)
        eventually(lambda: stdout.read(1) == b"", "end of file, though the child lives", 5)
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGCONT)
    goes_on = time.monotonic()
    eventually(lambda: not is_alive(child), "the child ends", 10)
    assert time.monotonic() - goes_on < 3
    running.close()


def test_sigterm_lets_the_child_go_as_well(make_target: Callable[..., Target], stream: str) -> None:
    target = make_target(base_url="embedded")
    running, child = begin(target, stream)
    running.write(*rows(stream, [3, 4, 5]))
    running.signal(signal.SIGTERM)
    ended = running.wait(close=False)
    assert ended.code == 143
    assert not is_alive(child)
    assert count(target.directory / "celonis.duckdb", stream) in (2, 5)


def test_a_database_that_another_run_holds(make_target: Callable[..., Target], stream: str) -> None:
    target = make_target(base_url="embedded")
    running, child = begin(target, stream)
    assert os.getsid(child) == child != os.getsid(running.process.pid)  # out of Ctrl-C's reach
    second = make_target(
        base_url="embedded", embedded_database=str(target.directory / "celonis.duckdb")
    )
    started = time.monotonic()
    ended = second.fail(2, "TC-SETTINGS-07", schema(stream), *rows(stream, [9]), state({}))
    assert time.monotonic() - started < 20
    assert str(child) in ended.last_words
    assert "celonis-emulator serve" in ended.last_words
    assert "celonis.duckdb" in ended.last_words
    assert ended.out == b""
    running.write(*rows(stream, [5]), syncing(None))
    assert running.wait().code == 0
    assert not is_alive(child)
    assert count(target.directory / "celonis.duckdb", stream) == 3


def test_the_celonis_is_set_up_by_a_file(make_target: Callable[..., Target], stream: str) -> None:
    """Also: what is wrong with the file is said as the emulator says it."""
    target = make_target(base_url="embedded", embedded_config="celonis.yaml")
    setup = target.directory / "celonis.yaml"
    setup.write_text(
        "switches: {fail-table: {broken: ERROR}}\n"
        "pools: [{id: local, data_models: [{id: model, tables: [orders]}]}]\n"
    )
    target.load(schema(stream), *rows(stream, [1, 2]))
    target.fail(6, "TC-REMOTE-04", schema("broken"), *rows("broken", [1]))
    assert count(target.directory / "celonis.duckdb", stream) == 2
    setup.write_text("pols: []\n")
    ended = target.fail(2, "TC-SETTINGS-06", schema(stream), *rows(stream, [3]))
    assert "did you mean pools?" in ended.last_words
