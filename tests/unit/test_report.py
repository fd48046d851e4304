"""Counts add up, and the closing table is straight."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.errors import InternalError
from target_celonis.report import StreamReport, check_sums, closing_table

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
