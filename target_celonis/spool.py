"""Chunks on disk: Parquet files in a directory of the run.

Hides how chunk files are written, rolled over and measured. Guarantees: a file named ``*.parquet``
is whole and on disk; no chunk is larger than the limit; all chunks of one ``ChunkWriter`` have the
schema of its plan, every column typed even when all null; files are 0600. Must not know: the
network, when a chunk is due, or what else is in the directory of the run.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from target_celonis import limits
from target_celonis.errors import unwritable
from target_celonis.kinds import Kind
from target_celonis.spans import SpanQueue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.spans import Spans
    from target_celonis.table import TablePlan

ROW_GROUP_BYTES = 8 << 20
"""Arrow bytes of a row group at most: what is held in memory for one stream."""

_LOOSE_BATCHES = 1000
"""Batches that are held one by one: each takes more memory than a few rows do."""

_FOOTER_BYTES_PER_COLUMN = 300
_SAMPLE_ROWS = 20_000
_FEW_DISTINCT = 0.7
"""Share of unlike values in a sample, below which a dictionary of a column's values is made: where
most are unlike, making it takes half of all the time that writing takes, and saves nothing."""
_DICTIONARY_BYTES = 1 << 20
"""A dictionary that becomes larger is given up by Parquet in mid column."""


@dataclass(frozen=True)
class Chunk:
    """A Parquet file that is ready to be uploaded.

    Attributes:
        path: Where it lies.
        plan: The plan whose schema it has.
        rows: Its rows.
        size_bytes: Its size on disk.
        longest: Characters of the longest text, by column name.
        spans: Its rows in order; empty where the order of the chunks tells which came later.
    """

    path: Path
    plan: TablePlan
    rows: int
    size_bytes: int
    longest: dict[str, int]
    spans: Spans = ()


class ChunkAccount(Protocol):
    """Keeps account of what is written of chunks."""

    def wrote(self, size_bytes: int) -> None:
        """Count what was written."""
        ...

    def closed(self, chunk: Chunk) -> None:
        """Take note of a chunk that is whole."""
        ...


class ChunkWriter:
    """Writes record batches of one table into chunk files.

    Args:
        directory: Where the files go; nothing else is in it.
        plan: The table; every batch has its schema.
        chunk_limit_bytes: A file is closed before it would be larger.
        timestamp_encoding: ``int96`` or ``millis``.
        account: Is told what is written.
    """

    def __init__(
        self,
        directory: Path,
        plan: TablePlan,
        chunk_limit_bytes: int,
        timestamp_encoding: str,
        account: ChunkAccount | None = None,
    ) -> None:
        self.plan = plan
        self._account = account
        self.held_bytes = 0
        self.rows = 0
        self._directory = directory
        self._limit = min(chunk_limit_bytes, limits.CHUNK_LIMIT_BYTES)
        self._row_group_bytes = min(ROW_GROUP_BYTES, self._limit // 8)
        self._encoding = timestamp_encoding
        # What Parquet may take more than Arrow: INT96 has 12 bytes instead of 8, and each value
        # of any column an index into a dictionary that did not pay off.
        date_times = sum(column.kind is Kind.DATETIME for column in plan.columns)
        self._extra_bytes_per_row = 4 * date_times + len(plan.columns)
        self._batches: list[Any] = []
        self._loose = 0
        self._chunks: list[Chunk] = []
        self._parquet: Any = None
        self._sink: Any = None
        self._chunk_rows = 0
        self._row_groups = 0
        self._longest: dict[str, int] = {}
        self._spans = SpanQueue()

    def add(self, batch: Any, spans: Spans | None = None) -> None:  # pyarrow ships no types
        """Take a record batch; written once enough of them are there.

        Args:
            batch: The rows.
            spans: Tell which of them came later, among all writers of the table.
        """
        self._batches.append(batch)
        self._loose += 1
        if self._loose == _LOOSE_BATCHES:
            self._join()
        for order, rows in spans or ((0, batch.num_rows),):
            self._spans.add(order, rows)
        # To count what slices leave out of it takes longer, and it is held all the same.
        self.held_bytes += batch.get_total_buffer_size()
        self.rows += batch.num_rows
        if self.held_bytes >= self._row_group_bytes:
            self.flush()

    def _join(self) -> None:
        """Make one batch of the last ones."""
        loose = self._batches[-self._loose :]
        table = pa.Table.from_batches(loose, schema=self.plan.arrow_schema).combine_chunks()
        self._batches[-self._loose :] = table.to_batches()
        self._loose = 0

    def flush(self) -> None:
        """Write what is held as row groups.

        Raises:
            LimitError: The disk is full or gone.
        """
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches, schema=self.plan.arrow_schema)
        self._batches, self._loose, self.held_bytes = [], 0, 0
        table = table.combine_chunks()  # a page is written for each piece of a column
        try:
            for part in self._parts(table):
                self._write(part)
        except OSError as error:
            raise unwritable(self._directory, error) from None

    def _parts(self, table: Any) -> Sequence[Any]:  # pyarrow ships no types
        """Cut a table into row groups of about the right size, one row at the least."""
        groups = max(1, round(table.nbytes / self._row_group_bytes))
        rows = max(1, -(-table.num_rows // groups))
        return [table.slice(start, rows) for start in range(0, table.num_rows, rows)]

    def _write(self, table: Any) -> None:  # pyarrow ships no types
        footer = _FOOTER_BYTES_PER_COLUMN * len(self.plan.columns) * (self._row_groups + 2)
        size = table.nbytes
        data = size + size // 50  # what cannot be compressed grows a little by the attempt
        at_most = data + table.num_rows * self._extra_bytes_per_row + footer
        if self._parquet is not None and self._sink.tell() + at_most > self._limit:
            self._close_chunk()
        if self._parquet is None:
            self._open_chunk(table)
        before = self._sink.tell()
        self._parquet.write_table(table, row_group_size=table.num_rows)
        if self._account is not None:
            self._account.wrote(self._sink.tell() - before)
        self._chunk_rows += table.num_rows
        self._row_groups += 1
        for column in self.plan.columns:
            if column.is_text:
                self._measure(column.name, table.column(column.name))

    def _measure(self, name: str, texts: Any) -> None:  # pyarrow ships no types
        """Remember the longest text of a column; octets are quicker to count than characters."""
        known = self._longest.get(name, 0)
        octets = pc.max(pc.binary_length(texts)).as_py()
        if octets is not None and octets > known:
            self._longest[name] = max(known, pc.max(pc.utf8_length(texts)).as_py())

    def _part_path(self) -> Path:
        return self._directory / f"{len(self._chunks) + 1:04d}.parquet.part"

    def _open_chunk(self, table: Any) -> None:  # pyarrow ships no types
        """Open a chunk file, fit for what is to be written first."""
        path = self._part_path()
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        self._sink = pa.OSFile(str(path), "wb")
        millis = self._encoding == "millis"
        self._parquet = pq.ParquetWriter(
            self._sink,
            self.plan.arrow_schema,
            compression="snappy",  # what Celonis' own writers use
            use_deprecated_int96_timestamps=not millis,
            coerce_timestamps="ms" if millis else None,
            allow_truncated_timestamps=True,
            use_dictionary=[name for name in table.column_names if _repeats(table.column(name))],
            store_schema=False,
            write_statistics=False,  # nobody reads them, and long texts would swell the footer
        )

    def _close_chunk(self) -> None:
        if self._parquet is None:
            return
        self._parquet.close()
        self._sink.close()
        part = self._part_path()
        path = part.with_suffix("")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(path)
        size = path.stat().st_size
        spans = self._spans.take(self._chunk_rows)
        chunk = Chunk(path, self.plan, self._chunk_rows, size, self._longest, spans)
        self._chunks.append(chunk)
        if self._account is not None:
            self._account.closed(chunk)
        self._parquet = self._sink = None
        self._chunk_rows = self._row_groups = 0
        self._longest = {}

    @property
    def has_open_file(self) -> bool:
        """Whether a chunk is being written."""
        return self._parquet is not None

    def close_chunk(self) -> None:
        """Close the chunk that is being written; the next row group begins another.

        Raises:
            LimitError: The disk is full or gone.
        """
        try:
            self._close_chunk()
        except OSError as error:
            raise unwritable(self._directory, error) from None

    def abandon(self) -> None:
        """Write nothing more, and remove what was written."""
        self._batches, self._loose, self.held_bytes = [], 0, 0
        if self._parquet is not None:
            with suppress(OSError):
                self._parquet.close()
            self._parquet.is_open = False  # else it is closed again when it is forgotten
        if self._sink is not None:
            with suppress(OSError):
                self._sink.close()
            self._part_path().unlink(missing_ok=True)
        self._parquet = self._sink = None
        for chunk in self._chunks:
            chunk.path.unlink(missing_ok=True)
        self._chunks = []

    def finish(self) -> tuple[Chunk, ...]:
        """Write what is held, close the last chunk and return all of them, in order."""
        self.flush()
        self.close_chunk()
        return tuple(self._chunks)


def _repeats(column: Any) -> bool:  # pyarrow ships no types
    """Return whether a dictionary of a column's values pays off."""
    if pa.types.is_boolean(column.type):
        return False
    sample = column.slice(0, _SAMPLE_ROWS)
    distinct = pc.count_distinct(sample).as_py()
    bytes_of_distinct = distinct * sample.nbytes / max(1, len(sample))
    is_small = bytes_of_distinct < _DICTIONARY_BYTES
    return bool(distinct < _FEW_DISTINCT * len(sample) and is_small)


def read_row_groups(chunk: Chunk, columns: Sequence[str] | None = None) -> Any:
    """Yield a chunk's row groups as Arrow tables with the types of its plan.

    Args:
        chunk: The chunk.
        columns: Only these columns, in this order.
    """
    # INT96 read as nanoseconds would wrap silently outside the years 1677 to 2262.
    with pq.ParquetFile(chunk.path, coerce_int96_timestamp_unit="us") as file:
        names = columns or chunk.plan.arrow_schema.names
        schema = pa.schema([chunk.plan.arrow_schema.field(name) for name in names])
        for index in range(file.num_row_groups):
            table = file.read_row_group(index, columns=list(names), use_threads=False)
            table = table.select(list(names))
            yield pa.Table.from_arrays(
                [_retyped(table.column(i), field.type) for i, field in enumerate(schema)],
                schema=schema,
            )


def _retyped(array: Any, wanted: Any) -> Any:  # pyarrow ships no types
    """Give a column its own type back; INT96 knows no zone, its values are UTC."""
    return array if array.type == wanted else array.cast(wanted)
