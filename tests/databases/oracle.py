"""What must stand in the tables, found from the lines that the tap printed and docs/types.md alone.

Nothing of the program is used here. A value is read with ``json``, its numbers as the decimals that
the tap wrote; where the column is to hold JSON text, the very characters of the line are taken.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Value = int | float | bool | str | date | datetime | None

# A number in the tap's own digits; NaN and the infinities come as floats.
_decode = json.JSONDecoder(parse_float=Decimal).raw_decode
_blank = re.compile(r"[ \t\r\n]*").match
_LENGTHS = (255, 1000, 4000, 16250)
_INT64 = range(-(2**63), 2**63)
_SURROGATE = re.compile("[\ud800-\udfff]")
# An escape in JSON text; the group is there if it is half of a surrogate pair.
_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.")
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?"
    r"(?:Z|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?)?"
)


def members(text: str, at: int = 0) -> Iterator[tuple[str, Any, str]]:
    """Walk through an object and return each member's name, value and text."""
    assert text[at] == "{", text[at : at + 40]
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = _decode(text, at)
        at = _skip(text, at)
        assert text[at] == ":"
        start = _skip(text, at + 1)
        value, end = _decode(text, start)
        yield name, value, text[start:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _blank(text, at)
    assert found is not None
    return found.end()


# --- from JSON schema to column


@dataclass(frozen=True)
class Column:
    """A column as docs/types.md has it.

    Attributes:
        name: In the table.
        type: Of Celonis.
        kinds: The JSON types of the property, ``null`` aside.
        least_length: The schema's ``maxLength``.
    """

    name: str
    type: str
    kinds: frozenset[str]
    least_length: int

    @classmethod
    def of(cls, name: str, schema: dict[str, Any]) -> Column:
        found = schema.get("type", [])
        kinds = frozenset([found] if isinstance(found, str) else found) - {"null"}
        table_name = re.sub(r"[^\w-]", "_", name)
        return cls(
            table_name, _type(kinds, schema.get("format")), kinds, schema.get("maxLength", 0)
        )

    def value(self, value: Any, text: str) -> Value:
        """Return what the column holds of a value that is ``text`` in the line."""
        if value is None or (value == "" and self.type != "STRING"):
            return None
        return _READERS[self.type](self, value, text)

    @property
    def takes_json_text(self) -> bool:
        scalars = {"string", "number", "integer", "boolean"}
        return not self.kinds or not self.kinds <= scalars or "string" not in self.kinds


def _type(kinds: frozenset[str], text_format: str | None) -> str:
    if kinds == {"string"}:
        return {"date-time": "DATETIME", "date": "DATE"}.get(text_format or "", "STRING")
    if kinds and kinds <= {"integer", "number"}:
        return "INTEGER" if kinds == {"integer"} else "FLOAT"
    return "BOOLEAN" if kinds == {"boolean"} else "STRING"


def _integer(_: Column, value: Any, text: str) -> int | None:
    number = int(value) if isinstance(value, str) else value
    assert isinstance(number, int), text
    return int(number) if number in _INT64 else None


def _float(_: Column, value: Any, text: str) -> float | None:
    assert isinstance(value, int | float | Decimal | str), text
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _boolean(_: Column, value: Any, text: str) -> bool:
    assert isinstance(value, bool), text
    return value


def _string(column: Column, value: Any, text: str) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and not column.takes_json_text:
        return _SURROGATE.sub("\ufffd", value)
    return _ESCAPE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)


def _date(_: Column, value: Any, text: str) -> date:
    assert isinstance(value, str), text
    return date.fromisoformat(value[:10])


def _date_time(_: Column, value: Any, text: str) -> datetime:
    found = _DATE_TIME.fullmatch(value)
    assert found is not None, text
    day, clock, digits, sign, hours, minutes, seconds = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0), seconds=int(seconds or 0))
    microseconds = timedelta(microseconds=int((digits or "0")[:6].ljust(6, "0")))
    local = datetime.fromisoformat(f"{day} {clock}") + microseconds
    return local + offset if sign == "-" else local - offset


_READERS = {
    "INTEGER": _integer,
    "FLOAT": _float,
    "BOOLEAN": _boolean,
    "STRING": _string,
    "DATE": _date,
    "DATETIME": _date_time,
}


# --- the lines


class Printed:
    """One stream of what a tap printed.

    Args:
        path: File with the tap's lines.
        stream: Which of its streams.

    Attributes:
        stream: Its name.
        columns: By the property's name.
        keys: Of the SCHEMA.
        states: The STATE lines' values, as they were written.
        activations: The versions in its ACTIVATE_VERSION lines.
        is_whole: Whether it was sent in full and said so after its last record.
    """

    def __init__(self, path: Path, stream: str) -> None:
        self._path = path
        self.stream = stream
        with path.open(encoding="utf-8") as lines:
            blank = " " if lines.readline().startswith('{"type": ') else ""
        # Each tap writes a record's line so, and nothing else begins like it.
        record = f'{{"type":{blank}"RECORD",{blank}"stream":{blank}"'
        self._record = f'{record}{stream}",{blank}"record":{blank}'
        self.columns: dict[str, Column] = {}
        self.keys: list[str] = []
        self.states: list[bytes] = []
        self.activations: list[int] = []
        self.is_whole = is_incremental = False
        for line in self._lines():
            if line.startswith(record):
                self.is_whole &= not line.startswith(self._record)
                continue
            message = {name: text for name, _, text in members(line)}
            if message["type"] == '"STATE"':
                self.states.append(message["value"].encode())
            elif json.loads(message["stream"]) != stream:
                continue
            elif message["type"] == '"ACTIVATE_VERSION"':
                self.activations.append(int(message["version"]))
                self.is_whole = not is_incremental
            else:
                assert message["type"] == '"SCHEMA"', line
                self.keys = json.loads(message["key_properties"])
                is_incremental = bool(json.loads(message.get("bookmark_properties", "[]")))
                found = json.loads(message["schema"])["properties"]
                self.columns = {name: Column.of(name, about) for name, about in found.items()}
        assert self.columns, f"no SCHEMA of {stream}"
        self._columns = list(self.columns.values())
        self._numbers = {name: number for number, name in enumerate(self.columns)}

    def _lines(self) -> Iterator[str]:
        with self._path.open(encoding="utf-8", newline="\n") as lines:
            yield from lines

    def _row(self, line: str) -> tuple[Value, ...]:
        row: list[Value] = [None] * len(self.columns)
        for name, value, text in members(line, len(self._record)):
            number = self._numbers[name]
            row[number] = self._columns[number].value(value, text)
        return tuple(row)

    def rows(self) -> Iterator[tuple[Value, ...]]:
        """Return a row for every record, in the tap's order."""
        return (self._row(line) for line in self._lines() if line.startswith(self._record))

    def rows_in_order(self) -> Iterator[tuple[Value, ...]]:
        """Return the same by ascending keys; only these and the lines' places are held."""
        (key,) = self.keys
        with self._path.open("rb") as lines:
            places, begin = [], 0
            for line in lines:
                if line.startswith(self._record.encode()):
                    values = members(line.decode(), len(self._record))
                    places.append(next((value, begin) for name, value, _ in values if name == key))
                begin += len(line)
            for _, place in sorted(places):
                lines.seek(place)
                yield self._row(lines.readline().decode())

    def rows_by_key(self) -> dict[Value, tuple[Value, ...]]:
        """Return the last row of every key."""
        (key,) = self.keys
        return {row[self._numbers[key]]: row for row in self.rows()}

    def types(self, rows: Iterable[tuple[Value, ...]]) -> dict[str, str]:
        """Return the columns with their types, as a first load of some rows makes them."""
        longest = [0] * len(self._columns)
        for row in rows:
            for number, value in enumerate(row):
                if isinstance(value, str):
                    longest[number] = max(longest[number], len(value))
        types = {}
        for column, length in zip(self._columns, longest, strict=True):
            needed = max(2 * length, column.least_length)
            size = next((size for size in _LENGTHS if size >= needed), _LENGTHS[-1])
            types[column.name] = f"STRING({size})" if column.type == "STRING" else column.type
        return types


def same(one: Value, other: Value) -> bool:
    """Compare two values, with their types and the sign of a zero."""
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return type(one) is type(other) and one == other
