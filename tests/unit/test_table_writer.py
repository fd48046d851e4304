"""Rows of one table become chunks, in the order in which they came, with or without marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from target_celonis.errors import LimitError
from target_celonis.kinds import Kind
from target_celonis.table_writer import TableWriter

from .chunks import batch_of, plan_of, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from target_celonis.spool import Chunk

PLAN = plan_of({"n": Kind.INTEGER}, "n")


class Account:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.chunks: list[Chunk] = []

    def wrote(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes

    def closed(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def writer(tmp_path: Path, account: Account) -> TableWriter:
    return TableWriter(
        "s",
        PLAN,
        _directories(tmp_path),
        chunk_limit_bytes=1_000_000,
        timestamp_encoding="int96",
        account=account,
    )


def _directories(base: Path) -> Callable[[str], Path]:
    made: list[Path] = []

    def fresh(table: str) -> Path:
        made.append(base / f"{len(made)}-{table}")
        made[-1].mkdir()
        return made[-1]

    return fresh


def add(writer: TableWriter, order: int, *numbers: int, marks: list[bool] | None = None) -> None:
    batch = batch_of(PLAN, [{"n": number} for number in numbers])
    writer.add(batch, None if marks is None else pa.array(marks), order)


def numbers(chunks: list[Chunk]) -> list[int]:
    return [row["n"] for row in read(chunks)]


def test_chunks_say_which_rows_came_when(writer: TableWriter, account: Account) -> None:
    add(writer, 3, 1, 2)
    add(writer, 3, 3)
    add(writer, 9, 4)
    (chunk,) = writer.finish()
    assert numbers([chunk]) == [1, 2, 3, 4]
    assert chunk.spans == ((3, 3), (9, 1))
    assert (account.chunks, chunk.plan.marks_deleted) == ([chunk], False)
    assert account.size_bytes > 0


def test_rows_behind_a_finish_are_other_chunks(writer: TableWriter) -> None:
    assert writer.finish() == []
    add(writer, 1, 1)
    first = writer.finish()
    add(writer, 2, 2)
    assert [numbers(first), numbers(writer.finish()), writer.finish()] == [[1], [2], []]


def test_the_first_mark_begins_files_with_marks(writer: TableWriter, tmp_path: Path) -> None:
    add(writer, 1, 1, 2)
    add(writer, 2, 3, 4, marks=[False, True])
    add(writer, 3, 5)
    plain, marked = writer.finish()
    assert (numbers([plain]), numbers([marked])) == ([1, 2], [3, 4, 5])
    assert (plain.spans, marked.spans) == (((1, 2),), ((2, 2), (3, 1)))
    assert (plain.plan.marks_deleted, marked.plan.marks_deleted) == (False, True)
    assert len(list(tmp_path.iterdir())) == 2
    add(writer, 4, 6)
    (later,) = writer.finish()
    assert not later.plan.marks_deleted


def test_what_is_held_is_known_and_goes_with_a_flush(writer: TableWriter) -> None:
    assert (writer.name, writer.held_bytes, writer.has_open_file) == ("s", 0, False)
    writer.flush()
    writer.close_file()
    add(writer, 1, 1)
    assert writer.held_bytes > 0
    writer.flush()
    assert (writer.held_bytes, writer.has_open_file) == (0, True)
    writer.close_file()
    assert not writer.has_open_file
    add(writer, 2, 2)
    first, second = writer.finish()
    assert (numbers([first]), numbers([second])) == ([1], [2])


def test_what_is_abandoned_leaves_no_file(writer: TableWriter, tmp_path: Path) -> None:
    writer.abandon()
    add(writer, 1, 1)
    writer.flush()
    writer.close_file()
    add(writer, 2, 2)
    writer.flush()  # a file is open
    add(writer, 3, 3, marks=[True])
    writer.flush()
    add(writer, 4, 4)
    writer.abandon()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert (writer.held_bytes, writer.has_open_file, writer.finish()) == (0, False, [])
    add(writer, 5, 5)
    assert numbers(writer.finish()) == [5]


def test_a_directory_that_is_gone_is_one_sentence(account: Account, tmp_path: Path) -> None:
    gone = TableWriter(
        "s",
        PLAN,
        lambda _: tmp_path / "gone",
        chunk_limit_bytes=1_000_000,
        timestamp_encoding="int96",
        account=account,
    )
    add(gone, 1, 1)
    with pytest.raises(LimitError, match="TC-LIMIT-02"):
        gone.finish()
    gone.abandon()
