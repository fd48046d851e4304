"""What the configuration says of single streams and their columns.

Hides the form of `streams` in a configuration. Guarantees: a rule that leaves here is checked;
every fault is one ``SettingsError`` that names its place. Must not know: other settings, schemas,
tables.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from target_celonis import limits
from target_celonis.errors import SettingsError
from target_celonis.kinds import Kind
from target_celonis.rule_keys import FLAG, NAMES, TEXT, Key, checked, one_of


class LoadMethod(StrEnum):
    """How a stream's records reach its table."""

    UPSERT = "upsert"
    APPEND_ONLY = "append-only"
    OVERWRITE = "overwrite"


@dataclass(frozen=True)
class ColumnRule:
    """What the configuration says of the properties that ``pattern`` fits.

    Attributes:
        pattern: A property's name, with ``*`` and ``?``.
        kind: What the column holds, whatever the schema says.
        length: Its length, for a text, in characters.
        name: Its name.
        drop: Whether the property is left out.
    """

    pattern: str
    kind: Kind | None = None
    length: int | None = None
    name: str | None = None
    drop: bool = False

    def matches(self, property_name: str) -> bool:
        """Return whether the rule is for a property."""
        return property_name == self.pattern or fnmatch.fnmatchcase(property_name, self.pattern)


@dataclass(frozen=True)
class StreamRule:
    """What the configuration says of the streams that ``match`` fits."""

    match: str
    table: str | None = None
    load_method: LoadMethod | None = None
    key_properties: tuple[str, ...] | None = None
    trust_end_of_input: bool | None = None
    columns: tuple[ColumnRule, ...] = ()

    def matches(self, stream: str) -> bool:
        """Return whether the rule is for a stream."""
        return fnmatch.fnmatchcase(stream, self.match)


@dataclass(frozen=True)
class StreamSettings:
    """The settings of one stream, rules applied."""

    stream: str
    table: str
    load_method: LoadMethod
    key_properties: tuple[str, ...] | None
    trust_end_of_input: bool
    columns: tuple[ColumnRule, ...] = ()


def stream_rule(rule: Any, index: int) -> StreamRule:  # unchecked JSON
    """Check one object of `streams`.

    Args:
        rule: The object.
        index: Its place in the list, from 0.

    Raises:
        SettingsError: It is no rule.
    """
    where = f"`streams[{index}]`"
    if not isinstance(rule, dict) or not isinstance(rule.get("match"), str):
        raise SettingsError("TC-SETTINGS-03", f"{where} must be an object with a `match` pattern.")
    given = checked(rule, _STREAM_KEYS, where)
    columns = given.pop("columns", {})
    return StreamRule(
        **given,
        columns=tuple(
            _column_rule(pattern, of_column, f"`columns[{pattern!r}]` in {where}")
            for pattern, of_column in columns.items()
        ),
    )


def _column_rule(pattern: str, rule: Any, where: str) -> ColumnRule:  # unchecked JSON
    if not isinstance(rule, dict):
        raise SettingsError("TC-SETTINGS-03", f"{where} must be an object.")
    given = checked(rule, _COLUMN_KEYS, where)
    if given.get("name") and _is_wild(pattern):
        raise SettingsError(
            "TC-SETTINGS-03",
            f"`name` in {where} would be the name of every column that the pattern fits.",
            "Give each property a rule of its own.",
        )
    kind = given.pop("type", None)
    if given.get("length") is not None and kind not in (None, Kind.TEXT, Kind.JSON):
        raise SettingsError(
            "TC-SETTINGS-03", f"`length` in {where} is for texts only, not for {kind}."
        )
    return ColumnRule(pattern, kind, **given)


def _is_wild(pattern: str) -> bool:
    return bool(set("*?") & set(pattern))


_STREAM_KEYS: dict[str, Key] = {
    "match": TEXT,
    "table": TEXT,
    "load_method": Key(
        one_of(tuple(LoadMethod)), lambda value: value in tuple(LoadMethod), LoadMethod
    ),
    "key_properties": NAMES,
    "trust_end_of_input": FLAG,
    "columns": Key("an object of rules by property name", lambda value: isinstance(value, dict)),
}
_COLUMN_KEYS: dict[str, Key] = {
    "type": Key(one_of(tuple(Kind)), lambda value: value in tuple(Kind), Kind),
    "length": Key(
        f"a whole number from 1 to {limits.LONGEST_DECLARED_STRING}",
        lambda value: type(value) is int and 1 <= value <= limits.LONGEST_DECLARED_STRING,
    ),
    "name": TEXT,
    "drop": FLAG,
}
