"""Killed at any moment, and run again with the last state: the tables do not tell."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from target_celonis.journal import Step

from .harness import (
    Emulator,
    Running,
    Target,
    eventually,
    is_alive,
    rows,
    schema,
    start_emulator,
    state,
    syncing,
)
from .pipeline import ROUNDS, SETTINGS, Pipeline, Tap, endure, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .pipeline import Table

_names = (f"kill_{n}" for n in itertools.count(1))


@pytest.fixture(scope="module")
def celonis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One for all tests here; runs that lost their spool leave jobs behind in it."""
    started = start_emulator(tmp_path_factory.mktemp("celonis"), "--conflict-scope", "table")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def slow_celonis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Jobs are QUEUED for a while here, and RUNNING for a while."""
    options = ("--queued-seconds", "1.5", "--running-seconds", "1.5")
    started = start_emulator(tmp_path_factory.mktemp("slow"), *options)
    yield started
    started.stop()


@pytest.fixture
def pipeline(celonis: Emulator, make_target: Callable[..., Target]) -> Callable[..., Pipeline]:
    """Make pipelines on tables of their own."""
    return lambda **about: make_pipeline(celonis, make_target(**celonis.settings), **about)


def make_pipeline(celonis: Emulator, target: Target, **about: Any) -> Pipeline:
    return Pipeline(target, Tap(next(_names), **about), lambda name: read(celonis, name))


# --- undisturbed


@pytest.mark.parametrize("whole_first", [False, True])
def test_undisturbed(
    pipeline: Callable[..., Pipeline], celonis: Emulator, *, whole_first: bool
) -> None:
    """Two runs as they should be, so that all that is found below is by the kill."""
    whole = pipeline(whole_first=whole_first)
    for _ in range(2):
        whole.run()
        whole.check_tables()
        assert whole.doubled == 0
        assert whole.announced() == {}
    assert [job for job in celonis.history(*whole.tap.tables) if not job["deleted"]] == []
    appends = [job for job in celonis.history(whole.tap.table("appended")) if job["submits"]]
    # There were checkpoints in the midst; but what cannot let a state out is appended at the end.
    assert len(appends) == 1 if whole_first else len(appends) >= ROUNDS


# --- at each transition of the journal

ENDS_BADLY = Step.ENDED_BADLY.name
LATER = {
    "RUN_OPENED": (1,),
    "STATE_MEANT": (1, 2, 3),
    "STATE_RELEASED": (1, 2, 3),
    "PRINTED": (1, 2, 3),
    "CHUNK_CLOSED": (1, 5, 10),
    ENDS_BADLY: (1, 2),
}
"""How often a run surely comes by; all else belongs to a push job, of which there are ten."""

POINTS = [*(step.name for step in Step), "PRINTED"]
APPENDING = ("JOB_CREATED", "EXECUTE_MEANT", "EXECUTED", "DONE", "JOB_DELETED")
"""Here it matters most what becomes of a job whose rows must not come twice unseen."""

SOME = [
    ("RUN_OPENED", "before", 1, True),
    ("CHUNK_CLOSED", "after", 5, False),
    ("JOB_MEANT", "before", 3, True),
    ("JOB_CREATED", "after", 1, True),
    ("CHUNK_CONFIRMED", "before", 6, False),
    ("EXECUTE_MEANT", "after", 1, False),
    ("EXECUTE_MEANT@appended", "before", 2, True),
    ("EXECUTED@whole", "before", 1, False),
    ("DONE@appended", "before", 1, True),
    ("ENDED_BADLY@appended", "after", 1, True),
    ("JOB_DELETED@appended", "before", 2, False),
    ("STATE_MEANT", "after", 1, True),
    ("PRINTED", "after", 2, False),
    ("STATE_RELEASED", "before", 2, True),
]


def every_point() -> Iterator[tuple[str, str, int, bool]]:
    for point in POINTS:
        numbers = [(point, n) for n in LATER.get(point, (1, 5, 10))]
        if point in APPENDING:
            numbers += [(f"{point}@appended", n) for n in (1, 3)]
            numbers += [(f"{point}@whole", 1)]
        for name, number in numbers:
            for when in ("before", "after"):
                for keep_spool in (True, False):
                    if (name, when, number, keep_spool) not in SOME:
                        yield name, when, number, keep_spool


def killed_at(pipeline: Pipeline, celonis: Emulator, point: str, when: str, number: int) -> None:
    """Run until a point, at which the process is gone."""
    name, at, stream = point.partition("@")
    if name == ENDS_BADLY:  # of a job whose rows are in the table nevertheless
        table = pipeline.tap.table(stream) if at else f"{pipeline.tap.prefix}_*"
        celonis.fault(
            {"job": {"table": table, "status": "ERROR", "after_chunks": 1}, "times": number}
        )
    point = f"{name}{at}{pipeline.tap.table(stream) if at else ''}"
    ended = pipeline.run(point, when, str(number))
    assert ended.code == -signal.SIGKILL, ended.err


@pytest.mark.parametrize(
    ("point", "when", "number", "keep_spool"),
    [*SOME, *(pytest.param(*case, marks=pytest.mark.slow) for case in every_point())],
)
def test_killed_at(
    pipeline: Callable[..., Pipeline],
    celonis: Emulator,
    point: str,
    when: str,
    number: int,
    *,
    keep_spool: bool,
) -> None:
    # What overwrites holds back all states when it comes first: then more is sent again.
    killed = pipeline(whole_first=number == 1 and when == "before" and point.endswith("@appended"))
    killed_at(killed, celonis, point, when, number)
    endure(killed, celonis, keep_spool=keep_spool)


# --- more than once


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("EXECUTED@appended", "after", 1), ("DROPPED", "after", 1)),
        (("DONE@appended", "before", 2), ("JOB_DELETED@appended", "before", 1)),
        *(
            pytest.param(("EXECUTE_MEANT@appended", when, 1), second, marks=pytest.mark.slow)
            for when in ("before", "after")
            for second in [
                ("DELETED", "before", 1),
                ("DELETED", "after", 1),
                ("DROPPED", "before", 1),
                ("EXECUTED@appended", "after", 1),
                ("EXECUTED@whole", "after", 1),
                ("PRINTED", "after", 1),
            ]
        ),
    ],
)
@pytest.mark.parametrize("keep_spool", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_killed_twice(
    pipeline: Callable[..., Pipeline],
    celonis: Emulator,
    first: tuple[str, str, int],
    second: tuple[str, str, int],
    *,
    keep_spool: bool,
) -> None:
    """Also: killed while it settles what the run before it left."""
    killed = pipeline()
    killed_at(killed, celonis, *first)
    killed.note_death()
    killed_at(killed, celonis, *second)
    # Of a job that is gone by now nobody can tell any more that it was NEW.
    killed.in_doubt |= first[:2] == ("EXECUTE_MEANT@appended", "after")
    endure(killed, celonis, keep_spool=keep_spool)


# --- at random moments


def random_moments() -> Iterator[Any]:
    chosen = random.Random(20240531)  # noqa: S311  # the same ones every time
    for number in range(68):
        after_requests = chosen.randint(1, 90) if number % 2 else None
        after_seconds = chosen.uniform(0, 2.5)
        about = (after_requests, after_seconds, chosen.random() < 0.5, chosen.random() < 0.3)
        yield pytest.param(*about, id=f"{number}", marks=[pytest.mark.slow] * (number >= 8))


@pytest.mark.parametrize(
    ("after_requests", "after_seconds", "keep_spool", "whole_first"), list(random_moments())
)
def test_killed_at_a_random_moment(
    pipeline: Callable[..., Pipeline],
    celonis: Emulator,
    after_requests: int | None,
    after_seconds: float,
    *,
    keep_spool: bool,
    whole_first: bool,
) -> None:
    """So many requests after it began, or so many seconds after it was open."""
    killed = pipeline(whole_first=whole_first)
    before = asked(celonis)
    opened: list[float] = []

    def moment(_: Running) -> bool:
        if after_requests is not None:
            return asked(celonis) - before >= after_requests
        if not opened and killed.journal():
            opened.append(time.monotonic())
        return bool(opened) and time.monotonic() - opened[0] >= after_seconds

    if killed.run(moment=moment).code == 0:  # it was faster
        killed.check_tables()
        killed.run(pauses=False)
        killed.check_tables()
    else:
        endure(killed, celonis, keep_spool=keep_spool)


def asked(celonis: Emulator) -> int:
    """Return how many requests came that are not those of tests."""
    found = celonis.requests().items()
    return sum(count for (_, path), count in found if not path.startswith("/_emulator"))


# --- while Celonis is at work


@pytest.mark.parametrize(
    ("method", "status", "keep_spool"),
    [
        ("overwrite", "RUNNING", True),
        ("append-only", "QUEUED", True),
        pytest.param("overwrite", "QUEUED", False, marks=pytest.mark.slow),
        pytest.param("append-only", "RUNNING", False, marks=pytest.mark.slow),
    ],
)
def test_what_a_dead_run_executed_is_waited_for(
    slow_celonis: Emulator,
    make_target: Callable[..., Target],
    method: str,
    status: str,
    *,
    keep_spool: bool,
) -> None:
    """So its REPLACE never comes over the newer one."""
    stream = next(_names)
    target = make_target(**slow_celonis.settings, load_method=method)
    running, later = target.start(), target.start(killed_at=("NEVER", "before", "0"))
    running.write(schema(stream), *rows(stream, range(3), "old"), syncing(None))
    assert running.process.stdin is not None
    running.process.stdin.close()
    eventually(
        lambda: [j for j in slow_celonis.history(stream) if j["status"] == status],
        "the job is under way",
    )
    eventually(later.err, "the next run may begin")
    running.signal(signal.SIGKILL)
    running.wait(close=False)
    if not keep_spool:
        shutil.rmtree(target.spool)

    later.write(schema(stream), *rows(stream, range(3), "new"), syncing(None))
    ended = later.wait()
    assert ended.code == 0, ended.err
    dead, fresh = slow_celonis.history(stream)
    assert (dead["status"], dead["submits"], dead["deleted"]) == ("DONE", 1, keep_spool)
    assert fresh["executed_ms"] >= dead["finished_ms"]
    waited = f"{dead['id']} of another run is" in ended.err and "waiting for its end" in ended.err
    assert waited or dead["finished_ms"] <= fresh["created_ms"]
    if method == "overwrite":
        assert slow_celonis.texts(stream) == dict.fromkeys(range(3), "new")
    else:
        assert slow_celonis.count(stream) == 6
        assert (f"appended 3 rows (push job {dead['id']})" in ended.err) == keep_spool
        assert ("knows of no earlier run" in ended.err) != keep_spool


def test_a_state_is_printed_when_its_job_is_done(
    slow_celonis: Emulator, make_target: Callable[..., Target]
) -> None:
    """The process is gone the moment it has printed, and the job takes its time."""
    stream = next(_names)
    target = make_target(**slow_celonis.settings)
    running = target.start(killed_at=("PRINTED", "after", "1"))
    running.write(schema(stream), *rows(stream, range(3)), state({"n": 3}))
    ended = running.wait()
    assert (ended.code, ended.states) == (-signal.SIGKILL, [b'{"n": 3}'])
    assert slow_celonis.count(stream) == 3
    assert [job["status"] for job in slow_celonis.history(stream)] == ["DONE"]


# --- several pipelines


def test_living_runs_beside_a_dead_one(
    celonis: Emulator, make_target: Callable[..., Target], tmp_path: Path
) -> None:
    settings = celonis.settings | {"spool_dir": str(tmp_path / "spool")}
    living = {next(_names): make_target(**settings) for _ in range(2)}
    running = {name: target.start(**SETTINGS) for name, target in living.items()}
    for name, run in running.items():
        load_some(run, name, range(3))
    doomed = make_target(**settings)
    stream = next(_names)
    killed = doomed.start(killed_at=("EXECUTED", "after", "1"))
    killed.write(schema(stream), *rows(stream, range(3)))
    assert killed.wait().code == -signal.SIGKILL

    ended = doomed.load(schema(stream), *rows(stream, range(4)), state({"n": 4}))
    assert ended.err.count("was ended in its midst") == 1
    assert f"process {killed.process.pid})" in ended.err
    assert celonis.count(stream) == 4
    for name, run in running.items():
        assert run.process.poll() is None
        load_some(run, name, range(3, 6))
        ended = run.wait()
        assert ended.code == 0, ended.err
        assert celonis.count(name) == 6
    assert not list((tmp_path / "spool").glob("run-*"))
    tables = [stream, *living]
    assert [job for job in celonis.history(*tables) if not job["deleted"]] == []


def load_some(running: Running, stream: str, numbers: Sequence[int]) -> None:
    """Have records loaded, and wait for the state behind them."""
    last = state({"n": max(numbers)})
    running.write(schema(stream), *rows(stream, numbers))

    def is_out() -> bool:
        running.write(last)
        return json.dumps({"n": max(numbers)}).encode() in running.out()

    eventually(is_out, "the rows are loaded")


def test_a_table_has_one_writer(celonis: Emulator, make_target: Callable[..., Target]) -> None:
    stream = next(_names)
    target = make_target(**celonis.settings)
    first = target.start(**SETTINGS)
    load_some(first, stream, range(3))
    jobs = celonis.history(stream)
    second = make_target(**celonis.settings, spool_dir=str(target.spool))
    later = second.start()
    later.write(schema(stream), *rows(stream, [1], "of the second"))
    ended = later.wait(close=False)  # at once, and not at the end of its input
    assert ended.code == 7
    assert ended.last_words.startswith("target-celonis: [TC-LIMIT-04]")
    assert celonis.history(stream) == jobs
    assert celonis.texts(stream) == dict.fromkeys(range(3), "a")
    assert first.wait().code == 0


# --- with a Celonis of its own


@pytest.mark.parametrize(
    ("point", "when", "number"),
    [
        ("EXECUTED@appended", "after", 2),
        pytest.param("EXECUTE_MEANT@whole", "before", 1, marks=pytest.mark.slow),
        pytest.param("STATE_MEANT", "after", 2, marks=pytest.mark.slow),
    ],
)
def test_killed_with_its_own_celonis(
    make_target: Callable[..., Target], point: str, when: str, number: int
) -> None:
    target = make_target(base_url="embedded")
    killed = Pipeline(target, Tap(next(_names)), lambda name: read_file(target, name))
    name, at, stream = point.partition("@")
    table = f"{at}{killed.tap.table(stream)}" if at else ""
    children: set[int] = set()

    def never(_: Running) -> bool:
        for path in target.spool.glob("run-*/emulator.json"):
            with suppress(ValueError):  # in the making
                children.add(json.loads(path.read_text())["pid"])
        return False

    killed.run(f"{name}{table}", when, str(number), moment=never)
    killed.note_death()
    (child,) = children
    eventually(lambda: not is_alive(child), "the child ends")
    killed.run(pauses=False)
    killed.check_tables()
    # A job that was under way when its Celonis went may be loaded, or not.
    assert sum(killed.announced().values()) >= killed.doubled


def read_file(target: Target, name: str) -> Table | None:
    """Read a table of an embedded Celonis once the database is free."""
    path = target.directory / "celonis.duckdb"
    if not path.exists():
        return None

    def opened() -> duckdb.DuckDBPyConnection | None:
        with suppress(duckdb.IOException):
            return duckdb.connect(str(path), read_only=True)
        return None

    with eventually(opened, "nobody holds the database") as connection:
        known = "SELECT 1 FROM information_schema.tables WHERE lower(table_name) = lower(?)"
        if not connection.execute(known, [name]).fetchall():
            return None
        return connection.execute(f'SELECT id, seq FROM local."{name}"').fetchall()
