"""Single push jobs: each call with every outcome that it can have, and what is known of it.

Hides which calls may be repeated, how an answer that was lost is made up for by asking, and how the
end of a job is waited for. Guarantees: each intent is in the journal before it is carried out; a
job that was executed, or may have been, is neither deleted nor cancelled before its end is known;
jobs that this machine's journals do not name are never touched. Must not know: streams, plans,
states.

Rules of Celonis behind it: uploads side by side are fine; nothing touches the table before execute;
chunks are applied one by one.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.celonis import TERMINAL, Celonis, JobSpec, JobStatus, PushJob
from target_celonis.clock import Deadline, StoppedError, growing_pauses
from target_celonis.errors import (
    AccessError,
    LimitError,
    OutcomeUnknownError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.journal import Step
from target_celonis.say_once import SayOnce
from target_celonis.waits import Blindness

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from target_celonis.config import Config
    from target_celonis.journal import Journal
    from target_celonis.route import OpenJob
    from target_celonis.spool import Chunk
    from target_celonis.submits import Submits
    from target_celonis.waits import Waiter

logger = logging.getLogger("target-celonis")


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
        config: Deadlines.
        journal: Of this run.
        submits: Executes jobs.
        waiter: Waits.
        inherited: Ids of jobs that dead runs of this machine left.
    """

    def __init__(
        self,
        celonis: Celonis,
        config: Config,
        journal: Journal,
        *,
        submits: Submits,
        waiter: Waiter,
        inherited: Collection[str] = (),
    ) -> None:
        self._celonis = celonis
        self._config = config
        self._journal = journal
        self._submits = submits
        self._waiter = waiter
        self._inherited = set(inherited)
        self._ours: set[str] = set()
        self._settled_tables: set[str] = set()
        self._say_once = SayOnce()

    # --- what is there already

    def list(self) -> Sequence[PushJob]:
        """Return the jobs on tables of our data connection."""
        connection_id = self._celonis.connection_id
        return [job for job in self._celonis.list_jobs() if job.connection_id == connection_id]

    def wait_for_others(self, table: str, listed: Sequence[PushJob]) -> bool:
        """Wait until no job of another run is under way on a table, once for each table.

        Returns:
            Whether one was.

        Raises:
            LimitError: One did not end in time.
        """
        waited = False
        if table.casefold() in self._settled_tables:
            return waited
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
                waited = True
            if job.id in self._inherited and job.status != JobStatus.NEW:
                self.delete(job.id, executed=True)
        self._settled_tables.add(table.casefold())
        return waited

    # --- create, upload, delete

    def create(self, spec: JobSpec, content: JobContent, listed: Sequence[PushJob]) -> str:
        """Create a job and return its id; where an answer is lost, another one.

        Args:
            spec: The job.
            content: What it will hold.
            listed: Jobs that were there at the start of the push.

        Raises:
            OutcomeUnknownError: Several answers were lost.
            LimitError: The journal cannot be written.
        """
        before = self._ids(listed)  # seen just now: what others make meanwhile is not ours
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
                    self._delete_orphans(spec, before, lost)
                    raise
                logger.warning(
                    "Table %s: it is not known whether a push job was created; another one is.",
                    spec.table,
                )
        try:
            self._note_created(job.id, spec, content)
        except LimitError:  # a job that the next run would not know
            self.delete(job.id)
            raise
        logger.info("Table %s: push job %s (%s) created.", spec.table, job.id, spec.type)
        if lost:
            self._delete_orphans(spec, before, lost)
        return job.id

    def _ids(self, listed: Sequence[PushJob]) -> set[str]:
        """Return the ids of the jobs that are there; where they cannot be listed, of ``listed``."""
        try:
            return {job.id for job in self._celonis.list_jobs()}
        except TargetCelonisError:
            return {job.id for job in listed}

    def _delete_orphans(self, spec: JobSpec, before: Collection[str], lost: int) -> None:
        """Delete jobs whose creation was answered to nobody; they have touched nothing."""
        try:
            orphans = [
                job
                for job in self._celonis.list_jobs()
                if job.id not in before
                and job.id not in self._ours
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
            with suppress(LimitError):
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
                self._journal.record(Step.CHUNK_CONFIRMED, job=job.id, file=chunk.path.name)
                return

    def all_arrived(self, job: OpenJob) -> bool:
        """Return whether all chunks of a job are surely in it; its uploads have ended."""
        if not job.in_doubt:
            return True
        try:
            there = self._celonis.count_chunks(job.id)
        except (AccessError, RemoteError):
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
        self._journal.record(Step.JOB_DELETED, job=job_id, unexecuted=not executed)
        return True

    # --- execute

    def end(self) -> None:
        """Execute nothing more."""
        self._submits.end()

    def carry_out(self, table: str, job: OpenJob) -> None:
        """Execute a job, wait until it is DONE, and delete it.

        Raises:
            RemoteError: It ended otherwise, or Celonis refused.
            LimitError: It did not end in time, or the submits of the hour are used up.
            StoppedError: The run is to stop; a job that runs is left running.
        """
        self._submits.submit(table, job)
        try:
            ended = self._follow(table, job.id, "push jobs")
            if ended is None:
                raise _gone(table, job.id)
            if ended.status != JobStatus.DONE:
                self._journal.record(Step.ENDED_BADLY, job=job.id, status=ended.status)
                self.delete(job.id, executed=True)
                raise _ended_badly(table, ended)
            self._journal.record(Step.DONE, job=job.id, rows=job.rows)
        finally:
            self._submits.ended()
        if not self.delete(job.id, executed=True):
            logger.warning("Push job %s has ended and could not be deleted.", job.id)

    # --- the end of a job

    def _follow(self, table: str, job_id: str, cause: str) -> PushJob | None:
        """Wait until a job has ended; None when it is gone.

        Raises:
            LimitError: It has not in time.
            RemoteError: For long, nothing of use was answered.
            StoppedError: The run is to stop; the job is left running.
        """
        deadline = Deadline(self._waiter.clock, self._config.wait_timeout_seconds)
        stopping: Deadline | None = None
        blind = Blindness(
            self._waiter.clock, f"Push job {job_id}", lambda error: _lost_sight(job_id, error)
        )
        seen: PushJob | None = PushJob(job_id, JobStatus.RUNNING, table)
        for pause in growing_pauses(limits.POLL_FIRST_SECONDS, limits.POLL_LONGEST_SECONDS):
            with suppress(StoppedError), blind.borne(may_last=stopping is None):
                seen = self._celonis.find_job(job_id)
            if seen is None or seen.status in TERMINAL:
                return seen
            if seen.status not in tuple(JobStatus):
                self._say_once(f"Push job {job_id} has the unknown status {seen.status}.")
            if stopping is None and deadline.passed():
                raise self._not_in_time(table, seen)
            if stopping is None:
                with suppress(StoppedError):
                    self._waiter.wait(pause, cause)
                if self._waiter.clock.stopped:
                    stopping = Deadline(self._waiter.clock, self._config.signal_grace_seconds)
            elif stopping.passed():
                logger.warning(
                    "Table %s: push job %s is left running; Celonis will finish it.", table, job_id
                )
                raise StoppedError
            else:
                self._waiter.clock.sleep(min(pause, 1.0, stopping.remaining_seconds()))
        raise AssertionError

    def _not_in_time(self, table: str, job: PushJob) -> LimitError:
        return LimitError(
            "TC-LIMIT-01",
            f"Push job {job.id} on table `{table}` has not ended within "
            f"{self._config.wait_timeout_seconds / 60:.0f} minutes; its status is {job.status}.",
            "It goes on by itself. Look at it in Celonis, or raise `wait_timeout_minutes`.",
        )


def _lost_sight(job_id: str, error: RemoteError) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "TC-REMOTE-03",
        f"Push job {job_id} was executed, and how it ended is not known. {error.message}",
        "Look at it in Celonis; then run the pipeline again with the last state.",
    )


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
