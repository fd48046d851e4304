"""Counts add up, the closing lines are straight, and the report's file is whole."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.errors import InternalError, SettingsError
from target_celonis.report import (
    RunReport,
    StreamReport,
    as_json,
    check_report_path,
    check_sums,
    closing_lines,
    closing_table,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

count = st.integers(0, 10**12)
a_report = st.builds(
    StreamReport,
    stream=st.text("abc é", min_size=1, max_size=30),
    table=st.text("ABC_", min_size=1, max_size=30),
    read=count,
    loaded=count,
    merged=count,
    deleted=count,
    superseded=count,
    filtered=count,
    not_loaded=count,
    jobs=count,
    chunks=count,
    uploaded_bytes=count,
)


CLASSES = ("loaded", "merged", "deleted", "superseded", "filtered", "not_loaded")


@given(st.tuples(*[count] * len(CLASSES)))
@settings(max_examples=50, deadline=None)
def test_sums_that_agree_are_silent(counts: tuple[int, ...]) -> None:
    by_class = dict(zip(CLASSES, counts, strict=True))
    check_sums([StreamReport("s", "t", read=sum(counts), **by_class)])


@pytest.mark.parametrize(
    ("read", "counts"),
    [
        (1, {}),
        (0, {"loaded": 1}),
        (5, {"loaded": 3, "merged": 1}),
        (5, {"loaded": 3, "merged": 2, "not_loaded": 1}),
        (0, {"not_loaded": 1}),
        (2, {"filtered": 1}),
        (2, {"deleted": 1}),
        (1, {"superseded": 2}),
    ],
)
def test_a_record_unaccounted_for_is_an_error(read: int, counts: dict[str, int]) -> None:
    good = StreamReport("good", "t", read=1, loaded=1)
    bad = StreamReport("bad", "t", read=read, **counts)  # type: ignore[arg-type]
    with pytest.raises(InternalError, match=f"TC-INTERNAL-01.*`bad`: {read} records") as caught:
        check_sums([good, bad])
    assert caught.value.exit_code == 1


def test_a_run_without_streams_adds_up() -> None:
    check_sums([])
    assert len(closing_table([])) == 1


def test_the_table_shows_every_count() -> None:
    report = StreamReport("orders", "ORDERS", 36, 7, 2, 9, 11, 5, 1, 3, 4, 12_340_000)
    head, row = closing_table([report])
    assert head.split() == [
        "stream",
        "table",
        "read",
        "loaded",
        "merged",
        "deleted",
        "superseded",
        "filtered",
        "not",
        "loaded",
        "jobs",
        "chunks",
        "MB",
    ]
    assert row.split() == ["orders", "ORDERS", *map(str, (36, 7, 2, 9, 11, 5, 1, 3, 4, 12.3))]


@given(st.lists(a_report, max_size=5))
@settings(max_examples=50, deadline=None)
def test_the_columns_are_straight(reports: list[StreamReport]) -> None:
    lines = closing_table(reports)
    assert len(lines) == len(reports) + 1
    assert len({len(line) for line in lines}) == 1  # the last column is to the right
    head = lines[0]
    table_at, read_end = head.index("table"), head.index("read") + len("read")
    for line, report in zip(lines[1:], reports, strict=True):
        assert line[:table_at].rstrip() == report.stream.rstrip()
        assert line[table_at:].startswith(report.table)
        assert line[:read_end].endswith(f" {report.read}")


# --- the run


GOOD = RunReport(
    version="1.2.3",
    run_id="run-1",
    started_at=1_700_000_000.0,
    ended_at=1_700_000_012.25,
    exit_code=0,
    error=None,
    team="https://user:hidden-password@team.eu-1.celonis.cloud/",
    data_pool_id="pool",
    connection_id=None,
    streams=(StreamReport("orders", "ORDERS", read=3, loaded=3, jobs=1, job_ids=["j1"]),),
    waits={"the network": 3.2, "push jobs": 12.4, "a blink": 0.99},
    submits_used=1,
    states_read=2,
    states_released=1,
    last_state_line=7,
    notices=("Rows may stand twice in table LOG.",),
)


def with_texts(**texts: tuple[int, int]) -> RunReport:
    stream = StreamReport("orders", "ORDERS", texts=dict(texts))
    return replace(GOOD, streams=(stream,), waits={}, notices=())


def test_the_closing_lines_of_a_good_run() -> None:
    lines = closing_lines(GOOD)
    assert lines[:2] == closing_table(GOOD.streams)
    assert lines[2:] == [
        "Waited 12 s for push jobs, 3 s for the network.",
        "Rows may stand twice in table LOG.",
    ]
    near = closing_lines(with_texts(note=(240, 255)))
    for word in ("error", "exception"):
        assert word not in "\n".join([*lines, *near]).lower()
    assert closing_lines(replace(GOOD, streams=(), waits={"x": 0.5}, notices=())) == []


@pytest.mark.parametrize(
    ("longest", "length", "near"),
    [(0, 255, False), (203, 255, False), (204, 255, True), (255, 255, True), (4, 5, True)],
)
def test_columns_near_their_limit(longest: int, length: int, *, near: bool) -> None:
    report = with_texts(short=(1, 255), note=(longest, length))
    said = f"Texts near the length of their column: ORDERS.note ({longest} of {length})."
    assert closing_lines(report)[2:] == ([said] if near else [])
    shown = as_json(report)["streams"][0]["columns_near_limit"]
    assert shown == ([{"column": "note", "longest": longest, "length": length}] if near else [])


def test_a_line_names_some_columns_and_counts_the_others() -> None:
    lines = closing_lines(with_texts(**{f"c{number:02}": (9, 9) for number in range(13)}))
    assert "ORDERS.c09 (9 of 9) and 3 more." in lines[-1]
    assert "c10" not in lines[-1]


def test_streams_that_failed_are_named() -> None:
    failed = StreamReport("log", "LOG", read=1, not_loaded=1, failure="TC-REMOTE-04")
    lines = closing_lines(replace(GOOD, streams=(*GOOD.streams, failed), waits={}, notices=()))
    assert lines[-1] == "Not loaded to the end: log (TC-REMOTE-04)."


def test_the_report_as_json() -> None:
    stream = replace(GOOD.streams[0], rules=Counter({("b", "x"): 1, ("a", "y"): 2, ("a", "x"): 3}))
    error = ("TC-LIMIT-01", "It took too long.", "Wait.")
    shown = as_json(replace(GOOD, streams=(stream,), error=error, exit_code=7))
    assert shown["report_version"] == 1
    assert shown["started_at"] == "2023-11-14T22:13:20.000Z"
    assert shown["ended_at"] == "2023-11-14T22:13:32.250Z"
    assert shown["duration_seconds"] == 12.25
    assert shown["team"] == "team.eu-1.celonis.cloud"
    assert shown["error"] == {
        "code": "TC-LIMIT-01",
        "sentence": "It took too long.",
        "next_step": "Wait.",
    }
    assert [wait["cause"] for wait in shown["waits"]] == ["push jobs", "the network", "a blink"]
    assert shown["streams"][0]["jobs"] == ["j1"]
    assert shown["streams"][0]["rules"] == [
        {"rule": "x", "property": "a", "count": 3},
        {"rule": "x", "property": "b", "count": 1},
        {"rule": "y", "property": "a", "count": 2},
    ]
    assert "publish" not in shown
    assert as_json(replace(GOOD, publish=({"job": 1},)))["publish"] == [{"job": 1}]


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    assert as_json(replace(GOOD, ended_at=GOOD.started_at - 5))["duration_seconds"] == 0


@pytest.mark.parametrize("team", ["embedded", "team.celonis.cloud", "127.0.0.1:8080"])
def test_a_host_stays_as_it_is(team: str) -> None:
    assert as_json(replace(GOOD, team=team))["team"] == team


# --- its file


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_the_file_is_its_owners_alone_and_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(0o644)
    check_report_path(path)
    assert path.read_text() == "old"
    write_report(path, GOOD)
    assert json.loads(path.read_bytes()) == as_json(GOOD)
    assert list(json.loads(path.read_bytes())) == list(as_json(GOOD))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["report.json"]  # noqa: PTH208 - names are enough


def test_names_of_any_letters_can_be_written(tmp_path: Path) -> None:
    stream = StreamReport('ü\ud800\n"', "t")
    write_report(tmp_path / "ü.json", replace(GOOD, streams=(stream,)))
    shown = json.loads((tmp_path / "ü.json").read_bytes())
    assert shown["streams"][0]["name"] == stream.stream


def test_texts_are_redacted_and_numbers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    notices = ("The key 1700 was refused.",)
    report = replace(GOOD, notices=notices, submits_used=1700)
    write_report(path, report, lambda text: text.replace("1700", "***"))
    shown = json.loads(path.read_bytes())
    assert shown["notices"] == ["The key *** was refused."]
    assert shown["submits_used"] == 1700


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "report.json"
    link.symlink_to(tmp_path / "elsewhere" / "real.json")
    check_report_path(link)
    write_report(link, GOOD)
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "real.json").is_file()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_report(tmp_path / "taken", GOOD)
    with pytest.raises(OSError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "report.json", GOOD)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def unwritable() -> Path:
    """Return a directory in which even the superuser makes no file."""
    for path in (Path("/proc"), Path("/System")):
        if path.is_dir():
            return path
    pytest.skip("needs a directory that nobody can write")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/report.json", "directory does not exist"),
        ("file/report.json", "directory does not exist"),
        ("directory", "not a file"),
        ("", "not a file"),
        ("pipe", "not a file"),
        ("x" * 250, "cannot be written"),
    ],
)
def test_places_where_no_report_can_be(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match=f"TC-SETTINGS-03.*`report_path`.*{said}") as caught:
        check_report_path(tmp_path / name)
    assert caught.value.exit_code == 2


def test_a_directory_that_cannot_be_written() -> None:
    with pytest.raises(SettingsError, match=r"`report_path`.*cannot be written"):
        check_report_path(unwritable() / "report.json")


def test_a_place_that_is_good_stays_empty(tmp_path: Path) -> None:
    check_report_path(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []
