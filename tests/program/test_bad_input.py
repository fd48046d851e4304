"""Bad input: its exit code, one sentence that names the line and no value, and nothing loaded."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from .harness import Emulator, Ended, Target, lines, message, record, rows, schema, state

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "hunter2-4711"
"""A value of a record; it may appear nowhere."""


@dataclass(frozen=True)
class Case:
    """What follows three good lines: a SCHEMA, a RECORD and a STATE.

    Attributes:
        name: Of the case.
        bad: The line, or lines, that make it bad; %s stands for the stream.
        error: The code of the error.
        code: The exit code.
        line: The line that is named; None where there is no one line.
        first: Whether it comes before the good lines.
        cut: Whether the input ends without a line end.
    """

    name: str
    bad: bytes
    error: str
    code: int = 4
    line: int | None = 4
    first: bool = False
    cut: bool = False


NOT_JSON = f"INFO tap: {SECRET}".encode()
RECORD = b'{"type": "RECORD", "stream": "%s", '
TEXT = f'"text": "{SECRET}"'.encode()
ONE = RECORD + b'"record": {"id": 9, ' + TEXT + b"}}"
CASES = [
    Case("not JSON", NOT_JSON, "TC-INPUT-01"),
    Case("not JSON, behind blank lines", b"\n \t\r\n\n" + NOT_JSON, "TC-INPUT-01", line=7),
    Case("broken record", RECORD + b'"record": {"id": 9, ' + TEXT + b",}}", "TC-INPUT-01"),
    Case("bytes that are no text", RECORD + b'"record": {"\xff": 1}}', "TC-INPUT-01"),
    Case("deeply nested", RECORD + b'"record": ' + b'{"a":' * 90_000, "TC-INPUT-01"),
    Case("half a last line", ONE[:-12], "TC-INPUT-02", cut=True),
    Case("RECORD without record", RECORD + b'"data": {' + TEXT + b"}}", "TC-INPUT-03"),
    Case("STATE without value", b'{"type": "STATE", "valeu": {' + TEXT + b"}}", "TC-INPUT-03"),
    Case("no type", ONE.replace(b'"type": "RECORD", ', b""), "TC-INPUT-03"),
    Case("unknown type", ONE.replace(b"RECORD", b"ROW"), "TC-INPUT-04"),
    Case("RECORD before SCHEMA", ONE, "TC-INPUT-05", line=1, first=True),
    Case(
        "SCHEMA without properties",
        b'{"type": "SCHEMA", "stream": "%s_x", "schema": {"type": "object"}}',
        "TC-INPUT-06",
        line=None,
    ),
    Case("null key", ONE.replace(b"9", b"null"), "TC-INPUT-07"),
    Case("no key", ONE.replace(b'"id": 9, ', b""), "TC-INPUT-07"),
    Case("a value that does not fit", ONE.replace(b"9", b'"hunter2-4711"'), "TC-INPUT-08"),
    Case("an endless line", ONE.replace(b"9", b"9" * 20_000_000), "TC-INPUT-09"),
    Case("BATCH", b'{"type": "BATCH", "stream": "%s", "manifest": []}', "TC-INPUT-11"),
    Case(
        "a key without its property",
        b'{"type": "SCHEMA", "stream": "%s_x", "schema": {"properties": {"a": {}}}, '
        b'"key_properties": ["id"]}',
        "TC-CONTRACT-02",
        code=5,
        line=None,
    ),
]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Result:
    """A case, run on a table with rows in it."""

    stream: str
    ended: Ended
    jobs_before: int


@pytest.fixture(scope="module")
def results(
    emulator: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Result]]:
    """Run all cases, two at a time."""
    prefix = f"bad_{next(_numbers)}"
    streams = {case.name: f"{prefix}_{number}" for number, case in enumerate(CASES)}
    preparing = Target(tmp_path_factory.mktemp("prepare"), emulator.settings)
    preparing.load(*[m for s in streams.values() for m in (schema(s), *rows(s, range(3)))])

    def run(case: Case) -> Result:
        stream = streams[case.name]
        target = Target(tmp_path_factory.mktemp("bad"), emulator.settings)
        good = [schema(stream), record(stream, id=1, text=SECRET), state({"seen": 1})]
        bad = case.bad.replace(b"%s", stream.encode())
        data = lines(bad, *good) if case.first else lines(*good, bad)
        return Result(stream, target.run(data[:-1] if case.cut else data, memory_limit_mb=64), 1)

    with ThreadPoolExecutor(2) as pool:
        yield dict(zip(streams, pool.map(run, CASES), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(emulator: Emulator, results: dict[str, Result], case: Case) -> None:
    result = results[case.name]
    ended = result.ended
    assert (ended.code, ended.last_words.split()[1]) == (case.code, f"[{case.error}]"), ended.err
    if case.line is not None:
        assert f"line {case.line}" in ended.last_words.lower()
    if case.line is None or case.error in ("TC-INPUT-07", "TC-INPUT-08"):
        assert f"`{result.stream}" in ended.last_words
    assert SECRET not in ended.err
    assert "99999" not in ended.err
    assert ended.out == b""
    assert emulator.texts(result.stream) == dict.fromkeys(range(3), "a")
    assert len(emulator.history(result.stream, f"{result.stream}_x")) == result.jobs_before
    assert emulator.left_behind() == []


def test_blank_lines_line_ends_and_a_byte_order_mark_are_fine(
    target: Target, emulator: Emulator, stream: str
) -> None:
    data = b"\xef\xbb\xbf" + lines(schema(stream), b"", record(stream, id=1, text="ä"), b" \t ")
    data = data.replace(b"\n", b"\r\n") + b"\n\n" + lines(*rows(stream, [2]), state({"a": 1}))[:-1]
    ended = target.run(data)
    assert ended.code == 0, ended.err
    assert emulator.texts(stream) == {1: "ä", 2: "a"}
    assert ended.states == [b'{"a": 1}']


def test_no_input_at_all(target: Target) -> None:
    ended = target.run(b"")
    assert (ended.code, ended.out) == (0, b"")


def test_nothing_is_loaded_that_a_later_line_spoils(
    target: Target, emulator: Emulator, stream: str
) -> None:
    """Also what comes from another stream, and with states in between."""
    other = f"{stream}_other"
    ended = target.fail(
        4,
        "TC-INPUT-08",
        schema(stream),
        schema(other),
        *rows(stream, range(500)),
        state({"n": 1}),
        *rows(other, range(500)),
        message("RECORD", stream=other, record={"id": [1], "text": "a"}),
        state({"n": 2}),
    )
    assert f"`{other}`, line 1004, column `id`" in ended.last_words
    assert ended.out == b""
    assert emulator.history(stream, other) == []
    assert emulator.count(stream) is None
