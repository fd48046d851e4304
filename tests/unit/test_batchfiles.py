"""Files of BATCH messages become records: however they are packed, named, cut or broken."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import tracemalloc
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from target_celonis.batchfiles import RUN_RECORDS, read_batch, with_batch_files
from target_celonis.errors import InputError
from target_celonis.lines import BLOCK_BYTES
from target_celonis.messages import BatchMessage, Idle, RecordRun, StateMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 50_000_000
LINE = 5
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "a member for each byte": lambda data: b"".join(gzip.compress(bytes([b])) for b in data),
    "padded gzip": lambda data: gzip.compress(data) + bytes(700),
    "gzip with a name": lambda data: b"\x1f\x8b\x08\x08" + bytes(6) + b"n\x00" + _deflated(data),
}
"""Files that mean the same."""


def _deflated(data: bytes) -> bytes:
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return raw.compress(data) + raw.flush() + trailer


def batch(*names: str | Path, **fields: Any) -> BatchMessage:
    values: dict[str, Any] = {"format": "jsonl", "compression": None, "version": None} | fields
    return BatchMessage(LINE, "s", manifest=tuple(map(str, names)), **values)


def runs(message: BatchMessage, limit: int = LIMIT) -> list[RecordRun]:
    return [found for found in read_batch(message, limit) if isinstance(found, RecordRun)]


def read(message: BatchMessage, limit: int = LIMIT) -> list[tuple[int, bytes]]:
    """Return line and text of every record."""
    return [
        pair for run in runs(message, limit) for pair in zip(run.lines, run.records, strict=True)
    ]


def refusal(message: BatchMessage, limit: int = LIMIT) -> InputError:
    with pytest.raises(InputError) as caught:
        read(message, limit)
    assert str(caught.value).count("\n") == 0
    assert "`s`" in caught.value.message
    assert f"line {LINE}" in caught.value.message
    assert caught.value.next_step
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def written(data: bytes, name: str = "x.json.gz") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return written


# --- good files


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["x.json.gz", "x.json", "x"])
@pytest.mark.parametrize("declared", [None, "none", "gzip"])
def test_content_tells_the_compression(
    file: Callable[..., Path], packing: str, name: str, declared: str | None
) -> None:
    path = file(PACKINGS[packing](b'{"a": 1}\n{"a": 2}\n'), name)
    found = read(batch(path, compression=declared))
    assert found == [(1, b'{"a": 1}'), (2, b'{"a": 2}')]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1}', [(1, b'{"a":1}')]),
        (b'{"a":1}\r\n{"a":2}\r\n', [(1, b'{"a":1}'), (2, b'{"a":2}')]),
        (b'\xef\xbb\xbf{"a":1}\n', [(1, b'{"a":1}')]),
        (b"\xef\xbb\xbf\n{}\n", [(2, b"{}")]),
        (b"\n \n\t\r\n{}\n\n{}\n\n", [(4, b"{}"), (6, b"{}")]),
        (b' \t{"a" : 1} \t\r\n', [(1, b'{"a" : 1}')]),
        (b'{"type":"RECORD","type":"STATE"}\n', [(1, b'{"type":"RECORD","type":"STATE"}')]),
        (
            '{"ä":"\\u00e4 ü 😀 \\/ \\ud83d\\ude00"}\n'.encode(),
            [(1, '{"ä":"\\u00e4 ü 😀 \\/ \\ud83d\\ude00"}'.encode())],
        ),
        (b'{"n":0.67000000000000003996}\n', [(1, b'{"n":0.67000000000000003996}')]),
    ],
)
@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_each_line_is_a_record(
    file: Callable[..., Path], packing: str, data: bytes, expected: list[tuple[int, bytes]]
) -> None:
    assert read(batch(file(PACKINGS[packing](data)))) == expected


@pytest.mark.parametrize(
    "data",
    [b"", gzip.compress(b"", mtime=0), b"\n\n", gzip.compress(b" \n", mtime=0)],
    ids=["empty", "gzip of nothing", "empty lines", "gzip of an empty line"],
)
def test_a_file_may_be_empty_which_is_said(
    file: Callable[..., Path], caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    path = file(data)
    assert read(batch(path)) == []
    (said,) = caplog.messages
    assert str(path) in said
    assert "`" not in said
    assert read(batch(path, file(b"{}", "other"), path)) == [(1, b"{}")]


def test_a_manifest_may_be_empty() -> None:
    assert list(read_batch(batch(), LIMIT)) == []


def test_runs_say_where_their_records_stand(file: Callable[..., Path]) -> None:
    one, two = file(b"{}\n\n{}\n", "one"), file(gzip.compress(b"{}\n"), "two")
    found = runs(batch(one, two, version=17))
    assert [run.file for run in found] == [str(one), str(two)]
    assert [(run.stream, run.version, run.message_line) for run in found] == [("s", 17, LINE)] * 2
    assert [(run.first_sequence, run.last_sequence) for run in found] == [(LINE, LINE)] * 2
    assert found[0].place(1) == f"line 3 of the batch file {one} (line {LINE})"
    assert [run.time_extracted for run in found] == [[], []]


def test_records_come_behind_their_message_and_before_the_next(file: Callable[..., Path]) -> None:
    message = batch(file(b"{}\n"))
    state = StateMessage(6, b"{}", names_syncing=False, currently_syncing=None)
    found = list(with_batch_files([Idle(), message, state], LIMIT))
    assert [type(each) for each in found] == [Idle, BatchMessage, RecordRun, StateMessage]


def test_what_is_no_json_is_repaired_and_counted(file: Callable[..., Path]) -> None:
    data = b"".join(
        [
            b'{"a":NaN,"b":[-Infinity,Infinity]}\n',
            rb'{"a":"\ud800 NaN \\ud800","\udc00":1}' + b"\n",
            b'{"a":1}\n',
        ]
    )
    (run,) = runs(batch(file(data)))
    assert run.records == [
        b'{"a":null,"b":[null,null]}',
        rb'{"a":"\ufffd NaN \\ud800","\ufffd":1}',
        b'{"a":1}',
    ]
    assert (run.not_finite, run.surrogates) == (3, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    records=st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=30),
    packing=st.sampled_from(sorted(PACKINGS)),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    last_end=st.booleans(),
    escaped=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_records_come_back(
    tmp_path: Path,
    records: list[dict[str, Any]],
    packing: str,
    end: str,
    *,
    last_end: bool,
    escaped: bool,
) -> None:
    texts = [json.dumps(record, ensure_ascii=escaped) for record in records]
    data = end.join(texts) + end * last_end
    path = tmp_path / "x"
    path.write_bytes(PACKINGS[packing](data.encode(errors="replace")))

    def plain(value: Any) -> Any:
        if isinstance(value, float) and value - value != 0:
            return None
        if isinstance(value, list):
            return [plain(each) for each in value]
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return value

    found = read(batch(path))
    assert [json.loads(text) for _, text in found] == [plain(record) for record in records]
    step = 2 if end == "\n\n" else 1
    assert [line for line, _ in found] == list(range(1, step * len(records) + 1, step))


# --- names of files


def test_names_that_taps_write(
    file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ä b#c%20d?e=f:g&.json"
    path = file(b"{}\n", name)
    monkeypatch.chdir(tmp_path)
    assert "%C3%A4%20b%23c%2520d" in path.as_uri()
    for written in (
        str(path),
        f"file://{path}",
        path.as_uri(),
        path.as_uri().replace("file:///", "file://localhost/"),
        path.as_uri().replace("file:///", "FILE:/"),
        name,
        f"./{name}",
        f"file://{name}",
        f"file://./{name}",
    ):
        assert read(batch(written)) == [(1, b"{}")], written


def test_a_name_is_taken_as_it_stands_first(file: Callable[..., Path]) -> None:
    escaped = file(b'{"a":1}', "x%20y")
    unescaped = file(b'{"a":2}', "x y")
    assert read(batch(f"file://{escaped}")) == [(1, b'{"a":1}')]
    escaped.unlink()
    assert read(batch(f"file://{escaped}")) == [(1, b'{"a":2}')]
    assert refusal(batch(escaped)).code == "TC-INPUT-12"  # a plain path has no escapes
    unescaped.unlink()
    assert str(escaped) in refusal(batch(f"file://{escaped}")).message


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.json"
    Path(os.fsdecode(path)).write_bytes(b"{}")
    assert read(batch(f"file://{tmp_path}/%FF.json")) == [(1, b"{}")]


def test_a_link_to_a_file_is_one(file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file(b"{}"))
    assert read(batch(tmp_path / "link")) == [(1, b"{}")]


@pytest.mark.parametrize(
    "name",
    [
        "s3://key:hunter2-4711@bucket/x.json.gz",
        "https://host/x.json.gz?X-Amz-Signature=hunter2-4711",
        "gs://bucket/x.json.gz",
        "azure+blob://container/x",
        "memory://x",
        "data:/x",
    ],
)
def test_files_that_are_elsewhere(file: Callable[..., Path], name: str) -> None:
    read_before: list[Any] = []
    with pytest.raises(InputError, match="TC-INPUT-11") as caught:
        read_before += read_batch(batch(file(b"{}"), name), LIMIT)
    assert read_before == []
    assert name.split(":", maxsplit=1)[0] + "://" in caught.value.message
    assert "hunter2" not in str(caught.value)
    assert refusal(batch(name)).message == caught.value.message


@pytest.mark.parametrize(
    "name", ["/no/such/file", "file:///no/such/file.gz", "file:///no/%73uch", "no-such", "a\x00b"]
)
def test_files_that_are_not_there(name: str) -> None:
    error = refusal(batch(name))
    assert error.code == "TC-INPUT-12"
    assert name.replace("\x00", "\ufffd") in error.message
    assert ("relative" in error.next_step) == (name in ("no-such", "a\x00b"))


def test_what_is_no_file(tmp_path: Path, file: Callable[..., Path]) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in (tmp_path, tmp_path / "fifo", "/dev/null", "", "."):
        error = refusal(batch(name))
        assert error.code == "TC-INPUT-12"
        assert "is no regular file" in error.message
    below_a_file = file(b"{}") / "x"
    for name in (tmp_path / "loop", below_a_file, "x" * 5000):
        error = refusal(batch(name))
        assert error.code == "TC-INPUT-12"
        assert len(error.message) < 1_000


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(file: Callable[..., Path]) -> None:
    path = file(b"{}")
    path.chmod(0)
    assert "Permission denied" in refusal(batch(path)).message


def test_a_name_cannot_break_the_line(file: Callable[..., Path]) -> None:
    path = file(b"x\n", "a\nb\x1b[31m\u2028.json")
    error = refusal(batch(path))
    assert error.code == "TC-INPUT-01"
    assert str(error).isprintable()


# --- what is not taken


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"format": "parquet"}, "`parquet`"),
        ({"format": "JSONL"}, "`JSONL`"),
        ({"format": ""}, "the format that it names"),
        ({"format": "evil\nformat " + "x" * 5_000}, "the format that it names"),
        ({"compression": "zstd"}, "`zstd`"),
        ({"compression": "GZIP"}, "`GZIP`"),
        ({"compression": ""}, "the compression that it names"),
    ],
)
def test_other_formats_are_refused(
    file: Callable[..., Path], fields: dict[str, Any], shown: str
) -> None:
    error = refusal(batch(file(b"{}"), **fields))
    assert error.code == "TC-INPUT-11"
    assert shown in error.message


BAD_LINES: list[tuple[bytes, str]] = [
    (b"hunter2-4711", "TC-INPUT-01"),
    (b'{"a":hunter2-4711}', "TC-INPUT-01"),
    (b'{"a":"hunter2-4711}', "TC-INPUT-01"),
    (b'{"a":"hunter2-4711"} x', "TC-INPUT-01"),
    (b'{"a":"hunter2-4711"}{}', "TC-INPUT-01"),
    (b'{"a":"hunter2-4711",}', "TC-INPUT-01"),
    (b'["hunter2-4711"]', "TC-INPUT-01"),
    (b'"hunter2-4711"', "TC-INPUT-01"),
    (b"4711", "TC-INPUT-01"),
    (b"null", "TC-INPUT-01"),
    (b"NaN", "TC-INPUT-01"),
    (b"\x00", "TC-INPUT-01"),
    (b"\xef\xbb\xbf{}", "TC-INPUT-01"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "TC-INPUT-01"),
    (b'{"n":NaN,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "TC-INPUT-01"),
]


@pytest.mark.parametrize(("line", "code"), BAD_LINES)
@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_a_bad_line_is_named_and_not_quoted(
    file: Callable[..., Path], line: bytes, code: str, packing: str
) -> None:
    path = file(PACKINGS[packing](b"{}\n\n{}\n" + line + b"\n{}\n"))
    error = refusal(batch(path))
    assert error.code == code
    assert f"line 4 of the batch file {path} (line {LINE})" in error.message
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_a_file_that_ends_in_the_middle_of_a_line(file: Callable[..., Path], packing: str) -> None:
    path = file(PACKINGS[packing](b'{}\n{"a":"hunter2'))
    error = refusal(batch(path))
    assert error.code == "TC-INPUT-02"
    assert f"line 2 of the batch file {path}" in error.message
    assert "hunter2" not in str(error)


WHOLE = gzip.compress(b'{"a": "hunter2"}\n' * 1_000, mtime=0)
SECOND = gzip.compress(b'{"a": "hunter2"}\n' * 5, mtime=0)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x1f\x8b", "end is missing"),
        (WHOLE[:9], "end is missing"),
        (WHOLE[:-1], "end is missing"),
        (WHOLE[:-8], "end is missing"),
        (WHOLE[: len(WHOLE) // 2], "end is missing"),
        (WHOLE + SECOND[:-3], "end is missing"),
        (WHOLE + SECOND[:1], "damaged"),
        (b"\x1f\x8b\x07" + WHOLE[3:], "damaged"),
        (WHOLE[:20] + b"\xff" * 10 + WHOLE[30:], "damaged"),
        (WHOLE[:-8] + b"\x00" * 4 + WHOLE[-4:], "damaged"),
        (WHOLE[:-4] + b"\x01\x02\x03\x04", "damaged"),
        (WHOLE + b"{}\n", "damaged"),
    ],
    ids=itertools.count(),
)
def test_gzip_that_is_cut_or_damaged(file: Callable[..., Path], data: bytes, fault: str) -> None:
    error = refusal(batch(file(data)))
    assert error.code == "TC-INPUT-12"
    assert fault in error.message
    assert "hunter2" not in str(error)


@given(cut=st.integers(2, len(WHOLE) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_cut_goes_unnoticed(tmp_path: Path, cut: int) -> None:
    (tmp_path / "x").write_bytes(WHOLE[:cut])
    assert refusal(batch(tmp_path / "x")).code == "TC-INPUT-12"


def test_damage_names_the_line_that_was_reached(file: Callable[..., Path]) -> None:
    line = b'{"a": "%s"}\n' % (b"x" * 90)
    lines = 3 * BLOCK_BYTES // len(line)
    path = file(gzip.compress(line * lines)[:-4])
    error = refusal(batch(path))
    reached = int(error.message.rsplit(maxsplit=1)[1].rstrip("."))
    assert lines // 2 < reached <= lines


# --- bounds


def many_records(count: int) -> Iterator[bytes]:
    return (b'{"id": %d, "text": "some text"}\n' % number for number in range(count))


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_many_records_come_in_small_runs(file: Callable[..., Path], packing: str) -> None:
    path = file(PACKINGS[packing](b"".join(many_records(50_000))))
    found = runs(batch(path))
    assert len(found) > 50_000 // RUN_RECORDS
    assert max(len(run.records) for run in found) <= RUN_RECORDS
    assert max(sum(map(len, run.records)) for run in found) <= BLOCK_BYTES
    ids = [json.loads(text)["id"] for run in found for text in run.records]
    assert ids == list(range(50_000))
    assert [line for run in found for line in run.lines] == list(range(1, 50_001))


def zeros(megabytes: int, end: bytes = b"") -> bytes:
    """Return the gzip of so many spaces: a thousandth of their size."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    pieces = [packer.compress(b" " * 1_000_000) for _ in range(megabytes)]
    return b"".join([*pieces, packer.compress(end), packer.flush()])


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_endless_line_ends(file: Callable[..., Path]) -> None:
    path = file(gzip.compress(b"{}\n") + zeros(200))
    error: list[InputError] = []
    peak = peak_bytes(lambda: error.append(refusal(batch(path), 10_000_000)))
    assert error[0].code == "TC-INPUT-09"
    assert f"line 2 of the batch file {path} (line {LINE}): it is longer" in error[0].message
    assert "10 MB" in error[0].message
    assert peak < 50_000_000


def test_a_long_line_is_read_up_to_the_limit(file: Callable[..., Path]) -> None:
    record = json.dumps({"a": "x" * 3_000_000}).encode()
    path = file(gzip.compress(b"{}\n" + record + b"\n{}\n"))
    assert [len(text) for _, text in read(batch(path), 4_000_000)] == [2, len(record), 2]
    assert refusal(batch(path), 1_500_000).code == "TC-INPUT-09"


def test_blank_lines_without_end_leave_the_reader_in_control(file: Callable[..., Path]) -> None:
    path = file(gzip.compress((b" " * 99_999 + b"\n") * 100) + gzip.compress(b"{}"))
    found = list(read_batch(batch(path), LIMIT))
    assert sum(isinstance(each, Idle) for each in found) >= 9
    assert [run.lines for run in found if isinstance(run, RecordRun)] == [[101]]


def test_memory_does_not_grow_with_the_file(file: Callable[..., Path]) -> None:
    def use(path: Path) -> int:
        def read_on() -> None:
            for _ in read_batch(batch(path), LIMIT):
                pass

        return peak_bytes(read_on)

    line = json.dumps({"a": "x" * 1_000}).encode() + b"\n"
    small = use(file(gzip.compress(line * 3_000), "small"))
    large = use(file(gzip.compress(line * 30_000), "large"))
    assert large < small * 1.2


def test_files_are_closed(file: Callable[..., Path]) -> None:
    path = file(gzip.compress(b"".join(many_records(20_000))))

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    reading = read_batch(batch(path, path), LIMIT)
    next(iter(reading))
    assert open_files() == before + 1
    reading.close()  # type: ignore[attr-defined]
    assert open_files() == before
    read(batch(path, path))
    assert open_files() == before
    assert path.exists()
