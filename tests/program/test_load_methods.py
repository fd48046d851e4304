"""What the load methods leave in the tables."""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING

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


def test_each_load_method_twice(target: Target, emulator: Emulator, stream: str) -> None:
    """Also: the first rule that matches a stream counts, and may name table and keys."""
    methods = ("upsert", "append-only", "overwrite", "without-keys", "renamed")
    names = {method: f"{stream}_{method}" for method in methods}
    rules = [
        {"match": f"{stream}_app*", "load_method": "append-only"},
        {"match": names["overwrite"], "load_method": "overwrite"},
        {"match": names["renamed"], "table": f"its_{stream}", "key_properties": ["text"]},
        {"match": "*", "load_method": "upsert"},
        {"match": "*_upsert", "load_method": "append-only"},
    ]
    data = []
    for method, name in names.items():
        keys = () if method == "without-keys" else ("id",)
        data += [schema(name, keys=keys), *rows(name, range(3))]
    for time in (1, 2):
        ended = target.load(*data, syncing(None), streams=rules)
        assert ended.states == [b'{"bookmarks": {}, "currently_syncing": null}']
        assert len([line for line in ended.err.splitlines() if "are appended" in line]) == 1
        assert emulator.count(names["upsert"]) == 3
        assert emulator.count(names["append-only"]) == 3 * time
        assert emulator.count(names["overwrite"]) == 3
        assert emulator.count(names["without-keys"]) == 3 * time
        assert emulator.count(names["renamed"]) is None
        assert emulator.texts(f"its_{stream}") == {2: "a"}  # one row for its one key
    for method, name in names.items():
        jobs = emulator.history(name if method != "renamed" else f"its_{stream}")
        job_type = "REPLACE" if method == "overwrite" else "DELTA"
        keys = {"upsert": ["id"], "renamed": ["text"]}.get(method, [])
        first = ("REPLACE", []) if emulator.profile == "harsh" else (job_type, keys)
        assert [(job["type"], job["keys"]) for job in jobs] == [first, (job_type, keys)]
        assert [(job["submits"], job["status"]) for job in jobs] == [(1, "DONE")] * 2


def test_the_last_version_of_a_key_wins(target: Target, emulator: Emulator, stream: str) -> None:
    several = f"{stream}_several"
    properties = {
        name: {"type": kind}
        for name, kind in [
            ("a", "string"),
            ("b", "integer"),
            ("c", "boolean"),
            ("d", "number"),
            ("value", "integer"),
        ]
    }
    keys = [
        {"a": a, "b": b, "c": c, "d": d}
        for a in ("", "x", "X", "ab")
        for b in (0, 1, -1)
        for c in (True, False)
        for d in (0.5, 0.0)
    ]
    ended = target.load(
        schema(stream),
        record(stream, id=1, text="first"),
        record(stream, id=2, text="only"),
        record(stream, id=1, text="second"),
        record(stream, id=0, text=""),
        record(stream, id=1, text="last"),
        state({"n": 1}),
        schema(several, properties, ("a", "b", "c", "d")),
        *[record(several, **key, value=0) for key in keys],
        *[record(several, **key, value=1) for key in reversed(keys)],
    )
    values = f'SELECT min("value"), max("value"), count(*) FROM local.{several}'
    assert emulator.texts(stream) == {0: "", 1: "last", 2: "only"}
    assert emulator.query(values) == [["1", "1", str(len(keys))]]
    assert ended.states == [b'{"n": 1}']
    target.load(
        schema(stream),
        record(stream, id=1, text=None),
        schema(several, properties, ("a", "b", "c", "d")),
        *[record(several, **key, value=2) for key in keys],
    )
    assert emulator.texts(stream) == {0: "", 1: None, 2: "only"}
    assert emulator.query(values) == [["2", "2", str(len(keys))]]


# --- overwrite


def test_only_a_proven_end_replaces_a_table(
    target: Target, emulator: Emulator, stream: str
) -> None:
    names = {
        end: f"{stream}_{end}"
        for end in ("next", "version", "other_version", "version_first", "state", "after", "none")
    }
    old = [m for n in names.values() for m in (schema(n), *rows(n, range(5), "old"))]
    target.load(*old, load_method="overwrite", trust_end_of_input=True)

    schemas = [schema(name) for name in names.values()]
    ended = target.fail(
        4,
        "TC-INPUT-10",
        *schemas,
        state({"n": 0}),
        *rows(names["next"], [1], "new"),
        syncing(names["version"]),
        record(names["version"], 7, id=1, text="new"),
        message("ACTIVATE_VERSION", stream=names["version"], version=7),
        record(names["other_version"], 7, id=1, text="new"),
        message("ACTIVATE_VERSION", stream=names["other_version"], version=8),
        message("ACTIVATE_VERSION", stream=names["version_first"], version=7),
        record(names["version_first"], 7, id=1, text="new"),
        record(names["after"], 7, id=1, text="new"),
        message("ACTIVATE_VERSION", stream=names["after"], version=7),
        record(names["after"], 7, id=2, text="new"),
        *rows(names["state"], [1], "new"),
        state({"bookmarks": {names["state"]: 1}}),
        *rows(names["none"], [1], "new"),
        load_method="overwrite",
        min_row_ratio=0,
    )
    proven = {names["next"], names["version"]}
    for name in names.values():
        expected = {1: "new"} if name in proven else dict.fromkeys(range(5), "old")
        assert emulator.texts(name) == expected
        assert (f"`{name}`" in ended.last_words) == (name not in proven)
        jobs = emulator.history(name)
        assert len([job for job in jobs if job["submits"]]) == (2 if name in proven else 1)
    assert "trust_end_of_input" in ended.last_words
    assert b'"currently_syncing": null' not in ended.out
    for line in ended.states:  # nothing read behind the first record that is not loaded
        assert b"currently_syncing" in line or line == b'{"n": 0}'


def test_a_stream_that_is_being_read_has_not_ended(
    target: Target, emulator: Emulator, stream: str
) -> None:
    data = [schema(stream), *rows(stream, [1]), syncing(stream)]
    ended = target.fail(4, "TC-INPUT-10", *data, load_method="overwrite")
    assert ended.states == []
    assert emulator.count(stream) is None


def test_the_end_of_input_can_be_trusted_for_one_stream(
    target: Target, emulator: Emulator, stream: str
) -> None:
    trusted, other = f"{stream}_trusted", f"{stream}_other"
    data = [schema(trusted), schema(other), *rows(trusted, [1]), *rows(other, [1]), state({})]
    rules = [{"match": "*_trusted", "trust_end_of_input": True}]
    ended = target.fail(4, "TC-INPUT-10", *data, load_method="overwrite", streams=rules)
    assert emulator.count(trusted) == 1
    assert emulator.count(other) is None
    assert ended.states == []
    ended = target.load(*data, load_method="overwrite", trust_end_of_input=True)
    assert emulator.count(other) == 1
    assert ended.states == [b"{}"]
    # No rows at all: the table stays.
    ended = target.load(schema(other), syncing(None), load_method="overwrite")
    assert emulator.count(other) == 1
    assert len(emulator.history(other)) == 1
    assert other in ended.err
    assert len(ended.states) == 1


# --- texts


def test_long_texts_arrive_whole(target: Target, emulator: Emulator, stream: str) -> None:
    made_up = random.Random(7)  # noqa: S311  # test data
    letters = string.ascii_letters + "äöü€\U0001f600 \n\t\"\\'"
    texts = {n: "".join(made_up.choices(letters, k=n)) for n in (300, 16_000, 16_250)}
    target.load(schema(stream), *[record(stream, id=n, text=t) for n, t in texts.items()])
    assert emulator.texts(stream) == texts
    (job,) = emulator.history(stream)
    assert job["truncated_values"] == 0


def test_a_text_that_no_column_holds(target: Target, emulator: Emulator, stream: str) -> None:
    ended = target.fail(
        5, "TC-CONTRACT-05", schema(stream), record(stream, id=1, text="x" * 16_251), state({})
    )
    assert "16251" in ended.last_words
    assert "16250" in ended.last_words
    assert ended.states == []
    assert emulator.count(stream) is None
    assert emulator.history(stream) == []


def test_a_text_that_is_longer_than_its_column(
    target: Target, emulator: Emulator, stream: str
) -> None:
    target.load(schema(stream), record(stream, id=1, text="x" * 100))
    assert emulator.types(stream)["text"] == "STRING(255)"
    ended = target.fail(
        5,
        "TC-CONTRACT-03",
        schema(stream),
        record(stream, id=1, text="new"),
        record(stream, id=3, text="z" * 256),
        state({}),
    )
    for named in ("`text`", "255", "256", "overwrite"):
        assert named in ended.last_words
    assert ended.states == []
    assert emulator.texts(stream) == {1: "x" * 100}
    assert len(emulator.history(stream)) == 1
    target.load(
        schema(stream), record(stream, id=3, text="z" * 256), syncing(None), load_method="overwrite"
    )
    assert emulator.texts(stream) == {3: "z" * 256}
    assert emulator.types(stream)["text"] == "STRING(1000)"


# --- many streams


def test_fifty_streams_are_fifty_submits(target: Target, emulator: Emulator, stream: str) -> None:
    names = [f"{stream}_{n}" for n in range(50)]
    data = [schema(name) for name in names]
    for number in range(20):  # interleaved, with a state after each round
        data += [record(name, id=number, text=name) for name in names]
        data.append(state({"round": number}))
    ended = target.load(*data)
    jobs = emulator.history(*names)
    assert len(jobs) == sum(job["submits"] for job in jobs) == 50
    assert {job["status"] for job in jobs} == {"DONE"}
    counts = emulator.counts()
    assert {counts[name] for name in names} == {20}
    assert ended.states[-1] == b'{"round": 19}'


def test_streams_may_take_turns(target: Target, emulator: Emulator, stream: str) -> None:
    names = [f"{stream}_{n}" for n in range(21)]
    data = [schema(name) for name in names]
    for number in range(60):
        data.append(record(names[0], id=number, text="first"))
        data.append(record(names[1 + number % 20], id=number, text=str(number)))
    target.load(*data)
    assert emulator.count(names[0]) == 60
    for place, name in enumerate(names[1:]):
        numbers = (place, place + 20, place + 40)
        assert emulator.texts(name) == {number: str(number) for number in numbers}
    assert len(emulator.history(*names)) == 21


def test_two_streams_cannot_share_a_table(target: Target, emulator: Emulator, stream: str) -> None:
    one, other = f"{stream}_one", f"{stream}_other"
    shared = f"{stream}_shared"
    rules = [{"match": one, "table": shared}, {"match": other, "table": shared.upper()}]
    ended = target.fail(
        5,
        "TC-CONTRACT-01",
        schema(one),
        *rows(one, [1]),
        schema(other),
        *rows(other, [1]),
        streams=rules,
    )
    assert f"`{one}`" in ended.last_words
    assert f"`{other}`" in ended.last_words
    assert emulator.count(shared) is None


def test_chunks_of_a_megabyte_are_still_one_job(
    target: Target, emulator: Emulator, stream: str
) -> None:
    made_up = random.Random(3)  # noqa: S311  # test data
    texts = [made_up.randbytes(500).hex() for _ in range(6_000)]
    data = [schema(stream), *[record(stream, id=n, text=text) for n, text in enumerate(texts)]]
    data += [record(stream, id=n, text="again") for n in range(0, 6_000, 7)]
    ended = target.load(*data, state({}), chunk_size_mb=1)
    (job,) = emulator.history(stream)
    assert (job["submits"], job["status"]) == (1, "DONE")
    assert len(job["chunks"]) > 4
    assert max(chunk["bytes"] for chunk in job["chunks"]) <= 1_000_000
    assert sum(chunk["rows"] for chunk in job["chunks"]) == 6_000
    found = emulator.texts(stream)
    assert found == {n: "again" if n % 7 == 0 else text for n, text in enumerate(texts)}
    assert ended.states == [b"{}"]


# --- schemas that change


def test_a_schema_may_change_in_mid_run(target: Target, emulator: Emulator, stream: str) -> None:
    first = {"id": {"type": "integer"}, "a": {"type": "integer"}, "gone": {"type": "string"}}
    second = {"id": {"type": "integer"}, "a": {"type": "number"}, "b": {"type": "string"}}
    data = [
        schema(stream, first),
        record(stream, id=1, a=1, gone="x"),
        record(stream, id=2, a=2, gone="y"),
        schema(stream, second),
        record(stream, id=2, a=2.5, b="new"),
        record(stream, id=3, a=0.25, b="ü"),
        schema(stream, second),
        state({"done": True}),
    ]
    ended = target.load(*data)
    (job,) = emulator.history(stream)
    assert job["submits"] == 1
    sql = f"SELECT id, a, gone, b FROM local.{stream} ORDER BY id"
    expected = [["1", "1.0", "x", None], ["2", "2.5", None, "new"], ["3", "0.25", None, "ü"]]
    assert emulator.query(sql) == expected
    assert ended.states == [b'{"done": true}']


def test_a_new_column_is_added(target: Target, emulator: Emulator, stream: str) -> None:
    names = [f"{stream}_upserted", f"{stream}_appended"]
    rules = [{"match": "*_appended", "load_method": "append-only"}]
    wider = {"id": {"type": "integer"}, "text": {"type": "string"}, "new": {"type": "boolean"}}
    target.load(*[m for n in names for m in (schema(n), *rows(n, [1]))], streams=rules)
    data = [m for n in names for m in (schema(n, wider), record(n, id=2, text="b", new=True))]
    target.load(*data, streams=rules)
    for name in names:
        sql = f'SELECT id, "text", "new" FROM local.{name} ORDER BY id'
        assert emulator.query(sql) == [["1", "a", None], ["2", "b", "true"]]


def test_a_harsh_celonis(
    start: Callable[..., Emulator], make_target: Callable[..., Target], stream: str
) -> None:
    """DELTA makes no tables, and files must fit."""
    strict = start("--delta-missing-table", "error", "--strict-metadata", "on")
    target = make_target(**strict.settings)
    ended = target.fail(6, "TC-REMOTE-04", schema(stream), *rows(stream, [1]), state({}))
    assert ended.states == []
    for _ in range(2):
        target.load(schema(stream), *rows(stream, [1, 2]), create_missing_table="replace")
    assert strict.count(stream) == 2
    assert [job["type"] for job in strict.history(stream)] == ["DELTA", "REPLACE", "DELTA"]


def test_a_key_that_may_only_push(
    start: Callable[..., Emulator], make_target: Callable[..., Target], stream: str
) -> None:
    silent = start("--listing-permission", "none", "--queued-seconds", "0.2")
    ended = make_target(**silent.settings).load(schema(stream), *rows(stream, [1]), state({"a": 1}))
    assert len([line for line in ended.err.splitlines() if "may not list" in line]) == 1
    assert ended.states == [b'{"a": 1}']
    assert silent.count(stream) == 1
