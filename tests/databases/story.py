"""What happens to a source between four runs of a tap, and what stood in the tables after each.

Three schemas hold the same tables; each is read by another replication method, all by one run. What
the tap prints of the changes is loaded a second time, by settings that let deleted rows go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import columns
from .loading import Loaded, Loading, Tables
from .postgres import Cluster, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .taps import Tap

METHODS: dict[str, tuple[str, str | None]] = {
    "full": ("FULL_TABLE", None),
    "incremental": ("INCREMENTAL", "updated_at"),
    "log": ("LOG_BASED", "_sdc_lsn"),
}
TABLES = ("wide", "orders")
ORDERS = 1000
WIDE = 60
RUNS = range(4)

# Of orders, 17 rows are new or newer: 10 changed, 5 inserted, one with another key, and one that
# has the highest `updated_at` of the run before.
CHANGE = """
    UPDATE {schema}.orders SET status = 'changed', amount = NULL,
        updated_at = timestamptz '2025-01-01 00:00+00' + id * interval '1 second'
    WHERE id BETWEEN 11 AND 20;
    INSERT INTO {schema}.orders (id, status, updated_at)
    SELECT i, 'new', timestamptz '2025-02-01 00:00+00' FROM generate_series(1001, 1005) AS i;
    UPDATE {schema}.orders SET id = 7007, updated_at = '2025-03-01 00:00+00' WHERE id = 7;
    DELETE FROM {schema}.orders WHERE id IN (1, 2, 3);

    UPDATE {schema}.wide SET c_smallint = 7, c_text = NULL, c_bool = NULL,
        c_json = '[1, {{"a": "ü"}}]', c_num_18_4 = -0.0001, c_textarr = ARRAY['x', NULL],
        "Mixed Case" = 'changed', updated_at = '2025-01-01 00:00+00'
    WHERE id BETWEEN 1 AND 20;
    CREATE TEMP TABLE copied AS SELECT * FROM {schema}.wide WHERE id IN (41, 42);
    UPDATE copied SET id = id + 1000, updated_at = '2025-01-02 00:00+00';
    INSERT INTO {schema}.wide SELECT * FROM copied;
    DELETE FROM {schema}.wide WHERE id IN (30, 31);
"""
# A row with a key that was deleted, several changes of one row, and a delete with all old values.
CHANGE_AGAIN = """
    INSERT INTO {schema}.orders (id, note, updated_at) VALUES (1, 'again', '2025-04-01 00:00+00');
    UPDATE {schema}.orders SET note = 'twice', updated_at = '2025-04-02 00:00+00' WHERE id <= 20;
    UPDATE {schema}.orders SET note = 'last', updated_at = '2025-04-03 00:00+00' WHERE id = 12;
    DELETE FROM {schema}.orders WHERE id = 1001;
    ALTER TABLE {schema}.orders REPLICA IDENTITY FULL;
    DELETE FROM {schema}.orders WHERE id = 5;

    INSERT INTO {schema}.wide (id, updated_at) VALUES (30, '2025-04-01 00:00+00');
    UPDATE {schema}.wide SET c_jsonb = NULL, c_date = '2025-04-01',
        updated_at = '2025-04-02 00:00+00'
    WHERE id = 1042;
    DELETE FROM {schema}.wide WHERE id = 1041;
"""
CHANGES = {1: CHANGE, 2: CHANGE_AGAIN}
GONE = {"wide": {31, 1041}, "orders": {2, 3, 5, 7, 1001}}
"""Keys that were in the source once and are not in the end."""

RENAMED = 7
"""The key in orders that became another: of it no tap says that it was deleted."""


@dataclass(frozen=True)
class Run:
    """A run of the tap.

    Attributes:
        loaded: The pipe's run.
        tables: What stood in the tables after it.
        exact: The same by ``hard_delete``, and ``overwrite`` for tables that are read in full; None
            where nothing was changed.
        there: The rows of each stream's table in the source when it began.
    """

    loaded: Loaded
    tables: Tables
    exact: Tables | None
    there: dict[str, columns.Rows]


class Story:
    """Four runs; before the second and the third the source is changed, before the fourth not.

    Args:
        tap_name: See ``TAPS``.
        tap_type: The tap's class.
        cluster: The server.
        directory: For all that is written.

    Attributes:
        tap_name: As given.
        proves_end: Whether the tap says of a table that is read in full when it ends, so that it is
            replaced.
        runs: The runs.
    """

    def __init__(
        self, tap_name: str, tap_type: type[Tap], cluster: Cluster, directory: Path
    ) -> None:
        self.tap_name = tap_name
        self.proves_end = tap_name == "pipelinewise"
        self._sources = {name: Source(cluster, f"{tap_name}_{name}") for name in METHODS}
        schemas = [source.schema for source in self._sources.values()]
        tap = tap_type(cluster, directory, *schemas)
        for source in self._sources.values():
            source.run_file("wide.sql", rows=WIDE)
            source.run_file("orders.sql", rows=ORDERS)
            source.run_file("odd.sql", odd_zoned_times=int(tap_name == "meltanolabs"))
        # An odd time far ahead would be the newest for ever.
        self._sources["incremental"].sql("UPDATE {schema}.wide SET updated_at = NULL WHERE id < 0")
        with tap.replication():
            tap.choose_each(dict(zip(schemas, METHODS.values(), strict=True)))
            self.runs = tuple(self._make(tap, directory))

    def _make(self, tap: Tap, directory: Path) -> Iterator[Run]:
        soft = Loading(directory / "soft")
        rule: dict[str, Any] = {
            "match": f"{self._sources['full'].schema}-*",
            "load_method": "overwrite",
        }
        if not self.proves_end:
            rule["trust_end_of_input"] = True
        exact = Loading(directory / "exact", hard_delete=True, streams=[rule])
        state = None
        for number in RUNS:
            if number == 1:  # odd values, too, are to come through the log
                self._sources["log"].sql("UPDATE {schema}.wide SET c_int = c_int WHERE id < 0")
            for source in self._sources.values():
                source.sql(CHANGES.get(number, ""))
            there = {
                source.stream(table): self._there(source, table)
                for source in self._sources.values()
                for table in TABLES
            }
            loaded = soft.load(tap, state)
            state = loaded.state
            tables = soft.tables.copy(directory / f"soft-{number}.duckdb")
            if number == 0:  # nothing was deleted yet
                soft.tables.copy(exact.tables.database)
            without = None
            if number in CHANGES:
                exact.load_again(loaded)
                without = exact.tables.copy(directory / f"exact-{number}.duckdb")
            yield Run(loaded, tables, without, there)

    def _there(self, source: Source, table: str) -> columns.Rows:
        found = source.json(columns.select_source(self.tap_name, table))
        return {row[0]: row for row in found}

    def stream(self, method: str, table: str) -> str:
        """Return what the tap calls a table."""
        return self._sources[method].stream(table)

    def found(self, tables: Tables, method: str, table: str) -> columns.Rows:
        """Return the rows of a table as those of its source are."""
        stream = self.stream(method, table)
        select = columns.select_celonis(self.tap_name, table, stream)
        return columns.rows(self.tap_name, table, tables.query(select))
