"""From bytes on stdin to messages and converted rows, by this process or by several.

Hides which process converts which block. Guarantees: what comes out is the same, and in the same
order, however many processes there are. Must not know: what becomes of rows and messages.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from target_celonis.blocks import Rows
from target_celonis.converter_start import can_fork
from target_celonis.converters import SLOT_BYTES
from target_celonis.lines import LongLineError, line_too_long
from target_celonis.messages import Idle, StateMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target_celonis.blocks import BlockConverter
    from target_celonis.clock import Clock
    from target_celonis.converters import Converters, Flight
    from target_celonis.lines import Block, Blocks
    from target_celonis.messages import Message
    from target_celonis.typed import Intake

_WORTH_A_START = {True: 4, False: 12}
"""Blocks in a row that were waited for, after which other processes are started, by whether that is
quick: where the tap is the slower one, they would be of no use."""

_WORTH_A_COLUMN_BYTES = 20_000
"""Bytes of a block for each column of each stream in it: what is done once for each column, however
many rows there are, weighs little then."""

_LARGEST_AIM_BYTES = 2 << 20
"""Size that may still grow by half: with the line at its end, such a block has room in a slot."""


class Reader:
    """Reads the input.

    Args:
        blocks: Brings it.
        converter: Converts blocks in this process.
        converters: The other processes, if there are to be any.
        clock: Says when records were received.
    """

    def __init__(
        self,
        blocks: Blocks,
        converter: BlockConverter,
        converters: Converters,
        clock: Clock,
    ) -> None:
        self._blocks = blocks
        self._converter = converter
        self._converters = converters
        self._clock = clock
        self._flights: deque[Flight] = deque()
        self._untold: dict[str, Intake] = {}
        self._waited_for = 0

    def set_stream(self, intake: Intake) -> None:
        """Have records of a stream converted, from now on by what is told here."""
        if self._converter.set_stream(intake):
            self._untold[intake.stream] = intake

    def messages(self) -> Iterator[Rows | Message]:
        """Yield what the input says, to its end.

        Yields:
            Rows of streams that were set, runs of records of others, messages; ``Idle`` whenever
            nothing came for a while.

        Raises:
            InputError: A line is no Singer message, too long, or cut off by the end of the input,
                or a value cannot be loaded.
            ContractError: A text is longer than any column, or a row to delete has no key.
            LimitError: A process ended early, or could not write.
        """
        try:
            for block in self._blocks.read():
                if block is None:
                    yield from self._land(to_the_last=True)
                    yield Idle()
                elif self._can_give_away(block):
                    while not self._converters.has_room:
                        yield from self._land()
                    self._flights.append(self._converters.convert(block.data, self._clock.now()))
                    yield from self._land()
                else:
                    yield from self._land(to_the_last=True)
                    yield from self._convert(block.data, self._clock.now(), last=block.is_last)
        except LongLineError:
            yield from self._land(to_the_last=True)
            subject = f"Line {self._converter.line + 1}"
            raise line_too_long(subject, self._blocks.line_limit_bytes) from None

    def _can_give_away(self, block: Block) -> bool:
        """Return whether another process can take a block; have some started if it pays."""
        converters = self._converters
        if not converters.is_running:
            self._waited_for = self._waited_for + 1 if self._blocks.is_waited_for else 0
            if converters.can_start and self._starts_pay():
                converters.start()
            converters.look()
            if not converters.is_running:
                return False
        if self._untold and not self._flights:
            self._tell()
        return not block.is_last and len(block.data) <= SLOT_BYTES

    def _starts_pay(self) -> bool:
        """Return whether other processes are worth their start."""
        if self._converters.are_wanted_at_once:
            return True
        return self._waited_for >= _WORTH_A_START[can_fork()]

    def _tell(self) -> None:
        """Tell the other processes what they are to know of streams."""
        self._converters.set_streams(self._untold.values())
        self._untold = {}

    def _land(self, *, to_the_last: bool = False) -> Iterator[Rows | Message]:
        """Take blocks back that are converted, in order.

        Args:
            to_the_last: Whether to wait until all are.
        """
        while self._flights:
            room = self._converters.has_room
            if room and not to_the_last and not self._converters.is_done(self._flights[0]):
                return
            flight = self._flights.popleft()
            yield from self._landed(flight)
            self._converters.forget(flight)
            if self._untold:
                self._fly_again()

    def _landed(self, flight: Flight) -> Iterator[Rows | Message]:
        converted = self._converters.converted(flight)
        if converted.items is None:  # a line of it needs more than what the others know
            yield from self._convert(self._converters.data(flight), flight.now)
            return
        before = self._converter.line
        self._converter.line += converted.lines
        for item in converted.items:
            if isinstance(item, StateMessage):
                yield replace(item, line=before + item.line)
            else:
                item.first_sequence += before
                item.last_sequence += before
                yield item
        columns = sum(item.columns for item in converted.items if isinstance(item, Rows))
        self._aim(flight.size_bytes, columns)

    def _fly_again(self) -> None:
        """Have blocks that are under way converted anew, by what is known of streams now."""
        for flight in self._flights:
            self._converters.converted(flight)
            self._converters.forget(flight, frees_slot=False)
        self._tell()
        again = [self._converters.convert_again(flight) for flight in self._flights]
        self._flights = deque(again)

    def _convert(
        self, data: bytes | memoryview, now: float, *, last: bool = False
    ) -> Iterator[Rows | Message]:
        """Convert a block in this process."""
        columns = 0
        for item in self._converter.convert(data, now, last=last):
            columns += item.columns if isinstance(item, Rows) else 0
            yield item
        self._aim(len(data), columns)

    def _aim(self, size_bytes: int, columns: int) -> None:
        """Read larger blocks where many columns share them."""
        aim = self._blocks.aim_bytes
        is_full = 2 * size_bytes >= aim  # but for the line that its end fell into
        if is_full and columns * _WORTH_A_COLUMN_BYTES > aim < _LARGEST_AIM_BYTES:
            self._blocks.aim_bytes += aim // 2
