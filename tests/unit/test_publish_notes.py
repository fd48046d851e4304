"""What is owed outlives a run; what is not known is not taken for published."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from target_celonis.errors import LimitError
from target_celonis.publish_notes import Earlier, PublishNotes
from target_celonis.publish_plan import TableKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A, B = TableKey.of(None, "A"), TableKey.of("erp", "B")
NOTHING_KNOWN = Earlier(is_known=False, owed=frozenset(), left={})
ALL_PUBLISHED = Earlier(is_known=True, owed=frozenset(), left={})


class Runs:
    """Runs that share a directory, one after the other or at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.open: list[PublishNotes] = []

    def begin(self, *place: str, published: tuple[str, ...] | None = ()) -> PublishNotes:
        self.open.append(PublishNotes(self.directory, place or ("host", "pool"), published))
        return self.open[-1]

    def die_owing(self, *tables: TableKey, published: tuple[str, ...] | None = ()) -> None:
        notes = self.begin(published=published)
        for table in tables:
            notes.owe(table)
        notes.close()

    def earlier(self, *place: str, published: tuple[str, ...] | None = ()) -> Earlier:
        notes = self.begin(*place, published=published)
        found = notes.earlier()
        notes.close()
        return found

    def files(self, pattern: str = "*") -> list[Path]:
        return sorted(self.directory.glob(f"publish/*/{pattern}"))


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path)
    yield made
    for notes in made.open:
        notes.close()


def test_nothing_is_known_at_first(runs: Runs) -> None:
    assert runs.earlier() == NOTHING_KNOWN
    assert runs.earlier() == NOTHING_KNOWN
    assert runs.files("owed-*") == []


def test_a_run_owes_until_it_settles(runs: Runs) -> None:
    first = runs.begin()
    for table in (A, B, A):
        first.owe(table)
    (owed,) = runs.files()
    assert owed.read_text() == '[null, "A"]\n["erp", "B"]\n'
    assert stat.S_IMODE(owed.stat().st_mode) == 0o600
    assert first.earlier() == NOTHING_KNOWN  # its own tables are its own affair
    first.settle({})
    assert [path.name for path in runs.files()] == ["published.json"]
    assert runs.earlier() == ALL_PUBLISHED
    assert runs.earlier("host", "another pool") == NOTHING_KNOWN


def test_the_next_run_takes_over_what_a_dead_one_owes(runs: Runs) -> None:
    runs.begin().settle({})
    runs.die_owing(A)
    runs.die_owing(B)
    assert runs.earlier() == Earlier(is_known=True, owed=frozenset({A, B}), left={})
    failing = runs.begin()
    failing.earlier()
    failing.close()  # it fails, too
    good = runs.begin()
    assert good.earlier().owed == {A, B}
    good.settle({})
    assert runs.earlier() == ALL_PUBLISHED


def test_what_a_living_run_owes_is_left_to_it(runs: Runs) -> None:
    living = runs.begin()
    living.owe(A)
    other = runs.begin()
    assert other.earlier() == NOTHING_KNOWN
    other.settle({})
    assert len(runs.files("owed-*")) == 1
    living.close()  # it dies after all
    assert runs.earlier().owed == {A}


def test_what_is_owed_is_on_disk_when_a_process_is_killed(runs: Runs) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from target_celonis.publish_notes import PublishNotes\n"
        "from target_celonis.publish_plan import TableKey\n"
        "notes = PublishNotes(pathlib.Path(sys.argv[1]), ('host', 'pool'))\n"
        "notes.owe(TableKey.of(None, 'A'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    runs.begin().settle({})
    subprocess.run([sys.executable, "-c", code, str(runs.directory)], check=False)
    assert runs.earlier() == Earlier(is_known=True, owed=frozenset({A}), left={})


def test_a_table_is_one_whatever_its_case(runs: Runs) -> None:
    run = runs.begin()
    run.owe(A)
    run.owe(TableKey.of(None, "a"))
    run.owe(TableKey.of("erp", "a"))
    (owed,) = runs.files()
    assert len(owed.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "damaged",
    [b'["x"', b'[null, "B"]', b"{}\n", b'["x"]\n', b"[1, 2]\n", b'[1, "x"]\n', b"7\n", b"\xff\n"],
)
def test_damaged_notes_of_what_is_owed(runs: Runs, damaged: bytes) -> None:
    """A cut or damaged line may have named any table."""
    runs.begin().settle({})
    runs.die_owing(A)
    with runs.files("owed-*")[0].open("ab") as file:
        file.write(damaged)
    assert runs.earlier() == Earlier(is_known=False, owed=frozenset({A}), left={})


@pytest.mark.parametrize(
    "damaged",
    [
        *("", "{", "[]", "{}", '{"identity": "a", "left": 1}', '{"identity": "a"}'),
        *('{"identity": "a", "left": {"a": 1}}', '{"left": {}}', '{"identity": "a", "left": null}'),
    ],
)
def test_damaged_notes_of_a_publish(runs: Runs, damaged: str) -> None:
    runs.begin().settle({})
    runs.files()[0].write_text(damaged)
    assert runs.earlier() == NOTHING_KNOWN


def test_what_was_left_is_remembered(runs: Runs) -> None:
    left = {"model:m": ("load-1", None), "job:j": (None, None, None)}
    runs.begin().settle(left)
    assert runs.earlier() == Earlier(is_known=True, owed=frozenset(), left=left)


def unable(runs: Runs) -> PublishNotes:
    """Begin a run that cannot note anything."""
    run = runs.begin()
    run._name = "no-such-directory/owed-1.jsonl"
    return run


def test_what_cannot_be_noted_is_not_taken_for_published(runs: Runs) -> None:
    runs.begin().settle({})
    unable(runs).owe(A)
    assert runs.earlier() == NOTHING_KNOWN


def test_a_note_that_cannot_be_taken_back_stops_the_run(runs: Runs) -> None:
    run = unable(runs)
    run._published.parent.mkdir(parents=True)
    run._published.mkdir()  # no file that could be removed
    with pytest.raises(LimitError, match="TC-LIMIT-02"):
        run.owe(A)


def test_a_publish_that_cannot_be_noted_leaves_the_debt(runs: Runs) -> None:
    runs.begin().settle({})
    run = runs.begin()
    run.earlier()
    run.owe(A)
    run._published.with_suffix(f".{os.getpid()}.part").mkdir()  # no file can be written there
    run.settle({})
    run.close()
    assert runs.earlier().owed == {A}


# --- other lists of the same pool


def test_every_list_of_the_pool_is_owed(runs: Runs) -> None:
    for published in (("model",), ("job", "model")):
        runs.begin(published=published).settle({})
    runs.begin("host", "another pool").settle({})
    run = runs.begin(published=("job", "model"))
    run.owe(A)
    run.settle({})
    run.close()
    owed = Earlier(is_known=True, owed=frozenset({A}), left={})
    assert runs.earlier(published=("job", "model")) == ALL_PUBLISHED
    assert runs.earlier("host", "another pool") == ALL_PUBLISHED
    assert runs.earlier(published=("model",)) == owed
    runs.die_owing(B, published=None)  # a run that publishes nothing
    assert runs.earlier(published=("model",)).owed == {A, B}
    assert runs.earlier(published=("job", "model")).owed == {B}
    good = runs.begin(published=("model",))
    good.earlier()
    good.settle({})
    assert runs.earlier(published=("model",)) == ALL_PUBLISHED


def test_a_list_that_is_not_published_yet_is_owed_too(runs: Runs) -> None:
    """Its publish may be under way, and end before the table changes."""
    first = runs.begin(published=("model",))
    first.earlier()
    living = runs.begin(published=None)
    living.owe(A)
    first.settle({})
    living.close()
    assert runs.earlier(published=("model",)).owed == {A}


def test_a_run_that_publishes_nothing_leaves_nothing_where_nobody_does(runs: Runs) -> None:
    runs.die_owing(A, published=None)
    assert runs.files() == []


def test_a_list_that_nobody_publishes_any_more_takes_no_more_notes(runs: Runs) -> None:
    runs.begin(published=("old",)).settle({})
    for _ in range(70):
        runs.die_owing(A, published=None)
    assert len(runs.files("owed-*")) == 64
    assert not runs.earlier(published=("old",)).is_known


def test_a_table_that_is_owed_after_a_publish(runs: Runs) -> None:
    runs.begin(published=("other",)).settle({})
    run = runs.begin()
    run.owe(A)
    run.settle({})
    run.owe(A)
    run.close()
    owed = Earlier(is_known=True, owed=frozenset({A}), left={})
    assert runs.earlier() == runs.earlier(published=("other",)) == owed


@pytest.mark.parametrize("for_this", [True, False])
def test_what_was_begun_may_have_changed_any_table(runs: Runs, for_this: bool) -> None:
    runs.begin().settle({})
    runs.begin(published=("other",)).settle({})
    run = runs.begin()
    run.begin(for_this=for_this, for_others=not for_this)
    run.close()
    assert runs.earlier().is_begun == for_this
    assert runs.earlier().is_known
    assert runs.earlier(published=("other",)).is_begun == (not for_this)
    good = runs.begin()
    good.earlier()
    good.begin(for_this=True, for_others=False)
    good.settle({})
    assert runs.earlier() == ALL_PUBLISHED


# --- runs side by side


def test_tables_that_are_owed_at_the_same_time(runs: Runs) -> None:
    for _ in range(50):
        runs.begin().settle({})
        run = runs.begin()
        run.earlier()
        tables = [TableKey.of(None, f"T{number}") for number in range(4)]
        barrier = threading.Barrier(len(tables))

        def owe(
            table: TableKey, run: PublishNotes = run, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            run.owe(table)

        threads = [threading.Thread(target=owe, args=(table,)) for table in tables]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.close()
        assert runs.earlier() == Earlier(is_known=True, owed=frozenset(tables), left={})
        good = runs.begin()
        good.earlier()
        good.settle({})


@pytest.mark.parametrize("is_published", [True, False])
def test_what_was_forgotten_meanwhile_stays_so(runs: Runs, is_published: bool) -> None:
    if is_published:
        runs.begin().settle({})
    run = runs.begin()
    run.earlier()
    run.owe(B)
    unable(runs).owe(A)
    run.settle({})
    run.close()
    assert runs.earlier() == Earlier(is_known=False, owed=frozenset({B}), left={})


def test_what_another_run_published_meanwhile_stays_so(runs: Runs) -> None:
    runs.begin().settle({})
    first, second = runs.begin(), runs.begin()
    for run, table in ((first, A), (second, B)):
        run.earlier()
        run.owe(table)
    first.settle({"model:m": ("load-1",)})
    second.settle({})
    assert runs.earlier() == Earlier(is_known=True, owed=frozenset(), left={"model:m": ("load-1",)})


def test_what_another_run_published_does_not_cover_what_this_one_left(runs: Runs) -> None:
    runs.begin().settle({})
    first, second = runs.begin(), runs.begin()
    for run, table in ((first, A), (second, B)):
        run.earlier()
        run.owe(table)
    first.settle({})
    second.settle({"model:m": ("load-1",)})
    second.close()
    assert runs.earlier().owed == {B}


def test_a_run_that_has_nothing_to_publish_notes_no_publish(runs: Runs) -> None:
    run = runs.begin()
    run.earlier()
    run.owe(A)  # and nothing became of it
    run.drop()
    assert runs.earlier() == NOTHING_KNOWN
