"""Stream maps, flattening and metadata columns: what a user asks to be changed on the way in.

Hides the Singer SDK's mapper and the form it wants records in. Guarantees: with none of these
configured, messages pass untouched and at no cost; otherwise the results are the SDK's own; a
record that a map leaves out is counted; numbers keep the tap's digits. Must not know: tables,
files, the network.

A mapped record is decoded to a dict, mapped, and encoded again, one by one, which takes several
times as long as loading it as it is.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
from singer_sdk.exceptions import MappingError
from singer_sdk.mapper import PluginMapper, RemoveRecordTransform, SameRecordTransform
from singer_sdk.singerlib.json import deserialize_json

from target_celonis.errors import SettingsError
from target_celonis.messages import RecordRun, SchemaMessage
from target_celonis.metadata import METADATA_COLUMNS, with_metadata_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target_celonis.clock import Clock
    from target_celonis.config import Config

_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


class StreamMapper:
    """Changes messages on their way to the loader.

    Args:
        config: Settings.
        clock: For the metadata columns.

    Attributes:
        started_at: When the run began, in milliseconds since 1970.

    Raises:
        SettingsError: A stream map cannot be understood.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        self._clock = clock
        self.started_at = round(clock.now() * 1000)
        self._add_metadata = config.add_record_metadata
        self._mapper: PluginMapper | None = None
        if config.mapping:
            with _as_settings_error("The setting `stream_maps`", quote=True):
                self._mapper = PluginMapper(
                    plugin_config=json.loads(json.dumps(dict(config.mapping))),
                    logger=logging.getLogger("target-celonis"),
                )

    def schemas(self, message: SchemaMessage) -> list[SchemaMessage]:
        """Return the SCHEMA of each stream that one of the tap becomes.

        Raises:
            SettingsError: A map does not fit the stream.
        """
        found = [message]
        properties = message.schema.get("properties")
        if self._mapper is not None:
            schema = message.schema
            if not isinstance(properties, dict):  # refused later, unless it is removed
                schema = schema | {"properties": {}}
            with _as_settings_error(f"The stream map of stream `{message.stream}`", quote=True):
                self._mapper.register_raw_stream_schema(
                    message.stream, schema, list(message.key_properties)
                )
            found = [
                replace(message, is_removed=True)
                if isinstance(stream_map, RemoveRecordTransform)
                else replace(
                    message,
                    stream=stream_map.stream_alias,
                    schema=stream_map.transformed_schema,
                    key_properties=tuple(stream_map.transformed_key_properties or ()),
                )
                for stream_map in self._mapper.stream_maps[message.stream]
            ]
        return [self._with_metadata(each) for each in found]

    def _with_metadata(self, message: SchemaMessage) -> SchemaMessage:
        properties = message.schema.get("properties")
        if not self._add_metadata or not isinstance(properties, dict):
            return message
        return replace(
            message, schema=message.schema | {"properties": properties | METADATA_COLUMNS}
        )

    def leaves(self, stream: str) -> bool:
        """Return whether the records of a stream pass as they are, but for metadata columns."""
        maps = None if self._mapper is None else self._mapper.stream_maps.get(stream)
        return maps is None or _changes_nothing(maps)

    def runs(self, run: RecordRun) -> list[RecordRun]:
        """Return what a run of records becomes, a run for each stream.

        Raises:
            SettingsError: A map fails on a record.
        """
        maps = None if self._mapper is None else self._mapper.stream_maps.get(run.stream)
        found = [run]
        if maps is not None and not _changes_nothing(maps):
            found = [self._mapped(stream_map, run) for stream_map in maps]
        if self._add_metadata:
            now = self._clock.now()
            found = [with_metadata_values(each, now, self.started_at) for each in found]
        return found

    def _mapped(self, stream_map: Any, run: RecordRun) -> RecordRun:
        if isinstance(stream_map, RemoveRecordTransform):
            return RecordRun(run.stream, run.version, filtered=len(run.records), is_removed=True)
        made = RecordRun(
            stream_map.stream_alias,
            run.version,
            file=run.file,
            message_line=run.message_line,
            read_to=run.last_sequence,
        )
        made.not_finite, made.surrogates = run.not_finite, run.surrogates
        for index, record in enumerate(run.records):
            place = run.place(index)
            with _as_settings_error(f"The stream map of stream `{run.stream}`, in {place}"):
                values = stream_map.transform(deserialize_json(record))
                if isinstance(stream_map, SameRecordTransform) or values is not None:
                    made.records.append(_encode(values))
                    made.lines.append(run.lines[index])
                    made.time_extracted += run.time_extracted[index : index + 1]
                else:
                    made.filtered += 1
        return made


def _changes_nothing(maps: list[Any]) -> bool:
    """Return whether a stream passes as it is."""
    only = maps[0]
    return len(maps) == 1 and isinstance(only, SameRecordTransform) and not only.flattening_enabled


class _as_settings_error:  # noqa: N801  # a context manager
    """Turn what the SDK's mapper raises into a sentence; its own texts may hold values.

    Args:
        subject: What failed.
        quote: Whether the SDK's own text is given, which speaks of the configuration only.
    """

    def __init__(self, subject: str, *, quote: bool = False) -> None:
        self._subject = subject
        self._quote = quote

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Translate."""
        if isinstance(error, Exception):
            reason = type(error).__name__
            if isinstance(error, MappingError) and error.__cause__ is not None:
                reason = type(error.__cause__).__name__
            if self._quote and str(error):
                reason = str(error).rstrip(".")
            raise SettingsError(
                "TC-SETTINGS-08",
                f"{self._subject} failed ({reason}).",
                "See https://sdk.meltano.com/en/latest/stream_maps.html for their form.",
            ) from None


def mapped(message: Any, mapper: StreamMapper) -> Iterator[Any]:
    """Yield what a message becomes; all but records and schemas stay as they are."""
    if isinstance(message, RecordRun):
        yield from mapper.runs(message)
    elif isinstance(message, SchemaMessage):
        yield from mapper.schemas(message)
    else:
        yield message
