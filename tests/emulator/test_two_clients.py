"""Two clients push at once through one server with its limits on: nothing is lost, nobody waits for
ever, and no second sees more submits than it may."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import PATIENCE_SECONDS, Push, Server, StartServer

if TYPE_CHECKING:
    from collections.abc import Callable

JOBS = 20
ROWS = 25
MAY_IN_A_SECOND = 10
# Of a whole client's work: generous, so that only a deadlock is caught.
CLIENT_SECONDS = 120.0


def own_session(server: Server) -> Server:
    return Server(server.process, server.url, server.database)


def submit(push: Push, job: str, deadline: float, refusals: list[int]) -> None:
    """Execute as a well-behaved client does: again after 409 and 429, never after success."""
    pause = 0.002
    while (status := push.execute(job).status_code) in (409, 429):
        refusals.append(status)
        assert time.monotonic() < deadline, f"job {job} is refused for ever"
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    assert status == 200


def upsert(number: int) -> Callable[[int], dict[str, Any]]:
    """Return the rows of a client's rounds: half of them new, half written before."""

    def content(turn: int) -> dict[str, Any]:
        first = number * JOBS * ROWS + max(0, turn - 1) * ROWS
        ids = range(first, first + (2 if turn else 1) * ROWS)
        return {"id": list(ids), "client": [number] * len(ids), "turn": [turn] * len(ids)}

    return content


def client(
    server: Server, number: int, tables: tuple[str, str], *, at_once: bool, start: Barrier
) -> list[int]:
    """Push twenty jobs, appends and upserts by turns; return the refusals that were met.

    ``at_once``: all are submitted before the first one is waited for.
    """
    push, refusals = Push(own_session(server)), list[int]()
    deadline = time.monotonic() + CLIENT_SECONDS
    rows_of = upsert(number)
    jobs = []
    for turn in range(JOBS):
        job = push.create(tables[turn % 2], "DELTA", keys=["id"] if turn % 2 else None)
        content = rows_of(turn)
        half = len(content["id"]) // 2
        # Two chunks, so that a lost or doubled one would be seen.
        push.send(job, {name: values[:half] for name, values in content.items()})
        push.send(job, {name: values[half:] for name, values in content.items()})
        jobs.append(job)
    start.wait()
    for job in jobs:
        submit(push, job, deadline, refusals)
        if not at_once:
            assert push.wait(job)["status"] == "DONE"
    for job in jobs:
        assert push.wait(job)["status"] == "DONE"
        push.server.session.delete(f"{server.url}{push.base}/{job}").raise_for_status()
    push.server.session.close()
    return refusals


@pytest.mark.parametrize(
    ("tables", "options"),
    [
        # Both into the same two tables; the team's one job at a time.
        ((("log", "state"), ("log", "state")), ("--running-seconds", "0.03")),
        # Nothing but the limit of a second holds them.
        ((("a_log", "a_state"), ("b_log", "b_state")), ("--conflict-scope", "off")),
    ],
    ids=["one job of the team at a time", "only the rate limit"],
)
def test_two_clients_push_twenty_jobs_each(
    start_server: StartServer, tables: tuple[tuple[str, str], ...], options: tuple[str, ...]
) -> None:
    server = start_server(*options, limits=True)
    team_wide = "off" not in options
    start = Barrier(2, timeout=CLIENT_SECONDS)
    with ThreadPoolExecutor(2) as pool:
        ends = [
            pool.submit(client, server, n, tables[n], at_once=not team_wide, start=start)
            for n in range(2)
        ]
        refusals = [refusal for end in ends for refusal in end.result(3 * CLIENT_SECONDS)]

    history = server.get("/_emulator/history").json()
    assert len(history) == 2 * JOBS
    ends_seen = {(job["status"], job["submits"], job["deleted"]) for job in history}
    assert ends_seen == {("DONE", 1, True)}
    assert all(len(job["chunks"]) == 2 for job in history)
    # The limits were met, or this shows nothing.
    assert (409 if team_wide else 429) in refusals
    accepted = [job["executed_ms"] for job in history]
    for at in accepted:
        assert len([a for a in accepted if at <= a < at + 1000]) <= MAY_IN_A_SECOND
    if team_wide:
        # One at a time: each was accepted after the one before it had ended.
        in_order = sorted(history, key=lambda job: job["executed_ms"])
        for job, after in itertools.pairwise(in_order):
            assert job["finished_ms"] <= after["executed_ms"]

    for number, (log, state) in enumerate(tables):
        contents = [upsert(number)(turn) for turn in range(JOBS)]
        appended = sum(len(content["id"]) for content in contents[::2])
        found = server.rows(f"SELECT count(*) FROM local.{log} WHERE client = {number}")
        assert found == [[str(appended)]]
        wanted: dict[int, int] = {}
        for content in contents[1::2]:
            wanted |= dict(zip(content["id"], content["turn"], strict=True))
        shown = server.rows(f"SELECT id, turn FROM local.{state} WHERE client = {number}")
        assert sorted((int(i), int(t)) for i, t in shown) == sorted(wanted.items())


def test_many_clients_at_once_are_all_served(start_server: StartServer) -> None:
    """Eight clients create, upload, cancel and delete; one job is at work at a time."""
    server = start_server("--submits-per-hour", "0", limits=True)
    deadline = time.monotonic() + CLIENT_SECONDS

    def work(number: int) -> str:
        push = Push(own_session(server))
        thrown_away = push.create("shared", "DELTA")
        push.send(thrown_away, {"id": [-number]})
        job = push.create("shared", "DELTA")
        push.send(job, {"id": range(number * ROWS, (number + 1) * ROWS)})
        if number % 2:
            assert push.server.post(f"{push.base}/{thrown_away}/cancel").status_code == 200
        submit(push, job, deadline, [])
        assert push.wait(job)["status"] == "DONE"
        push.server.session.delete(f"{server.url}{push.base}/{thrown_away}").raise_for_status()
        push.server.session.close()
        return job

    with ThreadPoolExecutor(8) as pool:
        jobs = set(pool.map(work, range(8), timeout=CLIENT_SECONDS + PATIENCE_SECONDS))
    assert len(jobs) == 8
    counted = server.rows("SELECT count(*), count(DISTINCT id), min(id) FROM local.shared")
    assert counted == [[str(8 * ROWS), str(8 * ROWS), "0"]]
    statuses = {job["id"]: job["status"] for job in server.get("/_emulator/history").json()}
    assert {statuses[job] for job in jobs} == {"DONE"}
