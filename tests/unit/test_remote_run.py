"""What is started in Celonis: once, and its own end is waited for, not that of another."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from target_celonis.clock import FakeClock, StoppedError
from target_celonis.errors import LimitError, OutcomeUnknownError, RemoteError
from target_celonis.http import Answer
from target_celonis.remote_run import Conductor, Runnable, Sight

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS = 600.0


def sight(status: str | None, run: str | None = None) -> Sight[None]:
    return Sight(status, (run,), status in ("QUEUED", "RUNNING"), None)


OLD, NEW = sight("SUCCESS", "1"), sight("SUCCESS", "2")
OLD_RUNS, NEW_RUNS = sight("RUNNING", "1"), sight("RUNNING", "2")


@dataclass
class Thing:
    """Something that is seen like this, one after the other; the last one stays.

    ``answers`` are those to a start: a status, or an error.
    """

    sights: list[Sight[None] | Exception]
    answers: list[int | Exception] = field(default_factory=lambda: [200])
    clock: FakeClock = field(default_factory=FakeClock)
    starts: int = 0
    looks: int = 0
    on_look: Callable[[int], None] = lambda _: None

    def look(self) -> Sight[None]:
        self.looks += 1
        self.on_look(self.looks)
        seen = self.sights.pop(0) if len(self.sights) > 1 else self.sights[0]
        if isinstance(seen, Exception):
            raise seen
        return seen

    def start(self) -> Answer:
        self.starts += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, b"")

    def run(self) -> Sight[None]:
        conductor = Conductor(self.clock, TIMEOUT_SECONDS)
        runnable = Runnable("The thing", self.look, self.start)
        before, is_unknown = conductor.start(runnable)
        return conductor.finish(runnable, before, is_unknown=is_unknown)


@pytest.mark.parametrize(
    "sights",
    [
        [OLD, NEW],
        [OLD, OLD, OLD, NEW],
        [OLD, OLD, NEW_RUNS, NEW],
        [OLD, NEW_RUNS, OLD, NEW],  # one answer comes from where nothing is known of it yet
        [OLD, OLD_RUNS, OLD, NEW],
        [OLD_RUNS, OLD_RUNS, OLD, NEW],
        [sight(None), sight(None), NEW],
        [sight(None), NEW_RUNS, NEW],
    ],
)
def test_the_end_of_our_run(sights: list[Sight[None] | Exception]) -> None:
    thing = Thing(sights)
    assert thing.run() == NEW
    assert thing.starts == 1


def test_runs_that_nothing_tells_apart() -> None:
    """Then one must have been seen running before its end counts."""
    thing = Thing([sight("SUCCESS"), sight("SUCCESS"), sight("RUNNING"), sight("FAIL")])
    assert thing.run().status == "FAIL"
    with pytest.raises(LimitError):
        Thing([sight("SUCCESS")]).run()


def test_what_is_at_work_is_waited_for_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    thing = Thing([*[OLD_RUNS] * 9, OLD, NEW])
    thing.run()
    assert [r.getMessage() for r in caplog.records] == [
        "The thing is RUNNING already; its end is waited for."
    ]


def test_a_conflict_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    thing = Thing([OLD, OLD_RUNS, OLD, OLD, NEW], [409, 409, 200])
    assert thing.run() == NEW
    assert thing.starts == 3
    assert len([r for r in caplog.records if "409" in r.getMessage()]) == 1


def test_a_conflict_without_end() -> None:
    thing = Thing([OLD], [409])
    with pytest.raises(LimitError, match="was at work already and has not ended within 10 minutes"):
        thing.run()
    assert sum(thing.clock.waits) <= TIMEOUT_SECONDS + 1


def test_another_run_without_end() -> None:
    thing = Thing([OLD_RUNS])
    with pytest.raises(LimitError, match="at work already, is RUNNING, and has not ended"):
        thing.run()
    assert thing.starts == 0
    assert sum(thing.clock.waits) == pytest.approx(TIMEOUT_SECONDS)


@pytest.mark.parametrize(("seen", "standing"), [(NEW_RUNS, "RUNNING"), (OLD, "SUCCESS")])
def test_our_run_without_end(
    seen: Sight[None], standing: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    thing = Thing([OLD, seen])
    with pytest.raises(LimitError, match=f"The thing is {standing} and has not ended within 10"):
        thing.run()
    assert thing.starts == 1
    assert max(thing.clock.waits) <= 15
    assert len(caplog.records) <= TIMEOUT_SECONDS / 60


LOST = OutcomeUnknownError("TC-REMOTE-03", "Nobody knows.")


@pytest.mark.parametrize("later", [[NEW], [OLD, OLD, NEW_RUNS, OLD, NEW], [OLD_RUNS, NEW]])
def test_a_lost_answer_is_resolved_by_asking(later: list[Sight[None] | Exception]) -> None:
    thing = Thing([OLD, *later], [LOST])
    assert thing.run() == NEW
    assert thing.starts == 1


def test_a_lost_answer_and_no_start(caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing([OLD], [LOST])
    with pytest.raises(OutcomeUnknownError, match="no answer came, and no start is seen"):
        thing.run()
    assert thing.starts == 1
    assert 60 <= sum(thing.clock.waits) < 90
    assert "left running" not in caplog.text


@pytest.mark.parametrize("error", [StoppedError(), RemoteError("TC-REMOTE-01", "Gone.")])
def test_what_runs_is_named_when_we_go(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing([OLD, NEW_RUNS, error])
    with pytest.raises(type(error)):
        thing.run()
    assert "The thing is left running; Celonis will finish it." in caplog.text


def test_a_stop_while_our_run_is_at_work(caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing([OLD, NEW_RUNS])
    thing.on_look = lambda looks: thing.clock.stop() if looks == 4 else None
    with pytest.raises(StoppedError):
        thing.run()
    assert (thing.starts, thing.looks) == (1, 4)
    assert "left running" in caplog.text


@pytest.mark.parametrize("sights", [[OLD_RUNS], [OLD]])
def test_a_stop_before_it_is_started(
    sights: list[Sight[None] | Exception], caplog: pytest.LogCaptureFixture
) -> None:
    thing = Thing(sights)
    thing.clock.stop()
    with pytest.raises(StoppedError):
        thing.run()
    assert thing.starts == 0
    assert "left running" not in caplog.text
