"""The text of SQL: cutting it into statements and words, and what its words may ask for.

Hides: DuckDB's tokens and statement types, the functions that reach beyond the tables.
Guarantees: nothing is run here; what is refused is refused with one sentence.
Must not know: data jobs, connections to a database, HTTP.

Words are looked at, not a parsed tree: DuckDB shows a tree of queries only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from celonis_emulator.columns import OCTETS_PER_CHARACTER, folded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_TEXT_TYPES: Final = frozenset({"varchar", "char", "character", "nvarchar", "bpchar", "text"})
# Celonis' database has one type for whole numbers and one for floating ones, both of 64 bits.
_WIDE_TYPES: Final = dict.fromkeys(("int", "integer", "smallint", "tinyint"), "BIGINT") | (
    dict.fromkeys(("float", "real"), "DOUBLE")
)
_UNBOUND_DECIMALS: Final = frozenset({"numeric", "decimal"})
_DECIMAL: Final = "DECIMAL(37, 15)"

# They read files, run SQL out of texts, write logs, or need pointers into memory.
_FUNCTIONS: Final = re.compile(
    r"read_\w+|parquet_\w+|glob|sniff_\w+|query|query_table|json_execute_serialized_sql"
    r"|(python_)?(arrow|pandas)_scan\w*|python_\w+|seq_scan|(enable|disable)_(logging|profil)\w*"
    r"|write_\w+|truncate_duckdb_logs|\w*external_resource\w*|(force_)?checkpoint"
    r"|pragma_(storage|metadata)_info"
)
_CHUNKS: Final = re.compile(r"\.chunks(?!\w)", re.IGNORECASE)
_TABLE_FOLLOWS: Final = frozenset(
    {"from", "join", "into", "update", "table", "view", "exists", "using", "only"}
)
_OBJECTS: Final = frozenset({"table", "view"})
_BEFORE_OBJECTS: Final = frozenset({"or", "replace", "temp", "temporary", "local"})


class SqlRefused(Exception):  # noqa: N818
    """A statement that may not be run; the text is one sentence."""


@dataclass(frozen=True)
class Statement:
    """One statement: its text, and its words without comments.

    Attributes:
        text: As it was written.
        words: The words.
        places: Where in the text each word begins.
    """

    text: str
    words: tuple[str, ...]
    places: tuple[int, ...] = ()

    @property
    def declared_characters(self) -> dict[str, int]:
        """The lengths of text columns in a CREATE TABLE, by folded name; SQL counts octets."""
        lengths = {}
        for name, kind, *rest in _column_definitions(self.words):
            arguments = rest[1:] if rest[:1] == ["varying"] else rest
            if kind in _TEXT_TYPES and arguments[:1] == ["("] and arguments[1].isdecimal():
                length = max(1, int(arguments[1]) // OCTETS_PER_CHARACTER)
                lengths[unquoted(name)] = length
        return lengths

    @property
    def widened(self) -> str:
        """The text with the widths that Celonis' database gives to types of numbers."""
        pieces, done = [], 0
        for first, behind, wide in _narrow_types(self.words):
            pieces += [self.text[done : self.places[first]], wide]
            done = self.places[behind - 1] + len(self.words[behind - 1])
        return "".join([*pieces, self.text[done:]])


def split(sql: str) -> list[Statement]:
    """Cut a script at its semicolons; comments and quoted text may hold some."""
    # DuckDB counts in bytes.
    text = sql.encode("utf-8", "replace")
    tokens: Sequence[tuple[int, Any]] = duckdb.tokenize(text.decode())
    ends = [*(offset for offset, _ in tokens[1:]), len(text)]
    statements: list[Statement] = []
    begin: int | None = None
    words: list[str] = []
    places: list[int] = []

    def add(first: int, behind: int) -> None:
        whole = text[first:behind].decode().strip()
        statements.append(Statement(whole, tuple(words), tuple(places)))

    for (offset, kind), end in zip(tokens, ends, strict=False):
        word = text[offset:end].decode().strip()
        if word == ";":
            if begin is not None:
                add(begin, offset)
            begin, words, places = None, [], []
        elif kind != duckdb.token_type.comment:
            begin = offset if begin is None else begin
            words.append(word)
            places.append(len(text[begin:offset].decode()))
    if begin is not None:
        add(begin, len(text))
    return statements


def kind_of(statement: Statement) -> str | None:
    """Return the kind of a statement; None when it is more than one, or hides another.

    Raises:
        duckdb.Error: It cannot be parsed.
    """
    kinds = [parsed.type.name for parsed in duckdb.extract_statements(statement.text)]
    return str(kinds[0]) if len(kinds) == 1 else None


def check_query(sql: str) -> None:
    """Refuse all but one query that reads tables.

    Raises:
        SqlRefused: It is something else.
        duckdb.Error: It cannot be parsed.
    """
    statements = split(sql)
    kinds = [kind_of(statement) for statement in statements]
    explained = [folded(word) for statement in statements for word in statement.words[1:2]]
    reads = kinds == ["SELECT"] or (kinds == ["EXPLAIN"] and explained[0] in ("select", "with"))
    if not reads:
        msg = "Only one statement is run, and it must be a query: SELECT, WITH, DESCRIBE or SHOW."
        raise SqlRefused(msg)
    check_reach(statements[0])


def check_reach(statement: Statement) -> None:
    """Refuse what reads files, or runs SQL that is not to be seen.

    Raises:
        SqlRefused: It does.
    """
    for word, behind in zip(statement.words, (*statement.words[1:], ""), strict=True):
        if behind == "(" and _FUNCTIONS.fullmatch(unquoted(word)):
            msg = f"The function {word} reaches beyond the tables of the pool and is not run."
            raise SqlRefused(msg)
        # A quoted name in FROM can be that of a file; other directories are out of reach anyhow.
        if word[0] in "'\"$" and _CHUNKS.search(word):
            msg = f"The files of chunks are the emulator's own: {word} is not read."
            raise SqlRefused(msg)


def check_object(statement: Statement) -> None:
    """Refuse to create, drop or alter anything but tables and views.

    Raises:
        SqlRefused: It would.
    """
    words = [folded(word) for word in statement.words[1:6]]
    what = next((word for word in words if word not in _BEFORE_OBJECTS), "")
    if what not in _OBJECTS:
        name = f"{statement.words[0]} {what}".upper().strip()
        msg = f"A data job may change tables and views, but not run {name} statements."
        raise SqlRefused(msg)


def check_schemas(statement: Statement, foreign: Collection[str]) -> None:
    """Refuse tables of schemas that are not the pool's.

    Raises:
        SqlRefused: It names one.
    """
    words = [unquoted(word) for word in statement.words]
    qualifies = [behind == "." for behind in (*words[1:], "")]
    before = ["", *(word.lower() for word in statement.words[:-1])]
    # A table, its alias or a column may have the name of another pool.
    plain = {word for word, qualifier in zip(words, qualifies, strict=True) if not qualifier}
    for word, previous, qualifier in zip(words, before, qualifies, strict=True):
        if qualifier and word in foreign and (word not in plain or previous in _TABLE_FOLLOWS):
            msg = f"The schema {word} is not one of this data pool; use the pool's own tables."
            raise SqlRefused(msg)


def unquoted(name: str) -> str:
    """Return a name as it is compared, without its quotes."""
    if len(name) > 1 and name.startswith('"'):
        name = name[1:-1].replace('""', '"')
    return folded(name)


def _narrow_types(words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the words that name a type of numbers, first and behind, and the type to write."""
    lowered = [word.lower() for word in words]
    defined = {place + 1 for place in _definition_places(lowered)}
    casts = [False]
    for place, word in enumerate(lowered):
        previous = lowered[place - 1] if place else ""
        if word == "(":
            casts.append(previous in ("cast", "try_cast"))
        elif word == ")" and len(casts) > 1:
            casts.pop()
        types = place in defined or previous == "::" or (previous == "as" and casts[-1])
        if not types or (word not in _WIDE_TYPES and word not in _UNBOUND_DECIMALS):
            continue
        bound = lowered[place + 1 : place + 2] == ["("]
        if word in _UNBOUND_DECIMALS:
            if not bound:
                yield place, place + 1, _DECIMAL
        else:
            # FLOAT(53) is a DOUBLE too.
            behind = lowered.index(")", place) + 1 if bound and ")" in lowered[place:] else 0
            yield place, behind or place + 1, _WIDE_TYPES[word]


def _definition_places(lowered: Sequence[str]) -> Iterator[int]:
    """Yield where the columns' names are in CREATE TABLE and ALTER TABLE."""
    if lowered[:2] == ["alter", "table"]:
        for place, word in enumerate(lowered[:-1]):
            before = lowered[place - 1] if place else ""
            # ALTER TABLE name ALTER column TYPE type, with and without COLUMN and SET DATA.
            retyped = word == "type" and "alter" in lowered[3:place]
            if retyped or (before in ("add", "column", "exists") and "add" in lowered[:place]):
                yield place
        return
    for first, _ in _definitions(lowered):
        yield first


def _definitions(lowered: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where each column begins and ends in ``CREATE TABLE name (column, ...)``."""
    if lowered[:1] != ["create"] or "table" not in lowered[:5] or "(" not in lowered:
        return
    # Names stand between TABLE and the bracket; AS there means a query, not columns.
    opening = lowered.index("(")
    if "as" in lowered[:opening]:
        return
    depth, first = 1, opening + 1
    for place in range(opening + 1, len(lowered)):
        word = lowered[place]
        depth += (word == "(") - (word == ")")
        if depth == 0 or (depth == 1 and word == ","):
            if place - first > 1:
                yield first, place
            first = place + 1
            if depth == 0:
                return


def _column_definitions(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of each column in ``CREATE TABLE name (column, ...)``."""
    lowered = [word.lower() for word in words]
    for first, behind in _definitions(lowered):
        yield [words[first], *lowered[first + 1 : behind]]
