"""Time that tests can turn, and deadlines on it."""

from __future__ import annotations

import threading
import time

import pytest

from target_celonis.clock import Clock, Deadline, FakeClock, SystemClock


def test_a_fake_clock_moves_by_what_is_waited_for() -> None:
    clock = FakeClock(100.0)
    assert clock.wait(2.5) is False
    clock.sleep(1)
    clock.wait(-5)
    assert (clock.now(), clock.monotonic()) == (103.5, 103.5)
    assert clock.waits == [2.5, 1, -5]


def test_a_stopped_fake_clock_says_so() -> None:
    clock = FakeClock()
    clock.stop()
    assert clock.wait(1) is True


def test_fake_clocks_share_nothing() -> None:
    one, other = FakeClock(), FakeClock()
    one.wait(1)
    assert other.waits == []


def test_a_stop_ends_a_wait_of_another_thread() -> None:
    clock = SystemClock()
    timer = threading.Timer(0.05, clock.stop)
    timer.start()
    started = time.monotonic()
    assert clock.wait(60) is True
    assert time.monotonic() - started < 10
    assert clock.wait(60) is True
    timer.join()


def test_a_wait_that_ends_by_itself_is_no_stop() -> None:
    assert SystemClock().wait(0.001) is False
    assert SystemClock().wait(-1) is False


def test_sleep_waits_even_when_stopped() -> None:
    clock = SystemClock()
    clock.stop()
    started = time.monotonic()
    clock.sleep(0.05)
    clock.sleep(-1)
    assert time.monotonic() - started >= 0.05


def test_the_system_clock_tells_the_time() -> None:
    clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    assert clock.monotonic() <= clock.monotonic()


@pytest.mark.parametrize(
    ("waited", "remaining", "passed"),
    [(0, 10, False), (9.5, 0.5, False), (10, 0, True), (11, 0, True)],
)
def test_deadlines(waited: float, remaining: float, passed: bool) -> None:
    clock: Clock = FakeClock()
    deadline = Deadline(clock, 10)
    clock.wait(waited)
    assert deadline.remaining_seconds() == pytest.approx(remaining)
    assert deadline.passed() is passed


def test_a_deadline_of_no_time_has_passed() -> None:
    assert Deadline(FakeClock(), 0).passed()
