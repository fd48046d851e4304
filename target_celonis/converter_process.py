"""A process that converts blocks and writes chunks, beside the one that reads the input.

Hides nothing of what it does from ``converters``, which alone speaks with it. Guarantees: a block
is converted wholly, or refused and left to the other process; rows are written only when they were
asked for; it ends when the other does, and prints nothing. Must not know: the configuration, keys,
the network, states.

What the two say to each other is in ``converter_orders``, and goes over a socket; the bytes of
blocks lie in memory that both share.
"""

from __future__ import annotations

import gc
import mmap
import signal
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from target_celonis.blocks import BlockConverter, Rows
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
    Written,
)
from target_celonis.errors import TargetCelonisError, unwritable
from target_celonis.holdings import Holdings
from target_celonis.message_parser import MessageParser
from target_celonis.messages import StateMessage
from target_celonis.table_writer import TableWriter

if TYPE_CHECKING:
    from pathlib import Path

    from target_celonis.spool import Chunk
    from target_celonis.typed import Intake

_COLLECT_AFTER = 100_000
"""Objects made before garbage is looked for: there is next to none, and a block has thousands."""


@dataclass
class _Account:
    """Keeps account of what is written, until it is told."""

    size_bytes: int = 0
    chunks: list[Chunk] = field(default_factory=list)

    def wrote(self, size_bytes: int) -> None:
        """Count what was written."""
        self.size_bytes += size_bytes

    def closed(self, chunk: Chunk) -> None:
        """Take note of a chunk that is whole."""
        self.chunks.append(chunk)

    def take(self) -> Written:
        """Return what there is, and begin anew."""
        written = Written(self.size_bytes, tuple(self.chunks))
        self.size_bytes, self.chunks = 0, []
        return written


class Worker:
    """Does what it is told.

    Args:
        setup: What it is to know from the start.
        memory: Where blocks lie.
    """

    def __init__(self, setup: Setup, memory: Any) -> None:  # an mmap, or bytes in tests
        self._setup = setup
        self._memory = memory
        parser = MessageParser(
            keep_time_extracted=setup.share.keeps_time,
            watch_time_extracted=setup.share.watches_time,
            begins_input=False,
        )
        self._converter = BlockConverter(parser)
        self._intakes: dict[str, Intake] = {}
        self._writers: dict[str, TableWriter] = {}
        self._holdings = Holdings(setup.share.memory_bytes)
        self._account = _Account()
        self._held: dict[int, list[list[tuple[Any, Any | None]]]] = {}
        self._directories = 0

    def take(self, order: Any) -> Converted | Finished | None:  # of converter_orders
        """Carry out an order; return the answer, if there is one.

        Raises:
            LimitError: The disk is full or gone.
        """
        if isinstance(order, Convert):
            return self._convert(order)
        if isinstance(order, Keep):
            self._keep(order)
        elif isinstance(order, Forget):
            self._held.pop(order.block, None)
        elif isinstance(order, Finish):
            writer = self._writers.pop(order.stream, None)
            chunks = self._holdings.changing(writer, writer.finish) if writer is not None else []
            return Finished(tuple(chunks), self._account.take())
        elif isinstance(order, Abandon):
            writer = self._writers.pop(order.stream, None)
            if writer is not None:
                self._holdings.changing(writer, writer.abandon)
        elif isinstance(order, SetStreams):
            for intake in order.intakes:
                self._intakes[intake.stream] = intake
                self._converter.set_stream(intake)
        return None

    def _convert(self, order: Convert) -> Converted:
        """Convert a block; one that holds more than rows and states is refused."""
        data = bytes(self._memory[order.start : order.end])
        self._converter.line = 0
        items: list[Rows | StateMessage] = []
        held: list[list[tuple[Any, Any | None]]] = []
        try:
            for item in self._converter.convert(data, order.now):
                if isinstance(item, Rows):
                    ticket = self._setup.number, order.block, len(held)
                    held.append(item.batches)
                    items.append(replace(item, batches=[], ticket=ticket))
                elif isinstance(item, StateMessage):
                    items.append(item)
                else:
                    return Converted(order.block, None, 0, self._account.take())
        except Exception:  # noqa: BLE001  # the other process meets it again, and reports it
            return Converted(order.block, None, 0, self._account.take())
        self._held[order.block] = held
        return Converted(order.block, tuple(items), self._converter.line, self._account.take())

    def _keep(self, order: Keep) -> None:
        writer = self._writers.get(order.stream)
        if writer is None:
            writer = self._writers[order.stream] = TableWriter(
                order.stream,
                self._intakes[order.stream].plan,
                self._fresh_directory,
                chunk_limit_bytes=self._setup.share.chunk_limit_bytes,
                timestamp_encoding=self._setup.share.timestamp_encoding,
                account=self._account,
            )
        batches, self._held[order.block][order.place] = self._held[order.block][order.place], []
        for batch, deleted in batches:
            add = partial(writer.add, batch, deleted, order.order)
            self._holdings.changing(writer, add)
        self._holdings.bound(self._writers.values())

    def _fresh_directory(self, table: str) -> Path:  # noqa: ARG002  # told apart by number alone
        self._directories += 1
        path = self._setup.directory / f"{self._directories:04d}"
        try:
            path.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise unwritable(path, error) from None
        return path


def serve(connection: Connection, memory: Any) -> None:  # an mmap
    """Carry out orders until the other process has no more, or has ended.

    Args:
        connection: Brings lists of orders, first one ``Setup``; takes answers.
        memory: Where blocks lie.
    """
    try:
        (setup,) = connection.recv()
        worker = Worker(setup, memory)
        connection.send(Ready())
        while True:
            for order in connection.recv():
                answer = worker.take(order)
                if answer is not None:
                    connection.send(answer)
    except TargetCelonisError as error:
        connection.send(Failed(error))
    except (EOFError, OSError):
        return


def run(socket_fd: int, memory_fd: int, memory_bytes: int) -> None:
    """Convert until the other process has no more, or has ended.

    Args:
        socket_fd: Leads to it.
        memory_fd: The file of the shared memory.
        memory_bytes: Its size.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the other process hears them, and ends this
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # nor is anything of the other process collected, if this is a copy of it
    gc.set_threshold(_COLLECT_AFTER)
    with Connection(socket_fd) as connection, mmap.mmap(memory_fd, memory_bytes) as memory:
        serve(connection, memory)


if __name__ == "__main__":
    run(*map(int, sys.argv[1:]))
