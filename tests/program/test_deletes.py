"""Deleted rows, and tables that a tap sends in full with a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .harness import (
    Emulator,
    Target,
    message,
    record,
    rows,
    schema,
    state,
    syncing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.both_profiles

PROPERTIES = {
    "id": {"type": "integer"},
    "text": {"type": ["null", "string"]},
    "_sdc_deleted_at": {"type": ["null", "string"], "format": "date-time"},
}
AT = "2024-05-31T12:34:56Z"


def gone(stream: str, key: int, at: Any = AT, **more: Any) -> bytes:
    """Return a record that says its row was deleted."""
    return record(stream, id=key, _sdc_deleted_at=at, **more)


def activate(stream: str, version: int) -> bytes:
    return message("ACTIVATE_VERSION", stream=stream, version=version)


def test_rows_are_deleted_by_key(target: Target, emulator: Emulator, stream: str) -> None:
    """Also: the last message of a key counts, and what is not there may be deleted."""
    target.load(schema(stream, PROPERTIES), *rows(stream, range(1, 8)))
    ended = target.load(
        schema(stream, PROPERTIES),
        gone(stream, 1),
        gone(stream, 2, text="b"),
        record(stream, id=3, text="c"),
        gone(stream, 3),
        gone(stream, 4),
        record(stream, id=4, text="again"),
        gone(stream, 5),
        gone(stream, 5, "2024-06-01"),
        gone(stream, 99),
        *rows(stream, [8], "new"),
        state({"n": 1}),
        hard_delete=True,
    )
    assert emulator.texts(stream) == {4: "again", 6: "a", 7: "a", 8: "new"}
    assert ended.states == [b'{"n": 1}']
    _, upserts, deletes = emulator.history(stream)
    assert [chunk["type"] for chunk in upserts["chunks"]] == ["UPSERT"]
    assert [chunk["type"] for chunk in deletes["chunks"]] == ["DELETE"]
    assert (upserts["type"], deletes["type"], deletes["keys"]) == ("DELTA", "DELTA", ["id"])
    assert (upserts["chunks"][0]["rows"], deletes["chunks"][0]["rows"]) == (2, 5)
    assert "lacks the property" not in ended.err


@pytest.mark.parametrize(
    ("at", "deletes"),
    [
        ("2024-05-31", True),
        ("2024-05-31 12:34:56.123456789+02", True),
        ("not a time at all", True),
        (1717158896, True),
        (True, True),
        (None, False),
        ("", False),
        (False, False),
    ],
)
def test_how_a_tap_says_deleted(
    target: Target, emulator: Emulator, stream: str, at: Any, deletes: bool
) -> None:
    known = PROPERTIES if deletes else PROPERTIES | {"_sdc_deleted_at": {"type": "string"}}
    target.load(schema(stream, known), *rows(stream, [1, 2]))
    target.load(schema(stream, known), gone(stream, 1, at, text="b"), hard_delete=True)
    assert emulator.texts(stream) == ({2: "a"} if deletes else {1: "b", 2: "a"})


def test_what_else_a_deleted_row_holds_does_not_matter(
    target: Target, emulator: Emulator, stream: str
) -> None:
    properties = PROPERTIES | {"n": {"type": ["null", "number"]}}
    target.load(schema(stream, properties), *rows(stream, [1, 2, 3]))
    odd = [gone(stream, 1, n="no number"), gone(stream, 2, text="x" * 20_000)]
    target.load(schema(stream, properties), *odd, hard_delete=True)
    assert emulator.texts(stream) == {3: "a"}


def test_a_schema_need_not_know_of_deletes(target: Target, emulator: Emulator, stream: str) -> None:
    target.load(schema(stream), *rows(stream, [1, 2]))
    ended = target.load(schema(stream), gone(stream, 1), hard_delete=True)
    assert emulator.texts(stream) == {2: "a"}
    assert "_sdc_deleted_at" not in emulator.types(stream)
    assert "not loaded" not in ended.err.replace("not loaded  jobs", "")


def test_only_deletes_into_a_table_that_is_not_there(
    target: Target, emulator: Emulator, stream: str
) -> None:
    ended = target.load(
        schema(stream, PROPERTIES), gone(stream, 1), state({"n": 1}), hard_delete=True
    )
    assert emulator.history(stream) == []
    assert ended.states == [b'{"n": 1}']


def test_deleted_rows_of_many_chunks(target: Target, emulator: Emulator, stream: str) -> None:
    target.load(schema(stream, PROPERTIES), *rows(stream, range(30_000)))
    deleted = [gone(stream, key) for key in range(0, 30_000, 3)]
    kept = rows(stream, range(1, 30_000, 3), "new")
    mixed = [line for pair in zip(deleted, kept, strict=True) for line in pair]
    target.load(schema(stream, PROPERTIES), *mixed, hard_delete=True, chunk_size_mb=1)
    counted = f"SELECT count(*), count(*) FILTER (\"text\" = 'new') FROM local.{stream}"
    assert emulator.query(counted) == [["20000", "10000"]]


def test_a_key_is_needed_to_delete(target: Target, emulator: Emulator, stream: str) -> None:
    keyless = schema(stream, PROPERTIES, ())
    target.load(keyless, *rows(stream, [1]), hard_delete=True)
    ended = target.fail(
        5, "TC-CONTRACT-11", keyless, *rows(stream, [2]), gone(stream, 1), hard_delete=True
    )
    assert "line 3" in ended.last_words
    assert emulator.count(stream) == 1
    target.load(keyless, gone(stream, 1), hard_delete=True, load_method="append-only")
    assert emulator.count(stream) == 2


def test_a_soft_delete_is_a_column(target: Target, emulator: Emulator, stream: str) -> None:
    target.load(schema(stream, PROPERTIES), *rows(stream, [1, 2]))
    ended = target.load(schema(stream, PROPERTIES), gone(stream, 1), gone(stream, 2, text="b"))
    assert emulator.query(
        f'SELECT id, "text", _sdc_deleted_at FROM local.{stream} ORDER BY id'
    ) == [
        ["1", None, "2024-05-31 12:34:56"],
        ["2", "b", "2024-05-31 12:34:56"],
    ]
    (warning,) = [line for line in ended.err.splitlines() if "hard_delete" in line]
    assert "WARNING" in warning
    assert "_sdc_deleted_at (1)" in warning


def test_deleted_rows_are_not_in_a_table_that_is_replaced(
    target: Target, emulator: Emulator, stream: str
) -> None:
    settings = {"hard_delete": True, "load_method": "overwrite"}
    target.load(schema(stream, PROPERTIES), *rows(stream, [1, 2]), syncing(None), **settings)
    ended = target.load(
        schema(stream, PROPERTIES),
        *rows(stream, [2, 3]),
        gone(stream, 2),
        syncing(None),
        **settings,
    )
    assert emulator.texts(stream) == {3: "a"}
    assert len(emulator.history(stream)) == 2
    ended = target.load(
        schema(stream, PROPERTIES), *rows(stream, [3]), gone(stream, 3), syncing(None), **settings
    )
    assert emulator.texts(stream) == {3: "a"}  # zero rows never replace a table
    assert "zero rows never replace" in ended.err
    assert len(ended.states) == 1


def test_a_strict_celonis_takes_our_deletes(
    start: Callable[..., Emulator], make_target: Callable[..., Target], stream: str
) -> None:
    harsh = start("--profile", "harsh")
    target = make_target(**harsh.settings, create_missing_table="replace", hard_delete=True)
    target.load(schema(stream, PROPERTIES), *rows(stream, [1, 2, 3]))
    target.load(schema(stream, PROPERTIES), gone(stream, 1), *rows(stream, [4]))
    assert sorted(harsh.texts(stream)) == [2, 3, 4]


# --- versions


def test_a_table_sent_in_full_is_replaced(target: Target, emulator: Emulator, stream: str) -> None:
    target.load(schema(stream), *rows(stream, range(3), "old"))
    ended = target.load(
        schema(stream),
        activate(stream, 7),
        *[record(stream, 7, id=key, text="new") for key in (1, 2, 2)],
        activate(stream, 7),
        state({"n": 1}),
    )
    assert emulator.texts(stream) == {1: "new", 2: "new"}
    assert emulator.history(stream)[-1]["type"] == "REPLACE"
    assert ended.states == [b'{"n": 1}']
    target.load(
        schema(stream),
        *[record(stream, 8, id=key, text="x") for key in (3, 4)],
        activate(stream, 8),
        process_activate_version_messages=False,
    )
    assert sorted(emulator.texts(stream)) == [1, 2, 3, 4]


def test_an_incremental_run_replaces_nothing(
    target: Target, emulator: Emulator, stream: str
) -> None:
    """What PipelineWise's taps send on every incremental run."""
    target.load(schema(stream), *rows(stream, range(1_000)))
    told = message(
        "SCHEMA",
        stream=stream,
        schema={"properties": PROPERTIES},
        key_properties=["id"],
        bookmark_properties=["id"],
    )
    ended = target.load(
        told,
        activate(stream, 7),
        *[record(stream, 7, id=key, text="new") for key in range(995, 1_012)],
        activate(stream, 7),
        state({"n": 1}),
    )
    assert emulator.count(stream) == 1_012
    assert len([line for line in ended.err.splitlines() if "ACTIVATE_VERSION" in line]) == 1


def test_a_version_that_began_again(target: Target, emulator: Emulator, stream: str) -> None:
    ended = target.load(
        schema(stream),
        *[record(stream, 1, id=key, text="first") for key in range(3_000)],
        *[record(stream, 2, id=key, text="second") for key in range(10)],
        record(stream, 1, id=11, text="late"),
        activate(stream, 1),
        activate(stream, 2),
        state({"n": 1}),
    )
    assert emulator.texts(stream) == dict.fromkeys(range(10), "second")
    assert ended.states == [b'{"n": 1}']
    row = next(
        line.split()
        for line in ended.err.splitlines()
        if f" {stream} " in line and " 3011 " in line
    )
    assert row[-10:-5] == ["3011", "10", "0", "0", "3001"]
