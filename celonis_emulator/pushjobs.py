"""Push jobs: their states, their chunks, and the one worker that runs them.

Hides: locks, the worker thread, chunk files on disk, the order of ledger and file writes.
Guarantees: NEW -> QUEUED -> RUNNING -> DONE, ERROR or CANCELED, and no other way; a job runs once;
nothing touches a table before execute; a job's rows and its DONE are one transaction.
Must not know: HTTP routes, keys, the SQL of a load.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb

from celonis_emulator.chunkfiles import inspect, open_chunk
from celonis_emulator.jobs import ENDED, LIVE, Chunk, Job, now_ms, shown_history
from celonis_emulator.loading import Load, LoadFailed
from celonis_emulator.ratelimit import SubmitLimit
from celonis_emulator.refusals import conflict, invalid, not_found, too_many

if TYPE_CHECKING:
    from pathlib import Path

    from celonis_emulator.ledger import Ledger
    from celonis_emulator.switches import Switches
    from celonis_emulator.warehouse import Warehouse

log = logging.getLogger(__name__)

STOP_PATIENCE_SECONDS = 5.0
# DuckDB's messages can quote a whole line of a file.
LOG_CHARACTERS = 600
INTERRUPTED = "The server stopped while the job was at work; the table is unchanged."


class _Canceled(Exception):  # noqa: N818
    """The running job was cancelled before its transaction was committed."""


class PushJobs:
    """All push jobs of the server; safe from several threads."""

    def __init__(
        self, warehouse: Warehouse, ledger: Ledger, switches: Switches, chunk_directory: Path
    ) -> None:
        self._warehouse = warehouse
        self._ledger = ledger
        self._switches = switches
        self._directory = chunk_directory
        self._limit = SubmitLimit(switches.submits_per_second, switches.submits_per_hour)
        # Guards everything below; signalled when a running job must notice something.
        self._changed = threading.Condition()
        self._jobs = {job.id: job for job in ledger.jobs(deleted=False)}
        chunks = ledger.chunks()
        self._chunks = {job_id: chunks.get(job_id, []) for job_id in self._jobs}
        self._cancel_asked: set[str] = set()
        self._committing: str | None = None
        self._running_cursor: duckdb.DuckDBPyConnection | None = None
        self._stopping = False
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="push-jobs", daemon=True)
        self._recover()

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def stop(self) -> None:
        """Stop the worker; a job at work is rolled back and ends ERROR."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            if self._running_cursor is not None and self._committing is None:
                self._running_cursor.interrupt()
        self._queue.put(None)
        self._worker.join(STOP_PATIENCE_SECONDS)

    def _recover(self) -> None:
        """End what a dead server left at work, and remove files that belong to no job."""
        for job in list(self._jobs.values()):
            if job.status in LIVE:
                self._finish(job.id, "ERROR", INTERRUPTED)
        self._directory.mkdir(parents=True, exist_ok=True)
        known = {
            (job.id, chunk.file_name)
            for job in self._jobs.values()
            if job.status == "NEW"
            for chunk in self._chunks[job.id]
        }
        for directory in self._directory.iterdir():
            for file in directory.iterdir() if directory.is_dir() else ():
                if (directory.name, file.name) not in known:
                    file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                directory.rmdir()

    # What a client can do

    def create(self, job: Job) -> Job:
        """Add a new job."""
        with self._changed:
            self._ledger.add_job(job)
            self._jobs[job.id] = job
            self._chunks[job.id] = []
        return job

    def of_pool(self, pool_id: str) -> list[Job]:
        """List the jobs of a pool that were not deleted."""
        with self._changed:
            return [job for job in self._jobs.values() if job.pool_id == pool_id]

    def get(self, pool_id: str, job_id: str) -> Job:
        """Return a job of a pool.

        Raises:
            Refusal: 404.
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.pool_id != pool_id:
                msg = f"There is no push job {job_id} in the pool."
                raise not_found(msg)
            return job

    def chunks(self, pool_id: str, job_id: str) -> list[Chunk]:
        """List a job's chunks in upload order."""
        with self._changed:
            return list(self._chunks[self.get(pool_id, job_id).id])

    def open_upload(self, pool_id: str, job_id: str, kind: str) -> Path:
        """Return the path to which a new chunk may be written.

        Raises:
            Refusal: 404; 400 when the job takes no chunks any more or has no keys to delete by.
        """
        job = self._takes_chunks(pool_id, job_id)
        if kind == "DELETE" and (job.type != "DELTA" or not job.keys):
            raise invalid("keys", "Deleting rows needs a DELTA job with keys.")
        directory = self._directory / job.id
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{uuid.uuid4()}.part"

    def add_chunk(self, pool_id: str, job_id: str, kind: str, part: Path, checksum: str) -> Chunk:
        """Check a file that arrived whole, and add it to its job.

        Raises:
            Refusal: the file or the job does not fit; the file is the caller's to remove.
        """
        job = self.get(pool_id, job_id)
        size_bytes = part.stat().st_size
        with self._warehouse.reading() as cursor:
            rows = inspect(cursor, part, job, self._switches.max_name_bytes)
        with self._changed:
            self._takes_chunks(pool_id, job_id)
            path = part.with_suffix(f".{job.file_type.lower()}")
            part.rename(path)
            position = len(self._chunks[job_id])
            chunk = Chunk(
                id=part.stem,
                job_id=job_id,
                position=position,
                type=kind,
                rows=rows,
                bytes=size_bytes,
                checksum=checksum,
                created_ms=now_ms(),
                file_name=path.name,
            )
            self._ledger.add_chunk(chunk)
            self._chunks[job_id].append(chunk)
            return chunk

    def _takes_chunks(self, pool_id: str, job_id: str) -> Job:
        job = self.get(pool_id, job_id)
        if job.status != "NEW":
            raise invalid("status", f"The job is {job.status}; only a NEW job takes chunks.")
        return job

    def execute(
        self, pool_id: str, job_id: str, duplicate_removal_column: str | None
    ) -> dict[str, str]:
        """Queue a job and return the rate limit headers of the answer.

        Raises:
            Refusal: 404; 400 when the job is not NEW; 429; 409. None of them uses up the limit.
        """
        with self._changed:
            job = self.get(pool_id, job_id)
            if job.status != "NEW":
                raise invalid("status", f"The job is {job.status}; only a NEW job is executed.")
            verdict = self._limit.verdict()
            if not verdict.allowed:
                detail = f"More than {verdict.limit} submits; wait {verdict.reset_seconds} s."
                raise too_many(detail, self._headers(verdict.headers()))
            other = self._conflicting(job)
            if other is not None:
                msg = f"Push job {other.id} is {other.status}; submit again when it has ended."
                raise conflict(msg)
            self._limit.count()
            self._save(
                replace(
                    job,
                    status="QUEUED",
                    executed_ms=now_ms(),
                    submits=job.submits + 1,
                    duplicate_removal_column=duplicate_removal_column,
                )
            )
            self._queue.put(job.id)
            return self._headers(self._limit.verdict().headers())

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        return headers if self._switches.rate_limit_headers else {}

    def _conflicting(self, job: Job) -> Job | None:
        """Return another job at work in the scope of the 409 rule."""
        scope = self._switches.conflict_scope
        for other in self._jobs.values():
            if other.status not in LIVE or scope == "off":
                continue
            same_pool = other.pool_id == job.pool_id
            same_table = (
                same_pool
                and other.connection_id == job.connection_id
                and other.table.lower() == job.table.lower()
            )
            if {"team": True, "pool": same_pool, "table": same_table}[scope]:
                return other
        return None

    def cancel(self, pool_id: str, job_id: str) -> None:
        """Cancel a job that has not ended; one at work ends soon after.

        Raises:
            Refusal: 404; 400 when it has ended or is about to.
        """
        with self._changed:
            job = self.get(pool_id, job_id)
            if job.status in ENDED or self._committing == job_id:
                raise invalid("status", f"The job is {job.status} and cannot be cancelled.")
            if job.status == "RUNNING":
                self._cancel_asked.add(job_id)
                if self._running_cursor is not None:
                    self._running_cursor.interrupt()
            else:
                self._finish(job_id, "CANCELED", "The job was cancelled before it ran.")
                self._remove_files(job_id)
            self._changed.notify_all()

    def delete(self, pool_id: str, job_id: str) -> None:
        """Remove a job and its chunk files; the history keeps it.

        Raises:
            Refusal: 404; 400 while it is at work.
        """
        with self._changed:
            job = self.get(pool_id, job_id)
            if job.status in LIVE:
                raise invalid("status", f"The job is {job.status} and cannot be deleted.")
            self._save(replace(job, deleted_ms=now_ms()))
            del self._jobs[job_id], self._chunks[job_id]
        self._remove_files(job_id)

    # The worker

    def _work(self) -> None:
        while (job_id := self._queue.get()) is not None:
            try:
                self._run(job_id)
            except Exception as error:
                log.exception("push job %s could not be run", job_id)
                self._finish(job_id, "ERROR", f"Internal fault: {error}")
            self._remove_files(job_id)
            self._warehouse.checkpoint()

    def _run(self, job_id: str) -> None:
        if not self._pause(job_id, self._switches.queued_seconds):
            return
        with self._changed:
            job = self._jobs[job_id]
            if job.status != "QUEUED":
                return
            # Not worth a write: at a restart QUEUED and RUNNING mean the same.
            job = self._jobs[job_id] = replace(job, status="RUNNING", changed_ms=now_ms())
            chunks = list(self._chunks[job_id])
        if not self._pause(job_id, self._switches.running_seconds):
            return
        fault = self._switches.fault_for(job.table)
        if fault is not None:
            self._finish(job_id, fault, f"The job was made to end {fault} (switch fail-table).")
            return
        try:
            self._load(job, chunks)
        except (_Canceled, duckdb.InterruptException):
            with self._changed:
                asked = job_id in self._cancel_asked
            if asked:
                self._finish(job_id, "CANCELED", "The job was cancelled; the table is unchanged.")
            else:
                self._finish(job_id, "ERROR", INTERRUPTED)
        except LoadFailed as error:
            self._finish(job_id, "ERROR", f"{error} The table is unchanged.")
        except duckdb.Error as error:
            reason = " ".join(str(error).split())[:LOG_CHARACTERS]
            self._finish(job_id, "ERROR", f"The chunks cannot be loaded: {reason}")

    def _pause(self, job_id: str, seconds: float) -> bool:
        """Wait in the job's present state; return whether it may go on."""

        def disturbed() -> bool:
            return self._stopping or job_id in self._cancel_asked or self._ended(job_id)

        with self._changed:
            self._changed.wait_for(disturbed, timeout=seconds)
            if self._ended(job_id):
                return False
            if self._stopping:
                self._finish(job_id, "ERROR", INTERRUPTED)
                return False
            if job_id in self._cancel_asked:
                self._finish(job_id, "CANCELED", "The job was cancelled; the table is unchanged.")
                return False
            return True

    def _ended(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        return job is None or job.status in ENDED

    def _load(self, job: Job, chunks: list[Chunk]) -> None:
        """Apply the chunks and mark the job DONE, both or neither."""
        directory = self._directory / job.id
        cursor = self._warehouse.cursor()
        with self._changed:
            self._running_cursor = cursor
        try:
            files = [open_chunk(cursor, directory / c.file_name, job, c.type) for c in chunks]
            load = Load(cursor, job, files, self._switches)
            load.stage()
            cursor.execute("BEGIN")
            result = load.apply()
            with self._changed:
                if job.id in self._cancel_asked or self._stopping:
                    raise _Canceled
                self._committing = job.id
            done = _ended(
                job,
                "DONE",
                f"{len(chunks)} chunks applied: {result.rows_written} rows written, "
                f"{result.rows_removed} rows removed.",
            )
            done = replace(done, truncated_values=result.truncated_values)
            self._ledger.write_job(done, cursor)
            cursor.execute("COMMIT")
            with self._changed:
                self._jobs[job.id] = done
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise
        finally:
            with self._changed:
                self._running_cursor = self._committing = None
            cursor.close()

    def _finish(self, job_id: str, status: str, line: str) -> None:
        with self._changed:
            job = self._jobs.get(job_id)
            if job is not None and job.status not in ENDED:
                self._save(_ended(job, status, line))
                log.info("push job %s on %s: %s", job_id, job.table, status)

    def _save(self, job: Job) -> None:
        job = replace(job, changed_ms=now_ms())
        self._ledger.write_job(job)
        self._jobs[job.id] = job

    def _remove_files(self, job_id: str) -> None:
        shutil.rmtree(self._directory / job_id, ignore_errors=True)

    # For people and tests

    def history(self) -> list[dict[str, Any]]:
        """Return every job there ever was, deleted ones too, with its chunks."""
        with self._changed:
            jobs = [self._jobs.get(job.id, job) for job in self._ledger.jobs(deleted=True)]
            return shown_history(jobs, self._ledger.chunks())


def _ended(job: Job, status: str, line: str) -> Job:
    at = now_ms()
    return replace(job, status=status, logs=(*job.logs, line), finished_ms=at, changed_ms=at)
