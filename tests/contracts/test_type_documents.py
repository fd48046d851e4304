"""docs/types.md says of types, rules and names what the code does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from target_celonis import limits
from target_celonis.batch import RULES
from target_celonis.config import parse
from target_celonis.kinds import Kind
from target_celonis.names import column_names
from target_celonis.table import Column, plan_table

from .test_documents import ROOT, code, table_rows

TYPES = ROOT / "docs" / "types.md"

# Schemas that each row of the table of types speaks of, by its first cell.
SCHEMAS: dict[str, list[Any]] = {
    "`integer`": [{"type": ["null", "integer"]}],
    "`number`, or `number` and `integer`": [{"type": "number"}, {"type": ["integer", "number"]}],
    "`boolean`": [{"type": "boolean"}],
    "`string`": [{"type": "string"}],
    "`string` with the format `date-time`": [{"type": "string", "format": "date-time"}],
    "`string` with the format `date`": [{"type": "string", "format": "date"}],
    "`string` with the format `x-singer.decimal` or `singer.decimal`": [
        {"type": "string", "format": "x-singer.decimal"},
        {"type": "string", "format": "singer.decimal"},
    ],
    "`string` with any other format, such as `time`, or with `contentEncoding`": [
        {"type": "string", "format": "time"},
        {"type": "string", "contentEncoding": "base64"},
    ],
    "`string` together with numbers or booleans": [{"type": ["string", "integer", "boolean"]}],
    "`object`, `array`, no type, or any mixture with them": [
        {"type": "object"},
        {"type": "array"},
        {},
        {"type": ["string", "object"]},
    ],
}
ARROW = {
    "int64": "int64",
    "double": "double",
    "bool": "bool",
    "string": "string",
    "date32": "date32[day]",
    "timestamp in microseconds, UTC": "timestamp[us, tz=UTC]",
}


def column(schema: Any) -> Column:
    return plan_table("s", "t", {"properties": {"p": schema}}, ()).columns[0]


def test_the_table_of_types() -> None:
    rows = table_rows(TYPES, "json schema of a property")
    assert [row[0] for row in rows] == list(SCHEMAS)
    for shown, arrow, celonis in rows:
        for schema in SCHEMAS[shown]:
            planned = column(schema)
            assert planned.celonis_type == celonis, shown
            assert str(planned.arrow_type) == ARROW[re.split(r" \(|:", arrow)[0]], shown


def test_the_table_of_rules() -> None:
    assert {code(row[0]): row[1] for row in table_rows(TYPES, "rule")} == RULES


def test_the_examples_of_names() -> None:
    rows = table_rows(TYPES, "properties of a stream")
    assert len(rows) >= 5
    for row in rows:
        properties, columns = (re.findall(r"`([^`]*)`", cell) for cell in row)
        names = column_names(properties)
        assert [names[name] for name in properties] == columns


def test_the_keys_and_types_of_rules_for_columns() -> None:
    rows = {code(row[0]): row[1] for row in table_rows(TYPES, "key")}
    assert set(rows) == {"type", "length", "name", "drop"}
    assert re.findall(r"`([^`]+)`", rows["type"]) == list(Kind)
    assert f"{limits.LONGEST_DECLARED_STRING:,}" in rows["length"]


def test_the_lengths() -> None:
    text = TYPES.read_text(encoding="utf-8")
    for length in limits.STRING_LENGTHS:
        assert f"{length:,}" in text


@pytest.mark.parametrize("document", ["README.md", "docs/types.md", "docs/meltano.md"])
def test_examples_of_settings_are_taken(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    settings = [e for e in examples if isinstance(e, dict) and {"streams", "base_url"} & set(e)]
    assert settings or document == "docs/meltano.md"
    for values in settings:
        parse({"base_url": "embedded", "api_key": "a-key"} | values, {})
