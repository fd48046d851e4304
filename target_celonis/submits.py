"""The execute of push jobs: whose turn it is, and what each answer means.

Hides the submits of the hour, 409 and 429, and how an answer that was lost is made up for.
Guarantees: one execute is in flight at a time; after the first 409 one job of ours runs at a time;
a job is executed again only while it is NEW; an intent is in the journal before it is carried out;
each wait is said once. Must not know: tables' content, how the end of a job is waited for.

Rules of Celonis behind it: a submit is an execute, 250 an hour and 10 a second for the team;
executes side by side may be answered with 409; a job runs once.
"""

from __future__ import annotations

import logging
import random
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.celonis import Celonis, JobStatus
from target_celonis.clock import Deadline, StoppedError, growing_pauses
from target_celonis.errors import (
    AccessError,
    LimitError,
    OutcomeUnknownError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.http import expect, rate_limit_pause
from target_celonis.journal import Step
from target_celonis.say_once import SayOnce

if TYPE_CHECKING:
    from target_celonis.answers import Answer
    from target_celonis.budget import SubmitBudget
    from target_celonis.config import Config
    from target_celonis.journal import Journal
    from target_celonis.route import OpenJob
    from target_celonis.waits import Waiter

logger = logging.getLogger("target-celonis")

_TURN_SECONDS = 0.5

_LOOK_UP_SECONDS = 60.0
"""How long a wait goes on without a look at whether it still makes sense."""


class Submits:
    """Executes jobs.

    Args:
        celonis: The pool.
        config: Deadlines, and what to do when the submits are used up.
        journal: Of this run.
        budget: Submits of this machine; None where they are not limited.
        waiter: Waits.

    Attributes:
        count: How often a job was executed, answers that refused it included.
    """

    def __init__(
        self,
        celonis: Celonis,
        config: Config,
        journal: Journal,
        budget: SubmitBudget | None,
        waiter: Waiter,
    ) -> None:
        self.count = 0
        self._celonis = celonis
        self._config = config
        self._journal = journal
        self._budget = budget
        self._waiter = waiter
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._running = 0
        self._one_at_a_time = False
        self._is_ending = False
        self._late_reason = ""
        self._say_once = SayOnce()

    def submit(self, table: str, job: OpenJob) -> None:
        """Execute a job when it is its turn; it counts as running until ``ended`` is called.

        Raises:
            AccessError: Celonis refuses the key.
            RemoteError: Celonis refuses the job, or it is not known whether it was executed.
            LimitError: It cannot be executed in time, or the submits of the hour are used up.
            StoppedError: The run is to stop.
        """
        with self._waiter.timed("turns to execute"):
            while not self._turn.acquire(timeout=_TURN_SECONDS):
                if self._waiter.clock.stopped or self._is_ending:
                    raise StoppedError
        try:
            if self._late_reason:  # it is the team that is busy, not a table
                raise _late(table, job, self._late_reason)
            if self._one_at_a_time:
                self._wait_for_ours()
            self._execute(table, job)
            with self._counting:
                self._running += 1
        finally:
            self._turn.release()

    def _wait_for_ours(self) -> None:
        """Wait until no job of ours is under way; each has a deadline of its own."""
        for pause in growing_pauses(limits.POLL_FIRST_SECONDS, _TURN_SECONDS):
            if not self._running:
                return
            self._wait(pause, "turns to execute")

    def _execute(self, table: str, job: OpenJob) -> None:
        """Submit a job until it is taken, or refused; after 409 and 429 the same one again."""
        deadline: Deadline | None = None
        conflicts = growing_pauses(1.0, limits.CONFLICT_WAIT_SECONDS)
        rate_limited = lost = 0
        while True:
            self._wait_for_submits(table, job)
            deadline = deadline or self._deadline()
            self._journal.note(Step.EXECUTE_MEANT, job=job.id)
            job.executed = True  # or may be: what runs is not deleted
            self.count += 1
            try:
                answer = self._celonis.execute_job(job.id)
            except OutcomeUnknownError:
                lost += 1
                if self._was_taken(job, lost):
                    break
                continue
            except (TargetCelonisError, StoppedError):  # it was never sent
                job.executed = lost > 0  # but an earlier one may still arrive
                raise
            if self._came_late(job, answer, lost):
                break
            if answer.status == HTTPStatus.CONFLICT:
                job.executed = False
                self._one_at_a_time = True
                if self._running:
                    self._say_once("Celonis runs one push job at a time here; ours take turns.")
                    self._wait_for_ours()
                    deadline = None
                    continue
                pause = next(conflicts) * random.uniform(0.8, 1.2)  # noqa: S311  # only spreads
                self._pause(
                    table, job, pause, deadline, "another push job of the team is running (409)"
                )
            elif answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                job.executed = False
                rate_limited += 1
                self._take_refusal(table, job, answer, rate_limited, deadline)
            else:
                job.executed = answer.ok
                expect(answer, f"execute push job {job.id} on table `{table}`")
                break
        self._journal.record(Step.EXECUTED, job=job.id)

    def _came_late(self, job: OpenJob, answer: Answer, lost: int) -> bool:
        """Return whether an execute was refused since another one of the same job was taken."""
        may_be = lost > 0 or answer.status in (
            HTTPStatus.CONFLICT,
            HTTPStatus.INTERNAL_SERVER_ERROR,  # with a reference, which is called a refusal
        )
        return not answer.ok and may_be and self._status_of(job) != JobStatus.NEW

    def _deadline(self) -> Deadline:
        return Deadline(self._waiter.clock, self._config.wait_timeout_seconds)

    def _wait_for_submits(self, table: str, job: OpenJob) -> None:
        """Take one of the submits of the hour, waiting for it if need be."""
        while True:
            self._wait(0.0, "submits")  # a run that is to stop executes nothing
            pause = self._budget.take() if self._budget is not None else None
            if pause is None:
                return
            if pause.whole_hour:
                if self._config.on_submit_limit == "fail":
                    raise LimitError(
                        "TC-LIMIT-06",
                        f"Push job {job.id} on table `{table}` is not executed: {pause.reason}.",
                        "Run again in the next full hour, or set `on_submit_limit` to `wait`.",
                    )
                self._say_once(
                    f"{pause.reason[0].upper()}{pause.reason[1:]}; push jobs wait for the next "
                    f"full hour, {pause.seconds / 60:.0f} min."
                )
            self._wait(pause.seconds, "submits")

    def _take_refusal(
        self, table: str, job: OpenJob, answer: Answer, times: int, deadline: Deadline
    ) -> None:
        """Wait after a 429, and let all runs of this machine wait."""
        pause = rate_limit_pause(answer, times, self._waiter.clock.now())
        reason = "Celonis took too many submits of the team (429)"
        if self._budget is None:
            self._pause(table, job, pause, deadline, reason)
            return
        self._refuse_beyond(table, job, deadline, reason)
        self._say_once(f"Table {table}: {reason}, push job {job.id} waits {pause:.0f} s.")
        self._budget.refused(pause, told=answer.told_pause_seconds is not None)

    def _was_taken(self, job: OpenJob, lost: int) -> bool:
        """Find out whether a job was executed though the answer was lost.

        Raises:
            OutcomeUnknownError: It cannot be found out.
        """
        logger.warning("Push job %s: it is not known whether it was executed; asking.", job.id)
        for _ in range(2):  # the request may still be on its way
            try:
                if self._status_of(job) != JobStatus.NEW:
                    return True
            except (AccessError, RemoteError):
                break
            try:
                self._waiter.wait(limits.DOUBT_SECONDS, "network")
            except StoppedError:
                logger.warning("Push job %s may have been executed; it is left alone.", job.id)
                raise
        else:
            if lost < limits.PUSH_TRIES:
                return False
        raise OutcomeUnknownError(
            "TC-REMOTE-03",
            f"It is not known whether Celonis executed push job {job.id}.",
            "Look at it in Celonis; then run the pipeline again with the last state.",
        )

    def _status_of(self, job: OpenJob) -> str:
        return self._celonis.get_job(job.id).status

    def _pause(
        self, table: str, job: OpenJob, pause: float, deadline: Deadline, reason: str
    ) -> None:
        self._refuse_beyond(table, job, deadline, reason)
        self._say_once(f"Table {table}: {reason}, push job {job.id} waits {pause:.0f} s.")
        self._wait(pause, reason)

    def _refuse_beyond(self, table: str, job: OpenJob, deadline: Deadline, reason: str) -> None:
        if deadline.passed():
            self._late_reason = reason
            raise _late(table, job, reason)

    def end(self) -> None:
        """Execute nothing more; whoever waits for a turn or for submits gives up."""
        self._is_ending = True

    def _wait(self, seconds: float, cause: str) -> None:
        """Wait, unless nothing is to be executed any more."""
        while True:
            self._waiter.wait(min(seconds, _LOOK_UP_SECONDS), cause)
            if self._is_ending:
                raise StoppedError
            seconds -= _LOOK_UP_SECONDS
            if seconds <= 0:
                return

    def ended(self) -> None:
        """Take note that a job that was submitted is waited for no more."""
        with self._counting:
            self._running -= 1


def _late(table: str, job: OpenJob, reason: str) -> LimitError:
    return LimitError(
        "TC-LIMIT-08",
        f"Push job {job.id} on table `{table}` could not be executed in time: {reason}.",
        "Raise `wait_timeout_minutes`, or run when fewer others push.",
    )
