"""The DuckDB file: opening it, its schemas and tables, transactions.

Hides: DuckDB connections and their locks, the catalogue, where text lengths are kept.
Guarantees: one process holds the file, and a second one is told who does; each cursor is used by
one thread; names are found whatever their case; time zone is UTC; SQL reaches no other files than
those of one directory.
Must not know: HTTP, push jobs, chunks.
"""

# ruff: noqa: S608 - names in SQL are quoted identifiers, values are parameters or quoted
from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from celonis_emulator.columns import (
    DUCKDB_TYPES,
    UNDECLARED_TEXT_CHARACTERS,
    Column,
    celonis_type,
    folded,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BOOKKEEPING_SCHEMA = "_celonis"
# DuckDB would name it after the file, and a pool of that name would be ambiguous in every query.
CATALOG = "_celonis_database"
OPEN_PATIENCE_SECONDS = 2.0
# DuckDB would take 80 % of the machine; a test companion must leave room, and spills to disk.
MEMORY_LIMIT = "500MB"

# Replaying less than this costs nothing that a person would notice.
CHECKPOINT_BYTES = 1_000_000
# How often who waits for a turn looks whether it shall go on waiting.
TURN_SECONDS = 0.05

_LENGTHS_TABLE = f"""
CREATE TABLE IF NOT EXISTS {BOOKKEEPING_SCHEMA}.text_lengths (
    schema_name VARCHAR, table_name VARCHAR, column_name VARCHAR, length_characters INTEGER
)"""


class DatabaseUnavailable(Exception):  # noqa: N818
    """The file cannot be opened; the text is one sentence for people."""


@dataclass(frozen=True)
class PoolTable:
    """A table or view of a pool's schema, named as it was created."""

    schema: str
    name: str
    kind: str = "TABLE"

    @property
    def sql(self) -> str:
        """The quoted, qualified name."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def schema_name(pool_id: str, connection_id: str | None) -> str:
    """Return the schema that holds the tables of a pool's connection (None: the global ones)."""
    return pool_id if connection_id is None else f"{pool_id}_{connection_id}"


def model_schema_name(pool_id: str, model_id: str) -> str:
    """Return the schema that holds what a data model shows."""
    return f"{pool_id}_model_{model_id}"


def connect(
    database: Path, *, read_only: bool = False, patience_seconds: float = OPEN_PATIENCE_SECONDS
) -> duckdb.DuckDBPyConnection:
    """Open the file; wait a little for a process that is about to let go of it.

    Raises:
        DatabaseUnavailable: another process holds it, or it is no DuckDB file.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return _attached(database, read_only=read_only)
        except duckdb.Error as error:
            holder = _holder(str(error))
            if holder is None:
                reason = str(error).splitlines()[0]
                msg = f"The database {database} cannot be opened: {reason}"
                raise DatabaseUnavailable(msg) from error
            if time.monotonic() >= deadline:
                advice = (
                    "if that is a running `celonis-emulator serve`, ask it: --url and --api-key."
                    if read_only
                    else "run `celonis-emulator serve` once and point base_url of every client at "
                    "it, or use another database."
                )
                msg = f"The database {database} is held by {holder}; {advice}"
                raise DatabaseUnavailable(msg) from error
            time.sleep(0.05)


def _attached(database: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open the file under a name that does not depend on that of the file."""
    connection = duckdb.connect(":memory:")
    try:
        path = str(database).replace("'", "''")
        mode = " (READ_ONLY)" if read_only else ""
        connection.execute("SET python_enable_replacements = false")
        connection.execute(f"SET temp_directory = '{path}.tmp'")
        connection.execute(f"ATTACH '{path}' AS {CATALOG}{mode}")
        connection.execute(f"USE {CATALOG}")
        # From here on every cursor begins in the file.
        connection.execute("DETACH memory")
    except BaseException:
        connection.close()
        raise
    return connection


def _holder(message: str) -> str | None:
    """Return the process that a DuckDB message names as the holder of the file's lock."""
    lowered = message.lower()
    if not any(sign in lowered for sign in ("lock", "already open", "already attached")):
        return None
    pid = re.search(r"PID (\d+)", message)
    return f"process {pid.group(1)}" if pid else "another process"


class _Turns:
    """One thread at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextlib.contextmanager
    def turn(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait for the turn, as long as ``check`` does not raise, and hold it."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
        try:
            while not self._has_come(ticket):
                check()
            yield
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _has_come(self, ticket: object) -> bool:
        def first() -> bool:
            return self._waiting[0] is ticket

        with self._changed:
            return self._changed.wait_for(first, TURN_SECONDS)


class Warehouse:
    """One open database.

    Args:
        database: The file.
        readable: The only directory whose files SQL may read.
    """

    def __init__(self, database: Path, readable: Path) -> None:
        database.parent.mkdir(parents=True, exist_ok=True)
        self._connection = connect(database)
        self._lock = threading.Lock()
        self._turns = _Turns()
        self._wal = database.with_name(database.name + ".wal")
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        self._connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {BOOKKEEPING_SCHEMA}")
        self._connection.execute(_LENGTHS_TABLE)
        # Whoever runs SQL here reaches no other file, and changes no setting.
        directory = str(readable.absolute()).replace("'", "''")
        self._connection.execute(f"SET allowed_directories = ['{directory}']")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own to the open database, for one thread."""
        with self._lock:
            return self._connection.cursor()

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a cursor for one answer."""
        cursor = self.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def changing(self, check: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Wait for the turn to change tables; DuckDB lets changes of one table fail, not wait.

        Readers need no turn.

        Args:
            check: Is called while waiting, and raises when that is to end.
        """
        return self._turns.turn(check)

    def checkpoint(self) -> None:
        """Move a log of some size into the file, so that closing and opening are quick."""
        # A missing log needs nothing; DuckDB refuses while others write, and the next time will do.
        with contextlib.suppress(OSError, duckdb.Error):
            if self._wal.stat().st_size >= CHECKPOINT_BYTES:
                with self.reading() as cursor:
                    cursor.execute("CHECKPOINT")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def create_schema(cursor: duckdb.DuckDBPyConnection, schema: str) -> None:
    """Make the schema of a pool or connection if it is not there."""
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")


def pool_tables(cursor: duckdb.DuckDBPyConnection, schema: str) -> list[PoolTable]:
    """List the tables and views of a schema, by name."""
    rows = cursor.execute(
        "SELECT schema_name, table_name, 'TABLE' FROM duckdb_tables() "
        "WHERE database_name = current_database() AND lower(schema_name) = lower(?) "
        "UNION ALL SELECT schema_name, view_name, 'VIEW' FROM duckdb_views() "
        "WHERE database_name = current_database() AND lower(schema_name) = lower(?) "
        "AND NOT internal ORDER BY 2",
        [schema, schema],
    ).fetchall()
    return [PoolTable(*row) for row in rows]


def find_table(cursor: duckdb.DuckDBPyConnection, schema: str, name: str) -> PoolTable | None:
    """Find a table by name, whatever its case."""
    wanted = folded(name)
    for table in pool_tables(cursor, schema):
        if folded(table.name) == wanted:
            return table
    return None


def table_columns(cursor: duckdb.DuckDBPyConnection, table: PoolTable) -> list[Column]:
    """List the columns of a table in their order, with declared text lengths."""
    lengths = dict(
        cursor.execute(
            f"SELECT column_name, length_characters FROM {BOOKKEEPING_SCHEMA}.text_lengths "
            "WHERE schema_name = ? AND table_name = ?",
            [table.schema, table.name],
        ).fetchall()
    )
    columns = []
    for name, duckdb_type in cursor.execute(
        "SELECT column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ? AND table_name = ? "
        "ORDER BY column_index",
        [table.schema, table.name],
    ).fetchall():
        # Other types come from SQL run by hand only; they are shown as text.
        kind = celonis_type(duckdb_type) or "STRING"
        length = lengths.get(name, UNDECLARED_TEXT_CHARACTERS) if kind == "STRING" else None
        columns.append(Column(name, kind, length))
    return columns


def count_rows(cursor: duckdb.DuckDBPyConnection, table: PoolTable) -> int:
    """Count the rows of a table."""
    row = cursor.execute(f"SELECT count(*) FROM {table.sql}").fetchone()
    return int(row[0]) if row else 0


def create_table(
    cursor: duckdb.DuckDBPyConnection, table: PoolTable, columns: list[Column]
) -> None:
    """Create an empty table and keep its text lengths."""
    create_schema(cursor, table.schema)
    spelled = ", ".join(f"{quoted(c.name)} {DUCKDB_TYPES[c.type]}" for c in columns)
    cursor.execute(f"CREATE TABLE {table.sql} ({spelled})")
    _forget_lengths(cursor, table)
    for column in columns:
        _keep_length(cursor, table, column)


def drop_table(cursor: duckdb.DuckDBPyConnection, table: PoolTable) -> None:
    """Drop a table or view, and forget its text lengths."""
    cursor.execute(f"DROP {table.kind} {table.sql}")
    _forget_lengths(cursor, table)


def add_column(cursor: duckdb.DuckDBPyConnection, table: PoolTable, column: Column) -> None:
    """Add a column, NULL in every row."""
    spelled = f"{quoted(column.name)} {DUCKDB_TYPES[column.type]}"
    cursor.execute(f"ALTER TABLE {table.sql} ADD COLUMN {spelled}")
    _keep_length(cursor, table, column)


def widen_column(cursor: duckdb.DuckDBPyConnection, table: PoolTable, column: Column) -> None:
    """Keep a new declared length for a text column."""
    cursor.execute(
        f"DELETE FROM {BOOKKEEPING_SCHEMA}.text_lengths "
        "WHERE schema_name = ? AND table_name = ? AND column_name = ?",
        [table.schema, table.name, column.name],
    )
    _keep_length(cursor, table, column)


def table_identities(cursor: duckdb.DuckDBPyConnection) -> dict[PoolTable, int]:
    """Return a number for each table; it stays when the table is renamed or altered."""
    rows = cursor.execute(
        "SELECT schema_name, table_name, table_oid FROM duckdb_tables() "
        "WHERE database_name = current_database()"
    ).fetchall()
    return {PoolTable(schema, name): int(identity) for schema, name, identity in rows}


def settle_lengths(
    cursor: duckdb.DuckDBPyConnection,
    before: dict[PoolTable, int],
    declared_characters: dict[str, int],
) -> None:
    """Bring the text lengths in line with tables that a statement made, renamed or dropped.

    Args:
        cursor: In the statement's transaction.
        before: The tables as they were.
        declared_characters: The lengths in a table made anew, by folded name of the column.
    """
    after = table_identities(cursor)
    names = {identity: table for table, identity in before.items()}
    for table in before.keys() - after.keys():
        if before[table] not in after.values():
            _forget_lengths(cursor, table)
    for table, identity in after.items():
        old = names.get(identity)
        if old is None:
            _forget_lengths(cursor, table)
        elif old != table:
            cursor.execute(
                f"UPDATE {BOOKKEEPING_SCHEMA}.text_lengths SET schema_name = ?, table_name = ? "
                "WHERE schema_name = ? AND table_name = ?",
                [table.schema, table.name, old.schema, old.name],
            )
    cursor.execute(
        f"DELETE FROM {BOOKKEEPING_SCHEMA}.text_lengths AS kept WHERE NOT EXISTS ("
        "SELECT 1 FROM duckdb_columns() AS c WHERE c.database_name = current_database() "
        "AND c.schema_name = kept.schema_name AND c.table_name = kept.table_name "
        "AND c.column_name = kept.column_name)"
    )
    for table, identity in after.items():
        for column in table_columns(cursor, table) if identity not in names else ():
            length = declared_characters.get(folded(column.name))
            if column.type == "STRING" and length is not None:
                _keep_length(cursor, table, Column(column.name, "STRING", length))


def _keep_length(cursor: duckdb.DuckDBPyConnection, table: PoolTable, column: Column) -> None:
    if column.length_characters is not None:
        cursor.execute(
            f"INSERT INTO {BOOKKEEPING_SCHEMA}.text_lengths VALUES (?, ?, ?, ?)",
            [table.schema, table.name, column.name, column.length_characters],
        )


def _forget_lengths(cursor: duckdb.DuckDBPyConnection, table: PoolTable) -> None:
    cursor.execute(
        f"DELETE FROM {BOOKKEEPING_SCHEMA}.text_lengths "
        "WHERE schema_name = ? AND lower(table_name) = lower(?)",
        [table.schema, table.name],
    )
