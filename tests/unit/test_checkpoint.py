"""A state is safe exactly when no pending record came before it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.checkpoint import StateLedger

operations = st.lists(
    st.tuples(st.sampled_from(["record", "state", "settle", "push", "take"]), st.integers(0, 3)),
    max_size=60,
)


class Model:
    """Every record and every state ever seen; slow, and right by its looks."""

    def __init__(self) -> None:
        self.pending: list[tuple[object, int]] = []
        self.states: list[tuple[int, bytes]] = []
        self.released = -1

    def newest_safe(self) -> tuple[int, bytes] | None:
        safe = [
            (at, state)
            for at, state in self.states
            if at > self.released and not any(record < at for _, record in self.pending)
        ]
        if not safe:
            return None
        self.released = max(safe)[0]
        return max(safe)


@given(operations)
@settings(max_examples=100, deadline=None)
def test_what_is_released_is_the_newest_safe_state(steps: list[tuple[str, int]]) -> None:
    ledger, model = StateLedger(), Model()
    gathering: dict[int, int] = {}  # stream -> its first record that no push holds
    pushes: list[object] = []
    for at, (step, number) in enumerate(steps, start=1):
        if step == "record":
            ledger.pend(number, at)
            gathering.setdefault(number, at)
            model.pending.append((number, at))
        elif step == "state":
            state = b"{%d}" % at
            ledger.add_state(at, state)
            model.states.append((at, state))
        elif step == "push" and number in gathering:
            push = object()
            pushes.append(push)
            ledger.pend(push, gathering.pop(number))
            ledger.settle(number)
            model.pending = [(push if t == number else t, r) for t, r in model.pending]
        elif step == "settle" and pushes:
            push = pushes.pop(number % len(pushes))
            ledger.settle(push)
            model.pending = [(t, r) for t, r in model.pending if t is not push]
        elif step == "take":
            assert ledger.take_safe() == model.newest_safe()
    assert ledger.take_safe() == model.newest_safe()
    first = min(model.pending, key=lambda pending: pending[1], default=(None, 0))[0]
    assert ledger.first_pending() == first


@given(operations)
@settings(max_examples=100, deadline=None)
def test_states_kept_are_bounded_by_what_is_pending(steps: list[tuple[str, int]]) -> None:
    ledger = StateLedger()
    pending: set[int] = set()
    for at, (step, number) in enumerate(steps, start=1):
        if step == "record":
            ledger.pend(number, at)
            pending.add(number)
        elif step == "state":
            ledger.add_state(at, b"{}")
        elif step == "settle":
            ledger.settle(number)
            pending.discard(number)
        if step != "record":
            ledger.take_safe()
            assert len(kept(ledger)) <= len(pending) + 1


def test_one_stream_that_stays_pending_does_not_pile_up_states() -> None:
    ledger = StateLedger()
    ledger.pend("overwrites", 1)
    for at in range(2, 2_000, 2):
        ledger.pend("appends", at)
        ledger.add_state(at + 1, b"{}")
        ledger.settle("appends")
        assert ledger.take_safe() is None
    assert len(kept(ledger)) <= 2


def test_many_states_behind_one_pending_record_are_one() -> None:
    ledger = StateLedger()
    ledger.pend("a", 1)
    for at in range(2, 10_000):
        ledger.add_state(at, b"%d" % at)
    assert len(kept(ledger)) == 1
    ledger.settle("a")
    assert ledger.take_safe() == (9_999, b"9999")


def kept(ledger: StateLedger) -> list[Any]:
    return ledger._states


def test_an_idle_stream_holds_nobody_back() -> None:
    ledger = StateLedger()
    ledger.pend("idle", 1)
    ledger.settle("idle")
    ledger.pend("busy", 2)
    ledger.add_state(3, b"a")
    ledger.settle("busy")
    assert ledger.take_safe() == (3, b"a")


def test_a_state_before_the_first_pending_record_is_safe() -> None:
    ledger = StateLedger()
    ledger.add_state(1, b"a")
    ledger.pend("t", 2)
    ledger.add_state(3, b"b")
    assert ledger.take_safe() == (1, b"a")
    assert ledger.holds_back()
    ledger.settle("t")
    assert ledger.take_safe() == (3, b"b")
    assert not ledger.holds_back()


def test_each_state_is_released_once() -> None:
    ledger = StateLedger()
    ledger.add_state(1, b"a")
    assert [ledger.take_safe(), ledger.take_safe()] == [(1, b"a"), None]


def test_nothing_is_pending_at_first() -> None:
    ledger = StateLedger()
    assert (ledger.take_safe(), ledger.first_pending(), ledger.holds_back()) == (None, None, False)


def test_settling_what_is_not_pending_does_no_harm() -> None:
    ledger = StateLedger()
    ledger.settle("nobody")
    ledger.add_state(1, b"a")
    assert ledger.take_safe() == (1, b"a")


@given(operations, st.sets(st.integers(0, 3)), st.integers(0, 61))
@settings(max_examples=200, deadline=None)
def test_what_can_still_be_covered(
    steps: list[tuple[str, int]], lost: set[int], sequence: int
) -> None:
    """A state covers a record if it is behind it and before all that will never be settled."""
    ledger = StateLedger()
    first: dict[int, int] = {}
    states: list[int] = []
    for at, (step, number) in enumerate(steps, start=1):
        if step == "record":
            ledger.pend(number, at)
            first.setdefault(number, at)
        elif step == "state":
            ledger.add_state(at, b"{}")
            states.append(at)
    gone = {number for number in lost if number in first}
    # Only records that are pending are asked about, by their last one: states between two starting
    # points of pending tables are one.
    sequence = max([sequence, *(at for number, at in first.items() if number not in gone)])
    wanted = not gone or any(
        sequence < at and all(at < first[number] for number in gone) for at in states
    )
    assert ledger.can_cover(sequence, gone) == wanted
    if not gone:
        return
    for number in first.keys() - gone:
        ledger.settle(number)
    safe = ledger.take_safe()  # what in truth comes out once all others are settled
    assert wanted == (safe is not None and safe[0] > sequence)


def test_what_is_lost_bars_only_states_behind_it() -> None:
    ledger = StateLedger()
    ledger.pend("appends", 1)
    ledger.add_state(3, b"a")
    ledger.pend("fails", 4)
    ledger.pend("late", 5)
    ledger.add_state(6, b"b")
    assert ledger.can_cover(2, ["fails"])
    assert not ledger.can_cover(3, ["fails"])
    assert not ledger.can_cover(5, ["fails"])
    assert not ledger.can_cover(2, ["fails", "appends"])
    assert ledger.can_cover(10, [])  # a state may still come
