"""How long a run waited, by what it waited for.

Guarantees: may be added to from any thread. Must not know: who waits, or why.
"""

from __future__ import annotations

import threading


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
