"""From messages to loaded tables: what is held, when it is pushed, and which state may go out.

Hides checkpoints, tables that streams claim, and the order of all effects. Guarantees: a state is
handed out only when every record read before it is in a job that Celonis reported DONE; a table is
replaced at most once a run and only by a stream whose end is proven; whatever fails, what was not
proven is not executed; a table that fails ends no other one, but nothing is appended whose state
can no longer be handed out, since it would be appended again; every record is counted once. Must
not know: bytes on stdin, HTTP, the Singer SDK, how a stream holds its records.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from target_celonis.celonis import JobType
from target_celonis.dispatch import Dispatch
from target_celonis.errors import InputError
from target_celonis.holdings import Holdings
from target_celonis.pusher import FailedPush
from target_celonis.report import StreamReport, check_sums
from target_celonis.route import PushTask, Receipt
from target_celonis.say_once import SayOnce
from target_celonis.stream import Stream, no_room, shared_table, unproven_end
from target_celonis.stream_rules import LoadMethod
from target_celonis.table import plan_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from target_celonis.blocks import Rows
    from target_celonis.clock import Clock
    from target_celonis.config import Config
    from target_celonis.converters import Converters
    from target_celonis.messages import (
        ActivateVersionMessage,
        RecordRun,
        SchemaMessage,
        StateMessage,
    )
    from target_celonis.pusher import Pusher
    from target_celonis.run_directory import RunDirectory
    from target_celonis.stream_rules import StreamSettings
    from target_celonis.table import TablePlan
    from target_celonis.typed import Intake

logger = logging.getLogger("target-celonis")

_PROGRESS_SECONDS = 60.0
BUFFER_SHARE = 4
"""A quarter of the memory limit is for row groups in the making; the rest is for the line being
read, sorting keys, and the libraries themselves."""


class Loader:
    """Takes messages, gives states.

    Args:
        config: Settings.
        run_directory: Where chunks wait.
        pusher: Pushes finished checkpoints.
        clock: Says when a checkpoint is due.
        release: Called with each state that is safe, as its JSON text.
        converters: Other processes that may hold rows of streams; None where there are none.

    Attributes:
        dispatch: Pushes on their way, and states behind them.
    """

    def __init__(
        self,
        config: Config,
        run_directory: RunDirectory,
        pusher: Pusher,
        clock: Clock,
        release: Callable[[bytes], None],
        *,
        converters: Converters | None = None,
    ) -> None:
        self._converters = converters
        self._config = config
        self._run_directory = run_directory
        self._pusher = pusher
        self._clock = clock
        self.dispatch = Dispatch(pusher, run_directory.journal, release)
        self._streams: dict[str, Stream] = {}
        self._tables: dict[str, str] = {}
        self._ledger = self.dispatch.ledger
        processes = 1 + (converters.count if converters is not None else 0)
        self._holdings = Holdings(config.memory_limit_bytes // BUFFER_SHARE // processes)
        self._checkpoint_at = self._progress_at = self._ask_again_at = clock.monotonic()
        self._read_rows = 0
        self._say_once = SayOnce()
        self._removed: dict[str, StreamReport] = {}
        self._begun: dict[str, int] = {}
        self._syncing: tuple[str | None] | None = None
        self._failed = False

    # --- messages

    def schema(self, message: SchemaMessage) -> None:
        """Take a SCHEMA: a new stream, or a change of one.

        Raises:
            InputError: It has no properties.
            ContractError: It cannot become a table, or only one that another stream has.
        """
        if message.is_removed:
            self._removed.setdefault(message.stream, StreamReport(message.stream, "-"))
            return
        settings = self._config.for_stream(message.stream)
        keys = settings.key_properties
        if keys is None:
            keys = message.key_properties
        if settings.load_method is LoadMethod.APPEND_ONLY:
            keys = ()
        plan = plan_table(message.stream, settings.table, message.schema, keys, settings.columns)
        known = self._streams.get(message.stream)
        if known is None:
            self._begin(message, plan, settings)
        elif not known.has_failed:
            self._change(known, message, plan)

    def intake(self, name: str) -> Intake | None:
        """Return what is to be known of a stream to convert its records."""
        stream = self._streams.get(name)
        return stream.intake if stream is not None else None

    def _begin(self, message: SchemaMessage, plan: TablePlan, settings: StreamSettings) -> None:
        """Take a stream's first SCHEMA."""
        self._claim_table(message.stream, plan.table)
        keyless = not plan.keys and settings.load_method is not LoadMethod.OVERWRITE
        if keyless and settings.load_method is LoadMethod.UPSERT:
            self._say_once(
                f"Stream `{message.stream}` has no key properties: its records are appended."
            )
        if keyless and not self._run_directory.knows_the_past:
            self._say_once(
                "This spool directory knows of no earlier run: should one have been cut off after "
                "it had appended rows, they stand twice, and that cannot be told here."
            )
        if plan.table != settings.table:
            logger.info("Stream %s: its table is named %s.", message.stream, plan.table)
        self._streams[message.stream] = Stream(
            message, plan, settings, self._config, self._run_directory, converters=self._converters
        )

    def _change(self, known: Stream, message: SchemaMessage, plan: TablePlan) -> None:
        """Take a later SCHEMA of a stream."""
        if known.source != message.source:
            raise shared_table(known.source, message.source, plan.table)
        if known.change(message, plan) and known.rows:
            self._push([known])  # one key for all rows of a job
            self._drain()  # rows that are appended wait for others; newer ones must not overtake
        self._holdings.changing(known, lambda: known.adopt(plan))

    def _claim_table(self, stream: str, table: str) -> None:
        other = self._tables.setdefault(table.casefold(), stream)
        if other != stream:
            raise shared_table(other, stream, table)
        self._run_directory.claim(table)

    def records(self, run: RecordRun) -> None:
        """Take records.

        Raises:
            InputError: Their SCHEMA is missing, or a value cannot be loaded.
            LimitError: The disk is full.
        """
        if run.is_removed:
            report = self._removed[run.stream]
            report.read += run.filtered
            report.filtered += run.filtered
            return
        stream = self._streams.get(run.stream)
        if stream is None:
            raise InputError(
                "TC-INPUT-05",
                f"A RECORD of stream `{run.stream}`, {run.place(0)}, has no SCHEMA before it.",
            )
        stream.report.read += run.filtered
        stream.report.filtered += run.filtered
        if stream.has_failed:
            stream.report.read += len(run.records)
            return
        if not run.records:
            stream.read_under = self._syncing
            stream.last_sequence = max(stream.last_sequence, run.read_to)
            return
        self._hold(stream, len(run.records), lambda: stream.take(run))

    def rows(self, rows: Rows) -> None:
        """Take records that are converted.

        Raises:
            LimitError: The disk is full.
        """
        stream = self._streams[rows.stream]
        if stream.has_failed:
            stream.report.read += rows.count
            return
        self._hold(stream, rows.count, lambda: stream.take_rows(rows))

    def _hold(self, stream: Stream, count: int, take: Callable[[], None]) -> None:
        """Have a stream take records, and see that memory and disk suffice."""
        stream.read_under = self._syncing
        self._holdings.changing(stream, take)
        self._read_rows += count
        if stream.name in self._begun:
            begun = self._end_beginning(stream.name)
            if stream.waits_for_its_end:
                stream.first_sequence = begun
        self._ledger.pend(stream.name, stream.first_sequence)
        self._holdings.bound(self._streams.values())
        if self._run_directory.room.is_full():
            self._make_room()

    def _make_room(self) -> None:
        """Push what can be pushed, and read on when there is room again.

        Raises:
            LimitError: All that is held waits for the end of its stream.
        """
        self._say_once("The spool is full: what can be pushed is pushed before more is read.")
        while self._run_directory.room.is_full():
            if not self.dispatch.is_pushing:
                due = self._due()
                if not due:
                    raise no_room(self._streams.values(), self._run_directory.room.limit_bytes)
                self._push(due)
            self._pusher.wait(1.0)
            self._take_outcomes()
            self._say_progress()

    def state(self, message: StateMessage) -> None:
        """Take a STATE."""
        if message.names_syncing:
            sources = {stream.source for stream in self._streams.values()}
            for stream in self._streams.values():
                if stream.has_ended(message.currently_syncing, sources):
                    stream.end(message.line)
            self._syncing = (message.currently_syncing,)
        self._note_beginnings(message)
        self.dispatch.add_state(message.line, message.value)
        self.dispatch.release_safe()

    def _note_beginnings(self, message: StateMessage) -> None:
        """Hold back a state that says a table is about to be sent, until it is known to be loaded.

        Some taps note there already what is true only at the end: that the table was read.
        """
        named = message.currently_syncing if message.names_syncing else None
        for name in [n for n in self._begun if self._streams[n].source != named]:
            self._end_beginning(name)
        for stream in self._streams.values() if named is not None else ():
            begins = stream.source == named and stream.versioned is None
            if begins and stream.name not in self._begun:
                self._begun[stream.name] = message.line
                self._ledger.pend(("begun", stream.name), message.line)

    def _end_beginning(self, name: str) -> int:
        """Hold no state back any more for the beginning of a stream; return that state's number."""
        self._ledger.settle(("begun", name))
        return self._begun.pop(name)

    def activate_version(self, message: ActivateVersionMessage) -> None:
        """Take an ACTIVATE_VERSION: that a stream which was sent in full is whole."""
        for stream in self._streams.values():
            if stream.source == message.stream and not stream.activate(message):
                self._say_once(
                    f"Stream `{stream.name}`: ACTIVATE_VERSION changes nothing, since the stream "
                    "is not one that was sent in full."
                )

    # --- time

    def tick(self) -> None:
        """Do what time or finished pushes make due; called often.

        Raises:
            TargetCelonisError: No table can be pushed any more.
        """
        self._take_outcomes()
        now = self._clock.monotonic()
        interval = self._config.checkpoint_interval_seconds
        if interval and now - self._checkpoint_at >= interval and not self.dispatch.is_pushing:
            self._checkpoint(now)
        self._say_progress()

    def _checkpoint(self, now: float) -> None:
        """Push what is worth it, unless the submits of the hour ask for patience."""
        if now < self._ask_again_at:
            return
        self._ask_again_at = now + 1.0
        due = [stream for stream in self._due() if self._can_go_out(stream)]
        if now - self._checkpoint_at < self._pusher.pace_seconds(len(due)):
            self._say_once(
                f"Checkpoints of {len(due)} push jobs lie further apart than "
                "`checkpoint_interval_minutes`, since the submits of an hour are limited."
            )
            return
        self._checkpoint_at = now
        self._push(due)
        self._say_who_holds_back()

    def _due(self) -> list[Stream]:
        """Return the streams that can be pushed while reading goes on."""
        return [s for s in self._streams.values() if s.rows and not s.waits_for_its_end]

    def _can_go_out(self, stream: Stream) -> bool:
        """Return whether a push now lets a state out, or does no harm if it does not.

        Rows that are appended while a stream that replaces its table holds all states back would
        be appended again, if that stream came to no good end.
        """
        return bool(stream.plan.keys) or not any(
            other.rows and other.waits_for_its_end and other.first_sequence < stream.last_sequence
            for other in self._streams.values()
        )

    def _say_progress(self) -> None:
        now = self._clock.monotonic()
        if now - self._progress_at >= _PROGRESS_SECONDS:
            self._progress_at = now
            loaded = sum(stream.report.loaded for stream in self._streams.values())
            logger.info("%d records read, %d rows loaded so far.", self._read_rows, loaded)

    def _say_who_holds_back(self) -> None:
        holder = self._ledger.first_pending()
        stream = self._streams.get(holder) if isinstance(holder, str) else None
        if stream is not None and stream.waits_for_its_end and self._ledger.holds_back():
            self._say_once(
                f"Stream `{holder}` replaces its table at the end of the run; states wait for it."
            )

    # --- pushes

    def _push(self, streams: Sequence[Stream]) -> None:
        """Hand the rows that streams hold to the pusher; those that append go last."""
        tasks = []
        for stream in streams:
            replaces = stream.replaces
            chunks, rows = self._holdings.changing(stream, stream.hand_over)
            task = PushTask(
                plan=stream.plan,
                type=JobType.REPLACE if replaces else JobType.DELTA,
                chunks=chunks,
                directory=self._run_directory.table_directory(f"{stream.plan.table}-merged"),
                rows=rows,
                last_line=stream.last_sequence,
            )
            # From here on the task stands for the rows, so that the stream can gather new ones.
            self._ledger.pend(task, stream.first_sequence)
            self._ledger.settle(stream.name)
            tasks.append(task)
        minutes = self._pusher.wait_seconds(len(tasks)) / 60
        if minutes >= 1:
            said = (
                "%d push jobs are due; by the submits of an hour that takes %.0f minutes or more."
            )
            logger.info(said, len(tasks), minutes)
        self.dispatch.start(tasks)
        self._take_outcomes()

    def _take_outcomes(self) -> None:
        outcomes, given_up = self.dispatch.outcomes()
        for outcome in outcomes:
            if isinstance(outcome, FailedPush):
                self._take_failure(outcome)
            else:
                self._count(outcome)
        for task in given_up:
            logger.warning(
                "Stream %s: its records are not appended, since the state behind them cannot go "
                "out any more; the tap will send them again.",
                task.plan.stream,
            )
            if self.dispatch.failure is not None:
                self._streams[task.plan.stream].report.failure = self.dispatch.failure.code
            self._give_up(task)
        self.dispatch.release_safe()
        self._pusher.raise_failure()

    def _take_failure(self, failed: FailedPush) -> None:
        """Give up a stream; the others go on, though no state behind its records can go out."""
        stream = failed.task.plan.stream
        self._streams[stream].report.failure = failed.error.code
        logger.warning("Stream %s is given up in this run: %s", stream, failed.error)
        self._give_up(failed.task)

    def _give_up(self, task: PushTask) -> None:
        stream = self._streams[task.plan.stream]
        self._holdings.changing(stream, stream.give_up)
        task.discard()

    def _count(self, receipt: Receipt) -> None:
        task = receipt.task
        stream = self._streams[task.plan.stream]
        report = stream.report
        report.loaded += receipt.loaded_rows
        report.merged += receipt.superseded_rows
        report.deleted += receipt.deleted_rows
        report.jobs += len(receipt.job_ids)
        report.job_ids += receipt.job_ids
        report.chunks += receipt.chunks
        report.uploaded_bytes += receipt.uploaded_bytes
        report.length_unverified |= not receipt.length_verified
        for name, (longest, length) in receipt.texts.items():
            before = report.texts.get(name, (0, 0))[0]
            report.texts[name] = (max(longest, before), length)
        properties = {column.name: column.property_name for column in task.plan.columns}
        for name, count in receipt.cut_texts.items():
            stream.notes.add(properties[name], "text_cut", count)
        self._ledger.settle(task)

    # --- the end

    def finish(self) -> None:
        """Push all that is held and wait for it; the input has ended.

        Raises:
            InputError: A stream that overwrites has no proven end; all others were loaded.
            TargetCelonisError: A push failed; those that do not depend on it came to their end.
        """
        for name in list(self._begun):
            self._end_beginning(name)
        unproven = []
        ready = []
        for stream in self._streams.values():
            if stream.overwrites and not stream.rows and not stream.has_failed:
                logger.warning(
                    "Stream %s sent no records: table %s is left as it is, since zero rows never "
                    "replace a table.",
                    stream.name,
                    stream.plan.table,
                )
            elif stream.rows and self._is_cut_off(stream):
                unproven.append(stream)
                self.dispatch.lose(stream.name)
            elif stream.rows:
                ready.append(stream)
        self._push(ready)
        self._drain()
        if self.dispatch.failure is not None:
            raise self.dispatch.failure  # each was told when it came
        if unproven:
            raise unproven_end(unproven)

    def _drain(self) -> None:
        """Wait for all pushes under way."""
        while self.dispatch.is_pushing:
            self._pusher.wait(1.0)
            self._take_outcomes()
            self._say_progress()
        self._take_outcomes()

    def _is_cut_off(self, stream: Stream) -> bool:
        """Return whether a stream that may replace its table was perhaps not read to its end.

        One that its tap sends in full without ever saying what it reads is an ordinary upsert. But
        where the tap was in the midst of it, a state could make it go on there in the next run, and
        call whole what is only the rest.
        """
        if stream.end_is_proven or stream.settings.trust_end_of_input:
            return False
        in_midst = self._syncing is not None and self._syncing[0] is not None
        return stream.overwrites or (bool(stream.versioned) and in_midst)

    def settle_after_failure(self) -> None:
        """Let what was executed end, count it and release its states; the run has failed."""
        self._failed = True
        self._pusher.close()
        outcomes = self._pusher.outcomes()
        errors = [outcome.error for outcome in outcomes if isinstance(outcome, FailedPush)]
        first = self.dispatch.failure or (errors[0] if errors else None)
        for outcome in outcomes:
            if isinstance(outcome, Receipt):
                self._count(outcome)
            elif error := outcome.error if isinstance(outcome, FailedPush) else first:
                self._streams[outcome.task.plan.stream].report.failure = error.code
        self.dispatch.release_safe()

    def reports(self) -> list[StreamReport]:
        """Return the counts of every stream, whatever is not loaded counted as such.

        Raises:
            InternalError: They do not add up.
        """
        reports = list(self._removed.values())
        for stream in self._streams.values():
            report = stream.report
            report.rules = stream.notes.counts
            if self._failed:
                report.not_loaded = max(0, report.read - report.accounted)
            reports.append(report)
        check_sums(reports)
        return reports
