"""What is remembered of publishing from one run to the next: what was published, and what is owed.

Hides where that is written, and how a note of a living run is told from one of a dead run.
Guarantees: a table is noted as owed, on disk, before anything is done to it, and to every list of
data jobs and data models that runs on this pool have published; what is owed to a list stays so
until that list's ``settle``, however the run ends; a note that is missing or damaged says less than
was known, never more. Must not know: what publishing is.

    spool_dir/
      publish/
        3f5c...-e1a0.../              a data pool, and one list of data jobs and data models
          published.json              there was a publish that left nothing owed; or one begins
          owed-1234-5f3a.jsonl        tables that one run changed; locked while the run lives
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from target_celonis.errors import unwritable
from target_celonis.file_locks import try_lock
from target_celonis.fingerprint import fingerprint
from target_celonis.owner_only import owner_only
from target_celonis.publish_plan import TableKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Left = dict[str, tuple[str | None, ...]]
"""What was triggered and not waited for, each with the marker of the run before it."""

_ANY = b"true\n"
"""The line of a note that stands for any table."""

_MOST_NOTES = 64
"""Notes that wait for a list; with more, its publish is forgotten: it may be in use no more."""


@dataclass(frozen=True)
class Earlier:
    """What earlier runs left.

    Attributes:
        is_known: Whether a publish is noted, and all notes since then can be read.
        owed: Tables that changed since then.
        left: What that publish triggered and did not wait for.
        is_begun: Whether something was begun since then that may have changed any table.
    """

    is_known: bool
    owed: frozenset[TableKey]
    left: Left
    is_begun: bool = False


class PublishNotes:
    """Notes on one list of data jobs and data models, and on all others of its data pool.

    Args:
        spool_dir: Directory that outlives runs.
        place: What tells the data pool from all others.
        published: What tells the list from the pool's others; None: this run publishes nothing.
    """

    def __init__(
        self, spool_dir: Path, place: Sequence[Any], published: Sequence[Any] | None = ()
    ) -> None:
        self._base = spool_dir / "publish"
        self._pool = fingerprint(place)
        self._list = None if published is None else f"{self._pool}-{fingerprint(published)}"
        self._directory = self._base / (self._list or self._pool)
        self._published = self._directory / "published.json"
        self._name = _new_name()
        self._open: dict[Path, int] = {}
        self._noted_in: set[tuple[Path, bytes]] = set()
        self._taken: dict[Path, int | None] = {}
        self._seen: str | None = None
        self._lock = Lock()

    # --- what is owed

    def owe(self, table: TableKey) -> None:
        """Note that a table is about to change, for every list of the data pool.

        Raises:
            LimitError: That cannot be written, nor what is noted be taken back.
        """
        line = json.dumps([table.connection_id, table.name]).encode() + b"\n"
        folded = json.dumps([table.connection_id, table.folded]).encode()
        with self._lock:  # several tables are pushed at a time
            for directory in self._lists():
                self._note(directory, line, folded)

    def begin(self, *, for_this: bool, for_others: bool) -> None:
        """Note that any table may be about to change.

        Args:
            for_this: Whether this list is to know it until it settles.
            for_others: Whether the other lists are.

        Raises:
            LimitError: That cannot be written, nor what is noted be taken back.
        """
        with self._lock:
            for directory in self._lists():
                if for_this if directory == self._directory else for_others:
                    self._note(directory, _ANY, _ANY)

    def _lists(self) -> Iterator[Path]:
        """Yield the directories of all lists of the pool, ours first."""
        if self._list is not None:
            yield self._directory
        for path in sorted(self._base.glob(f"{self._pool}-*")):
            if path.name != self._list and path.is_dir():
                yield path

    def _note(self, directory: Path, line: bytes, key: bytes) -> None:
        if (directory, key) in self._noted_in:
            return
        try:
            fd = self._open.get(directory)
            if fd is None:
                fd = self._opened(directory)
            _write_all(fd, line)
            os.fsync(fd)
        except OSError:
            _forget(directory / "published.json")
        self._noted_in.add((directory, key))

    def _opened(self, directory: Path) -> int:
        """Open our note for a list."""
        if directory == self._directory:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif len(list(directory.glob("owed-*.jsonl"))) >= _MOST_NOTES:
            raise FileExistsError
        fd = _locked(directory / self._name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        if fd is None:
            raise BlockingIOError  # another run took it for one of a dead run, or has no locks
        self._open[directory] = fd
        return fd

    # --- what earlier runs left

    def earlier(self) -> Earlier:
        """Return what earlier runs left; takes over what dead runs owe."""
        # What is published from here on is void if somebody forgets this note, or its stand-in.
        self._seen = _read_note(self._published).identity or self._stand_in()
        owed: set[TableKey] = set()
        is_known = True
        is_begun = False
        for path in self._of_dead_runs():
            for line in _read(path).splitlines(keepends=True):
                key = _table(line)
                if key is not None:
                    owed.add(key)
                elif line == _ANY:
                    is_begun = True
                else:
                    is_known = False
        left = _read_note(self._published).left
        return Earlier(is_known and left is not None, frozenset(owed), left or {}, is_begun)

    def _of_dead_runs(self) -> Iterator[Path]:
        """Yield the notes of runs that live no more, and take their locks."""
        for path in sorted(self._directory.glob("owed-*.jsonl")):
            if path.name == self._name:
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

    def _stand_in(self) -> str | None:
        """Write a note that says that nothing was published, for others to forget."""
        return self._write(None)

    # --- after a publish

    def settle(self, left: Mapping[str, tuple[str | None, ...]]) -> None:
        """Note a publish; nothing is owed to this list any more by this run or those taken over.

        Nothing is noted, and all stays owed, if somebody forgot meanwhile what was published: it
        could not be noted what that run changes.

        Args:
            left: What was triggered and not waited for.
        """
        if self._seen is None:
            self._seen = _read_note(self._published).identity or self._stand_in()
        now = _read_note(self._published)
        if now.identity is None:
            return
        if now.identity == self._seen:
            self._seen = self._write(dict(left))
            if self._seen is None:
                return  # what is owed stays owed: the next run publishes more than it has to
        elif now.left is None or left:
            return
        self.drop()

    def drop(self) -> None:
        """Remove the notes of this run, and those taken over, on this list; nothing changed."""
        for path in (self._directory / self._name, *self._taken):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._noted_in.clear()
        self.close()
        self._name = _new_name()  # what is noted on other lists is left to them

    def _write(self, left: Left | None) -> str | None:
        """Write the note of a publish; return what tells it from others, None if that failed."""
        part = self._published.with_suffix(f".{os.getpid()}.part")
        identity = secrets.token_hex(8)
        note = {"identity": identity, "left": left}
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(part, "w", encoding="utf-8", opener=owner_only) as file:
                json.dump(note, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._published)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return None
        return identity

    def close(self) -> None:
        """Give the locks back; what is owed stays noted."""
        for fd in (*self._open.values(), *self._taken.values()):
            if fd is not None:
                os.close(fd)
        self._open.clear()
        self._taken.clear()


@dataclass(frozen=True)
class _Note:
    """The note of a publish; without an identity, there is none that can be read."""

    identity: str | None = None
    left: Left | None = None


def _read_note(path: Path) -> _Note:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        left = note["left"]
        if left is not None:
            left = {str(name): tuple(marker) for name, marker in left.items()}
        return _Note(str(note["identity"]), left)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return _Note()


def _forget(published: Path) -> None:
    """Take back that anything was published, since it cannot be noted what is owed."""
    try:
        published.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(published, error) from None


def _new_name() -> str:
    return f"owed-{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def _write_all(fd: int, line: bytes) -> None:
    if os.write(fd, line) != len(line):
        raise OSError  # a full disk may take a part


def _locked(path: Path, flags: int) -> int | None:
    """Open a note and take its lock; None where another process holds it."""
    fd = os.open(path, flags, 0o600)
    with contextlib.suppress(OSError):  # no locks on this file system: nothing is taken over
        if try_lock(fd):
            return fd
    os.close(fd)
    return None


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
