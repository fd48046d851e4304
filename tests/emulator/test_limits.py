"""What execute refuses: 409 while another job is at work, 429 above the submit limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from celonis_emulator.ratelimit import SubmitLimit

from .conftest import Push, StartServer, eventually

ROWS = {"id": [1]}
# scope -> which second submits are refused while one job runs
CONFLICTS = {
    "team": {"same", "other table", "other connection", "other pool"},
    "pool": {"same", "other table", "other connection"},
    "table": {"same"},
    "off": set[str](),
}


@pytest.mark.parametrize("scope", CONFLICTS)
def test_conflicts(start_server: StartServer, scope: str) -> None:
    options = ("--conflict-scope", scope, "--running-seconds", "60")
    server = start_server("--pool", "local", "--pool", "two", "--connection", "local:c", *options)
    push = Push(server)
    running = push.create("Busy")
    assert push.execute(running).status_code == 200
    eventually(lambda: push.get(running)["status"] == "RUNNING", "the job runs")
    others = {
        "same": (push, push.create("busy", "DELTA")),
        "other table": (push, push.create("other")),
        "other connection": (push, push.create("busy", connectionId="c")),
        "other pool": (Push(server, "two"), Push(server, "two").create("busy")),
    }
    refused = set()
    for name, (client, job) in others.items():
        answer = client.execute(job)
        if answer.status_code == 409:
            refused.add(name)
            assert set(answer.json()) == {"reference", "message", "shortMessage"}
            assert client.get(job)["status"] == "NEW"
        else:
            assert client.get(job)["status"] == "QUEUED"
    assert refused == CONFLICTS[scope]


def test_a_refused_job_can_be_submitted_later(start_server: StartServer) -> None:
    push = Push(start_server("--running-seconds", "0.3"))
    first, second = push.create("a"), push.create("b")
    for job in (first, second):
        push.send(job, ROWS)
    assert push.execute(first).status_code == 200
    assert push.execute(second).status_code == 409
    assert push.wait(first)["status"] == "DONE"
    assert push.run(second)["status"] == "DONE"
    assert push.server.history("b")[0]["submits"] == 1


def test_submits_per_hour(start_server: StartServer) -> None:
    push = Push(start_server("--submits-per-hour", "2", limits=True))
    jobs = [push.create(f"t{n}", "DELTA") for n in range(3)]
    remaining = []
    for job in jobs[:2]:
        # What is refused does not count.
        assert push.server.post(f"{push.base}/nothing").status_code == 404
        answer = push.execute(job)
        assert answer.status_code == 200
        remaining.append(answer.headers["x-ratelimit-remaining"])
        push.wait(job)
        assert push.execute(job).status_code == 400
    assert remaining == ["1", "0"]
    answer = push.execute(jobs[2])
    assert answer.status_code == 429
    assert answer.json()["errorCode"] == "LIMIT_RATE_EXCEEDED"
    assert answer.headers["x-ratelimit-limit"] == "2"
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert 1 <= int(answer.headers["x-ratelimit-reset"]) <= 3600
    assert push.get(jobs[2])["status"] == "NEW"


def test_submits_per_second_without_headers(start_server: StartServer) -> None:
    options = ("--submits-per-second", "1", "--rate-limit-headers", "off")
    push = Push(start_server(*options, "--conflict-scope", "off", limits=True))
    jobs = [push.create(f"t{n}", "DELTA") for n in range(6)]
    answers = [push.execute(job) for job in jobs]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200
    assert refused
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


@dataclass
class Clock:
    """A clock that stands still."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_hour_starts_at_the_full_hour() -> None:
    clock = Clock(3600 * 1000 + 3590.5)
    limit = SubmitLimit(per_second=0, per_hour=2, clock=clock)
    for _ in range(2):
        assert limit.verdict().allowed
        limit.count()
    verdict = limit.verdict()
    assert (verdict.allowed, verdict.limit, verdict.reset_seconds) == (False, 2, 10)
    clock.now += 9.5
    assert limit.verdict().allowed
    assert limit.verdict().remaining == 2


def test_the_second_slides() -> None:
    clock = Clock(1000.0)
    limit = SubmitLimit(per_second=2, per_hour=0, clock=clock)
    limit.count()
    clock.now += 0.6
    limit.count()
    assert not limit.verdict().allowed
    assert limit.verdict().headers()["x-ratelimit-reset"] == "1"
    clock.now += 0.5
    assert limit.verdict().allowed
    limit.count()
    assert not limit.verdict().allowed


def test_zero_means_no_limit() -> None:
    limit = SubmitLimit(per_second=0, per_hour=0, clock=Clock())
    for _ in range(1000):
        limit.count()
    assert limit.verdict().allowed
    assert limit.verdict().headers() == {}


def test_two_clients_at_once_lose_nothing(start_server: StartServer) -> None:
    server = start_server("--pool", "local", "--pool", "two", "--conflict-scope", "off")
    rounds, rows = 8, 50

    def client(number: int) -> None:
        push = Push(
            type(server)(server.process, server.url, server.database), ["local", "two"][number]
        )
        for n in range(rounds):
            start = (number * rounds + n) * rows
            push.load("own", {"id": range(start, start + rows)}, type="DELTA", keys=["id"])
            Push(push.server).load("shared", {"id": range(start, start + rows)}, type="DELTA")
        push.server.session.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(client, range(2)))
    count = "SELECT count(*), count(DISTINCT id) FROM "
    assert server.rows(count + "local.own") == [[str(rounds * rows)] * 2]
    assert server.rows(count + "two.own") == [[str(rounds * rows)] * 2]
    assert server.rows(count + "local.shared") == [[str(2 * rounds * rows)] * 2]
    assert len(server.history("shared")) == 2 * rounds
