"""Data jobs: their runs and logs, and the one worker that runs them.

Hides: locks, the worker, which log lines a run leaves. Guarantees: a run is QUEUED, RUNNING, then
SUCCESS, FAIL or CANCEL; its tasks run in order, and after the first that fails the others are
SKIPPED; the first message that a failed task shows says what was wrong.
Must not know: HTTP routes, keys, how SQL is run.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import duckdb

from celonis_emulator.jobs import now_ms
from celonis_emulator.jobsql import Session
from celonis_emulator.refusals import Refusal, conflict, invalid, not_found
from celonis_emulator.runs import ExecutionItem, Message
from celonis_emulator.sqltext import SqlRefused, Statement, split
from celonis_emulator.warehouse import schema_name
from celonis_emulator.worker import Stopping, Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celonis_emulator.ledger import Ledger
    from celonis_emulator.models import DataModels
    from celonis_emulator.runledger import RunLedger
    from celonis_emulator.setup import DataJob, Task
    from celonis_emulator.switches import Switches
    from celonis_emulator.warehouse import Warehouse

log = logging.getLogger(__name__)

SHOWN_SQL_CHARACTERS = 200
# DuckDB's messages can quote a whole query.
ERROR_CHARACTERS = 2000
INTERRUPTED = "The server stopped while the job was at work; what it had done stays."


class _Canceled(Exception):  # noqa: N818
    """The run was cancelled."""


class _Failed(Exception):  # noqa: N818
    """A task failed; the text is the reason."""


@dataclass(frozen=True)
class Scope:
    """What a run does of its job.

    Attributes:
        mode: FULL or DELTA; it speaks of extractions, of which there are none here.
        tasks: Ids of the tasks to run; None: all.
        models: Of each data model to load, ids of the tables to copy (none: all); None: all models.
    """

    mode: str
    tasks: frozenset[str] | None = None
    models: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class _Run:
    """A run in the queue."""

    item: ExecutionItem
    scope: Scope


class DataJobs:
    """The data jobs of the team; safe from several threads."""

    def __init__(
        self,
        warehouse: Warehouse,
        ledger: Ledger,
        runs: RunLedger,
        models: DataModels,
        switches: Switches,
    ) -> None:
        self._warehouse = warehouse
        self._ledger = ledger
        self._runs = runs
        self._models = models
        self._switches = switches
        self._worker: Worker[_Run] = Worker("data job", warehouse, self._run)
        self._lock = self._worker.changed
        self._cancel_asked: set[str] = set()
        self._at_work: str | None = None
        for item in runs.live_items():
            # Of what had not begun, nothing was interrupted.
            waited = item.type == "TASK" and item.status == "QUEUED"
            self._end(item, *(("SKIPPED", None) if waited else ("FAIL", INTERRUPTED)))

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def stop(self) -> None:
        """Stop the worker; the statement at work is rolled back and its run ends FAIL."""
        self._worker.stop()

    # What a client can do

    def of_pool(self, pool_id: str) -> list[tuple[DataJob, ExecutionItem | None]]:
        """List the data jobs of a pool, each with its newest run."""
        last = self._runs.last_executions(pool_id)
        return [(job, last.get(job.id)) for job in self._ledger.data_jobs(pool_id)]

    def get(self, pool_id: str, job_id: str) -> tuple[DataJob, ExecutionItem | None]:
        """Return a data job of a pool with its newest run.

        Raises:
            Refusal: 404.
        """
        for job in self._ledger.data_jobs(pool_id):
            if job.id == job_id:
                return job, next(iter(self._runs.executions(pool_id, job_id)), None)
        msg = f"There is no data job {job_id} in the pool."
        raise not_found(msg)

    def execute(self, pool_id: str, job_id: str, scope: Scope) -> ExecutionItem:
        """Queue a run.

        Raises:
            Refusal: 404; 400 for unknown tasks or models; 409 while the job is at work.
        """
        with self._lock:
            job, last = self.get(pool_id, job_id)
            _check_known("transformations", scope.tasks or (), [task.id for task in job.tasks])
            _check_known("dataModels", scope.models or (), job.data_models)
            if last is not None and last.live and self._switches.second_execution == "refuse":
                msg = f"The data job {job_id} is {last.status}; execute it when it has ended."
                raise conflict(msg)
            identity = str(uuid.uuid4())
            # Who waits for a run looks for a start that is later than the one before.
            earliest_ms = 0 if last is None else (last.started_ms or 0) + 1
            item = ExecutionItem(
                id=str(uuid.uuid4()),
                execution_id=identity,
                pool_id=pool_id,
                job_id=job_id,
                task_id=None,
                type="JOB",
                name=job.name,
                mode=scope.mode,
                status="QUEUED",
                started_ms=max(now_ms(), earliest_ms),
            )
            self._runs.add_item(item)
            self._worker.put(_Run(item, scope))
            return item

    def cancel(self, pool_id: str, job_id: str) -> None:
        """Cancel all runs of a job that have not ended.

        Raises:
            Refusal: 404; 400 when none is at work.
        """
        with self._lock:
            self.get(pool_id, job_id)
            live = [item for item in self._runs.executions(pool_id, job_id) if item.live]
            if not live:
                raise invalid("status", "The data job is not at work and cannot be cancelled.")
            for item in live:
                self._cancel_asked.add(item.execution_id)
                if item.execution_id == self._at_work:
                    self._worker.interrupt()
                else:
                    self._end(item, "CANCEL", "The run was cancelled before it began.")

    def executions(self, pool_id: str, job_id: str) -> list[ExecutionItem]:
        """List the runs of a job, newest first.

        Raises:
            Refusal: 404.
        """
        self.get(pool_id, job_id)
        return self._runs.executions(pool_id, job_id)

    def items(self, pool_id: str, execution_id: str) -> list[ExecutionItem]:
        """List the items of a run: that of the job, and those of its tasks in their order."""
        return self._runs.items_of(pool_id, execution_id)

    def messages(self, item: ExecutionItem) -> list[Message]:
        """List the log messages of an item: errors first, then in the order of time."""
        # Clients take the first message of a failed task for the reason.
        messages = self._runs.messages(item.id)
        return sorted(messages, key=lambda message: message.level != "ERROR")

    # The worker

    def _run(self, run: _Run) -> None:
        with self._lock:
            if run.item.execution_id in self._cancel_asked:
                self._cancel_asked.discard(run.item.execution_id)
                return
            self._at_work = run.item.execution_id
            item = replace(run.item, status="RUNNING")
            self._runs.write_item(item)
        try:
            self._do(item, run.scope)
        except _Canceled:
            self._end(item, "CANCEL", "The run was cancelled.")
        except Stopping:
            self._end(item, "FAIL", INTERRUPTED)
        except _Failed as error:
            self._end(item, "FAIL", str(error))
        except Exception as error:
            log.exception("data job %s could not be run", item.job_id)
            self._end(item, "FAIL", f"Internal fault: {error}")
        finally:
            with self._lock:
                self._at_work = None
                self._cancel_asked.discard(item.execution_id)

    def _do(self, item: ExecutionItem, scope: Scope) -> None:
        job, _ = self.get(item.pool_id, item.job_id)
        self._say(item, "INFO", f"Data job {job.name} started, mode {item.mode}.")
        self._worker.pause(
            self._switches.data_job_seconds, lambda: item.execution_id in self._cancel_asked
        )
        self._check(item)
        tasks = [task for task in job.tasks if scope.tasks is None or task.id in scope.tasks]
        self._do_tasks(item, job, tasks)
        self._load_models(item, job, scope)
        self._say(item, "INFO", f"All {len(tasks)} transformations of {job.name} are done.")
        with self._lock:
            self._check(item)
            self._end(item, "SUCCESS")

    def _do_tasks(self, item: ExecutionItem, job: DataJob, tasks: Sequence[Task]) -> None:
        waiting = [_task_item(item, task) for task in tasks]
        for task_item in waiting:
            self._runs.add_item(task_item)
        schema = schema_name(job.pool_id, job.connection_id)
        try:
            for task in tasks:
                self._check(item)
                task_item = replace(waiting.pop(0), status="RUNNING", started_ms=now_ms())
                self._runs.write_item(task_item)
                self._do_task(item, task_item, task, schema)
        finally:
            for task_item in waiting:
                self._end(task_item, "SKIPPED")

    def _do_task(
        self, item: ExecutionItem, task_item: ExecutionItem, task: Task, schema: str
    ) -> None:
        self._say(task_item, "INFO", f"Transformation {task.name} started.")
        connections = [c.id for c in self._ledger.connections() if c.pool_id == item.pool_id]
        schemas = [schema_name(item.pool_id, owner) for owner in (None, *connections)]
        try:
            with self._worker.cursor() as cursor:
                session = Session(
                    self._warehouse, cursor, schema, schemas, lambda: self._check(item)
                )
                for statement in split(task.sql):
                    self._check(item)
                    rows = session.run(statement)
                    outcome = "done" if rows is None else f"{rows} rows"
                    self._say(task_item, "INFO", f"{_shortened(statement)}: {outcome}.")
        except (_Canceled, Stopping, duckdb.InterruptException) as error:
            if item.execution_id in self._cancel_asked:
                self._end(task_item, "CANCEL", "The transformation was cancelled.")
                raise _Canceled from error
            self._end(task_item, "FAIL", INTERRUPTED)
            raise Stopping from error
        except (SqlRefused, duckdb.Error) as error:
            reason = str(error).strip()[:ERROR_CHARACTERS]
            self._end(task_item, "FAIL", reason)
            msg = f"Transformation {task.name} failed; the ones after it were skipped."
            raise _Failed(msg) from error
        self._say(task_item, "INFO", f"Transformation {task.name} ended.")
        self._end(task_item, "SUCCESS")

    def _load_models(self, item: ExecutionItem, job: DataJob, scope: Scope) -> None:
        """Start the loads; nobody waits for their end."""
        for model_id in job.data_models:
            if scope.models is not None and model_id not in scope.models:
                continue
            table_ids = (scope.models or {}).get(model_id)
            kind = "PARTIAL" if table_ids else "COMPLETE"
            try:
                self._models.load(job.pool_id, model_id, kind, table_ids, waits=True)
            except Refusal as error:
                msg = f"The data model {model_id} cannot be loaded: {error.body}"
                raise _Failed(msg) from error
            self._say(item, "INFO", f"Load of data model {model_id} started.")

    def _check(self, item: ExecutionItem) -> None:
        self._worker.check()
        if item.execution_id in self._cancel_asked:
            raise _Canceled

    def _end(self, item: ExecutionItem, status: str, message: str | None = None) -> None:
        if message is not None:
            self._say(item, "ERROR" if status == "FAIL" else "WARN", message)
        self._runs.write_item(replace(item, status=status, ended_ms=now_ms()))

    def _say(self, item: ExecutionItem, level: str, text: str) -> None:
        self._runs.add_message(Message(str(uuid.uuid4()), item.id, level, now_ms(), text))


def _task_item(item: ExecutionItem, task: Task) -> ExecutionItem:
    return replace(
        item,
        id=str(uuid.uuid4()),
        task_id=task.id,
        type="TASK",
        name=task.name,
        status="QUEUED",
        started_ms=None,
    )


def _shortened(statement: Statement) -> str:
    text = " ".join(statement.text.split())
    limit = SHOWN_SQL_CHARACTERS
    return text if len(text) <= limit else f"{text[:limit]}..."


def _check_known(what: str, asked: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise invalid(what, f"The data job has none with the id: {', '.join(unknown)}.")
