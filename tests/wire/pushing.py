"""A route to the server, tasks for it, and a clock that stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from target_celonis.budget import SubmitBudget
from target_celonis.celonis import Celonis, JobType
from target_celonis.clock import FakeClock
from target_celonis.config import Config
from target_celonis.errors import TargetCelonisError
from target_celonis.jobs import PushJobs
from target_celonis.journal import Journal, Step
from target_celonis.push import DataPush
from target_celonis.route import OpenPush, PushTask, Receipt
from target_celonis.spool import ChunkWriter
from target_celonis.submits import Submits
from target_celonis.table import TablePlan, plan_table
from target_celonis.table_notes import TableNotes
from target_celonis.waits import Waiter, Waits

from .conftest import KEY, POOL
from .server import Reply

if TYPE_CHECKING:
    from pathlib import Path

    from target_celonis.clock import Clock
    from target_celonis.http import Http

MakeConfig = Callable[..., Config]
SCHEMA = {
    "properties": {
        "id": {"type": "integer"},
        "text": {"type": ["null", "string"]},
        "more": {"type": "string", "maxLength": 900},
        "amount": {"type": "number"},
        "flag": {"type": "boolean"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "tree": {"type": "object"},
    }
}
COLUMNS = [
    {"name": "id", "type": "INTEGER", "length": None},
    {"name": "TEXT", "type": "STRING", "length": 1020},
    {"name": "more", "type": "STRING", "length": 4000},
    {"name": "amount", "type": "FLOAT", "length": None},
    {"name": "flag", "type": "INTEGER", "length": None},
    {"name": "day", "type": "DATE", "length": None},
    {"name": "at", "type": "DATE", "length": None},
    {"name": "tree", "type": "STRING", "length": 1020},
    {"name": "_CELONIS_CHANGE_DATE", "type": "DATE", "length": None},
]


def row(key: int, text: str | None = "a") -> dict[str, Any]:
    return {
        "id": key,
        "text": text,
        "more": "b",
        "amount": 0.5,
        "flag": True,
        "day": datetime(2024, 1, 2, tzinfo=UTC).date(),
        "at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        "tree": "{}",
    }


class Pushing:
    """One route to the server, and tasks for it."""

    def __init__(self, http: Http, clock: Clock, config: MakeConfig, directory: Path) -> None:
        self._http, self._clock, self._config = http, clock, config
        self._directory = directory
        self._tasks = 0
        self.journal = Journal(directory, clock)
        self.journal.note(Step.RUN_OPENED, place=[], process_id=1)
        self.waits = Waits()
        self.submits: Submits | None = None

    def route(
        self,
        connection: str | None = None,
        *,
        counts_submits: bool = True,
        inherited: Sequence[str] = (),
        **settings: Any,
    ) -> DataPush:
        config = self._config(**settings)
        celonis = Celonis(self._http, POOL, connection, "/data-ingestion")
        budget = None
        if counts_submits:
            budget = SubmitBudget(self._directory, "team", config.submits_per_hour, self._clock)
        waiter = Waiter(self._clock, self.waits)
        self.submits = Submits(celonis, config, self.journal, budget, waiter)
        jobs = PushJobs(
            celonis,
            config,
            self.journal,
            submits=self.submits,
            waiter=waiter,
            inherited=inherited,
        )
        notes = TableNotes(self._directory, (POOL, connection or ""))
        return DataPush(celonis, config, jobs, budget, notes)

    def use_submits(self, count: int, per_hour: int) -> None:
        """Have another run of this machine use submits of the hour."""
        budget = SubmitBudget(self._directory, "team", per_hour, self._clock)
        assert [budget.take() for _ in range(count)] == [None] * count

    def task(
        self,
        *chunks: Sequence[dict[str, Any]],
        table: str = "orders",
        job_type: JobType = JobType.DELTA,
        keys: Sequence[str] = ("id",),
    ) -> PushTask:
        plan: TablePlan = plan_table(table, table, SCHEMA, keys)
        self._tasks += 1
        made = []
        for number, rows in enumerate(chunks or ([row(1)],)):
            directory = self._directory / f"{self._tasks}-{number}"
            directory.mkdir()
            writer = ChunkWriter(directory, plan, 10_000_000, "int96")
            batch = pa.RecordBatch.from_pylist(list(rows), schema=plan.arrow_schema)
            writer.add(batch)
            made += writer.finish()
        empty = self._directory / f"{self._tasks}-merged"
        empty.mkdir()
        rows = sum(chunk.rows for chunk in made)
        return PushTask(plan, job_type, tuple(made), empty, rows, last_line=10 * self._tasks)

    def open(self, task: PushTask, route: DataPush) -> OpenPush:
        return route.open(task, route.look())

    def run(self, task: PushTask, route: DataPush | None = None) -> Receipt:
        """Open, send, commit, as a ``Pusher`` does."""
        route = route or self.route()
        push = self.open(task, route)
        try:
            self._send(push, route)
            while not route.all_arrived(push):
                self._send(push, route)
        except BaseException:
            route.abort(push)
            raise
        return route.commit(push)

    def _send(self, push: OpenPush, route: DataPush) -> None:
        for job in push.jobs:
            for chunk in job.wanting:
                route.send(job, chunk)

    def noted(self) -> list[tuple[str, str]]:
        """Return the steps of this run in the journal, each with its job."""
        lines = self.journal.path.read_text().splitlines()[1:]
        return [(entry["step"], entry.get("job", "")) for entry in map(json.loads, lines)]


def status(name: str, *logs: str) -> Reply:
    return Reply(200, {"id": "job-1", "status": name, "targetName": "orders", "logs": list(logs)})


def failure(run: Callable[[], object]) -> TargetCelonisError:
    with pytest.raises(TargetCelonisError) as caught:
        run()
    assert KEY not in str(caught.value)
    return caught.value


class StoppingClock(FakeClock):
    """Stops once it was asked for so many waits."""

    after = 10**9

    def wait(self, seconds: float) -> bool:
        if len(self.waits) >= self.after:
            self.stop()
        return super().wait(seconds)
