"""The run report, its published schema and its document say the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from target_celonis.batch import RULES
from target_celonis.errors import CATALOGUE
from target_celonis.publish_plan import Extent
from target_celonis.publish_receipts import JobReceipt, ModelReceipt, PublishReceipt
from target_celonis.report import RunReport, StreamReport, as_json

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
STREAM: dict[str, Any] = SCHEMA["properties"]["streams"]["items"]
VALIDATOR = Draft202012Validator(SCHEMA)

count = st.integers(0, 10**15)
name = st.text(max_size=30)
code = st.sampled_from(sorted(CATALOGUE))
moment = st.floats(0, 4e9)
a_stream = st.builds(
    StreamReport,
    stream=name,
    table=name,
    read=count,
    loaded=count,
    merged=count,
    deleted=count,
    superseded=count,
    filtered=count,
    not_loaded=count,
    jobs=count,
    chunks=count,
    uploaded_bytes=count,
    length_unverified=st.booleans(),
    rules=st.dictionaries(
        st.tuples(name, st.sampled_from(sorted(RULES))), st.integers(1, 99), max_size=4
    ).map(Counter),
    job_ids=st.lists(name, max_size=3),
    texts=st.dictionaries(name, st.tuples(st.integers(0, 300), st.integers(1, 300)), max_size=4),
    failure=st.just("") | code,
)
seconds = st.floats(0, 1e6)
a_publish = st.builds(
    PublishReceipt,
    reason=name,
    jobs=st.lists(
        st.builds(JobReceipt, id=name, name=name, status=st.none() | name, seconds=seconds),
        max_size=2,
    ).map(tuple),
    models=st.lists(
        st.builds(
            ModelReceipt,
            id=name,
            name=name,
            extent=st.sampled_from(Extent),
            tables=st.lists(name, max_size=2).map(tuple),
            rows=st.none() | count,
            status=st.none() | name,
            seconds=seconds,
            fresh_as_of=st.none() | st.datetimes(timezones=st.just(UTC)),
        ),
        max_size=2,
    ).map(tuple),
)
a_run = st.builds(
    RunReport,
    version=name,
    run_id=name,
    started_at=moment,
    ended_at=moment,
    exit_code=st.integers(0, 143),
    error=st.none() | st.tuples(code, name, name),
    team=st.sampled_from(["embedded", "acme.eu-1.celonis.cloud", "127.0.0.1:8080"]),
    data_pool_id=name,
    connection_id=st.none() | name,
    streams=st.lists(a_stream, max_size=3).map(tuple),
    waits=st.dictionaries(name, st.floats(0, 1e7), max_size=4),
    submits_used=count,
    states_read=count,
    states_released=count,
    last_state_line=st.none() | st.integers(1, 10**12),
    notices=st.lists(name, max_size=3).map(tuple),
    publish=a_publish.map(PublishReceipt.shown),
)


def example() -> dict[str, Any]:
    text = (DOCS / "report.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    shown: dict[str, Any] = json.loads(found)
    return shown


def objects(schema: Any) -> list[dict[str, Any]]:
    """Return every part of a schema that describes an object with properties of its own."""
    if isinstance(schema, list):
        return [found for part in schema for found in objects(part)]
    if not isinstance(schema, dict):
        return []
    inner = [found for part in schema.values() for found in objects(part)]
    return [schema, *inner] if isinstance(schema.get("properties"), dict) else inner


@given(a_run)
@settings(max_examples=60, deadline=None)
def test_every_report_fits_the_schema(report: RunReport) -> None:
    VALIDATOR.validate(json.loads(json.dumps(as_json(report))))


def test_the_schema_is_one_and_describes_all() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    found = objects(SCHEMA)
    # The run, its error, a stream, a column, a rule, a wait, a data job, a data model.
    assert len(found) == 8
    for one in found:
        assert one["additionalProperties"] is False
        for key, part in one["properties"].items():
            assert part["description"].endswith("."), key


def full() -> dict[str, Any]:
    """Return a report in which nothing is empty."""
    stream = StreamReport("s", "t", texts={"c": (9, 10)}, rules=Counter({("p", "text_cut"): 1}))
    stream.job_ids.append("j")
    error = ("TC-LIMIT-01", "It took too long.", "Wait.")
    run = RunReport(
        *("1", "r", 0.0, 1.5, 7, error, "host", "pool", "connection", (stream,)),
        *({"push jobs": 1.0}, 1, 2, 3, 4, ("Look.",), ({"job": 1},)),
    )
    return as_json(run)


def test_the_schema_names_the_keys_of_the_report_in_their_order() -> None:
    shown = full()
    pairs = [
        (SCHEMA, shown),
        (SCHEMA["properties"]["error"]["anyOf"][1], shown["error"]),
        (STREAM, shown["streams"][0]),
    ]
    lists = ((STREAM, "columns_near_limit"), (STREAM, "rules"), (SCHEMA, "waits"))
    for schema, key in lists:
        values = shown if schema is SCHEMA else shown["streams"][0]
        pairs.append((schema["properties"][key]["items"], values[key][0]))
    for schema, values in pairs:
        names = [key for key in values if key != "publish"]
        assert schema["required"] == names
        assert sorted(schema["properties"]) == sorted(values)
    assert "publish" not in SCHEMA["required"]


def test_what_is_not_described_does_not_fit() -> None:
    for change in (
        {"more": 1},
        {"started_at": "2024-05-31 12:00"},
        {"last_state_line": 0},
        {"report_version": 2},
        {"streams": [full()["streams"][0] | {"more": 1}]},
        {"error": {"code": "TC-LIMIT-01"}},
    ):
        with pytest.raises(ValidationError):
            VALIDATOR.validate(full() | change)


def test_the_example_of_the_document() -> None:
    shown = example()
    VALIDATOR.validate(shown)
    assert list(shown) == [key for key in full() if key != "publish"]
    for stream in shown["streams"]:
        parts = ("loaded", "merged", "deleted", "superseded", "filtered", "not_loaded")
        assert stream["read"] == sum(stream[part] for part in parts)
        assert list(stream) == list(full()["streams"][0])
        assert all(rule["rule"] in RULES for rule in stream["rules"])
        for column in stream["columns_near_limit"]:
            assert column["longest"] * 100 >= column["length"] * 80
    assert shown["error"]["code"] in CATALOGUE
