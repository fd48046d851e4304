"""From messages to loaded tables: what is held, when it is pushed, and which state may go out.

Hides streams that change their schema, checkpoints, the proof that an overwritten stream was read
to its end, and the order of all effects. Guarantees: a state is handed out only when every record
read before it is in a job that Celonis reported DONE; a table is replaced at most once a run and
only by a stream whose end is proven; whatever fails, what was not proven is not executed; every
record is counted once. Must not know: bytes on stdin, HTTP, the Singer SDK.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from target_celonis.batch import HARMLESS_RULES, RULES, SLICE_ROWS, Notes, convert
from target_celonis.celonis import JobType
from target_celonis.checkpoint import StateLedger
from target_celonis.config import Config, LoadMethod, StreamSettings
from target_celonis.errors import ContractError, InputError
from target_celonis.push import PushTask, Receipt
from target_celonis.report import StreamReport, check_sums
from target_celonis.spool import Chunk, ChunkWriter, RunDirectory
from target_celonis.table import TablePlan, plan_table, widen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from target_celonis.clock import Clock
    from target_celonis.messages import (
        ActivateVersionMessage,
        RecordRun,
        SchemaMessage,
        StateMessage,
    )
    from target_celonis.pusher import Pusher

logger = logging.getLogger("target-celonis")

_PROGRESS_SECONDS = 60.0
_BUFFER_SHARE = 4
"""A quarter of the memory limit is for row groups in the making; the rest is for the line being
read, sorting keys, and the libraries themselves."""


_WAITING_BYTES = 256 << 10
_WAITING_BYTES_PER_RECORD = 200
"""What a record takes in memory beside its text."""

_OPEN_FILES = 64
"""Chunk files that are open at a time; the one written to the longest ago is closed first."""


@dataclass
class _Stream:
    """One stream over the whole run.

    Attributes:
        settings: What the configuration says of it.
        source: The tap's name of it.
        plan: Its table, as wide as all schemas so far.
        report: Its counts.
        waiting: Records that are not converted yet, so that few at a time cost no more than many.
        waiting_bytes: Their size.
        writer: Takes converted records; None until the first of a checkpoint.
        chunks: Chunks of this checkpoint written under earlier plans.
        rows: Records of this checkpoint.
        last_line: Line of its last record.
        ended_line: Line of the last message that proved its end.
        version: Version of its last record.
        first_line: Line of its first record in this checkpoint.
    """

    settings: StreamSettings
    source: str
    plan: TablePlan
    report: StreamReport
    waiting: RecordRun | None = None
    waiting_bytes: int = 0
    writer: ChunkWriter | None = None
    chunks: list[Chunk] = field(default_factory=list)
    rows: int = 0
    last_line: int = 0
    ended_line: int = 0
    version: int | None = None
    first_line: int = 0
    notes: Notes = field(default_factory=Notes)

    @property
    def held_bytes(self) -> int:
        """Memory that its records take."""
        return self.waiting_bytes + (self.writer.held_bytes if self.writer else 0)

    @property
    def overwrites(self) -> bool:
        """Whether the stream replaces its table."""
        return self.settings.load_method is LoadMethod.OVERWRITE

    @property
    def end_is_proven(self) -> bool:
        """Whether something after the last record says that there are no more."""
        return self.ended_line > self.last_line


class Loader:
    """Takes messages, gives states.

    Args:
        config: Settings.
        run_directory: Where chunks wait.
        pusher: Pushes finished checkpoints.
        clock: Says when a checkpoint is due.
        release: Called with each state that is safe, as its JSON text.
    """

    def __init__(
        self,
        config: Config,
        run_directory: RunDirectory,
        pusher: Pusher,
        clock: Clock,
        release: Callable[[bytes], None],
    ) -> None:
        self._config = config
        self._run_directory = run_directory
        self._pusher = pusher
        self._clock = clock
        self._release = release
        self._streams: dict[str, _Stream] = {}
        self._tables: dict[str, str] = {}
        self._ledger = StateLedger()
        self._held_bytes = 0
        self._open_writers: dict[int, ChunkWriter] = {}
        self._buffer_bytes = config.memory_limit_bytes // _BUFFER_SHARE
        self._checkpoint_at = clock.monotonic()
        self._progress_at = clock.monotonic()
        self._read_rows = 0
        self._said: set[str] = set()
        self._failed = False

    # --- messages

    def schema(self, message: SchemaMessage) -> None:
        """Take a SCHEMA: a new stream, or a change of one.

        Raises:
            InputError: It has no properties.
            ContractError: It cannot become a table, or only one that another stream has.
        """
        settings = self._config.for_stream(message.stream)
        keys = settings.key_properties
        if keys is None:
            keys = message.key_properties
        if settings.load_method is LoadMethod.APPEND_ONLY:
            keys = ()
        plan = plan_table(message.stream, settings.table, message.schema, keys)
        known = self._streams.get(message.stream)
        if known is not None:
            if known.source != message.source:
                raise _shared_table(known.source, message.source, plan.table)
            self._change_plan(known, plan)
            return
        self._claim_table(message.stream, plan.table)
        if settings.load_method is LoadMethod.UPSERT and not keys:
            self._say_once(
                f"Stream `{message.stream}` has no key properties: its records are appended."
            )
        if plan.renamed:
            pairs = ", ".join(f"{old!r} -> {new!r}" for old, new in plan.renamed.items())
            logger.info("Stream %s: columns get other names: %s.", message.stream, pairs)
        if plan.table != settings.table:
            logger.info("Stream %s: its table is named %s.", message.stream, plan.table)
        report = StreamReport(message.stream, plan.table)
        self._streams[message.stream] = _Stream(settings, message.source, plan, report)

    def _claim_table(self, stream: str, table: str) -> None:
        other = self._tables.setdefault(table.casefold(), stream)
        if other != stream:
            raise _shared_table(other, stream, table)

    def _change_plan(self, stream: _Stream, plan: TablePlan) -> None:
        """Go on with a changed schema; rows that are held keep theirs until they are pushed."""
        wider = widen(stream.plan, plan)
        if wider == stream.plan:
            return
        logger.info("Stream %s: its schema changed; the table is widened.", plan.stream)
        if [key.name for key in wider.keys] != [key.name for key in stream.plan.keys]:
            if stream.overwrites:
                self._close_writer(stream)
            elif stream.rows:
                self._push([stream])  # one key for all rows of a job
        self._close_writer(stream)
        stream.plan = wider

    def records(self, run: RecordRun) -> None:
        """Take records.

        Raises:
            InputError: Their SCHEMA is missing, or a value cannot be loaded.
            LimitError: The disk is full.
        """
        stream = self._streams.get(run.stream)
        if stream is None:
            raise InputError(
                "TC-INPUT-05",
                f"Line {run.lines[0]} is a RECORD of stream `{run.stream}`, whose SCHEMA did not "
                "come before.",
            )
        stream.report.read += run.filtered
        stream.report.filtered += run.filtered
        if not run.records:
            return
        if not stream.rows:
            stream.first_line = run.lines[0]
            self._ledger.pend(run.stream, run.lines[0])
        count = len(run.records)
        stream.report.read += count
        stream.rows += count
        self._read_rows += count
        stream.last_line, stream.version = run.lines[-1], run.version
        before = stream.held_bytes
        stream.waiting_bytes += sum(map(len, run.records)) + _WAITING_BYTES_PER_RECORD * count
        if stream.waiting is None:
            stream.waiting = run
        else:
            stream.waiting.extend(run)
        waiting = len(stream.waiting.records)
        if waiting >= SLICE_ROWS or stream.waiting_bytes >= _WAITING_BYTES:
            self._convert(stream)
        self._held_bytes += stream.held_bytes - before
        while self._held_bytes > self._buffer_bytes:
            self._flush_largest()

    def _convert(self, stream: _Stream) -> None:
        """Convert the records that wait."""
        run, stream.waiting, stream.waiting_bytes = stream.waiting, None, 0
        if run is None:
            return
        writer = stream.writer or self._open_writer(stream)
        for batch in convert(run, stream.plan, stream.notes):
            writer.add(batch)
        if writer.has_open_file:
            self._open_writers.pop(id(writer), None)
            self._open_writers[id(writer)] = writer
            if len(self._open_writers) > _OPEN_FILES:
                oldest = next(iter(self._open_writers))
                self._open_writers.pop(oldest).close_chunk()

    def _open_writer(self, stream: _Stream) -> ChunkWriter:
        stream.writer = ChunkWriter(
            self._run_directory.table_directory(stream.plan.table),
            stream.plan,
            self._config.chunk_size_bytes,
            self._config.timestamp_encoding,
        )
        return stream.writer

    def _flush_largest(self) -> None:
        """Write out the row group of the stream that takes the most memory."""
        largest = max(self._streams.values(), key=lambda stream: stream.held_bytes)
        self._held_bytes -= largest.held_bytes
        self._convert(largest)
        if largest.writer is not None:
            largest.writer.flush()

    def state(self, message: StateMessage) -> None:
        """Take a STATE."""
        if message.names_syncing:
            for stream in self._streams.values():
                if stream.source != message.currently_syncing:
                    stream.ended_line = message.line
        self._ledger.add_state(message.line, message.value)
        self._release_safe()

    def activate_version(self, message: ActivateVersionMessage) -> None:
        """Take an ACTIVATE_VERSION: for a stream that overwrites, a proof of its end."""
        for stream in self._streams.values():
            if stream.source != message.stream:
                continue
            if not stream.overwrites:
                self._say_once(
                    f"Stream `{stream.report.stream}`: ACTIVATE_VERSION has no effect under the "
                    f"load method {stream.settings.load_method}."
                )
            elif stream.version == message.version:
                stream.ended_line = message.line

    # --- time

    def tick(self) -> None:
        """Do what time or finished pushes make due; called often.

        Raises:
            TargetCelonisError: A push failed.
        """
        self._take_receipts()
        now = self._clock.monotonic()
        interval = self._config.checkpoint_interval_seconds
        if interval and now - self._checkpoint_at >= interval and not self._pusher.busy:
            self._checkpoint_at = now
            self._push([s for s in self._streams.values() if s.rows and not s.overwrites])
            self._say_who_holds_back()
        self._say_progress()

    def _say_progress(self) -> None:
        now = self._clock.monotonic()
        if now - self._progress_at >= _PROGRESS_SECONDS:
            self._progress_at = now
            loaded = sum(stream.report.loaded for stream in self._streams.values())
            logger.info("%d records read, %d rows loaded so far.", self._read_rows, loaded)

    def _say_who_holds_back(self) -> None:
        holder = self._ledger.first_pending()
        stream = self._streams.get(holder) if isinstance(holder, str) else None
        if stream is not None and stream.overwrites and self._ledger.holds_back():
            self._say_once(
                f"Stream `{holder}` overwrites its table at the end of the run; states wait for it."
            )

    # --- pushes

    def _close_writer(self, stream: _Stream) -> None:
        self._held_bytes -= stream.held_bytes
        self._convert(stream)
        if stream.writer is not None:
            stream.chunks += stream.writer.finish()
            self._open_writers.pop(id(stream.writer), None)
            stream.writer = None

    def _push(self, streams: Sequence[_Stream]) -> None:
        """Hand the rows that streams hold to the pusher."""
        tasks = []
        for stream in streams:
            self._close_writer(stream)
            task = PushTask(
                plan=stream.plan,
                type=JobType.REPLACE if stream.overwrites else JobType.DELTA,
                chunks=tuple(stream.chunks),
                directory=self._run_directory.table_directory(f"{stream.plan.table}-merged"),
                rows=stream.rows,
            )
            # From here on the task stands for the rows, so that the stream can gather new ones.
            self._ledger.pend(task, stream.first_line)
            self._ledger.settle(stream.report.stream)
            stream.chunks, stream.rows = [], 0
            tasks.append(task)
        if tasks:
            self._pusher.start(tasks)

    def _take_receipts(self) -> None:
        for receipt in self._pusher.receipts():
            self._count(receipt)
        self._release_safe()
        self._pusher.raise_failure()

    def _count(self, receipt: Receipt) -> None:
        task = receipt.task
        report = self._streams[task.plan.stream].report
        report.loaded += receipt.loaded_rows
        report.merged += receipt.superseded_rows
        report.jobs += 1
        report.chunks += receipt.chunks
        report.uploaded_bytes += receipt.uploaded_bytes
        report.length_unverified |= not receipt.length_verified
        self._ledger.settle(task)

    def _release_safe(self) -> None:
        state = self._ledger.take_safe()
        if state is not None:
            self._release(state)

    # --- the end

    def finish(self) -> None:
        """Push all that is held and wait for it; the input has ended.

        Raises:
            InputError: A stream that overwrites has no proven end; all others were loaded.
            TargetCelonisError: A push failed.
        """
        unproven = []
        ready = []
        for stream in self._streams.values():
            if stream.overwrites and not stream.rows:
                logger.warning(
                    "Stream %s sent no records: table %s is left as it is, since zero rows never "
                    "replace a table.",
                    stream.report.stream,
                    stream.plan.table,
                )
            elif stream.overwrites and not (
                stream.end_is_proven or stream.settings.trust_end_of_input
            ):
                unproven.append(stream)
            elif stream.rows:
                ready.append(stream)
        self._push(ready)
        while self._pusher.busy:
            self._pusher.wait(1.0)
            self._take_receipts()
            self._say_progress()
        self._take_receipts()
        if unproven:
            raise _unproven(unproven)

    def settle_after_failure(self) -> None:
        """Let what was executed end, count it and release its states; the run has failed."""
        self._failed = True
        self._pusher.close()
        for receipt in self._pusher.receipts():
            self._count(receipt)
        self._release_safe()

    def reports(self) -> list[StreamReport]:
        """Return the counts of every stream, whatever is not loaded counted as such.

        Raises:
            InternalError: They do not add up.
        """
        reports = []
        for stream in self._streams.values():
            report = stream.report
            report.rules = stream.notes.counts
            if self._failed:
                report.not_loaded = report.read - report.loaded - report.merged - report.filtered
            reports.append(report)
        check_sums(reports)
        return reports

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            logger.info("%s", line)


def rules_applied(report: StreamReport) -> list[tuple[int, str]]:
    """Return a sentence for each rule for odd values that a stream's records met.

    Returns:
        Log level and sentence: a warning where something of a value is lost.
    """
    by_rule: dict[str, list[tuple[str, int]]] = {}
    for (name, rule), count in sorted(report.rules.items()):
        by_rule.setdefault(rule, []).append((name, count))
    lines = []
    for rule, found in by_rule.items():
        where = ", ".join(f"{name} ({count})" for name, count in found[:10])
        level = logging.INFO if rule in HARMLESS_RULES else logging.WARNING
        lines.append((level, f"Stream {report.stream}: {RULES[rule]} Columns: {where}."))
    return lines


def _shared_table(one: str, other: str, table: str) -> ContractError:
    return ContractError(
        "TC-CONTRACT-01",
        f"The streams `{one}` and `{other}` would both load into table `{table}`.",
        "Give one of them another `table` under `streams`, or another alias.",
    )


def _unproven(streams: Sequence[Any]) -> InputError:
    names = ", ".join(f"`{stream.report.stream}`" for stream in streams)
    return InputError(
        "TC-INPUT-10",
        f"Nothing proves that these streams were read to their end, so their tables are left as "
        f"they were: {names}.",
        "If the tap prints neither `currently_syncing` nor ACTIVATE_VERSION, set "
        "`trust_end_of_input` to true.",
    )
