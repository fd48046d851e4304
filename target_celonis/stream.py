"""One stream over the whole run: the records that it holds until they are pushed.

Hides how records wait, are converted and become chunks; which schema they have by now; versions of
a table that the tap sends, and what proves that it was sent to its end. Guarantees: every record
taken is held, or was counted as superseded; few records at a time cost no more than many. Must not
know: other streams, states, when a push is due, jobs.

A *versioned* stream sends its table in full: its records carry a version, its SCHEMA has no
``bookmark_properties``, and ACTIVATE_VERSION says that a version is whole. Whether a stream is one
is decided at its first record.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from target_celonis.batch import SLICE_ROWS, Notes, convert
from target_celonis.celonis import JobType
from target_celonis.errors import ContractError, InputError, LimitError
from target_celonis.report import StreamReport
from target_celonis.route import PushTask, merge_task
from target_celonis.stream_rules import LoadMethod, StreamSettings
from target_celonis.table import TablePlan, changes_keys, widen
from target_celonis.table_writer import TableWriter
from target_celonis.typed import Intake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from target_celonis.blocks import Rows
    from target_celonis.config import Config
    from target_celonis.converters import Converters
    from target_celonis.messages import ActivateVersionMessage, RecordRun, SchemaMessage
    from target_celonis.run_directory import RunDirectory
    from target_celonis.spool import Chunk

logger = logging.getLogger("target-celonis")

_WAITING_BYTES = 256 << 10
_WAITING_BYTES_PER_RECORD = 200
"""What a record takes in memory beside its text."""
_OLDER = 1 << 62
"""More than there are lines: what sets rows of an older version before all others."""


class Stream:
    """One stream.

    Args:
        message: Its first SCHEMA.
        plan: Its table.
        settings: What the configuration says of it.
        config: All settings.
        run_directory: Where its chunks go.
        converters: Other processes that may hold rows of it; None where there are none.

    Attributes:
        source: The tap's name of it.
        settings: As given.
        plan: Its table, as wide as all schemas so far.
        report: Its counts.
        notes: Rules for odd values that were applied.
        rows: Records that it holds.
        first_sequence: Of the first record that it holds.
        last_sequence: Of its last record.
        versioned: Whether it sends its table in full; None before its first record.
        version: Version of the records that it holds.
        read_under: What ``currently_syncing`` was, as a tuple of one, when its last record came;
            None where no state had said.
        has_failed: Whether a push of it failed, so that it is not pushed again.
    """

    def __init__(
        self,
        message: SchemaMessage,
        plan: TablePlan,
        settings: StreamSettings,
        config: Config,
        run_directory: RunDirectory,
        *,
        converters: Converters | None = None,
    ) -> None:
        self.source = message.source
        self.settings = settings
        self.plan = plan
        self.report = StreamReport(message.stream, plan.table)
        self.notes = Notes()
        self.rows = 0
        self.first_sequence = 0
        self.last_sequence = 0
        self.versioned: bool | None = None
        self.version: int | None = None
        self.read_under: tuple[str | None] | None = None
        self.has_failed = False
        self._config = config
        self._run_directory = run_directory
        self._is_incremental = bool(message.bookmark_properties)
        self._waiting: RecordRun | None = None
        self._waiting_bytes = 0
        self._writer: TableWriter | None = None
        self._converters = converters
        self._is_held_elsewhere = False
        self._newest_holder: int | None = None
        self._newest_order = 0
        self._chunks: list[Chunk] = []
        self._older: list[Chunk] = []
        self._older_rows = 0
        self._ended_at = 0
        self._activated_at = 0
        _say_renamed(plan, {})

    # --- what it is

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.report.stream

    @property
    def overwrites(self) -> bool:
        """Whether the load method is to replace the table."""
        return self.settings.load_method is LoadMethod.OVERWRITE

    @property
    def waits_for_its_end(self) -> bool:
        """Whether it is pushed at the end of the run only, since it may replace its table."""
        return self.overwrites or bool(self.versioned)

    @property
    def replaces(self) -> bool:
        """Whether the records that it holds are to replace the table."""
        return self.overwrites or bool(self.versioned and self._activated_at > self.last_sequence)

    @property
    def end_is_proven(self) -> bool:
        """Whether something after the last record says that there are no more."""
        return self._ended_at > self.last_sequence

    @property
    def held_bytes(self) -> int:
        """Memory that its records take."""
        return self._waiting_bytes + (self._writer.held_bytes if self._writer else 0)

    @property
    def deletes(self) -> bool:
        """Whether records with ``_sdc_deleted_at`` delete rows."""
        appends = self.settings.load_method is LoadMethod.APPEND_ONLY
        return self._config.hard_delete and not appends

    @property
    def intake(self) -> Intake:
        """What is to be known of it to convert its records."""
        return Intake(self.name, self.plan, self.deletes, self.refuses_long)

    # --- what comes

    def take(self, run: RecordRun) -> None:
        """Take records.

        Raises:
            InputError: A value cannot be loaded.
            ContractError: A text is longer than any column, or a row to delete has no key.
            LimitError: The disk is full.
        """
        self._decide_on_versions(run.version)
        self._take(run, len(run.records), max(run.last_sequence, run.read_to), self._wait)

    def _decide_on_versions(self, version: int | None) -> None:
        """Decide, at the first record, whether the table is sent in full."""
        if self.versioned is None:
            self.versioned = (
                version is not None
                and not self._is_incremental
                and self._config.process_activate_version_messages
                and self.settings.load_method is not LoadMethod.APPEND_ONLY
            )

    def take_rows(self, rows: Rows) -> None:
        """Take records that are converted.

        Raises:
            LimitError: The disk is full.
        """
        self._decide_on_versions(rows.version)
        self._take(rows, rows.count, rows.last_sequence, self._keep)
        for (name, rule), times in rows.notes.counts.items():
            self.notes.add(name, rule, times)

    def _take(
        self,
        records: RecordRun | Rows,
        count: int,
        last_sequence: int,
        hold: Callable[[Any], None],
    ) -> None:
        """Take account of records, and hold them."""
        self.report.read += count
        if not self.rows:
            self.first_sequence = records.first_sequence
        version = records.version
        if self.versioned and self.version is not None and version not in (None, self.version):
            if version is not None and version < self.version:
                self._set_aside(records, count, hold)
                self.rows += count
                return
            self._begin_version()
        self.rows += count
        self.last_sequence = last_sequence
        if version is not None or not self.versioned:
            self.version = version
        hold(records)

    def _wait(self, run: RecordRun) -> None:
        """Hold records that are not converted, until there are some more."""
        if run.file is not None:  # its lines are not those of the input
            self.convert()
        self._waiting_bytes += sum(map(len, run.records))
        self._waiting_bytes += _WAITING_BYTES_PER_RECORD * len(run.records)
        if self._waiting is None:
            self._waiting = run
        else:
            self._waiting.extend(run)
        full = len(self._waiting.records) >= SLICE_ROWS or self._waiting_bytes >= _WAITING_BYTES
        if full or run.file is not None:
            self.convert()

    def _keep(self, rows: Rows) -> None:
        """Hold converted records."""
        self.convert()
        if rows.ticket is not None and self._converters is not None:
            self._converters.keep(rows, self._order(rows.ticket[0], rows.first_sequence))
            self._is_held_elsewhere = True
        for batch, deleted in rows.batches:
            self._write(batch, deleted, self._order(None, rows.first_sequence))

    def _order(self, holder: int | None, sequence: int) -> int:
        """Return what tells which rows came later: the same as long as one process holds them all.

        Args:
            holder: The process that is to hold rows; None for this one.
            sequence: Sequence number of the first of them.
        """
        if holder != self._newest_holder:
            self._newest_holder, self._newest_order = holder, sequence
        return self._newest_order

    def _begin_version(self) -> None:
        """Put the rows of an older version aside: they go only if a newer one is activated."""
        if not self._older:
            logger.info("Stream %s: a newer version of its table begins.", self.name)
        self.close_writer()
        self._put_aside(self._chunks)
        self._chunks = []
        self._older_rows = self.rows

    def _put_aside(self, chunks: Sequence[Chunk]) -> None:
        """Put chunks of an older version aside: their rows are older than those of the newest."""
        self._older += [
            replace(chunk, spans=tuple((order - _OLDER, rows) for order, rows in chunk.spans))
            for chunk in chunks
        ]

    def _set_aside(
        self, records: RecordRun | Rows, count: int, hold: Callable[[Any], None]
    ) -> None:
        """Put late records of an older version aside, before all those of the newest one."""
        self.close_writer()
        newest, self._chunks = self._chunks, []
        hold(records)
        self.close_writer()
        self._put_aside(self._chunks)
        self._older_rows += count
        self._chunks = newest

    def change(self, message: SchemaMessage, plan: TablePlan) -> bool:
        """Go on with a changed schema; rows that are held keep theirs until they are pushed.

        Returns:
            Whether the rows that are held must be pushed first, since their key is another.
        """
        if self.versioned is None:
            self._is_incremental = bool(message.bookmark_properties)
        wider = widen(self.plan, plan)
        if wider == self.plan:
            return False
        logger.info("Stream %s: its schema changed; the table is widened.", self.name)
        if not changes_keys(self.plan, wider):
            return False
        if self.overwrites:
            self._merge_by_key()
            return False
        if self.versioned:  # its rows would have one key or the other
            self.versioned = False
        return True

    def _merge_by_key(self) -> None:
        """Leave one row for each key, while it is the key."""
        self.close_writer()
        if not self.plan.keys or not self._chunks:
            return
        directory = self._run_directory.table_directory(f"{self.plan.table}-merged")
        chunks = tuple(self._chunks)
        task = PushTask(self.plan, JobType.REPLACE, chunks, directory, self.rows)
        merged = merge_task(task, self.plan, self._config, {})
        self.report.merged += merged.superseded_rows
        deleted = sum(chunk.rows for chunk in merged.deleted)
        self.report.deleted += deleted
        self.rows -= merged.superseded_rows + deleted
        self._chunks = list(merged.chunks)

    def adopt(self, plan: TablePlan) -> None:
        """Have records from now on converted for a table that holds those of ``plan``, too."""
        wider = widen(self.plan, plan)
        if wider != self.plan:
            self.close_writer()
            renamed, self.plan = self.plan.renamed, wider
            _say_renamed(wider, renamed)

    def has_ended(self, syncing: str | None, sources: set[str]) -> bool:
        """Return whether a state says that the tap reads another stream by now.

        Some taps name in ``currently_syncing`` an id that is not the stream's name. So a value that
        is no stream's name proves something only if it is not the one under which the last record
        came.

        Args:
            syncing: The value.
            sources: The tap's names of all streams.
        """
        if syncing is None or (syncing in sources and syncing != self.source):
            return True
        return syncing != self.source and self.read_under not in (None, (syncing,))

    def end(self, sequence: int) -> None:
        """Take note that another message says it has no more records."""
        self._ended_at = sequence

    def activate(self, message: ActivateVersionMessage) -> bool:
        """Take an ACTIVATE_VERSION; return whether it has an effect on such a stream."""
        if self.rows and message.version == self.version:
            self._ended_at = self._activated_at = message.line
        return self.waits_for_its_end

    # --- records to chunks

    def convert(self) -> None:
        """Convert the records that wait."""
        run, self._waiting, self._waiting_bytes = self._waiting, None, 0
        if run is None:
            return
        for batch, deleted in convert(
            run, self.plan, self.notes, deletes=self.deletes, refuse_long=self.refuses_long
        ):
            self._write(batch, deleted, self._order(None, run.first_sequence))

    @property
    def refuses_long(self) -> bool:
        """Whether a text that is longer than its column can be ends the run."""
        return self._config.oversize_string == "fail"

    def _write(self, batch: Any, deleted: Any | None, order: int) -> None:  # pyarrow ships no types
        if self._writer is None:
            self._writer = TableWriter(
                self.name,
                self.plan,
                self._run_directory.table_directory,
                chunk_limit_bytes=self._config.chunk_size_bytes,
                timestamp_encoding=self._config.timestamp_encoding,
                account=self._run_directory,
            )
        self._writer.add(batch, deleted, order)

    @property
    def has_open_file(self) -> bool:
        """Whether a chunk file is being written."""
        return self._writer is not None and self._writer.has_open_file

    def close_file(self) -> None:
        """Close the chunk file that is being written; the next rows begin another."""
        if self._writer is not None:
            self._writer.close_file()

    def flush(self) -> None:
        """Have no record in memory any more."""
        self.convert()
        if self._writer is not None:
            self._writer.flush()

    def close_writer(self) -> None:
        """Write all that is held into chunks."""
        self.convert()
        if self._writer is not None:
            self._chunks += self._writer.finish()
            self._writer = None
        if self._is_held_elsewhere and self._converters is not None:
            self._is_held_elsewhere = False
            self._chunks += self._converters.finish(self.name)

    def give_up(self) -> None:
        """Hold nothing any more, since its rows cannot be loaded in this run."""
        self.has_failed = True
        self._waiting, self._waiting_bytes = None, 0
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        if self._is_held_elsewhere and self._converters is not None:
            self._is_held_elsewhere = False
            self._converters.abandon(self.name)
        for chunk in (*self._older, *self._chunks):
            chunk.path.unlink(missing_ok=True)
        self._older, self._chunks = [], []
        self._older_rows = self.rows = 0

    def hand_over(self) -> tuple[tuple[Chunk, ...], int]:
        """Return all that is held, as chunks and number of records, and hold nothing.

        Rows of older versions are dropped if the newest one replaces the table.
        """
        self.close_writer()
        if self.replaces:
            self.report.superseded += self._older_rows
            self.rows -= self._older_rows
            for chunk in self._older:
                chunk.path.unlink(missing_ok=True)
            self._older = []
        held = (*self._older, *self._chunks), self.rows
        self._older, self._chunks = [], []
        self._older_rows = self.rows = 0
        return held


def _say_renamed(plan: TablePlan, said: Mapping[str, str]) -> None:
    """Say which columns have not the names of their properties, but for those said before."""
    fresh = [f"{old!r} -> {new!r}" for old, new in plan.renamed.items() if old not in said]
    if fresh:
        logger.info("Stream %s: columns get other names: %s.", plan.stream, ", ".join(fresh))


def shared_table(one: str, other: str, table: str) -> ContractError:
    """Return the error for two streams that one table would be made of."""
    return ContractError(
        "TC-CONTRACT-01",
        f"The streams `{one}` and `{other}` would both load into table `{table}`.",
        "Give one of them another `table` under `streams`, or another alias.",
    )


def no_room(streams: Iterable[Stream], limit_bytes: int) -> LimitError:
    """Return the error for a spool that is full of rows that cannot be pushed yet."""
    largest = max(streams, key=lambda stream: stream.rows)
    return LimitError(
        "TC-LIMIT-05",
        f"The spool is full ({limit_bytes / 1e9:.2f} GB): stream `{largest.name}`, which is pushed "
        "only when it was read to its end, holds most of it.",
        "Raise `spool_limit_gb`, or name a larger disk as `spool_dir`.",
    )


def unproven_end(streams: Sequence[Stream]) -> InputError:
    """Return the error for streams that nothing proves were read to their end."""
    names = ", ".join(f"`{stream.name}`" for stream in streams)
    return InputError(
        "TC-INPUT-10",
        f"Nothing proves that these streams were read to their end, so their tables are left as "
        f"they were: {names}.",
        "If the tap prints neither `currently_syncing` nor ACTIVATE_VERSION, set "
        "`trust_end_of_input` to true.",
    )
