"""One run of something in Celonis that is started by a call and goes on by itself.

Hides how our run is told from the one before it and from one that is at work already, and what a
lost answer to the call means. Guarantees: it is started at most once; what ended before it was
started is never taken for its end; every wait has a deadline and says once what it waits for; an
outage is borne for a while; what runs when we go is left running, and named. Must not know: what it
is that runs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Generic, TypeVar

from target_celonis import limits
from target_celonis.clock import Clock, Deadline, StoppedError, growing_pauses, wait_or_stop
from target_celonis.errors import (
    LimitError,
    OutcomeUnknownError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.waits import Blindness

if TYPE_CHECKING:
    from collections.abc import Callable

    from target_celonis.answers import Answer

logger = logging.getLogger("target-celonis")

Found = TypeVar("Found")
Marker = tuple[str | None, ...]
_PROGRESS_SECONDS = 60.0
_UNKNOWN_SECONDS = 60.0
"""How long a run may stay unseen whose start was asked for and not answered."""


@dataclass(frozen=True)
class Sight(Generic[Found]):
    """How the newest run stands.

    Attributes:
        status: In Celonis' words; None where there was none.
        marker: What tells runs apart, what tells most first; None where Celonis does not say.
        is_running: Whether it has not ended.
        found: All that was seen.
    """

    status: str | None
    marker: Marker
    is_running: bool
    found: Found


def is_another(marker: Marker, before: Marker) -> bool | None:
    """Return whether two markers are those of two runs; None where that cannot be told.

    The first part that is known of both tells: an answer may leave out some of them.
    """
    for now, then in zip(marker, before, strict=False):
        if now is not None and then is not None:
            return now != then
    return None


@dataclass(frozen=True)
class Runnable(Generic[Found]):
    """Something in Celonis that can be run.

    Attributes:
        name: What the log calls it.
        look: Says how its newest run stands.
        start: Starts it; 409 says that it is at work.
    """

    name: str
    look: Callable[[], Sight[Found]]
    start: Callable[[], Answer]


class Conductor:
    """Has things run in Celonis, one after the other.

    Args:
        clock: For waits.
        timeout_seconds: How long one run may take; and how long another's run is waited for.
    """

    def __init__(self, clock: Clock, timeout_seconds: float) -> None:
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    def start(self, thing: Runnable[Found]) -> tuple[Sight[Found], bool]:
        """Wait until a thing is idle, and start it.

        Returns:
            How it stood before; and whether it is not known if it started.

        Raises:
            AccessError: The key may not.
            RemoteError: Celonis refused.
            LimitError: Another's run does not end.
            StoppedError: The run is to stop; nothing was started.
        """
        deadline = Deadline(self._clock, self._timeout_seconds)
        said = False
        for pause in growing_pauses(1.0, limits.CONFLICT_WAIT_SECONDS):
            before = self._await_idle(thing, deadline)
            if self._clock.stopped:
                raise StoppedError
            try:
                answer = thing.start()
            except OutcomeUnknownError:
                return before, True
            if answer.status != HTTPStatus.CONFLICT:
                return before, False
            if deadline.passed():
                break
            if not said:
                logger.info("%s is at work already (409); its end is waited for.", thing.name)
                said = True
            wait_or_stop(self._clock, min(pause, deadline.remaining_seconds()))
        raise self._late(f"{thing.name} was at work already and")

    def _await_idle(self, thing: Runnable[Found], deadline: Deadline) -> Sight[Found]:
        said = False
        sight: Sight[Found] | None = None
        blind = Blindness(self._clock, thing.name)  # nothing of ours runs
        for pause in growing_pauses(limits.POLL_FIRST_SECONDS, limits.POLL_LONGEST_SECONDS):
            with blind.borne(may_last=not deadline.passed()):
                sight = thing.look()
            if sight is not None and not blind.is_blind:
                if not sight.is_running:
                    return sight
                if not said:
                    logger.info(
                        "%s is %s already; its end is waited for.", thing.name, sight.status
                    )
                    said = True
                if deadline.passed():
                    raise self._late(f"{thing.name} was at work already, is {sight.status}, and")
            wait_or_stop(self._clock, min(pause, deadline.remaining_seconds()))
        raise AssertionError  # the pauses have no end

    def finish(
        self, thing: Runnable[Found], before: Sight[Found], *, is_unknown: bool
    ) -> Sight[Found]:
        """Wait for the end of what was started; return how it stands then.

        Args:
            thing: What was started.
            before: How it stood before that.
            is_unknown: Whether it is not known if it started.

        Raises:
            OutcomeUnknownError: It was not known whether it started, and it is not seen; or for
                long, nothing of use was answered.
            LimitError: It does not end in time.
            StoppedError: The run is to stop; what runs is left running.
        """
        try:
            return self._await_end(thing, before, is_unknown=is_unknown)
        except (LimitError, OutcomeUnknownError):
            raise
        except (StoppedError, TargetCelonisError):
            logger.warning("%s is left running; Celonis will finish it.", thing.name)
            raise

    def _await_end(
        self, thing: Runnable[Found], before: Sight[Found], *, is_unknown: bool
    ) -> Sight[Found]:
        deadline = Deadline(self._clock, self._timeout_seconds)
        to_be_seen = Deadline(self._clock, _UNKNOWN_SECONDS)
        progress = Deadline(self._clock, _PROGRESS_SECONDS)
        seen_running = False
        sight = before
        blind = Blindness(self._clock, thing.name, lambda error: _lost_sight(thing.name, error))
        for pause in growing_pauses(limits.POLL_FIRST_SECONDS, limits.POLL_LONGEST_SECONDS):
            with blind.borne(may_last=not deadline.passed()):
                sight = thing.look()
            if not blind.is_blind:
                seen_running |= sight.is_running
                is_ours = _is_ours(sight, before)
                if not sight.is_running and (is_ours or (is_ours is None and seen_running)):
                    return sight
                if is_unknown and not (is_ours or seen_running) and to_be_seen.passed():
                    raise OutcomeUnknownError(
                        "TC-REMOTE-03",
                        f"{thing.name} was asked to start; no answer came, and no start is seen.",
                        "Look at it in Celonis. The next run publishes again.",
                    )
            if deadline.passed():
                raise self._late(f"{thing.name} is {sight.status} and")
            if progress.passed():
                logger.info("%s is %s.", thing.name, sight.status)
                progress = Deadline(self._clock, _PROGRESS_SECONDS)
            wait_or_stop(self._clock, min(pause, deadline.remaining_seconds()))
        raise AssertionError  # the pauses have no end

    def _late(self, subject: str) -> LimitError:
        return LimitError(
            "TC-LIMIT-07",
            f"{subject} has not ended within {self._timeout_seconds / 60:g} minutes.",
            "It goes on by itself. Look at it in Celonis, or raise `wait_timeout_minutes`.",
        )


def _is_ours(sight: Sight[Found], before: Sight[Found]) -> bool | None:
    """Return whether what is seen began after what was there before; None if it cannot be told."""
    if before.status is None and not any(before.marker):
        return True if any(sight.marker) else None  # the first run ever
    return is_another(sight.marker, before.marker)


def _lost_sight(name: str, error: RemoteError) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "TC-REMOTE-03",
        f"{name} was started and goes on by itself, and how it ended is not known. {error.message}",
        "Look at it in Celonis. The next run publishes again, or: target-celonis publish.",
    )
