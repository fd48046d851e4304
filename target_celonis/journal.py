"""What a run means to do and has done, line by line, so that the next one can tell after a kill.

Hides the form of a journal and how it is read back. Guarantees: an intent is on disk before it is
carried out; a line that was torn by the end of the process is ignored; a file that is no journal
is told from an empty one. Must not know: what Celonis is asked, or where run directories are.

Each line is a JSON object: ``at`` (UTC), ``step``, and what the step is about. ``cat`` shows it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from target_celonis.errors import LimitError, unwritable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.clock import Clock

logger = logging.getLogger("target-celonis")

NAME = "journal.jsonl"


class Step(StrEnum):
    """What a line of the journal is about."""

    RUN_OPENED = "run opened"
    CHUNK_CLOSED = "chunk closed"
    JOB_MEANT = "job meant"
    JOB_CREATED = "job created"
    CHUNK_CONFIRMED = "chunk confirmed"
    EXECUTE_MEANT = "execute meant"
    EXECUTED = "executed"
    DONE = "done"
    ENDED_BADLY = "ended badly"
    JOB_DELETED = "job deleted"
    STATE_MEANT = "state meant"
    STATE_RELEASED = "state released"


_FREQUENT = (Step.CHUNK_CLOSED, Step.CHUNK_CONFIRMED)
"""Nothing is lost if the machine loses power before these are on disk."""


class Journal:
    """A journal to write.

    Args:
        directory: Where it is made.
        clock: For the times in it.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.path = directory / NAME
        self._clock = clock
        self._lock = threading.Lock()
        self._is_said = False
        self._file: int | None = os.open(
            self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600
        )

    def note(self, step: Step, **about: Any) -> None:
        """Write a line about what is meant to be done.

        Args:
            step: What is meant or done.
            about: JSON values, none of them a secret or out of a record.

        Raises:
            LimitError: The disk is full or gone.
        """
        at = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "step": step.value, **about}, ensure_ascii=False) + "\n"
        with self._lock:
            if self._file is None:
                return
            try:
                self._write(self._file, line.encode("utf-8", "surrogatepass"))
                if step not in _FREQUENT:
                    os.fsync(self._file)
            except OSError as error:
                raise unwritable(self.path.parent, error) from None

    def _write(self, file: int, line: bytes) -> None:
        """Append a line, or nothing: behind half a line no other could be read."""
        written = os.write(file, line)
        if written < len(line):
            os.ftruncate(file, os.fstat(file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def record(self, step: Step, **about: Any) -> None:
        """Write a line about what has been done; a disk that is full does not undo it."""
        try:
            self.note(step, **about)
        except LimitError as error:
            if not self._is_said:
                self._is_said = True
                logger.warning("The journal cannot be written; the run goes on: %s", error.message)

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None


@dataclass
class JournalJob:
    """A push job as a journal knows it.

    Attributes:
        id: Its id.
        table: Its table.
        rows: Rows that it holds.
        appends: Whether its rows would stand twice, were they loaded again.
        last_line: Number of the input line of its last record.
        executed: Whether it was submitted, or may have been.
        done: Whether Celonis said that it is DONE.
        settled: Whether it is deleted, so that nothing is left to do.
    """

    id: str
    table: str
    rows: int = 0
    appends: bool = False
    last_line: int = 0
    executed: bool = False
    done: bool = False
    settled: bool = False


@dataclass
class Account:
    """What a journal says.

    Attributes:
        place: What tells the data pool and connection from all others.
        process_id: Of the run.
        started_at: When it began, UTC, as text.
        jobs: Its push jobs, by id.
        released_line: Number of the input line of the last state that was surely handed out.
    """

    place: tuple[str, ...] = ()
    process_id: int = 0
    started_at: str = ""
    jobs: dict[str, JournalJob] = field(default_factory=dict)
    released_line: int = 0

    @property
    def unsettled(self) -> list[JournalJob]:
        """Jobs that may still be in Celonis."""
        return [job for job in self.jobs.values() if not job.settled]

    @property
    def appended_beyond_state(self) -> list[JournalJob]:
        """Jobs whose rows are, or may be, in a table and will be sent again by the tap."""
        return [
            job
            for job in self.jobs.values()
            if job.appends and job.executed and job.last_line > self.released_line
        ]


_DAMAGE = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)


class NoJournalError(ValueError):
    """A file is there that no run of this program wrote."""


def read_account(path: Path) -> Account:
    """Read a journal, living or dead.

    Args:
        path: The file.

    Raises:
        NoJournalError: It is not a journal, or is damaged before its last line.
        OSError: It cannot be read.
    """
    account = Account()
    *lines, torn = path.read_bytes().split(b"\n")
    del torn  # empty, or a line that the end of the process cut
    for number, line in enumerate(lines):
        try:
            _take(account, json.loads(line), first=number == 0)
        except _DAMAGE:
            raise NoJournalError(f"line {number + 1}") from None
    return account


def _take(account: Account, entry: dict[str, Any], *, first: bool) -> None:
    """Bring an account up to date by one line."""
    step = Step(entry["step"])
    if first != (step is Step.RUN_OPENED):
        raise ValueError
    if step is Step.RUN_OPENED:
        account.place = tuple(_texts(entry["place"]))
        account.process_id = int(entry["process_id"])
        account.started_at = str(entry["at"])
    elif step is Step.JOB_CREATED:
        job = JournalJob(
            id=str(entry["job"]),
            table=str(entry["table"]),
            rows=int(entry["rows"]),
            appends=bool(entry["appends"]),
            last_line=int(entry["last_line"]),
        )
        account.jobs[job.id] = job
    elif step is Step.EXECUTE_MEANT:
        _known(account, entry["job"]).executed = True
    elif step is Step.DONE:
        _known(account, entry["job"]).done = True
    elif step is Step.JOB_DELETED and entry["job"] in account.jobs:  # or it is of another run
        job = account.jobs[entry["job"]]
        job.settled = True
        job.executed = job.executed and not entry["unexecuted"]
    elif step is Step.STATE_RELEASED:
        account.released_line = max(account.released_line, int(entry["line"]))


def _known(account: Account, job_id: Any) -> JournalJob:
    """Return a job; one whose creation could not be noted is in Celonis all the same."""
    if not isinstance(job_id, str):
        raise TypeError
    return account.jobs.setdefault(job_id, JournalJob(job_id, "not known"))


def _texts(values: Sequence[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise TypeError
    return list(values)
