"""Any schema and any records, any order of messages: each table equals the oracle's."""

from __future__ import annotations

import io
import itertools
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from target_celonis import batch, stream
from target_celonis.celonis import JobType
from target_celonis.clock import SystemClock
from target_celonis.config import parse
from target_celonis.dry_run import DryRun
from target_celonis.errors import TargetCelonisError
from target_celonis.run import Run as Program
from target_celonis.run_directory import RunDirectory

from .comparison import (
    Place,
    Run,
    compare,
    compare_counts,
    compare_end,
    compare_tables,
    logged,
    unhurried_emulator,
)
from .oracle import Oracle, Rules, Table, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target_celonis.config import Config
    from target_celonis.route import OpenJob, OpenPush, Receipt
    from target_celonis.spool import Chunk

_numbers = itertools.count(1)
METHODS = st.sampled_from(["upsert", "append-only", "overwrite"])


POOLS = 100


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An emulator with pools for the examples, on which a DELTA push makes no table."""
    directory = tmp_path_factory.mktemp("properties")
    with unhurried_emulator(directory, POOLS, "harsh") as emulator:
        yield Place(emulator, "", directory / "spool")


@pytest.fixture(scope="module", autouse=True)
def _small_slices() -> Iterator[None]:
    """Records are converted so few at a time that examples cross the border between slices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "SLICE_ROWS", 3)
        patch.setattr(stream, "SLICE_ROWS", 3)
        yield


class Tables(DryRun):
    """Tables in memory, made of the very chunks that would be uploaded."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, None)
        self.tables: dict[str, Table] = {}
        self.lengths: dict[str, dict[str, int]] = {}
        self._sent: dict[str, Any] = {}

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        read = pq.read_table(chunk.path, coerce_int96_timestamp_unit="us")
        self._sent.setdefault(job.id, []).append(read)
        super().send(job, chunk)

    def commit(self, push: OpenPush) -> Receipt:
        name = push.task.plan.table
        for job in push.jobs:
            sent = pa.concat_tables(self._sent.pop(job.id))
            there = self.tables.get(name) if job.type is JobType.DELTA else None
            kinds = dict(zip(sent.column_names, map(str, sent.schema.types), strict=True))
            rows = sent.to_pylist()
            found = there or Table({column: ARROW[kind] for column, kind in kinds.items()})
            keys = [key.name for key in push.task.plan.keys]
            gone = {tuple(row[key] for key in keys) for row in rows} if keys else set()
            kept = [row for row in found.rows if tuple(row[key] for key in keys) not in gone]
            found.rows = kept + ([] if job.deletes else rows)
            self.tables[name] = found
            self.lengths[name] = push.terms.lengths
        return super().commit(push)


ARROW = {
    "int64": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "date32[day]": "DATE",
    "timestamp[us]": "TIMESTAMP",
}


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )


# --- schemas

NULLABLE = st.sampled_from([[], ["null"]])
FORMATS = ["date-time", "date", "time", "uuid", "x-singer.decimal", "singer.decimal"]
PLAIN = st.sampled_from(["string", "integer", "number", "boolean", "object", "array"])


@st.composite
def simple_schemas(draw: st.DrawFn) -> dict[str, Any]:
    """A schema of one type, of several, or of none."""
    types = draw(st.lists(PLAIN, max_size=3, unique=True))
    if draw(st.booleans()):  # most properties have one
        types = types[:1]
    types = draw(st.permutations(types + draw(NULLABLE)))
    found: dict[str, Any] = {"type": types[0] if len(types) == 1 else types} if types else {}
    if "string" in types and draw(st.booleans()):
        found["format"] = draw(st.sampled_from(FORMATS))
    if "string" in types and draw(st.booleans()):
        found["maxLength"] = draw(st.sampled_from([1, 255, 300, 16250, 16251, 2**32, 0]))
    more = {"multipleOf": 0.01, "exclusiveMaximum": True, "description": "d", "pattern": "^a$"}
    return found | draw(st.sampled_from([{}, {}, more]))


@st.composite
def property_schemas(draw: st.DrawFn) -> Any:
    simple = simple_schemas()
    reference = st.sampled_from([f"#/definitions/d{number}" for number in range(4)])
    return draw(
        st.one_of(
            simple,
            simple,
            st.builds(
                lambda word, parts: {word: parts},
                st.sampled_from(["anyOf", "oneOf", "allOf"]),
                st.lists(simple, min_size=1, max_size=3),
            ),
            st.builds(lambda to: {"$ref": to}, reference),
            st.builds(lambda to: {"anyOf": [{"$ref": to}, {"type": "null"}]}, reference),
            st.sampled_from([True, {}, {"enum": ["a", None]}, {"const": 1}]),
        )
    )


# --- values, as JSON texts

TEXTS = st.one_of(
    st.text(max_size=8),
    st.text(max_size=4).map(lambda text: text * 70),
    st.text(st.characters(categories=["Cs", "Lu", "So"]), max_size=4),
    st.sampled_from(["", " ", "null", "NaN", "true", "1", "1.5", "2024-05-31", "12:34:56", "\\u"]),
)
MOMENTS = st.builds(
    lambda moment, zone, blank: moment.isoformat(" " if blank else "T") + zone,
    st.datetimes(),
    st.sampled_from(["", "Z", "+00", "+00:00", "+00:00+00:00", "-05:30", "+1400", "+00:53:28"]),
    st.booleans(),
)
DAYS = st.dates().map(str)


@st.composite
def spelled_numbers(draw: st.DrawFn) -> str:
    """A number as JSON allows it, of any size and with any number of digits."""
    digits = draw(st.integers(0, 10 ** draw(st.integers(1, 40))))
    fraction = draw(st.sampled_from(["", ".0", ".5", ".67000000000000003996"]))
    exponent = draw(st.sampled_from(["", "", "", "e0", "E+2", "e-3", "e400"]))
    return draw(st.sampled_from(["", "-"])) + str(digits) + fraction + exponent


def spelled_json(value: Any) -> st.SearchStrategy[str]:
    ways: list[dict[str, Any]] = [{}, {"ensure_ascii": False}, {"separators": (",", ":")}]
    text = json.dumps(value)
    has_halves = (
        any(0xD800 <= ord(character) < 0xE000 for character in json.loads(text) or "")
        if (isinstance(value, str))
        else True
    )
    return st.sampled_from([json.dumps(value, **way) for way in ways if not has_halves or not way])


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
FITTING: dict[str, st.SearchStrategy[str]] = {
    "integer": st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(str),
        st.integers().map(str),
        st.sampled_from(["12.0", "1e3", '"42"', '""', "true", "9223372036854775808", "NaN"]),
    ),
    "number": st.one_of(
        spelled_numbers(),
        st.floats().map(json.dumps),
        st.sampled_from(['"1.5"', '"-0"', '" "', "false", "1e400", "-Infinity", '"nan"', "5e-324"]),
    ),
    "boolean": st.sampled_from(["true", "false", "0", "1", '"True"', '"no"', '""', "1.0", '" t "']),
    "date-time": st.one_of(MOMENTS, DAYS, st.just("")).map(json.dumps),
    "date": st.one_of(DAYS, MOMENTS, st.just("")).map(json.dumps),
    "string": st.one_of(
        TEXTS.flatmap(spelled_json), spelled_numbers(), JSON_VALUES.map(json.dumps)
    ),
    "json": st.one_of(TEXTS.flatmap(spelled_json), spelled_numbers(), JSON_VALUES.map(json.dumps)),
}
ANY = st.one_of(*FITTING.values())


# --- one stream

NAMES = st.one_of(
    st.sampled_from(["a", "A", "a b", "a_b", "a.b", "Größe", "ID", "Id", "select", "", "x" * 130]),
    st.text(max_size=5).filter(lambda name: name != "id"),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The lines of a stream: schemas, and records of which nearly all fit them."""
    definitions = {f"d{number}": draw(simple_schemas()) for number in range(3)}
    lines = []
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    lies = draw(st.integers(0, 4)) == 0
    number = 0
    for _ in range(draw(st.integers(1, 2))):
        properties = {name: draw(property_schemas()) for name in draw(st.permutations(names))}
        root = {
            "properties": {"id": {"type": "integer"}} | properties,
            "definitions": definitions,
        }
        announced = {"type": "SCHEMA", "stream": "s", "schema": root, "key_properties": ["id"]}
        lines.append(json.dumps(announced).encode())
        kinds = {name: kind_of(each, root)[0] for name, each in properties.items()}
        for _ in range(draw(st.integers(0, 5))):
            number += draw(st.integers(0, 1))
            members = [f'"id": {number}']
            for name, kind in kinds.items():
                if draw(st.integers(0, 9)):
                    value = draw(st.one_of(st.just("null"), FITTING[kind], FITTING[kind]))
                    value = draw(ANY) if lies else value
                    members.append(f"{json.dumps(name)}: {value}")
            record = ", ".join(draw(st.permutations(members)))
            line = f'{{"type": "RECORD", "stream": "s", "record": {{{record}}}}}'
            lines.append(line.encode(errors="surrogatepass"))
    lines.append(b'{"type": "STATE", "value": {"rows": %d}}' % number)
    return lines


@given(lines=streams(), method=METHODS)
@bounded(100)
def test_any_schema_and_any_records(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], method: str
) -> None:
    data = b"".join(line + b"\n" for line in lines)
    wanted = Oracle(Rules(method, trust_end_of_input=True)).outcome(data)
    values = {"load_method": method, "trust_end_of_input": True}
    config = parse(values, {}, needs_celonis=False)
    tables = Tables(config)
    directory = RunDirectory(tmp_path_factory.getbasetemp() / "spool", SystemClock())
    program, states, failure = Program(config), list[bytes](), None
    with program._signals.installed(), logged() as log:
        try:
            begun = program._begin(io.BytesIO(data))
            program._load_through(tables, directory, begun, states.append)
            program._say_counts()
        except TargetCelonisError as error:
            failure = error
    directory.close()
    run = Run(0, None, states, log)
    if failure is not None:
        run = Run(failure.exit_code, failure.code, states, log, str(failure))
    compare_end(run, wanted)
    compare_tables(tables.tables, tables.lengths, wanted)
    if failure is None:
        compare_counts(run, wanted.counts)


# --- many streams

SHAPES: list[dict[str, Any]] = [
    {"id": {"type": "integer"}, "v": {"type": "string"}},
    {"id": {"type": "integer"}, "v": {"type": ["null", "string"]}, "w": {"type": "number"}},
    {"w": {"type": "integer"}, "id": {"type": "string"}, "v": {"type": "integer"}},
]
KEYS: list[list[str]] = [["id"], ["id"], ["id"], [], ["id", "v"]]


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Messages of some streams in any order, as far as a tap may send them."""
    names = ["one", "two", "three"][: draw(st.integers(1, 3))]
    changes = draw(st.booleans())
    versions = draw(st.booleans())
    deletes = draw(st.booleans())
    shapes = dict.fromkeys(names, (0, 0, False))
    found: list[dict[str, Any]] = []

    def announce(name: str) -> dict[str, Any]:
        shape, keys, bookmarks = shapes[name]
        return {
            "type": "SCHEMA",
            "stream": name,
            "schema": {"properties": SHAPES[shape] | {"_sdc_deleted_at": {"type": "string"}}},
            "key_properties": KEYS[keys],
            **({"bookmark_properties": ["id"]} if bookmarks else {}),
        }

    for name in names:
        shapes[name] = (0, draw(st.integers(0, 3)), draw(st.booleans()))
        found.append(announce(name))
    actions = ["record"] * 6 + ["state", "activate", "schema"]
    for at, action in enumerate(draw(st.lists(st.sampled_from(actions), max_size=30))):
        name = draw(st.sampled_from(names))
        if action == "schema" and changes:
            _, keys, bookmarks = shapes[name]
            keys = draw(st.sampled_from([keys, keys, 0, 3, 4]))
            shapes[name] = (draw(st.integers(0, 2)), keys, bookmarks)
            found.append(announce(name))
        elif action == "state":
            syncing = draw(st.sampled_from([[], [None], names]))
            more = {"currently_syncing": draw(st.sampled_from(syncing))} if syncing else {}
            found.append({"type": "STATE", "value": {"at": at} | more})
        elif action == "activate":
            known = draw(st.sampled_from([*names, "unknown"]))
            version = draw(st.integers(1, 3))
            found.append({"type": "ACTIVATE_VERSION", "stream": known, "version": version})
        else:
            record: dict[str, Any] = {"id": draw(st.integers(0, 4)), "v": str(at), "w": at}
            if deletes and not draw(st.integers(0, 3)):
                record["_sdc_deleted_at"] = draw(st.sampled_from(["2024-05-31", "", "?", None]))
            version = draw(st.sampled_from([1, 1, 1, 2, 3, None]))
            more = {"version": version} if versions and version else {}
            found.append({"type": "RECORD", "stream": name, "record": record, **more})
    return found


@given(
    messages=conversations(),
    method=METHODS,
    hard_delete=st.booleans(),
    trust=st.booleans(),
    activate=st.sampled_from([True, True, True, False]),
)
@bounded(40)
def test_any_order_of_messages(
    pools: Place,
    messages: list[dict[str, Any]],
    method: str,
    *,
    hard_delete: bool,
    trust: bool,
    activate: bool,
) -> None:
    data = b"".join(json.dumps(each).encode() + b"\n" for each in messages)
    rules = Rules(method, hard_delete, trust, activate, makes_by_replace=True)
    wanted = Oracle(rules).outcome(data)
    turn, pool = divmod(next(_numbers), POOLS)
    place = Place(pools.emulator, f"pool{pool + 1}", pools.spool, prefix=f"e{turn}-")
    run = place.load(data, rules)
    compare(place, run, wanted)
    if wanted.exit_code in (0, 4):
        compare_counts(run, wanted.counts)
    # States come in the tap's order, each as it was written, none twice.
    own = [json.dumps(each["value"]).encode() for each in messages if each["type"] == "STATE"]
    places = [own.index(each) for each in run.states]
    assert places == sorted(set(places))
