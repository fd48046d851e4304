"""SIGTERM and SIGINT: nothing half, nothing cancelled, nothing left, and the right exit code."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from .harness import (
    Emulator,
    Running,
    Target,
    eventually,
    rows,
    schema,
    start_emulator,
    state,
    syncing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUNNING_SECONDS = 2.0
_running_numbers = iter(range(1000))


@pytest.fixture(scope="module")
def slow_celonis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Jobs take a while here."""
    directory: Path = tmp_path_factory.mktemp("slow")
    celonis = start_emulator(directory, "--running-seconds", str(RUNNING_SECONDS))
    yield celonis
    celonis.stop()


def wait_until_reading(target: Target, running: Running) -> None:
    """Wait until the first record was taken."""

    def has_begun() -> bool:
        assert running.process.poll() is None, running.err()
        return any(path.is_dir() for run in target.runs_in_spool() for path in run.iterdir())

    eventually(has_begun, "the first record is read")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_reading(
    target: Target, emulator: Emulator, stream: str, number: signal.Signals, code: int
) -> None:
    running = target.start(load_method="overwrite", trust_end_of_input=True)
    running.write(schema(stream), *rows(stream, range(1_500)), syncing(None))
    wait_until_reading(target, running)
    running.signal(number)
    ended = running.wait(close=False)
    assert ended.code == code
    assert "[TC-SIGNAL-01]" in ended.last_words
    assert number.name in ended.last_words
    assert ended.out == b""
    assert emulator.count(stream) is None
    assert emulator.history(stream) == []


def test_a_signal_together_with_the_end_of_the_input_is_no_proof(
    target: Target, emulator: Emulator, stream: str
) -> None:
    """Ctrl-C reaches the tap as well, and its end looks like a good one."""
    running = target.start(load_method="overwrite", trust_end_of_input=True)
    running.write(schema(stream), *rows(stream, range(1_500)), syncing(None))
    wait_until_reading(target, running)
    running.signal(signal.SIGINT)
    ended = running.wait()
    assert ended.code == 130
    assert emulator.count(stream) is None


def in_state(celonis: Emulator, status: str, *tables: str) -> list[dict[str, Any]]:
    return [
        job
        for job in celonis.history(*tables)
        if job["status"] == status and not job["deleted"] and (status == "NEW" or job["submits"])
    ]


@pytest.mark.parametrize("grace", [10, 0])
def test_a_signal_while_a_job_runs(
    slow_celonis: Emulator, make_target: Callable[..., Target], stream: str, grace: int
) -> None:
    stream = f"{stream}_{next(_running_numbers)}"
    target = make_target(**slow_celonis.settings)
    names = [f"{stream}_{n}" for n in range(4)]
    # All is read long before the first checkpoint is due, so that it holds all of it.
    running = target.start(checkpoint_interval_minutes=0.02, signal_grace_seconds=grace)
    running.write(
        *[schema(name) for name in names],
        *[row for name in names for row in rows(name, [1])],
        state({"behind": "all"}),
    )
    eventually(
        lambda: (
            in_state(slow_celonis, "RUNNING", *names)
            and len(in_state(slow_celonis, "NEW", *names)) == 3
        ),
        "one job runs and three wait",
    )
    (first,) = [job["table"] for job in in_state(slow_celonis, "RUNNING", *names)]
    others = [name for name in names if name != first]
    running.signal(signal.SIGTERM)
    ended = running.wait(close=False)
    assert ended.code == 143, ended.err
    assert ended.out == b""
    (job,) = slow_celonis.history(first)
    waiting = slow_celonis.history(*others)
    assert all(job["deleted"] and job["submits"] == 0 for job in waiting)
    if grace:
        assert slow_celonis.count(first) == 1
        assert job["deleted"]
    else:
        assert job["id"] in ended.err
        assert "left running" in ended.err
        eventually(lambda: slow_celonis.count(first) == 1, "the job ends by itself")
        assert slow_celonis.history(first)[0]["status"] == "DONE"  # not cancelled
    assert [slow_celonis.count(name) for name in others] == [None] * 3
    # What was not loaded can be loaded at once.
    target.load(schema(others[1]), *rows(others[1], [1, 2]))
    assert slow_celonis.count(others[1]) == 2
    # A job that was left running is deleted by the next run, which knows it from the journal.
    assert [job for job in slow_celonis.left_behind() if job["table"] in names] == []
