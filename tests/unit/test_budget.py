"""The submits of a machine: never more than the share and ten a second, whoever else counts."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celonis_emulator.ratelimit import SubmitLimit
from target_celonis import limits
from target_celonis.answers import Answer
from target_celonis.budget import Pause, SubmitBudget
from target_celonis.clock import FakeClock
from target_celonis.errors import LimitError
from target_celonis.http import rate_limit_pause

if TYPE_CHECKING:
    from collections.abc import Iterator

TEAM = "acme.eu-1.celonis.cloud"
NOON = 1_699_963_200.0
"""A full hour."""

AT_ONCE = limits.SUBMITS_PER_SECOND
LONGEST = 3601.0


def budget_of(directory: Path, clock: FakeClock, per_hour: int = 200) -> SubmitBudget:
    return SubmitBudget(directory, TEAM, per_hour, clock)


def file_of(directory: Path) -> Path:
    return directory / "submits" / f"{TEAM}.txt"


def take_all(budget: SubmitBudget, clock: FakeClock, submits: int) -> list[float]:
    """Take so many, waiting as told; return when each was taken."""
    taken = []
    while len(taken) < submits:
        pause = budget.take()
        if pause is None:
            taken.append(clock.now())
        else:
            clock.wait(pause.seconds)
    return taken


def spread(budget: SubmitBudget, clock: FakeClock, submits: int) -> None:
    """Take so many, a tenth of a second and more from one to the next."""
    for _ in range(submits):
        assert budget.take() is None
        clock.wait(0.125)


def paused(budget: SubmitBudget) -> Pause:
    pause = budget.take()
    assert pause is not None
    return pause


def most_in_a_second(moments: list[float]) -> int:
    return max(sum(0 <= later - first < 1 for later in moments) for first in moments)


# --- the share of an hour


@pytest.mark.parametrize(
    ("per_hour", "into_hour", "seconds", "reason"),
    [
        (5, 0, 3601, "the 5 submits of this hour are used up"),
        (5, 3599, 2, "the 5 submits of this hour are used up"),
        (1, 1800, 1801, "the one submit of this hour is used up"),
    ],
)
def test_the_share_is_waited_for(
    tmp_path: Path, per_hour: int, into_hour: float, seconds: float, reason: str
) -> None:
    clock = FakeClock(NOON + into_hour)
    budget = budget_of(tmp_path, clock, per_hour)
    for count in range(per_hour):
        assert budget.used() == count
        assert budget.take() is None
    assert budget.take() == Pause(seconds, reason, whole_hour=True)
    assert budget.used() == per_hour
    clock.wait(seconds)
    assert budget.used() == 0
    assert budget.take() is None
    assert budget.used() == 1


def test_the_hour_is_a_full_one_and_not_sixty_minutes(tmp_path: Path) -> None:
    clock = FakeClock(NOON + 3590)
    budget = budget_of(tmp_path, clock, 3)
    take_all(budget, clock, 3)
    clock.seconds = NOON + 3600
    take_all(budget, clock, 3)
    assert clock.now() == NOON + 3600


def test_ten_are_made_within_a_second(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock)
    take_all(budget, clock, 4)
    clock.wait(0.5)
    take_all(budget, clock, 6)
    pause = paused(budget)
    assert not pause.whole_hour
    assert pause.reason == "10 submits were made within a second"
    assert pause.seconds == pytest.approx(0.5, abs=0.01)
    clock.wait(pause.seconds)
    take_all(budget, clock, 4)
    assert clock.now() < NOON + 1.01
    assert paused(budget).seconds == pytest.approx(0.5, abs=0.01)


def test_ten_are_made_within_a_second_of_two_hours(tmp_path: Path) -> None:
    clock = FakeClock(NOON - 0.5)
    budget = budget_of(tmp_path, clock)
    take_all(budget, clock, 10)
    clock.seconds = NOON
    assert paused(budget).seconds == pytest.approx(0.5, abs=0.01)
    assert budget.used() == 0


def test_the_longer_of_two_pauses_is_the_one_to_wait(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock, 10)
    take_all(budget, clock, 10)
    budget.refused(20, told=True)
    assert paused(budget).seconds == LONGEST


def test_runs_share_and_teams_do_not(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    one, other = (budget_of(tmp_path, clock, 4) for _ in range(2))
    take_all(one, clock, 2)
    take_all(other, clock, 2)
    assert one.used() == other.used() == 4
    assert paused(one) == paused(other)
    assert SubmitBudget(tmp_path, "other.celonis.cloud", 4, clock).take() is None
    assert SubmitBudget(tmp_path, TEAM.upper(), 4, clock).take() is not None
    assert one.used() == 4


@pytest.mark.parametrize(
    "team",
    ["", "..", "../../etc", "[::1]:8000", "127.0.0.1:8000", "a/b", "a_b", "é" * 300, "con\n"],
)
def test_any_team_has_a_file_of_its_own(tmp_path: Path, team: str) -> None:
    clock = FakeClock(NOON)
    spool = tmp_path / "spool"
    spool.mkdir()
    for each in (team, "a:b"):
        assert SubmitBudget(spool, each, 1, clock).take() is None
    assert len(list((spool / "submits").glob("*.txt"))) == 2
    assert list(tmp_path.iterdir()) == [spool]
    assert list(spool.iterdir()) == [spool / "submits"]


# --- refusals


def test_a_told_pause_is_made_by_all_runs_and_no_longer(tmp_path: Path) -> None:
    clock = FakeClock(NOON + 100)
    one, other = (budget_of(tmp_path, clock) for _ in range(2))
    take_all(one, clock, 3)
    one.refused(30.5, told=True)
    reason = "Celonis said that too many submits were made (429)"
    assert paused(one) == paused(other) == Pause(30.5, reason, whole_hour=False)
    clock.wait(30.375)
    assert paused(other).seconds == 0.125
    clock.wait(0.125)
    assert other.take() is None
    assert one.per_hour == 200


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("into_hour", "pause", "per_hour", "whole_hour"),
    [
        (100, 1, 200, False),
        (100, 3490, 200, False),
        (100, 3510, 7, True),
        (3598, 4, 200, False),  # by chance over the hour
        (3580, 21, 7, True),
    ],
)
def test_a_pause_for_the_rest_of_the_hour_teaches(
    tmp_path: Path, into_hour: float, pause: float, told: bool, per_hour: int, whole_hour: bool
) -> None:
    clock = FakeClock(NOON + into_hour)
    budget = budget_of(tmp_path, clock)
    take_all(budget, clock, 7)
    budget.refused(pause, told=told)
    assert budget.per_hour == per_hour
    assert paused(budget).whole_hour is whole_hour
    assert paused(budget).seconds == pytest.approx(pause)


def test_the_longest_pause_counts(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock)
    budget.refused(100, told=True)
    budget.refused(2, told=False)
    assert paused(budget).seconds == 100
    budget.refused(200, told=True)
    assert paused(budget).seconds == 200


@pytest.mark.parametrize(
    ("asked", "made"), [(10**9, LONGEST), (float("inf"), LONGEST), (-5, None), (0, None)]
)
def test_no_pause_is_longer_than_an_hour(tmp_path: Path, asked: float, made: float | None) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock)
    budget.refused(asked, told=True)
    pause = budget.take()
    assert (pause and pause.seconds) == made


def test_what_was_learned_grows_with_each_hour_without_a_refusal(tmp_path: Path) -> None:
    clock = FakeClock(NOON + 600)
    budget = budget_of(tmp_path, clock, 60)
    spread(budget, clock, 30)
    budget.refused(3000, told=False)
    seen = []
    for hour in range(1, 10):
        clock.seconds = NOON + 3600 * hour + 60
        if hour % 2:
            assert budget.take() is None  # written or only read, it is the same
        seen.append(budget.per_hour)
    assert seen == [30, 33, 36, 39, 42, 46, 50, 55, 60]
    assert "learned" not in file_of(tmp_path).read_text()


def test_hours_that_nobody_saw_count_too(tmp_path: Path) -> None:
    clock = FakeClock(NOON + 600)
    budget = budget_of(tmp_path, clock, 60)
    spread(budget, clock, 30)
    budget.refused(3000, told=False)
    clock.seconds = NOON + 3600 * 7 + 60
    assert budget.per_hour == 50
    clock.seconds = NOON + 3600 * 10**6
    assert budget.per_hour == 60


def test_an_hour_with_a_refusal_teaches_no_growth(tmp_path: Path) -> None:
    clock = FakeClock(NOON + 600)
    budget = budget_of(tmp_path, clock, 60)
    spread(budget, clock, 30)
    budget.refused(3000, told=False)
    clock.seconds = NOON + 3600 + 60
    budget.refused(1, told=False)
    clock.wait(1)
    assert budget.take() is None
    assert budget.per_hour == 30
    clock.seconds = NOON + 3600 * 2 + 60
    assert budget.per_hour == 30
    assert budget.take() is None
    assert budget.per_hour == 30
    clock.seconds = NOON + 3600 * 3 + 60
    assert budget.per_hour == 33


def test_what_was_learned_is_no_less_than_what_was_made(tmp_path: Path) -> None:
    clock = FakeClock(NOON + 600)
    budget = budget_of(tmp_path, clock, 60)
    spread(budget, clock, 10)
    budget.refused(3000, told=False)
    clock.seconds = NOON + 3610
    spread(budget, clock, 40)  # to ask is not forbidden
    assert budget.per_hour == 40
    clock.seconds = NOON + 3600 * 2  # one hour without a refusal has passed
    assert budget.per_hour == 44


@pytest.mark.parametrize(("used", "share", "per_hour"), [(0, 60, 1), (30, 20, 20), (9, 60, 9)])
def test_what_is_learned_is_one_at_least_and_the_share_at_most(
    tmp_path: Path, used: int, share: int, per_hour: int
) -> None:
    clock = FakeClock(NOON)
    spread(budget_of(tmp_path, clock, 60), clock, used)
    budget = budget_of(tmp_path, clock, share)
    budget.refused(3600, told=False)
    assert budget.per_hour == per_hour
    clock.seconds = NOON + 3600 * 2
    assert budget.per_hour == min(share, per_hour + 1)


# --- the plan


@pytest.mark.parametrize(
    ("used", "submits", "seconds"),
    [
        (0, 0, 0),
        (0, 20, 0),
        (0, 21, 3001),
        (0, 40, 3001),
        (0, 41, 6601),
        (5, 15, 0),
        (5, 16, 3001),
        (20, 0, 0),
        (20, 1, 3001),
        (20, 60, 10201),
        (25, 1, 3001),
        (25, 20, 3001),
        (25, 21, 6601),
    ],
)
def test_how_long_submits_take(tmp_path: Path, used: int, submits: int, seconds: float) -> None:
    clock = FakeClock(NOON)
    spread(budget_of(tmp_path, clock), clock, used)
    clock.seconds = NOON + 600
    budget = budget_of(tmp_path, clock, 20)
    assert budget.seconds_for(submits) == seconds


@pytest.mark.parametrize(
    ("pause", "submits", "seconds"),
    [
        (60, 0, 0),
        (60, 10, 60),
        (60, 11, 3001),
        (3001, 1, 3001),
        (3001, 10, 3001),  # ten is what was learned
        (3001, 11, 6601),
        (3001, 30, 10201),
        (3601, 1, 3601),
        (3601, 11, 6601),
    ],
)
def test_how_long_submits_take_after_a_refusal(
    tmp_path: Path, pause: float, submits: int, seconds: float
) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock, 20)
    spread(budget, clock, 10)
    clock.seconds = NOON + 600
    budget.refused(pause, told=True)
    assert budget.seconds_for(submits) == seconds


@settings(deadline=None, max_examples=50)
@given(
    into_hour=st.floats(0, 3599),
    share=st.integers(1, 12),
    before=st.integers(0, 12),
    submits=st.integers(1, 40),
)
def test_a_plan_is_what_comes(into_hour: float, share: int, before: int, submits: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        clock = FakeClock(NOON + into_hour)
        budget = budget_of(Path(name), clock, share)
        take_all(budget, clock, before)
        clock.wait(1)
        begun, planned = clock.now(), budget.seconds_for(submits)
        took = take_all(budget, clock, submits)[-1] - begun
        # Ten a second are not in the plan, and may cross into the next hour.
        assert planned - 0.01 <= took <= planned + (submits + before) / AT_ONCE + 1.01


# --- what is written


def test_the_file_is_private_and_can_be_read(tmp_path: Path) -> None:
    clock = FakeClock(NOON + 0.25)
    budget = budget_of(tmp_path, clock)
    take_all(budget, clock, 2)
    budget.refused(3599.75, told=True)
    assert file_of(tmp_path).read_text() == (
        "# Push jobs that this machine executed in the present UTC hour, counted by "
        "target-celonis.\n"
        "submit 1699963200.25 2023-11-14T12:00:00Z\n"
        "submit 1699963200.25 2023-11-14T12:00:00Z\n"
        "refused 1699963200.25 told 1699966800.0 2023-11-14T13:00:00Z\n"
        "learned 1699963200 2 2023-11-14T12:00:00Z\n"
    )
    assert stat.S_IMODE((tmp_path / "submits").stat().st_mode) == 0o700
    for path in (tmp_path / "submits").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_file_holds_one_hour(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock, 50)
    longest = 0
    for _ in range(300):
        take_all(budget, clock, 1)
        budget.refused(0.1, told=True)
        clock.wait(20)
        longest = max(longest, len(file_of(tmp_path).read_text().splitlines()))
    assert longest <= 50 + 3
    clock.wait(3600)
    take_all(budget, clock, 1)
    assert file_of(tmp_path).read_text().count("submit ") == 1


def test_what_is_only_read_writes_nothing(tmp_path: Path) -> None:
    budget = budget_of(tmp_path / "none", FakeClock(NOON))
    assert (budget.used(), budget.per_hour, budget.seconds_for(200)) == (0, 200, 0.0)
    assert not list(tmp_path.iterdir())


WHOLE = (
    f"submit {NOON} 2023-11-14T12:00:00Z\n"
    f"submit {NOON + 1} 2023-11-14T12:00:01Z\n"
    f"refused {NOON + 2} told {NOON + 3.5} 2023-11-14T12:00:03Z\n"
    f"learned {NOON - 3600:.0f} 20 2023-11-14T11:00:00Z\n"
)


@pytest.mark.parametrize(
    ("found", "used"),
    [
        (b"", 0),
        (WHOLE.encode(), 2),
        (b"\0" * 5000, 0),
        (os.urandom(5000), 0),
        (b"\xff\xfe" + WHOLE.encode(), 1),
        (b"PK\x03\x04" * 100, 0),
        (b"submit\nsubmit x 2023Z\nsubmit nan Z\nsubmit inf Z\nsubmit -inf Z\n", 0),
        (b"submit 1e400 Z\nsubmit 1e300 Z\nsubmit -1e300 Z\nrefused 1e300 told 1 Z\n", 0),
        (f"refused -1e300 told 1e300 Z\nsubmit {NOON} Z\n".encode(), 1),
        (f"refused {NOON} told 1e300 Z\nsubmit {NOON} Z\n".encode(), 1),
        (f"refused {NOON + 3000} told 1e300 Z\nsubmit {NOON} Z\n".encode(), 1),
        (f"refused {NOON + 4000} told {NOON + 9000} Z\n".encode(), 0),
        (f"refused {NOON} told nan Z\nrefused {NOON} loud {NOON + 100} Z\n".encode(), 0),
        (f"learned 0 -5 Z\nlearned 1e300 5 Z\nsubmit {NOON} Z".encode(), 1),
        (f"learned -1e300 5 Z\nlearned {NOON} {'9' * 6000} Z\nsubmit {NOON} Z".encode(), 1),
        (f"submit {NOON} 2023-11-14T12:00\n".encode(), 0),
        (f"submit {NOON} Z\n".encode() * 300, 300),
    ],
)
def test_no_file_stands_in_the_way(tmp_path: Path, found: bytes, used: int) -> None:
    clock = FakeClock(NOON + 5)
    budget = budget_of(tmp_path, clock)
    (tmp_path / "submits").mkdir()
    file_of(tmp_path).write_bytes(found)
    assert budget.used() == used
    assert 1 <= budget.per_hour <= 200
    assert 0 <= budget.seconds_for(10) <= LONGEST
    pause = budget.take()
    if pause is not None:
        assert 0 < pause.seconds <= LONGEST
        clock.wait(pause.seconds)
        assert budget.take() is None
    assert all(line[0] in "#srl" for line in file_of(tmp_path).read_text().splitlines())


def test_every_beginning_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "submits").mkdir()
    for length in range(len(WHOLE) + 1):
        clock = FakeClock(NOON + 5)
        budget = budget_of(tmp_path, clock)
        file_of(tmp_path).write_text(WHOLE[:length])
        whole_lines = sum(line.endswith("Z") for line in WHOLE[:length].split("\n")[:2])
        assert budget.used() == whole_lines
        assert budget.take() is None
        assert budget.used() == whole_lines + 1


@settings(deadline=None, max_examples=100)
@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from(["submit {0} Z", "refused {0} told {1} Z", "learned {0} {2} Z"]),
            st.floats(-8000, 8000),
            st.floats(-8000, 8000),
            st.integers(-5, 500),
        ),
        max_size=30,
    ),
    share=st.integers(1, 30),
)
def test_whatever_a_file_says_a_pause_is_one_hour_and_then_there_is_a_submit(
    lines: list[tuple[str, float, float, int]], share: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        clock = FakeClock(NOON + 1234)
        (Path(name) / "submits").mkdir()
        text = "\n".join(line.format(NOON + a, NOON + b, count) for line, a, b, count in lines)
        file_of(Path(name)).write_text(text)
        budget = budget_of(Path(name), clock, share)
        assert 1 <= budget.per_hour <= share
        pause = budget.take()
        if pause is not None:
            assert 0 < pause.seconds <= LONGEST
            clock.wait(pause.seconds)
            assert budget.take() is None


# --- a clock that was set back


@pytest.mark.parametrize(("back", "used"), [(10, 9), (3599, 9), (3700, 0), (10**6, 0)])
def test_submits_of_the_future_are_of_now_or_of_nobody(
    tmp_path: Path, back: float, used: int
) -> None:
    clock = FakeClock(NOON + 5)
    budget = budget_of(tmp_path, clock)
    take_all(budget, clock, 9)
    clock.seconds -= back
    assert budget.used() == used
    assert budget.take() is None
    assert budget.used() == used + 1
    if used:
        assert paused(budget).seconds == pytest.approx(1, abs=0.01)
    clock.wait(1.01)
    assert budget.take() is None  # they do not stay of now


@pytest.mark.parametrize(
    ("back", "seconds"), [(0, 500), (10, 500), (3599, 500), (3601, None), (10**6, None)]
)
def test_a_pause_is_not_prolonged_by_a_clock_set_back(
    tmp_path: Path, back: float, seconds: float | None
) -> None:
    clock = FakeClock(NOON + 5)
    budget = budget_of(tmp_path, clock)
    budget.refused(500, told=True)
    clock.seconds -= back
    pause = budget.take()
    assert (pause and pause.seconds) == seconds
    clock.wait(500)
    assert budget.take() is None


@pytest.mark.parametrize(("back", "per_hour"), [(0, 4), (3600, 4), (7200, 20)])
def test_what_was_learned_in_the_future(tmp_path: Path, back: float, per_hour: int) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock, 20)
    take_all(budget, clock, 4)
    budget.refused(3600, told=False)
    clock.seconds -= back
    assert budget.per_hour == per_hour


# --- any sequence


@dataclass
class Machine:
    """Some runs of one machine, and the submits that they made."""

    clock: FakeClock
    runs: list[SubmitBudget]
    taken: list[float]

    def take(self, run: int) -> None:
        pause = self.runs[run].take()
        if pause is None:
            self.taken.append(self.clock.now())
            return
        assert 0 < pause.seconds <= LONGEST
        self.clock.wait(pause.seconds)
        assert self.runs[run].take() is None  # one pause, then a submit
        self.taken.append(self.clock.now())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 14)),
        st.tuples(st.just("go on"), st.floats(0, 2), st.just(0)),
        st.tuples(st.just("go on"), st.floats(0, 9000), st.just(0)),
        st.tuples(st.just("refused"), st.floats(0, 4000), st.integers(0, 2)),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@given(steps=STEPS, share=st.integers(1, 25), begin=st.floats(0, 3600))
def test_no_sequence_makes_too_many(
    steps: list[tuple[str, float, int]], share: int, begin: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        clock = FakeClock(NOON + begin)
        machine = Machine(clock, [budget_of(Path(name), clock, share) for _ in range(3)], [])
        for what, number, count in steps:
            if what == "take":
                for _ in range(count):
                    machine.take(int(number))
            elif what == "refused":
                machine.runs[count].refused(number, told=bool(count))
            else:
                clock.wait(number)
            assert 1 <= machine.runs[0].per_hour <= share
        per_hour = Counter(at // 3600 for at in machine.taken)
        assert all(count <= share for count in per_hour.values())
        assert not machine.taken or most_in_a_second(machine.taken) <= AT_ONCE
        now = per_hour.get(clock.now() // 3600, 0)
        assert [run.used() for run in machine.runs] == [now] * 3


# --- threads, processes, and their end


def test_threads_never_take_too_many(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    budget = budget_of(tmp_path, clock, 500)
    taken: list[int] = []

    def work() -> None:
        own = budget_of(tmp_path, clock, 500)
        for _ in range(5):
            taken.extend(each.take() is None for each in (budget, own))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == budget.used() == AT_ONCE


PROGRAM = """
import sys
from pathlib import Path
from target_celonis.budget import SubmitBudget
from target_celonis.clock import FakeClock

directory, teams, per_hour, step = Path(sys.argv[1]), *map(int, sys.argv[2:4]), float(sys.argv[4])
clock = FakeClock({noon})
print("ready", flush=True)
sys.stdin.readline()
for team in range(teams):
    budget = SubmitBudget(directory, str(team), per_hour, clock)
    while budget.take() is None:
        clock.seconds += step
        print(team, flush=True)
"""


@contextlib.contextmanager
def taking(
    directory: Path, teams: int, per_hour: int, step: float
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that takes, of team after team, until it is to pause."""
    words = [str(directory), str(teams), str(per_hour), str(step)]
    program = PROGRAM.replace("{noon}", str(NOON))
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.parametrize(("per_hour", "most"), [(7, 7), (200, AT_ONCE)])
def test_two_processes_never_take_too_many(tmp_path: Path, per_hour: int, most: int) -> None:
    teams = 60
    with (
        taking(tmp_path, teams, per_hour, 0.0) as one,
        taking(tmp_path, teams, per_hour, 0.0) as other,
    ):
        go(one)
        go(other)
        took = [Counter(process.communicate()[0].split()) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0]
    assert dict(took[0] + took[1]) == {str(team): most for team in range(teams)}


@pytest.mark.parametrize("after", [1, 40, 90])
def test_a_process_that_is_killed_leaves_a_file_that_counts(tmp_path: Path, after: int) -> None:
    with taking(tmp_path, 1, 30_000, 0.125) as process:
        assert process.stdout is not None
        go(process)
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        took = after + process.stdout.read().count("0")
    assert process.returncode == -signal.SIGKILL
    clock = FakeClock(NOON + 3500)
    budget = SubmitBudget(tmp_path, "0", 30_000, clock)
    assert took <= budget.used() <= took + 1  # what it counted last, it may not have said
    counted = budget.used()
    assert budget.take() is None
    assert budget.used() == counted + 1


# --- a directory that cannot be used


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    budget = budget_of(tmp_path / "gone", FakeClock(NOON))
    with pytest.raises(LimitError, match="cannot be written: No such file") as caught:
        budget.take()
    assert caught.value.code == "TC-LIMIT-02"
    with pytest.raises(LimitError, match="cannot be written"):
        budget.refused(1, told=True)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "submits").write_text("")
    budget = budget_of(tmp_path, FakeClock(NOON))
    with pytest.raises(LimitError, match="cannot be written"):
        budget.take()
    with pytest.raises(LimitError, match="cannot be written"):
        budget.used()


def test_a_file_that_may_not_be_read_is_replaced(tmp_path: Path) -> None:
    budget = budget_of(tmp_path, FakeClock(NOON))
    assert budget.take() is None
    file_of(tmp_path).write_text("of somebody else")
    file_of(tmp_path).chmod(0)
    assert budget.take() is None
    assert budget.used() == 1


def test_a_file_that_is_a_directory(tmp_path: Path) -> None:
    file_of(tmp_path).mkdir(parents=True)
    with pytest.raises(LimitError, match="cannot be written: Is a directory"):
        budget_of(tmp_path, FakeClock(NOON)).take()


# --- a team with other clients


class Server:
    """250 submits an hour, of which other clients make the half as soon as an hour begins."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._limit = SubmitLimit(per_second=0, per_hour=250, clock=clock.now)
        self._hour = -1.0
        self.accepted: Counter[float] = Counter()
        self.refused: Counter[float] = Counter()

    def execute(self, *, tells: bool) -> Answer:
        hour = self._clock.now() // 3600
        if hour != self._hour:
            self._hour = hour
            for _ in range(125):
                self._limit.count()
        verdict = self._limit.verdict()
        if verdict.allowed:
            self._limit.count()
            self.accepted[hour] += 1
            return Answer(200, b"")
        self.refused[hour] += 1
        return Answer(429, b"", float(verdict.reset_seconds) if tells else None)


def push(budget: SubmitBudget, server: Server, clock: FakeClock, *, tells: bool) -> None:
    """Submit one job, as long as it takes."""
    refused = 0
    while True:
        pause = budget.take()
        if pause is not None:
            clock.wait(pause.seconds)
            continue
        answer = server.execute(tells=tells)
        if answer.status == 200:
            return
        refused += 1
        seconds = rate_limit_pause(answer, refused, clock.now())
        budget.refused(seconds, told=answer.told_pause_seconds is not None)


@pytest.mark.parametrize(
    ("tells", "refusals"),
    [
        ([False, False], [4, 4]),
        ([True, True], [1, 1]),
        ([False, True], [4, 1]),  # untold first, then told
    ],
)
@pytest.mark.parametrize("into_hour", [0, 3000])
def test_others_use_half_of_the_team_s_submits(
    tmp_path: Path, tells: list[bool], refusals: list[int], into_hour: float
) -> None:
    """In an hour, one refusal is told or four are not: three short pauses, then the next hour."""
    clock = FakeClock(NOON + into_hour)
    runs = [budget_of(tmp_path, clock) for _ in range(2)]
    server = Server(clock)
    for job in range(300):
        first_hour = clock.now() < NOON + 3600
        push(runs[job % 2], server, clock, tells=tells[0 if first_hour else 1])
    hours = [NOON // 3600 + hour for hour in range(3)]
    assert [server.accepted[hour] for hour in hours] == [125, 125, 50]
    assert [server.refused[hour] for hour in hours] == [*refusals, 0]
    assert clock.now() < NOON + 2 * 3600 + 60
    # What was learned holds the refused ones too, since Celonis may count them.
    assert runs[0].per_hour == 125 + refusals[1]
