"""One row per key over all chunks of a push job, and one schema for them all.

Hides how repeated keys are found in bounded memory: key values (or digests of them) are dealt out
to partitions on disk, each partition is sorted by itself. Guarantees: of all rows with one key only
the last stays; chunks come back in order, with the given plan's schema; untouched chunks are not
rewritten. Must not know: where records come from or where chunks go.

Keys that are no single whole number are compared by a 128-bit digest (BLAKE2b): two different keys
meet with a probability of 10**-21 among a thousand million.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from target_celonis.errors import unwritable
from target_celonis.kinds import Kind
from target_celonis.owner_only import owner_only
from target_celonis.spans import SpanQueue
from target_celonis.spool import Chunk, ChunkWriter, read_row_groups
from target_celonis.table import TablePlan, deleted_rows

if TYPE_CHECKING:
    from pathlib import Path

    from target_celonis.spans import Spans

PARTITION_ROWS = 1_000_000
"""Rows that are sorted at a time: some 60 MB."""

_OPEN_PARTITIONS = 128
"""Files of keys that are written at a time; for more of them the keys are read once more."""

_WHOLE_NUMBERS = (Kind.INTEGER, Kind.DATE, Kind.DATETIME, Kind.BOOLEAN)
_INT64_BYTES = 8
_MIXER = 0x9E3779B97F4A7C15 - 2**64  # 2**64 by the golden ratio, as int64


@dataclass(frozen=True)
class Merged:
    """What is left to upload.

    Attributes:
        chunks: In order.
        superseded_rows: Rows left out, since a later one has their key.
        deleted: Chunks of rows to delete by their key, which no other chunk holds.
        cut_texts: How many texts were cut, by column name.
    """

    chunks: tuple[Chunk, ...]
    superseded_rows: int
    deleted: tuple[Chunk, ...] = ()
    cut_texts: Counter[str] = field(default_factory=Counter)


def merge(
    chunks: Sequence[Chunk],
    plan: TablePlan,
    directory: Path,
    *,
    keyed: bool,
    chunk_limit_bytes: int,
    timestamp_encoding: str,
    partition_rows: int = PARTITION_ROWS,
    cut_lengths: Mapping[str, int] | None = None,
) -> Merged:
    """Bring chunks to one schema and, where the job has keys, to one row per key.

    Args:
        chunks: In the order of their records, as far as their spans do not tell another one.
        plan: The table as it is at the end; chunks may have been written under earlier plans.
        directory: Empty; for partitions and rewritten chunks.
        keyed: Whether a key may occur only once.
        chunk_limit_bytes: Limit of rewritten chunks.
        timestamp_encoding: ``int96`` or ``millis``.
        partition_rows: How many rows may be sorted in memory.
        cut_lengths: Characters at which texts are cut, by column name.

    Raises:
        LimitError: The disk is full or gone.
    """
    try:
        superseded = _superseded(chunks, plan, directory, partition_rows) if keyed else None
        rewriting = _Rewriting(plan, directory, chunk_limit_bytes, timestamp_encoding, cut_lengths)
        merged: list[Chunk] = []
        for index, chunk in enumerate(chunks):
            rows = superseded.of_chunk(index) if superseded is not None else None
            if rows is None and rewriting.leaves(chunk):
                merged.append(chunk)
            else:
                merged += rewriting.rewrite(index, chunk, rows)
        return Merged(
            chunks=tuple(merged),
            superseded_rows=rewriting.superseded_rows,
            deleted=rewriting.finish_deleted(),
            cut_texts=rewriting.cut_texts,
        )
    except OSError as error:
        raise unwritable(directory, error) from None


class _Rewriting:
    """Chunks written anew: without superseded rows, under one plan, with no text too long.

    Args:
        plan: What they are to look like.
        directory: Where they go.
        chunk_limit_bytes: See ``merge``.
        timestamp_encoding: See ``merge``.
        cut_lengths: See ``merge``.
    """

    def __init__(
        self,
        plan: TablePlan,
        directory: Path,
        chunk_limit_bytes: int,
        timestamp_encoding: str,
        cut_lengths: Mapping[str, int] | None,
    ) -> None:
        self.superseded_rows = 0
        self.cut_texts: Counter[str] = Counter()
        self._plan = plan
        self._directory = directory
        self._chunk_limit_bytes = chunk_limit_bytes
        self._timestamp_encoding = timestamp_encoding
        self._cut_lengths = cut_lengths or {}
        self._deleted: ChunkWriter | None = None

    def leaves(self, chunk: Chunk) -> bool:
        """Return whether a chunk can stay as it is, as far as its columns go."""
        return chunk.plan.arrow_schema.equals(self._plan.arrow_schema) and all(
            chunk.longest.get(name, 0) <= length for name, length in self._cut_lengths.items()
        )

    def rewrite(self, index: int, chunk: Chunk, superseded: Any) -> tuple[Chunk, ...]:
        """Write a chunk anew and remove it.

        Args:
            index: Its number.
            chunk: The chunk.
            superseded: Places of rows to leave out, sorted; or None.
        """
        writer = self._writer(f"chunk-{index:04d}")
        rest = SpanQueue(chunk.spans or ((0, chunk.rows),))
        start = low = 0
        for table in read_row_groups(chunk):
            spans = rest.take(table.num_rows)
            stays = pa.repeat(pa.scalar(value=True), table.num_rows)
            if superseded is not None:
                high = bisect_left(_Places(superseded), start + table.num_rows, low)
                here = superseded.slice(low, high - low)
                low = high
                if len(here):
                    places = _counting(start, table.num_rows)
                    stays = pc.invert(pc.is_in(places, value_set=here))
            start += table.num_rows
            self.superseded_rows += table.num_rows - stays.true_count
            marks = deleted_rows(table)
            if marks is not None:
                marks = marks.combine_chunks()
                self._delete(table.filter(pc.and_(stays, marks)))
                stays = pc.and_(stays, pc.invert(marks))
            kept = table if stays.true_count == table.num_rows else table.filter(stays)
            for batch in self._cut(conform(kept, self._plan)).combine_chunks().to_batches():
                writer.add(batch, _thinned(spans, stays))
        chunk.path.unlink()
        return writer.finish()

    def _writer(self, name: str) -> ChunkWriter:
        target = self._directory / name
        target.mkdir(mode=0o700)
        return ChunkWriter(target, self._plan, self._chunk_limit_bytes, self._timestamp_encoding)

    def _delete(self, table: Any) -> None:  # pyarrow ships no types
        """Put rows among those to delete."""
        if not table.num_rows:
            return
        self._deleted = self._deleted or self._writer("deleted")
        for batch in self._cut(conform(table, self._plan), count=False).to_batches():
            self._deleted.add(batch)

    def finish_deleted(self) -> tuple[Chunk, ...]:
        """Return the chunks of rows to delete."""
        return () if self._deleted is None else self._deleted.finish()

    def _cut(self, table: Any, *, count: bool = True) -> Any:  # pyarrow ships no types
        """Return a table whose texts fit; what is cut of rows to delete reaches no column."""
        for place, wanted in enumerate(self._plan.arrow_schema):
            length = self._cut_lengths.get(wanted.name)
            if length is None:
                continue
            texts = table.column(place)
            longer = pc.sum(pc.greater(pc.utf8_length(texts), length)).as_py() or 0
            if longer:
                self.cut_texts[wanted.name] += longer if count else 0
                table = table.set_column(place, wanted, pc.utf8_slice_codeunits(texts, 0, length))
        return table


def _thinned(spans: Spans, stays: Any) -> Spans:  # pyarrow ships no types
    """Return the spans of the rows that stay."""
    found = []
    first = 0
    for order, rows in spans:
        found.append((order, stays.slice(first, rows).true_count))
        first += rows
    return tuple((order, rows) for order, rows in found if rows)


def conform(table: Any, plan: TablePlan) -> Any:  # pyarrow ships no types
    """Return a table with the plan's columns; those that it lacks are null."""
    arrays = []
    for wanted in plan.arrow_schema:
        if wanted.name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, wanted.type))
            continue
        column = table.column(wanted.name)
        arrays.append(column if column.type == wanted.type else _cast(column, wanted.type))
    return pa.Table.from_arrays(arrays, schema=plan.arrow_schema)


def _cast(column: Any, wanted: Any) -> Any:  # pyarrow ships no types
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ").cast(wanted)
    return column.cast(wanted, safe=False)  # a whole number beyond 2**53 becomes the next double


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows of a chunk that lie one behind the other, and came one after the other.

    Attributes:
        rank: How many rows of all chunks came before them.
        chunk: Number of their chunk.
        first: Place of the first of them in it.
        rows: How many.
    """

    rank: int
    chunk: int
    first: int
    rows: int


def _spans(chunks: Sequence[Chunk]) -> list[_Span]:
    """Return all rows as spans, in the order in which they came.

    Chunks may have been written side by side, each with rows from before and behind those of the
    others. Where chunks say nothing, their own order counts.
    """
    found = []
    for number, chunk in enumerate(chunks):
        first = 0
        for order, rows in chunk.spans or ((0, chunk.rows),):
            found.append((order, number, first, rows))
            first += rows
    found.sort()
    spans: list[_Span] = []
    rank = 0
    for _, number, first, rows in found:
        before = spans[-1] if spans else None
        if before and before.chunk == number and before.first + before.rows == first:
            spans[-1] = replace(before, rows=before.rows + rows)
        else:
            spans.append(_Span(rank, number, first, rows))
        rank += rows
    return spans


class _Superseded:
    """Places of superseded rows, by chunk, on disk.

    Args:
        directory: Where the files are.
        spans: All rows.
    """

    def __init__(self, directory: Path, spans: Sequence[_Span]) -> None:
        self._directory = directory
        self._spans = spans

    def _path(self, index: int) -> Path:
        return self._directory / f"superseded-{index:04d}"

    def add(self, ranks: Any) -> None:  # pyarrow ships no types
        """Take ranks of rows, sorted."""
        ordered = _Places(ranks)
        low = 0
        places: dict[int, list[Any]] = {}
        for span in self._spans:
            high = bisect_left(ordered, span.rank + span.rows, low)
            if high > low:
                here = pc.add(ranks.slice(low, high - low), span.first - span.rank)
                places.setdefault(span.chunk, []).append(here)
            low = high
        for index, found in places.items():
            with open(self._path(index), "ab", opener=owner_only) as file:
                file.write(pa.concat_arrays(found).buffers()[1])

    def of_chunk(self, index: int) -> Any:  # pyarrow ships no types
        """Return the places of a chunk's superseded rows, in order, from its first; or None."""
        path = self._path(index)
        if not path.exists():
            return None
        places = _int64s(path.read_bytes())
        return places.take(pc.array_sort_indices(places))


class _Places(Sequence[int]):
    """An Arrow array as ``bisect`` wants it."""

    def __init__(self, array: Any) -> None:  # pyarrow ships no types
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Any:  # int to int; slices are not used
        return self._array[index].as_py()


def _superseded(
    chunks: Sequence[Chunk], plan: TablePlan, directory: Path, partition_rows: int
) -> _Superseded:
    """Find the rows whose key occurs again later."""
    total = sum(chunk.rows for chunk in chunks)
    partitions = max(1, -(-total // partition_rows))
    spans = _spans(chunks)
    found = _Superseded(directory, spans)
    for first in range(0, partitions, _OPEN_PARTITIONS):  # more than one round for huge tables only
        numbers = range(first, min(first + _OPEN_PARTITIONS, partitions))
        paths = [directory / f"keys-{number:05d}" for number in numbers]
        with ExitStack() as stack:
            files = [stack.enter_context(open(path, "wb", opener=owner_only)) for path in paths]
            writers = [stack.enter_context(pa.ipc.new_stream(file, _DEALT)) for file in files]
            for ranks, keys in _keys(chunks, plan, spans):
                _deal(keys, ranks, dict(zip(numbers, writers, strict=True)), partitions)
        for path in paths:
            ranks = _repeated(path)
            if len(ranks):
                found.add(ranks)
            path.unlink()
    return found


def _keys(
    chunks: Sequence[Chunk], plan: TablePlan, spans: Sequence[_Span]
) -> Iterator[tuple[Any, tuple[Any, Any]]]:
    """Yield the keys of each row group as two columns of int64, with the ranks of its rows."""
    by_chunk: dict[int, list[_Span]] = {}
    for span in spans:
        by_chunk.setdefault(span.chunk, []).append(span)
    for number, chunk in enumerate(chunks):
        ranks = _Ranks(sorted(by_chunk.get(number, ()), key=lambda span: span.first))
        names = [column.name for column in chunk.plan.columns if column.name in _names(plan)]
        for table in read_row_groups(chunk, names):
            conformed = conform(table, _only_keys(plan))
            yield ranks.take(table.num_rows), _as_int64s(conformed, plan)


class _Ranks:
    """Ranks of a chunk's rows, from its first to its last.

    Args:
        spans: Of the chunk, in the order of its rows.
    """

    def __init__(self, spans: Sequence[_Span]) -> None:
        self._rest = [(span.rank, span.rows) for span in reversed(spans)]

    def take(self, rows: int) -> Any:  # pyarrow ships no types
        """Return the ranks of the next rows."""
        taken = []
        while rows:
            rank, count = self._rest.pop()
            if count > rows:
                self._rest.append((rank + rows, count - rows))
                count = rows
            taken.append(_counting(rank, count))
            rows -= count
        return pa.concat_arrays(taken) if taken else pa.array([], pa.int64())


def _names(plan: TablePlan) -> frozenset[str]:
    return frozenset(column.name for column in plan.keys)


def _only_keys(plan: TablePlan) -> TablePlan:
    return TablePlan(plan.stream, plan.table, plan.keys)


def _as_int64s(table: Any, plan: TablePlan) -> tuple[Any, Any]:
    """Return two int64 columns that are equal exactly where the keys are; null is never equal."""
    columns = [table.column(column.name).combine_chunks() for column in plan.keys]
    if len(plan.keys) == 1 and plan.keys[0].kind in _WHOLE_NUMBERS:
        whole = columns[0]
        if plan.keys[0].kind is Kind.DATE:
            whole = whole.cast(pa.int32())
        return whole.cast(pa.int64()), pa.repeat(pa.scalar(0, pa.int64()), table.num_rows)
    values = [_comparable(array) for array in columns]
    digests = b"".join(
        hashlib.blake2b(repr(key).encode(), digest_size=2 * _INT64_BYTES).digest()
        for key in zip(*values, strict=True)
    )
    halves = _int64s(digests)
    evens = pc.multiply(_counting(0, table.num_rows), 2)
    high, low = halves.take(evens), halves.take(pc.add(evens, 1))
    # Rows from before the key was one have none, and are not each other's.
    known = reduce(pc.and_, [array.is_valid() for array in columns])
    return pc.if_else(known, high, None), low


def _comparable(array: Any) -> list[Any]:  # pyarrow ships no types
    """Return values whose ``repr`` differs exactly where the values differ."""
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    if pa.types.is_floating(array.type):
        array = pc.add(array, 0.0)  # minus zero is zero
    values: list[Any] = array.to_pylist()
    return values


_DEALT = pa.schema([("high", pa.int64()), ("low", pa.int64()), ("rank", pa.int64())])


def _deal(keys: tuple[Any, Any], ranks: Any, writers: Mapping[int, Any], partitions: int) -> None:
    """Append keys and ranks of rows to the partition that each key decides.

    Args:
        keys: Two columns.
        ranks: A third.
        writers: By number of their partition; keys of others are left out.
        partitions: How many there are in all.
    """
    high, low = keys
    rows = pa.Table.from_arrays([high, low, ranks], schema=_DEALT)
    if partitions == 1:
        writers[0].write_table(rows)
        return
    # Keys often go in steps; the multiplication, which wraps around, mixes them.
    mixed = pc.shift_right(pc.multiply(high, _MIXER), 32)
    remainder = pc.abs(pc.subtract(mixed, pc.multiply(pc.divide(mixed, partitions), partitions)))
    for number, writer in writers.items():
        writer.write_table(rows.filter(pc.equal(remainder, number)))


def _repeated(path: Path) -> Any:  # pyarrow ships no types
    """Return, sorted, the ranks in a partition whose key occurs again later."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_all()
    if rows.num_rows <= 1:
        return pa.array([], pa.int64())
    order = [("high", "ascending"), ("low", "ascending"), ("rank", "ascending")]
    rows = rows.sort_by(order).combine_chunks()
    before, after = rows.slice(0, rows.num_rows - 1), rows.slice(1)
    same = pc.and_(pc.equal(before["high"], after["high"]), pc.equal(before["low"], after["low"]))
    ranks = before["rank"].filter(same).combine_chunks()
    return ranks.take(pc.array_sort_indices(ranks))


def _counting(first: int, count: int) -> Any:  # pyarrow ships no types
    """Return the whole numbers from ``first`` on."""
    return pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), count), start=first - 1)


def _int64s(data: bytes) -> Any:  # pyarrow ships no types
    """Return the int64 values that lie one behind the other in ``data``."""
    return pa.Array.from_buffers(pa.int64(), len(data) // _INT64_BYTES, [None, pa.py_buffer(data)])
