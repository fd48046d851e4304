"""Time, waiting and deadlines behind one small interface, so that tests need no real time.

Guarantees: ``wait`` returns early, with True, once ``stop`` was called, from any thread or from a
signal handler. Must not know: what is waited for; that is said by the caller.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class StoppedError(Exception):
    """A wait was cut short, since the run is to stop."""


class Clock(Protocol):
    """What the program needs of time."""

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        ...

    def now(self) -> float:
        """Return seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait; return True at once when the run is to stop."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, even when the run is to stop."""
        ...

    def stop(self) -> None:
        """End every wait, now and later."""
        ...


class SystemClock:
    """The machine's clock."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped.is_set()

    def now(self) -> float:
        """Return seconds since the epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait; return True at once when the run is to stop."""
        return self._stopped.wait(max(0.0, seconds))

    def sleep(self, seconds: float) -> None:
        """Wait, even when the run is to stop."""
        time.sleep(max(0.0, seconds))

    def stop(self) -> None:
        """End every wait, now and later."""
        self._stopped.set()


@dataclass
class FakeClock:
    """A clock for tests: waiting moves it on and takes no time.

    Attributes:
        seconds: The present, seconds since the epoch.
        waits: Every wait asked for, in order, in seconds.
    """

    seconds: float = 1_700_000_000.0
    waits: list[float] = field(default_factory=list)
    stopped: bool = False

    def now(self) -> float:
        """Return the set time."""
        return self.seconds

    def monotonic(self) -> float:
        """Return the set time."""
        return self.seconds

    def wait(self, seconds: float) -> bool:
        """Move on by ``seconds``."""
        self.waits.append(seconds)
        self.seconds += max(0.0, seconds)
        return self.stopped

    def sleep(self, seconds: float) -> None:
        """Move on by ``seconds``."""
        self.wait(seconds)

    def stop(self) -> None:
        """Make every later wait say that the run is to stop."""
        self.stopped = True


class Deadline:
    """A moment after which waiting ends.

    Args:
        clock: The clock that counts.
        seconds: How long from now.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds

    def remaining_seconds(self) -> float:
        """Return what is left, never below zero."""
        return max(0.0, self._end - self._clock.monotonic())

    def passed(self) -> bool:
        """Return whether the moment has come."""
        return self._clock.monotonic() >= self._end


def wait_or_stop(clock: Clock, seconds: float) -> None:
    """Wait.

    Raises:
        StoppedError: The run is to stop.
    """
    if clock.wait(seconds):
        raise StoppedError


def growing_pauses(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Yield pauses that grow by half from one to the next."""
    pause = first_seconds
    while True:
        yield pause
        pause = min(pause * 1.5, longest_seconds)
