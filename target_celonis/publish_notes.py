"""What is remembered of publishing from one run to the next: what was published, and what is owed.

Hides where that is written, and how a note of a living run is told from one of a dead run.
Guarantees: a table is noted as owed, on disk, before anything is done to it; what is owed stays so
until ``settle``, however the run ends; a note that is missing or damaged says less than was known,
never more. Must not know: what publishing is.

    spool_dir/
      publish/3f5c...e1/              one list of data jobs and data models
        published.json                there was a publish that left nothing owed
        owed-1234-5f3a.jsonl          tables that one run changed; locked while the run lives
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from target_celonis.errors import unwritable
from target_celonis.publish_plan import TableKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Left = dict[str, tuple[str | None, ...]]
"""What was triggered and not waited for, each with the marker of the run before it."""


@dataclass(frozen=True)
class Earlier:
    """What earlier runs left.

    Attributes:
        is_known: Whether a publish is noted, and all notes since then can be read.
        owed: Tables that changed since then.
        left: What that publish triggered and did not wait for.
    """

    is_known: bool
    owed: frozenset[TableKey]
    left: Left


class PublishNotes:
    """Notes on one list of data jobs and data models.

    Args:
        spool_dir: Directory that outlives runs.
        place: What tells the list, and the data pool, from all others.
    """

    def __init__(self, spool_dir: Path, place: Sequence[Any]) -> None:
        name = hashlib.sha256(json.dumps(list(place)).encode()).hexdigest()[:32]
        self._directory = spool_dir / "publish" / name
        self._published = self._directory / "published.json"
        self._own = self._directory / f"owed-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._own_fd: int | None = None
        self._owed: set[TableKey] = set()
        self._taken: dict[Path, int | None] = {}

    def owe(self, table: TableKey) -> None:
        """Note that a table is about to change.

        Raises:
            LimitError: That cannot be written, nor what is noted be taken back.
        """
        if table in self._owed:
            return
        line = json.dumps([table.connection_id, table.name]) + "\n"
        try:
            if self._own_fd is None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._own_fd = _locked(self._own, os.O_CREAT | os.O_EXCL | os.O_RDWR)
            if self._own_fd is None:
                raise BlockingIOError  # another run took it for one of a dead run, or has no locks
            os.write(self._own_fd, line.encode())
            os.fsync(self._own_fd)
        except OSError:
            self._forget()
        self._owed.add(table)

    def _forget(self) -> None:
        """Take back that anything was published, since it cannot be noted what is owed."""
        try:
            self._published.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self._published, error) from None

    def earlier(self) -> Earlier:
        """Return what earlier runs left; takes over what dead runs owe."""
        owed: set[TableKey] = set()
        is_known = True
        for path in self._of_dead_runs():
            lines = _read(path).splitlines(keepends=True)
            for line in lines:
                key = _table(line)
                if key is None:
                    is_known = False
                else:
                    owed.add(key)
        left = self._noted()
        return Earlier(is_known and left is not None, frozenset(owed), left or {})

    def _of_dead_runs(self) -> Iterator[Path]:
        """Yield the notes of runs that live no more, and take their locks."""
        for path in sorted(self._directory.glob("owed-*.jsonl")):
            if path == self._own:
                continue
            if path not in self._taken:
                try:
                    fd = _locked(path, os.O_RDWR)
                except OSError:
                    fd = None
                if fd is None:
                    continue  # that run publishes by itself, or leaves its note
                self._taken[path] = fd
            yield path

    def _noted(self) -> Left | None:
        """Return what the publish that is noted left; None where none is noted."""
        try:
            left = json.loads(self._published.read_text(encoding="utf-8"))["left"]
            return {str(name): tuple(marker) for name, marker in left.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def settle(self, left: Mapping[str, tuple[str | None, ...]]) -> None:
        """Note a publish; nothing is owed any more by this run or those taken over.

        Args:
            left: What was triggered and not waited for.
        """
        part = self._published.with_suffix(f".{os.getpid()}.part")
        note = {"left": {name: list(marker) for name, marker in left.items()}}
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(part, "w", encoding="utf-8", opener=_private) as file:
                json.dump(note, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._published)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return  # what is owed stays owed: the next run publishes more than it has to
        for path in (self._own, *self._taken):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._owed.clear()
        self.close()

    def close(self) -> None:
        """Give the locks back; what is owed stays noted."""
        for fd in (self._own_fd, *self._taken.values()):
            if fd is not None:
                os.close(fd)
        self._own_fd = None
        self._taken.clear()


def _locked(path: Path, flags: int) -> int | None:
    """Open a note and take its lock; None where another process holds it."""
    fd = os.open(path, flags, 0o600)
    try:
        import fcntl  # absent on Windows, where a run cannot be told from a dead one
    except ImportError:
        return fd
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held; or a file system without locks, where nothing is taken over
        os.close(fd)
        return None
    return fd


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b"?"


def _table(line: bytes) -> TableKey | None:
    """Return the table of a note's line; None for one that is cut off or damaged."""
    try:
        connection, name = json.loads(line) if line.endswith(b"\n") else ("", None)
    except (ValueError, TypeError):
        return None
    if not isinstance(name, str) or not isinstance(connection, str | None):
        return None
    return TableKey.of(connection, name)


def _private(path: str, flags: int) -> int:
    """Open a file that none but its owner may read."""
    return os.open(path, flags, 0o600)
