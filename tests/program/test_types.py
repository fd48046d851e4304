"""Every kind of value, compared with what an independent reading of the same lines gives."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from .harness import Target, lines, schema

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.both_profiles

NUMBER_OR_NULL = ["null", "number"]
PROPERTIES: dict[str, Any] = {
    "id": {"type": "integer"},
    "whole": {"type": ["null", "integer"]},
    "amount": {"type": NUMBER_OR_NULL},
    "mixed_number": {"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]},
    "flag": {"type": ["boolean", "null"]},
    "text": {"type": ["null", "string"]},
    "either": {"type": ["string", "integer", "null"]},
    "day": {"type": ["null", "string"], "format": "date"},
    "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
    "time": {"type": ["null", "string"], "format": "time"},
    "tree": {"type": ["null", "object"], "properties": {"a": {"type": "integer"}}},
    "list": {"type": ["null", "array"], "items": {"type": "string"}},
    "anything": {},
    "Größe (cm)": {"type": "integer"},
    "ID2": {"$ref": "#/definitions/whole"},
    "all_null": {"type": "null"},
}
TYPES = {
    "id": "BIGINT",
    "whole": "BIGINT",
    "amount": "DOUBLE",
    "mixed_number": "DOUBLE",
    "flag": "BOOLEAN",
    "text": "VARCHAR",
    "either": "VARCHAR",
    "day": "DATE",
    "at": "TIMESTAMP",
    "time": "VARCHAR",
    "tree": "VARCHAR",
    "list": "VARCHAR",
    "anything": "VARCHAR",
    "Größe__cm_": "BIGINT",
    "ID2": "VARCHAR",
    "all_null": "VARCHAR",
}
# JSON as taps write it, by property; each becomes one record.
VALUES: dict[str, list[str]] = {
    "whole": [
        *("0", "-1", "9223372036854775807", "-9223372036854775808", "12.0", "1e3", "1.5e3"),
        *('"42"', '" -7 "', '""', "null", "9007199254740993", "true"),
        *("9223372036854775808", "-9223372036854775809", "1e30"),
    ],
    "amount": [
        *("0", "0.1", "-0.0", "1e308", "5e-324", "123456789.123456789", "9007199254740993"),
        *("0.30000000000000004", "1e400", "NaN", "-Infinity", '"1.5"', '""', "null", "false"),
        "99999999999999999999999999999999000001",
    ],
    "mixed_number": ["1", "1.5", "-2", "null"],
    "flag": ["true", "false", "null", "0", "1", '"true"', '"False"', '"1"', '"no"', '""'],
    "text": [
        *('""', '" "', '"a\\nb\\t\\"\\\\"', '"ä\\u00e4\\ud83d\\ude00"', '"null"', "null"),
        *("1.50", "true", '{"b": [1, 2.0]}', '"2024-01-01"', '"' + "x" * 300 + '"'),
    ],
    "either": ['"a"', "1", "null", "1e2"],
    "day": [
        *('"2024-02-29"', '"1400-01-01"', '"9999-12-31"', '"1970-01-01"', "null", '""'),
        *('"2020-01-02T00:00:00+00:00"', '"2020-01-02 23:59:59"'),
    ],
    "at": [
        *('"2024-05-31T12:34:56Z"', '"2024-05-31T12:34:56.123456+02:00"', "null", '""'),
        *('"2024-05-31 12:34:56"', '"2024-05-31T12:34:56.1-0530"', '"2024-05-31"'),
        *('"1969-12-31T23:59:59.999999Z"', '"1500-01-01T00:00:00Z"', '"9999-12-31T23:59:59Z"'),
        *('"2024-05-31T12:34:56.123456789Z"', '"1677-09-21T00:00:00Z"', '"2262-04-12T00:00:00Z"'),
    ],
    "time": ['"12:34:56"', '"12:34:56.5+02:00"', "null"],
    "tree": ['{"a":1, "b" : {"c":[1.50,null,"ä"]}}', "{}", "null"],
    "list": ["[]", '["a", "b"]', "[null]", "null"],
    "anything": ['"a"', "1", "1.50", "true", "null", '{"a": 1}', "[1]"],
    "Größe (cm)": ["180"],
    "ID2": ["7", "null"],
    "all_null": ["null"],
}
EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  # as the database has it


def raw_records() -> list[dict[str, str]]:
    """Return records as JSON texts by property: each value once, each record short of some."""
    records = []
    for name, values in VALUES.items():
        for value in values:
            records.append({"id": str(len(records)), name: value})
    return records


def text_of(raw: str) -> str | None:
    """Return what a JSON text says, or the JSON of anything else."""
    if raw == "null":
        return None
    return str(json.loads(raw)) if raw.startswith('"') else raw


def number_of(raw: str) -> Decimal | None:
    text = text_of(raw)
    if text is None or not text.strip():
        return None
    if text in ("true", "false"):
        return Decimal(int(text == "true"))
    number = Decimal(text)
    return number if number.is_finite() else None


def whole(raw: str) -> int | None:
    number = number_of(raw)
    return int(number) if number is not None and -(2**63) <= number < 2**63 else None


def double(raw: str) -> float | None:
    number = number_of(raw)
    return None if number is None or math.isinf(float(number)) else float(number)


def boolean(raw: str) -> bool | None:
    text = text_of(raw)
    return None if not text else text.lower() in ("true", "1", "yes")


def moment(raw: str) -> dt.datetime | None:
    text = text_of(raw)
    if not text:
        return None
    if "." in text and text.endswith("789Z"):
        text = text.replace("789Z", "Z")  # below a microsecond
    found = dt.datetime.fromisoformat(text)
    return found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)


def day(raw: str) -> dt.date | None:
    text = text_of(raw)
    return dt.date.fromisoformat(text[:10]) if text else None


def json_text(raw: str) -> str | None:
    return None if raw == "null" else raw


ORACLE: dict[str, Callable[[str], Any]] = {
    "id": whole,
    "whole": whole,
    "amount": double,
    "mixed_number": double,
    "flag": boolean,
    "text": text_of,
    "either": text_of,
    "day": day,
    "at": moment,
    "time": text_of,
    "tree": json_text,
    "list": json_text,
    "anything": json_text,
    "Größe (cm)": whole,
    "ID2": json_text,
    "all_null": json_text,
}


def expected(raw: dict[str, str], encoding: str) -> tuple[Any, ...]:
    values = []
    for name, read in ORACLE.items():
        value = read(raw.get(name, "null"))
        if isinstance(value, dt.datetime):
            value = value.replace(tzinfo=None)
            if encoding == "millis":  # towards 1970
                past = value < EPOCH and value.microsecond % 1000
                value = value.replace(microsecond=value.microsecond // 1000 * 1000)
                value += dt.timedelta(milliseconds=1 if past else 0)
        values.append(value)
    return tuple(values)


@pytest.mark.parametrize("encoding", ["int96", "millis"])
def test_all_kinds_of_values(
    make_target: Callable[..., Target], stream: str, encoding: str
) -> None:
    records = raw_records()
    printed = [
        f'{{"type":"RECORD","stream":"{stream}","record":{{{body}}}}}'.encode()
        for body in (",".join(f'"{k}":{v}' for k, v in raw.items()) for raw in records)
    ]
    announced = json.loads(schema(stream, PROPERTIES))
    announced["schema"]["definitions"] = {"whole": {"type": ["integer", "string", "object"]}}
    target = make_target(base_url="embedded", timestamp_encoding=encoding)
    ended = target.run(lines(json.dumps(announced).encode(), *printed))
    assert ended.code == 0, ended.err
    with duckdb.connect(str(target.directory / "celonis.duckdb"), read_only=True) as database:
        described = database.execute(f'DESCRIBE local."{stream}"').fetchall()
        found = database.execute(f'SELECT * FROM local."{stream}" ORDER BY id').fetchall()
    assert {name: kind for name, kind, *_ in described} == TYPES
    assert len(found) == len(records)
    for row, raw in zip(found, records, strict=True):
        assert row == expected(raw, encoding), raw
        for value, wanted in zip(row, expected(raw, encoding), strict=True):
            assert type(value) is type(wanted)
            if isinstance(value, float):
                assert math.copysign(1, value) == math.copysign(1, wanted)
    for rule in ("beyond 64 bits", "NaN, an infinity"):
        assert rule in ended.err
