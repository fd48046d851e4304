"""Push jobs: their states, their chunks, and the one worker that runs them.

Hides: locks, the worker thread, chunk files on disk, the order of ledger and file writes.
Guarantees: NEW -> QUEUED -> RUNNING -> DONE, ERROR or CANCELED, and no other way; a job runs once;
nothing touches a table before execute; a job's rows and its end are one transaction, and no chunk
is ever applied in part. Must not know: HTTP routes, keys, the SQL of a load.
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

    from celonis_emulator.faults import Faults
    from celonis_emulator.ledger import Ledger
    from celonis_emulator.switches import Switches
    from celonis_emulator.warehouse import Warehouse

log = logging.getLogger(__name__)

STOP_PATIENCE_SECONDS = 5.0
# DuckDB's messages can quote a whole line of a file.
LOG_CHARACTERS = 600
INTERRUPTED = "The server stopped while the job was at work; the table is unchanged."
UPLOADED = {"UPSERT": "upserted", "DELETE": "deleted"}


class _Canceled(Exception):  # noqa: N818
    """The running job was cancelled before its transaction was committed."""


class _Stopped(Exception):  # noqa: N818
    """The server stops; whatever is at work is rolled back."""


class PushJobs:
    """All push jobs of the server; safe from several threads."""

    def __init__(
        self,
        warehouse: Warehouse,
        ledger: Ledger,
        switches: Switches,
        chunk_directory: Path,
        faults: Faults,
    ) -> None:
        self._warehouse = warehouse
        self._ledger = ledger
        self._switches = switches
        self._directory = chunk_directory
        self._faults = faults
        self._limit = SubmitLimit(switches.submits_per_second, switches.submits_per_hour)
        # Guards everything below; signalled when a running job must notice something.
        self._changed = threading.Condition()
        self._jobs = {job.id: job for job in ledger.jobs(deleted=False)}
        chunks = ledger.chunks()
        self._chunks = {job_id: chunks.get(job_id, []) for job_id in self._jobs}
        self._cancel_asked: set[str] = set()
        # The job that is about to end; it can no longer be cancelled.
        self._ending: str | None = None
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
            if self._running_cursor is not None:
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
            Refusal: 404; 400 when the job takes no such chunks or has no keys to delete by.
        """
        job = self._takes_chunks(pool_id, job_id, kind)
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
            rows = inspect(cursor, part, job, kind, self._switches)
        with self._changed:
            self._takes_chunks(pool_id, job_id, kind)
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

    def _takes_chunks(self, pool_id: str, job_id: str, kind: str) -> Job:
        with self._changed:
            job = self.get(pool_id, job_id)
            if job.status != "NEW":
                raise invalid("status", f"The job is {job.status}; only a NEW job takes chunks.")
            other = next((c.type for c in self._chunks[job_id] if c.type != kind), None)
            if other is not None and self._switches.mixed_chunks == "refuse":
                msg = f"The job has {UPLOADED[other]} chunks; {UPLOADED[kind]} ones need their own."
                raise invalid("file", msg, "MIXED_CHUNKS")
            return job

    def execute(
        self, pool_id: str, job_id: str, duplicate_removal_column: str | None
    ) -> dict[str, str]:
        """Queue a job and return the rate limit headers of the answer.

        Raises:
            Refusal: 404; 400 or 409, as switched, when the job is not NEW; 429; 409. None of them
                uses up the limit.
        """
        with self._changed:
            job = self.get(pool_id, job_id)
            if job.status != "NEW":
                msg = f"The job is {job.status}; only a NEW job is executed."
                refuses = self._switches.execute_not_new == "409"
                raise conflict(msg) if refuses else invalid("status", msg)
            verdict = self._limit.verdict()
            if not verdict.allowed:
                detail = f"More than {verdict.limit} submits; wait {verdict.reset_seconds} s."
                raise too_many(detail, self._headers(verdict.headers()))
            other = self._conflicting(job)
            if other is not None:
                msg = f"Push job {other.id} is {other.status}; submit again when it has ended."
                raise conflict(msg)
            # The history shows the very times that the limit has counted.
            counted_seconds = self._limit.count()
            self._save(
                replace(
                    job,
                    status="QUEUED",
                    executed_ms=int(counted_seconds * 1000),
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
            if job.status in ENDED or self._ending == job_id:
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
            with self._changed:
                self._ending = None
            self._remove_files(job_id)
            self._warehouse.checkpoint()

    def _run(self, job_id: str) -> None:
        try:
            self._pause(job_id, self._switches.queued_seconds)
            with self._changed:
                job = self._jobs.get(job_id)
                if job is None or job.status != "QUEUED":
                    return
                # Not worth a write: at a restart QUEUED and RUNNING mean the same.
                job = self._jobs[job_id] = replace(job, status="RUNNING", changed_ms=now_ms())
                chunks = list(self._chunks[job_id])
            self._run_chunks(job, chunks)
        except _Stopped:
            self._finish(job_id, "ERROR", INTERRUPTED)

    def _run_chunks(self, job: Job, chunks: list[Chunk]) -> None:
        """Take a RUNNING job to its end."""
        half = (len(chunks) + 1) // 2
        try:
            self._pause(job.id, self._switches.running_seconds)
            fault = self._faults.of_job(job.table)
            if fault is None:
                done = f"{len(chunks)} chunks applied"
                self._load(job, chunks, "DONE", done)
                return
            status, reason = fault.status, f"The job was made to end {fault.status}."
            if fault.after_chunks is not None:
                self._end_early(job, chunks[: fault.after_chunks], status, reason, keeps=True)
                return
            first = chunks[:half]
        except _Canceled:
            status, reason, first = "CANCELED", "The job was cancelled.", chunks[:half]
        except LoadFailed as error:
            status, reason, first = "ERROR", str(error), chunks[:-1]
        except duckdb.Error as error:
            spelled = " ".join(str(error).split())[:LOG_CHARACTERS]
            status, reason, first = "ERROR", f"The chunks cannot be loaded: {spelled}", chunks[:-1]
        keeps = self._switches.failed_jobs == "keep_first_chunks"
        self._end_early(job, first, status, reason, keeps=keeps)

    def _end_early(
        self, job: Job, first: list[Chunk], status: str, reason: str, *, keeps: bool
    ) -> None:
        """End a job that is not DONE; where switched so, its first chunks stay applied."""
        with self._changed:
            self._ending = job.id
        stays = self._loadable(job, first) if keeps else []
        if stays:
            self._load(job, stays, status, f"{reason} The first {len(stays)} chunks stay")
        else:
            self._finish(job.id, status, f"{reason} The table is unchanged.")

    def _loadable(self, job: Job, chunks: list[Chunk]) -> list[Chunk]:
        """Return as many of the first chunks as can be applied without a fault."""
        # All before the first bad one can, and none behind it: halve in between.
        good, bad = 0, len(chunks) + 1
        while bad - good > 1:
            tried = (good + bad) // 2
            try:
                self._load(job, chunks[:tried], None, "")
                good = tried
            except (LoadFailed, duckdb.Error):
                bad = tried
        return chunks[:good]

    def _pause(self, job_id: str, seconds: float) -> None:
        """Wait in the job's present state.

        Raises:
            _Canceled: The running job is to end.
            _Stopped: The server is.
        """

        def disturbed() -> bool:
            return self._stopping or job_id in self._cancel_asked or self._ended(job_id)

        with self._changed:
            self._changed.wait_for(disturbed, timeout=seconds)
            self._notice(job_id)

    def _notice(self, job_id: str) -> None:
        with self._changed:
            if self._stopping:
                raise _Stopped
            if job_id in self._cancel_asked and self._ending != job_id:
                raise _Canceled

    def _ended(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        return job is None or job.status in ENDED

    def _load(self, job: Job, chunks: list[Chunk], status: str | None, line: str) -> None:
        """Apply chunks and end the job, both or neither; without a status only try to.

        Raises:
            LoadFailed, duckdb.Error: The chunks do not fit, or cannot be read.
            _Canceled: The job was cancelled in the meantime.
            _Stopped: The server is about to end.
        """
        # From the first look at the table to the end, nobody else changes it.
        with self._warehouse.changing(lambda: self._notice(job.id)):
            self._load_in_turn(job, chunks, status, line)

    def _load_in_turn(self, job: Job, chunks: list[Chunk], status: str | None, line: str) -> None:
        directory = self._directory / job.id
        cursor = self._warehouse.cursor()
        with self._changed:
            self._running_cursor = cursor
        try:
            self._notice(job.id)
            files = [open_chunk(cursor, directory / c.file_name, job, c.type) for c in chunks]
            load = Load(cursor, job, files, self._switches)
            load.stage()
            cursor.execute("BEGIN")
            result = load.apply()
            with self._changed:
                self._notice(job.id)
                if status is None:
                    cursor.execute("ROLLBACK")
                    return
                self._ending = job.id
                # From here on nobody interrupts it.
                self._running_cursor = None
            counts = f"{result.rows_written} rows written, {result.rows_removed} rows removed."
            ended = _ended(job, status, f"{line}: {counts}")
            ended = replace(ended, truncated_values=result.truncated_values)
            self._ledger.write_job(ended, cursor)
            cursor.execute("COMMIT")
            with self._changed:
                self._jobs[job.id] = ended
        except BaseException as error:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            if isinstance(error, duckdb.InterruptException):
                self._notice(job.id)
            raise
        finally:
            with self._changed:
                self._running_cursor = None
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
