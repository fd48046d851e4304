"""What the emulator remembers: pools and what is in them, push jobs and chunks, in the DuckDB file.

Hides: the bookkeeping tables and their SQL. Guarantees: what a method wrote is committed when it
returns (``write_job`` with a cursor of the caller's: with the caller's transaction); a deleted
job stays for the history. Must not know: the rules of a job's life, HTTP, files.
"""

# ruff: noqa: S608 - names in SQL are quoted identifiers, values are parameters or quoted
from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import asdict
from typing import Any

import duckdb

from celonis_emulator.columns import folded
from celonis_emulator.jobs import Chunk, Job
from celonis_emulator.setup import Connection, DataJob, DataModel, ModelTable, Pool, Task
from celonis_emulator.warehouse import (
    BOOKKEEPING_SCHEMA,
    CATALOG,
    Warehouse,
    create_schema,
    model_schema_name,
    schema_name,
)

_TABLES = f"""
CREATE TABLE IF NOT EXISTS {BOOKKEEPING_SCHEMA}.pools (id VARCHAR, name VARCHAR);
CREATE TABLE IF NOT EXISTS {BOOKKEEPING_SCHEMA}.connections (
    pool_id VARCHAR, id VARCHAR, name VARCHAR
);
CREATE TABLE IF NOT EXISTS {BOOKKEEPING_SCHEMA}.data_models (
    pool_id VARCHAR, id VARCHAR, name VARCHAR, tables VARCHAR
);
CREATE TABLE IF NOT EXISTS {BOOKKEEPING_SCHEMA}.data_jobs (
    pool_id VARCHAR, id VARCHAR, name VARCHAR, connection_id VARCHAR, tasks VARCHAR,
    data_models VARCHAR
);
CREATE TABLE IF NOT EXISTS {BOOKKEEPING_SCHEMA}.jobs (
    id VARCHAR, pool_id VARCHAR, connection_id VARCHAR, table_name VARCHAR, type VARCHAR,
    file_type VARCHAR, status VARCHAR, created_at TIMESTAMP, changed_at TIMESTAMP,
    executed_at TIMESTAMP, finished_at TIMESTAMP, deleted_at TIMESTAMP, submits INTEGER,
    truncated_values BIGINT, key_columns VARCHAR, request VARCHAR, logs VARCHAR
);
CREATE TABLE IF NOT EXISTS {BOOKKEEPING_SCHEMA}.chunks (
    id VARCHAR, job_id VARCHAR, position INTEGER, type VARCHAR, rows BIGINT, bytes BIGINT,
    checksum VARCHAR, created_at TIMESTAMP, file_name VARCHAR
);
"""
_JOBS = f"{BOOKKEEPING_SCHEMA}.jobs"
_CHUNKS = f"{BOOKKEEPING_SCHEMA}.chunks"
_READ_JOBS = (
    "SELECT id, pool_id, connection_id, table_name, type, file_type, status, "
    "epoch_ms(created_at), epoch_ms(changed_at), epoch_ms(executed_at), epoch_ms(finished_at), "
    f"epoch_ms(deleted_at), submits, truncated_values, key_columns, request, logs FROM {_JOBS}"
)
_READ_CHUNKS = (
    "SELECT id, job_id, position, type, rows, bytes, checksum, epoch_ms(created_at), file_name "
    f"FROM {_CHUNKS}"
)
_RESERVED_SCHEMAS = frozenset(
    {BOOKKEEPING_SCHEMA, CATALOG, "information_schema", "pg_catalog", "temp", "system", "main"}
)


class BadSetUp(ValueError):  # noqa: N818
    """Something cannot be set up; the text is one sentence for people."""


class NameTaken(BadSetUp):
    """A pool, connection or data model whose schema is already somebody else's."""


class Ledger:
    """Reads and writes the bookkeeping tables; safe from several threads."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._lock = threading.RLock()
        self._cursor = warehouse.cursor()
        self._cursor.execute(_TABLES)
        # Asked for with almost every request, changed by this object alone.
        self._pools = read_pools(self._cursor)
        self._connections = read_connections(self._cursor)
        self._models = {(model.pool_id, model.id): model for model in read_models(self._cursor)}
        self._data_jobs = {(job.pool_id, job.id): job for job in _read_data_jobs(self._cursor)}

    def close(self) -> None:
        """Give the cursor back."""
        with self._lock:
            self._cursor.close()

    # Pools and connections

    def pools(self) -> list[Pool]:
        """List the pools in the order of their making."""
        with self._lock:
            return list(self._pools)

    def connections(self) -> list[Connection]:
        """List the connections of all pools in the order of their making."""
        with self._lock:
            return list(self._connections)

    def ensure_pool(self, pool_id: str, name: str) -> None:
        """Make a pool that is not there yet."""
        with self._lock:
            if all(pool.id != pool_id for pool in self.pools()):
                self._claim(schema_name(pool_id, None), f"pool {pool_id}")
                self._cursor.execute("INSERT INTO _celonis.pools VALUES (?, ?)", [pool_id, name])
                self._pools.append(Pool(pool_id, name))

    def ensure_connection(self, pool_id: str, connection_id: str, name: str) -> None:
        """Make a connection that is not there yet, in a pool that is."""
        with self._lock:
            self._check_owner(pool_id)
            known = {(c.pool_id, c.id) for c in self.connections()}
            if (pool_id, connection_id) not in known:
                schema = schema_name(pool_id, connection_id)
                self._claim(schema, f"connection {connection_id} of pool {pool_id}")
                self._cursor.execute(
                    "INSERT INTO _celonis.connections VALUES (?, ?, ?)",
                    [pool_id, connection_id, name],
                )
                self._connections.append(Connection(pool_id, connection_id, name))

    def _claim(self, schema: str, owner: str) -> None:
        taken = {schema_name(pool.id, None).lower() for pool in self.pools()}
        taken |= {schema_name(c.pool_id, c.id).lower() for c in self.connections()}
        taken |= {model_schema_name(*key).lower() for key in self._models}
        taken |= _RESERVED_SCHEMAS
        if schema.lower() in taken:
            msg = f"The {owner} would share the schema {schema}; choose another id."
            raise NameTaken(msg)
        create_schema(self._cursor, schema)

    # Data models and data jobs

    def models(self, pool_id: str) -> list[DataModel]:
        """List the data models of a pool in the order of their making."""
        with self._lock:
            return [model for model in self._models.values() if model.pool_id == pool_id]

    def put_model(self, model: DataModel) -> None:
        """Make a data model, or change the one with its id; loads and copies stay.

        Raises:
            BadSetUp: It names what is not there, or one table twice.
        """
        with self._lock:
            self._check_owner(model.pool_id, *(table.connection_id for table in model.tables))
            _check_once([table.id for table in model.tables], f"data model {model.id}")
            shown = [table.alias or table.name for table in model.tables]
            _check_once([folded(name) for name in shown], f"data model {model.id}")
            key = (model.pool_id, model.id)
            if key not in self._models:
                owner = f"data model {model.id} of pool {model.pool_id}"
                self._claim(model_schema_name(*key), owner)
            tables = json.dumps([asdict(table) for table in model.tables])
            self._replace("data_models", [*key, model.name, tables])
            self._models[key] = model

    def data_jobs(self, pool_id: str) -> list[DataJob]:
        """List the data jobs of a pool in the order of their making."""
        with self._lock:
            return [job for job in self._data_jobs.values() if job.pool_id == pool_id]

    def put_data_job(self, job: DataJob) -> None:
        """Make a data job, or change the one with its id; its executions stay.

        Raises:
            BadSetUp: It names what is not there, or two tasks have one id.
        """
        with self._lock:
            self._check_owner(job.pool_id, job.connection_id)
            _check_once([task.id for task in job.tasks], f"data job {job.id}")
            for model_id in job.data_models:
                if (job.pool_id, model_id) not in self._models:
                    msg = f"Data job {job.id} loads the data model {model_id}; make that first."
                    raise BadSetUp(msg)
            key = (job.pool_id, job.id)
            tasks = json.dumps([asdict(task) for task in job.tasks])
            models = json.dumps(job.data_models)
            self._replace("data_jobs", [*key, job.name, job.connection_id, tasks, models])
            self._data_jobs[key] = job

    def _check_owner(self, pool_id: str, *connection_ids: str | None) -> None:
        if all(pool.id != pool_id for pool in self._pools):
            msg = f"There is no data pool {pool_id}; make it first."
            raise BadSetUp(msg)
        known = {c.id for c in self._connections if c.pool_id == pool_id}
        for connection_id in connection_ids:
            if connection_id is not None and connection_id not in known:
                msg = f"There is no data connection {connection_id} in pool {pool_id}."
                raise BadSetUp(msg)

    def _replace(self, table: str, values: list[Any]) -> None:
        """Write a row in place of that with the same pool and id."""
        where = "WHERE pool_id = ? AND id = ?"
        places = ", ".join("?" for _ in values)
        written = f"{BOOKKEEPING_SCHEMA}.{table}"
        self._cursor.execute("BEGIN")
        try:
            self._cursor.execute(f"DELETE FROM {written} {where}", values[:2])
            self._cursor.execute(f"INSERT INTO {written} VALUES ({places})", values)
            self._cursor.execute("COMMIT")
        except BaseException:
            # The next write would fail in a transaction that was left open.
            with contextlib.suppress(duckdb.Error):
                self._cursor.execute("ROLLBACK")
            raise

    # Jobs and chunks

    def add_job(self, job: Job) -> None:
        """Write a new job."""
        self._write(f"INSERT INTO {_JOBS} SELECT {_JOB_PARAMETERS}", _job_values(job))

    def write_job(self, job: Job, cursor: duckdb.DuckDBPyConnection | None = None) -> None:
        """Write a job's new state; with a cursor, as part of its transaction."""
        sql = (
            f"UPDATE {_JOBS} SET status = ?, changed_at = make_timestamp_ms(?), "
            "executed_at = make_timestamp_ms(?), finished_at = make_timestamp_ms(?), "
            "deleted_at = make_timestamp_ms(?), submits = ?, truncated_values = ?, logs = ? "
            "WHERE id = ?"
        )
        values = [
            job.status,
            job.changed_ms,
            job.executed_ms,
            job.finished_ms,
            job.deleted_ms,
            job.submits,
            job.truncated_values,
            json.dumps(job.logs),
            job.id,
        ]
        if cursor is not None:
            cursor.execute(sql, values)
        else:
            self._write(sql, values)

    def add_chunk(self, chunk: Chunk) -> None:
        """Write a chunk."""
        sql = f"INSERT INTO {_CHUNKS} SELECT ?, ?, ?, ?, ?, ?, ?, make_timestamp_ms(?), ?"
        values = [
            chunk.id,
            chunk.job_id,
            chunk.position,
            chunk.type,
            chunk.rows,
            chunk.bytes,
            chunk.checksum,
            chunk.created_ms,
            chunk.file_name,
        ]
        self._write(sql, values)

    def jobs(self, *, deleted: bool) -> list[Job]:
        """List jobs in the order of their making, with or without the deleted ones."""
        with self._lock:
            return read_jobs(self._cursor, deleted=deleted)

    def chunks(self) -> dict[str, list[Chunk]]:
        """Return the chunks of all jobs in upload order, by job id."""
        with self._lock:
            return read_chunks(self._cursor)

    def _write(self, sql: str, values: list[Any]) -> None:
        with self._lock:
            self._cursor.execute(sql, values)


def read_pools(cursor: duckdb.DuckDBPyConnection) -> list[Pool]:
    """List the pools in the order of their making."""
    rows = cursor.execute("SELECT id, name FROM _celonis.pools ORDER BY rowid").fetchall()
    return [Pool(*row) for row in rows]


def read_connections(cursor: duckdb.DuckDBPyConnection) -> list[Connection]:
    """List the connections of all pools in the order of their making."""
    sql = "SELECT pool_id, id, name FROM _celonis.connections ORDER BY rowid"
    return [Connection(*row) for row in cursor.execute(sql).fetchall()]


def read_models(cursor: duckdb.DuckDBPyConnection) -> list[DataModel]:
    """List the data models of all pools."""
    sql = "SELECT pool_id, id, name, tables FROM _celonis.data_models ORDER BY rowid"
    return [
        DataModel(pool, model, name, tuple(ModelTable(**table) for table in json.loads(tables)))
        for pool, model, name, tables in cursor.execute(sql).fetchall()
    ]


def _read_data_jobs(cursor: duckdb.DuckDBPyConnection) -> list[DataJob]:
    sql = (
        "SELECT pool_id, id, name, connection_id, tasks, data_models FROM _celonis.data_jobs "
        "ORDER BY rowid"
    )
    return [
        DataJob(
            pool_id=row[0],
            id=row[1],
            name=row[2],
            connection_id=row[3],
            tasks=tuple(Task(**task) for task in json.loads(row[4])),
            data_models=tuple(json.loads(row[5])),
        )
        for row in cursor.execute(sql).fetchall()
    ]


def _check_once(names: list[str], owner: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"The {owner} has {twice} twice; case does not matter in names of tables."
        raise BadSetUp(msg)


def read_jobs(cursor: duckdb.DuckDBPyConnection, *, deleted: bool) -> list[Job]:
    """List jobs in the order of their making, with or without the deleted ones."""
    where = "" if deleted else " WHERE deleted_at IS NULL"
    rows = cursor.execute(f"{_READ_JOBS}{where} ORDER BY rowid").fetchall()
    return [_job(row) for row in rows]


def read_chunks(cursor: duckdb.DuckDBPyConnection) -> dict[str, list[Chunk]]:
    """Return the chunks of all jobs in upload order, by job id."""
    found: dict[str, list[Chunk]] = {}
    rows = cursor.execute(f"{_READ_CHUNKS} ORDER BY job_id, position").fetchall()
    for row in rows:
        found.setdefault(row[1], []).append(Chunk(*row))
    return found


_JOB_PARAMETERS = (
    "?, ?, ?, ?, ?, ?, ?, make_timestamp_ms(?), make_timestamp_ms(?), make_timestamp_ms(?), "
    "make_timestamp_ms(?), make_timestamp_ms(?), ?, ?, ?, ?, ?"
)


def _job_values(job: Job) -> list[Any]:
    return [
        job.id,
        job.pool_id,
        job.connection_id,
        job.table,
        job.type,
        job.file_type,
        job.status,
        job.created_ms,
        job.changed_ms,
        job.executed_ms,
        job.finished_ms,
        job.deleted_ms,
        job.submits,
        job.truncated_values,
        json.dumps(job.keys),
        json.dumps(job.request),
        json.dumps(job.logs),
    ]


def _job(row: Any) -> Job:
    return Job(
        id=row[0],
        pool_id=row[1],
        connection_id=row[2],
        table=row[3],
        type=row[4],
        file_type=row[5],
        status=row[6],
        created_ms=row[7],
        changed_ms=row[8] or 0,
        executed_ms=row[9],
        finished_ms=row[10],
        deleted_ms=row[11],
        submits=row[12],
        truncated_values=row[13],
        keys=tuple(json.loads(row[14])),
        request=json.loads(row[15]),
        logs=tuple(json.loads(row[16])),
    )
