"""Which rows of a chunk came when, where several writers share a table.

Hides nothing; a leaf. A *span* is some rows that lie one behind the other: what tells whether they
came before or behind those of another span, and how many they are. Must not know: chunks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Spans = tuple[tuple[int, int], ...]
"""Pairs of order and rows."""


class SpanQueue:
    """Spans in the order of their rows.

    Args:
        spans: The first ones.
    """

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans = deque(spans)

    def add(self, order: int, rows: int) -> None:
        """Take rows behind all others."""
        if self._spans and self._spans[-1][0] == order:
            self._spans[-1] = order, self._spans[-1][1] + rows
        else:
            self._spans.append((order, rows))

    def take(self, rows: int) -> Spans:
        """Remove the spans of the next rows, as many as are asked for, and return them."""
        taken = []
        while rows:
            order, count = self._spans.popleft()
            if count > rows:
                self._spans.appendleft((order, count - rows))
                count = rows
            taken.append((order, count))
            rows -= count
        return tuple(taken)
