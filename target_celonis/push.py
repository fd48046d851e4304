"""The push of a table: from its chunks to a push job that is DONE.

Hides what a job needs before it may be created (the table in the pool, one row per key, one schema,
lengths), and in which order jobs follow each other. Guarantees: nothing is sent before table and
stream were compared; a job that was not executed is deleted; a ``Receipt`` means that Celonis
reported DONE. Must not know: streams' states, when a checkpoint is due, threads, how a single call
is repeated or made up for.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.celonis import Celonis, JobSpec, JobType, SchemaColumn
from target_celonis.contract import (
    ListedColumn,
    check_outcome,
    cut_lengths,
    fitted,
    refuse_shrinking,
    terms,
)
from target_celonis.errors import ContractError, OutcomeUnknownError
from target_celonis.jobs import JobContent, PushJobs
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
    from collections.abc import Sequence

    from target_celonis.budget import SubmitBudget
    from target_celonis.celonis import PoolTable
    from target_celonis.config import Config
    from target_celonis.spool import Chunk
    from target_celonis.table import TablePlan
    from target_celonis.table_notes import TableNotes

logger = logging.getLogger("target-celonis")

_HOUR_SECONDS = 3600.0


class DataPush:
    """The Data Push API as a route.

    Args:
        celonis: The pool.
        config: Chunk size, rules for lengths and the like.
        jobs: The pool's push jobs.
        budget: Submits of this machine; None where they are not limited.
        notes: What earlier runs left of the pool's tables.
    """

    def __init__(
        self,
        celonis: Celonis,
        config: Config,
        jobs: PushJobs,
        budget: SubmitBudget | None,
        notes: TableNotes,
    ) -> None:
        self._celonis = celonis
        self._config = config
        self._jobs = jobs
        self._budget = budget
        self._notes = notes
        self._merging = threading.Lock()
        self._unlisted_said = False
        self._made: set[str] = set()  # tables of this run, which a listing may not show yet

    def look(self) -> Listing:
        """Read which tables and push jobs there are."""
        tables = self._celonis.tables()
        if tables is None:
            self._say_unlisted()
        return Listing(None if tables is None else tuple(tables), tuple(self._jobs.list()))

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
        if self._jobs.wait_for_others(task.plan.table, listing.jobs):
            listing = self.look()  # it may have made the table, or changed its columns
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
        push = OpenPush(
            task, (), merged, agreed, length_verified=not unlisted, listed_jobs=listing.jobs
        )
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
        push.specs = (*push.specs, spec)
        push.jobs = (*push.jobs, self._created(push, spec, chunks, deletes=deletes))

    def _created(
        self, push: OpenPush, spec: JobSpec, chunks: tuple[Chunk, ...], *, deletes: bool
    ) -> OpenJob:
        content = JobContent(
            rows=sum(chunk.rows for chunk in chunks),
            appends=push.task.appends,
            last_line=push.task.last_line,
        )
        job_id = self._jobs.create(spec, content, push.listed_jobs)
        return OpenJob(job_id, spec.type, chunks, deletes=deletes, keyed=bool(spec.keys))

    def _find(self, table: str, tables: Sequence[PoolTable]) -> PoolTable | None:
        wanted = (table.casefold(), self._celonis.connection_id)
        return next((t for t in tables if (t.name.casefold(), t.connection_id) == wanted), None)

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Upload one chunk."""
        self._jobs.upload(job, chunk)

    def all_arrived(self, push: OpenPush) -> bool:
        """Return whether all chunks are surely there; a job where they are not is made anew.

        Raises:
            OutcomeUnknownError: It was made anew several times.
        """
        arrived = True
        for place, job in enumerate(push.jobs):
            if self._jobs.all_arrived(job):
                continue
            arrived = False
            push.renewals += 1
            if push.renewals >= limits.PUSH_TRIES:
                raise OutcomeUnknownError(
                    "TC-REMOTE-03",
                    f"It is not known which chunks arrived in push job {job.id} on table "
                    f"`{push.task.plan.table}`, so it is not executed.",
                    "Nothing has touched the table: run again with the last state.",
                )
            self._delete(push, job)
            fresh = self._created(push, push.specs[place], job.chunks, deletes=job.deletes)
            push.jobs = (*push.jobs[:place], fresh, *push.jobs[place + 1 :])
        return arrived

    def _delete(self, push: OpenPush, job: OpenJob) -> None:
        table = push.task.plan.table
        if self._jobs.delete(job.id):
            logger.info("Table %s: push job %s deleted.", table, job.id)
        else:
            logger.warning(
                "Table %s: push job %s was not executed and could not be deleted; it has touched "
                "nothing.",
                table,
                job.id,
            )

    def abort(self, push: OpenPush) -> None:
        """Delete jobs that were not executed; a failure leaves an orphan that does no harm."""
        for job in push.jobs:
            if not job.executed:
                self._delete(push, job)

    def commit(self, push: OpenPush) -> Receipt:
        """Execute the jobs one after the other and wait until each is DONE.

        Raises:
            RemoteError: One ended otherwise, or Celonis refused.
            LimitError: One did not end in time.
            StoppedError: The run is to stop; a job that runs is left running.
        """
        table = push.task.plan.table
        try:
            for job in push.jobs:
                self._jobs.carry_out(table, job)
                done = "deleted" if job.deletes else "loaded"
                logger.info("Table %s: %d rows %s by push job %s.", table, job.rows, done, job.id)
        except BaseException:
            self.abort(push)
            raise
        receipt = receipt_of(push)
        plan = push.task.plan
        if receipt.loaded_rows:
            self._made.add(table.casefold())
        if any(job.type is JobType.REPLACE for job in push.jobs):
            self._notes.replaced(table, receipt.loaded_rows)
        if (push.terms.new or push.terms.widened) and receipt.loaded_rows:
            check_outcome(plan, push.terms, self._celonis.columns(table))
        return receipt

    def end(self) -> None:
        """Have nothing more executed; what was executed comes to its end."""
        self._jobs.end()

    def wait_seconds(self, pushes: int) -> float:
        """Return how long it takes at least until so many pushes can be carried out."""
        return 0.0 if self._budget is None else self._budget.seconds_for(pushes)

    def pace_seconds(self, pushes: int) -> float:
        """Return how far apart, at least, checkpoints of so many pushes are to be.

        As long as half of the submits of the hour is left there need be no distance; then so much
        that the submits of an hour are enough for all of them.
        """
        budget = self._budget
        if budget is None or (budget.used() + pushes) * 2 <= budget.per_hour:
            return 0.0
        return pushes * _HOUR_SECONDS / budget.per_hour


def _not_comparable(table: str) -> ContractError:
    return ContractError(
        "TC-CONTRACT-09",
        f"The columns of table `{table}` may not be listed with this key, and `schema_change` is "
        "`freeze`.",
        "Give the key the permission to read the data pool, or set `schema_change` to `evolve`.",
    )
