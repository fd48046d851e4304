"""What a run changed, seen as it passes by."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis.celonis import JobType
from target_celonis.changes import Changes, WatchedRoute
from target_celonis.errors import LimitError, RemoteError
from target_celonis.publish_notes import PublishNotes
from target_celonis.publish_plan import TableKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("times", "newest"),
    [
        ([], None),
        ([b'"2024-05-31T12:00:00Z"'], "2024-05-31T12:00:00+00:00"),
        ([b'"2024-05-31T12:00:00+02:00"', b'"2024-05-31T11:00:00Z"'], "2024-05-31T11:00:00+00:00"),
        ([b'"2024-05-31T12:00:00Z"', b'"2024-05-31T13:00:00+02:00"'], "2024-05-31T12:00:00+00:00"),
        ([b'"2024-05-31T12:00:00"', b'"2024-05-31T11:59:00Z"'], "2024-05-31T12:00:00+00:00"),
        ([b'"2024-05-31 12:00:00.25Z"'], "2024-05-31T12:00:00.250000+00:00"),
        ([b"null", b"", b'"yesterday"', b"7", b"{", b'"\xff"'], None),
    ],
)
def test_how_fresh_it_is(times: list[bytes], newest: str | None) -> None:
    changes = Changes()
    changes.note(TableKey.of(None, "T"), receipt(1))
    changes.note_extraction("s", times)
    found = changes.fresh_as_of()
    assert (found and found.isoformat()) == newest


def test_each_table_is_as_fresh_as_its_own_stream() -> None:
    changes = Changes()
    a, b, c, d = (TableKey.of("erp", name) for name in "ABCD")
    for stream, year in (("a", 2021), ("b", 2022), ("not-loaded", 2029), ("a", 2020)):
        changes.note_extraction(stream, [b'"%d-01-01T00:00:00Z"' % year])
    for table, stream in ((a, "a"), (b, "b"), (c, "c")):
        changes.note(table, receipt(1, stream=stream))

    def year(*tables: TableKey) -> int | None:
        found = changes.fresh_as_of(tables)
        return found and found.year

    assert (year(a), year(b), year(a, b, c, d)) == (2021, 2022, 2022)
    assert year(c) is year(d) is year() is None  # no time; not pushed; no table
    assert changes.fresh_as_of() == changes.fresh_as_of({a, b})


@dataclass
class Inner:
    """A route that looks, at each commit, at what is noted by then."""

    notes: PublishNotes
    directory: Path
    results: list[Any] = field(default_factory=list)
    noted: list[list[str]] = field(default_factory=list)
    aborted: list[Any] = field(default_factory=list)

    def commit(self, _push: Any) -> Any:
        files = sorted(self.directory.glob("publish/*/owed-*"))
        self.noted.append([line for file in files for line in file.read_text().splitlines()])
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def abort(self, push: Any) -> None:
        self.aborted.append(push)


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[PublishNotes]:
    made = PublishNotes(tmp_path, ("host", "pool"))
    yield made
    made.close()


def push(table: str, *, jobs: int = 1) -> Any:
    task = SimpleNamespace(plan=SimpleNamespace(table=table))
    return SimpleNamespace(task=task, jobs=(object(),) * jobs)


def receipt(
    loaded: int = 0, deleted: int = 0, kind: JobType = JobType.DELTA, stream: str = "s"
) -> Any:
    task = SimpleNamespace(type=kind, plan=SimpleNamespace(stream=stream))
    return SimpleNamespace(loaded_rows=loaded, deleted_rows=deleted, task=task)


def test_tables_are_owed_before_they_change(tmp_path: Path, notes: PublishNotes) -> None:
    inner, changes = Inner(notes, tmp_path), Changes()
    route: Any = WatchedRoute(inner, "erp", notes, changes)  # type: ignore[arg-type]
    inner.results = [
        receipt(3, kind=JobType.REPLACE),
        receipt(2, kind=JobType.REPLACE),
        receipt(deleted=1),
        receipt(),
        receipt(1),
        RemoteError("TC-REMOTE-04", "It failed."),
    ]
    route.commit(push("A"))
    route.commit(push("B"))
    route.commit(push("b"))
    route.commit(push("C", jobs=0))
    route.commit(push("D"))
    with pytest.raises(RemoteError):
        route.commit(push("E"))
    a, b = '["erp", "A"]', '["erp", "B"]'
    d, e = '["erp", "D"]', '["erp", "E"]'
    assert inner.noted == [[a], [a, b], [a, b], [a, b], [a, b, d], [a, b, d, e]]
    assert changes.tables == {TableKey.of("erp", name) for name in "ABD"}
    assert changes.rows == {TableKey.of("erp", "A"): 3}  # B was pushed again since


def test_what_cannot_be_noted_is_not_carried_out(tmp_path: Path, notes: PublishNotes) -> None:
    inner = Inner(notes, tmp_path)
    (tmp_path / "publish").write_text("no directory")
    route: Any = WatchedRoute(inner, None, notes, Changes())  # type: ignore[arg-type]
    one = push("A")
    with pytest.raises(LimitError, match="TC-LIMIT-02"):
        route.commit(one)
    assert inner.noted == []
    assert inner.aborted == [one]
