"""What is in a database: tables, columns, rows and push jobs, as data and as text.

Hides: the layout of the printed tables. Guarantees: the same text whether a file or a running
server was asked. Must not know: HTTP, how jobs run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celonis_emulator.columns import folded
from celonis_emulator.jobs import shown_history
from celonis_emulator.ledger import (
    read_chunks,
    read_connections,
    read_jobs,
    read_models,
    read_pools,
)
from celonis_emulator.sqltext import SqlRefused, check_query
from celonis_emulator.warehouse import (
    count_rows,
    model_schema_name,
    pool_tables,
    schema_name,
    table_columns,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb

# An answer is built whole in memory.
MOST_ROWS = 100_000


def described_tables(
    cursor: duckdb.DuckDBPyConnection, name: str | None = None
) -> list[dict[str, Any]]:
    """Return the tables of all pools, or those of one name, with their columns and rows.

    What data models show comes last, with the id of the model.
    """
    owners: list[tuple[str, str | None]] = [(pool.id, None) for pool in read_pools(cursor)]
    owners += [(c.pool_id, c.id) for c in read_connections(cursor)]
    places = [
        (pool_id, connection_id, None, schema_name(pool_id, connection_id))
        for pool_id, connection_id in sorted(owners, key=lambda owner: (owner[0], owner[1] or ""))
    ]
    models = sorted((model.pool_id, model.id) for model in read_models(cursor))
    copies = [(pool, None, model, model_schema_name(pool, model)) for pool, model in models]
    described = []
    for pool_id, connection_id, model_id, schema in [*places, *copies]:
        for table in pool_tables(cursor, schema):
            if name is not None and folded(table.name) != folded(name):
                continue
            described.append(
                {
                    "pool_id": pool_id,
                    "connection_id": connection_id,
                    "model_id": model_id,
                    "table": table.name,
                    "schema": table.schema,
                    "kind": table.kind,
                    "rows": count_rows(cursor, table),
                    "columns": [
                        {"name": c.name, "type": c.type, "length": c.length_characters}
                        for c in table_columns(cursor, table)
                    ],
                }
            )
    return described


def described_jobs(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return the history of push jobs."""
    return shown_history(read_jobs(cursor, deleted=True), read_chunks(cursor))


def queried(cursor: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Run one query; return its columns, their DuckDB types, and its rows, values as text.

    Raises:
        SqlRefused: It is not one query of tables, or finds too many rows.
        duckdb.Error: It cannot be run.
    """
    check_query(sql)
    result = cursor.sql(sql)
    types = [str(kind) for kind in result.types]
    # As text already in DuckDB: fetching a zoned timestamp would need another package.
    result = result.select("CAST(COLUMNS(*) AS VARCHAR)").limit(MOST_ROWS + 1)
    rows = [list(row) for row in result.fetchall()]
    if len(rows) > MOST_ROWS:
        msg = f"The query finds more than {MOST_ROWS} rows; add a LIMIT, or count them."
        raise SqlRefused(msg)
    return {"columns": list(result.columns), "types": types, "rows": rows}


def rendered(tables: Sequence[dict[str, Any]], jobs: Sequence[dict[str, Any]]) -> str:
    """Return tables, columns and push jobs as aligned text."""
    parts = [grid(("POOL", "CONNECTION", "TABLE", "ROWS"), map(_table_cells, tables), {3})]
    for table in tables:
        columns = [
            (c["name"], c["type"] if c["length"] is None else f"{c['type']}({c['length']})")
            for c in table["columns"]
        ]
        parts.append(f"{_place(table)}\n{grid(('COLUMN', 'TYPE'), columns)}")
    header = ("PUSH JOB ON", "TYPE", "STATUS", "CHUNKS", "ROWS", "CUT", "DELETED")
    parts.append(grid(header, map(_job_cells, jobs), {3, 4, 5}))
    return "\n\n".join(parts) + "\n"


def _table_cells(table: dict[str, Any]) -> tuple[str, ...]:
    owner = _model(table) or table["connection_id"] or "(global)"
    return table["pool_id"], owner, table["table"], str(table["rows"])


def _job_cells(job: dict[str, Any]) -> tuple[str, ...]:
    rows = sum(chunk["rows"] for chunk in job["chunks"])
    deleted = "yes" if job["deleted"] else "no"
    counts = (len(job["chunks"]), rows, job["truncated_values"])
    return (_place(job), job["type"], job["status"], *map(str, counts), deleted)


def _place(item: dict[str, Any]) -> str:
    parts = (item["pool_id"], item["connection_id"], _model(item), item["table"])
    return " / ".join(part for part in parts if part)


def _model(item: dict[str, Any]) -> str | None:
    model_id = item.get("model_id")
    return None if model_id is None else f"(model {model_id})"


def grid(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Return rows below a header in aligned columns; those in ``right`` flush right."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    numbers = frozenset(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
