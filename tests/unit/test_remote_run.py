"""What is started in Celonis: once, and its own end is waited for, not that of another."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from target_celonis import limits
from target_celonis.clock import FakeClock, StoppedError
from target_celonis.errors import AccessError, LimitError, OutcomeUnknownError, RemoteError
from target_celonis.http import Answer
from target_celonis.remote_run import Conductor, Runnable, Sight, is_another

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

    def run(self, timeout_seconds: float = TIMEOUT_SECONDS) -> Sight[None]:
        conductor = Conductor(self.clock, timeout_seconds)
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


@pytest.mark.parametrize("error", [StoppedError(), AccessError("TC-ACCESS-05", "Not you.")])
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


# --- outages

GONE = RemoteError("TC-REMOTE-01", "Nothing answers.")


@pytest.mark.parametrize(
    "sights",
    [
        [GONE, OLD, NEW],
        [OLD_RUNS, GONE, GONE, OLD, NEW],
        [OLD, *[GONE] * 9, NEW],
        [OLD, NEW_RUNS, *[GONE] * 20, NEW_RUNS, *[GONE] * 20, NEW],
    ],
)
def test_an_outage_is_borne_and_said_once(
    sights: list[Sight[None] | Exception], caplog: pytest.LogCaptureFixture
) -> None:
    outages = sum(seen is GONE and before is not GONE for before, seen in pairwise([OLD, *sights]))
    thing = Thing(sights)
    assert thing.run(limits.BLIND_SECONDS * 4) == NEW
    assert thing.starts == 1
    said = [r for r in caplog.records if "cannot be looked at just now" in r.getMessage()]
    assert len(said) == outages


def test_an_outage_without_end_while_ours_runs() -> None:
    thing = Thing([OLD, NEW_RUNS, GONE])
    with pytest.raises(OutcomeUnknownError, match="The thing was started and goes on") as caught:
        thing.run(limits.BLIND_SECONDS * 4)
    assert caught.value.code == "TC-REMOTE-03"
    assert "Nothing answers." in str(caught.value)
    assert "Look at it in Celonis" in str(caught.value)
    assert limits.BLIND_SECONDS <= sum(thing.clock.waits) < limits.BLIND_SECONDS + 60


def test_an_outage_that_outlasts_the_deadline() -> None:
    thing = Thing([OLD, NEW_RUNS, GONE])
    with pytest.raises(OutcomeUnknownError, match="goes on by itself"):
        thing.run(60)
    assert sum(thing.clock.waits) == pytest.approx(60)


def test_an_outage_without_end_before_ours_is_started() -> None:
    thing = Thing([GONE])
    with pytest.raises(RemoteError, match="Nothing answers") as caught:
        thing.run(limits.BLIND_SECONDS * 4)
    assert caught.value.code == "TC-REMOTE-01"
    assert thing.starts == 0


def test_a_start_that_is_not_known_is_not_given_up_in_an_outage() -> None:
    """What could not be looked at has not been seen to be missing."""
    thing = Thing([OLD, *[GONE] * 20, NEW], [LOST])
    assert thing.run() == NEW
    assert sum(thing.clock.waits) > 60


def test_a_stop_in_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing([OLD, NEW_RUNS, GONE])
    thing.on_look = lambda looks: thing.clock.stop() if looks == 5 else None
    with pytest.raises(StoppedError):
        thing.run()
    assert "left running" in caplog.text


# --- whose end it is


@pytest.mark.parametrize(
    ("marker", "before", "wanted"),
    [
        (("2", "e"), ("1", "e"), True),
        (("1", "f"), ("1", "e"), False),
        ((None, "f"), ("1", "e"), True),
        (("1", None), ("1", "e"), False),
        ((None, "e"), ("1", "e"), False),
        ((None, "e"), ("1", None), None),
        ((None, None), ("1", "e"), None),
        (("1", "e"), (None, None), None),
        ((), (), None),
    ],
)
def test_what_tells_two_runs_apart(
    marker: tuple[str | None, ...], before: tuple[str | None, ...], wanted: bool | None
) -> None:
    assert is_another(marker, before) is wanted
    assert is_another(before, marker) is wanted


def parts(status: str, *marker: str | None) -> Sight[None]:
    return Sight(status, marker, status in ("QUEUED", "RUNNING"), None)


@pytest.mark.parametrize(
    "stale",
    [
        parts("SUCCESS", None, "e1", None),  # the same run, of which less is said
        parts("SUCCESS", "i1", None, "t1"),
        parts("SUCCESS", "i1", "e1", "t1"),  # more is said
        parts("SUCCESS", None, None, "t1"),  # nothing tells whose it is
    ],
)
def test_an_answer_with_other_parts_is_no_other_run(stale: Sight[None]) -> None:
    before, ours = parts("SUCCESS", "i1", "e1", None), parts("FAIL", "i2", "e2", None)
    thing = Thing([before, stale, stale, parts("RUNNING", "i2", None, None), ours])
    assert thing.run() == ours
