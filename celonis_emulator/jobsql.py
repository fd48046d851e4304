"""The SQL of data jobs: what may run, and running it in a pool's schema.

Hides: transactions and turns, what SQL does to declared text lengths and to widths of numbers.
Guarantees: each statement commits itself; none changes the emulator's own bookkeeping, other pools,
settings or other databases (files are out of the whole server's reach, see the warehouse).
Must not know: data jobs, their states and logs, HTTP.

The dialect of Celonis is Vertica's; DuckDB's is near to it in the plain parts of SQL only.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

import duckdb

from celonis_emulator.columns import DUCKDB_TYPES, celonis_type, folded, quoted
from celonis_emulator.sqltext import (
    SqlRefused,
    Statement,
    check_object,
    check_reach,
    check_schemas,
    kind_of,
)
from celonis_emulator.warehouse import (
    BOOKKEEPING_SCHEMA,
    CATALOG,
    create_schema,
    settle_lengths,
    table_identities,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from celonis_emulator.warehouse import PoolTable, Warehouse

ROWS_AT_ONCE: Final = 10_000

# These have nothing to do where each statement commits itself.
_IDLE: Final = "TRANSACTION"
_DEFINING: Final = frozenset({"CREATE", "DROP", "ALTER"})
_ALLOWED: Final = _DEFINING | {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE_INTO", _IDLE}
# Scripts for Vertica call it after each load; DuckDB keeps its statistics itself.
_MACROS: Final = ("CREATE TEMP MACRO analyze_statistics(name) AS 0",)
_BOOKKEEPING: Final = re.compile(rf"(?<!\w){BOOKKEEPING_SCHEMA}(?!\w)", re.IGNORECASE)
# Of no pool, but they hold nothing that a script may not see.
_SHARED: Final = frozenset({"information_schema", "pg_catalog"})
# Wider than the types of columns, but SQL counts in it.
_WIDEST: Final = "HUGEINT"


class Session:
    """A place to run statements: unqualified names mean tables of ``schema``.

    Args:
        warehouse: The cursor's database.
        cursor: It is the session's own.
        schema: Where tables are made.
        schemas: Those that statements may name: all of the pool.
        check: Raises when the session is to end; called while it waits for its turn.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        cursor: duckdb.DuckDBPyConnection,
        schema: str,
        schemas: Collection[str],
        check: Callable[[], None],
    ) -> None:
        self._warehouse = warehouse
        self._cursor = cursor
        self._own = {folded(name) for name in (schema, *schemas)} | _SHARED
        self._check = check
        create_schema(cursor, schema)
        cursor.execute(f"USE {CATALOG}.{quoted(schema)}")
        for macro in _MACROS:
            cursor.execute(macro)

    def run(self, statement: Statement) -> int | None:
        """Run one statement and commit it; return how many rows it wrote, removed or found.

        Raises:
            SqlRefused: It does what a data job may not do.
            duckdb.Error: It cannot be run.
        """
        kind = self._permitted(statement)
        if kind == _IDLE:
            return None
        with self._warehouse.changing(self._check), _transaction(self._cursor):
            return self._run(statement, defines=kind in _DEFINING)

    def _permitted(self, statement: Statement) -> str:
        kind = kind_of(statement)
        if kind is None or kind not in _ALLOWED:
            name = " ".join(statement.words[:1]).upper()
            msg = f"A data job may query tables and change them, but not run {name} statements."
            raise SqlRefused(msg)
        if any(_BOOKKEEPING.search(word) for word in statement.words):
            msg = f"The schema {BOOKKEEPING_SCHEMA} is the emulator's own; use tables of the pool."
            raise SqlRefused(msg)
        if kind in _DEFINING:
            check_object(statement)
        check_reach(statement)
        rows = self._cursor.execute(
            "SELECT DISTINCT schema_name FROM duckdb_schemas() WHERE database_name <> 'temp'"
        ).fetchall()
        check_schemas(statement, {folded(name) for (name,) in rows} - self._own)
        return kind

    def _run(self, statement: Statement, *, defines: bool) -> int | None:
        before = table_identities(self._cursor) if defines else {}
        result = self._cursor.execute(statement.widened)
        rows = _rows(result)
        if defines:
            settle_lengths(self._cursor, before, statement.declared_characters)
            self._widen_new(before)
        return rows

    def _widen_new(self, before: dict[PoolTable, int]) -> None:
        """Give the numbers in a table that a query made the width that they have in Celonis."""
        known = set(before.values())
        new = [t for t, identity in table_identities(self._cursor).items() if identity not in known]
        for table in new:
            described = self._cursor.execute(f"DESCRIBE {table.sql}").fetchall()
            for name, kind, *_ in described:
                wide = DUCKDB_TYPES.get(celonis_type(kind) or "")
                narrow = wide in ("BIGINT", "DOUBLE") and not kind.startswith("DECIMAL")
                if narrow and kind not in (wide, _WIDEST):
                    sql = f"ALTER TABLE {table.sql} ALTER {quoted(name)} TYPE {wide}"
                    self._cursor.execute(sql)


@contextlib.contextmanager
def _transaction(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    cursor.execute("BEGIN")
    try:
        yield
        cursor.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        raise


def _rows(result: duckdb.DuckDBPyConnection) -> int | None:
    """Return the count that a change answers, or the number of rows that a query finds."""
    described = [(name, str(kind)) for name, kind, *_ in result.description or ()]
    if described == [("Success", "BOOLEAN")]:
        return None
    if described == [("Count", "BIGINT")]:
        row = result.fetchone()
        return int(row[0]) if row else 0
    found = 0
    while rows := result.fetchmany(ROWS_AT_ONCE):
        found += len(rows)
    return found
