"""What is owed outlives a run; what is not known is not taken for published."""

from __future__ import annotations

import stat
import subprocess
import sys
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

    def begin(self, *place: str) -> PublishNotes:
        self.open.append(PublishNotes(self.directory, place or ("host", "pool")))
        return self.open[-1]

    def earlier(self, *place: str) -> Earlier:
        notes = self.begin(*place)
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
    assert runs.files() == []


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
    dead = runs.begin()
    dead.owe(A)
    dead.close()
    also_dead = runs.begin()
    also_dead.owe(B)
    also_dead.close()
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
    assert [path.name.split("-")[0] for path in runs.files()] == ["owed", "published.json"]
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
    dead = runs.begin()
    dead.owe(A)
    dead.close()
    with runs.files("owed-*")[0].open("ab") as file:
        file.write(damaged)
    assert runs.earlier() == Earlier(is_known=False, owed=frozenset({A}), left={})


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"left": 1}', '{"left": {"a": 1}}'])
def test_damaged_notes_of_a_publish(runs: Runs, damaged: str) -> None:
    runs.begin().settle({})
    runs.files()[0].write_text(damaged)
    assert runs.earlier() == NOTHING_KNOWN


def test_what_was_left_is_remembered(runs: Runs) -> None:
    left = {"model:m": ("load-1", None), "job:j": (None, None, None)}
    runs.begin().settle(left)
    assert runs.earlier() == Earlier(is_known=True, owed=frozenset(), left=left)


def test_what_cannot_be_noted_is_not_taken_for_published(runs: Runs) -> None:
    runs.begin().settle({})
    run = runs.begin()
    run._own = runs.directory / "no-such-directory" / "owed-1.jsonl"
    run.owe(A)
    assert runs.earlier() == NOTHING_KNOWN


def test_a_note_that_cannot_be_taken_back_stops_the_run(runs: Runs) -> None:
    run = runs.begin()
    run._own = runs.directory / "no-such-directory" / "owed-1.jsonl"
    run._published.parent.mkdir(parents=True)
    run._published.mkdir()  # no file that could be removed
    with pytest.raises(LimitError, match="TC-LIMIT-02"):
        run.owe(A)


def test_a_publish_that_cannot_be_noted_leaves_the_debt(runs: Runs) -> None:
    run = runs.begin()
    run.owe(A)
    run._published.mkdir()
    run.settle({})
    run.close()
    assert runs.earlier().owed == {A}
    assert runs.files("*.part") == []
