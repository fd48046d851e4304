"""BATCH messages: what stands in their files is loaded as if it had come as records."""

from __future__ import annotations

import gzip
import itertools
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .harness import (
    Emulator,
    Target,
    eventually,
    lines,
    message,
    record,
    rows,
    schema,
    state,
    syncing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .harness import Ended

SECRET = "hunter2-4711"
_numbers = itertools.count(1)


def batch(stream: str, *files: str | Path, **fields: Any) -> bytes:
    """Return a BATCH message like the Singer SDK's; paths become URLs."""
    named = [file.as_uri() if isinstance(file, Path) else file for file in files]
    encoding = {"format": "jsonl", "compression": "gzip"}
    fields = {"stream": stream, "encoding": encoding, "manifest": named} | fields
    return message("BATCH", **fields)


def jsonl(records: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)


def numbered(numbers: Iterable[int], text: str = "a") -> bytes:
    return jsonl({"id": number, "text": text} for number in numbers)


def counts(err: str, stream: str) -> list[int]:
    """Return read, loaded and merged of the closing table."""
    row = next(words for line in err.splitlines() if (words := line.split())[7:8] == [stream])
    return [int(word) for word in row[9:12]]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Write a batch file of some name."""

    def written(data: bytes, name: str = "", *, pack: bool = True) -> Path:
        path = tmp_path / (name or f"batch {next(_numbers)}.json.gz")
        path.write_bytes(gzip.compress(data) if pack else data)
        return path

    return written


def test_keys_merge_over_batches_and_records(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    ended = target.load(
        schema(stream),
        *rows(stream, [1, 2], "before"),
        batch(stream, file(numbered([2, 3, 4], "batch"))),
        *rows(stream, [3, 5], "behind"),
        batch(stream, file(numbered([5, 6, 6], "last"))),
        state({"n": 1}),
    )
    expected = ["before", "batch", "behind", "batch", "last", "last"]
    assert emulator.texts(stream) == dict(enumerate(expected, 1))
    assert counts(ended.err, stream) == [10, 6, 4]
    assert ended.states == [b'{"n": 1}']
    (job,) = emulator.history(stream)
    assert (job["submits"], job["status"], job["keys"]) == (1, "DONE", ["id"])


def test_files_of_every_kind(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    """The content counts, not the name or what the message says; and every way to name a file."""
    (target.directory / "relative.json").write_bytes(numbered([7], "relative"))
    named_json = file(numbered([1], "gzip"), "ä%20#?.json")
    named_gzip = file(numbered([2], "plain"), "plain.json.gz", pack=False)
    members = gzip.compress(numbered([3])) + gzip.compress(numbered([4]))
    windows = b"\xef\xbb\xbf\r\n" + numbered([5]).replace(b"\n", b"\r\n") + b" \n\n"
    none = {"format": "jsonl", "compression": "none"}
    nothing_said = {"format": "jsonl"}
    last = b'{"id": 6, "text": "not \\ud800 whole", "more": NaN}'
    ended = target.load(
        schema(stream),
        batch(stream, named_json, named_gzip, encoding=none),
        batch(stream, str(named_gzip), file(members, "members", pack=False)),
        batch(stream, file(windows), file(b"", "empty", pack=False), encoding=nothing_said),
        batch(stream, "relative.json", f"file://{file(last)}", "file://relative.json"),
        batch(stream),
        state({}),
    )
    expected = ["gzip", "plain", "a", "a", "a", "not \ufffd whole", "relative"]
    assert emulator.texts(stream) == dict(enumerate(expected, 1))
    assert counts(ended.err, stream) == [9, 7, 2]
    assert "empty (line 4) holds no records" in ended.err
    assert named_json.exists()  # files are the tap's


def test_many_records(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    count = 50_000
    halves = [range(count // 2), range(count // 2, count)]
    ended = target.load(
        schema(stream),
        batch(stream, *[file(numbered(half, "x" * 50)) for half in halves]),
        state({"n": count}),
        memory_limit_mb=64,
    )
    found = emulator.query(f'SELECT count(*), count(DISTINCT id), max(id) FROM local."{stream}"')
    assert found == [[str(count), str(count), str(count - 1)]]
    assert counts(ended.err, stream) == [count, count, 0]


def test_an_overwritten_table_may_come_in_files(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    """A state that names another stream proves the end, however many lines the files have."""
    target.load(schema(stream), *rows(stream, range(10)))
    data = [schema(stream), batch(stream, file(numbered(range(100, 1_100))))]
    target.fail(4, "TC-INPUT-10", *data, load_method="overwrite")
    assert emulator.count(stream) == 10
    target.load(*data, syncing(None), load_method="overwrite")
    found = emulator.query(f'SELECT count(*), min(id) FROM local."{stream}"')
    assert found == [["1000", "100"]]


def test_a_state_waits_for_the_batch_before_it(
    start: Callable[..., Emulator], make_target: Callable[..., Target], file: Callable[..., Path]
) -> None:
    """The place of the message counts, not the lines of its files."""
    celonis = start("--fail-table", "bad=ERROR")
    target = make_target(**celonis.settings)
    late = file(b"\n" * 1_000 + numbered(range(10)))
    ended = target.fail(
        6,
        "TC-REMOTE-04",
        schema("good"),
        schema("bad"),
        batch("good", late),
        state({"n": 1}),
        batch("bad", late),
        state({"n": 2}),
        *rows("good", [11]),
        state({"n": 3}),
    )
    assert ended.states == [b'{"n": 1}']
    assert celonis.count("good") == 11
    assert celonis.count("bad") is None


def test_a_checkpoint_between_two_batches(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    running = target.start(checkpoint_interval_minutes=0.005)
    running.write(schema(stream), state({"n": 0}), batch(stream, file(numbered(range(5)))))
    eventually(lambda: running.out() == b'{"n": 0}\n', "the state before the batch is out")
    running.write(state({"n": 1}))
    eventually(lambda: running.out().endswith(b'{"n": 1}\n'), "the batch is loaded")
    assert emulator.count(stream) == 5
    running.write(batch(stream, file(numbered(range(3, 8)))), state({"n": 2}))
    assert running.wait().states == [b'{"n": 0}', b'{"n": 1}', b'{"n": 2}']
    assert emulator.count(stream) == 8


def test_stream_maps_apply(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    data = [schema(stream), batch(stream, file(numbered(range(1, 6)))), state({"n": 1})]
    alias = f"{stream}_alias"
    rules = {
        "__alias__": alias,
        "__filter__": "bool(id != 2)",
        "id": "id",
        "twice": "id * 2",
        "__else__": None,
    }
    ended = target.load(*data, stream_maps={stream: rules})
    found = emulator.query(f'SELECT id, twice FROM local."{alias}" ORDER BY id')
    assert found == [[str(n), str(2 * n)] for n in (1, 3, 4, 5)]
    assert counts(ended.err, alias) == [5, 4, 0]
    ended = target.fail(
        2, "TC-SETTINGS-08", *data, stream_maps={stream: {"twice": "1 / (id - 3)", "id": "id"}}
    )
    assert f"`{stream}`, in line 3 of the batch file file:///" in ended.last_words
    assert "(line 2)" in ended.last_words


def test_metadata_columns(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    moment = "2024-05-31T12:34:56"
    properties = {"id": {"type": "integer"}, "_sdc_deleted_at": {"type": "string"}}
    data = jsonl([{"id": 1}, {"id": 2, "_sdc_extracted_at": moment, "_sdc_deleted_at": moment}])
    target.load(
        schema(stream, properties),
        batch(stream, file(data + b"{ }".replace(b" ", b'"id":3')), version=17),
        add_record_metadata=True,
    )
    names = "_sdc_extracted_at, _sdc_deleted_at, _sdc_table_version"
    found = emulator.query(f'SELECT {names} FROM local."{stream}" ORDER BY id')
    shown = "2024-05-31 12:34:56"
    assert found == [[None, None, "17"], [shown, shown, "17"], [None, None, "17"]]
    filled = f'SELECT count(_sdc_received_at), count(_sdc_sequence) FROM local."{stream}"'
    assert emulator.query(filled) == [["3", "3"]]


def test_a_signal_while_a_file_is_read(
    target: Target, emulator: Emulator, stream: str, file: Callable[..., Path]
) -> None:
    """A file of few bytes and very many records, far more than the patience of the test."""
    path = file(gzip.compress(numbered(range(100_000))) * 1_000, pack=False)
    running = target.start(load_method="append-only")
    running.write(schema(stream), batch(stream, path))

    def has_begun() -> bool:
        assert running.process.poll() is None, running.err()
        return any(each.is_dir() for run in target.runs_in_spool() for each in run.iterdir())

    eventually(has_begun, "the first records are read")
    running.signal(signal.SIGTERM)
    ended = running.wait(close=False)
    assert (ended.code, ended.out) == (143, b"")
    assert emulator.history(stream) == []


# --- what is refused


@dataclass(frozen=True)
class Case:
    """A batch whose second file is bad, behind a good one.

    Attributes:
        name: Of the case.
        data: The second file.
        error: The code of the error.
        line: The file's line that is named.
        pack: Whether the file is compressed.
        uri: What stands in the manifest in its place.
        encoding: What the message says in place of the usual.
        first: Whether the message comes before the SCHEMA.
    """

    name: str
    data: bytes
    error: str
    line: int | None = None
    pack: bool = True
    uri: str | None = None
    encoding: dict[str, Any] | None = None
    first: bool = False


GOOD = numbered([7, 8], SECRET)
PARQUET = {"format": "parquet", "compression": None}
CASES = [
    Case("not JSON", GOOD + SECRET.encode() + b"\n", "TC-INPUT-01", 3),
    Case("a list", GOOD + b'["%s"]\n' % SECRET.encode(), "TC-INPUT-01", 3),
    Case("not JSON, plain", b"\n" + GOOD + b"{'a': 1}\n", "TC-INPUT-01", 4, pack=False),
    Case("no text", GOOD + b'{"\xff": 1}\n', "TC-INPUT-01", 3),
    Case("half a line", GOOD[:-5], "TC-INPUT-02", 2),
    Case("null key", GOOD + jsonl([{"id": None, "text": SECRET}]), "TC-INPUT-07", 3),
    Case("no fit", GOOD + jsonl([{"id": SECRET, "text": "x"}]), "TC-INPUT-08", 3),
    Case("an endless line", GOOD + b" " * 30_000_000, "TC-INPUT-09", 3),
    Case("cut gzip", gzip.compress(GOOD * 99)[:-9], "TC-INPUT-12", pack=False),
    Case("bad gzip", gzip.compress(GOOD)[:-6] + b"123456", "TC-INPUT-12", pack=False),
    Case("no file", b"", "TC-INPUT-12", uri="file:///no/such/file.json.gz"),
    Case("a directory", b"", "TC-INPUT-12", uri="file:///tmp"),
    Case("elsewhere", b"", "TC-INPUT-11", uri=f"s3://key:{SECRET}@bucket/file.json.gz"),
    Case("Parquet", b"", "TC-INPUT-11", encoding=PARQUET),
    Case("no encoding", b"", "TC-INPUT-11", encoding={}),
    Case("before SCHEMA", GOOD, "TC-INPUT-05", 1, first=True),
]


@dataclass(frozen=True)
class Result:
    """A case, run on a table with rows in it."""

    stream: str
    bad: str
    ended: Ended


@pytest.fixture(scope="module")
def results(
    emulator: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Result]]:
    """Run all cases, two at a time."""
    prefix = f"batch_{next(_numbers)}"
    streams = {case.name: f"{prefix}_{number}" for number, case in enumerate(CASES)}
    preparing = Target(tmp_path_factory.mktemp("prepare"), emulator.settings)
    preparing.load(*[m for s in streams.values() for m in (schema(s), *rows(s, range(3)))])
    good = tmp_path_factory.mktemp("good") / "good.json.gz"
    good.write_bytes(gzip.compress(numbered(range(1, 6), SECRET)))

    def run(case: Case) -> Result:
        stream = streams[case.name]
        target = Target(tmp_path_factory.mktemp("bad"), emulator.settings)
        path = target.directory / "bad one.json"
        path.write_bytes(gzip.compress(case.data) if case.pack else case.data)
        bad = case.uri or str(path)
        more = {} if case.encoding is None else {"encoding": case.encoding}
        before = [schema(stream), record(stream, id=1, text=SECRET)]
        files = [bad] if case.first else [good, bad]
        data = [
            state({"seen": 1}),
            *([b"", b""] if case.first else before),
            batch(stream, *files, **more),
            state({"seen": 2}),
        ]
        ended = target.run(lines(*data), memory_limit_mb=64)
        return Result(stream, bad, ended)

    with ThreadPoolExecutor(2) as pool:
        yield dict(zip(streams, pool.map(run, CASES), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_file_leaves_the_table_as_it_was(
    emulator: Emulator, results: dict[str, Result], case: Case
) -> None:
    result = results[case.name]
    ended, words = result.ended, result.ended.last_words
    assert (ended.code, words.split()[1]) == (4, f"[{case.error}]"), ended.err
    assert case.name == "no text" or f"`{result.stream}`" in words
    assert "line 4" in words
    if case.line is not None:
        assert f"line {case.line} of the batch file {result.bad} (line 4)" in words.replace(
            "Line", "line"
        )
    elif case.error == "TC-INPUT-12":
        assert f"the batch file {result.bad} (line 4)" in words
    assert SECRET not in ended.err
    assert ended.states == [b'{"seen": 1}']
    assert emulator.texts(result.stream) == dict.fromkeys(range(3), "a")
    assert len(emulator.history(result.stream)) == 1
    assert emulator.left_behind() == []
