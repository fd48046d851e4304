"""DuckDB's own JSON reader, from a Singer input to one Parquet file.

The columns come from the first SCHEMA, so that nothing is guessed and every type is the one that
target-celonis gives. DuckDB reads the file itself, in parallel where there are threads; all
streams, which have the same columns, go into one file, with the stream's name as a column.

Stands alone: it runs as a program of its own, ``duckdb_json.py INPUT OUTPUT --threads N``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TYPES = {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}
_TEXTS = {"date-time": "TIMESTAMP", "date": "DATE"}


def column_type(schema: Mapping[str, Any]) -> str:
    """Return DuckDB's type for a property; objects, arrays and mixtures stay JSON text."""
    declared = schema.get("type", [])
    kinds = {declared} if isinstance(declared, str) else set(declared)
    (kind, *others) = sorted(kinds - {"null"}) or ("object",)
    if others:
        return "JSON"
    if kind == "string":
        return _TEXTS.get(schema.get("format", ""), "VARCHAR")
    return _TYPES.get(kind, "JSON")


def first_properties(path: Path) -> Mapping[str, Any]:
    """Return the properties of the first SCHEMA, which is the first line."""
    with path.open("rb") as file:
        message = json.loads(file.readline())
    properties: Mapping[str, Any] = message["schema"]["properties"]
    return properties


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _literal(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def statement(source: Path, output: Path, properties: Mapping[str, Any]) -> str:
    """Return the statement that reads an input and writes its records."""
    fields = (f"{_name(name)} {column_type(schema)}" for name, schema in properties.items())
    record = _literal(f"STRUCT({', '.join(fields)})")
    return (
        "COPY (SELECT stream, unnest(record) FROM read_json("  # noqa: S608  # quoted above
        f"{_literal(source)}, format = 'newline_delimited', "
        f"columns = {{type: 'VARCHAR', stream: 'VARCHAR', record: {record}}}) "
        f"WHERE type = 'RECORD') TO {_literal(output)} (FORMAT parquet, COMPRESSION snappy)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one input."""
    parser = argparse.ArgumentParser(description="Singer input -> Parquet, by DuckDB.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    with duckdb.connect(config={"threads": given.threads}) as connection:
        connection.execute(statement(given.input, given.output, first_properties(given.input)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
