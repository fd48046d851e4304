"""Singer messages as odd as taps print them, loaded in every way and compared with an oracle."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from program.harness import Target, lines, message, record, schema, state

from .comparison import Place, Run, compare, compare_counts, unhurried_emulator
from .oracle import Oracle, Rules, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program.harness import Emulator

CORPUS = Path(__file__).parent / "corpus"
SAMPLES = Path(__file__).parent / "samples"
FILES = sorted(CORPUS.glob("*.jsonl"))
OF_REAL_TAPS = [path for path in sorted(SAMPLES.glob("*.jsonl")) if path.stem != "pg-ml-batch"]
REFUSED = sorted((CORPUS / "refused").glob("*.jsonl"))
PIPELINES = sorted({path.stem.rpartition(".")[0] for path in (CORPUS / "runs").glob("*.jsonl")})
METHODS = ("upsert", "append-only", "overwrite")
# Files in which the way of loading decides more than the number of rows, by their first word;
# the others are loaded in every way by the program itself, all at once.
WAYS_MATTER = {"batch", "deletes", "empty", "key", "keys", "schema", "versions"}
HARD = {
    "deletes_hard",
    "deletes_and_keys",
    "deletes_malformed",
    "tap_postgres",
    "delete_without_key",
}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with pools enough for a pool a test."""
    with unhurried_emulator(tmp_path_factory.mktemp("corpus"), 250, "lenient") as emulator:
        yield emulator


@pytest.fixture
def place(shared: Emulator, tmp_path: Path) -> Place:
    """A pool that no other test uses."""
    return Place(shared, f"pool{next(_numbers)}", tmp_path / "spool")


def content_of(path: Path) -> bytes:
    return path.read_bytes().replace(b"@CORPUS@", CORPUS.as_uri().encode())


def rules_for(name: str, method: str) -> Rules:
    return Rules(method, hard_delete=name in HARD, trust_end_of_input=method == "overwrite")


# --- one run


def case(path: Path, method: str) -> Any:
    return pytest.param(path, method, id=f"{path.stem}-{method}")


def cases() -> Iterator[Any]:
    for path, method in itertools.product([*FILES, *OF_REAL_TAPS], METHODS):
        if method == "upsert" or path.stem.partition("_")[0] in WAYS_MATTER:
            yield case(path, method)


@pytest.mark.parametrize(("path", "method"), list(cases()))
def test_a_file_comes_to_what_the_rules_say(place: Place, path: Path, method: str) -> None:
    data = content_of(path)
    rules = rules_for(path.stem, method)
    wanted = Oracle(rules).outcome(data)
    # A time that is none is a column's value where nothing is deleted.
    is_good = (path.stem, method) != ("deletes_malformed", "append-only")
    assert wanted.exit_code == (0 if is_good else 4)
    run = place.load(data, rules)
    compare(place, run, wanted)
    if is_good:
        compare_counts(run, wanted.counts)


DEALT = [path for path in FILES if path.stem not in HARD]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_all_at_once_by_the_program_itself(place: Place, tmp_path: Path, method: str) -> None:
    """All files with their lines dealt out in turn, through one run of the program."""
    texts = [
        content_of(path).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
        for path in DEALT
    ]
    dealt = [line for turn in itertools.zip_longest(*texts) for line in turn if line]
    trust = method == "overwrite"
    wanted = Oracle(Rules(method, trust_end_of_input=trust)).outcome(lines(*dealt))
    assert (wanted.exit_code, len(wanted.tables) > len(DEALT)) == (0, True)
    settings = place.emulator.settings | {"data_pool_id": place.pool, "load_method": method}
    ended = Target(tmp_path, settings).load(*dealt, trust_end_of_input=trust)
    compare(place, Run(ended.code, None, ended.states, ended.err.splitlines()), wanted)


# --- runs that are refused


def long_words(data: bytes) -> set[str]:
    """Return the texts in the records that are no part of any sentence."""
    records = re.findall(r'"record": (.*)', data.decode())
    values = {value for each in records for value in re.findall(r'"([^"]+)"[,}]', each)}
    return {value for value in values if len(value) > len("good")}


@pytest.mark.parametrize(
    ("path", "method"),
    [case(path, "overwrite" if "overwrite" in path.stem else "upsert") for path in REFUSED],
)
def test_a_file_is_refused_as_the_rules_say(place: Place, path: Path, method: str) -> None:
    data = path.read_bytes()
    rules = replace(rules_for(path.stem, method), trust_end_of_input=False)
    wanted = Oracle(rules).outcome(data)
    assert wanted.exit_code in (4, 5)
    assert wanted.tables == {}
    run = place.load(data, rules)
    compare(place, run, wanted)
    assert not [word for word in long_words(data) if word in " ".join([*run.log, run.said])]


# --- several runs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PIPELINES)
def test_runs_follow_one_another(place: Place, name: str, method: str) -> None:
    paths = sorted((CORPUS / "runs").glob(f"{name}.*.jsonl"))
    assert len(paths) > 1
    rules = replace(rules_for(name, method), hard_delete=True)
    tables: dict[str, Table] = {}
    for path in paths:
        data = path.read_bytes()
        wanted = Oracle(rules, tables).outcome(data)
        run = place.load(data, rules, min_row_ratio=0.0)
        compare(place, run, wanted)
        tables = wanted.tables


# --- quantities


def test_many_streams_of_one_record(tmp_path: Path) -> None:
    """More streams than files may be open, without the wait for as many push jobs."""
    names = [f"stream_{number:03d}" for number in range(300)]
    announced = [schema(name) for name in names]
    records = [record(name, id=turn, text=f"{name} {turn}") for turn in (1, 2) for name in names]
    kept = tmp_path / "kept"
    target = Target(tmp_path, {})
    target.prints_states = False
    ended = target.run(lines(*announced, *records), "--dry-run", spool_dir=str(kept))
    assert ended.code == 0, ended.err
    assert ended.out.count(b"push job   DELTA, keys: id") == len(names)
    found = {path.parent.name: path for path in kept.glob("dry-run-*/*/*.parquet")}
    assert sorted(found) == names
    for name, path in found.items():
        assert pq.read_table(path).to_pylist() == [
            {"id": turn, "text": f"{name} {turn}"} for turn in (1, 2)
        ]


@pytest.mark.parametrize("method", METHODS)
def test_a_key_that_repeats(place: Place, method: str) -> None:
    times = 10_000
    data = lines(
        schema("repeats"),
        record("repeats", id=-1, text="once"),
        *[record("repeats", id=7, text=f"time {number}") for number in range(times)],
        state({"at": times}),
    )
    rules = rules_for("repeats", method)
    wanted = Oracle(rules).outcome(data)
    assert len(wanted.tables["repeats"].rows) == (times + 1 if method == "append-only" else 2)
    run = place.load(data, rules)
    compare(place, run, wanted)
    compare_counts(run, wanted.counts)


@pytest.mark.parametrize("method", METHODS)
def test_deletes_and_versions_among_thousands(place: Place, method: str) -> None:
    """More records than are converted at a time, before and behind what changes their fate."""
    columns = {"id": {"type": "integer"}, "text": {"type": ["null", "string"]}}
    announced = schema("thousands", columns | {"_sdc_deleted_at": {"type": ["null", "string"]}})
    old = [record("thousands", 1, id=number, text="old") for number in range(1500)]
    new = [record("thousands", 2, id=number % 2500, text=str(number)) for number in range(4000)]
    for number in (1200, 1201, 2600, 3999):
        new[number] = record("thousands", 2, id=number % 2500, _sdc_deleted_at="2024-05-31")
    end = message("ACTIVATE_VERSION", stream="thousands", version=2)
    data = lines(announced, *old, *new, end, state({"version": 2}))
    rules = replace(rules_for("thousands", method), hard_delete=True)
    wanted = Oracle(rules).outcome(data)
    run = place.load(data, rules)
    compare(place, run, wanted)
    compare_counts(run, wanted.counts)


def test_long_lines(place: Place) -> None:
    """Lines of a megabyte and more: a state, unknown properties, many texts, a deep schema."""
    texts = {f"text_{number:03d}": {"type": ["null", "string"]} for number in range(100)}
    long_state = {"pages": ["x" * 1000 for _ in range(1000)]}
    data = lines(
        schema("long_lines", {"id": {"type": "integer", "description": "d" * 1_000_000}} | texts),
        record("long_lines", id=1, **{name: name[-3:] * 4000 for name in texts}),
        record("long_lines", id=2, unknown="u" * 2_000_000),
        state(long_state),
    )
    wanted = Oracle(Rules()).outcome(data)
    assert len(wanted.state or "") > 1_000_000
    compare(place, place.load(data, Rules()), wanted)


@pytest.mark.parametrize("keys", [["id"], []], ids=["with a key", "without one"])
def test_a_small_increment_leaves_a_large_table(place: Place, keys: list[str]) -> None:
    """Taps send versions with every run; only a whole table replaces one."""
    texts = {"id": {"type": "integer"}, "text": {"type": ["null", "string"]}}
    announced = json.loads(schema("versioned", texts, keys))
    activated = message("ACTIVATE_VERSION", stream="versioned", version=5)
    first = lines(
        json.dumps(announced).encode(),
        *[record("versioned", 5, id=number, text="first") for number in range(1000)],
        activated,
        state({"bookmarks": {"versioned": {"version": 5}}}),
    )
    announced["bookmark_properties"] = ["id"]
    second = lines(
        json.dumps(announced).encode(),
        activated,
        *[record("versioned", 5, id=number, text="second") for number in range(990, 1007)],
        activated,
        state({"bookmarks": {"versioned": {"version": 5, "id": 1006}}}),
    )
    tables: dict[str, Table] = {}
    for data in (first, second, second):
        wanted = Oracle(Rules(), tables).outcome(data)
        run = place.load(data, Rules())
        compare(place, run, wanted)
        compare_counts(run, wanted.counts)
        tables = wanted.tables
    assert len(tables["versioned"].rows) == (1007 if keys else 1034)


# --- what proves an end


@pytest.mark.parametrize(
    ("end", "proves"),
    [
        ([], False),
        ([{}], False),
        ([{"bookmarks": {}}], False),
        ([{"currently_syncing": "whole"}], False),
        ([{"currently_syncing": "another"}], True),
        ([{"currently_syncing": None}], True),
        ([{"currently_syncing": None}, {"currently_syncing": "whole"}], True),
        ([7], True),
        ([6], False),
        ([8], False),
    ],
)
def test_overwrite_wants_a_proof(place: Place, end: list[Any], *, proves: bool) -> None:
    markers = [
        message("ACTIVATE_VERSION", stream="whole", version=each)
        if isinstance(each, int)
        else state(each)
        for each in end
    ]
    before = [
        state({"currently_syncing": None}),
        message("ACTIVATE_VERSION", stream="whole", version=7),
        schema("whole"),
        state({"currently_syncing": "whole"}),
    ]
    data = lines(*before, *[record("whole", 7, id=number) for number in range(3)], *markers)
    wanted = Oracle(Rules("overwrite")).outcome(data)
    assert wanted.exit_code == (0 if proves else 4)
    run = place.load(data, Rules("overwrite"))
    compare(place, run, wanted)
    compare_counts(run, wanted.counts)
