"""Blocks of lines become converted rows and messages: the fast way to read the input.

Hides that most lines are decoded many at a time by the structs of their streams, and the rest one
by one with care. Guarantees: what comes out is what the careful path alone would make of the same
lines, in the same order, with the same notes and the same error, which is that of the first line
that has one; no line is taken twice or left out. Must not know: files, pushes, other processes.

A block is read in *segments*. In a segment, the rows of a stream come at once, in the place of the
first of them, states in theirs, and then the message that ended it: one that may change what
follows. A state that says that the tap reads another stream is such a message; others are not, so
that states every few records cost little.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from target_celonis.batch import Notes, convert, marks_of
from target_celonis.decoders import UNDECODED, RestartError, Streams
from target_celonis.errors import TargetCelonisError
from target_celonis.messages import (
    OtherMessage,
    RecordLine,
    RecordRun,
    SchemaMessage,
    StateMessage,
    watch_time,
)
from target_celonis.metadata import with_metadata_values
from target_celonis.typed import Intake, RefusedError, TypedStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target_celonis.message_parser import MessageParser


@dataclass(slots=True)
class Rows:
    """Records of one stream and version, converted.

    Attributes:
        stream: The stream's name.
        version: The ``version`` of their messages, if they carry one.
        count: How many records.
        first_sequence: Sequence number of the first of them.
        last_sequence: Of the last.
        notes: Rules that were applied.
        extracted: As of ``RecordRun``.
        batches: Record batches, each with the rows to delete if there are any.
        ticket: Where another process has the batches: its number, the block's and the place in it.
        columns: How many columns they have.
    """

    stream: str
    version: int | None
    count: int
    first_sequence: int
    last_sequence: int
    notes: Notes
    extracted: dict[bytes, bytes] = field(default_factory=dict)
    batches: list[tuple[Any, Any | None]] = field(default_factory=list)
    ticket: tuple[int, int, int] | None = None
    columns: int = 0


class BlockConverter:
    """Converts blocks.

    Args:
        parser: Reads lines with care.
        is_fast: Whether structs are used; without, all is done with care.

    Attributes:
        line: Number of the last line converted.
    """

    def __init__(self, parser: MessageParser, *, is_fast: bool = True) -> None:
        self.line = 0
        self._parser = parser
        self._streams = Streams(is_fast=is_fast)

    def set_stream(self, intake: Intake) -> bool:
        """Have records of a stream converted, from now on by what is told here.

        Returns:
            Whether that is anything new.
        """
        return self._streams.set(intake)

    def convert(
        self, block: bytes | memoryview, now: float, *, last: bool = False
    ) -> Iterator[Rows | RecordRun | OtherMessage]:
        """Convert a block of whole lines.

        Args:
            block: The lines.
            now: When they came, in seconds since 1970.
            last: Whether the end of the input may have cut the last of them.

        Yields:
            Rows of streams that were set, runs of records of others, and messages.

        Raises:
            InputError: A line is no Singer message, or a value cannot be loaded.
            ContractError: As of ``batch.convert``.
        """
        if isinstance(block, bytes) and block.find(b"\n", 0, len(block) - 1) < 0:
            lines = [block] if block else []  # one line, perhaps a very long one
        else:
            lines = BytesIO(block).readlines()  # faster than to split, which looks at each byte
        longest = max(map(len, lines), default=0)
        block_ = _Block(lines, self.line, now, last, longest)
        self._streams.syncing = None  # another process may have read the block before
        start = 0
        while start < len(lines):
            self._streams.segments += 1
            segment = self._segment(block_, start)
            failure = segment.failure
            if failure is not None:  # what comes before it counts, and nothing behind it
                sound = lines[: failure[0] - block_.before - 1]
                segment = self._segment(replace(block_, lines=sound, last=False), start)
            start = segment.end
            self.line = block_.before + start
            yield from segment.items
            if failure is not None:
                raise failure[1]

    def _segment(self, block: _Block, start: int) -> _Segment:
        """Read a segment, once more each time that a struct had to change."""
        while True:
            segment = _Segment(self._streams, self._parser, block, start)
            try:
                segment.decode()
            except RestartError:
                continue
            segment.convert()
            return segment


@dataclass(frozen=True, slots=True)
class _Block:
    """The lines of a block.

    Attributes:
        lines: The lines.
        before: Number of the line before them.
        now: See ``BlockConverter.convert``.
        last: See there.
        longest_bytes: Length of the longest line.
    """

    lines: list[bytes]
    before: int
    now: float
    last: bool
    longest_bytes: int


class _Segment:
    """Lines of a block up to a message that may change what follows.

    Args:
        streams: The streams.
        parser: Reads lines with care.
        block: The block.
        start: Index of the first of the lines.

    Attributes:
        end: Index of the first line behind it.
        items: What its lines say, if none has a fault.
        failure: The first line that has a fault, and the fault.
    """

    def __init__(self, streams: Streams, parser: MessageParser, block: _Block, start: int) -> None:
        self.end = len(block.lines)
        self.items: list[Rows | RecordRun | OtherMessage] = []
        self.failure: tuple[int, TargetCelonisError] | None = None
        self._streams = streams
        self._parser = parser
        self._lines = block.lines
        self._start = start
        self._before = block.before
        self._now = block.now
        self._last = block.last
        self._longest_bytes = block.longest_bytes
        self._decoded: list[Any] = []  # a struct for each line, None where the line was refused
        self._careful: dict[str, list[RecordLine]] = {}
        self._runs: list[RecordRun] = []
        self._newest: dict[str, RecordRun] = {}
        self._states: list[StateMessage] = []
        self._boundary: RecordRun | OtherMessage | None = None

    # --- lines

    def decode(self) -> None:
        """Decode the lines, to the end of the segment."""
        rest = islice(self._lines, self._start, None)
        decoded = self._decoded
        goes_on = True
        while goes_on and len(decoded) < len(self._lines) - self._start:
            refusal = ""
            if decode := self._streams.decode:
                try:
                    decoded.extend(map(decode, rest))
                except UNDECODED as error:
                    refusal = str(error)
                else:
                    break
            else:
                next(rest)
            goes_on = self._take_refused(self._lines[self._start + len(decoded)], refusal)

    def _take_refused(self, line: bytes, refusal: str) -> bool:
        """Take a line that the decoder refused; return whether the segment goes on behind it."""
        place = self._start + len(self._decoded)
        again = self._streams.decode_again(line, refusal) if line else None
        self._decoded.append(again)
        if again is not None:
            return True
        try:
            message = self._parse(place)
        except TargetCelonisError as error:
            self.failure = self._before + place + 1, error
            return False
        if message is None:
            return True
        if isinstance(message, RecordLine):
            run = self._take_record(message)
            if run is None:
                return True
            self._boundary = run
        elif isinstance(message, StateMessage) and not self._begins_another(message):
            self._states.append(message)
            return True
        else:
            self._boundary = message
            if isinstance(message, SchemaMessage):
                self._streams.announced.add(message.stream)
        self.end = place + 1
        return False

    def _begins_another(self, state: StateMessage) -> bool:
        """Return whether a state says that the tap reads another stream than before."""
        if not state.names_syncing or self._streams.syncing == (state.currently_syncing,):
            return False
        self._streams.syncing = (state.currently_syncing,)
        return True

    def _parse(self, place: int) -> RecordLine | OtherMessage | None:
        return self._parser.parse_line(
            self._lines[place],
            self._before + place + 1,
            last=self._last and place + 1 == len(self._lines),
        )

    def _take_record(self, record: RecordLine) -> RecordRun | None:
        """Take a record; return it if its stream is unknown, which may end the run."""
        if record.stream in self._streams.intakes:
            self._careful.setdefault(record.stream, []).append(record)
            return None
        run = self._newest.get(record.stream)
        is_known = record.stream in self._streams.announced
        if run is None or run.version != record.version or not is_known:
            run = RecordRun(record.stream, record.version)
            if is_known:
                self._newest[record.stream] = run
                self._runs.append(run)
        run.add(record)
        return None if is_known else run

    # --- what they become

    def convert(self) -> None:
        """Find what the lines say, or the first fault."""
        found: list[Rows | RecordRun | StateMessage] = [*self._runs, *self._states]
        for group in self._groups():
            found += group
        self.items = [*sorted(found, key=_first_line)]
        if self._boundary is not None:
            self.items.append(self._boundary)

    def _groups(self) -> Iterator[list[Rows]]:
        """Yield the rows of each stream."""
        streams = self._streams
        messages: dict[type, list[Any]] = {kind: [] for kind in streams.by_type}
        if len(messages) == 1 and not self._careful and None not in self._decoded:
            (kind,) = messages
            messages[kind] = self._decoded
        else:
            taking = {kind: found.append for kind, found in messages.items()}
            for message in self._decoded:
                if message is not None:
                    taking[message.__class__](message)
        for kind, found in messages.items():
            typed = streams.by_type[kind]
            careful = self._careful.pop(typed.intake.stream, [])
            if found:
                streams.active[typed.intake.stream] = streams.segments
                yield self._rows(typed, found, careful)
            elif careful:
                yield self._careful_rows(typed.intake, careful)
        for stream, careful in self._careful.items():
            yield self._careful_rows(streams.intakes[stream], careful)

    def _rows(
        self, typed: TypedStream, messages: list[Any], careful: list[RecordLine]
    ) -> list[Rows]:
        """Convert the records of one stream, some of which may have been read with care."""
        version = messages[0].version
        one_version = not typed.is_versioned or all(m.version == version for m in messages)
        if one_version and all(line.version == version for line in careful):
            notes = Notes()
            try:
                batches = typed.convert(
                    messages, notes, version, self._now, longest_bytes=self._longest_bytes
                )
            except RefusedError:
                return self._careful_rows(typed.intake, self._all_with_care(messages, careful))
            rows = Rows(typed.intake.stream, version, len(messages), 0, 0, notes, {}, batches)
            rows.columns = len(typed.intake.plan.columns)
            rows.first_sequence, rows.last_sequence = self._ends(messages)
            if typed.intake.watches_time:
                for text in {bytes(message.time_extracted) for message in messages}:
                    if text:
                        watch_time(text, rows.extracted)
            if not careful:
                return [rows]
            found = self._careful_rows(typed.intake, careful)
            if self.failure is not None:
                return []
            return [_joined(rows, self._places(messages), found, careful)]
        return self._careful_rows(typed.intake, self._all_with_care(messages, careful))

    def _places(self, messages: list[Any]) -> list[int]:
        """Return the line of each message of one struct type."""
        kind = messages[0].__class__
        first = self._before + self._start + 1
        return [
            place for place, message in enumerate(self._decoded, first) if message.__class__ is kind
        ]

    def _ends(self, messages: list[Any]) -> tuple[int, int]:
        """Return the lines of the first and the last message of one struct type."""
        kind = messages[0].__class__
        count = len(self._decoded)
        first = next(i for i in range(count) if self._decoded[i].__class__ is kind)
        last = next(i for i in range(count - 1, -1, -1) if self._decoded[i].__class__ is kind)
        before = self._before + self._start + 1
        return before + first, before + last

    def _all_with_care(self, messages: list[Any], careful: list[RecordLine]) -> list[RecordLine]:
        """Read again, with care, what was decoded."""
        again = [self._parse(line - self._before - 1) for line in self._places(messages)]
        lines = [line for line in again if isinstance(line, RecordLine)]
        return sorted((*lines, *careful), key=lambda line: line.line)

    def _careful_rows(self, intake: Intake, lines: list[RecordLine]) -> list[Rows]:
        """Convert records of one stream that were read with care."""
        runs: list[RecordRun] = []
        for line in lines:
            if not runs or runs[-1].version != line.version:
                runs.append(RecordRun(line.stream, line.version))
            runs[-1].add(line)
        return [self._converted(intake, run) for run in runs]

    def _converted(self, intake: Intake, run: RecordRun) -> Rows:
        """Convert a run; a fault is kept, if no earlier line has one."""
        rows = Rows(
            run.stream,
            run.version,
            len(run.records),
            run.first_sequence,
            run.last_sequence,
            Notes(),
            run.extracted,
        )
        if intake.adds_metadata:
            run = with_metadata_values(run, self._now, intake.started_at)
        try:
            rows.batches = self._batches(intake, run, rows.notes)
        except TargetCelonisError as error:
            line, error = self._first_fault(intake, run, error)
            if self.failure is None or line < self.failure[0]:
                self.failure = line, error
        return rows

    def _batches(
        self, intake: Intake, run: RecordRun, notes: Notes
    ) -> list[tuple[Any, Any | None]]:
        return list(
            convert(
                run,
                intake.plan,
                notes,
                deletes=intake.deletes,
                refuse_long=intake.refuse_long,
            )
        )

    def _first_fault(
        self, intake: Intake, run: RecordRun, error: TargetCelonisError
    ) -> tuple[int, TargetCelonisError]:
        """Return the fault of the first record that has one: columns are read one by one."""
        for line, record in zip(run.lines, run.records, strict=True):
            try:
                self._batches(intake, RecordRun(run.stream, run.version, [record], [line]), Notes())
            except TargetCelonisError as first:
                return line, first
        return run.lines[0], error


def _first_line(item: Rows | RecordRun | StateMessage) -> int:
    return item.line if isinstance(item, StateMessage) else item.first_sequence


def _joined(rows: Rows, places: list[int], found: list[Rows], careful: list[RecordLine]) -> Rows:
    """Bring rows that were read in two ways into the order of their lines."""
    batches = [*rows.batches, *(each for more in found for each in more.batches)]
    order = pc.sort_indices(pa.array([*places, *(line.line for line in careful)]))
    table = pa.Table.from_batches([batch for batch, _ in batches])
    deleted = None
    if any(marks is not None for _, marks in batches):
        deleted = pa.concat_arrays([marks_of(*each) for each in batches]).take(order)
    rows.notes.counts.update(found[0].notes.counts)
    for text in found[0].extracted.values():
        watch_time(text, rows.extracted)
    (batch,) = table.take(order).combine_chunks().to_batches()
    rows.batches = [(batch, deleted)]
    rows.count += found[0].count
    rows.first_sequence = min(rows.first_sequence, found[0].first_sequence)
    rows.last_sequence = max(rows.last_sequence, found[0].last_sequence)
    return rows
