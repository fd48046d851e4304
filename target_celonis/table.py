"""What a stream becomes in Celonis: its table's name, columns, types, lengths and keys.

Hides the JSON schemas of taps (drafts, ``anyOf``, ``$ref``, type lists) and the naming rules of
Celonis. Guarantees: every function is pure, and the same schema gives the same ``TablePlan`` on
every run, whatever the order of its properties. Must not know: records, files, the network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import pyarrow as pa

from target_celonis import limits
from target_celonis.errors import ContractError, InputError


class Kind(StrEnum):
    """What a column holds; decides its Arrow and its Celonis type."""

    INTEGER = "integer"
    FLOAT = "number"
    BOOLEAN = "boolean"
    TEXT = "string"
    DATETIME = "date-time"
    DATE = "date"
    JSON = "json"


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
# The listing knows four types only and does not tell BOOLEAN, DATE and DATETIME apart (observed).
_LISTED: dict[str, frozenset[str]] = {
    "INTEGER": frozenset({"INTEGER"}),
    "FLOAT": frozenset({"FLOAT"}),
    "STRING": frozenset({"STRING"}),
    "DATE": frozenset({"DATE", "DATETIME"}),
    "DATETIME": frozenset({"DATE", "DATETIME"}),
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        property_name: The name in the tap's records.
        name: The name in Celonis.
        kind: What it holds.
        max_length: The schema's ``maxLength`` in characters, when it is one to go by.
        is_key: Whether it is part of the key.
    """

    property_name: str
    name: str
    kind: Kind
    max_length: int | None = None
    is_key: bool = False

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


@dataclass(frozen=True)
class TablePlan:
    """A stream's table.

    Attributes:
        stream: The stream's name.
        table: The table's name in Celonis.
        columns: In the schema's order.
    """

    stream: str
    table: str
    columns: tuple[Column, ...]

    @cached_property
    def arrow_schema(self) -> Any:  # pyarrow ships no types
        """Arrow schema of every batch and chunk of this table."""
        return pa.schema([(column.name, column.arrow_type) for column in self.columns])

    @cached_property
    def keys(self) -> tuple[Column, ...]:
        """The key columns; none means that records are appended."""
        return tuple(column for column in self.columns if column.is_key)

    @cached_property
    def renamed(self) -> dict[str, str]:
        """Property names that Celonis cannot have, with the names they get."""
        return {c.property_name: c.name for c in self.columns if c.property_name != c.name}


@dataclass(frozen=True)
class ListedColumn:
    """A column as the pool lists it.

    Attributes:
        name: Its name.
        type: STRING, DATE, FLOAT or INTEGER.
        length: Characters that a text may have, where known.
    """

    name: str
    type: str
    length: int | None


def plan_table(
    stream: str, table: str, schema: Mapping[str, Any], key_properties: Sequence[str]
) -> TablePlan:
    """Turn a stream's JSON schema into its table.

    Args:
        stream: The stream's name.
        table: The table's name as configured; made legal here.
        schema: The ``schema`` of the SCHEMA message.
        key_properties: Names of the key properties, from the tap or the configuration.

    Raises:
        InputError: The schema has no properties.
        ContractError: A key property is not among them.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        raise InputError(
            "TC-INPUT-06",
            f"The SCHEMA of stream `{stream}` has no properties.",
            "Select columns of this stream in the tap, or deselect the stream.",
        )
    missing = [key for key in key_properties if key not in properties]
    if missing:
        raise ContractError(
            "TC-CONTRACT-02",
            f"The key property `{missing[0]}` of stream `{stream}` is not among its properties.",
            "Select it in the tap, or name other `key_properties` under `streams`.",
        )
    names = column_names(list(properties))
    keys = set(key_properties)
    columns = []
    for property_name, subschema in properties.items():
        facts = _Facts.of(subschema, schema)
        columns.append(
            Column(
                property_name=property_name,
                name=names[property_name],
                kind=facts.kind(),
                max_length=facts.max_length,
                is_key=property_name in keys,
            )
        )
    return TablePlan(stream=stream, table=legal_name(table), columns=tuple(columns))


@dataclass
class _Facts:
    """What a JSON schema says of the values it allows, alternatives taken together."""

    types: set[str]
    formats: set[str | None]
    max_length: int | None = None

    @classmethod
    def of(cls, subschema: Any, root: Mapping[str, Any]) -> _Facts:  # any JSON
        facts = cls(set(), set())
        facts._read(subschema, root, frozenset())
        return facts

    def _read(self, subschema: Any, root: Mapping[str, Any], seen: frozenset[str]) -> None:
        if not isinstance(subschema, Mapping):
            self.types.add("any")
            return
        reference = subschema.get("$ref")
        if isinstance(reference, str):
            target = None if reference in seen else _resolve(reference, root)
            if target is None:
                self.types.add("any")
            else:
                self._read(target, root, seen | {reference})
            return
        types = _declared_types(subschema)
        self.types |= types
        if "string" in types:
            form = subschema.get("format")
            self.formats.add(form if isinstance(form, str) else None)
            self._measure(subschema.get("maxLength"))
        found = bool(types)
        for part in _list(subschema.get("allOf")):
            if _is_typing(part):
                found = True
                self._read(part, root, seen)
        for alternative in [*_list(subschema.get("anyOf")), *_list(subschema.get("oneOf"))]:
            # One that names no type allows any, unless the types were named around it.
            if _is_typing(alternative) or not found:
                self._read(alternative, root, seen)
        alternatives = bool(subschema.get("anyOf") or subschema.get("oneOf"))
        if not found and not alternatives:
            values = [*_list(subschema.get("enum"))]
            values += [subschema["const"]] if "const" in subschema else []
            self.types |= {_json_type(value) for value in values} or {"any"}
            self.formats.add(None)

    def _measure(self, max_length: Any) -> None:  # any JSON
        if isinstance(max_length, int) and 0 < max_length <= limits.LONGEST_STRING:
            self.max_length = max(max_length, self.max_length or 0)

    def kind(self) -> Kind:
        types = frozenset(self.types - {"null"})
        if types in _PLAIN_KINDS:
            return _PLAIN_KINDS[types]
        if types == {"string"} and self.formats in ({"date-time"}, {"date"}):
            return Kind(next(iter(self.formats)) or "")
        # A text stays a text beside other plain values; only with objects it is JSON throughout.
        if "string" in types and types <= {"string", "integer", "number", "boolean"}:
            return Kind.TEXT
        return Kind.JSON


_PLAIN_KINDS = {
    frozenset({"integer"}): Kind.INTEGER,
    frozenset({"number"}): Kind.FLOAT,
    frozenset({"integer", "number"}): Kind.FLOAT,
    frozenset({"boolean"}): Kind.BOOLEAN,
}


_TYPING = frozenset({"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
"""Keywords that say which types a schema allows."""


def _is_typing(subschema: Any) -> bool:
    return isinstance(subschema, Mapping) and bool(_TYPING & set(subschema))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _declared_types(subschema: Mapping[str, Any]) -> set[str]:
    """Return the names in ``type``; what is no name stands for any type."""
    declared = subschema.get("type")
    names = declared if isinstance(declared, list) else [] if declared is None else [declared]
    return {name if isinstance(name, str) else "any" for name in names}


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:  # any JSON
    """Return what a local reference (``#/definitions/x``) points to, None when nothing."""
    if not reference.startswith("#"):
        return None
    node: Any = root
    for part in reference[1:].split("/"):
        if not part:
            continue
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return node


def _json_type(value: Any) -> str:  # any JSON
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(type(value), "any")


_ILLEGAL = re.compile(r"[^\w-]", re.UNICODE)


def legal_name(name: str) -> str:
    """Return a table or column name that Celonis takes everywhere.

    Letters and digits of any script, ``_`` and ``-`` stay; all else becomes ``_``. A name of
    more than 128 UTF-8 bytes is cut and gets a suffix made from the whole of it.
    """
    legal = _ILLEGAL.sub("_", name) or "_"
    if len(legal.encode(errors="replace")) <= limits.IDENTIFIER_BYTES:
        return legal
    return _with_suffix(legal, name)


def _with_suffix(legal: str, original: str, digits: int = 4) -> str:
    """Cut ``legal`` so that ``_`` and hex digits of the original's SHA-1 fit behind it."""
    digest = hashlib.sha1(original.encode(errors="surrogatepass"), usedforsecurity=False)
    suffix = "_" + digest.hexdigest()[:digits]
    room = limits.IDENTIFIER_BYTES - len(suffix)
    return legal.encode(errors="replace")[:room].decode(errors="ignore") + suffix


def column_names(properties: Iterable[str]) -> dict[str, str]:
    """Give every property a legal name that is unique without regard to case.

    Where names collide, the property whose name is legal already (the first by bytes) keeps it;
    the others get a suffix made from their own name, so that no order of properties matters.

    Returns:
        Column name by property name.
    """
    ordered = sorted(properties, key=lambda name: name.encode(errors="surrogatepass"))
    ordered.sort(key=lambda name: legal_name(name) != name)  # stable: the legal ones come first
    taken = {limits.RESERVED_COLUMN.casefold()}
    names: dict[str, str] = {}
    for property_name in ordered:
        name = legal_name(property_name)
        if name.casefold() not in taken:
            taken.add(name.casefold())
            names[property_name] = name
    for property_name in ordered:
        if property_name not in names:
            names[property_name] = _free_name(property_name, taken)
    return names


def _free_name(property_name: str, taken: set[str]) -> str:
    """Return a name with as many digits as it takes to be free, and take it."""
    digits = 4
    while True:
        name = _with_suffix(legal_name(property_name), property_name, digits)
        if name.casefold() not in taken:
            taken.add(name.casefold())
            return name
        digits += 4


def widen(old: TablePlan, new: TablePlan) -> TablePlan:
    """Return the plan that holds the records of both, for a SCHEMA that changes in mid run.

    Columns that are new come last; columns that are gone stay and are null from now on. Two
    number kinds meet in FLOAT, any other two kinds in TEXT.
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
    taken = {column.name.casefold() for column in columns}
    for column in fresh.values():
        name = column.name
        if name.casefold() in taken:
            name = _free_name(column.property_name, taken)
        taken.add(name.casefold())
        columns.append(replace(column, name=name))
    return TablePlan(stream=old.stream, table=old.table, columns=tuple(columns))


def _common_kind(one: Kind, other: Kind) -> Kind:
    if one == other:
        return one
    if {one, other} == {Kind.INTEGER, Kind.FLOAT}:
        return Kind.FLOAT
    return Kind.TEXT


def declared_length(longest: int, max_length: int | None) -> int:
    """Return the length to make a STRING column with.

    Args:
        longest: Characters of the longest text measured; at most ``limits.LONGEST_STRING``.
        max_length: The schema's ``maxLength``, if any.

    Returns:
        The smallest length offered that is twice the longest text and not below ``max_length``;
        the largest where twice is more than that.
    """
    wanted = max(2 * longest, max_length or 0)
    return next((n for n in limits.STRING_LENGTHS if n >= wanted), limits.LONGEST_STRING)


@dataclass(frozen=True)
class Difference:
    """How a stream's table and the table in the pool differ.

    Attributes:
        new: Columns that the pool's table lacks.
        retyped: Columns with another type, each with the type that is listed.
        narrow: Texts longer than their column: column, longest measured, length of the column.
    """

    new: tuple[Column, ...] = ()
    retyped: tuple[tuple[Column, str], ...] = ()
    narrow: tuple[tuple[Column, int, int], ...] = ()


def compare(
    plan: TablePlan, longest: Mapping[str, int], listed: Sequence[ListedColumn]
) -> Difference:
    """Compare what is to be pushed with what the pool lists.

    Args:
        plan: The stream's table.
        longest: Characters of the longest text by column name.
        listed: The columns of the table in the pool.
    """
    present = {column.name.casefold(): column for column in listed}
    new: list[Column] = []
    retyped: list[tuple[Column, str]] = []
    narrow: list[tuple[Column, int, int]] = []
    for column in plan.columns:
        there = present.get(column.name.casefold())
        if there is None:
            new.append(column)
            continue
        allowed = _LISTED.get(column.celonis_type)
        if allowed is not None and there.type not in allowed:
            retyped.append((column, there.type))
        elif column.is_text and there.length is not None:
            measured = longest.get(column.name, 0)
            if measured > there.length:
                narrow.append((column, measured, there.length))
    return Difference(tuple(new), tuple(retyped), tuple(narrow))
