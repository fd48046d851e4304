"""Which pushes may still go once one has failed, and which state comes out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.celonis import JobType
from target_celonis.clock import FakeClock
from target_celonis.dispatch import Dispatch
from target_celonis.errors import LimitError, RemoteError
from target_celonis.journal import NAME, Journal, Step, read_account
from target_celonis.kinds import Kind
from target_celonis.pusher import FailedPush, GivenUp
from target_celonis.route import PushTask

from .chunks import plan_of
from .loading import Run, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target_celonis.route import Receipt

BAD_END = RemoteError("TC-REMOTE-04", "It ended as ERROR.")


class Pushes:
    """A pusher whose pushes end when the test says so."""

    def __init__(self) -> None:
        self.started: list[PushTask] = []
        self.under_way: list[PushTask] = []
        self.ends_when_asked: list[PushTask] = []
        self._came: list[Any] = []

    @property
    def busy(self) -> bool:
        now = bool(self.under_way)
        for task in self.ends_when_asked:  # right behind the look
            self.fail(task)
        self.ends_when_asked.clear()
        return now

    def start(self, tasks: Sequence[PushTask]) -> None:
        self.started += tasks
        self.under_way += tasks

    def end(self, task: PushTask) -> None:
        self.under_way.remove(task)

    def fail(self, task: PushTask) -> None:
        self.end(task)
        self._came.append(FailedPush(task, BAD_END))

    def give_up(self, task: PushTask) -> None:
        self.end(task)
        self._came.append(GivenUp(task))

    def outcomes(self) -> list[Receipt | FailedPush | GivenUp]:
        came, self._came = self._came, []
        return came


class Setting:
    """A dispatch, and what it hands out."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pushes = Pushes()
        self.journal = Journal(directory, FakeClock())
        self.journal.note(Step.RUN_OPENED, place=[], process_id=1)
        self.states: list[bytes] = []
        self.dispatch = Dispatch(self.pushes, self.journal, self.states.append)  # type: ignore[arg-type]

    def task(self, first_line: int, last_line: int, *, appends: bool) -> PushTask:
        plan = plan_of({"id": Kind.INTEGER}, *(() if appends else ("id",)))
        task = PushTask(plan, JobType.DELTA, (), self.directory / "none", 1, last_line)
        self.dispatch.ledger.pend(task, first_line)
        return task

    def settle(self, task: PushTask) -> None:
        self.pushes.end(task)
        self.dispatch.ledger.settle(task)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_what_appends_waits_for_the_others(setting: Setting) -> None:
    keyed, plain = setting.task(1, 1, appends=False), setting.task(2, 2, appends=True)
    setting.dispatch.add_state(3, b"s")
    setting.dispatch.start([plain, keyed])
    setting.dispatch.outcomes()
    assert setting.pushes.started == [keyed]
    assert setting.dispatch.is_pushing
    setting.settle(keyed)
    assert setting.dispatch.is_pushing  # it still waits
    assert setting.dispatch.outcomes() == ([], [])
    assert setting.pushes.started == [keyed, plain]
    setting.settle(plain)
    assert not setting.dispatch.is_pushing
    setting.dispatch.release_safe()
    assert setting.states == [b"s"]


def test_an_overwrite_without_keys_does_not_wait(setting: Setting) -> None:
    """What replaces a table may come again."""
    plan = plan_of({"id": Kind.INTEGER})
    task = PushTask(plan, JobType.REPLACE, (), setting.directory, 1, 1)
    setting.dispatch.start([task])
    assert setting.pushes.started == [task]


def test_what_fails_right_behind_the_look_is_known_before_anything_is_appended(
    setting: Setting,
) -> None:
    keyed, plain = setting.task(1, 1, appends=False), setting.task(2, 2, appends=True)
    setting.dispatch.add_state(3, b"s")
    setting.dispatch.start([plain, keyed])
    setting.pushes.ends_when_asked = [keyed]
    setting.dispatch.outcomes()
    _, given_up = setting.dispatch.outcomes()
    assert given_up == [plain]
    assert setting.pushes.started == [keyed]
    assert setting.dispatch.failure is BAD_END
    assert not setting.dispatch.is_pushing


def test_what_is_given_up_bars_what_comes_behind_it(setting: Setting) -> None:
    first = setting.task(1, 1, appends=True)
    setting.dispatch.add_state(2, b"a")
    broken = setting.task(3, 3, appends=False)
    second = setting.task(4, 6, appends=True)
    setting.dispatch.add_state(5, b"b")
    third = setting.task(6, 6, appends=True)
    setting.dispatch.add_state(7, b"c")
    setting.dispatch.start([first, broken, second, third])
    setting.pushes.fail(broken)
    _, given_up = setting.dispatch.outcomes()
    assert given_up == [second, third]
    assert setting.pushes.started == [broken, first]
    setting.settle(first)
    setting.dispatch.release_safe()
    assert setting.states == [b"a"]


def test_what_is_given_up_bars_what_lies_before_the_failure(setting: Setting) -> None:
    long = setting.task(1, 6, appends=True)
    short = setting.task(2, 2, appends=True)
    setting.dispatch.add_state(3, b"a")  # it would cover the short one, but not the long one
    broken = setting.task(4, 4, appends=False)
    setting.dispatch.start([short, broken, long])
    setting.pushes.fail(broken)
    _, given_up = setting.dispatch.outcomes()
    assert given_up == [long, short]
    assert setting.pushes.started == [broken]


def test_what_is_given_up_by_the_pusher_is_not_loaded_either(setting: Setting) -> None:
    first, late = (setting.task(line, line, appends=True) for line in (1, 2))
    setting.dispatch.add_state(3, b"a")
    broken = setting.task(4, 4, appends=True)
    setting.dispatch.add_state(5, b"b")
    setting.dispatch.start([first, broken])
    assert setting.dispatch.outcomes() == ([], [])
    setting.pushes.give_up(first)
    setting.pushes.fail(broken)
    setting.dispatch.start([late])
    came, given_up = setting.dispatch.outcomes()
    assert [(outcome.task, type(outcome)) for outcome in came] == [(broken, FailedPush)]
    assert given_up == [first, late]  # the only state behind it waits for the first one, too
    assert setting.pushes.started == [first, broken]
    setting.dispatch.release_safe()
    assert setting.states == []


def test_what_will_not_be_loaded_bars_as_a_failure_does(setting: Setting) -> None:
    setting.dispatch.ledger.pend("overwrites", 1)
    plain = setting.task(2, 2, appends=True)
    setting.dispatch.add_state(3, b"a")
    setting.dispatch.lose("overwrites")
    setting.dispatch.start([plain])
    assert setting.dispatch.outcomes() == ([], [plain])
    assert setting.dispatch.failure is None


def test_a_state_is_in_the_journal_before_it_is_handed_out(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def release(state: bytes) -> None:
        assert state == b"s"
        seen.append((tmp_path / NAME).read_text().splitlines())

    journal = Journal(tmp_path, FakeClock())
    journal.note(Step.RUN_OPENED, place=[], process_id=1)
    dispatch = Dispatch(Pushes(), journal, release)  # type: ignore[arg-type]
    dispatch.add_state(7, b"s")
    dispatch.release_safe()
    dispatch.release_safe()
    ((*_, last),) = seen
    assert '"state meant", "line": 7' in last
    assert read_account(tmp_path / NAME).released_line == 7
    counts = dispatch.states_read, dispatch.states_released, dispatch.last_state_line
    assert counts == (1, 1, 7)
    journal.close()


def test_a_state_that_was_not_handed_out_is_not_called_so(tmp_path: Path) -> None:
    def closed(_: bytes) -> None:
        raise LimitError("TC-LIMIT-03", "Closed.")

    journal = Journal(tmp_path, FakeClock())
    journal.note(Step.RUN_OPENED, place=[], process_id=1)
    dispatch = Dispatch(Pushes(), journal, closed)  # type: ignore[arg-type]
    dispatch.add_state(7, b"s")
    with pytest.raises(LimitError, match="TC-LIMIT-03"):
        dispatch.release_safe()
    assert read_account(tmp_path / NAME).released_line == 0
    assert (dispatch.states_released, dispatch.last_state_line) == (0, None)
    journal.close()


# --- whole runs with tables that fail

STREAMS = ["keyed1", "keyed2", "plain1", "plain2", "over"]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.sampled_from(STREAMS)),
        st.tuples(st.just("record"), st.sampled_from(STREAMS)),
        st.just(("state",)),
        st.just(("checkpoint",)),
    ),
    min_size=2,
    max_size=25,
)
faults = st.dictionaries(
    st.sampled_from(STREAMS), st.sampled_from(["open", "send", "commit"]), max_size=3
)


def lines_of(run: Run, stream: str) -> list[int]:
    return sorted(row["line"] for row in run.celonis.tables.get(stream, []))


def attempted(run: Run, stream: str) -> bool:
    return stream in run.celonis.verbs("open")


class Followed:
    """A run, and which appended rows stood before any table failed."""

    def __init__(self, run: Run, fails: dict[str, str]) -> None:
        self.run, self.fails = run, fails
        self.lines: dict[str, list[int]] = {stream: [] for stream in STREAMS}
        self.before: dict[str, list[int]] = {}
        self.failed_before = 0  # the line at which the first failure was known

    def take(self, step: str, *about: str) -> None:
        run = self.run
        if step == "record":
            (stream,) = about
            self.lines[stream].append(run.record(stream, run.line))
        elif step == "state":
            run.state()
        else:
            self.remember()
            run.checkpoint()
            run.settle()
            if run.loader.dispatch.failure is not None and not self.failed_before:
                self.failed_before = run.line + 1

    def remember(self) -> None:
        """Unless a table has failed, remember what stands in those that append."""
        if not any(attempted(self.run, stream) for stream in self.fails):
            self.before = {s: lines_of(self.run, s) for s in ("plain1", "plain2")}


@given(steps, faults)
@settings(max_examples=60, deadline=None)
def test_whatever_fails_nothing_is_lost_and_nothing_stands_twice(
    drawn: list[tuple[str, ...]], fails: dict[str, str]
) -> None:
    rules = [{"match": "over", "load_method": "overwrite", "trust_end_of_input": True}]
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), streams=rules) as run,
    ):
        for stream in STREAMS:
            run.schema(stream, *(() if stream.startswith("plain") else ("id",)))
        run.celonis.faults = {(verb, stream): BAD_END for stream, verb in fails.items()}
        followed = Followed(run, fails)
        for step in drawn:
            followed.take(*step)
        broken = {stream for stream in fails if followed.lines[stream]}
        followed.remember()
        if broken:
            with pytest.raises(RemoteError, match="TC-REMOTE-04"):
                run.loader.finish()
            run.loader.settle_after_failure()
            followed.failed_before = followed.failed_before or run.line + 1
        else:
            run.loader.finish()
        check(run, followed, broken)


def check(run: Run, followed: Followed, broken: set[str]) -> None:
    """Compare what stands in the tables with what had to come there."""
    released = run.states[-1] if run.states else 0
    for stream in ("keyed1", "keyed2", "over"):
        wanted = [] if stream in broken else followed.lines[stream]
        assert lines_of(run, stream) == wanted, stream
    for stream in ("plain1", "plain2"):
        stands = lines_of(run, stream)
        assert stands == followed.lines[stream][: len(stands)]
        if stream in broken:
            assert stands == []
        elif not broken:
            assert stands == followed.lines[stream]
        else:
            early = followed.before[stream]
            beside = [line for line in stands if line not in early and line >= released]
            assert not beside or may_be_done(run, followed, stream, beside, broken)
    assert run.states == sorted(set(run.states))
    for report in run.loader.reports():  # they check their sums
        count = len(followed.lines[report.stream])
        assert report.read == count
        assert report.loaded == len(lines_of(run, report.stream))
        assert report.not_loaded == count - report.loaded
        assert bool(report.failure) == bool(report.not_loaded)


def may_be_done(
    run: Run, followed: Followed, stream: str, lines: list[int], broken: set[str]
) -> bool:
    """Return whether rows may stand behind the last state.

    Those of a push may that was DONE or being carried out when another one that appends failed.
    """
    failing = [other for other in broken if other.startswith("plain")]
    happened = run.celonis.events
    for other in failing:
        verb = followed.fails[other]
        if (verb, other) not in happened:
            continue  # it was not even begun
        if verb == "commit":
            at = happened.index((verb, other))
            return ("commit", stream) not in happened[at:]
        return max(lines) < followed.failed_before
    return False
