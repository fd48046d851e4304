"""The life of push jobs: create, upload, execute, wait, delete.

Hides what a job needs before it may be created (the table in the pool, one row per key, one schema,
lengths), the calls and their deadlines. Guarantees: a job that was not executed is deleted, one
that was is never cancelled; a ``Receipt`` means that Celonis reported DONE. Must not know: streams'
states, when a checkpoint is due, threads.

Rules of Celonis behind it: a submit is an execute, 250 an hour and 10 a second for the team;
parallel executes are answered with 409, parallel uploads are fine; a job runs once.
"""

from __future__ import annotations

import logging
import random
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.celonis import (
    TERMINAL,
    Celonis,
    JobSpec,
    JobStatus,
    JobType,
    PushJob,
    SchemaColumn,
)
from target_celonis.clock import Clock, Deadline, StoppedError
from target_celonis.contract import (
    ListedColumn,
    check_outcome,
    cut_lengths,
    fitted,
    refuse_shrinking,
    terms,
)
from target_celonis.errors import (
    ContractError,
    LimitError,
    OutcomeUnknownError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.http import expect, rate_limit_pause
from target_celonis.route import (
    Listing,
    OpenJob,
    OpenPush,
    PushTask,
    Receipt,
    longest_texts,
    merge_task,
    receipt_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_celonis.celonis import PoolTable
    from target_celonis.config import Config
    from target_celonis.spool import Chunk
    from target_celonis.table import TablePlan
    from target_celonis.table_notes import TableNotes

logger = logging.getLogger("target-celonis")


class DataPush:
    """The Data Push API as a route.

    Args:
        celonis: The pool.
        config: Deadlines, chunk size and the like.
        clock: For waits.
        notes: What earlier runs left of the pool's tables.
    """

    def __init__(self, celonis: Celonis, config: Config, clock: Clock, notes: TableNotes) -> None:
        self._celonis = celonis
        self._config = config
        self._clock = clock
        self._notes = notes
        self._merging = threading.Lock()
        self._next_submit = 0.0
        self._unlisted_said = False
        self._made: set[str] = set()  # tables of this run, which a listing may not show yet

    def look(self) -> Listing:
        """Read which tables there are."""
        tables = self._celonis.tables()
        if tables is None:
            self._say_unlisted()
        return Listing(None if tables is None else tuple(tables))

    def _say_unlisted(self) -> None:
        if not self._unlisted_said:
            self._unlisted_said = True
            logger.warning(
                "The key may not list the pool's tables: column lengths are not verified before "
                "the push."
            )

    def open(self, task: PushTask, listing: Listing) -> OpenPush:
        """Compare with the pool's table, merge the chunks and create the jobs.

        Raises:
            ContractError: The table in the pool does not fit the stream.
        """
        is_there, listed = self._table(task, listing)
        plan = task.plan if listed is None else fitted(task.plan, listed, self._config)
        keeps_table = task.type is JobType.DELTA
        beside = listed if keeps_table else None  # what a REPLACE finds does not matter
        with self._merging:  # one at a time, since each takes its share of memory
            cuts = cut_lengths(plan, beside or (), self._config)
            merged = merge_task(task, plan, self._config, cuts)
        # Those of rows to delete count, too: a key that is cut would delete another row.
        longest = longest_texts((*merged.chunks, *merged.deleted))
        agreed = terms(plan, longest, beside, self._config)
        rows = sum(chunk.rows for chunk in merged.chunks)
        if not keeps_table and rows and is_there is not False:
            refuse_shrinking(plan.table, rows, self._notes.rows(plan.table), self._config)
        unlisted = is_there is None or (is_there and keeps_table and listed is None)
        push = OpenPush(task, (), merged, agreed, length_verified=not unlisted)
        if rows:
            replaces = not keeps_table or (
                is_there is False
                and self._config.create_missing_table == "replace"
                and not self._was_made(plan)
            )
            job_type = JobType.REPLACE if replaces else JobType.DELTA
            self._create(push, plan, job_type, merged.chunks, deletes=False)
        elif not keeps_table:
            logger.warning(
                "Table %s is left as it is: all its new rows are deleted ones, and zero rows never "
                "replace a table.",
                plan.table,
            )
        if merged.deleted and keeps_table and (is_there is not False or self._was_made(plan)):
            try:
                self._create(push, plan, JobType.DELTA, merged.deleted, deletes=True)
            except BaseException:
                self.abort(push)
                raise
        return push

    def _was_made(self, plan: TablePlan) -> bool:
        return plan.table.casefold() in self._made

    def _table(
        self, task: PushTask, listing: Listing
    ) -> tuple[bool | None, list[ListedColumn] | None]:
        """Return whether the pool has the table (None: not known), and its columns if need be."""
        frozen = self._config.schema_change == "freeze"
        if listing.tables is None:
            if frozen:
                raise _not_comparable(task.plan.table)
            return None, None
        present = self._find(task.plan.table, listing.tables)
        if present is None:
            return False, None
        if task.type is JobType.REPLACE and not frozen:
            return True, None
        listed = self._celonis.columns(present.name)
        if listed is None:
            if frozen:
                raise _not_comparable(task.plan.table)
            self._say_unlisted()
        return True, listed

    def _create(
        self,
        push: OpenPush,
        plan: TablePlan,
        job_type: JobType,
        chunks: tuple[Chunk, ...],
        *,
        deletes: bool,
    ) -> None:
        """Create a job of a push."""
        keyed = job_type is JobType.DELTA  # a REPLACE has no keys, its rows are unique by now
        spec = JobSpec(
            table=plan.table,
            type=job_type,
            columns=tuple(
                SchemaColumn(
                    name=column.name,
                    type=column.celonis_type,
                    length=push.terms.lengths.get(column.name),
                    is_key=keyed and column.is_key,
                )
                for column in plan.columns
            ),
            keys=tuple(column.name for column in plan.keys) if keyed else (),
            adds_columns=keyed and push.terms.differs,
        )
        job = self._celonis.create_job(spec)
        logger.info("Table %s: push job %s (%s) created.", plan.table, job.id, spec.type)
        push.jobs = (*push.jobs, OpenJob(job.id, job_type, chunks, deletes=deletes))

    def _find(self, table: str, tables: Sequence[PoolTable]) -> PoolTable | None:
        wanted = (table.casefold(), self._celonis.connection_id)
        return next((t for t in tables if (t.name.casefold(), t.connection_id) == wanted), None)

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Upload one chunk."""
        self._celonis.upload_chunk(job.id, chunk.path, deletes=job.deletes)
        chunk.path.unlink(missing_ok=True)

    def abort(self, push: OpenPush) -> None:
        """Delete jobs that were not executed; a failure leaves an orphan that does no harm."""
        table = push.task.plan.table
        for job in push.jobs:
            if job.executed:
                continue
            try:
                self._celonis.delete_job(job.id)
                logger.info("Table %s: push job %s deleted.", table, job.id)
            except (TargetCelonisError, StoppedError):
                logger.warning(
                    "Table %s: push job %s was not executed and could not be deleted; it has "
                    "touched nothing.",
                    table,
                    job.id,
                )

    def commit(self, push: OpenPush) -> Receipt:
        """Execute the jobs one after the other and wait until each is DONE.

        Raises:
            RemoteError: One ended otherwise, or Celonis refused.
            LimitError: One did not end in time.
            StoppedError: The run is to stop; a job that runs is left running.
        """
        try:
            for job in push.jobs:
                self._carry_out(push.task.plan.table, job)
        except BaseException:
            self.abort(push)
            raise
        receipt = receipt_of(push)
        plan = push.task.plan
        if receipt.loaded_rows:
            self._made.add(plan.table.casefold())
        if any(job.type is JobType.REPLACE for job in push.jobs):
            self._notes.replaced(plan.table, receipt.loaded_rows)
        if (push.terms.new or push.terms.widened) and receipt.loaded_rows:
            check_outcome(plan, push.terms, self._celonis.columns(plan.table))
        return receipt

    def _carry_out(self, table: str, job: OpenJob) -> None:
        """Execute a job and wait until it is DONE."""
        try:
            self._execute(table, job, Deadline(self._clock, self._config.wait_timeout_seconds))
        except OutcomeUnknownError:
            job.executed = True  # it may be running: what runs is not deleted
            raise
        job.executed = True
        self._await_end(table, job, Deadline(self._clock, self._config.wait_timeout_seconds))
        self._forget(job)
        done = "deleted" if job.deletes else "loaded"
        logger.info("Table %s: %d rows %s by push job %s.", table, job.rows, done, job.id)

    def _forget(self, job: OpenJob) -> None:
        """Delete a job that has ended; there may be a cap on jobs left behind."""
        try:
            self._celonis.delete_job(job.id)
        except (TargetCelonisError, StoppedError):
            logger.warning("Push job %s has ended and could not be deleted.", job.id)

    def _execute(self, table: str, job: OpenJob, deadline: Deadline) -> None:
        """Submit the job: once, or after 409 and 429 the same job again."""
        pauses = _growing(1.0, limits.CONFLICT_WAIT_SECONDS)
        rate_limited = 0
        said = False
        while True:
            self._wait(max(0.0, self._next_submit - self._clock.monotonic()))
            answer = self._celonis.execute_job(job.id)
            self._next_submit = self._clock.monotonic() + 1.0 / limits.SUBMITS_PER_SECOND
            if answer.status == HTTPStatus.CONFLICT:
                if self._celonis.get_job(job.id).status != JobStatus.NEW:
                    return
                pause = next(pauses) * random.uniform(0.8, 1.2)  # noqa: S311  # only spreads
                reason = "another push job of the team is running (409)"
            elif answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                rate_limited += 1
                pause = rate_limit_pause(answer, rate_limited, self._clock.now())
                reason = "the team's submits are used up for now (429)"
            else:
                expect(answer, f"execute push job {job.id} on table `{table}`")
                return
            if not said:
                logger.info("Table %s: %s, push job %s waits %.0f s.", table, reason, job.id, pause)
                said = True
            if pause > deadline.remaining_seconds():
                raise LimitError(
                    "TC-LIMIT-01",
                    f"Push job {job.id} on table `{table}` could not be executed in time: "
                    f"{reason}.",
                    "Raise `wait_timeout_minutes`, or run when fewer others push.",
                )
            self._wait(pause)

    def _wait(self, seconds: float) -> None:
        if self._clock.wait(seconds):
            raise StoppedError

    def _await_end(self, table: str, job: OpenJob, deadline: Deadline) -> None:
        """Wait until the job is DONE."""
        strange: set[str] = set()
        stopping: Deadline | None = None
        for pause in _growing(limits.POLL_FIRST_SECONDS, limits.POLL_LONGEST_SECONDS):
            try:
                seen = self._celonis.get_job(job.id)
            except StoppedError:  # while waiting to ask again
                seen = PushJob(job.id, JobStatus.RUNNING, table)
            if seen.status == JobStatus.DONE:
                return
            if seen.status in TERMINAL:
                self._forget(job)
                said = " ".join(line.strip() for line in seen.logs)[:2000]
                raise RemoteError(
                    "TC-REMOTE-04",
                    f"Push job {job.id} on table `{table}` ended as {seen.status}, so what the "
                    f"table holds is not known. Celonis says: {said or 'nothing'}",
                    "Mend the cause and run again with the last state.",
                )
            if seen.status not in tuple(JobStatus) and seen.status not in strange:
                strange.add(seen.status)
                logger.warning("Push job %s has the unknown status %s.", job.id, seen.status)
            if stopping is not None:
                if stopping.passed():
                    logger.warning(
                        "Table %s: push job %s is left running; Celonis will finish it.",
                        table,
                        job.id,
                    )
                    raise StoppedError
                self._clock.sleep(min(pause, 1.0, stopping.remaining_seconds()))
            elif deadline.passed():
                raise LimitError(
                    "TC-LIMIT-01",
                    f"Push job {job.id} on table `{table}` has not ended within "
                    f"{self._config.wait_timeout_seconds / 60:.0f} minutes; its status is "
                    f"{seen.status}.",
                    "It goes on by itself. Look at it in Celonis, or raise `wait_timeout_minutes`.",
                )
            elif self._clock.wait(pause):
                stopping = Deadline(self._clock, self._config.signal_grace_seconds)


def _not_comparable(table: str) -> ContractError:
    return ContractError(
        "TC-CONTRACT-09",
        f"The columns of table `{table}` may not be listed with this key, and `schema_change` is "
        "`freeze`.",
        "Give the key the permission to read the data pool, or set `schema_change` to `evolve`.",
    )


def _growing(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Yield pauses that grow by half from one to the next."""
    pause = first_seconds
    while True:
        yield pause
        pause = min(pause * 1.5, longest_seconds)
