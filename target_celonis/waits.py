"""How long a run waited, by what it waited for.

Guarantees: may be added to from any thread. Must not know: who waits, or why.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from target_celonis.clock import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target_celonis.clock import Clock


class Waits:
    """Seconds waited, by cause."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, cause: str, seconds: float) -> None:
        """Count a wait.

        Args:
            cause: What was waited for, as the report names it.
            seconds: How long.
        """
        with self._lock:
            self._seconds[cause] = self._seconds.get(cause, 0.0) + seconds

    def by_cause(self) -> dict[str, float]:
        """Return the seconds so far, the longest first."""
        with self._lock:
            found = sorted(self._seconds.items(), key=lambda item: -item[1])
        return dict(found)


class Waiter:
    """Waits, and counts for how long.

    Args:
        clock: The clock.
        waits: Takes what was waited for.
    """

    def __init__(self, clock: Clock, waits: Waits) -> None:
        self.clock = clock
        self._waits = waits

    def wait(self, seconds: float, cause: str) -> None:
        """Wait.

        Raises:
            StoppedError: The run is to stop.
        """
        with self.timed(cause):
            if self.clock.wait(seconds):
                raise StoppedError

    @contextmanager
    def timed(self, cause: str) -> Iterator[None]:
        """Count what the block takes."""
        began = self.clock.monotonic()
        try:
            yield
        finally:
            self._waits.add(cause, self.clock.monotonic() - began)
