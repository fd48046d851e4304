"""The chunks of one table in the making, with or without marks on rows to delete.

Hides that chunks in which rows are marked have one more column, so that they are files of their
own. Guarantees: chunks come in the order in which rows were added. Must not know: where rows come
from, when a push is due.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from target_celonis.batch import with_marks
from target_celonis.spool import ChunkWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from target_celonis.spool import Chunk, ChunkAccount
    from target_celonis.table import TablePlan


class TableWriter:
    """Writes rows of one table.

    Args:
        name: What it is called among others.
        plan: The table.
        fresh_directory: Makes a directory for a series of chunks.
        chunk_limit_bytes: See ``ChunkWriter``.
        timestamp_encoding: See there.
        account: See there.
    """

    def __init__(
        self,
        name: str,
        plan: TablePlan,
        fresh_directory: Callable[[str], Path],
        *,
        chunk_limit_bytes: int,
        timestamp_encoding: str,
        account: ChunkAccount,
    ) -> None:
        self._name = name
        self.plan = plan
        self._fresh_directory = fresh_directory
        self._chunk_limit_bytes = chunk_limit_bytes
        self._timestamp_encoding = timestamp_encoding
        self._account = account
        self._writer: ChunkWriter | None = None
        self._chunks: list[Chunk] = []

    @property
    def name(self) -> str:
        """What it is called among others."""
        return self._name

    @property
    def held_bytes(self) -> int:
        """Memory that its rows take."""
        return self._writer.held_bytes if self._writer is not None else 0

    @property
    def has_open_file(self) -> bool:
        """Whether a chunk file is being written."""
        return self._writer is not None and self._writer.has_open_file

    def add(self, batch: Any, deleted: Any | None, order: int) -> None:  # pyarrow ships no types
        """Take rows.

        Args:
            batch: The rows.
            deleted: Which of them are to be deleted, if any are.
            order: Tells which rows came later, among all writers of this table.

        Raises:
            LimitError: The disk is full or gone.
        """
        if deleted is not None and self._writer is not None and not self._marks_deleted:
            self._end_series()
        if self._writer is None:
            self._writer = ChunkWriter(
                self._fresh_directory(self.plan.table),
                replace(self.plan, marks_deleted=deleted is not None),
                self._chunk_limit_bytes,
                self._timestamp_encoding,
                self._account,
            )
        rows = with_marks(batch, deleted) if self._marks_deleted else batch
        self._writer.add(rows, ((order, batch.num_rows),))

    @property
    def _marks_deleted(self) -> bool:
        return self._writer is not None and self._writer.plan.marks_deleted

    def flush(self) -> None:
        """Have no row in memory any more."""
        if self._writer is not None:
            self._writer.flush()

    def close_file(self) -> None:
        """Close the chunk file that is being written; the next rows begin another."""
        if self._writer is not None:
            self._writer.close_chunk()

    def _end_series(self) -> None:
        if self._writer is not None:
            self._chunks += self._writer.finish()
            self._writer = None

    def finish(self) -> list[Chunk]:
        """Write all that is held and return the chunks since the last time."""
        self._end_series()
        chunks, self._chunks = self._chunks, []
        return chunks

    def abandon(self) -> None:
        """Hold nothing any more, and remove what was written."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        for chunk in self._chunks:
            chunk.path.unlink(missing_ok=True)
        self._chunks = []
