"""Stream maps, flattening and metadata columns: what the Singer SDK's mapper makes of records."""

from __future__ import annotations

import json
import time
from hashlib import md5
from typing import TYPE_CHECKING, Any

import pytest

from .harness import lines, message, record, schema, state, syncing

if TYPE_CHECKING:
    from .harness import Emulator, Target

PROPERTIES: dict[str, Any] = {
    "id": {"type": "integer"},
    "text": {"type": ["null", "string"]},
    "amount": {"type": ["null", "number"]},
    "person": {
        "type": ["null", "object"],
        "properties": {
            "name": {"type": ["null", "string"]},
            "address": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
}


def tap(stream: str) -> list[bytes]:
    """Return a small stream with a number that a double would change and a nested object."""
    person = {"name": "Ö. Müller", "address": {"city": "Köln"}}
    return [
        schema(stream, PROPERTIES),
        record(stream, id=1, text="a", amount=0.1, person=person),
        record(stream, id=2, text="b", amount=2.5, person=None),
        record(stream, id=3, text="c", amount=None, person=person),
        state({"n": 3}),
    ]


def ids(emulator: Emulator, table: str) -> list[str | None]:
    return [row[0] for row in emulator.query(f'SELECT id FROM local."{table}" ORDER BY id')]


def counts(err: str, stream: str) -> list[int]:
    """Return the counts of the closing table, from `read` to `not loaded`."""
    row = next(words for line in err.splitlines() if (words := line.split())[7:8] == [stream])
    return [int(word) for word in row[9:16]]


def test_a_filter_counts_what_it_leaves_out(
    target: Target, emulator: Emulator, stream: str
) -> None:
    ended = target.load(*tap(stream), stream_maps={stream: {"__filter__": "bool(id != 2)"}})
    assert ids(emulator, stream) == ["1", "3"]
    assert ended.states == [b'{"n": 3}']
    assert counts(ended.err, stream) == [3, 2, 0, 0, 0, 1, 0]


def test_properties_are_computed_removed_and_renamed(
    target: Target, emulator: Emulator, stream: str
) -> None:
    rules = {
        "double": "amount * 2 if amount else None",
        "hash": "md5(config['salt'] + text)",
        "person": "__NULL__",
        "text": None,
    }
    target.load(*tap(stream), stream_maps={stream: rules}, stream_map_config={"salt": "s"})
    assert set(emulator.types(stream)) == {"id", "amount", "double", "hash"}
    found = emulator.query(f'SELECT "double", hash FROM local."{stream}" ORDER BY id')
    assert [row[1] for row in found] == [
        md5(b"s" + text, usedforsecurity=False).hexdigest() for text in (b"a", b"b", b"c")
    ]
    assert [float(row[0] or 0) for row in found] == [0.2, 5.0, 0.0]


def test_one_stream_becomes_several(target: Target, emulator: Emulator, stream: str) -> None:
    maps = {
        stream: {"__alias__": f"{stream}_all"},
        f"{stream}_big": {
            "__source__": stream,
            "__filter__": "bool(id > 1)",
            "__key_properties__": ["id"],
            "__else__": None,
            "id": "id",
            "text": "text",
        },
    }
    ended = target.load(*tap(stream), stream_maps=maps)
    assert ids(emulator, f"{stream}_all") == ["1", "2", "3"]
    assert ids(emulator, f"{stream}_big") == ["2", "3"]
    assert set(emulator.types(f"{stream}_big")) == {"id", "text"}
    assert emulator.table(stream) is None
    assert ended.states == [b'{"n": 3}']


def test_a_removed_stream_is_counted_and_not_loaded(
    target: Target, emulator: Emulator, stream: str
) -> None:
    ended = target.load(*tap(stream), stream_maps={stream: "__NULL__"})
    assert emulator.table(stream) is None
    assert counts(ended.err, stream) == [3, 0, 0, 0, 0, 3, 0]
    assert ended.states == [b'{"n": 3}']


def test_an_alias_ends_where_its_source_ends(
    target: Target, emulator: Emulator, stream: str
) -> None:
    """``currently_syncing`` names the tap's stream, not what a map made of it."""
    options = {"load_method": "overwrite", "stream_maps": {stream: {"__alias__": f"{stream}_x"}}}
    data = [*tap(stream)[:-1], syncing(stream)]
    target.fail(4, "TC-INPUT-10", *data, **options)
    target.load(*data, syncing(None), **options)
    assert ids(emulator, f"{stream}_x") == ["1", "2", "3"]


def test_objects_are_flattened(target: Target, emulator: Emulator, stream: str) -> None:
    settings = {"flattening_enabled": True, "flattening_max_depth": 2, "flattening_separator": "-"}
    target.load(*tap(stream), **settings)
    assert set(emulator.types(stream)) == {
        "id",
        "text",
        "amount",
        "person-name",
        "person-address-city",
    }
    cities = emulator.query(f'SELECT "person-address-city" FROM local."{stream}" ORDER BY id')
    assert cities == [["Köln"], [None], ["Köln"]]


def test_unmapped_records_keep_the_taps_spelling(
    target: Target, emulator: Emulator, stream: str
) -> None:
    """A map of another stream changes nothing."""
    raw = b'{"type":"RECORD","stream":"%s","record":{"id":1,"person":{"b":1.50,  "a":"\\u00e4"}}}'
    data = [schema(stream, PROPERTIES), raw % stream.encode()]
    target.load(*data, stream_maps={"another": {"x": "1"}})
    found = emulator.query(f'SELECT person FROM local."{stream}"')
    assert found == [['{"b":1.50,  "a":"\\u00e4"}']]


def test_mapped_numbers_keep_their_digits(target: Target, emulator: Emulator, stream: str) -> None:
    properties = {"id": {"type": "integer"}, "any": {}}
    raw = b'{"type":"RECORD","stream":"%s","record":{"id":1,"any":1.10}}' % stream.encode()
    target.load(schema(stream, properties), raw, stream_maps={stream: {"new": "id"}})
    assert emulator.query(f'SELECT "any" FROM local."{stream}"') == [["1.10"]]


def test_metadata_columns(target: Target, emulator: Emulator, stream: str) -> None:
    before = round(time.time() * 1000)
    extracted = "2024-05-31T12:34:56.789000+00:00"
    data = [
        schema(stream),
        message(
            "RECORD",
            stream=stream,
            record={"id": 1, "text": "a"},
            version=7,
            time_extracted=extracted,
        ),
        message("RECORD", stream=stream, record={"id": 2, "_sdc_deleted_at": extracted}),
    ]
    target.load(*data, add_record_metadata=True)
    assert emulator.types(stream) | {"id": "", "text": ""} == {
        "id": "",
        "text": "",
        "_sdc_extracted_at": "DATETIME",
        "_sdc_received_at": "DATETIME",
        "_sdc_batched_at": "DATETIME",
        "_sdc_deleted_at": "DATETIME",
        "_sdc_sequence": "INTEGER",
        "_sdc_table_version": "INTEGER",
        "_sdc_sync_started_at": "INTEGER",
    }
    names = "_sdc_extracted_at, _sdc_deleted_at, _sdc_table_version"
    moment = "2024-05-31 12:34:56.789"
    assert emulator.query(f'SELECT {names} FROM local."{stream}" ORDER BY id') == [
        [moment, None, "7"],
        [None, moment, None],
    ]
    (times,) = emulator.query(
        f"SELECT min(_sdc_sequence), min(_sdc_sync_started_at), "
        f'count(_sdc_received_at) FROM local."{stream}"'
    )
    sequence, started, received = (int(text or 0) for text in times)
    assert before <= started <= sequence <= round(time.time() * 1000)
    assert received == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"stream_maps": {"__else__": "everything"}},
        {"stream_maps": {"*": {"new": "1 +"}}},
        {"stream_maps": {"*": {"new": "no_such_function(id)"}}},
        {"flattening_enabled": True},
        {"stream_maps": ["orders"]},
    ],
    ids=["else", "syntax", "function", "depth", "list"],
)
def test_maps_that_cannot_be_used(
    target: Target, emulator: Emulator, stream: str, settings: dict[str, Any]
) -> None:
    ended = target.run(lines(*tap(stream)), **settings)
    assert ended.code == 2, ended.err
    assert ended.last_words.startswith("target-celonis: [TC-SETTINGS-")
    assert "Müller" not in ended.err
    assert emulator.table(stream) is None


def test_maps_come_from_the_environment(target: Target, emulator: Emulator, stream: str) -> None:
    maps = json.dumps({stream: {"__filter__": "bool(id == 3)"}})
    environment = {"TARGET_CELONIS_STREAM_MAPS": maps}
    assert target.run(lines(*tap(stream)), environment=environment).code == 0
    assert ids(emulator, stream) == ["3"]


def test_a_removed_stream_claims_nothing(target: Target, emulator: Emulator, stream: str) -> None:
    """Neither a table nor a schema that could become one; another may take its name."""
    taken, odd = f"{stream}_b", f"{stream}_odd"
    maps = {stream: {"__alias__": taken}, taken: None, odd: "__NULL__"}
    ended = target.load(
        *tap(stream),
        schema(taken, PROPERTIES, ()),
        record(taken, id=7, text="gone"),
        message("SCHEMA", stream=odd, schema={"type": "object"}, key_properties=[]),
        record(odd, id=8),
        stream_maps=maps,
    )
    assert ids(emulator, taken) == ["1", "2", "3"]
    assert "are appended" not in ended.err
    assert counts(ended.err, odd) == [1, 0, 0, 0, 0, 1, 0]
