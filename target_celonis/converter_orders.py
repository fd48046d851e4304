"""What the process that reads and those that convert say to each other.

Hides nothing. Must not know: how it is said.

What is said of each block is a tuple, which is packed and unpacked the quickest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from target_celonis.blocks import Rows
    from target_celonis.errors import TargetCelonisError
    from target_celonis.messages import StateMessage
    from target_celonis.spool import Chunk
    from target_celonis.typed import Intake


@dataclass(frozen=True, slots=True)
class WorkShare:
    """How the work is shared, as far as it is the same for each process.

    Attributes:
        processes: How many there are to be.
        at_once: Whether they are wanted from the first block on, not only once it pays.
        memory_bytes: What the rows of one may take in memory.
        chunk_limit_bytes: See ``ChunkWriter``.
        timestamp_encoding: See there.
        keeps_time: Whether records' ``time_extracted`` is a column.
        watches_time: Whether the newest of them is to be known.
    """

    processes: int
    at_once: bool
    memory_bytes: int
    chunk_limit_bytes: int
    timestamp_encoding: str
    keeps_time: bool = False
    watches_time: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process is to know from the start.

    Attributes:
        number: Its number.
        directory: Where its chunks go.
        share: What it has in common with the others.
    """

    number: int
    directory: Path
    share: WorkShare


class SetStreams(NamedTuple):
    """Have records of these streams converted so from now on."""

    intakes: tuple[Intake, ...]


class Convert(NamedTuple):
    """Convert a block.

    Attributes:
        block: Its number.
        start: Where it begins in the shared memory.
        end: Where it ends.
        now: When it was received, in seconds since 1970.
    """

    block: int
    start: int
    end: int
    now: float


class Keep(NamedTuple):
    """Write rows of a block that was converted.

    Attributes:
        block: Its number.
        place: Which of its rows.
        stream: Their stream.
        order: Tells which rows came later.
    """

    block: int
    place: int
    stream: str
    order: int


class Forget(NamedTuple):
    """Forget what was not kept of a block."""

    block: int


class Finish(NamedTuple):
    """Close the chunks of a stream and hand them over."""

    stream: str


class Abandon(NamedTuple):
    """Remove what is held of a stream."""

    stream: str


class Ready(NamedTuple):
    """The process can begin."""


class Written(NamedTuple):
    """What was written since the last time.

    Attributes:
        size_bytes: Bytes of chunks.
        closed: Chunks that are whole.
    """

    size_bytes: int = 0
    closed: tuple[Chunk, ...] = ()


class Converted(NamedTuple):
    """A block was converted, or is left to the other process.

    Attributes:
        block: Its number.
        items: What its lines say, numbered from 1; None if it is left to the other process.
        lines: How many lines it has.
        written: What was written since the last time.
    """

    block: int
    items: tuple[Rows | StateMessage, ...] | None
    lines: int
    written: Written


class Finished(NamedTuple):
    """The chunks of a stream.

    Attributes:
        chunks: In order.
        written: What was written since the last time.
    """

    chunks: tuple[Chunk, ...]
    written: Written


class Failed(NamedTuple):
    """Rows could not be written: the run is to end with this error."""

    error: TargetCelonisError
