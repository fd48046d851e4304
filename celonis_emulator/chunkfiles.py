"""Chunk files: checking an uploaded file, and reading it with SQL.

Hides: Parquet footers, CSV dialects and Java date patterns. Guarantees: a file that passed
:func:`inspect` has named, flat, typed columns, with all keys among them.
Must not know: jobs' states, tables of the pool, HTTP beyond the refusals.
"""

# ruff: noqa: S608 - names in SQL are quoted identifiers, values are parameters or quoted
from __future__ import annotations

import glob
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from celonis_emulator.columns import FileColumn, folded
from celonis_emulator.csvtext import CsvDialect, read_header, sql_source, text_value, to_utf8
from celonis_emulator.refusals import Refusal, internal, invalid

if TYPE_CHECKING:
    from pathlib import Path

    from celonis_emulator.jobs import Job
    from celonis_emulator.switches import Switches

UNREADABLE = "PARQUET_NOT_READABLE"


@dataclass(frozen=True)
class ChunkFile:
    """A chunk on disk, ready to be read by SQL; ``kind`` is UPSERT or DELETE."""

    kind: str
    columns: tuple[FileColumn, ...]
    relation: str
    dialect: CsvDialect | None = None

    @property
    def is_text(self) -> bool:
        """Whether all values are text that the column's declared type must parse."""
        return self.dialect is not None

    def text_value(self, name: str, column_type: str) -> str:
        """Return the SQL that parses a text column of this file."""
        if self.dialect is None:
            msg = "only text is parsed"
            raise ValueError(msg)
        return text_value(self.dialect, name, column_type)


def inspect(
    cursor: duckdb.DuckDBPyConnection, path: Path, job: Job, kind: str, switches: Switches
) -> int:
    """Check an uploaded file and return its number of rows; ``kind`` is UPSERT or DELETE.

    Raises:
        Refusal: 400 for a file that cannot be loaded, 500 when a key column is missing.
    """
    if job.file_type == "CSV":
        names, rows = _inspect_csv(cursor, path, job)
    else:
        names, rows = _inspect_parquet(path)
    _check_names(names, job, switches.max_name_bytes)
    if kind == "DELETE" and switches.key_only_deletes == "refuse":
        _check_more_than_keys(names, job)
    return rows


def open_chunk(cursor: duckdb.DuckDBPyConnection, path: Path, job: Job, kind: str) -> ChunkFile:
    """Return a checked chunk with the columns that DuckDB sees in it."""
    if job.file_type == "CSV":
        dialect = CsvDialect.of(job.request.get("csvParsingOptions"))
        columns = tuple(FileColumn(name, "VARCHAR") for name in read_header(path, dialect))
        return ChunkFile(kind, columns, sql_source(path, dialect), dialect)
    # A directory called "k=1" above the database is no column of the file.
    relation = f"read_parquet({_literal(path)}, hive_partitioning = false)"
    described = cursor.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return ChunkFile(kind, tuple(FileColumn(row[0], row[1]) for row in described), relation)


def _literal(path: Path) -> str:
    # DuckDB expands wildcards in file names.
    return "'" + glob.escape(str(path)).replace("'", "''") + "'"


def _inspect_parquet(path: Path) -> tuple[list[str], int]:
    try:
        with pq.ParquetFile(path) as file:
            schema: Any = file.schema_arrow
            rows: int = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        msg = "The file is not a readable Parquet file."
        raise invalid("file", msg, UNREADABLE) from error
    for field in schema:
        if pa.types.is_null(field.type):
            msg = f"Column {field.name} has no type (Parquet null)."
            raise invalid(field.name, msg, "UNSUPPORTED_TYPE")
        if pa.types.is_nested(field.type):
            msg = f"Column {field.name} is nested; only primitive types are supported."
            raise invalid(field.name, msg, "UNSUPPORTED_TYPE")
    return list(schema.names), rows


def _inspect_csv(cursor: duckdb.DuckDBPyConnection, path: Path, job: Job) -> tuple[list[str], int]:
    try:
        dialect = CsvDialect.of(job.request.get("csvParsingOptions"))
        to_utf8(path, dialect)
        names = read_header(path, dialect)
        row = cursor.execute(f"SELECT count(*) FROM {sql_source(path, dialect)}").fetchone()
    except (duckdb.Error, ValueError, LookupError) as error:
        msg = "The file is not readable as CSV with the job's csvParsingOptions."
        raise invalid("file", msg, "CSV_NOT_READABLE") from error
    return names, int(row[0]) if row else 0


def _check_names(names: list[str], job: Job, max_name_bytes: int) -> None:
    if not names:
        raise invalid("file", "The file has no columns.", UNREADABLE)
    seen: dict[str, str] = {}
    for name in names:
        earlier = seen.get(folded(name))
        if earlier is not None:
            msg = f"Columns {earlier} and {name} have the same name; case does not matter."
            raise invalid(name, msg, "DUPLICATE_COLUMN")
        seen[folded(name)] = name
        problem = name_problem(name, max_name_bytes)
        if problem:
            raise invalid(name, problem)
    missing = [key for key in job.keys if folded(key) not in seen]
    if missing:
        raise _missing_keys(missing)


def _check_more_than_keys(names: list[str], job: Job) -> None:
    """Refuse a file of keys that does not hold whole rows, as far as the job tells."""
    in_file = {folded(name) for name in names}
    declared = [column.name for column in job.declared_columns]
    missing = [name for name in declared if folded(name) not in in_file]
    if missing:
        msg = f"Whole rows are expected; the file lacks the columns {', '.join(missing)}."
        raise invalid("file", msg, "KEYS_ONLY")
    if not declared and in_file <= {folded(key) for key in job.keys}:
        raise invalid(
            "file", "Whole rows are expected; the file has key columns only.", "KEYS_ONLY"
        )


def name_problem(name: str, max_name_bytes: int) -> str | None:
    """Say what is wrong with a table or column name, if anything."""
    if not name.strip():
        return "The name is empty."
    if "\0" in name:
        return "The name holds a NUL character."
    if max_name_bytes and len(name.encode("utf-8", "surrogatepass")) > max_name_bytes:
        return f"The name is longer than {max_name_bytes} bytes."
    return None


def _missing_keys(missing: list[str]) -> Refusal:
    names = ", ".join(missing)
    return internal(f"Internal error while validating the Parquet file: no key column {names}.")
