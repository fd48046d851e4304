"""What a stream becomes in Celonis: its table's name, columns, types and keys.

Hides how schema, naming rules and the user's column rules come together. Guarantees: every function
is pure, and the same schema gives the same ``TablePlan`` on every run, whatever the order of its
properties. Must not know: records, files, the network, the table in the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from target_celonis import limits
from target_celonis.errors import ContractError, InputError
from target_celonis.kinds import Kind
from target_celonis.names import column_names, legal_name
from target_celonis.schemas import column_kind

if TYPE_CHECKING:
    from target_celonis.stream_rules import ColumnRule

_ARROW: dict[Kind, Any] = {
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TEXT: pa.string(),
    Kind.JSON: pa.string(),
    Kind.DATETIME: pa.timestamp("us", "UTC"),
    Kind.DATE: pa.date32(),
}
_CELONIS: dict[Kind, str] = {
    Kind.INTEGER: "INTEGER",
    Kind.FLOAT: "FLOAT",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TEXT: "STRING",
    Kind.JSON: "STRING",
    Kind.DATETIME: "DATETIME",
    Kind.DATE: "DATE",
}

DELETED_COLUMN = "deleted row"
"""Name of the column that marks deleted rows in the spool; no table's column can have it."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        property_name: The name in the tap's records.
        name: The name in Celonis.
        kind: What it holds.
        max_length: The schema's ``maxLength`` in characters, when it is one to go by.
        is_key: Whether it is part of the key.
        length: The length that the user chose for a text column, in characters.
        is_named: Whether the user chose the name.
    """

    property_name: str
    name: str
    kind: Kind
    max_length: int | None = None
    is_key: bool = False
    length: int | None = None
    is_named: bool = False

    @property
    def arrow_type(self) -> Any:  # pyarrow ships no types
        """The column's type in record batches and chunks."""
        return _ARROW[self.kind]

    @property
    def celonis_type(self) -> str:
        """The ``columnType`` in a push job's table schema."""
        return _CELONIS[self.kind]

    @property
    def is_text(self) -> bool:
        """Whether the column has a length."""
        return self.kind in (Kind.TEXT, Kind.JSON)

    @property
    def longest(self) -> int:
        """Characters of the longest text that the column may be made to hold."""
        return self.length or limits.LONGEST_STRING


@dataclass(frozen=True)
class TablePlan:
    """A stream's table.

    Attributes:
        stream: The stream's name.
        table: The table's name in Celonis.
        columns: In the schema's order.
        dropped: Properties that the user's rules leave out.
        marks_deleted: Whether chunks tell, in a column of their own, which rows are deleted; no
            such chunk is uploaded.
    """

    stream: str
    table: str
    columns: tuple[Column, ...]
    dropped: frozenset[str] = frozenset()
    marks_deleted: bool = False

    @cached_property
    def arrow_schema(self) -> Any:  # pyarrow ships no types
        """Arrow schema of every batch and chunk of this table."""
        fields = [(column.name, column.arrow_type) for column in self.columns]
        if self.marks_deleted:
            fields.append((DELETED_COLUMN, pa.bool_()))
        return pa.schema(fields)

    @cached_property
    def keys(self) -> tuple[Column, ...]:
        """The key columns; none means that records are appended."""
        return tuple(column for column in self.columns if column.is_key)

    @cached_property
    def renamed(self) -> dict[str, str]:
        """Property names that Celonis cannot have, with the names they get."""
        return {c.property_name: c.name for c in self.columns if c.property_name != c.name}


def deleted_rows(table: Any) -> Any | None:  # pyarrow ships no types
    """Return which rows of a chunk's table are deleted; None where none can be."""
    return table.column(DELETED_COLUMN) if DELETED_COLUMN in table.column_names else None


def plan_table(
    stream: str,
    table: str,
    schema: Mapping[str, Any],
    key_properties: Sequence[str],
    rules: Sequence[ColumnRule] = (),
) -> TablePlan:
    """Turn a stream's JSON schema into its table.

    Args:
        stream: The stream's name.
        table: The table's name as configured; made legal here.
        schema: The ``schema`` of the SCHEMA message.
        key_properties: Names of the key properties, from the tap or the configuration.
        rules: What the user says of columns; the first that matches a property counts.

    Raises:
        InputError: The schema has no properties, or none that is kept.
        ContractError: A key property is not among them, or two columns would have one name.
    """
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    chosen = {name: next((r for r in rules if r.matches(name)), None) for name in properties}
    dropped = frozenset(name for name, rule in chosen.items() if rule and rule.drop)
    kept = [name for name in properties if name not in dropped]
    missing = [key for key in key_properties if key not in kept]
    if kept and missing:
        is_dropped = missing[0] in dropped
        raise ContractError(
            "TC-CONTRACT-02",
            f"The key property `{missing[0]}` of stream `{stream}` is "
            f"{'dropped by a rule' if is_dropped else 'not among its properties'}.",
            "Take `drop` from it in the `columns` of `streams`, or name other `key_properties`."
            if is_dropped
            else "Select it in the tap, or name other `key_properties` under `streams`.",
        )
    if not kept:
        raise InputError(
            "TC-INPUT-06",
            f"The SCHEMA of stream `{stream}` has no properties.",
            "Select columns of this stream in the tap, or deselect the stream.",
        )
    names = column_names(kept, {n: rule.name for n, rule in chosen.items() if rule and rule.name})
    keys = set(key_properties)
    columns = []
    for property_name in kept:
        kind, max_length = column_kind(properties[property_name], schema)
        rule = chosen[property_name]
        columns.append(
            Column(
                property_name=property_name,
                name=names[property_name],
                kind=rule.kind if rule and rule.kind else kind,
                max_length=max_length,
                is_key=property_name in keys,
                length=rule.length if rule else None,
                is_named=bool(rule and rule.name),
            )
        )
    return TablePlan(stream, legal_name(table), tuple(columns), dropped)


def widen(old: TablePlan, new: TablePlan) -> TablePlan:
    """Return the plan that holds the records of both, for a SCHEMA that changes in mid run.

    Columns that are new come last; columns that are gone stay and are null from now on. Two
    number kinds meet in FLOAT, a date and a date-time in DATETIME, any other two kinds in TEXT.

    Raises:
        ContractError: A new property takes the name of a column that there is.
    """
    fresh = {column.property_name: column for column in new.columns}
    columns = []
    for column in old.columns:
        other = fresh.pop(column.property_name, None)
        if other is None:
            columns.append(replace(column, is_key=False))
            continue
        lengths = [n for n in (column.max_length, other.max_length) if n is not None]
        columns.append(
            replace(
                column,
                kind=_common_kind(column.kind, other.kind),
                max_length=max(lengths, default=None),
                is_key=other.is_key,
            )
        )
    columns += fresh.values()
    names = column_names(
        [column.property_name for column in columns],
        {column.property_name: column.name for column in columns if column.is_named},
    )
    for column in old.columns:
        if names[column.property_name] != column.name:
            wanted = column.name.casefold()
            heir = next(p for p, name in names.items() if name.casefold() == wanted)
            raise ContractError(
                "TC-CONTRACT-10",
                f"Stream `{old.stream}`: the new property `{heir}` has a right to the column name "
                f"`{column.name}`, which `{column.property_name}` has by now.",
                "Choose a `name` for one of them in the `columns` of `streams`.",
            )
    columns = [replace(column, name=names[column.property_name]) for column in columns]
    return replace(old, columns=tuple(columns), dropped=new.dropped)


def changes_keys(old: TablePlan, new: TablePlan) -> bool:
    """Return whether rows of two plans are told apart in different ways."""
    if [key.name for key in old.keys] != [key.name for key in new.keys]:
        return True
    return any(
        before.kind != after.kind and not (after.kind is Kind.TEXT and before.kind in KEYS_AS_TEXT)
        for before, after in zip(old.keys, new.keys, strict=True)
    )


KEYS_AS_TEXT = frozenset({Kind.TEXT, Kind.INTEGER, Kind.BOOLEAN, Kind.DATE})
"""Kinds that have one spelling as a text, so that a key is found again."""


_MEETING = {
    frozenset({Kind.INTEGER, Kind.FLOAT}): Kind.FLOAT,
    frozenset({Kind.DATE, Kind.DATETIME}): Kind.DATETIME,
}


def _common_kind(one: Kind, other: Kind) -> Kind:
    return one if one == other else _MEETING.get(frozenset({one, other}), Kind.TEXT)
