"""The fast way to read the input comes to what the careful one comes to."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
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
        ways = (WAYS[number],) if number else (Way(), IN_PIECES)
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
    for value in ODD[kind][:70]:
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
@bounded(100)
def test_any_values_of_one_column(data: bytes, *, deletes: bool) -> None:
    agree_alone(data, deletes=deletes)


def test_bytes_that_are_no_text() -> None:
    for kind, name, where in itertools.product(
        sorted(PROPERTIES), ("v", "unknown", "_sdc_deleted_at"), ('"%"', '{"a":"%"}', '["%",NaN]')
    ):
        head = schema("s", {"id": {"type": "integer"}, "v": PROPERTIES[kind]}, "id")
        for octets in (b"\xff", b"\xed\xa0\x80"):
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
@bounded(100)
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


@dataclass
class Tap:
    """Makes up messages of some streams.

    Attributes:
        draw: Chooses.
        names: The streams.
        changes: Whether schemas may change.
        versions: Whether records carry a version.
        deletes: Whether rows may be deleted.
        faults: Whether values may not fit, and lines may be no messages.
        shapes: What was announced.
    """

    draw: st.DrawFn
    names: list[str]
    changes: bool
    versions: bool
    deletes: bool
    faults: bool
    shapes: dict[str, dict[str, str]] = field(default_factory=dict)

    def announce(self, name: str) -> bytes:
        draw = self.draw
        if self.changes or name not in self.shapes:
            self.shapes[name] = draw(st.sampled_from(SHAPES))
        shape = self.shapes[name]
        keys = draw(st.sampled_from([["id"], ["id"], ["id"], [], ["id", [*shape][1]]]))
        more = {"bookmark_properties": ["id"]} if draw(st.booleans()) else {}
        properties = {each: PROPERTIES[kind] for each, kind in shape.items()}
        return schema(name, properties, *keys, **more)

    def record(self, name: str) -> bytes:
        draw = self.draw
        members = []
        for each, kind in self.shapes[name].items():
            if each == "id":
                number = str(draw(st.integers(0, 3)))
                members.append(f'"id":{number}' if kind == "integer" else f'"id":"{number}"')
            elif not seldom(draw, 9):
                members.append(f"{json.dumps(each)}:{self.value(kind)}")
        if self.deletes and seldom(draw, 2):
            members.append(f'"_sdc_deleted_at":{draw(st.sampled_from(MARKS[:7]))}')
        if seldom(draw, 9):
            members.append('"unknown":[1]')
        more = f',"version":{draw(st.sampled_from([1, 1, 2, 3]))}' if self.versions else ""
        more += f',"time_extracted":{draw(st.sampled_from(TIMES[:3]))}'
        return record(name, f"{{{','.join(members)}}}", more)

    def value(self, kind: str) -> str:
        draw = self.draw
        if kind == "string" and seldom(draw, 19):
            return json.dumps(draw(st.sampled_from("aä😀")) * draw(st.sampled_from(LONG)))
        return draw(st.sampled_from(ODD[kind][:12])) if self.faults else ODD[kind][0]

    def state(self, at: int) -> bytes:
        return state(at=at)

    def syncing(self, at: int) -> bytes:
        return state(at=at, currently_syncing=self.draw(st.sampled_from([None, *self.names])))

    def activate(self, name: str) -> bytes:
        version = self.draw(st.integers(1, 3))
        said = {"type": "ACTIVATE_VERSION", "stream": name, "version": version}
        return json.dumps(said).encode()

    def schema(self, _name: str) -> bytes:
        name = self.draw(st.sampled_from(self.names))
        return self.announce(name) if self.changes or name not in self.shapes else b""

    def batch(self, name: str) -> bytes:
        said = {"type": "BATCH", "stream": name, "encoding": {"format": "jsonl"}}
        said |= {"manifest": ["batch.jsonl"]}
        return json.dumps(said).encode() if seldom(self.draw, 3) else b""

    def fault(self, _name: str) -> bytes:
        name = self.draw(st.sampled_from([*self.names, "unknown"]))
        odd = [b"{", b"", b"\r", b"\xef\xbb\xbf", b"{} {}", b'{"type":\n', record(name, "{}")]
        return self.draw(st.sampled_from(odd)) if self.faults else b""


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Messages of some streams in any order."""
    names = ["one", "two", 'th"ree', ""][: draw(st.integers(1, 4))]
    tap = Tap(draw, names, *(draw(st.booleans()) for _ in range(4)))
    found = [tap.announce(name) for name in names[: draw(st.integers(1, len(names)))]]
    of_a_stream = [tap.record] * 8 + [tap.activate, tap.schema, tap.batch, tap.fault]
    actions = [*of_a_stream, tap.state, tap.syncing]
    for at, action in enumerate(draw(st.lists(st.sampled_from(actions), max_size=25))):
        if action in (tap.state, tap.syncing):
            found.append(action(at))
        else:
            found.append(action(draw(st.sampled_from(sorted(tap.shapes)))))
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    data = end.join(line.removesuffix(b"\n") for line in found)
    data += end * draw(st.integers(0, 1))
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
@bounded(25)
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


# --- what was found, and what is rare

ID = {"id": {"type": "integer"}}
TEXT = ID | {"v": {"type": "string"}}


@pytest.mark.parametrize(
    "settings", [{}, {"hard_delete": True}, {"add_record_metadata": True}], ids=str
)
def test_a_line_is_split_anywhere(directory: Path, settings: dict[str, Any]) -> None:
    data = b"".join(
        (
            b"\xef\xbb\xbf\r\n",
            schema("ä", TEXT, "id"),
            *(record("ä", f'{{"id":{n},"v":"ä😀"}}').replace(b"\n", b"\r\n") for n in range(3)),
            b"\n",
            state(currently_syncing="ä"),
            record("ä", '{"id":7,"v":"x","_sdc_deleted_at":1}').rstrip(),
        )
    )
    careful = read(data, CAREFUL, directory / f"{next(_numbers)}", **settings)
    step = 5 if settings else 2
    for offset in range(1, len(data), step):
        way = Way(sizes=(offset, len(data)), aim_bytes=1)
        assert read(data, way, directory / f"{next(_numbers)}", **settings) == careful
    ways = (*(Way(converters=2, sizes=(size,), aim_bytes=1) for size in (1, 2, 3, 50, 131)),)
    agree(data, directory, ways, **settings)


@pytest.mark.parametrize("length", [16_249, 16_250, 16_251, 65_001])
@pytest.mark.parametrize("letter", ["a", "ä", "\\u00e4", "😀"])
@pytest.mark.parametrize("oversize", ["truncate", "fail"])
def test_long_texts(directory: Path, letter: str, length: int, oversize: str) -> None:
    properties = TEXT | {"o": {"type": "object"}}
    text = letter * length
    data = b"".join(
        (
            schema("s", properties, "id"),
            record("s", '{"id":1,"v":"a","o":{}}'),
            record("s", f'{{"id":2,"v":"{text}","o":{{}}}}'),
            record("s", f'{{"id":3,"v":"a","o":["{text[6:]}"]}}'),
        )
    )
    agree(data, directory, oversize_string=oversize)


@pytest.mark.parametrize("letter", ["a", "\\u00e4"])
def test_a_long_key_is_refused(directory: Path, letter: str) -> None:
    for length in (16_250, 16_251):
        line = record("s", f'{{"id":1,"v":"{letter * length}"}}')
        agree(schema("s", TEXT, "v") + line, directory, oversize_string="truncate")


def long_line(megabytes: int) -> bytes:
    text = json.dumps(["x" * 15_000] * (megabytes * 66))
    properties = TEXT | {"o": {"type": "array"}}
    fit = record("s", '{"id":1,"v":"a","o":[]}')
    return schema("s", properties, "id") + fit + record("s", f'{{"id":2,"o":{text}}}') + fit


def test_a_line_of_some_megabytes(directory: Path) -> None:
    agree(long_line(6), directory, (Way(), Way(converters=1)), oversize_string="truncate")


@pytest.mark.slow
def test_a_line_of_many_megabytes(directory: Path) -> None:
    ways = (Way(), Way(converters=1), Way(converters=2, sizes=(77_777,)))
    agree(long_line(50), directory, ways, oversize_string="truncate", memory_limit_mb=1_000)


def test_a_stream_that_was_silent_for_long_comes_beside_a_new_one() -> None:
    names = [f"s{number}" for number in range(40)]
    lines = [schema(name, ID, "id") for name in names]
    lines += [record(name, '{"id":1}') for name in names[:32]]
    lines += [state(currently_syncing=f"{number}") for number in range(60)]
    lines += [record("s0", '{"id":2}'), record("s1", '{"id":2}'), record("s35", '{"id":1}')]
    lines += [record(name, '{"id":3}') for name in names]
    agree_alone(b"".join(lines))


@pytest.mark.parametrize("stays", [0, 1, 40])
def test_many_streams_one_after_another(directory: Path, stays: int) -> None:
    lines = []
    for number in range(45):
        lines.append(schema(f"s{number}", TEXT, "id"))
        text = f'{{"id":{number},"v":"x"}}'
        lines += [record(f"s{number - back}", text) for back in {0, 1, stays} if number >= back]
        lines.append(state(at=number, **({"currently_syncing": None} if number % 2 else {})))
    agree_alone(b"".join(lines))
    if stays:
        agree(b"".join(lines[:200]), directory, (Way(), Way(converters=3, sizes=(999,))))


@pytest.mark.parametrize(
    "line",
    [
        '{"type":"RECORD","type":"RECORD","stream":"s","record":{"id":2}}',
        '{"type":"RECORD","stream":"s","record":{"id":2},"t\\u0079pe":"REC\\u004fRD"}',
        '{"type":"RECORD","type":"STATE","stream":"s","record":{"id":2},"value":{}}',
        '{"type":"STATE","type":"RECORD","stream":"s","record":{"id":2},"value":{}}',
        '{"type":"STATE","stream":"s","record":{"id":2},"value":{},"typ\\u0065":"RECORD"}',
        '{"type":"RECORD","type":1,"stream":"s","record":{"id":2}}',
        '{"type":null,"type":"RECORD","stream":"s","record":{"id":2}}',
        '{"type":"RECORD","stream":"t","stream":"s","record":{"id":2}}',
        '{"type":"RECORD","stream":"s","stream":"t","record":{"id":2,"v":1}}',
        '{"type":"RECORD","stream":"s","stream":"u","record":{"id":2}}',
        '{"stream":"s","record":{"id":2},"stream":"s","record":{"id":3},"type":"RECORD"}',
        '{"stream":"s","record":{"x":2},"record":{"id":3},"type":"RECORD"}',
        '{"stream":"s","record":7,"record":{"id":3},"type":"RECORD"}',
        '{"stream":"s","record":{"id":3},"record":null,"type":"RECORD"}',
        '{"stream":"s","record":{"id":"x","id":3},"type":"RECORD"}',
        '{"stream":"s","record":{"id":3,"id":null},"type":"RECORD"}',
        '{"stream":"s","record":{"id":3,"\\u0069d":4},"type":"RECORD"}',
        '{"stream":"s","record":{"id":3},"version":1,"version":null,"type":"RECORD"}',
        '{"stream":"s","record":{"id":3},"version":null,"version":1,"type":"RECORD"}',
        '{"type":"RECORD","stream":"s","record":{"id":2}}{"type":"STATE","value":{}}',
        '{"type":"RECORD","stream":"s",\n"record":{"id":2}}',
        '{"type":"RECORD","record":{"id":2}}',
        '{"type":"RECORD","stream":"","record":{"id":2}}',
        '[{"type":"RECORD","stream":"s","record":{"id":2}}]',
    ],
)
def test_what_is_said_twice_or_not_at_all(line: str) -> None:
    lines = [schema("s", ID, "id"), schema("t", TEXT, "id"), record("s", '{"id":1}')]
    lines += [record("t", '{"id":1,"v":"x"}'), line.encode() + b"\n", record("s", '{"id":9}')]
    agree_alone(b"".join(lines))
    agree_alone(b"".join([lines[0], *lines[2:3], *lines[4:]]))


@pytest.mark.parametrize("converters", [0, 1, 2])
def test_a_byte_order_mark_stands_at_the_beginning_only(directory: Path, converters: int) -> None:
    lines = [schema("s", ID, "id"), *(record("s", f'{{"id":{n}}}') for n in range(5))]
    way = Way(converters=converters, sizes=(1,), aim_bytes=1)
    for place in range(len(lines)):
        data = b"".join([*lines[:place], b"\xef\xbb\xbf", *lines[place:]])
        careful = read(data, CAREFUL, directory / f"{next(_numbers)}")
        assert (careful.error is not None) is (place > 0)
        assert read(data, way, directory / f"{next(_numbers)}") == careful


@pytest.mark.parametrize(
    "fault",
    [
        record("s", '{"id":null}'),
        record("t", '{"id":1,"v":2,"_sdc_deleted_at":"x"}'),
        record("unknown", '{"id":1}'),
        b"{\n",
        b'{"type":"STATE","value":1}\n',
    ],
)
def test_what_comes_behind_a_fault_does_not_count(directory: Path, fault: bytes) -> None:
    before = [schema("s", ID, "id"), schema("t", TEXT), record("s", '{"id":1}')]
    before += [record("t", '{"id":1,"v":"x"}'), state(at=1)]
    behind = [record("s", '{"id":2}'), record("t", '{"id":2}'), state(at=2), b"[\n"]
    data = b"".join([*before, fault, *behind])
    for deletes in (False, True):
        agree(data, directory, hard_delete=deletes)
        careful = read(data, CAREFUL, directory / f"{next(_numbers)}", hard_delete=deletes)
        found = careful.error and (*careful.error, *(each[0] for each in careful.counts.values()))
        assert found
        assert ("ine 6" in found[1] and found[3:] == (1, 1)) or found[3:] == (2, 3)


def test_deletes_beside_a_fault_that_is_read_with_care() -> None:
    lines = [schema("s", ID | {"n": {"type": "integer"}}, "id")]
    lines += [record("s", f'{{"id":{n},"n":1,"_sdc_deleted_at":true}}') for n in range(3)]
    lines += [record("s", '{"id":1,"n":1.5}'), record("s", '{"id":1,"n":"2"}')]
    for deletes in (False, True):
        agree_alone(b"".join(lines), deletes=deletes)


def test_metadata_of_rows_to_delete_is_not_looked_at() -> None:
    lines = [schema("s", ID, "id")]
    for mark, time in itertools.product(('"x"', "null"), TIMES):
        more = f',"version":{2**63},"time_extracted":{time}'
        lines.append(record("s", f'{{"id":1,"_sdc_deleted_at":{mark}}}', more))
    for line in lines[1:]:
        agree_alone(lines[0] + line, deletes=True, adds_metadata=True)
        agree_alone(lines[0] + line, adds_metadata=True)


def test_the_first_fault_is_told_whatever_column_it_is_in() -> None:
    properties = {"a": {"type": "integer"}, "b": {"type": "integer"}} | ID
    lines = [schema("s", properties, "id"), record("s", '{"a":1,"b":1,"id":1}')]
    lines += [record("s", '{"a":1,"b":"x","id":1}'), record("s", '{"a":"x","b":1,"id":1}')]
    agree_alone(b"".join(lines))
    assert "line 3, column `b`" in (decode(b"".join(lines), Way()).error or ("", ""))[1]


def test_nesting_without_end() -> None:
    for depth in (500, 1_100, 20_000):
        deep = "[" * depth + "]" * depth
        for text in (f'{{"id":1,"o":{deep}}}', f'{{"id":1,"type":"x","u":{deep}}}'):
            data = schema("s", ID | {"o": {"type": "array"}}, "id") + record("s", text)
            agree_alone(data)
            agree_alone(data.replace(b'"RECORD"', b'"RECORD","type":"RECORD"'))
