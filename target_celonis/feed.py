"""What the input says, handed to the loader, by way of the user's stream maps.

Hides which records the maps leave as they are, so that they take the fast way. Guarantees: messages
reach the loader in order, and the time is looked at between any two; a signal ends it. Must not
know: what the loader makes of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from target_celonis.batchfiles import with_batch_files
from target_celonis.blocks import BlockConverter, Rows
from target_celonis.clock import StoppedError
from target_celonis.converter_orders import WorkShare
from target_celonis.cores import usable_cores
from target_celonis.lines import Blocks
from target_celonis.loader import BUFFER_SHARE
from target_celonis.mapping import mapped
from target_celonis.message_parser import MessageParser
from target_celonis.messages import (
    ActivateVersionMessage,
    BatchMessage,
    RecordRun,
    SchemaMessage,
    StateMessage,
)
from target_celonis.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from target_celonis.changes import Changes
    from target_celonis.clock import Clock
    from target_celonis.config import Config
    from target_celonis.converters import Converters
    from target_celonis.lines import Source
    from target_celonis.loader import Loader
    from target_celonis.mapping import StreamMapper
    from target_celonis.messages import Message

_LINE_SHARE = 4
"""A line may take a quarter of the memory limit."""

_LONGEST_LINE_BYTES = 500_000_000

_MOST_PROCESSES = 2
"""Processes that are started unasked: each takes some 100 MB."""


def work_share(config: Config) -> WorkShare:
    """Return how many processes are to convert records, and what they are to know."""
    processes = config.converter_processes
    if processes is None:
        cores = usable_cores()
        processes = min(cores, _MOST_PROCESSES) if cores > 1 else 0
    share = config.memory_limit_bytes // BUFFER_SHARE
    return WorkShare(
        processes,
        config.converter_processes is not None,
        share // (1 + processes),
        config.chunk_size_bytes,
        config.timestamp_encoding,
        keeps_time=config.add_record_metadata,
        watches_time=bool(config.data_models),
    )


class Feed:
    """Feeds the loader.

    Args:
        config: Settings.
        mapper: The stream maps.
        loader: Takes what comes.
        converters: Other processes.
        changes: Takes when records were extracted; None where nobody asks.
        clock: Says when they were received.
        is_fast: Whether records are decoded in bulk; without, each is read with care.
        block_bytes: How much is read at a time, if not as much as is best.
    """

    def __init__(
        self,
        config: Config,
        mapper: StreamMapper,
        loader: Loader,
        *,
        converters: Converters,
        changes: Changes | None,
        clock: Clock,
        is_fast: bool = True,
        block_bytes: int | None = None,
    ) -> None:
        self._is_fast = is_fast
        self._block_bytes = block_bytes
        self._config = config
        self._mapper = mapper
        self._loader = loader
        self._converters = converters
        self._changes = changes
        self._clock = clock
        self._seen: Counter[str] = Counter()

    def run(self, source: Source, is_stopped: Callable[[], bool]) -> Counter[str]:
        """Read to the end.

        Args:
            source: The input.
            is_stopped: Whether a signal came.

        Returns:
            How many messages of each type there were.

        Raises:
            StoppedError: A signal came.
            InputError: A line is no Singer message, or a value cannot be loaded.
            TargetCelonisError: As of the loader's methods.
        """
        line_limit = min(self._config.memory_limit_bytes // _LINE_SHARE, _LONGEST_LINE_BYTES)
        parser = MessageParser(
            keep_time_extracted=self._config.add_record_metadata,
            watch_time_extracted=bool(self._config.data_models),
        )
        converter = BlockConverter(parser, is_fast=self._is_fast)
        reader = Reader(
            Blocks(source, line_limit, self._block_bytes), converter, self._converters, self._clock
        )
        for message in with_batch_files(reader.messages(), line_limit):
            if is_stopped():
                raise StoppedError
            if isinstance(message, Rows):
                self._seen["RECORD"] += message.count
                self._note_times(message.stream, message.extracted.values())
                self._loader.rows(message)
            elif isinstance(message, SchemaMessage):
                self._seen["SCHEMA"] += 1
                self._schema(message, reader)
            else:
                self._take(message)
            self._loader.tick()
        if is_stopped():
            raise StoppedError  # the tap may have been sent the signal, too, and closed the pipe
        return self._seen

    def _take(self, message: Message) -> None:
        """Take any message but SCHEMA."""
        if isinstance(message, RecordRun):
            self._seen["RECORD"] += len(message.records)
            for run in mapped(message, self._mapper):
                if not run.is_removed:
                    self._note_times(run.stream, message.extracted.values())
                self._loader.records(run)
        elif isinstance(message, StateMessage):
            self._seen["STATE"] += 1
            self._loader.state(message)
        elif isinstance(message, ActivateVersionMessage):
            self._seen["ACTIVATE_VERSION"] += 1
            self._loader.activate_version(message)
        elif isinstance(message, BatchMessage):
            self._seen["BATCH"] += 1  # its records come behind it

    def _schema(self, message: SchemaMessage, reader: Reader) -> None:
        for changed in mapped(message, self._mapper):
            self._loader.schema(changed)
        intake = None
        if self._mapper.leaves(message.stream):
            intake = self._loader.intake(message.stream)
        if intake is not None:
            reader.set_stream(
                replace(
                    intake,
                    adds_metadata=self._config.add_record_metadata,
                    watches_time=bool(self._config.data_models),
                    started_at=self._mapper.started_at,
                )
            )

    def _note_times(self, stream: str, times: Iterable[bytes]) -> None:
        if self._changes is not None:
            self._changes.note_extraction(stream, times)
