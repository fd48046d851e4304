"""Chunks on disk: whole, measured, within the limit, and read back as they were."""

from __future__ import annotations

import datetime as dt
import random
import stat
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from target_celonis.errors import LimitError
from target_celonis.kinds import Kind
from target_celonis.spool import Chunk, ChunkWriter, _repeats, read_row_groups

from .chunks import batch_of, plan_of, read, write

if TYPE_CHECKING:
    from pathlib import Path

ALL_KINDS = plan_of({kind.name.lower(): kind for kind in Kind})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def utc(year: int, *rest: int) -> dt.datetime:
    return dt.datetime(year, *(rest or (1, 1)), tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


MOMENTS = [
    utc(1),
    utc(1, 12, 31, 23, 59, 59, 999000),
    utc(1400),
    utc(1582, 10, 4, 12),
    utc(1677, 9, 21, 0, 12, 43, 145000),
    utc(1969, 12, 31, 23, 59, 59, 999000),
    utc(1970),
    utc(2024, 2, 29, 12, 34, 56, 789000),
    utc(2262, 4, 11, 23, 47, 16, 855000),
    utc(9999, 12, 31, 23, 59, 59, 999000),
    None,
]


# --- what comes back


@pytest.mark.parametrize("encoding", ["int96", "millis"])
def test_date_times_of_any_year_come_back(tmp_path: Path, encoding: str) -> None:
    plan = plan_of({"at": Kind.DATETIME})
    chunks = write(tmp_path, plan, [[{"at": moment} for moment in MOMENTS]], encoding=encoding)
    assert [row["at"] for row in read(chunks)] == MOMENTS


@pytest.mark.parametrize("encoding", ["int96", "millis"])
def test_another_reader_sees_the_same_date_times(tmp_path: Path, encoding: str) -> None:
    plan = plan_of({"n": Kind.INTEGER, "moment": Kind.DATETIME})
    rows = [{"n": n, "moment": moment} for n, moment in enumerate(MOMENTS)]
    (chunk,) = write(tmp_path, plan, [rows], encoding=encoding)
    with duckdb.connect() as database:
        database.execute("set TimeZone = 'UTC'")
        file = database.read_parquet(str(chunk.path))
        seen = file.order("n").project("epoch_ms(moment)").fetchall()
    epoch = utc(1970)
    expected = [m and (m - epoch) // dt.timedelta(milliseconds=1) for m in MOMENTS]
    assert [milliseconds for (milliseconds,) in seen] == expected


def test_microseconds_survive_int96_and_are_cut_by_millis(tmp_path: Path) -> None:
    plan = plan_of({"at": Kind.DATETIME})
    rows = [{"at": utc(2024, 1, 1, 0, 0, 0, 123456)}]
    for encoding, microseconds in (("int96", 123456), ("millis", 123000)):
        directory = tmp_path / encoding
        directory.mkdir()
        (row,) = read(write(directory, plan, [rows], encoding=encoding))
        assert row["at"].microsecond == microseconds


@pytest.mark.parametrize(("encoding", "physical"), [("int96", "INT96"), ("millis", "INT64")])
def test_the_encoding_is_the_one_asked_for(tmp_path: Path, encoding: str, physical: str) -> None:
    (chunk,) = write(
        tmp_path, plan_of({"at": Kind.DATETIME}), [[{"at": utc(2024)}]], 10**6, encoding
    )
    with pq.ParquetFile(chunk.path) as file:
        column = file.schema.column(0)
        assert column.physical_type == physical
        assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
        if encoding == "millis":
            assert "isAdjustedToUTC=true" in str(column.logical_type)
            assert "milliseconds" in str(column.logical_type)


def test_values_of_every_kind_come_back(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "integer": -(2**63),
            "float": 0.1,
            "boolean": False,
            "text": "é😀\0",
            "datetime": utc(2024),
            "date": dt.date(9999, 12, 31),
            "json": '{"b":1,"a":2}',
        },
        dict.fromkeys(ALL_KINDS.arrow_schema.names),
        {
            "integer": 2**63 - 1,
            "float": -0.0,
            "boolean": True,
            "text": "",
            "datetime": utc(1),
            "date": dt.date(1, 1, 1),
            "json": "[]",
        },
    ]
    assert list(map(repr, read(write(tmp_path, ALL_KINDS, [rows])))) == list(
        map(repr, [{k: _in_zone(v) for k, v in row.items()} for row in rows])
    )


def _in_zone(value: Any) -> Any:
    """Give a moment the zone object that Arrow gives it."""
    if not isinstance(value, dt.datetime):
        return value
    return pa.scalar(value, pa.timestamp("us", "UTC")).as_py()


def test_only_the_columns_asked_for_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    plan = plan_of({"a": Kind.INTEGER, "b": Kind.TEXT, "c": Kind.DATETIME})
    (chunk,) = write(tmp_path, plan, [[{"a": 1, "b": "x", "c": utc(2024)}]])
    (table,) = read_row_groups(chunk, ["c", "a"])
    assert table.schema.names == ["c", "a"]
    assert table.schema.field("c").type == pa.timestamp("us", "UTC")


# --- chunks


@pytest.mark.parametrize("limit", [1_000, 20_000, 300_000, 1_000_000])
def test_rows_are_spread_over_chunks_in_order(tmp_path: Path, limit: int) -> None:
    plan = plan_of({"n": Kind.INTEGER, "t": Kind.TEXT})
    source = random.Random()  # noqa: S311  # no secrets
    rows = [
        {"n": n, "t": source.randbytes(20).hex()} for n in range(600 if limit < 10**5 else 30_000)
    ]
    batches = [rows[start : start + 100] for start in range(0, len(rows), 100)]
    writer = ChunkWriter(tmp_path, plan, limit, "int96")
    for batch in batches:
        writer.add(batch_of(plan, batch))
    assert writer.rows == len(rows)
    chunks = writer.finish()
    assert len(chunks) > 1
    assert read(chunks) == rows
    assert sum(chunk.rows for chunk in chunks) == len(rows)
    assert sorted(tmp_path.iterdir()) == [chunk.path for chunk in chunks]
    for chunk in chunks:
        assert chunk.path.suffix == ".parquet"
        assert chunk.size_bytes == chunk.path.stat().st_size
        assert chunk.plan == plan
        if limit >= 20_000:
            assert chunk.size_bytes <= limit


INCOMPRESSIBLE: dict[str, Any] = {
    "date-times": (
        Kind.DATETIME,
        lambda r: utc(1) + dt.timedelta(microseconds=r.randrange(3 * 10**17)),
    ),
    "whole numbers": (Kind.INTEGER, lambda r: r.randrange(-(2**63), 2**63)),
    "doubles": (Kind.FLOAT, lambda r: r.random()),
    "short texts": (Kind.TEXT, lambda r: f"{r.randrange(16**3):03x}"),
    "texts": (Kind.TEXT, lambda r: r.randbytes(30).hex()),
    "dates": (Kind.DATE, lambda r: dt.date.fromordinal(r.randrange(1, 3_652_059))),
    "booleans": (Kind.BOOLEAN, lambda r: r.random() < 0.5),
}


@pytest.mark.parametrize("values", INCOMPRESSIBLE)
@pytest.mark.parametrize("columns", [1, 3])
def test_no_chunk_is_larger_than_the_limit(tmp_path: Path, values: str, columns: int) -> None:
    kind, draw = INCOMPRESSIBLE[values]
    limit = 300_000
    plan = plan_of({f"c{number}": kind for number in range(columns)})
    source = random.Random()  # noqa: S311  # no secrets
    made = [
        pa.array([draw(source) for _ in range(60_000)], plan.columns[0].arrow_type)
        for _ in range(columns)
    ]
    for step in (1_000, 777, 5_000):
        directory = tmp_path / str(step)
        directory.mkdir()
        writer = ChunkWriter(directory, plan, limit, "int96")
        for start in range(0, 60_000, step):
            arrays = [array.slice(start, step) for array in made]
            writer.add(pa.RecordBatch.from_arrays(arrays, schema=plan.arrow_schema))
        assert max(chunk.size_bytes for chunk in writer.finish()) <= limit


def test_one_big_batch_is_cut_into_chunks(tmp_path: Path) -> None:
    plan = plan_of({"t": Kind.TEXT})
    source = random.Random()  # noqa: S311  # no secrets
    rows = [{"t": source.randbytes(5_000).hex()} for _ in range(500)]
    chunks = write(tmp_path, plan, [rows], limit=1_000_000)
    assert len(chunks) >= 5
    assert max(chunk.size_bytes for chunk in chunks) <= 1_000_000
    assert read(chunks) == rows


def test_all_chunks_have_one_schema_also_where_a_column_is_null(tmp_path: Path) -> None:
    names = ALL_KINDS.arrow_schema.names
    source = random.Random()  # noqa: S311  # no secrets
    empty = dict.fromkeys(names)
    full = {"json": "[]", "integer": 1, "float": 1.5, "boolean": True, "datetime": utc(2024)}
    batches = [
        [empty | {"text": source.randbytes(500).hex()} for _ in range(50)],
        [empty | full | {"date": dt.date(2024, 1, 1), "text": source.randbytes(500).hex()}] * 50,
        [empty] * 50,
    ]
    chunks = write(tmp_path, ALL_KINDS, batches, limit=30_000)
    assert len(chunks) > 1
    schemas = {str(pq.read_schema(chunk.path)) for chunk in chunks}
    assert len(schemas) == 1
    for chunk in chunks:
        for table in read_row_groups(chunk):
            assert table.schema.equals(ALL_KINDS.arrow_schema)


def test_no_rows_make_no_chunk(tmp_path: Path) -> None:
    assert write(tmp_path, ALL_KINDS, []) == ()
    assert write(tmp_path, ALL_KINDS, [[], []]) == ()
    assert list(tmp_path.iterdir()) == []


def test_held_bytes_are_bounded_and_gone_after_a_flush(tmp_path: Path) -> None:
    plan = plan_of({"t": Kind.TEXT})
    writer = ChunkWriter(tmp_path, plan, 800_000, "int96")
    for _ in range(50):
        writer.add(batch_of(plan, [{"t": "x" * 9_000}]))
        assert writer.held_bytes < 100_000
    writer.flush()
    assert writer.held_bytes == 0
    assert sum(chunk.rows for chunk in writer.finish()) == 50


@pytest.mark.parametrize(
    ("values", "longest"),
    [
        (["", None], {"t": 0}),
        (["abc", "a"], {"t": 3}),
        (["ééé", "abcd"], {"t": 4}),
        (["😀" * 7], {"t": 7}),
        (["名前" * 500, "x" * 900], {"t": 1000}),
        (["e\u0301"], {"t": 2}),
        ([None, None], {"t": 0}),
    ],
)
def test_the_longest_text_is_counted_in_characters(
    tmp_path: Path, values: list[str | None], longest: dict[str, int]
) -> None:
    plan = plan_of({"n": Kind.INTEGER, "t": Kind.TEXT})
    (chunk,) = write(tmp_path, plan, [[{"n": 1, "t": value}] for value in values])
    assert set(chunk.longest) <= {"t"}
    assert chunk.longest.get("t", 0) == longest["t"]


def test_each_chunk_has_its_own_longest_text(tmp_path: Path) -> None:
    plan = plan_of({"t": Kind.TEXT, "j": Kind.JSON})
    source = random.Random()  # noqa: S311  # no secrets
    batches = [[{"t": source.randbytes(n).hex(), "j": "[]"}] for n in (2_000, 3_000, 1_000, 4_000)]
    chunks = write(tmp_path, plan, batches, limit=8_000)
    assert len(chunks) > 1
    for chunk in chunks:
        rows = read([chunk])
        assert chunk.longest == {"t": max(len(row["t"]) for row in rows), "j": 2}


# --- which rows came when


def test_each_chunk_knows_the_spans_of_its_own_rows(tmp_path: Path) -> None:
    plan = plan_of({"n": Kind.INTEGER, "t": Kind.TEXT})
    source = random.Random()  # noqa: S311  # no secrets
    writer = ChunkWriter(tmp_path, plan, 30_000, "int96")
    orders = []
    for block in range(40):
        rows = [{"n": block // 2, "t": source.randbytes(40).hex()} for _ in range(block % 9 + 20)]
        writer.add(batch_of(plan, rows), ((block // 2, len(rows)),))
        orders += [block // 2] * len(rows)
    chunks = writer.finish()
    assert len(chunks) > 2
    for chunk in chunks:
        said = [order for order, rows in chunk.spans for _ in range(rows)]
        assert said == [row["n"] for row in read([chunk])] == orders[: chunk.rows]
        assert len(chunk.spans) == len(set(said))
        del orders[: chunk.rows]


def test_without_orders_all_rows_are_of_one(tmp_path: Path) -> None:
    plan = plan_of({"n": Kind.INTEGER})
    (chunk,) = write(tmp_path, plan, [[{"n": 1}], [{"n": 2}, {"n": 3}]])
    assert chunk.spans == ((0, 3),)


def test_rows_that_come_one_by_one_are_held_together(tmp_path: Path) -> None:
    plan = plan_of({"n": Kind.INTEGER, "t": Kind.TEXT})
    rows = [{"n": n, "t": None if n % 3 else f"{n}"} for n in range(2_500)]
    writer = ChunkWriter(tmp_path, plan, 1_000_000, "int96")
    for row in rows:
        writer.add(batch_of(plan, [row]))
        assert len(writer._batches) <= 1_002
    assert read(writer.finish()) == rows


# --- dictionaries


@pytest.mark.parametrize(
    ("values", "pays"),
    [
        (["a", "b"] * 50, True),
        (pa.nulls(10, pa.string()), True),
        ([f"{n}" for n in range(100)], False),
        ([f"{min(n, 90)}" for n in range(100)], False),
        ([f"{n // 3}" for n in range(99)], True),
        ([f"{n:0100000}" for n in range(5)] * 3, True),
        ([f"{n:0100000}" for n in range(15)] * 3, False),  # a dictionary of 1.5 MB
        ([1.5, 2.5] * 10, True),
        ([True, False] * 10, False),  # a bit each
        (pa.array([], pa.int64()), False),
    ],
)
def test_a_dictionary_is_made_where_values_repeat(values: Any, pays: bool) -> None:
    assert _repeats(pa.chunked_array([pa.array(values)])) is pays


def test_only_columns_that_repeat_get_a_dictionary(tmp_path: Path) -> None:
    plan = plan_of({"n": Kind.INTEGER, "t": Kind.TEXT, "b": Kind.BOOLEAN})
    rows = [{"n": n, "t": "same", "b": True} for n in range(100)]
    (chunk,) = write(tmp_path, plan, [rows])
    with pq.ParquetFile(chunk.path) as file:
        columns = [file.metadata.row_group(0).column(place) for place in range(3)]
    assert [column.has_dictionary_page for column in columns] == [False, True, False]
    assert read([chunk]) == rows


# --- the disk


def test_a_disk_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    plan = plan_of({"n": Kind.INTEGER})
    writer = ChunkWriter(tmp_path / "gone", plan, 1_000_000, "int96")
    writer.add(batch_of(plan, [{"n": 1}]))
    with pytest.raises(LimitError, match="TC-LIMIT-02"):
        writer.finish()


class Account:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.written_bytes = 0
        self.chunks: list[Chunk] = []

    def wrote(self, size_bytes: int) -> None:
        self.written_bytes += size_bytes

    def closed(self, chunk: Chunk) -> None:
        assert chunk.path.exists()
        self.chunks.append(chunk)


def test_what_is_written_is_told(tmp_path: Path) -> None:
    plan = plan_of({"t": Kind.TEXT})
    source = random.Random()  # noqa: S311  # no secrets
    account = Account()
    writer = ChunkWriter(tmp_path, plan, 100_000, "int96", account)
    for _ in range(60):
        writer.add(batch_of(plan, [{"t": source.randbytes(3_000).hex()}]))
        assert account.written_bytes <= sum(p.stat().st_size for p in tmp_path.iterdir())
    chunks = writer.finish()
    assert len(chunks) > 1
    assert tuple(account.chunks) == chunks
    size = sum(chunk.size_bytes for chunk in chunks)
    assert 0.9 * size < account.written_bytes <= size  # all but the footers
    assert {mode(chunk.path) for chunk in chunks} == {0o600}
