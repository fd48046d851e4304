"""How long a run waited, by what it waited for; and for how long it bears to see nothing.

Guarantees: may be added to from any thread; an outage is borne for ``limits.BLIND_SECONDS`` and
said once. Must not know: who waits, or why.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.clock import Deadline, wait_or_stop
from target_celonis.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_celonis.clock import Clock
    from target_celonis.errors import TargetCelonisError

logger = logging.getLogger("target-celonis")


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
            wait_or_stop(self.clock, seconds)

    @contextmanager
    def timed(self, cause: str) -> Iterator[None]:
        """Count what the block takes."""
        began = self.clock.monotonic()
        try:
            yield
        finally:
            self._waits.add(cause, self.clock.monotonic() - began)


class Blindness:
    """Bears that nothing of use is answered, for a while.

    Args:
        clock: For how long.
        name: What is looked at.
        lost: Makes the error that ends the wait of the one that was answered last, where that one
            does not say what goes on.
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        lost: Callable[[RemoteError], TargetCelonisError] | None = None,
    ) -> None:
        self._clock = clock
        self._name = name
        self._lost = lost
        self._since: Deadline | None = None

    @property
    def is_blind(self) -> bool:
        """Whether the last look failed."""
        return self._since is not None

    @contextmanager
    def borne(self, *, may_last: bool = True) -> Iterator[None]:
        """Bear a look that fails; once one went well, the count begins anew.

        Raises:
            TargetCelonisError: For long, nothing of use was answered.
        """
        try:
            yield
        except RemoteError as error:
            if self._since is None:
                self._since = Deadline(self._clock, limits.BLIND_SECONDS)
                logger.warning("%s cannot be looked at just now: %s", self._name, error.message)
            if self._since.passed() or not may_last:
                raise (self._lost(error) if self._lost else error) from None
        else:
            self._since = None
