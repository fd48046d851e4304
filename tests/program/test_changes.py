"""Streams whose schema is not that of their table in the pool, and texts that outgrow a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .harness import Emulator, Target, record, rows, schema, state, syncing

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.both_profiles


def of(**types: str) -> dict[str, Any]:
    """Return the properties of a stream: ``id``, and others by type."""
    return {"id": {"type": "integer"}} | {
        name: {"type": ["null", kind]} for name, kind in types.items()
    }


def values(emulator: Emulator, table: str, column: str = "a") -> list[str | None]:
    """Return a column by ``id``."""
    return [row[0] for row in emulator.query(f'SELECT "{column}" FROM local.{table} ORDER BY id')]


# --- types


@pytest.mark.parametrize(
    ("there", "old", "now", "new", "found"),
    [
        ("number", 0.5, "integer", 2, ["0.5", "2.0"]),
        ("string", "x", "integer", 2, ["x", "2"]),
        ("string", "x", "number", 0.25, ["x", "0.25"]),
        ("string", "x", "boolean", True, ["x", "true"]),
        ("string", "x", "object", {"k": [1]}, ["x", '{"k": [1]}']),
    ],
)
def test_a_table_with_a_wider_type_takes_the_rows(
    target: Target,
    emulator: Emulator,
    stream: str,
    there: str,
    old: Any,
    now: str,
    new: Any,
    found: list[str],
) -> None:
    target.load(schema(stream, of(a=there)), record(stream, id=1, a=old))
    ended = target.load(schema(stream, of(a=now)), record(stream, id=2, a=new), state({"n": 2}))
    assert values(emulator, stream) == found
    assert ended.states == [b'{"n": 2}']


@pytest.mark.parametrize(
    ("there", "old", "now", "new", "word"),
    [
        ("integer", 1, "string", "x", "INTEGER"),
        ("integer", 1, "number", 0.5, "INTEGER"),
        ("number", 0.5, "string", "x", "FLOAT"),
        ("integer", 1, "object", {}, "INTEGER"),
    ],
)
def test_a_table_with_a_narrower_type_stops_the_run(
    target: Target,
    emulator: Emulator,
    stream: str,
    there: str,
    old: Any,
    now: str,
    new: Any,
    word: str,
) -> None:
    target.load(schema(stream, of(a=there)), record(stream, id=1, a=old))
    changed = (schema(stream, of(a=now)), record(stream, id=2, a=new), syncing(None))
    ended = target.fail(5, "TC-CONTRACT-04", *changed)
    for named in ("`a`", f"`{stream}`", word, "overwrite"):
        assert named in ended.last_words
    assert ended.states == []
    assert len(emulator.history(stream)) == 1
    target.load(*changed, load_method="overwrite")  # the way out that is named
    assert len(values(emulator, stream)) == 1
    target.load(*changed)


def test_a_schema_that_changes_twice_in_mid_run_is_one_job(
    target: Target, emulator: Emulator, stream: str
) -> None:
    target.load(
        schema(stream, of(a="integer", b="string")),
        record(stream, id=1, a=1, b="b"),
        schema(stream, of(a="number")),
        record(stream, id=2, a=0.5),
        schema(stream, of(a="number")),
        record(stream, id=3, a=1.5),
        schema(stream, of(a="string", c="boolean")),
        record(stream, id=4, a="x", c=True),
    )
    assert values(emulator, stream) == ["1", "0.5", "1.5", "x"]
    assert values(emulator, stream, "b") == ["b", None, None, None]
    assert values(emulator, stream, "c") == [None, None, None, "true"]
    assert [job["submits"] for job in emulator.history(stream)] == [1]


# --- frozen


@pytest.mark.parametrize(
    ("now", "new"),
    [
        (of(a="integer", b="string", c="string"), {"a": 1, "b": "x", "c": "y"}),
        (of(a="integer"), {"a": 1}),
        (of(a="number", b="string"), {"a": 1.5, "b": "x"}),
    ],
    ids=["new column", "column gone", "other type"],
)
@pytest.mark.parametrize("method", ["upsert", "append-only", "overwrite"])
def test_frozen_stops_at_any_difference(
    target: Target,
    emulator: Emulator,
    stream: str,
    now: dict[str, Any],
    new: dict[str, Any],
    method: str,
) -> None:
    settings = {"schema_change": "freeze", "load_method": method}
    before = (schema(stream, of(a="integer", b="string")), record(stream, id=1, a=1, b="x"))
    for _ in range(2):
        target.load(*before, syncing(None), **settings)
    rows_before = emulator.count(stream)
    changed = (schema(stream, now), record(stream, id=2, **new), syncing(None))
    ended = target.fail(5, "TC-CONTRACT-09", *changed, **settings)
    assert ended.states == []
    assert emulator.count(stream) == rows_before


# --- texts


def test_a_longer_text_every_night(target: Target, emulator: Emulator, stream: str) -> None:
    """The first load makes a column of 255; the night that outgrows it stops, whole and named."""
    stopped = []
    for night in range(1, 11):
        data = (
            schema(stream),
            record(stream, id=night, text="x" * 40 * night),
            state({"n": night}),
        )
        ended = target.run(b"\n".join(data) + b"\n")
        if ended.code:
            assert (ended.code, ended.states) == (5, [])
            assert "[TC-CONTRACT-03]" in ended.last_words
            stopped.append(night)
            target.load(*data, widen_columns=None, oversize_string="truncate")
    assert stopped == [7, 8, 9, 10]
    lengths = {key: len(text or "") for key, text in emulator.texts(stream).items()}
    assert lengths == {night: min(40 * night, 255) for night in range(1, 11)}
    assert all(job["truncated_values"] == 0 for job in emulator.history(stream))


def test_overwriting_once_is_a_way_out(target: Target, emulator: Emulator, stream: str) -> None:
    target.load(schema(stream), *rows(stream, [1]))
    long = (schema(stream), record(stream, id=1, text="x" * 300), syncing(None))
    target.fail(5, "TC-CONTRACT-03", *long)
    target.load(*long, load_method="overwrite")
    target.load(*long)
    assert emulator.texts(stream) == {1: "x" * 300}
    assert emulator.types(stream)["text"] == "STRING(1000)"


def test_what_is_cut_is_counted(target: Target, emulator: Emulator, stream: str) -> None:
    """Also: in a table that is made, at the most that a column holds; characters, not bytes."""
    data = (
        schema(stream),
        record(stream, id=1, text="é" * 16_251),
        record(stream, id=2, text="é" * 16_250),
        record(stream, id=3, text="z" * 20_000),
        record(stream, id=3, text="short"),
    )
    target.fail(5, "TC-CONTRACT-05", *data)
    ended = target.load(*data, oversize_string="truncate")
    assert emulator.texts(stream) == {1: "é" * 16_250, 2: "é" * 16_250, 3: "short"}
    assert "text (1)" in next(line for line in ended.err.splitlines() if "was cut" in line)


def test_a_key_is_never_cut(target: Target, emulator: Emulator, stream: str) -> None:
    properties = {"id": {"type": "string"}}
    target.load(schema(stream, properties), record(stream, id="a"))
    more = (schema(stream, properties), record(stream, id="b" * 300))
    target.fail(5, "TC-CONTRACT-03", *more, oversize_string="truncate")
    assert emulator.count(stream) == 1


def test_columns_that_a_push_widens(
    start: Callable[..., Emulator], make_target: Callable[..., Target], stream: str
) -> None:
    widening = start("--oversize", "widen")
    target = make_target(**widening.settings)
    target.load(schema(stream), *rows(stream, [1]))
    long = (schema(stream), record(stream, id=2, text="x" * 300), state({"n": 2}))
    target.fail(5, "TC-CONTRACT-03", *long)
    assert target.load(*long, widen_columns=True).states == [b'{"n": 2}']
    assert widening.texts(stream) == {1: "a", 2: "x" * 300}


def test_columns_that_a_push_does_not_widen(target: Target, stream: str) -> None:
    target.load(schema(stream), *rows(stream, [1]))
    long = (schema(stream), record(stream, id=2, text="x" * 300), state({"n": 2}))
    ended = target.fail(5, "TC-CONTRACT-08", *long, widen_columns=True)
    assert ended.states == []
    assert "`text`" in ended.last_words


# --- rules for columns


def test_rules_for_columns(target: Target, emulator: Emulator, stream: str) -> None:
    properties = {
        "id": {"type": "integer"},
        "exact": {"type": "number"},
        "code": {"type": "string"},
        "note": {"type": "string"},
        "secret_a": {"type": "string"},
        "secret_b": {"type": "object"},
        "when": {"type": "string"},
    }
    columns = {
        "exact": {"type": "string", "name": "Exact amount"},
        "code": {"length": 7},
        "secret_*": {"drop": True},
        "when": {"type": "date-time"},
        "*": {"length": 2000},
    }
    of_one = {"code": "x", "note": "y", "secret_a": "s", "secret_b": {}, "when": "2024-05-31"}
    line = record(stream, id=1, **of_one).replace(
        b'"code"', b'"exact": 0.1000000000000000055, "code"'
    )
    rules = [{"match": stream, "columns": columns}]
    ended = target.load(schema(stream, properties), line, streams=rules)
    assert emulator.types(stream) == {
        "id": "INTEGER",
        "Exact_amount": "STRING(255)",
        "code": "STRING(7)",
        "note": "STRING(2000)",
        "when": "DATETIME",
    }
    assert emulator.query(f'SELECT "Exact_amount", "when" FROM local.{stream}') == [
        ["0.1000000000000000055", "2024-05-31 00:00:00"]
    ]
    assert "secret" not in ended.err
    long = line.replace(b'"code": "x"', b'"code": "12345678"')
    target.fail(5, "TC-CONTRACT-05", schema(stream, properties), long, streams=rules)


def test_a_key_cannot_be_dropped(target: Target, stream: str) -> None:
    rules = [{"match": "*", "columns": {"i*": {"drop": True}}}]
    target.fail(5, "TC-CONTRACT-02", schema(stream), *rows(stream, [1]), streams=rules)


def test_a_name_cannot_be_given_twice(target: Target, stream: str) -> None:
    rules = [{"match": "*", "columns": {"id": {"name": "A b"}, "text": {"name": "a_B"}}}]
    target.fail(5, "TC-CONTRACT-10", schema(stream), *rows(stream, [1]), streams=rules)


# --- the guard


def test_a_table_does_not_shrink_unseen(target: Target, emulator: Emulator, stream: str) -> None:
    def replace_by(count: int) -> tuple[bytes, ...]:
        return (schema(stream), *rows(stream, range(count)), syncing(None))

    full = {"load_method": "overwrite"}
    target.load(*replace_by(10))
    first = target.load(*replace_by(100), **full)
    made_by_delta = emulator.profile == "lenient"
    assert ("how many rows it holds is not known" in first.err) == made_by_delta
    target.load(*replace_by(50), **full)
    ended = target.fail(5, "TC-CONTRACT-07", *replace_by(24), **full)
    for named in (f"`{stream}`", "50", "24", "min_row_ratio", "allow_shrink"):
        assert named in ended.last_words
    assert (ended.states, emulator.count(stream)) == ([], 50)
    target.load(*replace_by(24), **full, allow_shrink=[stream.upper()])
    assert emulator.count(stream) == 24
    target.load(*replace_by(1), **full, min_row_ratio=0)
    assert emulator.count(stream) == 1


# --- keys stay what they are


@pytest.mark.parametrize(
    ("there", "old", "now", "new"),
    [
        ({"type": "string"}, "5.0", {"type": "number"}, 5.0),
        ({"type": "number"}, 0.5, {"type": "integer"}, 2**53 + 1),
        (
            {"type": "string"},
            "2024-05-31T12:00:00Z",
            {"type": "string", "format": "date-time"},
            "2024-05-31T12:00:00Z",
        ),
    ],
    ids=["number as text", "whole number as double", "date-time as text"],
)
def test_a_key_is_not_sent_as_another_type(
    target: Target, stream: str, there: Any, old: Any, now: Any, new: Any
) -> None:
    """It would be spelled, or rounded, in another way, and not find its row."""
    target.load(schema(stream, {"id": there}), record(stream, id=old))
    target.fail(5, "TC-CONTRACT-04", schema(stream, {"id": now}), record(stream, id=new))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ({"type": "number"}, b"90071992547409921"),
        ({"type": "number"}, b'"0.30000000000000001"'),
        ({"type": "string", "format": "date-time"}, b'"2024-05-31T12:00:00.1234561Z"'),
    ],
)
def test_a_key_that_its_column_would_round(
    target: Target, stream: str, kind: Any, value: bytes
) -> None:
    line = record(stream, id="@").replace(b'"@"', value)
    ended = target.fail(4, "TC-INPUT-08", schema(stream, {"id": kind}), line)
    assert value.strip(b'"').decode() not in ended.err
    target.load(
        schema(stream, {"id": kind}),
        line,
        streams=[{"match": stream, "columns": {"id": {"type": "string"}}}],
    )


def test_names_with_line_ends_make_no_second_line(target: Target) -> None:
    name = "a\nb"
    ended = target.fail(
        4,
        "TC-INPUT-08",
        schema("s", {"id": {"type": "integer"}, name: {"type": "integer"}}),
        record("s", id=1, **{name: "x"}),
    )
    assert ended.err.splitlines()[-1].startswith("target-celonis: [TC-INPUT-08]")
