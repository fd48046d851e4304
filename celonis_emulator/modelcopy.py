"""Copies the pool's tables into a data model: the SQL of a load.

Hides: how tables become copies, and which dates the engine cannot hold. Guarantees: all changes are
made in the caller's transaction; afterwards the model's schema holds the model's tables and no
others. A load that cannot be done raises :class:`CopyFailed` with a sentence.
Must not know: HTTP, the state of a load, who calls.
"""

# ruff: noqa: S608 - names in SQL are quoted identifiers
from __future__ import annotations

from typing import TYPE_CHECKING

from celonis_emulator.columns import folded, quoted
from celonis_emulator.runs import TableLoad
from celonis_emulator.warehouse import (
    PoolTable,
    count_rows,
    create_schema,
    drop_table,
    find_table,
    model_schema_name,
    pool_tables,
    schema_name,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    import duckdb

    from celonis_emulator.setup import DataModel, ModelTable

FIRST_YEAR, LAST_YEAR = 1400, 9999


class CopyFailed(Exception):  # noqa: N818
    """The model cannot be loaded; the text goes to its message."""


def copy_tables(
    cursor: duckdb.DuckDBPyConnection, model: DataModel, wanted: Collection[str] | None
) -> tuple[TableLoad, ...]:
    """Bring the copies of a model up to date.

    Args:
        cursor: With a transaction open.
        model: Which one.
        wanted: Ids of the tables to copy, besides those without a copy; None: all.

    Raises:
        CopyFailed: A table is missing.
    """
    schema = model_schema_name(model.pool_id, model.id)
    create_schema(cursor, schema)
    present = {folded(table.name): table for table in pool_tables(cursor, schema)}
    chosen = [
        table
        for table in model.tables
        if wanted is None or table.id in wanted or folded(_shown(table)) not in present
    ]
    sources = _sources(cursor, model, chosen)
    kept = {folded(_shown(table)) for table in model.tables} - {folded(_shown(t)) for t in chosen}
    for name, copy in present.items():
        if name not in kept:
            drop_table(cursor, copy)
    loaded = []
    for table in model.tables:
        copy = PoolTable(schema, _shown(table))
        if table.id in sources:
            nulled, rows = _copy(cursor, sources[table.id], copy)
            loaded.append(TableLoad(table.id, copy.name, rows, nulled))
        else:
            rows = count_rows(cursor, copy)
            loaded.append(TableLoad(table.id, copy.name, rows, copied=False))
    return tuple(loaded)


def _shown(table: ModelTable) -> str:
    return table.alias or table.name


def _sources(
    cursor: duckdb.DuckDBPyConnection, model: DataModel, tables: list[ModelTable]
) -> dict[str, PoolTable]:
    """Find the pool's tables that are to be copied, by the id of the model's table."""
    found: dict[str, PoolTable] = {}
    missing = []
    for table in tables:
        schema = schema_name(model.pool_id, table.connection_id)
        source = find_table(cursor, schema, table.name)
        if source is None:
            missing.append(f"{table.name} (in {schema})")
        else:
            found[table.id] = source
    if missing:
        msg = f"The pool has no table {', '.join(missing)}; push it before loading the model."
        raise CopyFailed(msg)
    return found


def _copy(cursor: duckdb.DuckDBPyConnection, source: PoolTable, copy: PoolTable) -> tuple[int, int]:
    """Copy one table; return how many dates became NULL, and its rows."""
    described = cursor.execute(f"DESCRIBE SELECT * FROM {source.sql}").fetchall()
    values, lost = [], []
    for name, kind, *_ in described:
        column = quoted(name)
        if kind == "DATE" or kind.startswith("TIMESTAMP"):
            # No year: infinity, which the engine has no room for either.
            held = f"coalesce(year({column}) BETWEEN {FIRST_YEAR} AND {LAST_YEAR}, false)"
            lost.append(f"count({column}) FILTER (WHERE NOT {held})")
            values.append(f"CASE WHEN {held} THEN {column} END AS {column}")
        else:
            values.append(column)
    nulled = 0
    if lost:
        row = cursor.execute(f"SELECT {' + '.join(lost)} FROM {source.sql}").fetchone()
        nulled = int(row[0]) if row else 0
    sql = f"CREATE TABLE {copy.sql} AS SELECT {', '.join(values)} FROM {source.sql}"
    row = cursor.execute(sql).fetchone()
    return nulled, int(row[0]) if row else 0
