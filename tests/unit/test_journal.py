"""A journal says the same when it is read back, however the process ended."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.clock import FakeClock
from target_celonis.errors import LimitError
from target_celonis.journal import (
    NAME,
    Account,
    Journal,
    JournalJob,
    NoJournalError,
    Step,
    read_account,
)

OPENED: dict[str, Any] = {"place": ["host", "pool", ""], "process_id": 7}
CREATED: dict[str, Any] = {
    "job": "j",
    "table": "orders",
    "type": "DELTA",
    "rows": 3,
    "appends": True,
    "last_line": 9,
}
AFTER: dict[Step, dict[str, Any]] = {
    Step.CHUNK_CLOSED: {"file": "0001-t/0001.parquet", "rows": 3, "size_bytes": 100},
    Step.JOB_MEANT: {"table": "orders", "type": "DELTA", "rows": 3},
    Step.JOB_CREATED: CREATED,
    Step.CHUNK_CONFIRMED: {"job": "j", "file": "0001.parquet"},
    Step.EXECUTE_MEANT: {"job": "j"},
    Step.EXECUTED: {"job": "j"},
    Step.DONE: {"job": "j", "rows": 3},
    Step.ENDED_BADLY: {"job": "j", "status": "ERROR"},
    Step.JOB_DELETED: {"job": "j", "unexecuted": False},
    Step.STATE_MEANT: {"line": 10},
    Step.STATE_RELEASED: {"line": 10},
}
LEFT = JournalJob("j", "orders", 3, appends=True, last_line=9)


def write(directory: Path, *steps: tuple[Step, dict[str, Any]], opened: bool = True) -> Path:
    journal = Journal(directory, FakeClock())
    if opened:
        journal.note(Step.RUN_OPENED, **OPENED)
    for step, about in steps:
        journal.note(step, **about)
    journal.close()
    return journal.path


# --- what is read back


def test_there_is_a_case_for_every_step() -> None:
    assert {Step.RUN_OPENED, *AFTER} == set(Step)


def test_the_beginning_of_a_run(tmp_path: Path) -> None:
    account = read_account(write(tmp_path))
    assert account == Account(("host", "pool", ""), 7, "2023-11-14T22:13:20.000+00:00")


def test_a_journal_can_be_read_by_people(tmp_path: Path) -> None:
    path = write(tmp_path, (Step.JOB_CREATED, CREATED | {"table": "größe"}))
    first, second = path.read_text().splitlines()
    assert (
        json.loads(first) == {"at": "2023-11-14T22:13:20.000+00:00", "step": "run opened"} | OPENED
    )
    assert '"step": "job created"' in second
    assert '"größe"' in second
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


JOB_AFTER: list[tuple[list[Step], dict[str, bool]]] = [
    ([], {}),
    ([Step.CHUNK_CONFIRMED], {}),
    ([Step.EXECUTE_MEANT], {"executed": True}),
    ([Step.EXECUTE_MEANT, Step.EXECUTED], {"executed": True}),
    ([Step.EXECUTE_MEANT, Step.EXECUTED, Step.DONE], {"executed": True, "done": True}),
    ([Step.EXECUTE_MEANT, Step.EXECUTED, Step.ENDED_BADLY], {"executed": True}),
    (
        [Step.EXECUTE_MEANT, Step.EXECUTED, Step.DONE, Step.JOB_DELETED],
        {"executed": True, "done": True, "settled": True},
    ),
]


@pytest.mark.parametrize(("steps", "changed"), JOB_AFTER)
def test_what_is_known_of_a_job(
    tmp_path: Path, steps: list[Step], changed: dict[str, bool]
) -> None:
    made = [(step, AFTER[step]) for step in (Step.JOB_MEANT, Step.JOB_CREATED, *steps)]
    account = read_account(write(tmp_path, *made))
    wanted = JournalJob("j", "orders", 3, appends=True, last_line=9, **changed)
    assert account.jobs == {"j": wanted}
    assert account.unsettled == ([] if wanted.settled else [wanted])
    assert account.appended_beyond_state == ([wanted] if wanted.executed else [])


def test_a_job_that_was_meant_to_be_executed_and_was_deleted_unexecuted(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        (Step.JOB_CREATED, CREATED),
        (Step.EXECUTE_MEANT, {"job": "j"}),
        (Step.JOB_DELETED, {"job": "j", "unexecuted": True}),
    )
    assert read_account(path).appended_beyond_state == []


@pytest.mark.parametrize(
    ("appends", "line", "stands"), [(True, 8, True), (True, 9, False), (False, 8, False)]
)
def test_what_stands_twice_is_behind_the_last_state(
    tmp_path: Path, *, appends: bool, line: int, stands: bool
) -> None:
    path = write(
        tmp_path,
        (Step.JOB_CREATED, CREATED | {"appends": appends}),
        (Step.EXECUTE_MEANT, {"job": "j"}),
        (Step.STATE_RELEASED, {"line": line}),
        (Step.STATE_RELEASED, {"line": 3}),  # the largest counts
        (Step.STATE_MEANT, {"line": 99}),  # meant is not released
    )
    account = read_account(path)
    assert account.released_line == line
    assert bool(account.appended_beyond_state) == stands


def test_a_job_of_another_run_may_be_deleted(tmp_path: Path) -> None:
    path = write(tmp_path, (Step.JOB_DELETED, {"job": "theirs", "unexecuted": False}))
    assert read_account(path).jobs == {}


@pytest.mark.parametrize(
    ("steps", "changed"),
    [
        ([Step.EXECUTE_MEANT], {"executed": True}),
        ([Step.EXECUTE_MEANT, Step.DONE], {"executed": True, "done": True}),
        ([Step.DONE], {"done": True}),
        (
            [Step.EXECUTE_MEANT, Step.DONE, Step.JOB_DELETED],
            {"executed": True, "done": True, "settled": True},
        ),
    ],
)
def test_a_job_whose_creation_is_not_noted_is_known_all_the_same(
    tmp_path: Path, steps: list[Step], changed: dict[str, bool]
) -> None:
    """The disk was full for a moment; what the journal says of other jobs still counts."""
    others = [
        (Step.JOB_CREATED, CREATED | {"job": "first"}),
        (Step.EXECUTE_MEANT, {"job": "first"}),
    ]
    account = read_account(write(tmp_path, *others, *((step, AFTER[step]) for step in steps)))
    wanted = JournalJob("j", "not known", **changed)
    assert account.jobs["j"] == wanted
    first = account.jobs["first"]
    assert account.unsettled == ([first] if wanted.settled else [first, wanted])
    assert account.appended_beyond_state == [first]


# --- what tears and what is foreign


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, (Step.JOB_CREATED, CREATED), (Step.EXECUTE_MEANT, {"job": "j"}))
    path.write_bytes(path.read_bytes()[:-1])
    assert read_account(path).jobs == {"j": LEFT}


FOREIGN: dict[str, bytes] = {
    "damage": b'{"step": "run opened", "at": "", "place": [], "process_id": 1}\nX\n{"step": "x"}\n',
    "no first line": b'{"at": "", "step": "state released", "line": 3}\n',
    "two first lines": b'{"step": "run opened", "at": "", "place": [], "process_id": 1}\n' * 2,
    "odd job done": b'{"step": "run opened", "at": "", "place": [], "process_id": 1}\n'
    b'{"step": "done", "job": 3}\n',
    "no job": b'{"step": "run opened", "at": "", "place": [], "process_id": 1}\n'
    b'{"step": "execute meant"}\n',
    "unknown step": b'{"step": "made coffee", "at": ""}\n',
    "no step": b'{"at": ""}\n',
    "a list": b"[]\n",
    "a number": b"1\n",
    "a text": b'"run opened"\n',
    "text": b"Dear diary\n",
    "blank": b"\n",
    "binary": bytes(range(256)),
    "binary of lines": b"\xff\xfe\x00\n" * 3,
    "deep": b"[" * 100_000 + b"\n",
    "infinite": b'{"step": "run opened", "at": "", "place": [], "process_id": Infinity}\n',
    "odd place": b'{"step": "run opened", "at": "", "place": [1], "process_id": 1}\n',
    "odd job": b'{"step": "run opened", "at": "", "place": [], "process_id": 1}\n'
    b'{"step": "execute meant", "job": [1]}\n',
    "null": b"null\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_journal_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / NAME
    path.write_bytes(FOREIGN[name])
    with pytest.raises(NoJournalError, match=r"line \d"):
        read_account(path)


@pytest.mark.parametrize("content", [b"", b'{"step": "run op', b"Dear diary"])
def test_nothing_is_known_of_a_run_that_had_not_begun(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / NAME
    path.write_bytes(content)
    assert read_account(path) == Account()


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_no_journal_or_say_nothing(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / NAME
        path.write_bytes(content)
        try:
            account = read_account(path)
        except NoJournalError:
            return
        assert account == Account()
        assert b"\n" not in content


names = st.text(max_size=30) | st.sampled_from(["\n", "\u2028", "\ud800", '"\\', "\0", "😀"])
line_steps = st.lists(
    st.tuples(st.sampled_from(sorted(AFTER)), st.integers(0, 2), names, st.integers(0, 50)),
    max_size=12,
)


def possible(steps: list[tuple[str, int, str, int]], tag: str) -> list[tuple[Step, dict[str, Any]]]:
    """Return the steps, without those about jobs that were not created."""
    made: set[str] = set()
    found = []
    for name, number, text, line in steps:
        step = Step(name)
        about = dict(AFTER[step])
        if "job" in about:
            about["job"] = f"{tag}{number}"
            if step is Step.JOB_CREATED:
                made.add(about["job"])
            elif about["job"] not in made:
                continue
        for key, value in (("table", text), ("line", line), ("last_line", line), ("file", text)):
            if key in about:
                about[key] = value
        found.append((step, about))
    return found


@given(line_steps, names, st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_a_journal_that_was_cut_anywhere_says_what_was_said_before(
    steps: list[tuple[str, int, str, int]], tag: str, share: float
) -> None:
    made = possible(steps, tag)
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory), FakeClock())
        journal.note(Step.RUN_OPENED, **OPENED)
        sizes, accounts = [0], [Account()]
        for step, about in [(None, {}), *made]:
            if step is not None:
                journal.note(step, **about)
            sizes.append(journal.path.stat().st_size)
            accounts.append(read_account(journal.path))
        journal.close()
        assert {job.table for job in accounts[-1].jobs.values()} <= {
            about["table"] for step, about in made if step is Step.JOB_CREATED
        }
        assert set(accounts[-1].jobs) == {
            about["job"] for step, about in made if step is Step.JOB_CREATED
        }
        content = journal.path.read_bytes()
        cut = round(share * len(content))
        journal.path.write_bytes(content[:cut])
        whole = max(index for index, size in enumerate(sizes) if size <= cut)
        assert read_account(journal.path) == accounts[whole]


# --- writing


def test_an_intent_is_on_disk_when_it_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd))[1])
    journal = Journal(tmp_path, FakeClock())
    frequent = {Step.CHUNK_CLOSED, Step.CHUNK_CONFIRMED}
    for step, about in AFTER.items():
        synced.clear()
        journal.note(step, **about)
        assert synced == ([] if step in frequent else [journal.path.stat().st_size])
    journal.close()


def test_a_closed_journal_takes_nothing_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path, FakeClock())
    journal.close()
    journal.close()
    journal.note(Step.STATE_MEANT, line=1)
    assert journal.path.read_bytes() == b""


FULL = """
import resource, signal, sys
from pathlib import Path
from target_celonis.clock import SystemClock
from target_celonis.errors import LimitError
from target_celonis.journal import Journal, Step
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]), SystemClock())
journal.note(Step.RUN_OPENED, place=[], process_id=1)
limit = journal.path.stat().st_size + 20
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        journal.note(Step.STATE_RELEASED, line=5)
    except LimitError as error:
        print(error.code)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.note(Step.STATE_RELEASED, line=6)
"""


def test_a_line_that_the_disk_has_no_room_for_is_not_noted_at_all(tmp_path: Path) -> None:
    """A part of it would make the journal unreadable once there is room again."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["TC-LIMIT-02", "TC-LIMIT-02"]
    account = read_account(tmp_path / NAME)
    assert account.released_line == 6
    assert len((tmp_path / NAME).read_bytes().splitlines()) == 2


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path, FakeClock())
    os.close(journal._file or 0)
    journal._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(LimitError, match=r"TC-LIMIT-02.*No space left.*`spool_dir`"):
        journal.note(Step.STATE_MEANT, line=1)
    journal.close()
