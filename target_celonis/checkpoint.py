"""Which state is safe to release: the bookkeeping behind "state after data".

Guarantees: ``take_safe`` returns the newest state before which every record was settled, and each
state at most once; memory grows with the number of open tables, not with the number of states.
Pure. Must not know: files, jobs, the form of a state.

A table is *pending* from the sequence number of its first record that no finished push holds. A
state is safe exactly when no pending table has a smaller number; an idle stream holds nobody back.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class StateLedger:
    """States and pending tables, by sequence number."""

    def __init__(self) -> None:
        self._pending: dict[object, int] = {}
        # Between two starting points of pending tables only the newest state can matter: the
        # others become safe at the same moment.
        self._states: list[tuple[int, bytes]] = []

    def pend(self, token: object, sequence: int) -> None:
        """Note that records from ``sequence`` on are not settled.

        Args:
            token: Stands for one table and checkpoint.
            sequence: Of its first record; not below any number noted before.
        """
        self._pending.setdefault(token, sequence)

    def settle(self, token: object) -> None:
        """Note that the records behind ``token`` are loaded or counted out."""
        self._pending.pop(token, None)

    def add_state(self, sequence: int, state: bytes) -> None:
        """Take a state that was read at ``sequence``."""
        self._states.append((sequence, state))
        starts = sorted(self._pending.values())
        behind = [bisect_left(starts, at) for at, _ in self._states]  # starting points before each
        self._states = [
            kept
            for index, kept in enumerate(self._states)
            if index + 1 == len(self._states) or behind[index] < behind[index + 1]
        ]

    def take_safe(self) -> tuple[int, bytes] | None:
        """Return the newest safe state that was not returned before, behind its sequence number.

        None when there is none.
        """
        first_pending = min(self._pending.values(), default=None)
        safe: tuple[int, bytes] | None = None
        while self._states and (first_pending is None or self._states[0][0] < first_pending):
            safe = self._states.pop(0)
        return safe

    def can_cover(self, sequence: int, lost: Iterable[object]) -> bool:
        """Return whether some state behind a record can still become safe.

        Args:
            sequence: Of the record.
            lost: Tokens that will never be settled.
        """
        barrier = min((self._pending[token] for token in lost), default=None)
        return barrier is None or any(sequence < at < barrier for at, _ in self._states)

    def holds_back(self) -> bool:
        """Return whether a state waits for records to be settled."""
        return bool(self._states)

    def first_pending(self) -> object | None:
        """Return the token that holds states back the longest; None when nothing is pending."""
        if not self._pending:
            return None
        return min(self._pending, key=lambda token: self._pending[token])
