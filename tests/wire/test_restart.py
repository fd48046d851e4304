"""What is done about runs that were killed, and what is said of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis.clock import FakeClock
from target_celonis.journal import Account, JournalJob, Step
from target_celonis.restart import Inheritance, doubled, settle_dead_runs
from target_celonis.run_directory import RunDirectory

from .conftest import POOL
from .server import Reply, WireServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from target_celonis.celonis import Celonis

PLACE = ("host", POOL, "")


class DeadRunMaker:
    """Leaves runs behind as a kill does: their locks are free, and nothing was tidied up."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._jobs = 0

    def __call__(self, *jobs: dict[str, Any], released_line: int = 0) -> list[str]:
        run = RunDirectory(self._base, FakeClock(), PLACE)
        names = []
        for job in jobs:
            self._jobs += 1
            about = {"job": f"job-{self._jobs}", "table": "orders", "rows": 3} | job
            names.append(about["job"])
            created = {key: about[key] for key in ("job", "table", "rows")}
            more = {"type": "DELTA", "appends": job.get("appends", False), "last_line": 9}
            run.journal.note(Step.JOB_CREATED, **created, **more)
            if job.get("executed"):
                run.journal.note(Step.EXECUTE_MEANT, job=about["job"])
            if job.get("done"):
                run.journal.note(Step.DONE, job=about["job"], rows=3)
        if released_line:
            run.journal.note(Step.STATE_RELEASED, line=released_line)
        run.journal.close()
        for dead in run.dead_runs:
            dead.leave()
        os.close(run._lock)
        return names


@pytest.fixture
def leave(tmp_path: Path) -> DeadRunMaker:
    return DeadRunMaker(tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], RunDirectory]]:
    """Start the next run, once the test has left dead ones."""
    started: list[RunDirectory] = []

    def begin() -> RunDirectory:
        while started:
            started.pop().close()
        started.append(RunDirectory(tmp_path, FakeClock(), PLACE))
        return started[-1]

    yield begin
    for run in started:
        run.close()


def settle(run: RunDirectory, celonis: Celonis) -> Inheritance:
    return settle_dead_runs(run.dead_runs, celonis, run.journal)


def deleted(wire: WireServer) -> list[str]:
    return [request.path.rsplit("/", 1)[-1] for request in wire.of("delete")]


def shown(**states: str) -> dict[str, Reply]:
    return {
        job.replace("_", "-"): Reply(200, {"id": job, "status": s}) for job, s in states.items()
    }


def answer_by_job(wire: WireServer, replies: dict[str, Reply]) -> None:
    plain = wire.reply_to

    def reply_to(kind: str, method: str, target: str, headers: dict[str, str]) -> Reply:
        if kind == "show":
            return replies.get(target.rsplit("/", 1)[-1], Reply(404))
        return plain(kind, method, target, headers)

    wire.reply_to = reply_to  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("state", "goes", "inherited"),
    [
        ("NEW", True, False),
        ("QUEUED", False, True),
        ("RUNNING", False, True),
        ("STRANGE", False, True),
        ("DONE", True, False),
        ("ERROR", True, False),
        ("CANCELED", True, False),
        (None, False, False),
    ],
)
def test_what_becomes_of_a_job_of_a_dead_run(
    wire: WireServer,
    celonis: Celonis,
    leave: DeadRunMaker,
    start: Callable[[], RunDirectory],
    tmp_path: Path,
    state: str | None,
    *,
    goes: bool,
    inherited: bool,
) -> None:
    leave({"executed": True})
    answer_by_job(wire, shown(job_1=state) if state else {})
    run = start()
    found = settle(run, celonis)
    assert deleted(wire) == (["job-1"] if goes else [])
    assert found.running_job_ids == ({"job-1"} if inherited else frozenset())
    assert found.notices == ()
    assert wire.of("execute") == []
    assert list(tmp_path.glob("run-*")) == [run.path]  # the dead one is gone


def test_only_jobs_of_the_journal_are_asked_for(
    wire: WireServer, celonis: Celonis, leave: DeadRunMaker, start: Callable[[], RunDirectory]
) -> None:
    leave({}, {"executed": True})
    leave({})
    answer_by_job(wire, shown(job_1="NEW", job_2="RUNNING", job_3="NEW", job_4="NEW"))
    found = settle(start(), celonis)
    assert sorted(deleted(wire)) == ["job-1", "job-3"]
    assert found.running_job_ids == {"job-2"}
    assert set(wire.kinds()) == {"show", "delete"}
    assert len(wire.of("show")) == 3


@pytest.mark.parametrize(
    "reply", [Reply(503), Reply(403), Reply(drop="read"), Reply(200, "x")], ids=repr
)
def test_what_cannot_be_settled_is_left_for_the_next_run(
    wire: WireServer,
    celonis: Celonis,
    leave: DeadRunMaker,
    start: Callable[[], RunDirectory],
    tmp_path: Path,
    reply: Reply,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leave({"executed": True, "appends": True})
    wire.answer("show", *[reply] * 6)
    run = start()
    found = settle(run, celonis)
    assert found.notices == ()
    assert len([r for r in caplog.records if "for a later run" in r.getMessage()]) == 1
    assert len(list(tmp_path.glob("run-*"))) == 2
    wire.script["show"].clear()  # from now on it is DONE
    again = settle(start(), celonis)
    assert deleted(wire) == ["job-1"]
    assert len(again.notices) == 1
    assert len(list(tmp_path.glob("run-*"))) == 1


def test_what_was_appended_is_told_once(
    wire: WireServer,
    celonis: Celonis,
    leave: DeadRunMaker,
    start: Callable[[], RunDirectory],
    caplog: pytest.LogCaptureFixture,
) -> None:
    leave(
        {"executed": True, "done": True, "appends": True, "table": "stands"},
        {"executed": True, "appends": True, "table": "may"},
        {"executed": True, "appends": True, "table": "was_new"},
        {"appends": True, "table": "never_executed"},
        {"executed": True, "done": True, "table": "keyed"},
        {"executed": True, "appends": True, "table": "ended"},
    )
    answer_by_job(
        wire, shown(job_1="DONE", job_2="RUNNING", job_3="NEW", job_4="NEW", job_6="DONE")
    )
    run = start()
    stands, may, ended = settle(run, celonis).notices
    assert "Table ended:" in ended
    assert "they stand there twice" in ended
    assert "Table stands:" in stands
    assert "they stand there twice" in stands
    assert "job-1" in stands
    assert "3 rows" in stands
    assert "Table may:" in may
    assert "they may stand there twice" in may
    for notice in (stands, may, ended):
        assert "which was cut off," in notice
        assert [r.levelname for r in caplog.records if r.getMessage() == notice] == ["WARNING"]
    # The one that runs is this run's to see to, or the next one's, and told no more.
    later = start()
    assert [list(run.account.jobs) for run in later.dead_runs] == [["job-2"]]
    assert settle(later, celonis).notices == ()


def test_what_lies_before_the_released_state_does_not_stand_twice(
    wire: WireServer, celonis: Celonis, leave: DeadRunMaker, start: Callable[[], RunDirectory]
) -> None:
    leave({"executed": True, "done": True, "appends": True}, released_line=9)
    assert settle(start(), celonis).notices == ()
    assert deleted(wire) == ["job-1"]


def test_nothing_is_asked_without_dead_runs(
    wire: WireServer, celonis: Celonis, start: Callable[[], RunDirectory]
) -> None:
    found = settle(start(), celonis)
    assert (found.running_job_ids, found.notices) == (frozenset(), ())
    assert wire.seen == []


@pytest.mark.parametrize(("done", "said"), [(True, "; they stand "), (False, "; they may stand ")])
def test_sentences_of_what_stands_twice(*, done: bool, said: str) -> None:
    job = JournalJob("j-7", "orders", 12, appends=True, last_line=5, executed=True, done=done)
    (line,) = doubled(Account(jobs={"j-7": job}, released_line=4), "this run")
    for part in ("Table orders: this run appended 12 rows", "j-7", said, "twice"):
        assert part in line
    assert doubled(Account(jobs={"j-7": job}, released_line=5), "this run") == []


def test_a_lock_is_closed_once(
    wire: WireServer,
    celonis: Celonis,
    leave: DeadRunMaker,
    start: Callable[[], RunDirectory],
    tmp_path: Path,
) -> None:
    """Its number may be that of another file by the end of the run."""
    leave({})
    answer_by_job(wire, shown(job_1="NEW"))
    run = start()
    settle(run, celonis)
    others = [os.open(tmp_path, os.O_RDONLY) for _ in range(20)]
    start()
    for other in others:
        os.close(other)  # it is still there
