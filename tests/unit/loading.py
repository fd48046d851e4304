"""A loader with a Celonis in memory, for the tests of what is pushed when."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from target_celonis.celonis import JobType
from target_celonis.clock import FakeClock
from target_celonis.config import parse
from target_celonis.contract import Terms
from target_celonis.loader import Loader
from target_celonis.merge import merge
from target_celonis.messages import (
    ActivateVersionMessage,
    RecordRun,
    SchemaMessage,
    StateMessage,
)
from target_celonis.pusher import Pusher
from target_celonis.route import Listing, OpenJob, OpenPush, PushTask, Receipt, receipt_of
from target_celonis.run_directory import RunDirectory

from .chunks import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from target_celonis.spool import Chunk
    from target_celonis.table import TablePlan

PATIENCE_SECONDS = 20.0


class MemoryCelonis:
    """A route into tables in memory, with push jobs as Celonis has them."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.committed_lines: set[int] = set()
        self.events: list[tuple[str, str]] = []
        self.faults: dict[tuple[str, str], Exception] = {}
        self.pace_seconds_per_push = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.when_ended: Callable[[], None] = lambda: None
        self._sent: dict[str, dict[Path, list[dict[str, Any]]]] = defaultdict(dict)
        self._lines: dict[str, list[int]] = {}
        self._plans: dict[str, TablePlan] = {}
        self._count = 0
        self._lock = threading.Lock()

    def _happens(self, verb: str, table: str) -> None:
        with self._lock:
            self.events.append((verb, table))
        if (verb, table) in self.faults:
            raise self.faults[verb, table]

    def look(self) -> Listing:
        return Listing(None)

    def open(self, task: PushTask, listing: Listing) -> OpenPush:
        assert listing == Listing(None)
        self._happens("open", task.plan.table)
        lines = [row["line"] for row in read(task.chunks)]
        assert len(lines) == task.rows
        merged = merge(
            task.chunks,
            task.plan,
            task.directory,
            keyed=bool(task.plan.keys),
            chunk_limit_bytes=1_000_000,
            timestamp_encoding="int96",
        )
        with self._lock:
            self._count += 1
            job = OpenJob(f"job-{self._count}", task.type, merged.chunks)
            self._lines[job.id] = lines
            self._plans[job.id] = task.plan
        return OpenPush(task, (job,), merged, Terms({}), length_verified=False)

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        plan = self._plans[job.id]
        self._happens("send", plan.table)
        assert chunk.plan.arrow_schema.equals(plan.arrow_schema)
        rows = read([chunk])
        with self._lock:
            self._sent[job.id][chunk.path] = rows
            job.confirmed.append(chunk)

    def all_arrived(self, push: OpenPush) -> bool:
        assert not any(job.wanting for job in push.jobs)
        return True

    def end(self) -> None:
        """Say that nothing more is to be carried out."""
        self.when_ended()

    def wait_seconds(self, pushes: int) -> float:
        return 0.0 * pushes

    def pace_seconds(self, pushes: int) -> float:
        return self.pace_seconds_per_push * pushes

    def commit(self, push: OpenPush) -> Receipt:
        task, (job,) = push.task, push.jobs
        table = task.plan.table
        with self._lock:
            self.events.append(("gate", table))
        assert self.gate.wait(PATIENCE_SECONDS)
        self._happens("commit", table)
        sent = self._sent[job.id]
        assert set(sent) == {chunk.path for chunk in job.chunks}
        rows = [row for chunk in job.chunks for row in sent[chunk.path]]
        with self._lock:
            self._apply(task, job, rows)
        return receipt_of(push)

    def _apply(self, task: PushTask, job: OpenJob, rows: list[dict[str, Any]]) -> None:
        table = task.plan.table
        old = [] if job.type is JobType.REPLACE else self.tables.get(table, [])
        keys = [key.name for key in task.plan.keys]
        if keys:
            by_key = {tuple(row[key] for key in keys): row for row in old}
            new = {tuple(row[key] for key in keys): row for row in rows}
            assert len(new) == len(rows)  # a key once in a job
            self.tables[table] = list((by_key | new).values())
        else:
            self.tables[table] = [*old, *rows]
        self.committed_lines |= set(self._lines[job.id])

    def abort(self, push: OpenPush) -> None:
        self._happens("abort", push.task.plan.table)

    def verbs(self, verb: str) -> list[str]:
        return [table for happened, table in self.events if happened == verb]


class Run:
    """A loader with all that belongs to it; gives each message the next line."""

    def __init__(self, directory: Path, limit_bytes: int | None = None, **values: Any) -> None:
        self.celonis = MemoryCelonis()
        self.clock = FakeClock()
        self.pusher = Pusher(self.celonis, 2)
        self.spool = RunDirectory(directory, self.clock, limit_bytes=limit_bytes)
        self.line = 0
        self.states: list[Any] = []
        self.fed_lines: list[int] = []
        config = parse({"base_url": "embedded"} | values, {})
        self.loader = Loader(config, self.spool, self.pusher, self.clock, self._release)

    def _release(self, state: bytes) -> None:
        at = json.loads(state)["line"]
        before = {line for line in self.fed_lines if line < at}
        assert before <= self.celonis.committed_lines, "a state came before its data"
        self.states.append(at)

    def schema(
        self,
        stream: str,
        *keys: str,
        source: str | None = None,
        bookmarks: tuple[str, ...] = (),
        **kinds: Any,
    ) -> None:
        self.line += 1
        types = {"line": "integer", "id": "integer"} | kinds
        properties = {
            name: kind if isinstance(kind, dict) else {"type": ["null", kind]}
            for name, kind in types.items()
        }
        schema = {"properties": properties}
        message = SchemaMessage(self.line, stream, schema, keys, source or stream, bookmarks)
        self.loader.schema(message)

    def record(self, stream: str, number: int, version: int | None = None, **more: Any) -> int:
        self.line += 1
        record = {"line": self.line, "id": number} | more
        self.fed_lines.append(self.line)
        self.loader.records(RecordRun(stream, version, [json.dumps(record).encode()], [self.line]))
        return self.line

    def state(self, *syncing: str | None) -> int:
        self.line += 1
        value = {"line": self.line}
        self.loader.state(
            StateMessage(
                self.line,
                json.dumps(value).encode(),
                bool(syncing),
                syncing[0] if syncing else None,
            )
        )
        return self.line

    def activate(self, stream: str, version: int) -> None:
        self.line += 1
        self.loader.activate_version(ActivateVersionMessage(self.line, stream, version))

    def checkpoint(self, seconds: float = 1_800) -> None:
        """Let time pass, and whatever becomes due by it be done."""
        self.clock.seconds += seconds
        self.loader.tick()
        self.settle()

    def settle(self) -> None:
        self.pusher.wait(PATIENCE_SECONDS)
        assert not self.pusher.busy
        self.loader.tick()

    def wait_for(self, verb: str, *tables: str) -> None:
        """Wait until something has happened to tables."""
        pause = threading.Event()
        for _ in range(int(PATIENCE_SECONDS * 100)):
            if set(tables) <= set(self.celonis.verbs(verb)):
                return
            pause.wait(0.01)
        raise AssertionError(verb, tables)

    def failures(self) -> dict[str, str]:
        """Return why streams failed."""
        return {report.stream: report.failure for report in self.loader.reports()}

    def ids(self, table: str) -> list[int] | None:
        rows = self.celonis.tables.get(table)
        return None if rows is None else [row["id"] for row in rows]

    def counts(self, stream: str) -> tuple[int, int, int, int]:
        report = next(r for r in self.loader.reports() if r.stream == stream)
        return report.read, report.loaded, report.merged, report.not_loaded


@contextmanager
def running(directory: Path, **values: Any) -> Iterator[Run]:
    run = Run(directory, **values)
    try:
        yield run
    finally:
        run.celonis.gate.set()
        run.pusher.close()
        run.spool.close()
