"""Pushes on their way, and the states that wait for them.

Hides in which order pushes go, which of them may still go after a failure, and when a state is
handed out. Guarantees: a state is handed out only when every record before it is settled; nothing
is begun to be appended that is known to come again with the next run.
Must not know: streams, records, threads.

Pushes that append go last: rows of a table with keys do no harm when they come again, appended ones
stand twice. So they are pushed only while a state behind them can still go out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from target_celonis.checkpoint import StateLedger
from target_celonis.journal import Step
from target_celonis.pusher import FailedPush, GivenUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from target_celonis.errors import TargetCelonisError
    from target_celonis.journal import Journal
    from target_celonis.pusher import Pusher
    from target_celonis.route import PushTask, Receipt


class Dispatch:
    """Pushes, and states behind them.

    Args:
        pusher: Does the pushing.
        journal: Of this run.
        release: Called with each state that is safe, as its JSON text.

    Attributes:
        ledger: Which records are not settled.
        states_read: States taken.
        states_released: States handed out.
        last_state_line: Number of the input line of the last one; None before.
        failure: The first reason why a push failed.
    """

    def __init__(self, pusher: Pusher, journal: Journal, release: Callable[[bytes], None]) -> None:
        self.ledger = StateLedger()
        self.states_read = 0
        self.states_released = 0
        self.last_state_line: int | None = None
        self.failure: TargetCelonisError | None = None
        self._pusher = pusher
        self._journal = journal
        self._release = release
        self._appends: list[PushTask] = []
        self._lost: list[object] = []

    @property
    def is_pushing(self) -> bool:
        """Whether a push is under way, or waits for others."""
        return self._pusher.busy or bool(self._appends)

    def start(self, tasks: Sequence[PushTask]) -> None:
        """Push tables; their tokens are the tasks. Those that append wait for all others."""
        self._appends += [task for task in tasks if task.appends]
        others = [task for task in tasks if not task.appends]
        if others:
            self._pusher.start(others)

    def lose(self, token: object) -> None:
        """Take note that what a token stands for will not be loaded in this run."""
        self._lost.append(token)

    def outcomes(self) -> tuple[list[Receipt | FailedPush], list[PushTask]]:
        """Return what pushes came to since the last call, and what is not appended any more.

        The caller settles each receipt's task.
        """
        idle = not self._pusher.busy  # asked first: what has failed by then is among the outcomes
        came: list[Receipt | FailedPush] = []
        given_up: list[PushTask] = []
        for outcome in self._pusher.outcomes():
            if isinstance(outcome, GivenUp):
                self.lose(outcome.task)
                given_up.append(outcome.task)
                continue
            came.append(outcome)
            if isinstance(outcome, FailedPush):
                self.lose(outcome.task)
                self.failure = self.failure or outcome.error
        return came, [*given_up, *(self._push_appends() if idle else [])]

    def _push_appends(self) -> list[PushTask]:
        """Push what appends if its state can still go out; return the others."""
        ready, self._appends = self._appends, []
        given_up: list[PushTask] = []
        while True:  # each that is given up holds back states of others
            hopeless = [
                task for task in ready if not self.ledger.can_cover(task.last_line, self._lost)
            ]
            if not hopeless:
                break
            given_up += hopeless
            self._lost += hopeless
            ready = [task for task in ready if task not in hopeless]
        if ready:
            self._pusher.start(ready)
        return given_up

    def add_state(self, line: int, state: bytes) -> None:
        """Take a state."""
        self.states_read += 1
        self.ledger.add_state(line, state)

    def release_safe(self) -> None:
        """Hand out the newest state that is safe.

        Raises:
            LimitError: It cannot be written to the output.
        """
        safe = self.ledger.take_safe()
        if safe is None:
            return
        line, state = safe
        self._journal.record(Step.STATE_MEANT, line=line)
        self._release(state)
        self._journal.record(Step.STATE_RELEASED, line=line)
        self.states_released += 1
        self.last_state_line = line
