"""Real taps on a real PostgreSQL that end too early, and values that only one of their ways has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import columns
from .loading import Loading, differences
from .taps import PipelineWiseTap

if TYPE_CHECKING:
    from pathlib import Path

    from .postgres import Cluster, Source
    from .taps import Tap

ORDERS = 2500
# Each UPDATE is a transaction of its own, so that a tap can go on between them.
SEVERAL_TRANSACTIONS = "".join(
    f"UPDATE {{schema}}.orders SET status = 'paid' WHERE id BETWEEN {first} AND {first + 499};"
    for first in range(1, ORDERS, 500)
)
# A text that is stored out of line
LONG = """
    INSERT INTO {schema}.orders (id, note)
    SELECT 600, string_agg(md5(i::text), '') FROM generate_series(1, 200) AS i;
"""
CHANGE = """
    UPDATE {schema}.orders SET status = 'paid' WHERE id <= 40 OR id = 600;
    INSERT INTO {schema}.orders (id) VALUES (9000);
    DELETE FROM {schema}.orders WHERE id IN (41, 42);
"""


def there(source: Source) -> columns.Rows:
    """Return the orders of a source."""
    return {row[0]: row for row in source.json(columns.select_source("either", "orders"))}


def found(source: Source, loading: Loading) -> columns.Rows:
    """Return the orders that were loaded, deleted ones too."""
    select = columns.select_celonis("either", "orders", source.stream("orders"))
    return columns.rows("either", "orders", loading.tables.query(select))


def test_a_log_that_was_read_in_part_is_read_again(
    source: Source, either_tap: Tap, loading: Loading
) -> None:
    """And a long text that an update did not change is not in it, so that it becomes null."""
    source.run_file("orders.sql", rows=45)
    source.sql(LONG)
    with either_tap.replication():
        either_tap.choose("LOG_BASED", "_sdc_lsn")
        first = loading.load(either_tap)
        assert found(source, loading) == there(source)

        source.sql(CHANGE)
        cut = loading.load(either_tap, first.state, cut=12)
        assert 0 < len(list(cut.printed(source.stream("orders")).rows())) < 40
        last = loading.load(either_tap, cut.state or first.state, hard_delete=True)
    expected = there(source)
    assert len(expected[600][4]) == 6400
    expected[600][4] = None
    assert found(source, loading) == expected
    assert "The record lacks the property; the column is null. Columns: note (1)" in last.ended.err


def test_a_table_that_was_sent_in_part_is_sent_again(
    postgres: Cluster, source: Source, loading: Loading, tmp_path: Path
) -> None:
    """The tap would go on in the middle and then say that the table is whole, or not go on at all.

    Its first state says that the table was read, and its later ones where to go on.
    """
    tap = PipelineWiseTap(postgres, tmp_path, source.schema)
    source.run_file("orders.sql", rows=ORDERS)
    source.sql(SEVERAL_TRANSACTIONS)
    state = None
    with tap.replication():
        tap.choose("LOG_BASED")
        for cut in (1700, 600, None):
            loaded = loading.load(tap, state, cut=cut, code=4 if cut else 0)
            state = loaded.state or state
        assert found(source, loading) == there(source)
        source.sql(CHANGE)
        loading.load(tap, state, hard_delete=True)
    assert found(source, loading) == there(source)


@pytest.mark.slow
def test_local_mean_time(source: Source, tap: Tap, loading: Loading) -> None:
    """Of times before zones had whole hours the tap prints offsets with seconds."""
    source.run_file("orders.sql", rows=0)
    source.sql("INSERT INTO {schema}.orders (id, updated_at) VALUES (1, '1890-01-01 00:00+00')")
    tap.choose("FULL_TABLE")
    printed = loading.load(tap).printed(source.stream("orders"))
    rows = printed.rows_by_key()
    assert differences(printed, rows.values(), loading.tables.rows(printed, order="id")) == []
    assert len(rows) == 1
