"""What the emulator remembers of data model loads and data job executions, in the DuckDB file.

Hides: their bookkeeping tables and SQL. Guarantees: what a method wrote is committed when it
returns (``write_load`` with a cursor of the caller's: with the caller's transaction).
Must not know: the rules of a run's life, HTTP.
"""

# ruff: noqa: S608 - names in SQL are quoted identifiers, values are parameters
from __future__ import annotations

import json
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from celonis_emulator.runs import ExecutionItem, Message, ModelLoad, TableLoad
from celonis_emulator.warehouse import BOOKKEEPING_SCHEMA, Warehouse

if TYPE_CHECKING:
    import duckdb

_LOADS = f"{BOOKKEEPING_SCHEMA}.loads"
_ITEMS = f"{BOOKKEEPING_SCHEMA}.execution_items"
_MESSAGES = f"{BOOKKEEPING_SCHEMA}.log_messages"
_TABLES = f"""
CREATE TABLE IF NOT EXISTS {_LOADS} (
    id VARCHAR, pool_id VARCHAR, model_id VARCHAR, type VARCHAR, status VARCHAR, table_ids VARCHAR,
    started_at TIMESTAMP, ended_at TIMESTAMP, message VARCHAR, tables VARCHAR
);
CREATE TABLE IF NOT EXISTS {_ITEMS} (
    id VARCHAR, execution_id VARCHAR, pool_id VARCHAR, job_id VARCHAR, task_id VARCHAR,
    type VARCHAR, name VARCHAR, mode VARCHAR, status VARCHAR, started_at TIMESTAMP,
    ended_at TIMESTAMP
);
CREATE TABLE IF NOT EXISTS {_MESSAGES} (
    id VARCHAR, item_id VARCHAR, level VARCHAR, said_at TIMESTAMP, text VARCHAR
);
"""
_READ_LOADS = (
    "SELECT id, pool_id, model_id, type, status, table_ids, epoch_ms(started_at), "
    f"epoch_ms(ended_at), message, tables FROM {_LOADS}"
)
_READ_ITEMS = (
    "SELECT id, execution_id, pool_id, job_id, task_id, type, name, mode, status, "
    f"epoch_ms(started_at), epoch_ms(ended_at) FROM {_ITEMS}"
)
_READ_MESSAGES = f"SELECT id, item_id, level, epoch_ms(said_at), text FROM {_MESSAGES}"


class RunLedger:
    """Reads and writes the runs; safe from several threads."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._lock = threading.Lock()
        self._cursor = warehouse.cursor()
        self._cursor.execute(_TABLES)

    def close(self) -> None:
        """Give the cursor back."""
        with self._lock:
            self._cursor.close()

    # Loads

    def add_load(self, load: ModelLoad) -> None:
        """Write a new load."""
        self._write(
            f"INSERT INTO {_LOADS} SELECT ?, ?, ?, ?, ?, ?, make_timestamp_ms(?), "
            "make_timestamp_ms(?), ?, ?",
            [
                load.id,
                load.pool_id,
                load.model_id,
                load.type,
                load.status,
                None if load.table_ids is None else json.dumps(load.table_ids),
                load.started_ms,
                load.ended_ms,
                load.message,
                _tables_text(load),
            ],
        )

    def write_load(self, load: ModelLoad, cursor: duckdb.DuckDBPyConnection | None = None) -> None:
        """Write a load's new state; with a cursor, as part of its transaction."""
        sql = (
            f"UPDATE {_LOADS} SET status = ?, started_at = make_timestamp_ms(?), "
            "ended_at = make_timestamp_ms(?), message = ?, tables = ? WHERE id = ?"
        )
        values = [load.status, load.started_ms, load.ended_ms, load.message]
        values += [_tables_text(load), load.id]
        if cursor is not None:
            cursor.execute(sql, values)
        else:
            self._write(sql, values)

    def loads(self, pool_id: str, model_id: str) -> list[ModelLoad]:
        """List the loads of a model, newest first."""
        where = "WHERE pool_id = ? AND model_id = ? ORDER BY rowid DESC"
        return [_load(row) for row in self._read(f"{_READ_LOADS} {where}", [pool_id, model_id])]

    def loads_with(self, *statuses: str) -> list[ModelLoad]:
        """List the loads of all models that have one of some statuses, oldest first."""
        places = ", ".join("?" for _ in statuses)
        where = f"WHERE status IN ({places}) ORDER BY rowid"
        return [_load(row) for row in self._read(f"{_READ_LOADS} {where}", list(statuses))]

    # Executions

    def add_item(self, item: ExecutionItem) -> None:
        """Write a new execution item."""
        self._write(
            f"INSERT INTO {_ITEMS} SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, make_timestamp_ms(?), "
            "make_timestamp_ms(?)",
            list(asdict(item).values()),
        )

    def write_item(self, item: ExecutionItem) -> None:
        """Write an execution item's new state."""
        self._write(
            f"UPDATE {_ITEMS} SET status = ?, started_at = make_timestamp_ms(?), "
            "ended_at = make_timestamp_ms(?) WHERE id = ?",
            [item.status, item.started_ms, item.ended_ms, item.id],
        )

    def executions(self, pool_id: str, job_id: str) -> list[ExecutionItem]:
        """List the runs of a job, newest first."""
        where = "WHERE pool_id = ? AND job_id = ? AND type = 'JOB' ORDER BY rowid DESC"
        return [
            ExecutionItem(*row) for row in self._read(f"{_READ_ITEMS} {where}", [pool_id, job_id])
        ]

    def last_executions(self, pool_id: str) -> dict[str, ExecutionItem]:
        """Return the newest run of every job of a pool, by job id."""
        where = "WHERE pool_id = ? AND type = 'JOB' ORDER BY rowid"
        items = [ExecutionItem(*row) for row in self._read(f"{_READ_ITEMS} {where}", [pool_id])]
        return {item.job_id: item for item in items}

    def items_of(self, pool_id: str, execution_id: str) -> list[ExecutionItem]:
        """List the items of one run: that of the job, and those of its tasks in their order."""
        where = "WHERE pool_id = ? AND execution_id = ? ORDER BY rowid"
        rows = self._read(f"{_READ_ITEMS} {where}", [pool_id, execution_id])
        return [ExecutionItem(*row) for row in rows]

    def live_items(self) -> list[ExecutionItem]:
        """List the items of all jobs that have not ended."""
        where = "WHERE status IN ('QUEUED', 'RUNNING') ORDER BY rowid"
        return [ExecutionItem(*row) for row in self._read(f"{_READ_ITEMS} {where}", [])]

    # Logs

    def add_message(self, message: Message) -> None:
        """Write a log message."""
        self._write(
            f"INSERT INTO {_MESSAGES} SELECT ?, ?, ?, make_timestamp_ms(?), ?",
            list(asdict(message).values()),
        )

    def messages(self, item_id: str) -> list[Message]:
        """List the log messages of an execution item, oldest first."""
        where = "WHERE item_id = ? ORDER BY rowid"
        return [Message(*row) for row in self._read(f"{_READ_MESSAGES} {where}", [item_id])]

    def _read(self, sql: str, values: list[Any]) -> list[Any]:
        with self._lock:
            rows: list[Any] = self._cursor.execute(sql, values).fetchall()
            return rows

    def _write(self, sql: str, values: list[Any]) -> None:
        with self._lock:
            self._cursor.execute(sql, values)


def _tables_text(load: ModelLoad) -> str:
    return json.dumps([asdict(table) for table in load.tables])


def _load(row: Any) -> ModelLoad:
    return ModelLoad(
        id=row[0],
        pool_id=row[1],
        model_id=row[2],
        type=row[3],
        status=row[4],
        table_ids=None if row[5] is None else tuple(json.loads(row[5])),
        started_ms=row[6],
        ended_ms=row[7],
        message=row[8],
        tables=tuple(TableLoad(**table) for table in json.loads(row[9])),
    )
