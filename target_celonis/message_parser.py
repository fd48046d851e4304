"""Lines become Singer messages in order, records as runs of one stream.

Hides the JSON of the envelope. Guarantees: messages come in the input's order, except that records
of several streams between two other messages are grouped by stream; a state's JSON is handed on
byte by byte; memory is bounded by the block and the longest line allowed; a fault is an
``InputError`` that names the line. Must not know: tables, files, what a record holds.

This is the careful way to read a line: what it says is right. ``blocks`` has a faster one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from target_celonis.errors import InputError
from target_celonis.lines import BYTE_ORDER_MARK, LineSplitter, line_too_long, repair
from target_celonis.messages import (
    SEND_RECORDS,
    ActivateVersionMessage,
    BatchMessage,
    Idle,
    RecordLine,
    RecordRun,
    SchemaMessage,
    StateMessage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target_celonis.lines import Source
    from target_celonis.messages import Message, OtherMessage

_NULL = b"null"


def read_messages(
    source: Source,
    line_limit_bytes: int,
    *,
    keep_time_extracted: bool = False,
    watch_time_extracted: bool = False,
) -> Iterator[Message]:
    """Read messages until the input ends.

    Args:
        source: Where they come from.
        line_limit_bytes: No line may be longer.
        keep_time_extracted: Whether runs of records are to have it.
        watch_time_extracted: Whether they are to have the newest of each form.

    Yields:
        Messages in order; ``Idle`` whenever nothing came for a while.

    Raises:
        InputError: A line is not a Singer message, too long, or cut off by the end of the input.
    """
    parser = MessageParser(
        keep_time_extracted=keep_time_extracted, watch_time_extracted=watch_time_extracted
    )
    splitter = LineSplitter()
    while (block := source.read()) != b"":
        if block is None:
            yield Idle()
            continue
        yield from parser.parse(splitter.add(block))
        if splitter.held_bytes > line_limit_bytes:
            raise line_too_long(f"Line {parser.line + 1}", line_limit_bytes)
    yield from parser.parse(splitter.rest(), last=True)


class _Envelope(msgspec.Struct, gc=False):
    """What any message may hold, still as JSON where its form depends on the type."""

    type: str
    stream: str | None = None
    record: msgspec.Raw = msgspec.Raw(b"")
    value: msgspec.Raw = msgspec.Raw(b"")
    schema: msgspec.Raw = msgspec.Raw(b"")
    key_properties: msgspec.Raw = msgspec.Raw(b"")
    bookmark_properties: msgspec.Raw = msgspec.Raw(b"")
    version: msgspec.Raw = msgspec.Raw(b"")
    time_extracted: msgspec.Raw = msgspec.Raw(b"")
    encoding: msgspec.Raw = msgspec.Raw(b"")
    manifest: msgspec.Raw = msgspec.Raw(b"")


class _Encoding(msgspec.Struct, gc=False):
    format: str
    compression: str | None = None


class _Syncing(msgspec.Struct, gc=False):
    currently_syncing: msgspec.Raw = msgspec.Raw(b"")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_syncing = msgspec.json.Decoder(_Syncing).decode
_decode_schema = msgspec.json.Decoder(dict[str, Any]).decode
_decode_names = msgspec.json.Decoder(list[str] | None).decode
_decode_name_or_names = msgspec.json.Decoder(list[str] | str | None).decode
_decode_encoding = msgspec.json.Decoder(_Encoding).decode
_decode_manifest = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_version = msgspec.json.Decoder(int).decode
_NamesDecoder = Callable[..., list[str] | str | None]


class MessageParser:
    """Lines to messages, one by one; remembers the line that it is at.

    Args:
        keep_time_extracted: See ``read_messages``.
        watch_time_extracted: See ``read_messages``.
        begins_input: Whether the first line is that of the input, where a byte order mark may be.

    Attributes:
        line: The last line that was parsed.
    """

    def __init__(
        self,
        *,
        keep_time_extracted: bool = False,
        watch_time_extracted: bool = False,
        begins_input: bool = True,
    ) -> None:
        self.line = 0
        self._begins_input = begins_input
        self._keep_time_extracted = keep_time_extracted
        self._watch_time_extracted = watch_time_extracted

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
            message = self.parse_line(line, self.line + 1, last=last and not lines)
            if isinstance(message, RecordLine):
                run = newest.get(message.stream)
                if run is None or run.version != message.version:
                    run = newest[message.stream] = RecordRun(message.stream, message.version)
                    runs.append(run)
                run.add(message)
            elif message is not None:
                yield from runs
                runs, newest = [], {}
                yield message
        yield from runs

    def parse_line(
        self, line: bytes, number: int, *, last: bool = False
    ) -> RecordLine | OtherMessage | None:
        """Parse a line.

        Args:
            line: The line, with or without its end.
            number: Its number in the input.
            last: Whether the end of the input may have cut it.

        Returns:
            What it says; None of a blank line.

        Raises:
            InputError: It is no Singer message.
        """
        self.line = number
        if not line or line.isspace():
            return None
        message, text, not_finite, surrogates = self._decode(line, last=last)
        kind = message.type
        if kind == "RECORD":
            stream, version = self._record(message)
            kept = b""
            if self._keep_time_extracted:
                kept = bytes(message.time_extracted) or _NULL
            watched = bytes(message.time_extracted) if self._watch_time_extracted else b""
            return RecordLine(
                number,
                stream,
                version,
                bytes(message.record),
                not_finite,
                surrogates,
                kept,
                watched,
            )
        if kind == "STATE" and text not in line:
            raise InputError(
                "TC-INPUT-03",
                f"The STATE message in line {self.line} is not JSON, and cannot be handed back "
                "as it is.",
            )
        return self._other(kind, message)

    def _decode(self, line: bytes, *, last: bool) -> tuple[_Envelope, bytes, int, int]:
        """Decode a line; return its text as it was decoded, and what was repaired in it."""
        text, not_finite, surrogates = line, 0, 0
        if self.line == 1 and self._begins_input and line.startswith(BYTE_ORDER_MARK):
            text = line[len(BYTE_ORDER_MARK) :]
        try:
            try:
                message = _decode_envelope(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                text, not_finite, surrogates = repair(text)
                message = self._decode_again(text, last=last)
            twice = text.count(b'"type"') != 1
            if twice or (b"\\u00" in text and _ESCAPED_TYPE.search(text)):
                self._refuse_two_types(text, message)
        except RecursionError:
            raise InputError(
                "TC-INPUT-01", f"Line {self.line} is nested too deeply to be read."
            ) from None
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
        """Refuse a message that is of two types: readers would differ on its meaning."""
        inner = bytes(message.record or message.schema)
        once = text.count(b'"type"') - inner.count(b'"type"') == 1
        if once and not _ESCAPED_TYPE.search(text):
            return
        types: set[str] = set()

        def remember(pairs: list[tuple[str, Any]]) -> None:
            types.clear()  # the outermost object comes last
            types.update(value for name, value in pairs if name == "type" and type(value) is str)

        shown = text.decode(errors="replace")  # what is not UTF-8 is none of a type
        json.loads(shown, object_pairs_hook=remember, parse_int=str, parse_float=str)
        if len(types) > 1:
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

    def _other(self, kind: str, message: _Envelope) -> OtherMessage:
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
            return self._batch(message)
        raise InputError(
            "TC-INPUT-04",
            f"The message in line {self.line} has a type that Singer does not define.",
        )

    def _batch(self, message: _Envelope) -> BatchMessage:
        stream = self._stream(message)
        try:
            encoding = _decode_encoding(message.encoding or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._malformed_batch(stream, 'no `encoding` like {"format": "jsonl"}') from None
        try:
            manifest = _decode_manifest(message.manifest or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._malformed_batch(stream, "no `manifest` that lists files") from None
        version = self._version(message) if message.version else None
        return BatchMessage(
            self.line, stream, encoding.format, encoding.compression, manifest, version
        )

    def _malformed_batch(self, stream: str, fault: str) -> InputError:
        return InputError(
            "TC-INPUT-11",
            f"The BATCH of stream `{stream}` in line {self.line} has {fault}.",
            SEND_RECORDS,
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
            # What is neither a stream nor null says nothing.
            names_syncing=bool(syncing) and (name is None or isinstance(name, str)),
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
        keys = self._names(stream, "key_properties", message.key_properties, _decode_names)
        bookmarks = self._names(
            stream, "bookmark_properties", message.bookmark_properties, _decode_name_or_names
        )
        return SchemaMessage(self.line, stream, schema, keys, stream, bookmarks)

    def _names(
        self, stream: str, field_name: str, raw: msgspec.Raw, decode: _NamesDecoder
    ) -> tuple[str, ...]:
        try:
            names = decode(raw or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InputError(
                "TC-INPUT-03",
                f"The `{field_name}` of stream `{stream}` in line {self.line} are no list of "
                "names.",
            ) from None
        return (names,) if isinstance(names, str) else tuple(names or ())


_ESCAPED_TYPE = re.compile(rb"\\u00(?:74|79|70|65)")  # a letter of "type", needlessly escaped
