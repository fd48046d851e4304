"""One row per key over all chunks, one schema for them all, untouched chunks untouched."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from target_celonis.kinds import Kind
from target_celonis.merge import Merged, merge
from target_celonis.spool import ChunkWriter

from .chunks import batch_of, plan_of, read, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target_celonis.spool import Chunk
    from target_celonis.table import TablePlan

Rows = list[dict[str, Any]]


def merged(
    directory: Path,
    parts: Sequence[tuple[TablePlan, Rows]],
    plan: TablePlan,
    *,
    keyed: bool = True,
    partition_rows: int = 1_000_000,
    limit: int = 1_000_000,
) -> tuple[tuple[Chunk, ...], Merged]:
    """Write each part as chunks of its own and merge them all."""
    chunks: list[Chunk] = []
    for number, (written_under, rows) in enumerate(parts):
        place = directory / f"part-{number}"
        place.mkdir()
        chunks += write(
            place, written_under, [rows[n : n + 3] for n in range(0, len(rows), 3)], limit
        )
    work = directory / "merged"
    work.mkdir()
    result = merge(
        chunks,
        plan,
        work,
        keyed=keyed,
        chunk_limit_bytes=limit,
        timestamp_encoding="int96",
        partition_rows=partition_rows,
    )
    return tuple(chunks), result


def last_of_each(rows: Rows, *keys: str) -> Rows:
    """Say what must be left: of each key the last row, at that row's place."""
    newest: dict[Any, int] = {}
    for place, row in enumerate(rows):
        newest[tuple(row[key] for key in keys)] = place
    return [rows[place] for place in sorted(newest.values())]


border = [-(2**63), -(2**63) + 1, -3, -1, 0, 1, 2, 2**63 - 2, 2**63 - 1]
KEYS: dict[str, tuple[dict[str, Kind], st.SearchStrategy[tuple[Any, ...]]]] = {
    "whole number": ({"a": Kind.INTEGER}, st.tuples(st.sampled_from(border) | st.integers(0, 5))),
    "text": (
        {"a": Kind.TEXT},
        st.tuples(st.sampled_from(["", "a", "A", "a ", "é", "e\u0301", "😀", "1", "None"])),
    ),
    "json": ({"a": Kind.JSON}, st.tuples(st.sampled_from(['{"a":1}', '{"a": 1}', "1", '"1"']))),
    "double": (
        {"a": Kind.FLOAT},
        st.tuples(st.sampled_from([0.0, -0.0, 0.1, 0.1 + 2**-56, 1e300, -1.0, 5e-324])),
    ),
    "boolean": ({"a": Kind.BOOLEAN}, st.tuples(st.booleans())),
    "date": (
        {"a": Kind.DATE},
        st.tuples(
            st.sampled_from([dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(9999, 12, 31)])
        ),
    ),
    "date-time": (
        {"a": Kind.DATETIME},
        st.tuples(
            st.sampled_from(
                [
                    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
                    dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
                    dt.datetime(2024, 5, 31, 12, 0, 0, 1, tzinfo=dt.UTC),
                    dt.datetime(9999, 12, 31, tzinfo=dt.UTC),
                ]
            )
        ),
    ),
    "two texts": (
        {"a": Kind.TEXT, "b": Kind.TEXT},
        st.tuples(st.sampled_from(["", "a", "ab", "a'"]), st.sampled_from(["", "b", "ba", "'b"])),
    ),
    "a number and a text": (
        {"a": Kind.INTEGER, "b": Kind.TEXT},
        st.tuples(st.sampled_from([1, 11, -1]), st.sampled_from(["", "1", "11"])),
    ),
    "all kinds": (
        {"a": Kind.DATE, "b": Kind.DATETIME, "c": Kind.FLOAT, "d": Kind.BOOLEAN},
        st.tuples(
            st.dates(dt.date(2024, 1, 1), dt.date(2024, 1, 2)),
            st.sampled_from([dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (1, 2)]),
            st.sampled_from([0.0, -0.0, 1.5]),
            st.booleans(),
        ),
    ),
}


@pytest.mark.parametrize("name", KEYS)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_of_each_key_the_last_row_stays(name: str, data: st.DataObject) -> None:
    kinds, keys = KEYS[name]
    plan = plan_of({**kinds, "n": Kind.INTEGER}, *kinds)
    drawn = data.draw(st.lists(keys, max_size=25), "keys")
    sizes = data.draw(st.lists(st.integers(1, 10), min_size=1), "rows of each chunk")
    rows = [dict(zip(kinds, key, strict=True)) | {"n": n} for n, key in enumerate(drawn)]
    parts: list[tuple[TablePlan, Rows]] = []
    left = list(rows)
    while left:
        size = sizes[len(parts) % len(sizes)]
        parts.append((plan, left[:size]))
        left = left[size:]
    with tempfile.TemporaryDirectory() as directory:
        before, result = merged(
            Path(directory),
            parts,
            plan,
            partition_rows=data.draw(st.sampled_from([1, 3, 1_000]), "partition rows"),
        )
        got = read(result.chunks)
        assert got == last_of_each(rows, *kinds)
        assert result.superseded_rows == len(rows) - len(got)
        assert sum(chunk.rows for chunk in result.chunks) == len(got)
        kept = {chunk.path for chunk in result.chunks}
        for chunk in before:  # rewritten chunks are gone, all others are as they were
            assert chunk.path.exists() == (chunk.path in kept)


@given(st.lists(st.sampled_from(border), max_size=40), st.integers(1, 7))
@example(border * 2, 1)
@settings(max_examples=20, deadline=None)
def test_extreme_whole_numbers_over_many_partitions(keys: list[int], partition_rows: int) -> None:
    plan = plan_of({"a": Kind.INTEGER, "n": Kind.INTEGER}, "a")
    rows = [{"a": key, "n": n} for n, key in enumerate(keys)]
    with tempfile.TemporaryDirectory() as directory:
        _, result = merged(Path(directory), [(plan, rows)], plan, partition_rows=partition_rows)
        assert read(result.chunks) == last_of_each(rows, "a")


def test_more_partitions_than_files_may_be_open_do_no_harm(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER, "n": Kind.INTEGER}, "a")
    rows = [{"a": n % 700 - 350, "n": n} for n in range(3_000)]
    _, result = merged(tmp_path, [(plan, rows)], plan, partition_rows=1)
    assert read(result.chunks) == last_of_each(rows, "a")
    assert result.superseded_rows == 2_300


def test_chunks_without_a_repeated_key_are_not_touched(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER, "t": Kind.TEXT}, "a")
    parts = [
        (plan, [{"a": n, "t": "first"} for n in range(10)]),
        (plan, [{"a": n, "t": "second"} for n in range(5, 15)]),
        (plan, [{"a": n, "t": "third"} for n in range(20, 30)]),
    ]
    contents = {}
    chunks: list[Chunk] = []
    for number, (_, rows) in enumerate(parts):
        place = tmp_path / f"part-{number}"
        place.mkdir()
        chunks += write(place, plan, [rows])
    contents = {chunk.path: chunk.path.read_bytes() for chunk in chunks}
    work = tmp_path / "merged"
    work.mkdir()
    result = merge(
        chunks, plan, work, keyed=True, chunk_limit_bytes=10**6, timestamp_encoding="int96"
    )
    assert result.chunks[1:] == tuple(chunks[1:])
    for chunk in result.chunks[1:]:
        assert chunk.path.read_bytes() == contents[chunk.path]
    assert not chunks[0].path.exists()
    assert result.superseded_rows == 5
    assert [row["a"] for row in read(result.chunks[:1])] == [0, 1, 2, 3, 4]


def test_without_keys_every_row_stays(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER})
    before, result = merged(tmp_path, [(plan, [{"a": 1}] * 5)] * 2, plan, keyed=False)
    assert result == Merged(before, 0)
    assert len(read(result.chunks)) == 10


def test_a_chunk_that_is_wholly_superseded_goes(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER, "n": Kind.INTEGER}, "a")
    parts = [(plan, [{"a": key, "n": part} for key in range(4)]) for part in range(3)]
    _, result = merged(tmp_path, parts, plan)
    assert [(row["a"], row["n"]) for row in read(result.chunks)] == [(key, 2) for key in range(4)]
    assert len(result.chunks) == 1
    assert result.superseded_rows == 8


def test_no_chunks_stay_no_chunks(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER}, "a")
    assert merged(tmp_path, [], plan)[1] == Merged((), 0)


def test_rewritten_chunks_keep_the_limit_and_are_measured_anew(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER, "t": Kind.TEXT}, "a")
    rows = [{"a": n, "t": "é" * 50} for n in range(300)]
    parts = [(plan, [{"a": 0, "t": "x" * 900}, *rows]), (plan, [{"a": 5, "t": "y"}])]
    _, result = merged(tmp_path, parts, plan)
    assert read(result.chunks) == last_of_each([*parts[0][1], *parts[1][1]], "a")
    assert max(chunk.longest["t"] for chunk in result.chunks) == 50
    assert all(chunk.size_bytes == chunk.path.stat().st_size for chunk in result.chunks)


# --- one schema

MOMENT = dt.datetime(2024, 5, 31, 12, 34, 56, 789012, tzinfo=dt.UTC)


def test_a_new_column_is_null_in_old_rows(tmp_path: Path) -> None:
    old = plan_of({"a": Kind.INTEGER})
    new = plan_of({kind.name: kind for kind in Kind} | {"a": Kind.INTEGER})
    names = new.arrow_schema.names
    _, result = merged(tmp_path, [(old, [{"a": 1}]), (new, [{"a": 2}])], new, keyed=False)
    assert read(result.chunks) == [dict.fromkeys(names) | {"a": number} for number in (1, 2)]
    assert all(chunk.plan == new for chunk in result.chunks)


@pytest.mark.parametrize(
    ("kind", "wider", "value", "becomes"),
    [
        (Kind.INTEGER, Kind.FLOAT, 7, 7.0),
        (Kind.INTEGER, Kind.FLOAT, 2**53 + 1, float(2**53)),
        (Kind.INTEGER, Kind.FLOAT, -(2**63), -float(2**63)),
        (Kind.INTEGER, Kind.TEXT, -(2**63), "-9223372036854775808"),
        (Kind.BOOLEAN, Kind.TEXT, True, "true"),
        (Kind.BOOLEAN, Kind.TEXT, False, "false"),
        (Kind.FLOAT, Kind.TEXT, 0.1, "0.1"),
        (Kind.FLOAT, Kind.TEXT, -1.5e300, "-1.5e+300"),
        (Kind.DATE, Kind.TEXT, dt.date(2024, 5, 31), "2024-05-31"),
        (Kind.DATE, Kind.TEXT, dt.date(1, 1, 1), "0001-01-01"),
        (Kind.JSON, Kind.TEXT, '{"a":1}', '{"a":1}'),
        (Kind.DATETIME, Kind.TEXT, MOMENT, "2024-05-31T12:34:56.789012Z"),
        (
            Kind.DATETIME,
            Kind.TEXT,
            dt.datetime(1, 1, 1, tzinfo=dt.UTC),
            "0001-01-01T00:00:00.000000Z",
        ),
        *((kind, Kind.TEXT, None, None) for kind in Kind),
    ],
)
def test_old_rows_take_the_wider_type(
    tmp_path: Path, kind: Kind, wider: Kind, value: Any, becomes: Any
) -> None:
    old, new = plan_of({"c": kind}), plan_of({"c": wider})
    _, result = merged(tmp_path, [(old, [{"c": value}])], new, keyed=False)
    assert [repr(row["c"]) for row in read(result.chunks)] == [repr(becomes)]


def test_a_key_whose_type_widens_is_still_one_key(tmp_path: Path) -> None:
    old = plan_of({"a": Kind.INTEGER, "n": Kind.INTEGER}, "a")
    new = plan_of({"a": Kind.TEXT, "n": Kind.INTEGER, "x": Kind.TEXT}, "a")
    parts = [
        (old, [{"a": 1, "n": 0}, {"a": 2, "n": 1}]),
        (new, [{"a": "1", "n": 2, "x": "x"}, {"a": "01", "n": 3, "x": None}]),
    ]
    for rows in (1, 1_000):
        directory = tmp_path / str(rows)
        directory.mkdir()
        _, result = merged(directory, parts, new, partition_rows=rows)
        assert read(result.chunks) == [
            {"a": "2", "n": 1, "x": None},
            {"a": "1", "n": 2, "x": "x"},
            {"a": "01", "n": 3, "x": None},
        ]


@pytest.mark.parametrize("kind", list(Kind))
def test_rows_from_before_the_key_was_there_are_not_one_another(tmp_path: Path, kind: Kind) -> None:
    old = plan_of({"n": Kind.INTEGER}, "n")
    new = plan_of({"n": Kind.INTEGER, "k": kind}, "k")
    rows = [{"n": n} for n in range(5)]
    _, result = merged(tmp_path, [(old, rows)], new)
    assert [row["n"] for row in read(result.chunks)] == [0, 1, 2, 3, 4]


# --- chunks that were written side by side


@given(
    blocks=st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(0, 6), min_size=1, max_size=6)),
        max_size=14,
    ),
    limit=st.sampled_from([500, 1_000_000]),
    partition_rows=st.sampled_from([1, 7, 1_000]),
    turned=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_rows_dealt_over_several_writers_merge_as_those_of_one(
    blocks: list[tuple[int, list[int]]], limit: int, partition_rows: int, turned: bool
) -> None:
    by_a, by_b = (plan_of(dict.fromkeys("abn", Kind.INTEGER), key) for key in "ab")
    rows: Rows = []
    with tempfile.TemporaryDirectory() as directory:
        writers = []
        for number in range(3):
            place = Path(directory) / f"writer-{number}"
            place.mkdir()
            writers.append(ChunkWriter(place, by_a, limit, "int96"))
        for order, (number, keys) in enumerate(blocks, 1):
            block = [{"a": key, "b": key % 3, "n": len(rows) + n} for n, key in enumerate(keys)]
            rows += block
            writers[number].add(batch_of(by_a, block), ((order, len(block)),))
        ordered = reversed(writers) if turned else writers
        chunks = [chunk for writer in ordered for chunk in writer.finish()]
        left = rows
        for key, plan in (("a", by_a), ("b", by_b)):  # what is left is merged again
            place = Path(directory) / f"by-{key}"
            place.mkdir()
            result = merge(
                chunks,
                plan,
                place,
                keyed=True,
                chunk_limit_bytes=limit,
                timestamp_encoding="int96",
                partition_rows=partition_rows,
            )
            before, left = len(left), last_of_each(left, key)
            chunks = list(result.chunks)
            assert sorted(read(chunks), key=lambda row: row["n"]) == left
            assert result.superseded_rows == before - len(left)
            for chunk in chunks:
                assert sum(count for _, count in chunk.spans) == chunk.rows


def test_a_thousand_rows_one_by_one_from_two_writers(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER, "n": Kind.INTEGER}, "a")
    writers = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        writers.append(ChunkWriter(tmp_path / str(number), plan, 1_000_000, "int96"))
    rows = [{"a": n * 7 % 300, "n": n} for n in range(1_000)]
    for row in rows:
        writers[row["n"] * 5 % 3 % 2].add(batch_of(plan, [row]), ((row["n"], 1),))
    chunks = [*writers[1].finish(), *writers[0].finish()]
    (tmp_path / "merged").mkdir()
    result = merge(
        chunks,
        plan,
        tmp_path / "merged",
        keyed=True,
        chunk_limit_bytes=1_000_000,
        timestamp_encoding="int96",
        partition_rows=100,
    )
    assert sorted(read(result.chunks), key=lambda row: row["n"]) == last_of_each(rows, "a")
