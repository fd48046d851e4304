"""Column types: Celonis, DuckDB and file types, and which of them fit each other.

Hides: the type tables and the SQL that turns a file's value into a column's value. Pure.
Guarantees: a text length is counted in characters; a timestamp ends in UTC without a zone.
Must not know: jobs, chunks, connections to a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_TEXT_CHARACTERS: Final = 80
# A text column made by hand (SQL) has no declared length; VARCHAR(65000) octets at 4 a character.
UNDECLARED_TEXT_CHARACTERS: Final = 16_250
OCTETS_PER_CHARACTER: Final = 4

DUCKDB_TYPES: Final[dict[str, str]] = {
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "STRING": "VARCHAR",
    "DATE": "DATE",
    "DATETIME": "TIMESTAMP",
    "TIME": "TIME",
}

_LISTED_TYPES: Final[dict[str, str]] = {
    "INTEGER": "INTEGER",
    "FLOAT": "FLOAT",
    "BOOLEAN": "INTEGER",
    "STRING": "STRING",
    "DATE": "DATE",
    "DATETIME": "DATE",
    "TIME": "DATE",
}

_INTEGERS = frozenset(
    [
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
    ]
)
_TEXTS = frozenset({"VARCHAR", "JSON", "UUID", "BLOB"})

# Celonis types of a file's column that may be stored in a column of another type.
_FITS: Final[dict[str, frozenset[str]]] = {
    "INTEGER": frozenset({"INTEGER"}),
    "FLOAT": frozenset({"FLOAT", "INTEGER"}),
    "BOOLEAN": frozenset({"BOOLEAN"}),
    "STRING": frozenset({"STRING"}),
    "DATE": frozenset({"DATE", "DATETIME"}),
    "DATETIME": frozenset({"DATETIME", "DATE"}),
    "TIME": frozenset({"TIME"}),
}


@dataclass(frozen=True)
class Column:
    """A column of a pool table; ``length_characters`` is None for all but STRING."""

    name: str
    type: str
    length_characters: int | None = None

    @property
    def listed_type(self) -> str:
        """The type that the column listing shows."""
        return _LISTED_TYPES[self.type]

    @property
    def listed_length(self) -> int | None:
        """The length that the column listing shows: octets, four for each character."""
        if self.length_characters is None:
            return None
        return self.length_characters * OCTETS_PER_CHARACTER


@dataclass(frozen=True)
class FileColumn:
    """A column of a chunk: its name and the type that DuckDB reads it as."""

    name: str
    duckdb_type: str


def quoted(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def folded(name: str) -> str:
    """Return the form in which names are compared: Celonis' names are case-insensitive."""
    return name.lower()


def celonis_type(duckdb_type: str) -> str | None:
    """Return the Celonis type that holds values of a DuckDB type, or None if none does."""
    if duckdb_type in _INTEGERS:
        return "INTEGER"
    if duckdb_type in ("DOUBLE", "FLOAT") or duckdb_type.startswith("DECIMAL"):
        return "FLOAT"
    if duckdb_type in _TEXTS or duckdb_type.startswith("ENUM"):
        return "STRING"
    if duckdb_type.startswith("TIMESTAMP"):
        return "DATETIME"
    if duckdb_type.startswith("TIME"):
        return "TIME"
    return duckdb_type if duckdb_type in ("BOOLEAN", "DATE") else None


def fits(file_type: str, column_type: str) -> bool:
    """Say whether values of one Celonis type may be stored in a column of another."""
    return file_type in _FITS[column_type]


def stored_value(column: FileColumn, column_type: str) -> str:
    """Return the SQL that turns a file's value into one for a column of ``column_type``."""
    name, file_type = quoted(column.name), column.duckdb_type
    if file_type == "BLOB":
        return f"decode({name})"
    # Spelled with or without a zone depending on unit; DuckDB has no direct cast for the finest.
    if file_type.startswith("TIMESTAMP") and ("TIME ZONE" in file_type or "TZ" in file_type):
        name = f"CAST({name} AS TIMESTAMPTZ)::TIMESTAMP"
    return f"CAST({name} AS {DUCKDB_TYPES[column_type]})"
