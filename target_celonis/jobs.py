"""Single push jobs: each call with every outcome that it can have, and what is known of it.

Hides which calls may be repeated, how an answer that was lost is made up for by asking, whose turn
it is to submit, and the submits of the hour. Guarantees: each intent is in the journal before it is
carried out; one execute is in flight at a time; a job is executed again only while it is NEW; a job
that was executed, or may have been, is neither deleted nor cancelled before its end is known; jobs
that this machine's journals do not name are never touched. Must not know: streams, plans, states.

Rules of Celonis behind it: a submit is an execute, 250 an hour and 10 a second for the team;
parallel executes may be answered with 409, parallel uploads are fine; a job runs once; nothing
touches the table before execute; chunks are applied one by one.
"""

from __future__ import annotations

import logging
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.celonis import TERMINAL, Celonis, JobSpec, JobStatus, PushJob
from target_celonis.clock import Clock, Deadline, StoppedError
from target_celonis.errors import (
    AccessError,
    LimitError,
    OutcomeUnknownError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.http import expect, rate_limit_pause
from target_celonis.journal import Step

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from target_celonis.answers import Answer
    from target_celonis.budget import SubmitBudget
    from target_celonis.config import Config
    from target_celonis.journal import Journal
    from target_celonis.route import OpenJob
    from target_celonis.spool import Chunk
    from target_celonis.waits import Waits

logger = logging.getLogger("target-celonis")

_TURN_SECONDS = 0.5


@dataclass(frozen=True)
class JobContent:
    """What a job holds, for the journal.

    Attributes:
        rows: Its rows.
        appends: Whether they would stand twice, were they loaded again.
        last_line: Number of the input line of its last record.
    """

    rows: int
    appends: bool
    last_line: int


class PushJobs:
    """The pool's push jobs.

    Args:
        celonis: The pool.
        config: Deadlines, and what to do when the submits are used up.
        clock: For waits.
        journal: Of this run.
        budget: Submits of this machine; None where they are not limited.
        waits: Takes what was waited for.
        inherited: Ids of jobs that dead runs of this machine left.

    Attributes:
        submits: How often a job was executed, answers that refused it included.
    """

    def __init__(
        self,
        celonis: Celonis,
        config: Config,
        clock: Clock,
        journal: Journal,
        *,
        budget: SubmitBudget | None,
        waits: Waits,
        inherited: Collection[str] = (),
    ) -> None:
        self.submits = 0
        self._celonis = celonis
        self._config = config
        self._clock = clock
        self._journal = journal
        self._budget = budget
        self._waits = waits
        self._inherited = set(inherited)
        self._ours: set[str] = set()
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._running = 0
        self._one_at_a_time = False
        self._settled_tables: set[str] = set()
        self._said: set[str] = set()

    # --- what is there already

    def list(self) -> Sequence[PushJob]:
        """Return the jobs on tables of our data connection."""
        connection_id = self._celonis.connection_id
        return [job for job in self._celonis.list_jobs() if job.connection_id == connection_id]

    def wait_for_others(self, table: str, listed: Sequence[PushJob]) -> None:
        """Wait until no job of another run is under way on a table, once for each table.

        Raises:
            LimitError: One did not end in time.
        """
        if table.casefold() in self._settled_tables:
            return
        for job in listed:
            if job.table.casefold() != table.casefold() or job.id in self._ours:
                continue
            if job.status == JobStatus.NEW:
                logger.info(
                    "Table %s: push job %s is NEW and in no journal of this machine; it is left "
                    "alone.",
                    table,
                    job.id,
                )
            elif job.status not in TERMINAL:
                logger.info(
                    "Table %s: push job %s of another run is %s; waiting for its end.",
                    table,
                    job.id,
                    job.status,
                )
                self._follow(table, job.id, "push jobs of other runs")
                if job.id in self._inherited:
                    self.delete(job.id)
        self._settled_tables.add(table.casefold())

    # --- create, upload, delete

    def create(self, spec: JobSpec, content: JobContent, listed: Sequence[PushJob]) -> str:
        """Create a job and return its id; where an answer is lost, another one.

        Args:
            spec: The job.
            content: What it will hold.
            listed: Jobs that were there before.

        Raises:
            OutcomeUnknownError: Several answers were lost.
        """
        lost = 0
        while True:
            self._journal.note(
                Step.JOB_MEANT, table=spec.table, type=spec.type.value, rows=content.rows
            )
            try:
                job = self._celonis.create_job(spec)
                break
            except OutcomeUnknownError:
                lost += 1
                if lost >= limits.PUSH_TRIES:
                    self._delete_orphans(spec, listed, lost)
                    raise
                logger.warning(
                    "Table %s: it is not known whether a push job was created; another one is.",
                    spec.table,
                )
        self._note_created(job.id, spec, content)
        logger.info("Table %s: push job %s (%s) created.", spec.table, job.id, spec.type)
        if lost:
            self._delete_orphans(spec, listed, lost)
        return job.id

    def _delete_orphans(self, spec: JobSpec, listed: Sequence[PushJob], lost: int) -> None:
        """Delete jobs whose creation was answered to nobody; they have touched nothing."""
        before = {job.id for job in listed} | self._ours
        try:
            orphans = [
                job
                for job in self._celonis.list_jobs()
                if job.id not in before
                and job.status == JobStatus.NEW
                and job.table == spec.table
                and job.type == spec.type
                and job.connection_id == self._celonis.connection_id
            ]
        except TargetCelonisError:
            orphans = []
        if len(orphans) > lost:  # somebody else makes such jobs, too: which are ours is not known
            self._say_once(
                f"Table {spec.table}: some of these push jobs are NEW and of nobody: "
                f"{', '.join(job.id for job in orphans)}. They have touched nothing."
            )
            return
        for job in orphans:
            self._note_created(job.id, spec, JobContent(0, appends=False, last_line=0))
            self.delete(job.id)

    def _note_created(self, job_id: str, spec: JobSpec, content: JobContent) -> None:
        self._ours.add(job_id)
        self._journal.note(
            Step.JOB_CREATED,
            job=job_id,
            table=spec.table,
            type=spec.type.value,
            rows=content.rows,
            appends=content.appends,
            last_line=content.last_line,
        )

    def upload(self, job: OpenJob, chunk: Chunk) -> None:
        """Upload a chunk; where the answer is lost, say so to the job or send it again.

        Raises:
            OutcomeUnknownError: Several answers for a chunk of a job with keys were lost.
        """
        for tried in range(1, limits.PUSH_TRIES + 1):
            try:
                self._celonis.upload_chunk(job.id, chunk.path, deletes=job.deletes)
            except OutcomeUnknownError:
                if not job.keyed:
                    job.in_doubt.append(chunk)
                    return
                if tried == limits.PUSH_TRIES:
                    raise
                logger.warning(
                    "Push job %s: it is not known whether a chunk arrived; it is sent again, which "
                    "its keys make harmless.",
                    job.id,
                )
            else:
                job.confirmed.append(chunk)
                self._journal.note(Step.CHUNK_CONFIRMED, job=job.id, file=chunk.path.name)
                return

    def all_arrived(self, job: OpenJob) -> bool:
        """Return whether all chunks of a job are surely in it; its uploads have ended."""
        if not job.in_doubt:
            return True
        try:
            there = self._celonis.count_chunks(job.id)
        except RemoteError:
            there = -1
        arrived = there == len(job.confirmed) + len(job.in_doubt)
        logger.warning(
            "Push job %s: it was not known whether %d of its chunks arrived; %s.",
            job.id,
            len(job.in_doubt),
            "all did" if arrived else "the job is deleted and all of it is sent again",
        )
        return arrived

    def delete(self, job_id: str, *, executed: bool = False) -> bool:
        """Delete a job, since there may be a cap on them; return whether that was possible."""
        try:
            self._celonis.delete_job(job_id)
        except (TargetCelonisError, StoppedError):
            return False
        try:
            self._journal.note(Step.JOB_DELETED, job=job_id, unexecuted=not executed)
        except LimitError:  # the next run will find that it is gone
            logger.warning("That push job %s is deleted could not be noted.", job_id)
        return True

    # --- execute

    def carry_out(self, table: str, job: OpenJob) -> None:
        """Execute a job, wait until it is DONE, and delete it.

        Raises:
            RemoteError: It ended otherwise, or Celonis refused.
            LimitError: It did not end in time, or the submits of the hour are used up.
            StoppedError: The run is to stop; a job that runs is left running.
        """
        self._submit(table, job)
        try:
            ended = self._follow(table, job.id, "push jobs")
            if ended is None:
                raise _gone(table, job.id)
            if ended.status != JobStatus.DONE:
                self._journal.note(Step.ENDED_BADLY, job=job.id, status=ended.status)
                self.delete(job.id, executed=True)
                raise _ended_badly(table, ended)
            self._journal.note(Step.DONE, job=job.id, rows=job.rows)
        finally:
            with self._counting:
                self._running -= 1
        if not self.delete(job.id, executed=True):
            logger.warning("Push job %s has ended and could not be deleted.", job.id)

    def _submit(self, table: str, job: OpenJob) -> None:
        """Execute a job when it is its turn; it counts as running from then on."""
        with self._waiting("turns to execute"):
            while not self._turn.acquire(timeout=_TURN_SECONDS):
                if self._clock.stopped:
                    raise StoppedError
        try:
            if self._one_at_a_time:
                self._wait_for_ours()
            self._execute(table, job, Deadline(self._clock, self._config.wait_timeout_seconds))
            with self._counting:
                self._running += 1
        finally:
            self._turn.release()

    @contextmanager
    def _waiting(self, cause: str) -> Iterator[None]:
        began = self._clock.monotonic()
        try:
            yield
        finally:
            self._waits.add(cause, self._clock.monotonic() - began)

    def _wait_for_ours(self) -> None:
        """Wait until no job of ours is under way; each has a deadline of its own."""
        for pause in _growing(limits.POLL_FIRST_SECONDS, _TURN_SECONDS):
            if not self._running:
                return
            self._wait(pause, "turns to execute")

    def _execute(self, table: str, job: OpenJob, deadline: Deadline) -> None:
        """Submit a job until it is taken, or refused; after 409 and 429 the same one again."""
        conflicts = _growing(1.0, limits.CONFLICT_WAIT_SECONDS)
        rate_limited = lost = 0
        while True:
            self._wait_for_submits(table, job)
            self._journal.note(Step.EXECUTE_MEANT, job=job.id)
            job.executed = True  # or may be: what runs is not deleted
            self.submits += 1
            try:
                answer = self._celonis.execute_job(job.id)
            except OutcomeUnknownError:
                lost += 1
                if self._was_taken(job, lost):
                    break
                continue
            except (TargetCelonisError, StoppedError):  # it was never sent
                job.executed = False
                raise
            if answer.status == HTTPStatus.CONFLICT:
                if self._status_of(job) != JobStatus.NEW:
                    break
                job.executed = False
                self._one_at_a_time = True
                if self._running:
                    self._say_once("Celonis runs one push job at a time here; ours take turns.")
                    self._wait_for_ours()
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
                if not answer.ok:
                    job.executed = False
                expect(answer, f"execute push job {job.id} on table `{table}`")
                break
        self._journal.note(Step.EXECUTED, job=job.id)

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
        pause = rate_limit_pause(answer, times, self._clock.now())
        reason = "Celonis took too many submits of the team (429)"
        if self._budget is None:
            self._pause(table, job, pause, deadline, reason)
            return
        self._refuse_beyond(table, job, pause, deadline, reason)
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
            self._wait(limits.DOUBT_SECONDS, "network")
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
        self._refuse_beyond(table, job, pause, deadline, reason)
        self._say_once(f"Table {table}: {reason}, push job {job.id} waits {pause:.0f} s.")
        self._wait(pause, reason)

    def _refuse_beyond(
        self, table: str, job: OpenJob, pause: float, deadline: Deadline, reason: str
    ) -> None:
        if pause > deadline.remaining_seconds():
            raise LimitError(
                "TC-LIMIT-01",
                f"Push job {job.id} on table `{table}` could not be executed in time: {reason}.",
                "Raise `wait_timeout_minutes`, or run when fewer others push.",
            )

    def _wait(self, seconds: float, cause: str) -> None:
        with self._waiting(cause):
            if self._clock.wait(seconds):
                raise StoppedError

    # --- the end of a job

    def _follow(self, table: str, job_id: str, cause: str) -> PushJob | None:
        """Wait until a job has ended; None when it is gone.

        Raises:
            LimitError: It has not in time.
            RemoteError: For long, nothing of use was answered.
            StoppedError: The run is to stop; the job is left running.
        """
        deadline = Deadline(self._clock, self._config.wait_timeout_seconds)
        stopping: Deadline | None = None
        blind: Deadline | None = None
        seen: PushJob | None = PushJob(job_id, JobStatus.RUNNING, table)
        for pause in _growing(limits.POLL_FIRST_SECONDS, limits.POLL_LONGEST_SECONDS):
            try:
                seen = self._celonis.find_job(job_id)
                blind = None
            except StoppedError:  # while waiting to ask again
                pass
            except RemoteError:
                blind = blind or Deadline(self._clock, limits.BLIND_SECONDS)
                if blind.passed() or stopping is not None:
                    raise
                self._say_once(f"Push job {job_id} cannot be looked at just now; going on.")
            if seen is None or seen.status in TERMINAL:
                return seen
            if seen.status not in tuple(JobStatus):
                self._say_once(f"Push job {job_id} has the unknown status {seen.status}.")
            if stopping is not None:
                if stopping.passed():
                    logger.warning(
                        "Table %s: push job %s is left running; Celonis will finish it.",
                        table,
                        job_id,
                    )
                    raise StoppedError
                self._clock.sleep(min(pause, 1.0, stopping.remaining_seconds()))
            elif deadline.passed():
                raise LimitError(
                    "TC-LIMIT-01",
                    f"Push job {job_id} on table `{table}` has not ended within "
                    f"{self._config.wait_timeout_seconds / 60:.0f} minutes; its status is "
                    f"{seen.status}.",
                    "It goes on by itself. Look at it in Celonis, or raise `wait_timeout_minutes`.",
                )
            else:
                with self._waiting(cause):
                    stopped = self._clock.wait(pause)
                if stopped:
                    stopping = Deadline(self._clock, self._config.signal_grace_seconds)
        raise AssertionError

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            logger.info("%s", line)


def _gone(table: str, job_id: str) -> RemoteError:
    return RemoteError(
        "TC-REMOTE-04",
        f"Push job {job_id} on table `{table}` is gone after it was executed, so what the table "
        "holds is not known.",
        "Find out who deleted it, and run again with the last state.",
    )


def _ended_badly(table: str, job: PushJob) -> RemoteError:
    said = " ".join(line.strip() for line in job.logs)[:2000]
    return RemoteError(
        "TC-REMOTE-04",
        f"Push job {job.id} on table `{table}` ended as {job.status}, so what the table holds is "
        f"not known. Celonis says: {said or 'nothing'}",
        "Mend the cause and run again with the last state.",
    )


def _growing(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Yield pauses that grow by half from one to the next."""
    pause = first_seconds
    while True:
        yield pause
        pause = min(pause * 1.5, longest_seconds)
