"""Two real taps read a real PostgreSQL by each replication method, over four runs.

Tables are compared with the lines that the tap printed, and with the source itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .loading import DIFFERENCES_SHOWN, differences
from .story import CHANGES, GONE, METHODS, ORDERS, RENAMED, RUNS, TABLES, Story

if TYPE_CHECKING:
    from collections.abc import Callable

    from .columns import Rows
    from .loading import Loading, Tables
    from .oracle import Printed, Value

each_method = pytest.mark.parametrize("method", METHODS)
each_table = pytest.mark.parametrize("table", TABLES)
CUT = "A record of a deleted row lacks properties, which become null in the table"


class Expected:
    """What must stand in a table, found from the tap's lines.

    Args:
        exact: Whether rows that were deleted go.
        replaced: Whether every run replaces the table.
    """

    def __init__(self, *, exact: bool = False, replaced: bool = False) -> None:
        self._exact = exact
        self._replaced = replaced
        self._rows: dict[Value, dict[str, Value]] = {}

    def add(self, printed: Printed) -> list[tuple[Value, ...]]:
        """Return the rows after one more run, by their keys, the columns as in its SCHEMA."""
        (key,) = printed.keys
        if printed.is_whole or self._replaced:
            self._rows = {}
        for values in printed.rows():
            row = dict(zip(printed.columns, values, strict=True))
            if self._exact and row.get("_sdc_deleted_at") is not None:
                self._rows.pop(row[key], None)
            else:
                self._rows[row[key]] = row
        ordered = sorted(self._rows)  # type: ignore[type-var]
        return [tuple(self._rows[at].get(name) for name in printed.columns) for at in ordered]


def unlike(found: Rows, there: Rows) -> list[str]:
    """Return in what a table differs from its source, rows that only it has aside."""
    told = [f"{key} is missing" for key in there.keys() - found.keys()]
    told += [
        f"{key}: {value!r} instead of {want!r}"
        for key in there.keys() & found.keys()
        for value, want in zip(found[key], there[key], strict=True)
        if value != want
    ]
    return told[:DIFFERENCES_SHOWN]


@each_method
@each_table
def test_what_the_tap_printed_stands_in_the_table(story: Story, method: str, table: str) -> None:
    """Every value of all 38 types, odd ones too, after each run, with deleted rows and without."""
    stream = story.stream(method, table)
    soft, exact = Expected(), Expected(exact=True, replaced=method == "full")
    for number, run in enumerate(story.runs):
        printed = run.loaded.printed(stream)
        rows = soft.add(printed)
        assert len(rows) >= len(run.there[stream])
        assert differences(printed, rows, run.tables.rows(printed, "id")) == [], number
        if number == 0:
            assert len(printed.columns) >= {"wide": 38, "orders": 7}[table]
            assert run.tables.types(stream) == printed.types(rows)
        rows = exact.add(printed)
        if run.exact is not None:
            assert differences(printed, rows, run.exact.rows(printed, "id")) == [], number


@each_method
@each_table
def test_the_table_is_that_of_the_source(story: Story, method: str, table: str) -> None:
    """A row that is gone stays where the tap does not say that it is; no other is too many."""
    stream = story.stream(method, table)
    seen: set[int] = set()
    for number, run in enumerate(story.runs):
        there = run.there[stream]
        gone = seen - there.keys()
        seen |= there.keys()
        found = story.found(run.tables, method, table)
        assert unlike(found, there) == [], number
        replaced = method == "full" and story.proves_end
        assert found.keys() - there.keys() == (set() if replaced else gone), number
    assert gone == GONE[table]


@pytest.mark.parametrize("method", ["full", "log"])
@each_table
def test_the_table_is_that_of_the_source_without_deleted_rows(
    story: Story, method: str, table: str
) -> None:
    """Read in full with ``overwrite``, or from the log with ``hard_delete``."""
    stream = story.stream(method, table)
    for number in CHANGES:
        run = story.runs[number]
        assert run.exact is not None
        found = story.found(run.exact, method, table)
        assert unlike(found, run.there[stream]) == [], number
        left = {RENAMED} if (method, table) == ("log", "orders") else set()
        assert found.keys() - run.there[stream].keys() == left, number


def test_a_few_new_rows_leave_the_table_as_large_as_it_was(story: Story) -> None:
    """Though a tap sends ACTIVATE_VERSION with them."""
    stream = story.stream("incremental", "orders")
    run = story.runs[1]
    printed = run.loaded.printed(stream)
    assert len(list(printed.rows())) == 17
    assert len(printed.activations) == (1 if story.tap_name == "pipelinewise" else 0)
    assert f"Stream `{stream}`: ACTIVATE_VERSION changes nothing" in run.loaded.ended.err or (
        not printed.activations
    )
    ((count,),) = run.tables.query(f'SELECT count(*) FROM local."{stream}"')
    assert count == ORDERS + 5 + 1


def test_a_deleted_row_stays_and_says_so(story: Story) -> None:
    """Of it the log holds the key only, or all if the table's replica identity is full."""
    table = f'local."{story.stream("log", "orders")}"'
    select = f"SELECT * EXCLUDE (_sdc_deleted_at) FROM {table} WHERE _sdc_deleted_at IS NOT NULL"
    lsn = 1 if story.tap_name == "meltanolabs" else 0  # the tap's column `_sdc_lsn`

    def deleted(number: int) -> dict[int, tuple[object, ...]]:
        rows = story.runs[number].tables.query(f"{select} ORDER BY id")
        return {row[0]: row[1 : len(row) - lsn] for row in rows}

    assert deleted(1) == dict.fromkeys([1, 2, 3], (None,) * 6)
    later = deleted(2)
    assert later.keys() == {2, 3, 5, 1001}
    assert later[5][:4] == ("customer 5", 0.05, "paid", "twice")
    assert later[1001] == (None,) * 6
    for number, run in enumerate(story.runs[:3]):
        assert (CUT in run.loaded.ended.err) == (number in CHANGES)


@each_method
def test_the_row_of_a_key_that_was_changed_stays(story: Story, method: str) -> None:
    """Taps send the row with its new key only; a table that is replaced has no other."""
    before, *after = story.runs
    old = story.found(before.tables, method, "orders")[RENAMED]
    for run in after:
        found = story.found(run.tables, method, "orders")
        assert found[RENAMED + 7000][1:4] == old[1:4]
        replaced = method == "full" and story.proves_end
        assert (RENAMED in found) == (not replaced)
        if not replaced:
            assert found[RENAMED] == old


def test_states_come_back_as_the_tap_wrote_them(story: Story) -> None:
    for run in story.runs:
        printed = run.loaded.printed(story.stream("full", "orders"))
        assert run.loaded.state == printed.states[-1]
        assert set(run.loaded.ended.states) <= set(printed.states)
        assert json.loads(printed.states[-1])["bookmarks"]


@each_method
@each_table
def test_a_run_with_nothing_new_changes_nothing(story: Story, method: str, table: str) -> None:
    stream = story.stream(method, table)
    *_, before, after = story.runs
    printed = after.loaded.printed(stream)
    again = len(list(printed.rows()))
    assert again > 100 if method == "full" else again < 10
    # A delete that is read again is told with the time of the reading.
    read = "* EXCLUDE (_sdc_deleted_at)" if method == "log" else "*"
    select = f'SELECT {read} FROM local."{stream}" ORDER BY id'
    assert before.tables.query(select) == after.tables.query(select)
    assert len(RUNS) == len(story.runs)


def test_json_of_the_log_in_a_column_of_texts(
    stories: Callable[[str], Story], loading: Loading
) -> None:
    """One tap prints it as a text, which a column of the type `string` takes as it is."""
    story = stories("meltanolabs")
    story.runs[0].tables.copy(loading.tables.database)
    stream = story.stream("log", "wide")
    rule = {"match": stream, "columns": {"c_json*": {"type": "string"}}}
    loading.load_again(story.runs[1].loaded, streams=[rule])

    def kinds(tables: Tables, where: str) -> set[type]:
        sql = f'SELECT c_jsonb FROM local."{stream}" WHERE c_jsonb IS NOT NULL AND id {where}'
        return {type(json.loads(text)) for (text,) in tables.query(sql)}

    changed, others = "BETWEEN 1 AND 20", "BETWEEN 21 AND 60"
    assert kinds(story.runs[1].tables, others) == kinds(loading.tables, others) == {dict}
    assert kinds(story.runs[1].tables, changed) == {str}
    assert kinds(loading.tables, changed) == {dict}
