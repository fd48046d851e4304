"""The directory of a run: dead and living ones, tables that are taken, room, and bad disks."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis.clock import FakeClock
from target_celonis.errors import LimitError
from target_celonis.journal import NAME, Step, read_account
from target_celonis.kinds import Kind
from target_celonis.run_directory import Room, RunDirectory
from target_celonis.spool import ChunkWriter

from .chunks import batch_of, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLACE = ("host", "pool", "")
OTHER_PLACES = [("host", "pool", "erp"), ("host", "pool-2", ""), ("host-2", "pool", "")]
CREATED: dict[str, Any] = {
    "job": "job-1",
    "table": "orders",
    "type": "DELTA",
    "rows": 3,
    "appends": False,
    "last_line": 9,
}

# What another process does with a run directory, until it is killed.
PROGRAM = """
import json, sys
from pathlib import Path
from target_celonis.clock import SystemClock
from target_celonis.errors import LimitError
from target_celonis.journal import Step
from target_celonis.run_directory import RunDirectory
base, place, steps, tables = json.loads(sys.argv[1])
run = RunDirectory(Path(base), SystemClock(), place)
directory = run.table_directory("t")
(directory / "0001.parquet").write_bytes(b"rows")
for step, about in steps:
    run.journal.note(Step(step), **about)
def claim(table):
    try:
        run.claim(table)
    except LimitError as error:
        return error.code
    return "taken"
print(json.dumps([str(run.path), [claim(table) for table in tables]]), flush=True)
for line in sys.stdin:
    print(claim(line.rstrip("\\n")), flush=True)
"""


class OtherProcess:
    """A run in a process of its own; killed at the end."""

    def __init__(
        self,
        base: Path,
        place: Sequence[str] = PLACE,
        steps: Sequence[tuple[Step, dict[str, Any]]] = (),
        tables: Sequence[str] = (),
    ) -> None:
        told = json.dumps([str(base), list(place), [list(step) for step in steps], list(tables)])
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        path, self.claims = json.loads(self._process.stdout.readline())
        self.path = Path(path)

    def claim(self, table: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(table, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def another(base: Path, **options: Any) -> Iterator[OtherProcess]:
    other = OtherProcess(base, **options)
    try:
        yield other
    finally:
        other.kill()


@contextmanager
def running(base: Path, place: Sequence[str] = PLACE, **options: Any) -> Iterator[RunDirectory]:
    run = RunDirectory(base, FakeClock(), place, **options)
    try:
        yield run
    finally:
        run.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # numbers only


def runs(base: Path) -> list[Path]:
    return sorted(base.glob("run-*"))


# --- what is made, and what is left


def test_directories_and_files_are_the_users_alone(tmp_path: Path) -> None:
    base = tmp_path / "new" / "spool"
    before = os.umask(0)
    try:
        run = RunDirectory(base, FakeClock(), PLACE)
        directory = run.table_directory("orders")
        run.claim("orders")
    finally:
        os.umask(before)
    assert mode(base) == mode(run.path) == mode(directory) == 0o700
    files = [run.path / "lock", run.path / NAME, base / "locks"]
    assert {path.name: mode(path) for path in files} == dict.fromkeys(
        ["lock", NAME, "locks"], 0o600
    )
    run.close()


def test_table_directories_are_fresh_each_time(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        names = ["orders", "orders", "größe", "x" * 128, "𠀀" * 32, "a/b", "../../up"]
        paths = [run.table_directory(name) for name in names]
        assert len(set(paths)) == len(paths)
        assert all(path.is_dir() and path.parent == run.path for path in paths)


def test_closing_leaves_nothing_of_the_run(tmp_path: Path) -> None:
    before = open_files()
    with running(tmp_path) as run:
        (run.table_directory("t") / "0001.parquet").write_bytes(b"rows")
        run.claim("t")
        run.journal.note(Step.JOB_CREATED, **CREATED)
        run.journal.note(Step.JOB_DELETED, job="job-1", unexecuted=True)
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    assert open_files() == before


def test_closing_keeps_a_journal_that_names_a_job(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        (run.table_directory("t") / "0001.parquet").write_bytes(b"rows")
        run.journal.note(Step.JOB_CREATED, **CREATED)
    assert {path.name for path in run.path.iterdir()} == {"lock", NAME}
    with running(tmp_path) as following:
        (dead,) = following.dead_runs
        assert [job.id for job in dead.account.unsettled] == ["job-1"]


# --- the dead and the living


LEFT_JOB = [(Step.JOB_CREATED, CREATED)]
APPENDED = [
    (Step.JOB_CREATED, CREATED | {"appends": True}),
    (Step.EXECUTE_MEANT, {"job": "job-1"}),
    (Step.JOB_DELETED, {"job": "job-1", "unexecuted": False}),
]
NOTHING_LEFT: list[list[tuple[Step, dict[str, Any]]]] = [
    [],
    [(Step.JOB_MEANT, {"table": "t", "type": "DELTA", "rows": 1})],
    [*LEFT_JOB, (Step.JOB_DELETED, {"job": "job-1", "unexecuted": True})],
    [*APPENDED, (Step.STATE_RELEASED, {"line": 9})],
]


def test_living_runs_stay_and_dead_ones_go(tmp_path: Path) -> None:
    with another(tmp_path) as other, running(tmp_path) as mine:
        assert list(other.path.glob("*-t/*.parquet"))
        assert mine.dead_runs == []
        other.kill()
        assert other.path.exists()
        with running(tmp_path) as following:
            assert not other.path.exists()
            assert runs(tmp_path) == sorted([mine.path, following.path])


@pytest.mark.parametrize("steps", NOTHING_LEFT)
def test_a_dead_run_with_nothing_left_to_do_goes(
    tmp_path: Path, steps: list[tuple[Step, dict[str, Any]]]
) -> None:
    with another(tmp_path, steps=steps) as other:
        pass
    with running(tmp_path) as run:
        assert run.dead_runs == []
        assert not other.path.exists()


@pytest.mark.parametrize("steps", [LEFT_JOB, APPENDED], ids=["a job", "appended rows"])
def test_a_dead_run_that_left_something_is_handed_on_without_its_rows(
    tmp_path: Path, steps: list[tuple[Step, dict[str, Any]]]
) -> None:
    with another(tmp_path, steps=steps) as other:
        pass
    assert list(other.path.glob("*-t/*.parquet"))
    with running(tmp_path) as run:
        (dead,) = run.dead_runs
        assert dead.path == other.path
        assert dead.account.place == PLACE
        assert list(dead.account.jobs) == ["job-1"]
        assert [path.name for path in other.path.iterdir() if path.is_dir()] == []
        with another(tmp_path):  # while it is settled, it is nobody else's
            assert other.path.exists()
    with running(tmp_path) as run:  # it was left
        (dead,) = run.dead_runs
        dead.drop()
        assert not other.path.exists()
    with running(tmp_path) as run:
        assert run.dead_runs == []


@pytest.mark.parametrize("place", OTHER_PLACES)
def test_a_dead_run_of_another_place_is_left_to_a_run_there(
    tmp_path: Path, place: tuple[str, ...]
) -> None:
    with another(tmp_path, place=place, steps=LEFT_JOB) as other:
        pass
    before = open_files()
    for _ in range(2):
        with running(tmp_path) as run:
            assert run.dead_runs == []
            assert (other.path / NAME).exists()
    assert open_files() == before
    with running(tmp_path, place) as run:
        assert [dead.path for dead in run.dead_runs] == [other.path]


@pytest.mark.parametrize("content", [b"X\n", b"{}\n", bytes(range(256))])
def test_a_journal_that_cannot_be_read_is_set_aside_and_named_once(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with another(tmp_path) as other:
        pass
    (other.path / NAME).write_bytes(content)
    before = open_files()
    for _ in range(3):
        with running(tmp_path) as run:
            assert run.dead_runs == []
            assert runs(tmp_path) == [run.path]
    aside = tmp_path / f"set-aside-{other.path.name}"
    assert (aside / NAME).read_bytes() == content
    (said,) = [record.getMessage() for record in caplog.records]
    assert str(aside) in said
    assert "not known" in said
    assert open_files() == before


def test_a_run_that_was_killed_before_its_journal_goes(tmp_path: Path) -> None:
    with another(tmp_path) as other:
        pass
    (other.path / NAME).unlink()
    with running(tmp_path) as run:
        assert runs(tmp_path) == [run.path]
        assert run.dead_runs == []


def test_a_journal_that_cannot_be_opened_is_in_nobodys_way(tmp_path: Path) -> None:
    """A link to itself: what reading it raises is neither "no journal" nor "no file"."""
    with another(tmp_path) as other:
        pass
    (other.path / NAME).unlink()
    (other.path / NAME).symlink_to(NAME)
    before = open_files()
    with running(tmp_path) as run:
        assert run.dead_runs == []
    assert open_files() == before


def test_what_is_no_run_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "run-being-made").mkdir()
    with running(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "run-being-made"}


def test_the_past_is_known_once_a_table_was_loaded(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        assert not run.knows_the_past
    with running(tmp_path) as run:
        assert not run.knows_the_past
        run.claim("orders")
    with running(tmp_path) as run:
        assert run.knows_the_past
    with running(tmp_path / "dry", ()) as run:  # writes to nothing
        assert run.knows_the_past


# --- tables


def test_a_table_has_one_writer(tmp_path: Path) -> None:
    with another(tmp_path, tables=["orders", "größe"]) as other, running(tmp_path) as run:
        assert other.claims == ["taken", "taken"]
        for name in ("orders", "ORDERS", "Größe"):
            with pytest.raises(LimitError) as caught:
                run.claim(name)
            assert (caught.value.code, caught.value.exit_code) == ("TC-LIMIT-04", 7)
            assert f"`{name}`" in str(caught.value)
        run.claim("events")
        run.claim("events")  # it is ours
        assert other.claim("EVENTS") == "TC-LIMIT-04"
        assert other.claim("orders") == "taken"


@pytest.mark.parametrize("place", OTHER_PLACES)
def test_the_same_name_elsewhere_is_another_table(tmp_path: Path, place: tuple[str, ...]) -> None:
    with another(tmp_path, place=place, tables=["orders"]), running(tmp_path) as run:
        run.claim("orders")


def test_a_table_is_free_once_its_run_was_killed(tmp_path: Path) -> None:
    with another(tmp_path, tables=["orders"]) as other, running(tmp_path) as run:
        with pytest.raises(LimitError, match="TC-LIMIT-04"):
            run.claim("orders")
        other.kill()
        run.claim("orders")


def test_a_table_is_free_once_its_run_has_ended(tmp_path: Path) -> None:
    with another(tmp_path) as other:
        with running(tmp_path) as run:
            run.claim("orders")
            assert other.claim("orders") == "TC-LIMIT-04"
        assert other.claim("orders") == "taken"


def test_a_dry_run_takes_no_table(tmp_path: Path) -> None:
    with another(tmp_path, tables=["orders"]), running(tmp_path, ()) as run:
        run.claim("orders")


def test_locks_that_cannot_be_opened_are_no_other_run(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    with running(tmp_path) as run, pytest.raises(LimitError, match=r"TC-LIMIT-02.*`spool_dir`"):
        run.claim("orders")


# --- room


def test_most_of_what_is_free_is_the_limit(tmp_path: Path) -> None:
    usage = os.statvfs(tmp_path)
    free = usage.f_bavail * usage.f_frsize
    assert 0.6 * free < Room(tmp_path, None).limit_bytes < 0.9 * free


def test_room_is_full_before_the_limit_and_not_once_files_are_gone(tmp_path: Path) -> None:
    room = Room(tmp_path, 1_000)
    (tmp_path / "sub").mkdir()
    held = []
    while not room.is_full():
        held.append(tmp_path / "sub" / f"{len(held)}.parquet")
        held[-1].write_bytes(b"x" * 100)
        room.wrote(100)
        assert room.used_bytes() == 100 * len(held)
    assert 5 <= len(held) < 10
    held.pop().unlink()
    held.pop().unlink()
    assert not room.is_full()
    room.wrote(100)
    assert not room.is_full()


def test_room_counts_what_is_there_not_what_was_written(tmp_path: Path) -> None:
    room = Room(tmp_path, 1_000)
    for _ in range(50):
        room.wrote(500)  # and removed again by a push
        assert not room.is_full()


def test_what_chunks_take_is_counted_and_noted(tmp_path: Path) -> None:
    with running(tmp_path, limit_bytes=1) as run:
        assert not run.room.is_full()
        plan = plan_of({"n": Kind.INTEGER})
        writer = ChunkWriter(run.table_directory("t"), plan, 10**6, "int96", run)
        writer.add(batch_of(plan, [{"n": 1}]))
        (chunk,) = writer.finish()
        assert run.room.is_full()
        noted = (run.path / NAME).read_text().splitlines()[-1]
        assert "chunk closed" in noted
        assert str(chunk.path.relative_to(run.path)) in noted
        assert read_account(run.path / NAME).place == PLACE


# --- bad disks


def test_a_spool_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = open_files()
    with pytest.raises(LimitError, match=r"TC-LIMIT-02.*cannot be written.*`spool_dir`"):
        RunDirectory(tmp_path / "file" / "spool", FakeClock(), PLACE)
    assert open_files() == before


@pytest.mark.parametrize("broken", ["run", "journal", "note"])
def test_a_beginning_that_fails_leaves_nothing_open(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another(tmp_path, steps=LEFT_JOB) as other:
        pass
    before = open_files()
    full = OSError(28, "No space left on device")

    def fail(*_: object, **__: object) -> None:
        raise LimitError("TC-LIMIT-02", "Full.") if broken == "note" else full

    where = {
        "run": "target_celonis.run_directory._make_run",
        "journal": "target_celonis.run_directory.Journal",
        "note": "target_celonis.journal.Journal.note",
    }
    with monkeypatch.context() as patch:
        patch.setattr(where[broken], fail)
        with pytest.raises(LimitError, match="TC-LIMIT-02"):
            RunDirectory(tmp_path, FakeClock(), PLACE)
    assert open_files() == before
    with running(tmp_path) as run:  # what the dead run left is still to be found
        assert [dead.path for dead in run.dead_runs] == [other.path]


def test_a_spool_that_vanishes_is_one_sentence(tmp_path: Path) -> None:
    base = tmp_path / "spool"
    before = open_files()
    run = RunDirectory(base, FakeClock(), PLACE)
    shutil.rmtree(base)
    for doing in (lambda: run.table_directory("t"), lambda: run.claim("t")):
        with pytest.raises(LimitError, match=r"TC-LIMIT-02.*`spool_dir`"):
            doing()
    assert not run.room.is_full()
    run.close()
    assert open_files() == before


FULL = """
import json, os, resource, signal, sys
from pathlib import Path
from target_celonis.clock import SystemClock
from target_celonis.errors import LimitError
from target_celonis.run_directory import RunDirectory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
count = lambda: len(os.listdir("/proc/self/fd"))
before = count()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    RunDirectory(Path(sys.argv[1]), SystemClock(), ("host", "pool", ""))
except LimitError as error:
    print(error.code, count() - before)
"""


@pytest.mark.parametrize("limit", [0, 30])
def test_a_disk_without_room_for_a_journal(tmp_path: Path, limit: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["TC-LIMIT-02", "0"]
    with running(tmp_path) as run:
        assert runs(tmp_path) == [run.path]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there, the place is the user's own")
@pytest.mark.parametrize("kind", ["open to all", "a link", "mine"])
def test_a_directory_where_all_may_write_is_mine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    base = tmp_path / f"target-celonis-{os.getuid()}"
    if kind == "open to all":
        base.mkdir()
        base.chmod(0o777)
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        base.symlink_to(tmp_path / "elsewhere")
    if kind == "mine":
        RunDirectory(None, FakeClock()).close()
        RunDirectory(None, FakeClock()).close()  # the second time it is there
        return
    with pytest.raises(LimitError, match="not a directory of this user alone"):
        RunDirectory(None, FakeClock())


def make_old(path: Path) -> None:
    """Have something last been changed two hours ago."""
    before = path.stat().st_mtime - 7200
    os.utime(path, (before, before))


def test_a_directory_that_was_never_locked_goes_when_it_is_old(tmp_path: Path) -> None:
    old, fresh = (tmp_path / f"run-20240531T120000-{number}-ab_c1" for number in (1, 2))
    for path in (old, fresh):
        path.mkdir()
    make_old(old)
    RunDirectory(tmp_path, FakeClock()).close()
    assert runs(tmp_path) == [fresh]


@pytest.mark.parametrize("is_locked", [True, False], ids=["a lock", "no lock"])
@pytest.mark.parametrize(
    "name",
    [
        "run-2023-results",
        "run-nightly",
        "run-",
        "run-20240531T120000-12",
        "run-20240531T120000-12-x.bak",
        "run-20240531-12-x",
        "my-run-20240531T120000-12-x",
        "set-aside-run-20240531T120000-12-x",
    ],
)
def test_directories_of_others_are_left_alone(
    tmp_path: Path, name: str, *, is_locked: bool
) -> None:
    """Somebody may name a directory of results as `spool_dir`."""
    theirs = tmp_path / name / "data"
    theirs.mkdir(parents=True)
    (theirs / "precious.csv").write_text("keep")
    if is_locked:
        (tmp_path / name / "lock").touch()
    make_old(tmp_path / name)
    with running(tmp_path) as run:
        assert run.dead_runs == []
    left = {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")}
    assert left == {"data", "data/precious.csv"} | ({"lock"} if is_locked else set())


def test_a_directory_without_a_lock_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "run-20240531T120000-12-x"
    (theirs / "data").mkdir(parents=True)
    (theirs / "data" / "precious.csv").write_text("keep")
    make_old(theirs)
    with running(tmp_path):
        pass
    assert (theirs / "data" / "precious.csv").read_text() == "keep"


def test_directories_of_this_program_are_known_by_their_names(tmp_path: Path) -> None:
    """Else none that is dead would ever go."""
    for _ in range(50):
        run = RunDirectory(tmp_path, FakeClock())
        run.journal.close()
        os.close(run._lock)  # as a kill leaves it
    with running(tmp_path) as following:
        assert runs(tmp_path) == [following.path]


@pytest.mark.parametrize("damage", ["torn up", "a link to itself"])
def test_closing_keeps_a_journal_that_cannot_be_read(tmp_path: Path, damage: str) -> None:
    """It may name a job; the next run, or a person, finds out."""
    with running(tmp_path) as run:
        (run.table_directory("t") / "0001.parquet").write_bytes(b"rows")
        run.journal.note(Step.JOB_CREATED, **CREATED)
        if damage == "torn up":
            with run.journal.path.open("a") as file:
                file.write("?\n")
        else:
            run.journal.path.unlink()
            run.journal.path.symlink_to(NAME)
    assert {path.name for path in run.path.iterdir()} == {"lock", NAME}


def test_closing_removes_what_has_no_journal(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.journal.path.unlink()
    assert runs(tmp_path) == []
