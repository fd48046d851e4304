"""The life of push jobs: create, upload, execute, wait, delete.

Hides what a job needs before it may be created (one row per key, one schema, lengths, the table in
the pool), the calls and their deadlines. Guarantees: a job that was not executed is deleted, one
that was is never cancelled; a ``Receipt`` means that Celonis reported DONE. Must not know: streams'
states, when a checkpoint is due, threads.

Rules of Celonis behind it: a submit is an execute, 250 an hour and 10 a second for the team;
parallel executes are answered with 409, parallel uploads are fine; a job runs once.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from target_celonis import limits
from target_celonis.celonis import (
    TERMINAL,
    Celonis,
    JobSpec,
    JobStatus,
    JobType,
    PoolTable,
    PushJob,
    SchemaColumn,
)
from target_celonis.clock import Clock, Deadline, StoppedError
from target_celonis.errors import (
    ContractError,
    LimitError,
    OutcomeUnknownError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.http import expect, rate_limit_pause
from target_celonis.merge import PARTITION_ROWS, Merged, merge
from target_celonis.table import ListedColumn, TablePlan, compare, declared_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from target_celonis.config import Config
    from target_celonis.spool import Chunk

logger = logging.getLogger("target-celonis")

_BYTES_PER_SORTED_ROW = 100


@dataclass(frozen=True, eq=False)  # two tasks are never the same
class PushTask:
    """The rows of one table that one push job is to load.

    Attributes:
        plan: The table.
        type: REPLACE or DELTA.
        chunks: In the order of their records; emptied from disk by the push.
        directory: Empty, for files made on the way.
        rows: Records in the chunks.
    """

    plan: TablePlan
    type: JobType
    chunks: tuple[Chunk, ...]
    directory: Path
    rows: int


@dataclass(frozen=True)
class Receipt:
    """A push job that Celonis reported DONE.

    Attributes:
        task: What was asked for.
        job_id: Its id; the job itself is deleted by now.
        loaded_rows: Rows in its chunks.
        superseded_rows: Rows left out, since a later one of the same push has their key.
        chunks: How many were uploaded.
        uploaded_bytes: Their size.
        length_verified: Whether the table's column lengths could be read.
    """

    task: PushTask
    job_id: str
    loaded_rows: int
    superseded_rows: int
    chunks: int
    uploaded_bytes: int
    length_verified: bool


@dataclass
class OpenJob:
    """A push job that was created and not yet executed."""

    task: PushTask
    id: str
    chunks: tuple[Chunk, ...]
    superseded_rows: int
    length_verified: bool
    awaited_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The pool's tables at the start of a push; None where the key may not list them."""

    tables: tuple[PoolTable, ...] | None


class PushRoute(Protocol):
    """A way for a table's chunks into Celonis."""

    def look(self) -> Listing:
        """Read what the pool holds."""
        ...

    def open(self, task: PushTask, listing: Listing) -> OpenJob:
        """Check a table and make a job for it."""
        ...

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Hand over one chunk; may be called from several threads."""
        ...

    def commit(self, job: OpenJob) -> Receipt:
        """Have the job carried out and wait for its end."""
        ...

    def abort(self, job: OpenJob) -> None:
        """Forget a job that was not carried out."""
        ...


class DataPush:
    """The Data Push API as a route.

    Args:
        celonis: The pool.
        config: Deadlines, chunk size and the like.
        clock: For waits.
    """

    def __init__(self, celonis: Celonis, config: Config, clock: Clock) -> None:
        self._celonis = celonis
        self._config = config
        self._clock = clock
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

    def open(self, task: PushTask, listing: Listing) -> OpenJob:
        """Merge the chunks, compare with the pool's table and create the job.

        Raises:
            ContractError: The table in the pool does not fit the stream.
        """
        plan = task.plan
        with self._merging:  # one at a time, since each takes its share of memory
            merged = merge_task(task, self._config)
        longest = longest_texts(merged.chunks)
        spec, verified = self._spec(task, longest, listing)
        job = self._celonis.create_job(spec)
        logger.info("Table %s: push job %s (%s) created.", plan.table, job.id, spec.type)
        return OpenJob(
            task=task,
            id=job.id,
            chunks=merged.chunks,
            superseded_rows=merged.superseded_rows,
            length_verified=verified,
            awaited_columns=tuple(column.name for column in spec.columns)
            if spec.adds_columns
            else (),
        )

    def _spec(
        self, task: PushTask, longest: dict[str, int], listing: Listing
    ) -> tuple[JobSpec, bool]:
        """Return the job to create, and whether the table's lengths were looked at."""
        plan, job_type = task.plan, task.type
        lengths = column_lengths(plan, longest)
        adds_columns = False
        verified = listing.tables is not None
        if job_type is JobType.DELTA and listing.tables is not None:
            present = self._find(plan.table, listing.tables)
            if present is not None:
                listed = self._celonis.columns(present.name)
                verified = listed is not None
                if listed is None:
                    self._say_unlisted()
                else:
                    adds_columns = _check_table(plan, longest, listed)
                    lengths |= {c.name: c.length for c in _same_names(plan, listed) if c.length}
            elif (
                self._config.create_missing_table == "replace"
                and plan.table.casefold() not in self._made
            ):
                job_type = JobType.REPLACE
        keyed = job_type is JobType.DELTA  # a REPLACE has no keys, its rows are unique by now
        columns = tuple(
            SchemaColumn(
                name=column.name,
                type=column.celonis_type,
                length=lengths.get(column.name),
                is_key=keyed and column.is_key,
            )
            for column in plan.columns
        )
        return JobSpec(
            table=plan.table,
            type=job_type,
            columns=columns,
            keys=tuple(column.name for column in plan.keys) if keyed else (),
            adds_columns=adds_columns,
        ), verified

    def _find(self, table: str, tables: Sequence[PoolTable]) -> PoolTable | None:
        wanted = (table.casefold(), self._celonis.connection_id)
        return next((t for t in tables if (t.name.casefold(), t.connection_id) == wanted), None)

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Upload one chunk."""
        self._celonis.upload_chunk(job.id, chunk.path)
        chunk.path.unlink(missing_ok=True)

    def abort(self, job: OpenJob) -> None:
        """Delete a job that was not executed; a failure leaves an orphan that does no harm."""
        try:
            self._celonis.delete_job(job.id)
            logger.info("Table %s: push job %s deleted.", job.task.plan.table, job.id)
        except (TargetCelonisError, StoppedError):
            logger.warning(
                "Table %s: push job %s was not executed and could not be deleted; it has touched "
                "nothing.",
                job.task.plan.table,
                job.id,
            )

    def commit(self, job: OpenJob) -> Receipt:
        """Execute the job and wait until it is DONE.

        Raises:
            RemoteError: It ended otherwise, or Celonis refused.
            LimitError: It did not end in time.
            StoppedError: The run is to stop; a job that runs is left running.
        """
        deadline = Deadline(self._clock, self._config.wait_timeout_seconds)
        try:
            self._execute(job, deadline)
        except OutcomeUnknownError:
            raise  # it may be running: what runs is not deleted
        except (StoppedError, TargetCelonisError):
            self.abort(job)
            raise
        self._await_end(job, Deadline(self._clock, self._config.wait_timeout_seconds))
        self._made.add(job.task.plan.table.casefold())
        self._forget(job)
        receipt = receipt_of(job)
        logger.info(
            "Table %s: %d rows loaded by push job %s.",
            job.task.plan.table,
            receipt.loaded_rows,
            job.id,
        )
        if job.awaited_columns:
            self._check_new_columns(job)
        return receipt

    def _forget(self, job: OpenJob) -> None:
        """Delete a job that has ended; there may be a cap on jobs left behind."""
        try:
            self._celonis.delete_job(job.id)
        except (TargetCelonisError, StoppedError):
            logger.warning("Push job %s has ended and could not be deleted.", job.id)

    def _execute(self, job: OpenJob, deadline: Deadline) -> None:
        """Submit the job: once, or after 409 and 429 the same job again."""
        table = job.task.plan.table
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

    def _await_end(self, job: OpenJob, deadline: Deadline) -> None:
        """Wait until the job is DONE."""
        table = job.task.plan.table
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

    def _check_new_columns(self, job: OpenJob) -> None:
        """Make sure that the columns which the table lacked are there now."""
        listed = self._celonis.columns(job.task.plan.table)
        if listed is None:
            return
        present = {column.name.casefold() for column in listed}
        missing = [name for name in job.awaited_columns if name.casefold() not in present]
        if missing:
            raise ContractError(
                "TC-CONTRACT-06",
                f"Table `{job.task.plan.table}` did not get the new column `{missing[0]}`.",
                "Load the stream once with the load method `overwrite`.",
            )


def merge_task(task: PushTask, config: Config) -> Merged:
    """Bring a task's chunks to one schema and one row per key."""
    return merge(
        task.chunks,
        task.plan,
        task.directory,
        keyed=bool(task.plan.keys),
        chunk_limit_bytes=config.chunk_size_bytes,
        timestamp_encoding=config.timestamp_encoding,
        partition_rows=min(PARTITION_ROWS, config.memory_limit_bytes // 4 // _BYTES_PER_SORTED_ROW),
    )


def receipt_of(job: OpenJob) -> Receipt:
    """Return the receipt of a job that is DONE."""
    return Receipt(
        task=job.task,
        job_id=job.id,
        loaded_rows=sum(chunk.rows for chunk in job.chunks),
        superseded_rows=job.superseded_rows,
        chunks=len(job.chunks),
        uploaded_bytes=sum(chunk.size_bytes for chunk in job.chunks),
        length_verified=job.length_verified,
    )


def _same_names(plan: TablePlan, listed: Sequence[ListedColumn]) -> Iterator[ListedColumn]:
    """Yield the listed columns that the plan has too, under the plan's spelling."""
    present = {column.name.casefold(): column for column in listed}
    for column in plan.columns:
        there = present.get(column.name.casefold())
        if there is not None and column.is_text:
            yield ListedColumn(column.name, there.type, there.length)


def _check_table(plan: TablePlan, longest: dict[str, int], listed: Sequence[ListedColumn]) -> bool:
    """Refuse a table that cannot take the rows; return whether it lacks columns."""
    difference = compare(plan, longest, listed)
    if difference.retyped:
        column, there = difference.retyped[0]
        raise ContractError(
            "TC-CONTRACT-04",
            f"Column `{column.name}` of table `{plan.table}` is {there} in Celonis and "
            f"{column.celonis_type} in stream `{plan.stream}`.",
            "Load the stream once with the load method `overwrite`, which makes the table anew.",
        )
    if difference.narrow:
        column, measured, length = difference.narrow[0]
        raise ContractError(
            "TC-CONTRACT-03",
            f"Column `{column.name}` of table `{plan.table}` holds {length} characters in Celonis; "
            f"stream `{plan.stream}` has a text of {measured}, which Celonis would cut.",
            "Load the stream once with the load method `overwrite`, or widen the column in a "
            "transformation.",
        )
    if difference.new:
        names = ", ".join(column.name for column in difference.new[:10])
        logger.info("Table %s lacks columns that the push adds: %s.", plan.table, names)
    return bool(difference.new)


def longest_texts(chunks: Sequence[Chunk]) -> dict[str, int]:
    """Return the characters of the longest text over all chunks, by column name."""
    longest: dict[str, int] = {}
    for chunk in chunks:
        for name, length in chunk.longest.items():
            longest[name] = max(length, longest.get(name, 0))
    return longest


def column_lengths(plan: TablePlan, longest: dict[str, int]) -> dict[str, int]:
    """Return the length to declare for each text column."""
    return {
        column.name: declared_length(longest.get(column.name, 0), column.max_length)
        for column in plan.columns
        if column.is_text
    }


def _growing(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Yield pauses that grow by half from one to the next."""
    pause = first_seconds
    while True:
        yield pause
        pause = min(pause * 1.5, longest_seconds)
