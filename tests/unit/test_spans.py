"""Which rows came when: spans are taken as they were added, cut where they must be."""

from __future__ import annotations

from itertools import chain, repeat

from hypothesis import given
from hypothesis import strategies as st

from target_celonis.spans import SpanQueue


def test_spans_come_in_the_order_of_their_rows() -> None:
    queue = SpanQueue([(1, 2), (4, 3)])
    queue.add(2, 1)
    assert queue.take(6) == ((1, 2), (4, 3), (2, 1))
    assert queue.take(0) == ()


def test_a_span_is_cut_where_no_more_rows_are_asked_for() -> None:
    queue = SpanQueue([(1, 5), (2, 2)])
    assert [queue.take(rows) for rows in (2, 4, 1)] == [((1, 2),), ((1, 3), (2, 1)), ((2, 1),)]


def test_rows_of_one_order_are_one_span() -> None:
    queue = SpanQueue()
    for order in (7, 7, 8, 7):
        queue.add(order, 10)
    assert queue.take(40) == ((7, 20), (8, 10), (7, 10))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=20),
    st.lists(st.integers(0, 15)),
)
def test_no_row_is_lost_or_moved(spans: list[tuple[int, int]], sizes: list[int]) -> None:
    queue = SpanQueue()
    for order, rows in spans:
        queue.add(order, rows)
    left = sum(rows for _, rows in spans)
    taken = []
    for size in (*sizes, left):
        asked = min(size, left)
        left -= asked
        found = queue.take(asked)
        assert sum(rows for _, rows in found) == asked
        taken += found
    taken += queue.take(left)
    assert _rows(taken) == _rows(spans)


def _rows(spans: list[tuple[int, int]]) -> list[int]:
    return list(chain.from_iterable(repeat(order, rows) for order, rows in spans))
