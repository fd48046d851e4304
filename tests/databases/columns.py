"""The columns of the tables in the source, in a form that their rows and those of Celonis share.

No tap and nothing of the program is looked at: each column is read by an expression of PostgreSQL
and by one of DuckDB, and where taps write a value in several ways, a function reads them all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_DAY = 86_400
_MICRO = 1_000_000


def _as_it_is(value: Any) -> Any:
    return value


def _json(text: str) -> Any:
    """Return what JSON text says, or JSON text of JSON text."""
    value = json.loads(text)
    return json.loads(value) if isinstance(value, str) else value


def _array(text: str) -> Any:
    """Return an array, written as JSON or as PostgreSQL's text."""
    value = json.loads(text)
    if isinstance(value, str):
        return json.loads(value.translate({123: "[", 125: "]"}).replace("NULL", "null"))
    return value


def _microseconds(text: str) -> int:
    return _of_the_day(time.fromisoformat(text))


def _seconds_in_utc(text: str) -> int:
    found = time.fromisoformat(text)
    offset = found.utcoffset()
    return int(_of_the_day(found) / _MICRO - (offset.total_seconds() if offset else 0)) % _DAY


def _of_the_day(found: time) -> int:
    seconds = (found.hour * 60 + found.minute) * 60 + found.second
    return seconds * _MICRO + found.microsecond


def _seconds_of_interval(text: str) -> float:
    if "T" in text:  # as a date-time that is as long after 1970
        return datetime.fromisoformat(text).timestamp()
    hours, minutes, seconds = map(int, text.split(":"))
    return float((hours * 60 + minutes) * 60 + seconds)


@dataclass(frozen=True)
class _Form:
    """How to read a column; ``{}`` stands for its name."""

    source: str = "{}"
    celonis: str = "{}"
    read: Callable[[Any], Any] = _as_it_is


_SAME = _Form()
_DOUBLE = _Form("{}::float8")
_INSTANT = _Form("(extract(epoch FROM {}) * 1000000)::bigint", "epoch_us({})")
_JSON = _Form(read=_json)
_FORMS: dict[str, dict[str, _Form]] = {
    "orders": {
        "id": _SAME,
        "customer": _SAME,
        "amount": _DOUBLE,
        "status": _SAME,
        "note": _SAME,
        "created_at": _INSTANT,
        "updated_at": _INSTANT,
    },
    "wide": {
        "id": _SAME,
        "c_smallint": _SAME,
        "c_int": _SAME,
        "c_bigint": _SAME,
        "c_numeric": _DOUBLE,
        "c_num_18_4": _DOUBLE,
        "c_num_38_0": _DOUBLE,
        "c_real": _Form("{}::text::float8"),
        "c_double": _SAME,
        "c_bool": _SAME,
        "c_text": _SAME,
        "c_varchar": _SAME,
        "c_char": _SAME,
        "c_longtext": _SAME,
        "c_date": _Form(
            "{} - date '1970-01-01'", "date_diff('day', DATE '1970-01-01', CAST({} AS DATE))"
        ),
        "c_time": _Form("(extract(epoch FROM {}) * 1000000)::bigint", read=_microseconds),
        "c_timetz": _Form("(extract(epoch FROM {})::int + 86400) % 86400", read=_seconds_in_utc),
        "c_ts": _INSTANT,
        "c_tstz": _INSTANT,
        "c_interval": _Form("extract(epoch FROM {})::float8", read=_seconds_of_interval),
        "c_json": _JSON,
        "c_jsonb": _JSON,
        "c_intarr": _Form(read=_array),
        "c_textarr": _JSON,
        "c_uuid": _SAME,
        "c_bytea": _Form("encode({}, 'hex')"),
        "c_inet": _SAME,
        "c_mood": _SAME,
        "c_posint": _Form("{}::text"),
        "c_money": _SAME,
        "c_bit": _SAME,
        "c_xml": _SAME,
        "c_range": _SAME,
        "c_point": _SAME,
        "c_hstoreish": _JSON,
        "Mixed Case": _Form(celonis='"Mixed_Case"'),
        "ünïcode": _SAME,
        "updated_at": _INSTANT,
    },
}

# What the tap of PipelineWise does not read, and how it reads an array that is null.
_PIPELINEWISE = dict.fromkeys(
    ("c_interval", "c_bytea", "c_posint", "c_bit", "c_xml", "c_range", "c_point"), _Form("NULL")
) | {
    "c_intarr": _Form("coalesce({}, ARRAY[]::integer[])", read=_array),
    "c_textarr": _Form("coalesce({}, ARRAY[]::text[])", read=_json),
}

Rows = dict[int, list[Any]]
"""Rows by their key."""


def forms(tap_name: str, table: str) -> dict[str, _Form]:
    """Return how to read a table's columns."""
    found = _FORMS[table]
    if tap_name == "pipelinewise":
        return {name: _PIPELINEWISE.get(name, form) for name, form in found.items()}
    return found


def select_source(tap_name: str, table: str) -> str:
    """Return the statement that reads a table in PostgreSQL; its schema is ``{schema}``."""
    columns = ", ".join(
        f'{form.source.format(_quoted(name))} AS "{name}"'
        for name, form in forms(tap_name, table).items()
    )
    return f"SELECT {columns} FROM {{schema}}.{table} WHERE id > 0"


def select_celonis(tap_name: str, table: str, stream: str) -> str:
    """Return the statement that reads the same in the emulator's file."""
    columns = ", ".join(
        form.celonis.format(_quoted(name)) for name, form in forms(tap_name, table).items()
    )
    return f'SELECT {columns} FROM local."{stream}" WHERE id > 0'


def rows(tap_name: str, table: str, found: list[tuple[Any, ...]]) -> Rows:
    """Return rows of Celonis in the form that they have in the source."""
    readers = [form.read for form in forms(tap_name, table).values()]
    return {
        row[0]: [
            value if value is None else read(value)
            for read, value in zip(readers, row, strict=True)
        ]
        for row in found
    }


def _quoted(name: str) -> str:
    return f'"{name}"'
