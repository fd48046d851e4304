"""What a publish waits for: push jobs as Celonis lists them, and a lock in real files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from target_celonis import limits
from target_celonis.clock import StoppedError
from target_celonis.errors import LimitError, RemoteError
from target_celonis.publish_gate import PublishGate
from target_celonis.publish_plan import TableKey

from .server import Reply, WireServer

if TYPE_CHECKING:
    from pathlib import Path

    from target_celonis.celonis import Celonis
    from target_celonis.clock import FakeClock

TIMEOUT_SECONDS = 600.0
ORDERS = frozenset({TableKey.of(None, "orders")})

Gates = Callable[..., PublishGate]


@pytest.fixture
def gates(celonis: Celonis, clock: FakeClock, tmp_path: Path) -> Gates:
    def made(timeout_seconds: float = TIMEOUT_SECONDS, place: str = "pool") -> PublishGate:
        return PublishGate(celonis, clock, timeout_seconds, tmp_path, ("host", place))

    return made


def listed(*statuses: str, table: str = "Orders", connection: str | None = None) -> Reply:
    """Return a list of push jobs, one of each status."""
    jobs = [
        {"id": f"job-{n}", "status": status, "targetName": table, "connectionId": connection}
        for n, status in enumerate(statuses)
    ]
    return Reply(200, jobs)


def waited(clock: FakeClock) -> float:
    return sum(clock.waits)


@pytest.mark.parametrize("status", ["QUEUED", "RUNNING", "SOMETHING_NEW"])
def test_a_push_that_is_under_way_is_waited_for_and_said_once(
    wire: WireServer, gates: Gates, clock: FakeClock, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "target-celonis")
    wire.answer("list", *[listed(status)] * 4, listed("DONE"))
    assert gates().await_pushes(ORDERS)
    assert len(clock.waits) == len(wire.seen) - 1 == 4
    said = [r.getMessage() for r in caplog.records if "is to end" in r.getMessage()]
    assert said == [
        f"Table Orders: push job job-0 is {status}; it is to end before anything is published."
    ]


@pytest.mark.parametrize(
    "reply",
    [
        listed(),
        listed("NEW", "DONE", "ERROR", "CANCELED"),
        listed("RUNNING", table="items"),
        listed("RUNNING", connection="erp"),
    ],
)
def test_what_is_not_waited_for(
    wire: WireServer, gates: Gates, clock: FakeClock, reply: Reply
) -> None:
    wire.answer("list", reply)
    assert gates().await_pushes(ORDERS)
    assert clock.waits == []


def test_without_a_table_nothing_is_asked(wire: WireServer, gates: Gates) -> None:
    assert gates().await_pushes(frozenset())
    assert wire.seen == []


@pytest.mark.parametrize("status", [403, 404])
def test_push_jobs_that_may_not_be_listed(
    wire: WireServer, gates: Gates, clock: FakeClock, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answer("list", Reply(status))
    assert not gates().await_pushes(ORDERS)
    assert clock.waits == []
    assert "may not list push jobs" in caplog.text


def test_a_push_without_end(wire: WireServer, gates: Gates, clock: FakeClock) -> None:
    wire.answer("list", *[listed("RUNNING")] * 200)
    with pytest.raises(LimitError, match="job-0 on table `Orders` has not ended within 10 min"):
        gates().await_pushes(ORDERS)
    assert waited(clock) == pytest.approx(TIMEOUT_SECONDS)


def test_an_outage_is_borne(wire: WireServer, gates: Gates, clock: FakeClock) -> None:
    wire.answer("list", listed("RUNNING"), *[Reply(503)] * limits.RETRY_TRIES * 3, listed("DONE"))
    assert gates().await_pushes(ORDERS)
    assert waited(clock) > 0


def test_an_outage_without_end(wire: WireServer, gates: Gates, clock: FakeClock) -> None:
    wire.answer("list", *[Reply(503)] * 2000)
    with pytest.raises(RemoteError, match="503"):
        gates(limits.BLIND_SECONDS * 4).await_pushes(ORDERS)
    assert limits.BLIND_SECONDS <= waited(clock) < limits.BLIND_SECONDS * 1.5


def test_a_signal_ends_the_wait(wire: WireServer, gates: Gates, clock: FakeClock) -> None:
    wire.answer("list", *[listed("RUNNING")] * 5)
    clock.stop()
    with pytest.raises(StoppedError):
        gates().await_pushes(ORDERS)


# --- turns


def test_one_at_a_time(gates: Gates, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "target-celonis")
    with gates().turn():
        with pytest.raises(LimitError, match=r"Another run .* has not ended within 10 minutes"):
            gates().turn().__enter__()
        assert waited(clock) == pytest.approx(TIMEOUT_SECONDS)
        assert caplog.text.count("its end is waited for") == 1
        with gates(place="another pool").turn():
            pass
    clock.waits.clear()
    with gates().turn():
        assert clock.waits == []


def test_a_signal_ends_the_wait_for_a_turn(gates: Gates, clock: FakeClock) -> None:
    with gates().turn():
        clock.stop()
        with pytest.raises(StoppedError):
            gates().turn().__enter__()


def test_a_turn_is_given_back_whatever_happens(gates: Gates, clock: FakeClock) -> None:
    with pytest.raises(ZeroDivisionError), gates().turn():
        raise ZeroDivisionError
    with gates().turn():
        assert clock.waits == []


def test_where_there_can_be_no_lock_there_is_no_turn(gates: Gates, tmp_path: Path) -> None:
    (tmp_path / "publish").write_text("no directory")
    with gates().turn(), gates().turn():
        pass
