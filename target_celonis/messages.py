"""The Singer messages, as the rest of the program has them.

Hides nothing; a leaf. Must not know: how they are read, tables, files.

The sequence number of a message is the number of its line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEND_RECORDS = "Remove `batch_config` from the tap's configuration, so that it sends records."
"""What to do about a batch that cannot be read."""


def place_of(line: int, file: str | None, message_line: int) -> str:
    """Return where a record stands: its line, of a batch file too that a message names."""
    if file is None:
        return f"line {line}"
    return f"line {line} of the batch file {file} (line {message_line})"


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A RECORD message.

    Attributes:
        line: Its line.
        stream: Its stream.
        version: Its ``version``, if it carries one.
        record: JSON text of the record.
        not_finite: How many NaN or infinite numbers were read as null.
        surrogates: How many lone surrogates were replaced.
        time_extracted: JSON text of its ``time_extracted``, where it is kept.
        watched: The same, where it is watched.
    """

    line: int
    stream: str
    version: int | None
    record: bytes
    not_finite: int
    surrogates: int
    time_extracted: bytes
    watched: bytes


@dataclass(slots=True)
class RecordRun:
    """Records of one stream and one version, in order.

    Attributes:
        stream: The stream's name.
        version: The ``version`` of its RECORD messages, if they carry one.
        records: JSON text of each record.
        lines: Line number of each record, in ``file`` if there is one.
        not_finite: How many NaN or infinite numbers were read as null.
        surrogates: How many lone surrogates were replaced.
        filtered: How many records a stream map left out.
        time_extracted: JSON text of each message's ``time_extracted``, where they are kept.
        file: The batch file that the records come from; None of RECORD messages.
        message_line: Line of the BATCH message that names the file.
        read_to: Sequence number of the last record read, where a stream map may have left it out.
        is_removed: Whether a stream map leaves out the whole stream.
        extracted: JSON text of the newest ``time_extracted``, by form of the text, where they are
            watched. Texts of one form are in the order of their times.
    """

    stream: str
    version: int | None
    records: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    not_finite: int = 0
    surrogates: int = 0
    filtered: int = 0
    time_extracted: list[bytes] = field(default_factory=list)
    file: str | None = None
    message_line: int = 0
    read_to: int = 0
    is_removed: bool = False
    extracted: dict[bytes, bytes] = field(default_factory=dict, compare=False)

    @property
    def first_sequence(self) -> int:
        """Sequence number of the first record."""
        return self.lines[0] if self.file is None else self.message_line

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record."""
        return self.lines[-1] if self.file is None else self.message_line

    def place(self, index: int) -> str:
        """Return where a record stands, to be read in a sentence."""
        return place_of(self.lines[index], self.file, self.message_line)

    def add(self, line: RecordLine) -> None:
        """Take another record of this stream and version."""
        self.records.append(line.record)
        self.lines.append(line.line)
        self.not_finite += line.not_finite
        self.surrogates += line.surrogates
        if line.time_extracted:
            self.time_extracted.append(line.time_extracted)
        if line.watched:
            watch_time(line.watched, self.extracted)

    def extend(self, later: RecordRun) -> None:
        """Take the records of a later run of this stream; the version becomes theirs."""
        self.version = later.version
        self.records += later.records
        self.lines += later.lines
        self.not_finite += later.not_finite
        self.surrogates += later.surrogates
        self.time_extracted += later.time_extracted


@dataclass(frozen=True, slots=True)
class SchemaMessage:
    """A SCHEMA message.

    Attributes:
        line: Its line.
        stream: The stream to load.
        schema: Its JSON schema.
        key_properties: Its key properties.
        source: The tap's name of the stream, where a stream map gave it another; other messages
            speak of that one.
        bookmark_properties: Those that the tap reads on from, where it reads incrementally.
        is_removed: Whether a stream map leaves out the whole stream.
    """

    line: int
    stream: str
    schema: dict[str, Any]
    key_properties: tuple[str, ...]
    source: str
    bookmark_properties: tuple[str, ...] = ()
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class StateMessage:
    """A STATE message.

    Attributes:
        line: Its line.
        value: The JSON text of its value, as the tap wrote it.
        names_syncing: Whether the value has ``currently_syncing``.
        currently_syncing: The stream named there.
    """

    line: int
    value: bytes
    names_syncing: bool
    currently_syncing: str | None


@dataclass(frozen=True, slots=True)
class ActivateVersionMessage:
    """An ACTIVATE_VERSION message."""

    line: int
    stream: str
    version: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing came for a while."""


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """A BATCH message: records that stand in files.

    Attributes:
        line: Its line.
        stream: Their stream.
        format: The files' format.
        compression: Their compression, None if there is none.
        manifest: The files, as the tap names them.
        version: The ``version`` of the records, if the message carries one.
    """

    line: int
    stream: str
    format: str
    compression: str | None
    manifest: tuple[str, ...]
    version: int | None = None


OtherMessage = SchemaMessage | StateMessage | ActivateVersionMessage | BatchMessage
Message = RecordRun | SchemaMessage | StateMessage | ActivateVersionMessage | BatchMessage | Idle


def watch_time(text: bytes, newest: dict[bytes, bytes]) -> None:
    """Keep a time if it is the newest of its form: the length, what is behind the day, the zone."""
    zone = text[-7:]
    if b"+" not in zone and b"-" not in zone:
        zone = b"Z" if zone.endswith(b'Z"') else b""
    form = b"%d%b%b" % (len(text), text[11:12], zone)
    if text > newest.get(form, b""):
        newest[form] = text
