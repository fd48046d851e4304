"""The benchmarks' inputs are what they are said to be, and their tables say what was measured."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import run
from benchmarks.duckdb_json import column_type, statement
from benchmarks.environments import UnavailableError
from benchmarks.figures import Figures, Spread, Timed, shown, table, tables, with_section
from benchmarks.inputs import KINDS, blocks, parse_size, write
from benchmarks.inputs import main as write_inputs
from benchmarks.measurement import Command, RunError, descendants, field_bytes, measure
from benchmarks.picture import decades, picture
from benchmarks.programs import BASE, PROGRAMS

if TYPE_CHECKING:
    from benchmarks.inputs import Kind

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


COUNT = 2_050
CHECKSUMS = {
    "orders": 0x9AAE71B0,
    "wide": 0xA746E76C,
    "interleaved": 0xD517B3FD,
    "nested": 0xC0FB3CDD,
    "text": 0x6C226415,
    "keyed": 0x73BEF53B,
}
"""Of so many records. A change of them is a change of what was measured: new figures are needed."""


@cache
def made(name: str, **size: int) -> bytes:
    output = io.BytesIO()
    write(KINDS[name], output, **size)
    return output.getvalue()


@cache
def messages(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made(name, records=COUNT).splitlines()]


# --- inputs


def test_the_program_takes_every_record(tmp_path: Path) -> None:
    """Of every kind, one behind the other; rows are counted by the program itself."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"load_method": "upsert"}))
    done = subprocess.run(
        [sys.executable, "-m", "target_celonis", "--config", str(config), "--dry-run"],
        input=b"".join(made(name, records=COUNT) for name in KINDS),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    planned = {
        stream: (int(rows), int(older))
        for stream, rows, older in re.findall(
            r"stream (\w+) ->(?:.*\n)+?  rows +(\d+), and (\d+) older", done.stdout.decode()
        )
    }
    assert set(planned) == {stream for kind in KINDS.values() for stream in kind.streams}
    for kind in KINDS.values():
        counts = [planned[stream] for stream in kind.streams]
        assert sum(rows for rows, _ in counts) == kind.distinct_keys(COUNT), kind.name
        assert sum(rows + older for rows, older in counts) == COUNT, kind.name


@each_kind
def test_an_input_has_the_messages_that_it_is_said_to_have(kind: Kind) -> None:
    found = messages(kind.name)
    counted = Counter(message["type"] for message in found)
    assert counted["SCHEMA"] == len(kind.streams)
    assert counted["RECORD"] == COUNT
    assert counted["STATE"] == (3 if kind.has_states else 1)
    assert found[-1]["type"] == "STATE"
    records = [message for message in found if message["type"] == "RECORD"]
    assert {message["stream"] for message in records} == set(kind.streams)
    for message in records:
        assert list(message["record"]) == list(kind.properties)
        assert "time_extracted" in message
    (key, *_) = kind.properties
    keys = {(message["stream"], message["record"][key]) for message in records}
    assert len(keys) == kind.distinct_keys(COUNT)


@each_kind
def test_the_same_input_again(kind: Kind) -> None:
    """The same bytes, in every process; and the beginning of a longer one."""
    long = made(kind.name, records=COUNT)
    assert zlib.crc32(long) == CHECKSUMS[kind.name]
    # By size, ending with the first record that reaches it.
    short = made(kind.name, size_bytes=500_000).splitlines(keepends=True)
    longer = [line for line in long.splitlines(keepends=True) if b'"STATE"' not in line]
    shorter = [line for line in short if b'"STATE"' not in line]
    assert longer[: len(shorter)] == shorter
    size = sum(map(len, shorter))
    assert size - len(shorter[-1]) < 500_000 <= size
    assert b'"STATE"' in short[-1]


def test_another_seed_gives_other_values() -> None:
    assert made("keyed", records=10, seed=7) != made("keyed", records=10)


def test_an_input_is_made_in_blocks() -> None:
    """However large it is, no more than one block is in memory."""
    sizes = [len(block) for block, _ in blocks(KINDS["text"], records=5_000)]
    assert len(sizes) == 6
    assert max(sizes) < 8_000_000


@pytest.mark.parametrize("size", [{}, {"records": 1, "size_bytes": 1}])
def test_an_input_has_one_size(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="either a number of records or a size"):
        made("orders", **size)


def test_three_of_ten_keys_come_again() -> None:
    found = [message for message in messages("keyed") if message["type"] == "RECORD"]
    keys = [message["record"]["id"] for message in found][:2_000]
    seen: set[int] = set()
    repeated = 0
    for key in keys:
        repeated += key in seen
        seen.add(key)
    assert repeated == 600
    assert KINDS["keyed"].distinct_keys(2_000) == len(seen) == 1_400
    for count in range(1, 40):
        assert KINDS["keyed"].distinct_keys(count) == len(set(keys[:count]))


def test_a_quarter_of_the_wide_values_is_null() -> None:
    records = [m["record"] for m in messages("wide") if m["type"] == "RECORD"]
    values = [value for record in records for value in record.values()]
    assert len(values) == COUNT * 150
    assert 0.23 < sum(value is None for value in values) / len(values) < 0.27


def test_the_command_line_of_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    assert write_inputs(["orders", "--records", "5", "--output", str(path)]) == 0
    assert path.read_bytes() == made("orders", records=5)
    for wrong in (["orders"], ["nothing", "--records", "1"], ["orders", "--records", "0"]):
        with pytest.raises(SystemExit):
            write_inputs(wrong)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1500", 1500), ("2kB", 2000), ("200MB", 200_000_000), ("1.5 GB", 1_500_000_000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "10 apples"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


# --- figures


def timed(kind: str, program: str, number: int, records: int, wall: float) -> Timed:
    """Return a run whose CPU time is half its time, on records of 100 bytes."""
    size = records * 100
    return Timed(
        kind, program, number, records, size, records == 1, wall, wall / 2, 200_000_000, "PSS"
    )


FIGURES = Figures(
    [
        timed("orders", BASE, 1, 1, 0.5),
        timed("orders", BASE, 1, 1000, 1.5),
        timed("orders", "other", 1, 1, 0.4),
        timed("orders", "other", 1, 125, 1.4),
        timed("orders", BASE, 2, 1, 0.5),
        timed("orders", BASE, 2, 1000, 2.5),
        timed("orders", "other", 2, 1, 0.4),
        timed("orders", "other", 2, 125, 2.4),
        timed("orders", "quick", 1, 1, 1.0),
        timed("orders", "quick", 1, 125, 1.01),
    ]
)


def test_start_up_is_taken_off() -> None:
    cell = ("orders", BASE)
    assert FIGURES.startup_seconds(cell) == 0.5
    assert FIGURES.rates(cell) == {1: 1000.0, 2: 500.0}
    assert FIGURES.rate(cell) == 750.0
    assert FIGURES.seconds(cell) == 2.0
    assert FIGURES.cpu_microseconds(cell) == pytest.approx(750.0)
    assert FIGURES.peak_megabytes(cell) == 200.0


def test_ratios_are_taken_within_a_round() -> None:
    ratio = FIGURES.ratio("orders", "other", BASE)
    assert ratio is not None
    assert ratio.values == pytest.approx((8.0, 8.0))
    assert Spread((3.0, 1.0, 2.0)).median == 2.0


def test_a_run_that_is_all_start_up_says_nothing() -> None:
    assert FIGURES.rate(("orders", "quick")) is None
    assert FIGURES.ratio("orders", "quick", BASE) is None
    assert FIGURES.rate(("nothing", BASE)) is None
    assert FIGURES.peak_megabytes(("nothing", BASE)) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (391.2, "391"), (45.13, "45.1"), (7.644, "7.64"), (None, "-")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_a_table() -> None:
    assert table(["a", "b"], [["c", "1"]]) == "| a | b |\n| --- | ---: |\n| c | 1 |"


def test_all_tables() -> None:
    written = tables(FIGURES, BASE, {"orders": "of a shop"})
    rows = written.splitlines()
    assert f"| {BASE} | 0.75 |" in rows
    assert "| other | 8.00 (8.00 to 8.00) |" in rows
    assert f"| {BASE} | 0.50 + 1.50 |" in rows
    assert "| quick | - |" in rows
    assert "| orders | of a shop | 1,000 or 125 | 100 |" in rows
    assert "peak memory, MB (PSS)" in written


def test_a_section_of_a_document() -> None:
    document = "before\n<!-- figures -->\nold\n<!-- /figures -->\nbehind\n"
    written = with_section(document, "new \\1\n")
    assert written == "before\n<!-- figures -->\nnew \\1\n<!-- /figures -->\nbehind\n"
    assert with_section(written, "new \\1") == written
    for without in ("", document * 2):
        with pytest.raises(ValueError, match="The document needs"):
            with_section(without, "new")


# --- the picture


def test_a_picture() -> None:
    drawn = picture({"orders": {BASE: 391_000.0, "a & b": 7_600.0}, "none": {}}, BASE)
    root = ET.fromstring(drawn)  # noqa: S314  # our own
    name = "{http://www.w3.org/2000/svg}"
    bars = {bar.get("class"): float(bar.get("width", "0")) for bar in root.iter(f"{name}rect")}
    assert bars["ours"] > bars["bar"]
    texts = [text.text for text in root.iter(f"{name}text")]
    assert {"orders", "391", "7.60", "a & b", "1", "1,000"} <= set(texts)
    assert "none" not in texts
    assert "prefers-color-scheme: dark" in drawn
    assert any("Logarithmic" in text for text in texts if text)


def test_no_picture_of_nothing() -> None:
    with pytest.raises(ValueError, match="no rate"):
        picture({"orders": {}}, BASE)


@pytest.mark.parametrize(
    ("values", "ends"),
    [([7.6, 391.0], (0, 3)), ([10.0], (1, 2)), ([0.02, 5.0], (-2, 1)), ([1.0, 100.0], (0, 2))],
)
def test_decades(values: list[float], ends: tuple[int, int]) -> None:
    assert decades(values) == ends


# --- programs


def test_descendants() -> None:
    pairs = [(1, 0), (10, 1), (11, 10), (12, 11), (20, 1), (5, 12)]
    assert descendants(pairs, 10) == {10, 11, 12, 5}
    assert descendants([], 10) == {10}


def test_fields_of_proc() -> None:
    assert field_bytes("Rss:   12 kB\nPss:    3 kB\nPss_Dirty: 1 kB\n", "Pss") == 3072
    assert field_bytes("", "Pss") is None


def test_what_a_program_and_its_children_take(tmp_path: Path) -> None:
    """Also the CPU time of a child: most of what is spent here."""
    (tmp_path / "input").write_bytes(b"text")
    spend = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spend!r}])"
    command = Command([sys.executable, "-c", code], tmp_path / "input", tmp_path, {})
    took = measure(command)
    assert took.cpu_seconds >= 0.3
    assert took.wall_seconds > 0.3
    if Path("/proc/self/status").exists():
        assert took.memory_kind in {"PSS", "RSS"}
        assert (took.peak_memory_bytes or 0) > 2_000_000


def test_a_program_that_fails_or_hangs(tmp_path: Path) -> None:
    (tmp_path / "input").touch()
    fails = Command([sys.executable, "-c", "1/0"], tmp_path / "input", tmp_path, {})
    with pytest.raises(RunError, match=r"ended with 1:\n(.|\n)*ZeroDivisionError"):
        measure(fails)
    code = "import time; time.sleep(60)"
    hangs = Command([sys.executable, "-c", code], tmp_path / "input", tmp_path, {}, 0.2)
    with pytest.raises(RunError, match="ended with -9"):
        measure(hangs)


def test_unequal_work_is_an_error() -> None:
    keyed = KINDS["keyed"]
    run.check_rows(keyed, PROGRAMS[BASE], 100, 100)
    run.check_rows(keyed, PROGRAMS["target-celonis-upsert"], 100, 70)
    for name, rows in ((BASE, 99), ("target-celonis-upsert", 100)):
        with pytest.raises(run.WrongWorkError, match="100 records of keyed"):
            run.check_rows(keyed, PROGRAMS[name], 100, rows)


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, "BIGINT"),
        ({"type": ["null", "number"]}, "DOUBLE"),
        ({"type": ["null", "string"]}, "VARCHAR"),
        ({"type": "string", "format": "date-time"}, "TIMESTAMP"),
        ({"type": "object"}, "JSON"),
        ({"type": ["string", "integer"]}, "JSON"),
        ({}, "JSON"),
    ],
)
def test_types_of_duckdb(schema: dict[str, Any], kind: str) -> None:
    assert column_type(schema) == kind


def test_names_in_a_statement_are_quoted() -> None:
    written = statement(Path("it's"), Path("out"), {"a \"b'": {"type": "integer"}})
    assert "'it''s'" in written
    assert "'STRUCT(\"a \"\"b''\" BIGINT)'" in written


# --- the command line, and the page about it


def test_selections() -> None:
    short = run.selection_of(run.parser().parse_args(["--short", "--scale", "2"]))
    assert short.programs == (BASE, "sdk-sink")
    assert (short.rounds, short.scale, short.settings) == (3, 2.0, {})
    words = ["--kinds", "wide,orders", "--converter-processes", "2"]
    full = run.selection_of(run.parser().parse_args(words))
    assert full.kinds == ("wide", "orders")
    assert full.programs == tuple(PROGRAMS)
    assert full.settings == {"converter_processes": 2}
    assert set(run.RECORDS) == set(KINDS)
    for wrong in (["--kinds", "nothing"], ["--programs", ""], ["--rounds", "0"], ["--scale", "0"]):
        with pytest.raises(SystemExit):
            run.parser().parse_args(wrong)


def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One round on a few records: rows are counted, and everything is written."""
    document = tmp_path / "page.md"
    document.write_text("# Page\n<!-- figures --><!-- /figures -->\n")
    words = ["--kinds", "keyed", "--programs", "target-celonis-upsert", "--rounds", "1"]
    words += ["--scale", "0.01", "--directory", str(tmp_path / "kept")]
    words += ["--json", str(tmp_path / "all.json"), "--write-docs", str(document)]
    assert run.main(words) == 0
    said = capsys.readouterr()
    assert "thousand records a second | keyed" in said.out
    assert said.out.strip() in document.read_text()
    assert str(tmp_path) not in said.out
    measured = json.loads((tmp_path / "all.json").read_text())
    assert [one["is_startup"] for one in measured["runs"]] == [True, False]
    assert [one["program"] for one in measured["results"]] == ["target-celonis-upsert"]
    assert len(list((tmp_path / "kept" / "inputs").iterdir())) == 2
    assert list((tmp_path / "kept" / "runs").iterdir()) == []


def test_a_document_without_marks_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("# Page\n")
    for name in ("page.md", "nothing.md"):
        with pytest.raises(SystemExit):
            run.main(["--write-docs", str(tmp_path / name)])
        assert "--write-docs: " in capsys.readouterr().err


def test_what_cannot_be_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise UnavailableError("target-jsonl==0.1.4 cannot be installed here (see a/log)")

    monkeypatch.setattr("benchmarks.programs.installed", refuse)
    assert run.main(["--programs", "target-jsonl", "--directory", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "SKIPPED: target-jsonl: target-jsonl==0.1.4 cannot be installed here" in said.err
    assert "- not installed there, and so left out: target-jsonl" in said.out


def test_the_page_names_what_there_is() -> None:
    for name in PROGRAMS:
        assert f"`{name}`" in PAGE
    options = set(re.findall(r"--[a-z][a-z-]+", run.parser().format_help())) - {"--help"}
    assert options <= set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert with_section(PAGE, "") != ""
