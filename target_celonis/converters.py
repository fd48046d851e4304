"""The processes that convert blocks beside this one.

Hides how they are spoken with, and the memory that is shared with them.
Guarantees: a block's answer is had exactly once; what a process wrote is accounted for here; a
process that ends early ends the run; where none can be had, that is told once and nothing else
changes. Must not know: the order in which blocks are taken, what becomes of rows.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import signal
import tempfile
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from target_celonis.converter_orders import (
    Abandon,
    Convert,
    Converted,
    Failed,
    Finish,
    Finished,
    Forget,
    Keep,
    Ready,
    SetStreams,
    Setup,
)
from target_celonis.converter_start import Memory, start
from target_celonis.errors import LimitError, TargetCelonisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection

    from target_celonis.blocks import Rows
    from target_celonis.converter_orders import WorkShare
    from target_celonis.converter_start import Child
    from target_celonis.run_directory import RunDirectory
    from target_celonis.spool import Chunk
    from target_celonis.typed import Intake

    Start = Callable[[Memory], tuple[Connection, Child]]

logger = logging.getLogger("target-celonis")

SLOT_BYTES = 4 << 20
"""Largest block that a process can be given."""

_SLOTS_PER_PROCESS = 8
"""Blocks on their way to a process, or back: while it writes a row group, the others go on."""

_MOST_BYTES_ON_THEIR_WAY = 12 << 20
_MOST_ORDERS = 100
"""Orders in a message, which a socket that can take any takes whole."""

_END_SECONDS = 5.0


@dataclass(slots=True)
class Flight:
    """A block that is being converted.

    Attributes:
        block: Its number.
        process: The number of its process.
        slot: Where it lies.
        size_bytes: Its size.
        now: When it was received, in seconds since 1970.
    """

    block: int
    process: int
    slot: int
    size_bytes: int
    now: float


class Process:
    """One process.

    Args:
        setup: What it is to know.
        memory: The memory that is shared with it.
        start: Starts it.

    Attributes:
        is_ready: Whether it said that it can begin.
        flying: How many blocks it was given and has not answered.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, setup: Setup, memory: Memory, start: Start = start) -> None:
        self._connection, self._child = start(memory)
        self._answers: deque[Any] = deque()
        self._posted: list[Any] = []
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN | select.POLLOUT)
        self.is_ready = False
        self.flying = 0
        self.send(setup)

    def post(self, order: Any) -> None:  # of converter_orders
        """Give an order that can wait for the next one that is sent."""
        self._posted.append(order)

    def send(self, order: Any) -> None:  # of converter_orders
        """Give an order, and those that wait.

        Raises:
            TargetCelonisError: The process has ended.
        """
        orders, self._posted = [*self._posted, order], []
        try:
            for first in range(0, len(orders), _MOST_ORDERS):
                # A process that sends does not read: were its answers not taken, each would wait
                # for the other.
                while not self._poll.poll()[0][1] & ~select.POLLIN:
                    self._answers.append(self._receive())
                self._connection.send(orders[first : first + _MOST_ORDERS])
        except OSError:
            raise self._ended() from None

    def has_answer(self) -> bool:
        """Return whether an answer is there."""
        try:
            return bool(self._answers) or self._connection.poll()
        except OSError:
            raise self._ended() from None

    def answer(self) -> Any:  # of converter_orders
        """Wait for the next answer.

        Raises:
            TargetCelonisError: The process has ended.
        """
        return self._answers.popleft() if self._answers else self._receive()

    def _receive(self) -> Any:  # of converter_orders
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def _ended(self) -> TargetCelonisError:
        """Return why it ended: what it said last, or that it ended early."""
        last = None
        with suppress(EOFError, OSError):
            while not isinstance(last, Failed):
                last = self._connection.recv()
        if isinstance(last, Failed):
            return last.error
        how, code = "ended", self._child.wait(_END_SECONDS)
        if code is not None:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return LimitError(
            "TC-LIMIT-09",
            f"A process that converts records {how}, and what it held is lost.",
            "If memory ran out, give it more; or set `converter_processes` to 0. Run again with "
            "the last state.",
        )

    def end(self) -> None:
        """End it; it has nothing that is still wanted."""
        self._connection.close()
        self._child.end()


class Converters:
    """The processes.

    Args:
        share: How many, and what they are to know.
        run_directory: Where their chunks go; takes account of them.
        start: Starts one.

    Attributes:
        is_running: Whether they can be given blocks.
    """

    def __init__(
        self,
        share: WorkShare,
        run_directory: RunDirectory,
        start: Start = start,
    ) -> None:
        self._start = start
        self.is_running = False
        self._share = share
        self._run_directory = run_directory
        self._processes: list[Process] = []
        self._memory: mmap.mmap | None = None
        self._free: list[int] = []  # the last one freed is used next, and the rest never touched
        self._bytes_on_their_way = 0
        self._blocks = 0
        self._converted: dict[int, Converted] = {}
        self._holders: dict[str, set[int]] = {}

    @property
    def count(self) -> int:
        """How many processes there are, or may yet be."""
        return self._share.processes

    @property
    def can_start(self) -> bool:
        """Whether there are to be processes that were not started yet."""
        return self._share.processes > 0 and not self._processes

    def start(self) -> None:
        """Start the processes; they are running once ``look`` saw that they are ready."""
        share = self._share
        slots = _SLOTS_PER_PROCESS * share.processes
        try:
            memory_fd = _memory_file()
            try:
                memory = Memory(memory_fd, slots * SLOT_BYTES)
                os.ftruncate(memory_fd, memory.size_bytes)
                self._memory = mmap.mmap(memory_fd, memory.size_bytes)
                for number in range(share.processes):
                    directory = self._run_directory.path / f"converter-{number}"
                    setup = Setup(number, directory, share)
                    self._processes.append(Process(setup, memory, self._start))
            finally:
                os.close(memory_fd)
            self._free.extend(range(slots))
        except (OSError, ValueError, LimitError) as error:
            self._do_without(error)

    @property
    def are_wanted_at_once(self) -> bool:
        """Whether they are wanted from the first block on."""
        return self._share.at_once

    def look(self) -> None:
        """See whether all processes are ready; wait for them where they are wanted at once."""
        try:
            for process in self._processes:
                if not process.is_ready and (self.are_wanted_at_once or process.has_answer()):
                    process.is_ready = isinstance(process.answer(), Ready)
        except LimitError as error:
            self._do_without(error)
            return
        self.is_running = bool(self._processes) and all(p.is_ready for p in self._processes)

    def _do_without(self, error: Exception) -> None:
        """Go on alone: nothing was given away yet."""
        reason = getattr(error, "strerror", None) or type(error).__name__
        logger.info("Records are converted by one process: others cannot be started (%s).", reason)
        self.close()
        self._share = replace(self._share, processes=0, at_once=False)

    # --- blocks

    def set_streams(self, intakes: Iterable[Intake]) -> None:
        """Have records converted so from now on.

        No block may be under way: a process that is sending does not read, and neither would this
        one.
        """
        order = SetStreams(tuple(intakes))
        for process in self._processes:
            process.send(order)

    @property
    def has_room(self) -> bool:
        """Whether another block can be given away."""
        return bool(self._free) and self._bytes_on_their_way < _MOST_BYTES_ON_THEIR_WAY

    def convert(self, data: bytes | memoryview, now: float) -> Flight:
        """Give a block away."""
        slot = self._free.pop()
        self._bytes_on_their_way += len(data)
        if self._memory is None:
            raise AssertionError("not running")
        start = slot * SLOT_BYTES
        self._memory[start : start + len(data)] = data
        return self.convert_again(Flight(0, 0, slot, len(data), now))

    def convert_again(self, flight: Flight) -> Flight:
        """Give a block away that lies in its slot already."""
        self._blocks += 1
        flying = [process.flying for process in self._processes]
        number = flying.index(min(flying))
        start = flight.slot * SLOT_BYTES
        process = self._processes[number]
        process.send(Convert(self._blocks, start, start + flight.size_bytes, flight.now))
        process.flying += 1
        return Flight(self._blocks, number, flight.slot, flight.size_bytes, flight.now)

    def data(self, flight: Flight) -> bytes:
        """Return the bytes of a block."""
        if self._memory is None:
            raise AssertionError("not running")
        start = flight.slot * SLOT_BYTES
        return self._memory[start : start + flight.size_bytes]

    def is_done(self, flight: Flight) -> bool:
        """Return whether a block is converted."""
        process = self._processes[flight.process]
        while flight.block not in self._converted and process.has_answer():
            self._take_answer(process)
        return flight.block in self._converted

    def converted(self, flight: Flight) -> Converted:
        """Wait for a block."""
        while flight.block not in self._converted:
            self._take_answer(self._processes[flight.process])
        return self._converted.pop(flight.block)

    def forget(self, flight: Flight, *, frees_slot: bool = True) -> None:
        """Have no more to do with a block, the answer to which was had."""
        self._processes[flight.process].post(Forget(flight.block))
        if frees_slot:
            self._free.append(flight.slot)
            self._bytes_on_their_way -= flight.size_bytes

    def _take_answer(self, process: Process) -> Finished | None:
        """Take the next answer of a process; return it if it is not that to a block."""
        answer = process.answer()
        self._run_directory.wrote(answer.written.size_bytes)
        for chunk in answer.written.closed:
            self._run_directory.closed(chunk)
        if isinstance(answer, Converted):
            process.flying -= 1
            self._converted[answer.block] = answer
            return None
        return answer  # type: ignore[no-any-return]  # the one other answer

    # --- rows

    def keep(self, rows: Rows, order: int) -> None:
        """Have rows of a converted block written.

        Args:
            rows: The rows.
            order: Tells which rows came later, among all that are kept of their stream.
        """
        if rows.ticket is None:
            return
        number, block, place = rows.ticket
        self._processes[number].post(Keep(block, place, rows.stream, order))
        self._holders.setdefault(rows.stream, set()).add(number)

    def finish(self, stream: str) -> list[Chunk]:
        """Return the chunks of all rows of a stream that were kept."""
        holders = sorted(self._holders.pop(stream, ()))
        for number in holders:
            self._processes[number].send(Finish(stream))
        chunks: list[Chunk] = []
        for number in holders:
            finished = None
            while finished is None:
                finished = self._take_answer(self._processes[number])
            chunks += finished.chunks
        return chunks

    def abandon(self, stream: str) -> None:
        """Remove all rows of a stream that were kept."""
        for number in self._holders.pop(stream, ()):
            self._processes[number].send(Abandon(stream))

    def close(self) -> None:
        """End the processes."""
        self.is_running = False
        for process in self._processes:
            process.end()
        self._processes = []
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def _memory_file() -> int:
    """Return a file for memory that is shared."""
    if os.name != "posix":
        raise OSError(0, "not on this system")
    if hasattr(os, "memfd_create"):
        return os.memfd_create("target-celonis")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
