"""The fast way to read the input comes to what the careful one comes to."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_celonis import batch, stream, typed
from target_celonis.kinds import Kind
from target_celonis.stream_rules import ColumnRule

from .odd_values import MOMENTS, ODD
from .test_properties import ANY, FITTING, bounded
from .ways import CAREFUL, WAYS, Way, decode, read

HERE = Path(__file__).parent
FILES = sorted([*(HERE / "corpus").glob("*.jsonl"), *(HERE / "samples").glob("*.jsonl")])
SETTINGS = ({}, {"hard_delete": True}, {"load_method": "append-only"})
IN_PIECES = Way(converters=3, sizes=(997,), aim_bytes=1)
ALONE = (
    Way(is_fast=False, sizes=(64,), aim_bytes=1),
    Way(),
    Way(sizes=(1,), aim_bytes=1),
    Way(sizes=(150,), aim_bytes=1),
)
_numbers = itertools.count(1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_way_comes_to_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    data = path.read_bytes()
    for number, settings in enumerate(SETTINGS):
        careful = read(data, CAREFUL, tmp_path / f"careful-{number}", **settings)
        ways = (Way(), WAYS[1 + number % 2]) if number else (*WAYS, IN_PIECES)
        for name, way in enumerate(ways):
            assert read(data, way, tmp_path / f"{number}-{name}", **settings) == careful


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ways")


@pytest.fixture(scope="module")
def _small_slices() -> Any:  # an iterator
    """Records are converted so few at a time that examples cross the border between slices."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (batch, stream, typed):
            patch.setattr(module, "SLICE_ROWS", 3)
        yield


def agree_alone(data: bytes, *rules: ColumnRule, **intake: bool) -> None:
    """Compare ways without other converters, as far as converted rows."""
    careful = decode(data, CAREFUL, rules, **intake)
    for way in ALONE:
        assert decode(data, way, rules, **intake) == careful, way


def agree(
    data: bytes,
    directory: Path,
    ways: tuple[Way, ...] = (Way(), Way(converters=1, sizes=(97,), aim_bytes=1)),
    **settings: Any,
) -> None:
    """Compare ways as far as the chunks that would be uploaded."""
    careful = read(data, CAREFUL, directory / f"{next(_numbers)}", **settings)
    for way in ways:
        found = read(data, way, directory / f"{next(_numbers)}", **settings)
        if careful.error and found.error and settings.get("stream_maps"):
            # Mapped records wait to be converted: what else fails first depends on how many come.
            assert found.states == careful.states, way
        else:
            assert found == careful, way


def schema(name: str, properties: dict[str, Any], *keys: str, **more: Any) -> bytes:
    said = {"type": "SCHEMA", "stream": name, "schema": {"properties": properties}}
    return json.dumps(said | {"key_properties": keys} | more).encode() + b"\n"


def record(name: str, text: str, more: str = "") -> bytes:
    line = f'{{"type":"RECORD","stream":{json.dumps(name)},"record":{text}{more}}}\n'
    return line.encode(errors="surrogatepass")


def state(**value: Any) -> bytes:
    return json.dumps({"type": "STATE", "value": value}).encode() + b"\n"


PROPERTIES: dict[str, Any] = {
    "integer": {"type": "integer"},
    "number": {"type": ["null", "number"]},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "date-time": {"type": "string", "format": "date-time"},
    "date": {"type": ["null", "string"], "format": "date"},
    "json": {"type": ["null", "object", "array"]},
}
KINDS = st.sampled_from(sorted(PROPERTIES))


def seldom(draw: st.DrawFn, most: int) -> bool:
    return draw(st.integers(0, most)) == most


# --- values

VALUES = {
    kind: st.one_of(st.sampled_from(values), FITTING[kind], FITTING[kind])
    for kind, values in ODD.items()
}
ANY_VALUE = st.one_of(ANY, *(st.sampled_from(values) for values in ODD.values()))


@pytest.mark.parametrize("kind", sorted(PROPERTIES))
def test_each_value_alone_and_among_others(kind: str) -> None:
    head = schema("s", {"id": {"type": "integer"}, "v": PROPERTIES[kind]}, "id")
    fit = record("s", f'{{"id":1,"v":{ODD[kind][0]}}}')
    others = {value for values in ODD.values() for value in values}.difference(MOMENTS[1:])
    for value in (*ODD[kind], *sorted(others.difference(ODD[kind]))):
        odd = record("s", f'{{"id":2,"v":{value}}}')
        careful = decode(head + fit + odd, CAREFUL)
        assert decode(head + fit + odd, Way()) == careful, value
        assert decode(head + fit + odd, Way(sizes=(1 << 16, 1), aim_bytes=1)) == careful, value
        if value in ODD[kind]:
            assert decode(head + odd, Way()) == decode(head + odd, CAREFUL), value


@pytest.mark.parametrize("kind", sorted(PROPERTIES))
def test_each_value_of_a_key(kind: str) -> None:
    head = schema("s", {"k": PROPERTIES[kind], "v": {"type": "integer"}}, "k")
    for value in ODD[kind]:
        line = record("s", f'{{"k":{value},"v":1}}')
        for deletes in (False, True):
            data = head + line + record("s", f'{{"k":{value},"_sdc_deleted_at":"now"}}')
            careful = decode(data, CAREFUL, deletes=deletes)
            assert decode(data, Way(), deletes=deletes) == careful, value


@st.composite
def fitting_columns(draw: st.DrawFn) -> bytes:
    """A stream of one kind of column, whose values fit it more or less."""
    kind = draw(KINDS)
    keys = draw(st.sampled_from([["id"], ["id"], ["v"], []]))
    values = draw(st.lists(VALUES[kind], min_size=1, max_size=9))
    return schema("s", {"id": {"type": "integer"}, "v": PROPERTIES[kind]}, *keys) + b"".join(
        record("s", f'{{"id":{number},"v":{value}}}') for number, value in enumerate(values)
    )


@pytest.mark.usefixtures("_small_slices")
@given(data=fitting_columns(), deletes=st.booleans())
@bounded(2500)
def test_any_values_of_one_column(data: bytes, *, deletes: bool) -> None:
    agree_alone(data, deletes=deletes)


def test_bytes_that_are_no_text() -> None:
    for kind, name, where in itertools.product(
        sorted(PROPERTIES), ("v", "unknown", "_sdc_deleted_at"), ('"%"', '{"a":"%"}', '["%",NaN]')
    ):
        head = schema("s", {"id": {"type": "integer"}, "v": PROPERTIES[kind]}, "id")
        for octets in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
            line = record("s", f'{{"id":1,"{name}":{where}}}').replace(b"%", octets)
            agree_alone(head + record("s", '{"id":0,"v":null}') + line)
            agree_alone(head + line, deletes=True)


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"RECORD","stream":"s\xff","record":{"id":1}}',
        b'{"type":"RECORD","stream":"s","rec\xfford":{},"record":{"id":1}}',
        b'{"type":"RECORD","stream":"s","record":{"id":1},"x":"\xff"}',
        b'{"type":"RECORD","stream":"s","record":{"id":1,"\xff":2}}',
        b'{"type":"RECORD","stream":"s","record":{"id":1,"\xffv":2,"v":NaN}}',
        b'{"type":"RECORD","stream":"s","record":{"id":1,"\\ud800":2}}',
        b'{"type":"RECORD\xff","stream":"s","record":{"id":1}}',
        b'{"type":"RECORD","stream":"s","record":{"id":1},"time_extracted":"\xff"}',
        b"\xff",
        b"",
        b"\xef\xbb\xbf",
        b" \t\r",
        b"\x0b\x0c",
        b"\x00",
    ],
)
@pytest.mark.parametrize("adds_metadata", [False, True])
def test_bytes_that_are_no_text_around_values(line: bytes, *, adds_metadata: bool) -> None:
    head = schema("s", {"id": {"type": "integer"}, "v": {"type": "string"}}, "id")
    fit = record("s", '{"id":0,"v":"a"}')
    for data in (head + line, head + line + b"\n" + fit, head + fit * 3 + line + b"\n" + fit):
        agree_alone(data, adds_metadata=adds_metadata)


# --- records

NAMES = [
    *("a", "b", "type", "stream", "record", "f0", "", "a b", 'q"uote', "back\\slash", "tab\t"),
    *("Größe", "😀", "null", "`tick`", "x` - at `$.record", "_sdc_sequence", "_sdc_extracted_at"),
    *("_sdc_deleted_at", "_sdc_table_version", "dropped"),
]
TIMES = [
    *('"2024-05-31T12:34:56Z"', '"2024-05-31T12:34:56.123456Z"', '"2024-05-31 12:34:57+02:00"'),
    *("null", '""', '"x"', "1", '"1399-01-01"', '"2024-05-31T12:34:56.1234567Z"'),
]
VERSIONS = ["1", "1", "2", "null", "1.0", '"1"', "18446744073709551616", "1e400", "true"]
MARKS = ["null", '""', "false", "true", "0", '"2024-05-31"', '"?"', "{}", '"\\u0020"', '[""]']


def spelled(draw: st.DrawFn, name: str) -> str:
    """A name in JSON, perhaps with letters that are escaped without need."""
    if not seldom(draw, 9):
        return json.dumps(name, ensure_ascii=draw(st.booleans()))
    return '"' + "".join(f"\\u{ord(c):04x}" for c in name if ord(c) < 1 << 16) + '"'


@st.composite
def envelopes(draw: st.DrawFn, name: str, record_text: str) -> bytes:
    """A RECORD message, its fields in any order, some of them twice."""
    fields = [
        ("type", '"RECORD"'),
        ("stream", spelled(draw, name)),
        ("record", record_text),
    ]
    if draw(st.booleans()):
        fields.append(("version", draw(st.sampled_from(VERSIONS))))
    if draw(st.booleans()):
        fields.append(("time_extracted", draw(st.sampled_from(TIMES))))
    if seldom(draw, 7):
        again = [*fields, ("type", '"STATE"'), ("stream", '"t"'), ("record", '{"id":7}')]
        fields.append(draw(st.sampled_from([*again, ("more", "[{}]"), ("stream", "null")])))
        fields = draw(st.permutations(fields))
    colon, comma = draw(st.sampled_from([(":", ","), (": ", ", "), ("\t:", " ,\r")]))
    inner = comma.join(f"{spelled(draw, field)}{colon}{value}" for field, value in fields)
    return f"{{{inner}}}".encode(errors="surrogatepass")


@st.composite
def lines_of_a_stream(draw: st.DrawFn) -> bytes:
    """Schemas and records of a stream, with faults of every sort among them."""
    lies = seldom(draw, 3)
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    found = []
    for _ in range(draw(st.integers(1, 2))):
        kinds = {name: draw(KINDS) for name in names if draw(st.integers(0, 3))}
        properties = {"id": {"type": "integer"}} | {n: PROPERTIES[k] for n, k in kinds.items()}
        keys = draw(st.sampled_from([["id"], ["id"], [], ["id", *[*kinds][:1]]]))
        found.append(schema("s", properties, *keys).rstrip())
        for _ in range(draw(st.integers(0, 8))):
            members = [("id", str(draw(st.integers(0, 3))))]
            members += [
                (name, draw(ANY_VALUE if lies else VALUES[kind]))
                for name, kind in kinds.items()
                if not seldom(draw, 7)
            ]
            if seldom(draw, 3):
                members.append((draw(st.sampled_from(NAMES)), draw(ANY_VALUE)))
            if seldom(draw, 4):
                members.append(("_sdc_deleted_at", draw(st.sampled_from(MARKS))))
            if seldom(draw, 19):
                members.append(("id", draw(st.sampled_from(ODD["integer"]))))
            members = draw(st.permutations(members))
            text = ",".join(f"{spelled(draw, name)}:{value}" for name, value in members)
            found.append(draw(envelopes("s", f"{{{text}}}")))
            if seldom(draw, 9):
                found.append(draw(st.sampled_from([b"", b"\r", b" ", state(n=len(found)).strip()])))
    if seldom(draw, 9):
        found.append(draw(st.sampled_from([b"{", b"[]", b'{"type":"NEW"}', b"{}{}", b"\xff"])))
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    return end.join(found) + end * draw(st.integers(0, 1))


RULES = (
    (),
    (ColumnRule("dropped", drop=True), ColumnRule("_sdc_sequence", drop=True)),
    (ColumnRule("a", kind=Kind.TEXT, length=3), ColumnRule("b", kind=Kind.INTEGER, name="B!")),
    (ColumnRule("*e*", kind=Kind.JSON), ColumnRule("type", drop=True)),
)


@pytest.mark.usefixtures("_small_slices")
@given(
    data=lines_of_a_stream(),
    rules=st.sampled_from(RULES),
    deletes=st.booleans(),
    refuse_long=st.booleans(),
    adds_metadata=st.booleans(),
    watches_time=st.booleans(),
)
@bounded(3000)
def test_any_records_of_one_stream(data: bytes, rules: tuple[ColumnRule], **intake: bool) -> None:
    agree_alone(data, *rules, **intake)


# --- whole inputs

SHAPES: list[dict[str, Any]] = [
    {"id": "integer", "v": "string", "w": "number"},
    {"id": "integer", "v": "string", "w": "number", "x": "json", "d": "date"},
    {"w": "integer", "id": "string", "v": "integer", "_sdc_deleted_at": "date-time"},
    {"id": "integer", "b": "boolean", "at": "date-time"},
]
LONG = [16_249, 16_250, 16_251]


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Messages of some streams in any order."""
    names = ["one", "two", 'th"ree', ""][: draw(st.integers(1, 4))]
    shapes: dict[str, dict[str, Any]] = {}
    found: list[bytes] = []
    changes, versions, deletes, faults = (draw(st.booleans()) for _ in range(4))

    def announce(name: str) -> bytes:
        shapes[name] = draw(st.sampled_from(SHAPES if changes or name not in shapes else [{}]))
        properties = {each: PROPERTIES[kind] for each, kind in shapes[name].items()}
        keys = draw(st.sampled_from([["id"], ["id"], ["id"], [], ["id", [*properties][1]]]))
        more = {"bookmark_properties": ["id"]} if draw(st.booleans()) else {}
        return schema(name, properties, *keys, **more).rstrip()

    def records(name: str) -> bytes:
        members = []
        for each, kind in shapes[name].items():
            value = draw(st.sampled_from(ODD[kind][:12]) if faults else st.just(ODD[kind][0]))
            if kind == "string" and seldom(draw, 19):
                value = json.dumps(draw(st.sampled_from("aä😀")) * draw(st.sampled_from(LONG)))
            if each == "id":
                value = json.dumps(draw(st.integers(0, 3)))
                value = json.dumps(value) if kind == "string" else value
            if not seldom(draw, 9) or each == "id":
                members.append(f"{json.dumps(each)}:{value}")
        if deletes and seldom(draw, 2):
            members.append(f'"_sdc_deleted_at":{draw(st.sampled_from(MARKS[:7]))}')
        if seldom(draw, 9):
            members.append('"unknown":[1]')
        more = f',"version":{draw(st.sampled_from([1, 1, 2, 3]))}' if versions else ""
        more += f',"time_extracted":{draw(st.sampled_from(TIMES[:3]))}'
        return record(name, f"{{{','.join(members)}}}", more).rstrip()

    known = names[: draw(st.integers(1, len(names)))]
    found += map(announce, known)
    actions = ["record"] * 8 + ["state", "syncing", "activate", "schema", "batch", "fault"]
    for at, action in enumerate(draw(st.lists(st.sampled_from(actions), max_size=25))):
        name = draw(st.sampled_from(known))
        if action == "record":
            found.append(records(name))
        elif action == "state":
            found.append(state(at=at).rstrip())
        elif action == "syncing":
            found.append(state(at=at, currently_syncing=draw(st.sampled_from([None, *names]))))
            found[-1] = found[-1].rstrip()
        elif action == "activate":
            said = {"type": "ACTIVATE_VERSION", "stream": name, "version": draw(st.integers(1, 3))}
            found.append(json.dumps(said).encode())
        elif action == "schema":
            name = draw(st.sampled_from(names))
            known = [*dict.fromkeys([*known, name])]
            if changes or name not in shapes:
                found.append(announce(name))
        elif action == "batch" and seldom(draw, 3):
            said = {"type": "BATCH", "stream": name, "encoding": {"format": "jsonl"}}
            found.append(json.dumps(said | {"manifest": ["batch.jsonl"]}).encode())
        elif action == "fault" and faults:
            other = draw(st.sampled_from([*names, "unknown"]))
            odd = [b"{", b"", b"\r", b"\xef\xbb\xbf", b"{} {}", record(other, '{"id":1}').rstrip()]
            found.append(draw(st.sampled_from(odd)))
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    data = end.join(found) + end * draw(st.integers(0, 1))
    return draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf"])) + data


MAPS: list[dict[str, Any]] = [{}, {}, {"one": {"v2": "v"}}, {"two": None}, {"one": {"id": "id"}}]


@pytest.mark.usefixtures("_small_slices")
@given(
    data=conversations(),
    method=st.sampled_from(["upsert", "append-only", "overwrite"]),
    hard_delete=st.booleans(),
    metadata=st.booleans(),
    oversize=st.sampled_from(["truncate", "fail"]),
    stream_maps=st.sampled_from(MAPS),
    size=st.integers(1, 400),
)
@bounded(700)
def test_any_conversation(
    directory: Path,
    data: bytes,
    method: str,
    oversize: str,
    stream_maps: dict[str, Any],
    size: int,
    *,
    hard_delete: bool,
    metadata: bool,
) -> None:
    batch_file = directory / "batch.jsonl"
    batch_file.write_bytes(b'{"id":1,"v":"b"}\n{"id":5}\n')
    agree(
        data.replace(b"batch.jsonl", bytes(batch_file)),
        directory,
        (Way(), Way(sizes=(size,), aim_bytes=1), Way(converters=2, sizes=(size,), aim_bytes=1)),
        load_method=method,
        hard_delete=hard_delete,
        add_record_metadata=metadata,
        oversize_string=oversize,
        stream_maps=stream_maps,
    )
