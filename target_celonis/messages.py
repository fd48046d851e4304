"""Bytes on stdin become Singer messages in order, records as runs of one stream.

Hides reading (blocks, lines split over blocks, a pipe that falls silent), the JSON of the
envelope, and what taps print that is no JSON (NaN, lone surrogates). Guarantees: messages come in
the input's order, except that records of several streams between two other messages are grouped by
stream; a state's JSON is handed on byte by byte; memory is bounded by the block and the longest
line allowed; a fault is an ``InputError`` that names the line. Must not know: tables, files, what
a record holds.

The sequence number of a message is the number of its line.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import msgspec

from target_celonis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20
_NULL = b"null"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_F_SETPIPE_SZ = 1031  # not in fcntl before Python 3.10, Linux only


@dataclass(slots=True)
class RecordRun:
    """Records of one stream and one version, in order.

    Attributes:
        stream: The stream's name.
        version: The ``version`` of its RECORD messages, if they carry one.
        records: JSON text of each record.
        lines: Line number of each record.
        not_finite: How many NaN or infinite numbers were read as null.
        surrogates: How many lone surrogates were replaced.
        filtered: How many records a stream map left out.
        time_extracted: JSON text of each message's ``time_extracted``, where they are kept.
    """

    stream: str
    version: int | None
    records: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    not_finite: int = 0
    surrogates: int = 0
    filtered: int = 0
    time_extracted: list[bytes] = field(default_factory=list)

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
    """

    line: int
    stream: str
    schema: dict[str, Any]
    key_properties: tuple[str, ...]
    source: str


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


Message = RecordRun | SchemaMessage | StateMessage | ActivateVersionMessage | Idle


class Source:
    """Where the bytes come from.

    Args:
        file: A file; a text file's buffer is taken.
        wake_fd: A file descriptor that becomes readable when waiting must end at once.
        idle_seconds: How long a read waits before it says that nothing came.
    """

    def __init__(
        self, file: IO[Any], wake_fd: int | None = None, idle_seconds: float = 1.0
    ) -> None:
        binary = getattr(file, "buffer", file)
        self._file: IO[bytes] = getattr(binary, "raw", binary)
        if isinstance(file, io.StringIO):
            self._file = io.BytesIO(file.read().encode())
        self._wake_fd = wake_fd
        self._idle_seconds = idle_seconds
        self._buffer = bytearray(BLOCK_BYTES)
        self._fd = self._selectable_fd()

    def _selectable_fd(self) -> int | None:
        if os.name != "posix":
            return None
        try:
            fd = self._file.fileno()
        except (OSError, AttributeError, io.UnsupportedOperation):
            return None
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # absent on Windows

            fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        return fd

    def read(self) -> bytes | None:
        """Return the next bytes: empty at the end, None when nothing came for a while."""
        if self._fd is not None:
            watched = [self._fd] if self._wake_fd is None else [self._fd, self._wake_fd]
            ready, _, _ = select.select(watched, [], [], self._idle_seconds)
            if self._fd not in ready:
                return None
        got = self._file.readinto(self._buffer)  # type: ignore[attr-defined]  # raw or BytesIO
        return None if got is None else bytes(memoryview(self._buffer)[:got])


def read_messages(
    source: Source, line_limit_bytes: int, *, keep_time_extracted: bool = False
) -> Iterator[Message]:
    """Read messages until the input ends.

    Args:
        source: Where they come from.
        line_limit_bytes: No line may be longer.
        keep_time_extracted: Whether runs of records are to have it.

    Yields:
        Messages in order; ``Idle`` whenever nothing came for a while.

    Raises:
        InputError: A line is not a Singer message, too long, or cut off by the end of the input.
    """
    parser = _Parser(keep_time_extracted)
    tail: list[bytes] = []
    tail_bytes = 0
    while (block := source.read()) != b"":
        if block is None:
            yield Idle()
            continue
        end = block.rfind(b"\n") + 1
        if end:
            tail.append(block[:end])
            whole = parser.lines_of(tail)
            tail_bytes = 0
            yield from parser.parse(whole)
        if end < len(block):
            tail.append(block[end:])
            tail_bytes += len(block) - end
            if tail_bytes > line_limit_bytes:
                raise InputError(
                    "TC-INPUT-09",
                    f"Line {parser.line + 1} is longer than {line_limit_bytes // 1_000_000} MB.",
                    "Raise `memory_limit_mb`; a line may take a quarter of it.",
                )
    if tail_bytes:
        yield from parser.parse(parser.lines_of(tail), last=True)


class _Envelope(msgspec.Struct, gc=False):
    """What any message may hold, still as JSON where its form depends on the type."""

    type: str
    stream: str | None = None
    record: msgspec.Raw = msgspec.Raw(b"")
    value: msgspec.Raw = msgspec.Raw(b"")
    schema: msgspec.Raw = msgspec.Raw(b"")
    key_properties: msgspec.Raw = msgspec.Raw(b"")
    version: msgspec.Raw = msgspec.Raw(b"")
    time_extracted: msgspec.Raw = msgspec.Raw(b"")


class _Syncing(msgspec.Struct, gc=False):
    currently_syncing: msgspec.Raw = msgspec.Raw(b"")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_syncing = msgspec.json.Decoder(_Syncing).decode
_decode_schema = msgspec.json.Decoder(dict[str, Any]).decode
_decode_keys = msgspec.json.Decoder(list[str] | None).decode
_decode_version = msgspec.json.Decoder(int).decode


class _Parser:
    """Lines to messages; remembers the line it is at."""

    def __init__(self, keep_time_extracted: bool) -> None:
        self.line = 0
        self._keep_time_extracted = keep_time_extracted

    def lines_of(self, pieces: list[bytes]) -> list[bytes]:
        """Return the lines of pieces, the last one first; the pieces are let go of.

        A line may take a quarter of all memory: as few copies of it live at a time as possible.
        """
        lines = b"".join(pieces).split(b"\n")
        pieces.clear()
        if not lines[-1]:
            lines.pop()  # behind the last line end
        lines.reverse()
        return lines

    def parse(self, lines: list[bytes], *, last: bool = False) -> Iterator[Message]:
        """Parse whole lines, emptying the list from behind.

        Args:
            lines: The last one first.
            last: Whether the end of the input may have cut the last of them.
        """
        runs: list[RecordRun] = []
        newest: dict[str, RecordRun] = {}
        while lines:
            line = lines.pop()
            self.line += 1
            if not line or line.isspace():
                continue
            message, text, not_finite, surrogates = self._decode(line, last=last and not lines)
            kind = message.type
            if kind == "RECORD":
                stream, version = self._record(message)
                run = newest.get(stream)
                if run is None or run.version != version:
                    run = newest[stream] = RecordRun(stream, version)
                    runs.append(run)
                run.records.append(bytes(message.record))
                run.lines.append(self.line)
                run.not_finite += not_finite
                run.surrogates += surrogates
                if self._keep_time_extracted:
                    run.time_extracted.append(bytes(message.time_extracted) or _NULL)
                continue
            yield from runs
            runs, newest = [], {}
            if kind == "STATE" and text not in line:
                raise InputError(
                    "TC-INPUT-03",
                    f"The STATE message in line {self.line} is not JSON, and cannot be handed back "
                    "as it is.",
                )
            yield self._other(kind, message)
        yield from runs

    def _decode(self, line: bytes, *, last: bool) -> tuple[_Envelope, bytes, int, int]:
        """Decode a line; return its text as it was decoded, and what was repaired in it."""
        text, not_finite, surrogates = line, 0, 0
        if self.line == 1 and line.startswith(_BYTE_ORDER_MARK):
            text = line[len(_BYTE_ORDER_MARK) :]
        try:
            message = _decode_envelope(text)
        except RecursionError:
            raise InputError(
                "TC-INPUT-01", f"Line {self.line} is nested too deeply to be read."
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            text, not_finite, surrogates = _repair(text)
            message = self._decode_again(text, last=last)
        twice = text.count(b'"type"') != 1
        if twice or (b"\\u00" in text and _ESCAPED_TYPE.search(text)):
            self._refuse_two_types(text, message)
        return message, text, not_finite, surrogates

    def _decode_again(self, text: bytes, *, last: bool) -> _Envelope:
        """Decode a repaired line, or say what is wrong with it."""
        try:
            return _decode_envelope(text)
        except msgspec.ValidationError as error:
            raise self._malformed(text, error) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            if last:
                raise InputError(
                    "TC-INPUT-02",
                    f"The input ends in the middle of line {self.line}.",
                    "The tap was cut off; look at its own log.",
                ) from None
            raise InputError(
                "TC-INPUT-01",
                f"Line {self.line} is not JSON.",
                "Only Singer messages may reach stdin; a tap's log lines belong on stderr.",
            ) from None

    def _malformed(self, text: bytes, error: msgspec.ValidationError) -> InputError:
        if not text.lstrip().startswith(b"{"):
            return InputError("TC-INPUT-01", f"Line {self.line} is not a JSON object.")
        path = re.search(r"at `\$\.(\w+)`", str(error))
        missing = re.search(r"required field `(\w+)`", str(error))
        if missing:
            return InputError("TC-INPUT-03", f"The message in line {self.line} has no `type`.")
        name = path.group(1) if path else "type"
        return InputError(
            "TC-INPUT-03", f"The field `{name}` of the message in line {self.line} is no text."
        )

    def _refuse_two_types(self, text: bytes, message: _Envelope) -> None:
        """Refuse a message that says twice what it is: readers would differ on its meaning."""
        inner = bytes(message.record or message.schema)
        once = text.count(b'"type"') - inner.count(b'"type"') == 1
        if once and not _ESCAPED_TYPE.search(text):
            return
        outer: list[str] = []

        def remember(pairs: list[tuple[str, Any]]) -> None:
            outer[:] = [name for name, _ in pairs]  # the outermost object comes last

        json.loads(text, object_pairs_hook=remember, parse_int=str, parse_float=str)
        if outer.count("type") > 1:
            raise InputError(
                "TC-INPUT-03", f"The message in line {self.line} has more than one `type`."
            )

    def _record(self, message: _Envelope) -> tuple[str, int | None]:
        """Check a RECORD; return its stream and version."""
        stream = self._stream(message)
        if not bytes(message.record).startswith(b"{"):
            raise InputError(
                "TC-INPUT-03",
                f"The RECORD of stream `{stream}` in line {self.line} has no `record` object.",
            )
        return stream, self._version(message) if message.version else None

    def _stream(self, message: _Envelope) -> str:
        if message.stream is None:
            raise InputError(
                "TC-INPUT-03", f"The {message.type} message in line {self.line} names no `stream`."
            )
        return message.stream

    def _version(self, message: _Envelope) -> int | None:
        if bytes(message.version) == b"null":
            return None
        try:
            return _decode_version(message.version)
        except msgspec.DecodeError:
            raise InputError(
                "TC-INPUT-03",
                f"The `version` of the {message.type} message in line {self.line} is no whole "
                "number.",
            ) from None

    def _other(self, kind: str, message: _Envelope) -> Message:
        """Build any message but RECORD."""
        if kind == "STATE":
            return self._state(message)
        if kind == "SCHEMA":
            return self._schema(message)
        if kind == "ACTIVATE_VERSION":
            version = self._version(message) if message.version else None
            if version is None:
                raise InputError(
                    "TC-INPUT-03",
                    f"The ACTIVATE_VERSION message in line {self.line} has no `version`.",
                )
            return ActivateVersionMessage(self.line, self._stream(message), version)
        if kind == "BATCH":
            raise InputError(
                "TC-INPUT-11",
                f"Line {self.line} is a BATCH message, which this target does not take.",
                "Remove `batch_config` from the tap's configuration, so that it sends records.",
            )
        raise InputError(
            "TC-INPUT-04",
            f"The message in line {self.line} has a type that Singer does not define.",
        )

    def _state(self, message: _Envelope) -> StateMessage:
        value = bytes(message.value)
        try:
            if not value.startswith(b"{"):
                raise ValueError
            value.decode()
            syncing = _decode_syncing(value).currently_syncing
            name = msgspec.json.decode(syncing) if syncing else None
        except ValueError:
            raise InputError(
                "TC-INPUT-03", f"The STATE message in line {self.line} has no `value` object."
            ) from None
        return StateMessage(
            line=self.line,
            value=value,
            names_syncing=bool(syncing),
            currently_syncing=name if isinstance(name, str) else None,
        )

    def _schema(self, message: _Envelope) -> SchemaMessage:
        stream = self._stream(message)
        try:
            schema = _decode_schema(message.schema or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InputError(
                "TC-INPUT-06",
                f"The SCHEMA of stream `{stream}` in line {self.line} has no `schema` object.",
            ) from None
        try:
            keys = _decode_keys(message.key_properties or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InputError(
                "TC-INPUT-03",
                f"The `key_properties` of stream `{stream}` in line {self.line} are no list of "
                "names.",
            ) from None
        return SchemaMessage(self.line, stream, schema, tuple(keys or ()), stream)


_ESCAPED_TYPE = re.compile(rb"\\u00(?:74|79|70|65)")  # a letter of "type", needlessly escaped
_STRING_OR_CONSTANT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?Infinity|NaN')
_LONE_SURROGATE = re.compile(
    rb"(\\\\)|(\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def _repair(line: bytes) -> tuple[bytes, int, int]:
    """Make JSON of what Python's ``json`` and ``simplejson`` print in its place.

    Returns:
        The line with NaN and infinities as null and lone surrogates as U+FFFD, and how many of
        each there were.
    """
    not_finite = surrogates = 0

    def surrogate(match: re.Match[bytes]) -> bytes:
        nonlocal surrogates
        if match.group(1) or match.group(2):
            return match.group(0)
        surrogates += 1
        return rb"\ufffd"

    def token(match: re.Match[bytes]) -> bytes:
        nonlocal not_finite
        found = match.group(0)
        if found.startswith(b'"'):
            return _LONE_SURROGATE.sub(surrogate, found)
        not_finite += 1
        return b"null"

    return _STRING_OR_CONSTANT.sub(token, line), not_finite, surrogates
