"""Bytes become messages: every line, however it is cut, spelled or broken."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.changes import Changes
from target_celonis.errors import InputError
from target_celonis.lines import Source
from target_celonis.message_parser import read_messages
from target_celonis.messages import (
    ActivateVersionMessage,
    BatchMessage,
    Idle,
    Message,
    RecordRun,
    SchemaMessage,
    StateMessage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 50_000_000


class Pieces(io.RawIOBase):
    """A raw file that hands out its bytes in pieces of given sizes, the last size for ever."""

    def __init__(self, data: bytes, *sizes: int) -> None:
        super().__init__()
        self._data = io.BytesIO(data)
        self._sizes = list(sizes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]
        got = self._data.read(min(size, len(buffer)))
        buffer[: len(got)] = got
        return len(got)


def read(data: bytes | IO[Any], limit: int = LIMIT) -> list[Message]:
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    return list(read_messages(Source(file), limit))


def line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def record(stream: str, value: Any, **more: Any) -> bytes:
    return line(type="RECORD", stream=stream, record=value, **more)


SCHEMA = line(type="SCHEMA", stream="s", schema={"properties": {"a": {}}}, key_properties=["a"])
STATE = b'{"type": "STATE", "value": {"a":  1}}\n'
BATCH = '{"type":"BATCH","stream":"s","encoding":{"format":"jsonl"}'


def unrolled(messages: list[Message]) -> list[Any]:
    """Return messages with the records between two others in the order of their lines."""
    events: list[Any] = []
    between: list[Any] = []
    for message in messages:
        if isinstance(message, RecordRun):
            assert len(message.records) == len(message.lines) > 0
            between += [
                (number, message.stream, message.version, text)
                for number, text in zip(message.lines, message.records, strict=True)
            ]
        else:
            events += [*sorted(between), message]
            between = []
    return [*events, *sorted(between)]


# --- what good lines become


def test_each_type_of_message() -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
    data = (
        line(type="SCHEMA", stream="s", schema=schema, key_properties=["id"])
        + record("s", {"id": 1}, time_extracted="2024-05-31T00:00:00Z")
        + line(type="ACTIVATE_VERSION", stream="s", version=17)
        + line(type="STATE", value={"currently_syncing": "s"})
    )
    assert read(data) == [
        SchemaMessage(1, "s", schema, ("id",), "s"),
        RecordRun("s", None, [b'{"id": 1}'], [2]),
        ActivateVersionMessage(3, "s", 17),
        StateMessage(4, b'{"currently_syncing": "s"}', names_syncing=True, currently_syncing="s"),
    ]


def test_when_the_newest_of_several_records_was_extracted() -> None:
    times = {
        "s": ["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "2024-12-01T00:00:00Z"],
        "t": ["2026-01-01T00:00:00Z"],
    }
    data = b"".join(
        record(name, {}, time_extracted=time) for name, all_of in times.items() for time in all_of
    )
    later = record("s", {}, time_extracted="2023-01-01T00:00:00Z") + record("s", {})
    runs = read_watched(data + STATE + record("t", {}) + later)
    assert [(run.stream, list(run.extracted.values())) for run in runs] == [
        ("s", [b'"2025-01-01T00:00:00Z"']),
        ("t", [b'"2026-01-01T00:00:00Z"']),
        ("t", []),
        ("s", [b'"2023-01-01T00:00:00Z"']),
    ]
    assert all(run.extracted == {} for run in read(data) if isinstance(run, RecordRun))


def read_watched(data: bytes) -> list[RecordRun]:
    found = read_messages(Source(io.BytesIO(data)), LIMIT, watch_time_extracted=True)
    return [message for message in found if isinstance(message, RecordRun)]


a_form = st.sampled_from(
    [
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%d %H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S.%fZ",
        "%Y-%m-%dT%H:%M:%S+02:00",
        "%Y-%m-%dT%H:%M:%S-05:00",
        "%Y-%m-%dT%H:%M:%S.%f+00:00",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M:%S.%f",
    ]
)
a_moment = st.datetimes(datetime(2024, 2, 28), datetime(2024, 3, 2))  # noqa: DTZ001  # its zone is the form's


@given(st.lists(st.tuples(a_moment, a_form), min_size=1))
def test_the_newest_is_kept_whatever_the_form(times: list[tuple[datetime, str]]) -> None:
    texts = [moment.strftime(form) for moment, form in times]
    (run,) = read_watched(b"".join(record("s", {}, time_extracted=text) for text in texts))
    every, kept = Changes(), Changes()
    every.note_extraction("s", [b'"%b"' % text.encode() for text in texts])
    kept.note_extraction("s", run.extracted.values())
    assert kept == every
    assert len(run.extracted) <= len({form for _, form in times})


def test_no_input_is_no_message() -> None:
    assert read(b"") == []
    assert read(b"\n \n\t\r\n") == []


@pytest.mark.parametrize("keys", ["", ', "key_properties": null', ', "key_properties": []'])
def test_a_schema_may_have_no_keys(keys: str) -> None:
    text = '{"type": "SCHEMA", "stream": "s", "schema": {}' + keys + "}\n"
    assert read(text.encode()) == [SchemaMessage(1, "s", {}, (), "s")]


@pytest.mark.parametrize(
    ("bookmarks", "expected"),
    [
        ("", ()),
        (', "bookmark_properties": null', ()),
        (', "bookmark_properties": []', ()),
        (', "bookmark_properties": ["a", "b"]', ("a", "b")),
        (', "bookmark_properties": "updated_at"', ("updated_at",)),
    ],
)
def test_a_schema_may_name_bookmarks(bookmarks: str, expected: tuple[str, ...]) -> None:
    text = '{"type": "SCHEMA", "stream": "s", "schema": {}' + bookmarks + "}\n"
    assert read(text.encode()) == [SchemaMessage(1, "s", {}, (), "s", expected)]


@pytest.mark.parametrize(
    ("more", "compression", "version"),
    [
        ("", None, None),
        (', "compression": null', None, None),
        (', "compression": "none"', "none", None),
        (', "compression": "gzip", "level": 9', "gzip", None),
        ('}, "version": null, "x": {', None, None),
        ('}, "version": 17, "time_extracted": {', None, 17),
    ],
)
def test_a_batch_names_files(more: str, compression: str | None, version: int | None) -> None:
    text = '{"type":"BATCH", "stream":"s", "manifest":["file:///a", "é"], "encoding": '
    text += '{"format": "jsonl"' + more + "}}\n"
    (message,) = read(text.encode())
    assert message == BatchMessage(1, "s", "jsonl", compression, ("file:///a", "é"), version)


def test_where_records_stand() -> None:
    run = RecordRun("s", None, [b"{}", b"{}"], [12, 14])
    assert (run.first_sequence, run.last_sequence, run.place(1)) == (12, 14, "line 14")
    run.file, run.message_line = "x.json", 5
    assert (run.first_sequence, run.last_sequence) == (5, 5)
    assert run.place(1) == "line 14 of the batch file x.json (line 5)"


def test_the_time_of_extraction_is_kept_when_asked_for() -> None:
    data = record("s", {}, time_extracted="2024-05-31T00:00:00Z") + record("s", {})
    (plain,) = read(data)
    (kept,) = read_messages(Source(io.BytesIO(data)), LIMIT, keep_time_extracted=True)
    assert isinstance(plain, RecordRun)
    assert isinstance(kept, RecordRun)
    assert plain.time_extracted == []
    assert kept.time_extracted == [b'"2024-05-31T00:00:00Z"', b"null"]


def test_unknown_fields_are_ignored() -> None:
    more = {"bookmark_properties": ["a"], "extra": {"type": "RECORD"}}
    assert read(record("s", {}, **more)) == [RecordRun("s", None, [b"{}"], [1])]


@pytest.mark.parametrize(
    ("version", "expected"), [("null", None), ("0", 0), ("1717158896000", 1717158896000)]
)
def test_versions(version: str, expected: int | None) -> None:
    text = f'{{"type":"RECORD","stream":"s","record":{{}},"version":{version}}}'
    (run,) = read(text.encode())
    assert isinstance(run, RecordRun)
    assert run.version == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"record": {"a": 1}, "stream": "s", "type": "RECORD"}',
        '{"stream":"s","record":{"a": 1},"time_extracted":"x","type":"RECORD"}',
        '{ "type" : "RECORD" , "stream" : "s" , "record" : {"a": 1} }',
        '\t{"type":"RECORD","stream":"s","record":{"a": 1}}  ',
        r'{"\u0074ype":"RECORD","str\u0065am":"\u0073","r\u0065cord":{"a": 1}}',
    ],
)
def test_the_spelling_of_the_envelope_does_not_matter(text: str) -> None:
    assert read(text.encode() + b"\n") == [RecordRun("s", None, [b'{"a": 1}'], [1])]


@pytest.mark.parametrize("stream", ["", "größe", "a b", "😀", 'q"\\/', "public-orders", "x" * 5000])
@pytest.mark.parametrize("escaped", [True, False])
def test_any_name_of_a_stream(stream: str, escaped: bool) -> None:
    message = {"type": "RECORD", "stream": stream, "record": {}}
    (run,) = read(json.dumps(message, ensure_ascii=escaped).encode())
    assert isinstance(run, RecordRun)
    assert run.stream == stream


def test_blank_lines_count_and_say_nothing() -> None:
    assert unrolled(read(b"\n  \r\n" + record("s", {}) + b"\n" + record("s", {}))) == [
        (3, "s", None, b"{}"),
        (5, "s", None, b"{}"),
    ]


def test_windows_line_ends() -> None:
    data = (SCHEMA + record("s", {"a": "\r\n"}) + STATE).replace(b"\n", b"\r\n")
    assert read(data) == read(SCHEMA + record("s", {"a": "\r\n"}) + STATE)


def test_a_byte_order_mark_is_skipped() -> None:
    assert read(b"\xef\xbb\xbf" + SCHEMA + STATE) == read(SCHEMA + STATE)


def test_the_last_line_needs_no_end() -> None:
    assert read(SCHEMA + STATE[:-1]) == read(SCHEMA + STATE)
    assert read(SCHEMA + STATE + b"  ") == read(SCHEMA + STATE)


@pytest.mark.parametrize(
    "file",
    [
        lambda data: io.BufferedReader(io.BytesIO(data)),  # type: ignore[type-var]  # is raw enough
        lambda data: io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"),
        lambda data: io.StringIO(data.decode()),
        lambda data: Pieces(data, 7),
    ],
)
def test_any_kind_of_file_is_read(file: Any) -> None:
    data = SCHEMA + record("s", {"a": "é😀"}) + STATE
    assert read(file(data)) == read(data)


# --- lines over blocks

SPLIT = (
    SCHEMA
    + b"\n"
    + '{"type":"RECORD","stream":"s","record":{"a":"é😀"}}\r\n'.encode()
    + record("t", {}, version=1)
    + STATE
    + record("s", {"a": 2})
)


def test_a_line_may_be_split_anywhere() -> None:
    whole = unrolled(read(SPLIT))
    for cut in range(1, len(SPLIT)):
        assert unrolled(read(Pieces(SPLIT, cut, len(SPLIT)))) == whole, cut


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_blocks_may_be_tiny(size: int) -> None:
    assert unrolled(read(Pieces(SPLIT, size))) == unrolled(read(SPLIT))


def test_lines_may_be_longer_than_a_block() -> None:
    long = "é" * 2_500_000
    data = record("s", {"a": 1}) + record("s", {"a": long}) + record("s", {"a": 3})
    texts = [event[3] for event in unrolled(read(data))]
    assert [json.loads(text)["a"] for text in texts] == [1, long, 3]


def test_a_line_over_the_limit_is_refused() -> None:
    data = SCHEMA + record("s", {"a": "x" * 5_000_000})
    with pytest.raises(InputError, match=r"TC-INPUT-09\] Line 2 is longer than 3 MB"):
        read(data, 3_000_000)
    assert len(read(data, 6_000_000)) == 2


def test_the_limit_is_of_one_line_not_of_the_input() -> None:
    data = record("s", {"a": "x" * 100_000}) * 40
    assert len(unrolled(read(Pieces(data, 65_536), 200_000))) == 40


def test_what_came_before_a_line_too_long_is_handed_out() -> None:
    messages = read_messages(Source(Pieces(STATE + b"x" * 1000, 100)), 300)
    assert isinstance(next(messages), StateMessage)
    with pytest.raises(InputError, match=r"TC-INPUT-09\] Line 2 "):
        next(messages)


# --- grouping

an_event = st.one_of(
    st.tuples(
        st.just("RECORD"), st.sampled_from("abc"), st.sampled_from([None, 1, 2]), st.integers(0, 9)
    ),
    st.tuples(st.just("STATE"), st.integers(0, 9)),
    st.tuples(st.just("SCHEMA"), st.sampled_from("abc")),
    st.tuples(st.just("ACTIVATE_VERSION"), st.sampled_from("abc"), st.integers(0, 3)),
    st.tuples(st.just("blank")),
)


def encoded(event: Any) -> bytes:
    kind, *facts = event
    if kind == "RECORD":
        stream, version, value = facts
        more = {} if version is None else {"version": version}
        return record(stream, {"v": value}, **more)
    if kind == "STATE":
        return line(type=kind, value={"n": facts[0]})
    if kind == "SCHEMA":
        return line(type=kind, stream=facts[0], schema={}, key_properties=[])
    if kind == "ACTIVATE_VERSION":
        return line(type=kind, stream=facts[0], version=facts[1])
    return b"\n"


def expected(events: list[Any]) -> list[Any]:
    result: list[Any] = []
    for number, (kind, *facts) in enumerate(events, start=1):
        if kind == "RECORD":
            text = json.dumps({"v": facts[2]}).encode()
            result.append((number, facts[0], facts[1], text))
        elif kind == "STATE":
            value = json.dumps({"n": facts[0]}).encode()
            result.append(StateMessage(number, value, names_syncing=False, currently_syncing=None))
        elif kind == "SCHEMA":
            result.append(SchemaMessage(number, facts[0], {}, (), facts[0]))
        elif kind == "ACTIVATE_VERSION":
            result.append(ActivateVersionMessage(number, *facts))
    return result


@given(st.lists(an_event, max_size=30), st.lists(st.integers(1, 300), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_interleaving_keeps_its_order(events: list[Any], sizes: list[int]) -> None:
    messages = read(Pieces(b"".join(map(encoded, events)), *sizes))
    # Between two other messages nothing is lost, added or carried over.
    assert unrolled(messages) == expected(events)
    # The runs of one stream, one behind the other, are its records in the order of the input.
    by_stream: dict[str, list[Any]] = defaultdict(list)
    for message in messages:
        if isinstance(message, RecordRun):
            by_stream[message.stream] += [
                (number, message.version, text)
                for number, text in zip(message.lines, message.records, strict=True)
            ]
    wanted: dict[str, list[Any]] = defaultdict(list)
    for event in expected(events):
        if isinstance(event, tuple):
            wanted[event[1]].append((event[0], *event[2:]))
    assert by_stream == wanted


def test_interleaved_streams_become_one_run_each() -> None:
    data = b"".join(record(stream, {"n": n}) for n in range(50) for stream in "ab")
    runs = read(data)
    assert [run.stream for run in runs if isinstance(run, RecordRun)] == ["a", "b"]


# --- states


@pytest.mark.parametrize(
    "value",
    [
        "{}",
        '{"b":1,"a":2}',
        '{ "a" : 1.50 , "b":[ ] }',
        '{"a":12345678901234567890123456789.123456789012345678901}',
        '{"a":1e400}',
        r'{"a":"\u00e9\ud83d\ude00\/"}',
        '{"a":"é😀"}',
        '{"a":1,"a":2}',
        '{"type":"STATE","value":{"type":"RECORD"}}',
        '{"bookmarks":{"s":{"version":1}},"currently_syncing":null}',
    ],
)
def test_a_state_is_handed_on_byte_by_byte(value: str) -> None:
    for text in (f'{{"type":"STATE","value":{value}}}', f'{{"value": {value} , "type": "STATE"}}'):
        (message,) = read(text.encode() + b"\n")
        assert isinstance(message, StateMessage)
        assert message.value == value.encode()


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.integers() | st.text() | st.floats(allow_nan=False, width=32),
            lambda inner: st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    ).filter(lambda value: "Infinity" not in json.dumps(value)),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_state_is_handed_on_byte_by_byte(value: dict[str, Any], escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    (message,) = read(b'{"type":"STATE","value":' + text.encode() + b"}\n")
    assert isinstance(message, StateMessage)
    assert message.value == text.encode()
    assert message.names_syncing == ("currently_syncing" in value)


@pytest.mark.parametrize(
    ("value", "names", "stream"),
    [
        ("{}", False, None),
        ('{"bookmarks":{"currently_syncing":"s"}}', False, None),
        ('{"currently_syncing":null}', True, None),
        ('{"currently_syncing":"größe"}', True, "größe"),
        (r'{"a":{},"currently\u005fsyncing":"a\u0062"}', True, "ab"),
        ('{"currently_syncing":["a","b"]}', False, None),
    ],
)
def test_who_is_being_read(value: str, names: bool, stream: str | None) -> None:
    (message,) = read(b'{"type":"STATE","value":' + value.encode() + b"}\n")
    assert isinstance(message, StateMessage)
    assert (message.names_syncing, message.currently_syncing) == (names, stream)


# --- what taps print that is no JSON


@pytest.mark.parametrize(
    ("text", "repaired", "not_finite", "surrogates"),
    [
        ('{"a": NaN}', {"a": None}, 1, 0),
        ('{"a": [Infinity, -Infinity, NaN]}', {"a": [None, None, None]}, 3, 0),
        ('{"a": "NaN", "b": NaN}', {"a": "NaN", "b": None}, 1, 0),
        (r'{"a": "\"NaN", "b": NaN}', {"a": '"NaN', "b": None}, 1, 0),
        (r'{"a": "\\", "b": NaN}', {"a": "\\", "b": None}, 1, 0),
        (r'{"a": "\ud800"}', {"a": "\ufffd"}, 0, 1),
        (r'{"a": "x\udc00y\uD83Dz"}', {"a": "x\ufffdy\ufffdz"}, 0, 2),
        (r'{"a": "\ud83d\ude00\ud800"}', {"a": "😀\ufffd"}, 0, 1),
        (r'{"a": "\ud800\ud83d\ude00"}', {"a": "\ufffd😀"}, 0, 1),
        (r'{"a": "\\ud800", "b": "\ud800"}', {"a": "\\ud800", "b": "\ufffd"}, 0, 1),
        (r'{"\udfff": NaN}', {"\ufffd": None}, 1, 1),
    ],
)
def test_what_python_prints_instead_of_json_is_mended_and_counted(
    text: str, repaired: Any, not_finite: int, surrogates: int
) -> None:
    good = record("s", {"a": 1})
    odd = b'{"type":"RECORD","stream":"s","record":' + text.encode() + b"}\n"
    (run,) = read(good + odd + good)
    assert isinstance(run, RecordRun)
    assert json.loads(run.records[1]) == repaired
    assert (run.records[0], run.records[2]) == (b'{"a": 1}', b'{"a": 1}')
    assert (run.not_finite, run.surrogates) == (not_finite, surrogates)


def test_a_mended_line_keeps_what_was_well() -> None:
    text = rb'{"a": 1.50, "b": "\u00e9\/", "c":  NaN, "d": {"z":1,"y":2}}'
    (run,) = read(b'{"type":"RECORD","stream":"s","record":' + text + b"}\n")
    assert isinstance(run, RecordRun)
    assert run.records == [text.replace(b"NaN", b"null")]


def test_a_schema_with_an_infinite_bound_is_taken() -> None:
    text = b'{"type":"SCHEMA","stream":"s","schema":{"properties":{"a":{"maximum":Infinity}}}}\n'
    assert read(text) == [SchemaMessage(1, "s", {"properties": {"a": {"maximum": None}}}, (), "s")]


# --- faults

HALF = record("s", {"a": 1})[:-2]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("hello", "TC-INPUT-01"),
        ("INFO starting the tap", "TC-INPUT-01"),
        ("{", "TC-INPUT-01"),
        ("null", "TC-INPUT-01"),
        ("[]", "TC-INPUT-01"),
        ("5", "TC-INPUT-01"),
        ('"RECORD"', "TC-INPUT-01"),
        ('{"type":"STATE","value":{}} x', "TC-INPUT-01"),
        ('{"type":"STATE","value":{}}{"type":"STATE","value":{}}', "TC-INPUT-01"),
        ('{"type":"STATE","value":{},}', "TC-INPUT-01"),
        ('{"type":"RECORD","stream":"s","record":{"a":01}}', "TC-INPUT-01"),
        ('{"type":"RECORD","stream":"s","record":{"a":nan}}', "TC-INPUT-01"),
        ("{'type':'STATE','value':{}}", "TC-INPUT-01"),
        (HALF.decode(), "TC-INPUT-01"),
        ("{}", "TC-INPUT-03"),
        ('{"Type":"STATE"}', "TC-INPUT-03"),
        ('{"type":1}', "TC-INPUT-03"),
        ('{"type":null}', "TC-INPUT-03"),
        ('{"type":"RECORD","record":{}}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":null,"record":{}}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":5,"record":{}}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":"s"}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":"s","record":null}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":"s","record":[1]}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":"s","record":"{}"}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":"s","record":{},"version":"1"}', "TC-INPUT-03"),
        ('{"type":"RECORD","stream":"s","record":{},"version":1.5}', "TC-INPUT-03"),
        ('{"type":"STATE"}', "TC-INPUT-03"),
        ('{"type":"STATE","value":null}', "TC-INPUT-03"),
        ('{"type":"STATE","value":[]}', "TC-INPUT-03"),
        ('{"type":"STATE","value":"{}"}', "TC-INPUT-03"),
        ('{"type":"ACTIVATE_VERSION","stream":"s"}', "TC-INPUT-03"),
        ('{"type":"ACTIVATE_VERSION","stream":"s","version":null}', "TC-INPUT-03"),
        ('{"type":"ACTIVATE_VERSION","version":1}', "TC-INPUT-03"),
        ('{"type":"SCHEMA","schema":{}}', "TC-INPUT-03"),
        ('{"type":"SCHEMA","stream":"s","schema":{},"key_properties":"id"}', "TC-INPUT-03"),
        ('{"type":"SCHEMA","stream":"s","schema":{},"key_properties":[1]}', "TC-INPUT-03"),
        ('{"type":"record","stream":"s","record":{}}', "TC-INPUT-04"),
        ('{"type":"","stream":"s"}', "TC-INPUT-04"),
        ('{"type":"x77x","stream":"s"}', "TC-INPUT-04"),
        ('{"type":"SCHEMA","stream":"s"}', "TC-INPUT-06"),
        ('{"type":"SCHEMA","stream":"s","schema":null}', "TC-INPUT-06"),
        ('{"type":"SCHEMA","stream":"s","schema":[]}', "TC-INPUT-06"),
        ('{"type":"SCHEMA","stream":"s","schema":{},"bookmark_properties":1}', "TC-INPUT-03"),
        ('{"type":"SCHEMA","stream":"s","schema":{},"bookmark_properties":{}}', "TC-INPUT-03"),
        ('{"type":"SCHEMA","stream":"s","schema":{},"bookmark_properties":[1]}', "TC-INPUT-03"),
        ('{"type":"BATCH","encoding":{"format":"jsonl"},"manifest":[]}', "TC-INPUT-03"),
        (BATCH + ',"manifest":[],"version":"1"}', "TC-INPUT-03"),
        (BATCH + "}", "TC-INPUT-11"),
        (BATCH + ',"manifest":null}', "TC-INPUT-11"),
        (BATCH + ',"manifest":"x77x"}', "TC-INPUT-11"),
        (BATCH + ',"manifest":["a",7]}', "TC-INPUT-11"),
        (BATCH + ',"manifest":{"a":"b"}}', "TC-INPUT-11"),
        ('{"type":"BATCH","stream":"s"}', "TC-INPUT-11"),
        ('{"type":"BATCH","stream":"s","manifest":[]}', "TC-INPUT-11"),
        ('{"type":"BATCH","stream":"s","encoding":null,"manifest":[]}', "TC-INPUT-11"),
        ('{"type":"BATCH","stream":"s","encoding":{},"manifest":[]}', "TC-INPUT-11"),
        ('{"type":"BATCH","stream":"s","encoding":"jsonl","manifest":[]}', "TC-INPUT-11"),
        ('{"type":"BATCH","stream":"s","encoding":{"format":7},"manifest":[]}', "TC-INPUT-11"),
        (BATCH.replace('"}', '","compression":7}') + ',"manifest":[]}', "TC-INPUT-11"),
    ],
)
def test_a_fault_names_its_line_and_what_came_before_counts(text: str, code: str) -> None:
    data = SCHEMA + b"\n" + STATE + text.encode() + b"\n" + STATE
    for file in (io.BytesIO(data), Pieces(data, 3)):
        messages = read_messages(Source(file), LIMIT)
        assert [type(next(messages)) for _ in range(2)] == [SchemaMessage, StateMessage]
        with pytest.raises(InputError) as caught:
            next(messages)
        assert caught.value.code == code
        assert "ine 4 " in str(caught.value).replace(".", " ").replace(",", " ")
        assert "x77x" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"RECORD","type":"STATE","stream":"s","record":{},"value":{}}',
        '{"type":"STATE","stream":"s","record":{},"value":{},"type":"RECORD"}',
        '{"type":"RECORD","stream":"s","record":{"type":1,"b":{"type":2}},"type":"STATE"}',
        r'{"type":"RECORD","\u0074ype":"STATE","stream":"s","record":{},"value":{}}',
        '{"type":"STATE","type":"RECORD","stream":"s","record":{"a":NaN}}',
        '{"type":"STATE","type":"RECORD","stream":"s","record":{"a":"\xff"}}',
    ],
)
def test_a_message_with_two_types_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"TC-INPUT-03.* line 1 has more than one `type`"):
        read(text.encode("latin-1") + b"\n")


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"RECORD","type":"RECORD","stream":"s","record":{"type":1}}',
        r'{"type":"RECORD","stream":"s","record":{"type":1},"t\u0079pe":"REC\u004fRD"}',
        '{"type":"STATE","type":"STATE","value":{"type":"RECORD"}}',
    ],
)
def test_a_type_said_twice_is_one_type(text: str) -> None:
    assert len(read(text.encode() + b"\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"RECORD","stream":"type","record":{"type":"type"}}',
        '{"type":"RECORD","stream":"s","record":{"a":"\\"type\\":"},"extra":{"type":"STATE"}}',
        '{"type":"STATE","value":{"type":"x","value":{"type":"y"}}}',
        '{"type":"SCHEMA","stream":"s","schema":{"type":"object","properties":{"type":{}}}}',
    ],
)
def test_the_word_type_elsewhere_does_no_harm(text: str) -> None:
    assert len(read(text.encode() + b"\n")) == 1


@pytest.mark.parametrize("end", range(1, len(HALF) + 1, 7))
def test_a_half_last_line_is_known_as_such(end: int) -> None:
    with pytest.raises(InputError, match=r"TC-INPUT-02.*middle of line 3\."):
        read(SCHEMA + STATE + HALF[:end])


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"TC-INPUT-0[13].*ine 2 "):
        read(STATE + b'{"type":"STATE","value":{"a":"\xff"}}\n')


@pytest.mark.parametrize("first", [b"", b'"n":NaN,'])
def test_a_line_nested_too_deeply_is_an_input_error(first: bytes) -> None:
    deep = b"{" + first + b'"a":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001
    with pytest.raises(InputError):
        read(STATE + b'{"type":"RECORD","stream":"s","record":' + deep + b"}\n")


def test_a_long_number_beside_the_word_type_is_no_fault() -> None:
    value = b'{"type":"x","n":' + b"1" * 5_000 + b"}"
    (message,) = read(b'{"type":"STATE","value":' + value + b"}\n")
    assert isinstance(message, StateMessage)
    assert message.value == value


# --- pipes


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb", buffering=0) as file,
        os.fdopen(writing, "wb", buffering=0) as writer,
    ):
        yield file, writer


def test_a_silent_pipe_says_so() -> None:
    with pipe() as (file, writer):
        messages = read_messages(Source(file, idle_seconds=0.01), LIMIT)
        assert next(messages) == Idle()
        writer.write(SCHEMA + STATE[:10])
        assert isinstance(next(messages), SchemaMessage)
        assert next(messages) == Idle()
        writer.write(STATE[10:])
        seen = next(messages)
        assert isinstance(seen, StateMessage)
        assert seen.line == 2
        writer.close()
        assert list(messages) == []


def test_the_end_of_a_pipe_in_mid_line_is_seen() -> None:
    with pipe() as (file, writer):
        writer.write(HALF)
        writer.close()
        with pytest.raises(InputError, match="TC-INPUT-02"):
            list(read_messages(Source(file), LIMIT))


def test_the_wake_descriptor_ends_a_wait_at_once() -> None:
    with pipe() as (file, _), pipe() as (wake, waker):
        source = Source(file, wake.fileno(), idle_seconds=60)
        timer = threading.Timer(0.05, waker.write, (b"x",))
        timer.start()
        started = time.monotonic()
        assert source.read() is None
        assert time.monotonic() - started < 10
        timer.join()


def test_a_big_input_through_a_pipe_is_whole() -> None:
    data = b"".join(record("s", {"n": n, "t": "x" * 100}) for n in range(20_000))

    def write(writer: IO[bytes]) -> None:
        left = memoryview(data)
        while left:
            left = left[writer.write(left) :]
        writer.close()

    with pipe() as (file, writer):
        thread = threading.Thread(target=write, args=(writer,))
        thread.start()
        events = unrolled([m for m in read_messages(Source(file), LIMIT) if m != Idle()])
        thread.join()
    assert [json.loads(event[3])["n"] for event in events] == list(range(20_000))


class Stuttering(Pieces):
    """A raw file that is not ready at first, as a file that does not block may be."""

    _ready = False

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        self._ready = not self._ready
        return None if self._ready else super().readinto(buffer)


def test_a_file_that_is_not_ready_has_not_ended() -> None:
    seen = [message for message in read(Stuttering(SCHEMA + STATE, 10)) if message != Idle()]
    assert seen == read(SCHEMA + STATE)


@pytest.mark.parametrize("value", [b'{"a":NaN}', b'{"a":"\\ud800"}'])
def test_a_state_that_cannot_be_handed_back_as_it_is_is_refused(value: bytes) -> None:
    with pytest.raises(InputError, match=r"TC-INPUT-03.* line 1 "):
        read(b'{"type":"STATE","value":' + value + b"}\n")
