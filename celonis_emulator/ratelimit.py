"""The two submit limits: per second, and per full UTC hour.

Hides: how the two windows are counted. Guarantees: only what was counted with :meth:`count`
uses up a limit; the counts live in this process alone. Must not know: jobs, HTTP. The caller
serialises ``verdict`` and ``count``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_SECONDS = 3600


@dataclass(frozen=True)
class Verdict:
    """Whether a submit may pass now, and the numbers of the limit nearest to its end."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        """Return the headers that tell a client about the limit; none without a limit."""
        if self.limit == 0:
            return {}
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_seconds),
        }


class SubmitLimit:
    """Counts submits; 0 switches a limit off."""

    def __init__(
        self, per_second: int, per_hour: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._per_second = per_second
        self._per_hour = per_hour
        self._clock = clock
        self._recent: deque[float] = deque()
        self._hour = -1
        self._in_hour = 0

    def verdict(self) -> Verdict:
        """Say whether one more submit is allowed now."""
        now = self._clock()
        self._forget(now)
        until_hour = max(1, math.ceil((self._hour + 1) * HOUR_SECONDS - now))
        left_in_hour = self._per_hour - self._in_hour
        left_in_second = self._per_second - len(self._recent)
        if self._per_hour and left_in_hour <= 0:
            return Verdict(
                allowed=False, limit=self._per_hour, remaining=0, reset_seconds=until_hour
            )
        if self._per_second and left_in_second <= 0:
            return Verdict(allowed=False, limit=self._per_second, remaining=0, reset_seconds=1)
        limit, left = self._per_second, left_in_second
        if self._per_hour:
            limit, left = self._per_hour, left_in_hour
        return Verdict(
            allowed=True,
            limit=limit,
            remaining=max(0, left),
            reset_seconds=until_hour if self._per_hour else 1,
        )

    def count(self) -> float:
        """Count one accepted submit, and return the time that it is counted at."""
        now = self._clock()
        self._forget(now)
        self._recent.append(now)
        self._in_hour += 1
        return now

    def _forget(self, now: float) -> None:
        hour = int(now // HOUR_SECONDS)
        if hour != self._hour:
            self._hour, self._in_hour = hour, 0
        while self._recent and now - self._recent[0] >= 1:
            self._recent.popleft()
