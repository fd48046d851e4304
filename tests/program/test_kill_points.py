"""Killed at any moment, and run again with the last state: the tables do not tell."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from target_celonis.journal import NAME, Step

from .harness import (
    Ended,
    Running,
    Target,
    eventually,
    is_alive,
    record,
    rows,
    schema,
    start_emulator,
    state,
    syncing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .harness import Emulator

Table = list[tuple[int, int]]
"""Its rows: ``id``, and ``seq``, the number of the record in its stream or of the run."""

ROUND = 4
ROUNDS = 3
LAST = ROUND * ROUNDS
WHOLE_ROWS = 6

CHANGES = {
    "upserted": [(n, True) for n in (1, 2, 3, 1, 2, 4, 1, 5, 3, 1, 6, 2)],
    "deleting": [
        *[(1, True), (2, True), (3, True), (4, True)],
        *[(1, False), (5, True), (2, True), (3, False)],
        *[(1, True), (5, False), (3, True), (4, False)],
    ],
    "appended": [(n + 1, True) for n in range(LAST)],
}
"""What the tap sends of each stream, in order: an id, and whether it is there or deleted."""

SETTINGS: dict[str, Any] = {
    "checkpoint_interval_minutes": 0.0005,
    "hard_delete": True,
    "submits_per_hour": 250,
    "streams": [
        {"match": "*_whole", "load_method": "overwrite"},
        {"match": "*_appended", "load_method": "append-only"},
    ],
}
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


# --- the tap


def after(stream: str, records: int) -> dict[int, int]:
    """Return what a table holds after so many records of its stream."""
    held: dict[int, int] = {}
    for seq, (key, is_there) in enumerate(CHANGES[stream][:records], start=1):
        held.pop(key, None)
        if is_there:
            held[key] = seq
    return held


@dataclass
class Tap:
    """Three streams in rounds, a page of each in turn, and one in full: at the end, or first."""

    prefix: str
    whole_first: bool = False

    @property
    def tables(self) -> list[str]:
        return [self.table(stream) for stream in (*CHANGES, "whole")]

    def table(self, stream: str) -> str:
        return f"{self.prefix}_{stream}"

    def portions(self, given: dict[str, Any] | None, run: int) -> Iterator[list[bytes]]:
        """Return what is printed in one go each time, going on behind a state."""
        bookmarks: dict[str, int] = dict((given or {}).get("bookmarks", {}))
        number = {"type": "integer"}
        deleted_at = {"type": ["null", "string"], "format": "date-time"}
        properties: dict[str, Any] = {"id": number, "seq": number}
        portion = [
            schema(self.table(name), properties | more)
            for name, more in [
                ("upserted", {}),
                ("deleting", {"_sdc_deleted_at": deleted_at}),
                ("appended", {}),
                ("whole", {}),
            ]
        ]
        if self.whole_first:
            portion += self._whole(bookmarks, run)
        for end in range(ROUND, LAST + 1, ROUND):
            for stream in CHANGES:
                portion += self._page(stream, bookmarks, end)
            if end < LAST and bookmarks.get("appended", 0) == end:
                yield portion
                portion = []
        if not self.whole_first:
            portion += self._whole(bookmarks, run)
        yield portion

    def _state(self, bookmarks: dict[str, int], syncing: str | None) -> bytes:
        return state({"bookmarks": dict(bookmarks), "currently_syncing": syncing})

    def _page(self, stream: str, bookmarks: dict[str, int], end: int) -> Iterator[bytes]:
        table = self.table(stream)
        if bookmarks.get(stream, 0) < end:
            yield self._state(bookmarks, table)
        for seq in range(bookmarks.get(stream, 0) + 1, end + 1):
            key, is_there = CHANGES[stream][seq - 1]
            gone = {} if is_there else {"_sdc_deleted_at": "2024-05-01T00:00:00Z"}
            yield record(table, id=key, seq=seq, **gone)
            bookmarks[stream] = seq
            if seq % 2 == 0:
                yield self._state(bookmarks, table)

    def _whole(self, bookmarks: dict[str, int], run: int) -> Iterator[bytes]:
        yield self._state(bookmarks, self.table("whole"))
        for key in range(WHOLE_ROWS):
            yield record(self.table("whole"), id=key, seq=run)
        bookmarks["whole"] = run
        yield self._state(bookmarks, None)


# --- the pipeline


@dataclass
class Pipeline:
    """The tap and the program, run again and again.

    Attributes:
        table: Reads a table; None where there is none.
        state: The last one that was printed.
        runs: How they ended.
        in_doubt: Whether a run was killed when a state may have been printed, or not.
    """

    target: Target
    tap: Tap
    table: Callable[[str], Table | None]
    state: dict[str, Any] | None = None
    runs: list[Ended] = field(default_factory=list)
    in_doubt: bool = False

    def run(
        self,
        *killed_at: str,
        moment: Callable[[Running], bool] = lambda _: False,
        pauses: bool = True,
    ) -> Ended:
        """Run once; the tap waits for each round to be loaded before it goes on."""
        running = self.target.start(killed_at=killed_at, **SETTINGS)
        stdin = running.process.stdin
        assert stdin is not None

        def is_over() -> bool:
            if moment(running):
                running.process.kill()
                running.process.wait()
            return running.process.poll() is not None

        with suppress(BrokenPipeError):
            portions = list(self.tap.portions(self.state, len(self.runs) + 1))
            for portion in portions:
                running.write(*portion)
                if pauses and portion is not portions[-1]:
                    eventually(
                        lambda last=portion[-1]: is_over() or self._has_taken(running, last),
                        "a round is loaded",
                    )
            stdin.close()
        eventually(is_over, "the run ends")
        ended = running.wait(close=False)
        assert not ended.out or ended.out.endswith(b"\n")
        if ended.states:
            self.state = json.loads(ended.states[-1])
        self.runs.append(ended)
        self._check_state()
        return ended

    def _has_taken(self, running: Running, last_state: bytes) -> bool:
        """Go on repeating a state until it comes out, or all before it is known to be loaded."""
        wanted = json.loads(last_state)["value"]
        if self.tap.whole_first:
            loaded = [
                line
                for line in self.journal()
                if line["step"] == Step.DONE and line["job"] in self._jobs_on("appended")
            ]
            begun = self.bookmark("appended")
            return begun + sum(line["rows"] for line in loaded) >= wanted["bookmarks"]["appended"]
        running.write(last_state)
        return any(json.loads(line) == wanted for line in running.out().splitlines())

    def _jobs_on(self, stream: str) -> set[str]:
        created = [line for line in self.journal() if line["step"] == Step.JOB_CREATED]
        return {line["job"] for line in created if line["table"] == self.tap.table(stream)}

    def journal(self) -> list[dict[str, Any]]:
        """Return what the journals in the spool say; a line in the making is left out."""
        found = []
        for path in sorted(self.target.spool.glob(f"run-*/{NAME}")):
            with suppress(FileNotFoundError):
                found += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return found

    def bookmark(self, stream: str) -> int:
        number: int = (self.state or {}).get("bookmarks", {}).get(stream, 0)
        return number

    def ids(self, stream: str) -> Counter[int]:
        return Counter(key for key, _ in self.table(self.tap.table(stream)) or [])

    def _check_state(self) -> None:
        """Check that everything before the last printed state is in the tables."""
        for stream in ("upserted", "deleting"):
            found = dict(self.table(self.tap.table(stream)) or [])
            behind = [after(stream, n) for n in range(self.bookmark(stream), LAST + 1)]
            for key in {key for key, _ in CHANGES[stream]}:
                assert found.get(key) in {held.get(key) for held in behind}, (stream, key)
        assert all(self.ids("appended")[key] for key, _ in self._before_state()), self.state
        whole = self.table(self.tap.table("whole")) or []
        assert not whole or len(whole) == WHOLE_ROWS
        assert {seq for _, seq in whole} in ({self.bookmark("whole")}, *self._later_wholes())

    def _later_wholes(self) -> list[set[int]]:
        started = range(self.bookmark("whole") + 1, len(self.runs) + 1)
        return [{run} for run in started] + [set()] * (not self.bookmark("whole"))

    def _before_state(self) -> list[tuple[int, bool]]:
        return CHANGES["appended"][: self.bookmark("appended")]

    def note_death(self) -> None:
        """Look at what a run left that was killed."""
        assert self.runs[-1].code == -signal.SIGKILL
        states = [line["step"] for line in self.journal() if line["step"].startswith("state ")]
        self.in_doubt |= states[-1:] == [Step.STATE_MEANT]

    def forget(self) -> None:
        """Lose the spool."""
        shutil.rmtree(self.target.spool)
        self.in_doubt = True

    def check_tables(self) -> None:
        """Check that tables with keys, and replaced ones, are as if nothing had happened."""
        assert self.runs[-1].code == 0, self.runs[-1].err
        for stream in ("upserted", "deleting"):
            found = self.table(self.tap.table(stream))
            assert found is not None
            assert sorted(found) == sorted(after(stream, LAST).items())
        whole = self.table(self.tap.table("whole"))
        assert whole is not None
        assert sorted(whole) == [(key, len(self.runs)) for key in range(WHOLE_ROWS)]
        assert set(self.ids("appended")) == set(after("appended", LAST))

    @property
    def doubled(self) -> int:
        """Return how many rows stand too often in the table that is appended to."""
        return self.ids("appended").total() - LAST

    @property
    def announced(self) -> dict[str, int]:
        """Return how many rows the logs said to stand there twice, by push job."""
        found: dict[str, int] = {}
        for ended in self.runs:
            for line in ended.err.splitlines():
                said = re.search(r"appended (\d+) rows \(push job ([^)]+)\).* twice", line)
                if said:
                    assert self.tap.table("appended") in line
                    found[said[2]] = int(said[1])
        return found


@pytest.fixture
def pipeline(celonis: Emulator, make_target: Callable[..., Target]) -> Callable[..., Pipeline]:
    """Make pipelines on tables of their own."""
    return lambda **about: make_pipeline(celonis, make_target(**celonis.settings), **about)


def make_pipeline(celonis: Emulator, target: Target, **about: Any) -> Pipeline:
    return Pipeline(target, Tap(next(_names), **about), lambda name: read(celonis, name))


def read(celonis: Emulator, name: str) -> Table | None:
    if celonis.count(name) is None:
        return None
    found = celonis.query(f'SELECT id, seq FROM local."{name}"')
    return [(int(key or 0), int(seq or 0)) for key, seq in found]


def endure(pipeline: Pipeline, celonis: Emulator, *, keep_spool: bool) -> None:
    """After a run was killed: run again, and check all that was promised."""
    tables = pipeline.tap.tables
    died = celonis.history(*tables)
    pipeline.note_death()
    meant = Counter(line["step"] for line in pipeline.journal())
    unnamed = meant[Step.JOB_MEANT] - meant[Step.JOB_CREATED]
    if not keep_spool:
        pipeline.forget()
    last = pipeline.run(pauses=False)
    pipeline.check_tables()

    now = {job["id"]: job for job in celonis.history(*tables)}
    for job in died:  # nothing of a dead run is executed
        assert now[job["id"]]["submits"] == job["submits"]
    left = [job for job in now.values() if not job["deleted"]]
    if keep_spool:
        # One that was created, and the kill came before its id could be noted.
        assert len(left) <= unnamed
        assert all(job["status"] == "NEW" for job in left)
        assert "knows of no earlier run" not in last.err or not died
    else:
        assert "knows of no earlier run" in last.err
        assert {job["id"] for job in left} <= {job["id"] for job in died}
        assert pipeline.announced == {}
    for job in left:
        if job["status"] == "NEW":
            assert re.search(f"{job['id']} is NEW and in no journal .* left alone", last.err)
    if pipeline.in_doubt and keep_spool:
        assert sum(pipeline.announced.values()) >= pipeline.doubled
    elif keep_spool:
        assert sum(pipeline.announced.values()) == pipeline.doubled


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
        assert whole.announced == {}
    assert [job for job in celonis.history(*whole.tap.tables) if not job["deleted"]] == []
    appends = [job for job in celonis.history(whole.tap.table("appended")) if job["submits"]]
    assert len(appends) >= ROUNDS  # there were checkpoints in the midst


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
        celonis.set_fault(
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
    killed = pipeline(whole_first=number % 2 == 0 and point.endswith("@appended"))
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
    ("after_requests", "after_seconds", "keep_spool", "whole_first"), random_moments()
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


@pytest.mark.parametrize("keep_spool", [True, False])
@pytest.mark.parametrize(
    ("method", "status"),
    [("overwrite", "QUEUED"), ("overwrite", "RUNNING"), ("append-only", "QUEUED")],
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
    running = target.start()
    running.write(schema(stream), *rows(stream, range(3), "old"), syncing(None))
    assert running.process.stdin is not None
    running.process.stdin.close()
    eventually(
        lambda: [j for j in slow_celonis.history(stream) if j["status"] == status],
        "the job is under way",
    )
    running.signal(signal.SIGKILL)
    running.wait(close=False)
    if not keep_spool:
        shutil.rmtree(target.spool)

    ended = target.load(schema(stream), *rows(stream, range(3), "new"), syncing(None))
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
    assert sum(killed.announced.values()) >= killed.doubled
    killed.run(pauses=False)
    killed.check_tables()
    assert "ended in its midst" not in killed.runs[-1].err


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
