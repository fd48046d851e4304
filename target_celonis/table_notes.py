"""What is remembered of a table from one run to the next: how many rows it was replaced by.

Hides where that is written. Guarantees: a note that is missing, damaged or cannot be written harms
no run; it is then as if nothing were known. Must not know: what the notes are used for.

    spool_dir/
      tables/3f5c...e1.json      one table of one data pool
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from target_celonis.fingerprint import fingerprint
from target_celonis.owner_only import owner_only

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class TableNotes:
    """Notes on the tables of one data pool and connection.

    Args:
        spool_dir: Directory that outlives runs.
        place: What tells the pool and connection from all others.
    """

    def __init__(self, spool_dir: Path, place: Sequence[str]) -> None:
        self._directory = spool_dir / "tables"
        self._place = tuple(place)

    def rows(self, table: str) -> int | None:
        """Return the rows that a table was replaced by the last time; None when not known."""
        try:
            rows = json.loads(self._path(table).read_text(encoding="utf-8"))["rows"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return rows if type(rows) is int else None

    def replaced(self, table: str, rows: int) -> None:
        """Remember that a table was replaced."""
        path = self._path(table)
        note = {"place": self._place, "table": table, "rows": rows}
        part = path.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            with open(part, "w", encoding="utf-8", opener=owner_only) as file:
                json.dump(note, file)
            part.replace(path)

    def _path(self, table: str) -> Path:
        return self._directory / f"{fingerprint([*self._place, table.casefold()])}.json"
