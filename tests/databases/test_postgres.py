"""A real tap reads a real PostgreSQL: what the tap printed is what stands in the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .loading import Loading, differences

if TYPE_CHECKING:
    from .oracle import Printed, Value
    from .postgres import Source

IN_POSTGRES = """
    SELECT id, customer, amount::float8 AS amount, status, note,
           (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,
           (extract(epoch FROM updated_at) * 1000000)::bigint AS updated_at
    FROM {schema}.orders ORDER BY id
"""
IN_DUCKDB = """
    SELECT id, customer, amount, status, note, epoch_us(created_at), epoch_us(updated_at)
    FROM local."{stream}" {where} ORDER BY id
"""
CHANGE = """
    UPDATE {schema}.orders SET status = 'changed', amount = NULL,
        updated_at = timestamptz '2025-01-01 00:00+00' + id * interval '1 second'
    WHERE id % 10 = 0;
    INSERT INTO {schema}.orders (id, status, updated_at)
    SELECT i, 'new', timestamptz '2025-02-01 00:00+00' FROM generate_series(501, 520) AS i;
"""
DELETE = """
    UPDATE {schema}.orders SET note = 'twice' WHERE id <= 3;
    UPDATE {schema}.orders SET note = 'last' WHERE id <= 2;
    DELETE FROM {schema}.orders WHERE id IN (1, 100, 510);
    ALTER TABLE {schema}.orders REPLICA IDENTITY FULL;
    DELETE FROM {schema}.orders WHERE id = 4;
"""
LONG = """
    INSERT INTO {schema}.orders (id, note)
    SELECT 600, string_agg(md5(i::text), '') FROM generate_series(1, 200) AS i;
"""
TOUCH = "UPDATE {schema}.orders SET status = 'paid' WHERE id = 600;"


def check(loading: Loading, printed: Printed, rows: dict[Value, tuple[Value, ...]]) -> None:
    """Compare a table with the rows that it must hold, by their keys."""
    expected = [rows[key] for key in sorted(rows)]  # type: ignore[type-var]
    assert differences(printed, expected, loading.rows(printed, order="id")) == []


def test_every_type_with_odd_values(source: Source, loading: Loading) -> None:
    source.run_file("wide.sql", rows=300)
    source.run_file("odd.sql")
    source.tap.choose("FULL_TABLE")
    loaded = loading.load(source.tap)
    printed = loaded.printed(source.stream("wide"))
    rows = printed.rows_by_key()
    assert len(printed.columns) == 38
    assert [[len(rows)]] == source.json("SELECT count(*) FROM {schema}.wide")
    assert printed.keys == ["id"]
    assert loading.types(printed.stream) == printed.types(rows.values())
    check(loading, printed, rows)
    assert loaded.ended.states == printed.states[-1:]


def test_incremental(source: Source, loading: Loading) -> None:
    """The second run, with the state that the first one gave back, loads only what changed."""
    source.run_file("orders.sql", rows=500)
    source.tap.choose("INCREMENTAL", "updated_at")

    def compare() -> None:
        found = loading.query(IN_DUCKDB.format(stream=source.stream("orders"), where=""))
        assert [list(row) for row in found] == source.json(IN_POSTGRES)

    first = loading.load(source.tap)
    assert len(list(first.printed(source.stream("orders")).rows())) == 500
    compare()

    source.sql(CHANGE)
    second = loading.load(source.tap, first.state)
    ids = {row[0] for row in second.printed(source.stream("orders")).rows()}
    assert ids == {*range(10, 501, 10), *range(501, 521)}
    compare()


@pytest.mark.usefixtures("replication")
def test_log_based(source: Source, loading: Loading) -> None:
    """Inserts, updates and deletes; a row that was deleted stays and says so.

    Of a deleted row the tap knows the key only, or all if the table's replica identity is full:
    the other columns are null then, or what they were. A long value that an update did not
    change is not in PostgreSQL's log, so the tap's record lacks it, and it becomes null.
    """
    source.run_file("wide.sql", rows=100)
    source.run_file("odd.sql")
    source.run_file("orders.sql", rows=500)
    source.sql(LONG)
    # Without this replication key the tap reads the log anew in every run.
    source.tap.choose("LOG_BASED", "_sdc_lsn")
    table = f'local."{source.stream("orders")}"'
    length = f"SELECT length(note) FROM {table} WHERE id = 600"

    first = loading.load(source.tap)
    for stream, count in ((source.stream("wide"), 200), (source.stream("orders"), 501)):
        printed = first.printed(stream)
        rows = printed.rows_by_key()
        assert len(rows) >= count
        assert loading.types(stream) == printed.types(rows.values())
        check(loading, printed, rows)
    assert loading.query(length) == [(6400,)]

    source.sql(CHANGE + DELETE + TOUCH)
    second = loading.load(source.tap, first.state)
    printed = second.printed(source.stream("orders"))
    changed = printed.rows_by_key()
    assert set(changed) == {1, 2, 3, 4, *range(10, 501, 10), *range(501, 521), 600}
    assert list(second.printed(source.stream("wide")).rows()) == []
    rows |= changed
    check(loading, printed, rows)

    where = "WHERE _sdc_deleted_at IS NULL AND id < 600"
    alive = loading.query(IN_DUCKDB.format(stream=source.stream("orders"), where=where))
    there = source.json(IN_POSTGRES)
    assert [list(row) for row in alive] == there[:-1]
    deleted = loading.query(
        f"SELECT id, customer, amount, status, note, created_at IS NULL FROM {table} "
        "WHERE _sdc_deleted_at IS NOT NULL ORDER BY id"
    )
    assert deleted == [
        (1, None, None, None, None, True),
        (4, "customer 4", 0.04, "open", "a87ff679a2f3e71d9181a67b7542122c", False),
        (100, None, None, None, None, True),
        (510, None, None, None, None, True),
    ]
    assert loading.query(length) == [(None,)]
    assert "The record lacks the property; the column is null." in second.ended.err


@pytest.mark.slow
def test_local_mean_time(source: Source, loading: Loading) -> None:
    """Of times before zones had whole hours the tap prints offsets with seconds."""
    source.run_file("orders.sql")
    source.sql("INSERT INTO {schema}.orders (id, updated_at) VALUES (1, '1890-01-01 00:00+00')")
    source.tap.choose("FULL_TABLE")
    printed = loading.load(source.tap).printed(source.stream("orders"))
    check(loading, printed, printed.rows_by_key())
