"""The SQL of data jobs: cutting it into statements, and running them in a pool's schema.

Hides: DuckDB's tokens and statement types, transactions, what SQL does to declared text lengths.
Guarantees: each statement commits itself; none changes the emulator's own bookkeeping, settings or
other databases (files are out of the whole server's reach, see the warehouse).
Must not know: data jobs, their states and logs, HTTP.

The dialect of Celonis is Vertica's; DuckDB's is near to it in the plain parts of SQL only.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from celonis_emulator.columns import OCTETS_PER_CHARACTER, folded, quoted
from celonis_emulator.warehouse import (
    BOOKKEEPING_SCHEMA,
    create_schema,
    settle_lengths,
    table_identities,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A push job may be changing the same table.
TRIES: Final = 50
TRY_SECONDS: Final = 0.05
ROWS_AT_ONCE: Final = 10_000

# These have nothing to do where each statement commits itself.
_IDLE: Final = "TRANSACTION"
_DEFINING: Final = frozenset({"CREATE", "DROP", "ALTER"})
_ALLOWED: Final = _DEFINING | {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE_INTO", _IDLE}
# Scripts for Vertica call it after each load; DuckDB keeps its statistics itself.
_MACROS: Final = ("CREATE TEMP MACRO analyze_statistics(name) AS 0",)
_BOOKKEEPING: Final = re.compile(rf"(?<!\w){BOOKKEEPING_SCHEMA}(?!\w)", re.IGNORECASE)
_TEXT_TYPES: Final = frozenset({"varchar", "char", "character", "nvarchar", "bpchar", "text"})


class SqlRefused(Exception):  # noqa: N818
    """A statement that a data job may not run; the text is one sentence for its log."""


@dataclass(frozen=True)
class Statement:
    """One statement: its text, and its words without comments."""

    text: str
    words: tuple[str, ...]

    @property
    def declared_characters(self) -> dict[str, int]:
        """The lengths of text columns in a CREATE TABLE, by folded name; SQL counts octets."""
        lengths = {}
        for name, kind, *rest in _column_definitions(self.words):
            arguments = rest[1:] if rest[:1] == ["varying"] else rest
            if kind in _TEXT_TYPES and arguments[:1] == ["("] and arguments[1].isdecimal():
                length = max(1, int(arguments[1]) // OCTETS_PER_CHARACTER)
                lengths[_unquoted(name)] = length
        return lengths


def split(sql: str) -> list[Statement]:
    """Cut a script at its semicolons; comments and quoted text may hold some."""
    # DuckDB counts in bytes.
    text = sql.encode("utf-8", "replace")
    tokens: Sequence[tuple[int, Any]] = duckdb.tokenize(text.decode())
    ends = [*(offset for offset, _ in tokens[1:]), len(text)]
    statements: list[Statement] = []
    begin: int | None = None
    words: list[str] = []
    for (offset, kind), end in zip(tokens, ends, strict=False):
        word = text[offset:end].decode().strip()
        if word == ";":
            if begin is not None:
                statements.append(Statement(text[begin:offset].decode().strip(), tuple(words)))
            begin, words = None, []
        elif kind != duckdb.token_type.comment:
            begin = offset if begin is None else begin
            words.append(word)
    if begin is not None:
        statements.append(Statement(text[begin:].decode().strip(), tuple(words)))
    return statements


class Session:
    """A place to run statements: unqualified names mean tables of ``schema``."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, schema: str) -> None:
        self._cursor = cursor
        create_schema(cursor, schema)
        row = cursor.execute("SELECT current_database()").fetchone() or ("",)
        cursor.execute(f"USE {quoted(row[0])}.{quoted(schema)}")
        for macro in _MACROS:
            cursor.execute(macro)

    def run(self, statement: Statement) -> int | None:
        """Run one statement and commit it; return how many rows it wrote, removed or found.

        Raises:
            SqlRefused: It does what a data job may not do.
            duckdb.Error: It cannot be run.
        """
        kind = _kind(statement)
        if kind == _IDLE:
            return None
        for left in reversed(range(TRIES)):
            try:
                with _transaction(self._cursor):
                    return self._run(statement, defines=kind in _DEFINING)
            except duckdb.TransactionException:
                if not left:
                    raise
                time.sleep(TRY_SECONDS)
        raise AssertionError

    def _run(self, statement: Statement, *, defines: bool) -> int | None:
        before = table_identities(self._cursor) if defines else {}
        result = self._cursor.execute(statement.text)
        rows = _rows(result)
        if defines:
            settle_lengths(self._cursor, before, statement.declared_characters)
        return rows


def _kind(statement: Statement) -> str:
    """Return what kind of statement it is.

    Raises:
        SqlRefused: It is none for data jobs.
        duckdb.Error: It cannot be parsed.
    """
    kinds = [parsed.type.name for parsed in duckdb.extract_statements(statement.text)]
    if len(kinds) != 1 or kinds[0] not in _ALLOWED:
        name = " ".join(statement.words[:1]).upper()
        msg = f"A data job may query tables and change them, but not run {name} statements."
        raise SqlRefused(msg)
    if any(_BOOKKEEPING.search(word) for word in statement.words):
        msg = f"The schema {BOOKKEEPING_SCHEMA} is the emulator's own; use tables of the pool."
        raise SqlRefused(msg)
    return str(kinds[0])


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


def _column_definitions(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of each column in ``CREATE TABLE name (column, ...)``."""
    lowered = [word.lower() for word in words]
    if lowered[:1] != ["create"] or "table" not in lowered[:5] or "(" not in lowered:
        return
    # Names stand between TABLE and the bracket; AS there means a query, not columns.
    opening = lowered.index("(")
    if "as" in lowered[:opening]:
        return
    depth, column = 1, list[str]()
    for word, low in zip(words[opening + 1 :], lowered[opening + 1 :], strict=True):
        depth += (low == "(") - (low == ")")
        if depth == 0 or (depth == 1 and low == ","):
            if len(column) > 1:
                yield column
            column = []
            if depth == 0:
                return
        else:
            column.append(word if not column else low)


def _unquoted(name: str) -> str:
    if name.startswith('"'):
        name = name[1:-1].replace('""', '"')
    return folded(name)
