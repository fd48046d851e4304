"""A state leaves when all that was read before it is loaded, and as the tap wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import (
    Emulator,
    Target,
    eventually,
    lines,
    record,
    rows,
    schema,
    state,
    syncing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.both_profiles

ODD_STATES = [
    b'{ "a" :1.50, "b":[ 1,2 ] , "a": 1e400}',
    '{"ä":"\\u00e4 ü € \U0001f600 \\/","n":123456789012345678901234567890,"z":null}'.encode(),
    b'{"currently_syncing":null,"type":"STATE","value":{"type":"RECORD"}}',
    b"{}",
]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_states_are_verbatim(target: Target, stream: str, encoding: str) -> None:
    data = [schema(stream)]
    for number, value in enumerate(ODD_STATES[:2] if encoding == "ascii" else ODD_STATES):
        data += [record(stream, id=number), b' {"value" : ' + value + b', "type":"STATE"} ']
    # Without records in between, each state could go at once.
    ended = target.run(
        lines(*data), checkpoint_interval_minutes=0, environment={"PYTHONIOENCODING": encoding}
    )
    assert ended.code == 0, ended.err
    assert ended.states == [ODD_STATES[1 if encoding == "ascii" else -1]]


def test_each_state_is_verbatim_when_nothing_holds_it(target: Target) -> None:
    ended = target.load(*[b'{"type":"STATE","value":' + value + b"}" for value in ODD_STATES])
    assert ended.states == ODD_STATES


def test_a_job_that_ends_badly_holds_its_states_back(
    start: Callable[..., Emulator], make_target: Callable[..., Target]
) -> None:
    celonis = start("--fail-table", "bad=ERROR", "--fail-table", "gone=CANCELED")
    target = make_target(**celonis.settings)
    for bad, end in (("bad", "ERROR"), ("gone", "CANCELED")):
        names = (f"{bad}_before", bad, f"{bad}_after", f"{bad}_last")
        data = []
        for name in names:
            data += [schema(name), *rows(name, [1]), state({"behind": name})]
        ended = target.fail(6, "TC-REMOTE-04", *data)
        assert ended.states == [b'{"behind": "%s_before"}' % bad.encode()]
        # The tables that do not depend on it are loaded all the same; their records come again.
        assert [celonis.count(name) for name in names] == [1, None, 1, 1]
        (job,) = celonis.history(bad)
        assert (job["status"], job["submits"]) == (end, 1)
        assert job["id"] in ended.last_words
        assert end in ended.last_words
        assert f"`{bad}`" in ended.last_words
        for line in job["logs"]:
            assert line in ended.last_words
        assert "given up in this run" in ended.err
        assert celonis.left_behind() == []


def test_states_come_while_the_tap_goes_on(target: Target, emulator: Emulator, stream: str) -> None:
    """A stream that overwrites waits for its end, and so do the states behind its records."""
    slow = f"{stream}_overwritten"
    rules = [{"match": slow, "load_method": "overwrite"}]
    running = target.start(checkpoint_interval_minutes=0.002, streams=rules)
    running.write(schema(stream), schema(slow))
    for number in range(3):
        expected = b'{"n": %d}\n' % number
        running.write(*rows(stream, range(number * 10, number * 10 + 10)), state({"n": number}))
        eventually(lambda end=expected: running.out().endswith(end), "the state comes")
        assert emulator.count(stream) == 10 * (number + 1)
    printed = running.out()
    running.write(*rows(slow, [1]), state({"n": 3}), *rows(stream, [99]))
    eventually(lambda: emulator.count(stream) == 31, "the rows behind the held state come, too")
    running.write(state({"n": 4}))
    eventually(lambda: "states wait for it" in running.err(), "it is said who holds states back")
    assert running.out() == printed
    assert emulator.count(slow) is None
    running.write(syncing(None))
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert ended.out.startswith(printed)
    assert ended.states[-1] == b'{"bookmarks": {}, "currently_syncing": null}'
    assert emulator.count(slow) == 1
    jobs = emulator.history(stream)
    assert len(jobs) >= 4
    assert all(job["submits"] == 1 for job in jobs)
    assert len(emulator.history(slow)) == 1


def test_zero_minutes_push_at_the_end_only(target: Target, emulator: Emulator, stream: str) -> None:
    running = target.start(checkpoint_interval_minutes=0)
    running.write(schema(stream), *rows(stream, [1]), state({"n": 1}))
    eventually(target.runs_in_spool, "the run begins")
    running.write(*rows(stream, [2]), state({"n": 2}))
    ended = running.wait()
    assert ended.states == [b'{"n": 2}']
    assert len(emulator.history(stream)) == 1


def test_a_reader_of_states_that_has_gone(target: Target, emulator: Emulator, stream: str) -> None:
    """A state that nobody could take is a failure, and a failure has its sentence."""
    running = target.start()
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.write(schema(stream), *rows(stream, [1]), state({"n": 1}))
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(60) not in (0, None)
    assert running.err().splitlines()[-1].startswith("target-celonis: [TC-"), running.err()
    assert emulator.count(stream) == 1
