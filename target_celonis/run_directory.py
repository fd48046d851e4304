"""The directory of a run: what it may take of the disk, what dead runs left, which tables it has.

Hides the layout of the spool directory and its locks. Guarantees: a living run is never taken for a
dead one; directories are 0700 and files 0600; the rows of a dead run are removed when the next run
starts, its journal only when nothing in it is left to do; a journal that cannot be read is set
aside, named, and in nobody's way; a table has one writer on a machine. Must not know: the network,
or when a chunk is due.

    spool_dir/
      locks                        held bytes stand for tables that are being loaded
      run-20240531T120000-1234-x/  one run
        lock                       held while the run lives
        journal.jsonl              what it meant to do and has done
        0001-orders/0003.parquet   chunks of one table and checkpoint
        emulator.log               with the embedded emulator
      set-aside-run-.../           a run whose journal cannot be read
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from target_celonis.errors import LimitError, unwritable
from target_celonis.file_locks import try_lock
from target_celonis.fingerprint import fingerprint
from target_celonis.journal import NAME, Account, Journal, NoJournalError, Step, read_account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target_celonis.clock import Clock
    from target_celonis.spool import Chunk

logger = logging.getLogger("target-celonis")

_OUR_NAME = re.compile(r"run-\d{8}T\d{6}-\d+-\w+")
_SHARE_OF_FREE = 0.8
_BEING_MADE_SECONDS = 3600.0
"""A run directory without a lock is one that a run is making, or of one that was killed then."""

_SHARE_FOR_READING = 0.7
"""Of the limit; the rest is for what a merge writes before it removes what it read."""


class Room:
    """How much a run holds on disk.

    Args:
        path: Its directory.
        limit_bytes: What it may hold; None for most of what is free now.
    """

    def __init__(self, path: Path, limit_bytes: int | None) -> None:
        free = shutil.disk_usage(path).free
        self.limit_bytes = int(free * _SHARE_OF_FREE) if limit_bytes is None else limit_bytes
        self._path = path
        self._estimate_bytes = 0

    def wrote(self, size_bytes: int) -> None:
        """Count what was written."""
        self._estimate_bytes += size_bytes

    def is_full(self) -> bool:
        """Return whether no more should be read before something was pushed."""
        enough = self.limit_bytes * _SHARE_FOR_READING
        if self._estimate_bytes < enough:
            return False
        self._estimate_bytes = self.used_bytes()  # by now, what was loaded is gone
        return self._estimate_bytes >= enough

    def used_bytes(self) -> int:
        """Measure what is there."""
        used = 0
        for directory, _, names in os.walk(self._path):
            for name in names:
                with contextlib.suppress(OSError):  # it was just removed
                    used += os.stat(os.path.join(directory, name)).st_size  # noqa: PTH116, PTH118  # fast
        return used


@dataclass
class DeadRun:
    """A run that was killed, and what its journal says; locked until it is dropped or left.

    Attributes:
        path: Its directory.
        account: Its journal.
    """

    path: Path
    account: Account
    _lock: int | None

    def drop(self) -> None:
        """Remove it: nothing in it is left to do."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.leave()

    def leave(self) -> None:
        """Leave it to a later run."""
        lock, self._lock = self._lock, None  # closed once: its number may be another's by then
        if lock is not None:
            with contextlib.suppress(OSError):
                os.close(lock)


class RunDirectory:
    """The directory of this run.

    Args:
        spool_dir: Where runs have their directories; None for one of the user's own.
        clock: For the times in the journal.
        place: What tells the data pool and connection from all others; empty where none is
            written to, as in a dry run.
        limit_bytes: What the run may hold on disk; None for most of what is free.

    Attributes:
        path: The directory.
        journal: The journal of this run.
        room: What it holds on disk.
        dead_runs: Runs on the same place that were killed.
        knows_the_past: Whether earlier runs used this spool directory.

    Raises:
        LimitError: It cannot be made or written.
    """

    def __init__(
        self,
        spool_dir: Path | None,
        clock: Clock,
        place: Sequence[str] = (),
        limit_bytes: int | None = None,
    ) -> None:
        self.base = spool_dir or Path(tempfile.gettempdir()) / f"target-celonis-{_user()}"
        self.dead_runs: list[DeadRun] = []
        self._place = tuple(place)
        self._count = 0
        self._locks: int | None = None
        self.knows_the_past = not self._place or (self.base / "locks").exists()
        with contextlib.ExitStack() as opened:  # to be closed again where the rest fails
            try:
                self.base.mkdir(mode=0o700, parents=True, exist_ok=True)
                if spool_dir is None:
                    _refuse_foreign(self.base)
                opened.callback(self._leave_dead_runs)
                self._look_for_dead_runs()
                self.path, self._lock = _make_run(self.base)
                opened.callback(os.close, self._lock)
                self.room = Room(self.path, limit_bytes)
                self.journal = Journal(self.path, clock)
                opened.callback(self.journal.close)
            except OSError as error:
                raise unwritable(self.base, error) from None
            self.journal.note(Step.RUN_OPENED, place=self._place, process_id=os.getpid())
            opened.pop_all()

    def _look_for_dead_runs(self) -> None:
        """Remove the rows of runs that no longer live: they come again from the tap."""
        for path in sorted(self.base.glob("run-*")):
            if not _OUR_NAME.fullmatch(path.name):
                continue  # of somebody else, who has a directory here
            with contextlib.suppress(OSError):
                if not (path / "lock").exists():
                    if time.time() - path.stat().st_mtime > _BEING_MADE_SECONDS:
                        path.rmdir()  # nothing is in it before the lock
                    continue
                lock = _lock(path)
                if lock is not None:
                    self._take_dead_run(path, lock)

    def _leave_dead_runs(self) -> None:
        for run in self.dead_runs:
            run.leave()

    def _take_dead_run(self, path: Path, lock: int) -> None:
        account = Account()
        try:
            _remove_rows(path)
            account = read_account(path / NAME)
        except FileNotFoundError:
            pass  # it was killed before it began
        except OSError:
            os.close(lock)
            raise
        except NoJournalError as error:
            aside = path.with_name(f"set-aside-{path.name}")
            try:
                path.rename(aside)
            finally:
                os.close(lock)
            logger.warning(
                "The journal of an earlier run cannot be read (%s) and is set aside: %s. Push jobs "
                "that it left in Celonis are not known.",
                error,
                aside,
            )
            return
        run = DeadRun(path, account, lock)
        if not account.unsettled and not account.appended_beyond_state:
            run.drop()
        elif account.place == self._place:
            self.dead_runs.append(run)
        else:
            run.leave()

    def claim(self, table: str) -> None:
        """Take a table for this run alone, among those of this machine and spool directory.

        Raises:
            LimitError: Another run has it.
        """
        if not self._place:
            return
        try:
            import fcntl  # absent on Windows, where nobody is kept out
        except ImportError:
            return
        byte = int(fingerprint([*self._place, table.casefold()])[:14], 16)
        try:
            if self._locks is None:
                self._locks = os.open(self.base / "locks", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise unwritable(self.base, error) from None
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # which of them differs between systems
            raise LimitError(
                "TC-LIMIT-04",
                f"Another run on this machine loads table `{table}` right now.",
                "Wait until it has ended; two runs at a time may load different tables only.",
            ) from None
        except OSError as error:
            raise unwritable(self.base, error) from None

    def table_directory(self, table: str) -> Path:
        """Make a fresh directory for the chunks of one table and checkpoint."""
        self._count += 1
        path = self.path / f"{self._count:04d}-{table[:40].replace('/', '_')}"
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            raise unwritable(path, error) from None
        return path

    def wrote(self, size_bytes: int) -> None:
        """Count what was written of a chunk."""
        self.room.wrote(size_bytes)

    def closed(self, chunk: Chunk) -> None:
        """Note that a chunk is whole."""
        name = str(chunk.path.relative_to(self.path))
        self.journal.record(
            Step.CHUNK_CLOSED, file=name, rows=chunk.rows, size_bytes=chunk.size_bytes
        )

    def close(self) -> None:
        """Remove the directory, but for a journal that names jobs which are still in Celonis."""
        self.journal.close()
        self._leave_dead_runs()
        try:
            settled = not read_account(self.journal.path).unsettled
        except FileNotFoundError:
            settled = True
        except (OSError, NoJournalError):  # what it says is for the next run to find out
            settled = False
        if settled:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            _remove_rows(self.path)
        for lock in (self._lock, self._locks):
            if lock is not None:
                with contextlib.suppress(OSError):
                    os.close(lock)


def _remove_rows(run: Path) -> None:
    """Remove the chunks of a run."""
    for entry in run.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


def _refuse_foreign(base: Path) -> None:
    """Make sure that a directory in a place that all users can write is of this user alone."""
    if not hasattr(os, "getuid"):  # Windows, where that place is the user's own
        return
    seen = base.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "it is not a directory of this user alone")


def _user() -> str:
    try:
        return str(os.getuid())
    except AttributeError:  # Windows
        return getpass.getuser()


def _lock(run: Path) -> int | None:
    """Take the lock of a run directory; None where another process holds it."""
    fd = os.open(run / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        is_ours = try_lock(fd)
    except OSError:  # a file system without locks: no run on it could be told from a dead one
        os.close(fd)
        raise
    if is_ours:
        return fd
    os.close(fd)
    return None


def _make_run(base: Path) -> tuple[Path, int]:
    """Make a run directory and take its lock."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"run-{stamp}-{os.getpid()}-", dir=base))
        lock = _lock(path)
        if lock is not None and path.exists():  # else one that starts too took it for dead
            return path, lock
