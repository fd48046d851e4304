"""One decoder for the records of all streams that come at a time.

Hides which streams are in it, what becomes of a line that it refuses, and that structs change when
records turn out to differ from their SCHEMA. Guarantees: what is decoded is a RECORD of a stream
that was set, proven by its struct. Must not know: blocks, columns, files.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Union

import msgspec

from target_celonis.typed import Intake, TypedStream, UntypedError

if TYPE_CHECKING:
    from collections.abc import Callable

UNDECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for a line that it refuses."""

_MOST_ACTIVE = 32
"""Streams in one decoder, above which those that were not seen of late are left out again."""
_LATE_SEGMENTS = 50


class RestartError(Exception):
    """A stream's struct is another now, and lines decoded before must be decoded again."""


class Streams:
    """The streams that were set, and the decoder of those whose records come.

    Attributes:
        intakes: What was set, by stream.
        decode: Decodes a line to the struct of its stream; None while no stream is active.
        by_type: The active streams, by the struct of their messages.
        active: In which segment records of an active stream were seen last.
        announced: Streams that a SCHEMA was seen of.
        segments: How many segments there were.
        syncing: What ``currently_syncing`` was in the last state of the block, as a tuple of one;
            None where none had it.
    """

    def __init__(self, *, is_fast: bool) -> None:
        self.intakes: dict[str, Intake] = {}
        self.decode: Callable[[bytes], Any] | None = None
        self.by_type: dict[type, TypedStream] = {}
        self.active: dict[str, int] = {}
        self.announced: set[str] = set()
        self.segments = 0
        self.syncing: tuple[str | None] | None = None
        self._is_fast = is_fast
        self._typed: dict[str, TypedStream] = {}

    def set(self, intake: Intake) -> bool:
        """Set a stream; return whether that changes anything."""
        if self.intakes.get(intake.stream) == intake:
            return False
        self.intakes[intake.stream] = intake
        self._typed.pop(intake.stream, None)
        if self._is_fast:
            with suppress(UntypedError):
                self._typed[intake.stream] = TypedStream(intake)
        if self.active.pop(intake.stream, None) is not None:
            self._build()
        return True

    def _build(self) -> None:
        """Make the decoder of all streams that are active."""
        active = [self._typed[name] for name in self.active]
        is_lone = len(active) == 1
        self.by_type = {each.lone_type if is_lone else each.message_type: each for each in active}
        types = tuple(self.by_type)
        union = Union[types] if types else None  # noqa: UP007  # of a tuple
        self.decode = msgspec.json.Decoder(union).decode if types else None

    def _activate(self, stream: str) -> None:
        """Have a stream in the decoder.

        Raises:
            RestartError: Lines of others may have been decoded that are to be decoded anew.
        """
        before = len(self.active)
        if before >= _MOST_ACTIVE:
            oldest = self.segments - _LATE_SEGMENTS
            self.active = {name: seen for name, seen in self.active.items() if seen >= oldest}
        is_other_now = before == 1 or len(self.active) < before
        self.active[stream] = self.segments
        self._build()
        if is_other_now:
            raise RestartError

    def decode_again(self, line: bytes, refusal: str) -> Any | None:  # a struct
        """Try a refused line once more, if its stream's struct was not among those tried.

        Raises:
            RestartError: Structs had to change; that may have been all.
        """
        try:
            head = _decode_head(line)
        except UNDECODED:
            return None
        stream = head.stream or ""
        typed = self._typed.get(stream) if head.type == "RECORD" else None
        if typed is None:
            return None
        if stream not in self.active or self.decode is None:
            self._activate(stream)
            try:
                return self.decode(line) if self.decode is not None else None
            except UNDECODED as error:
                refusal = str(error)
        if typed.adapt(refusal):
            self._build()
            raise RestartError
        return None


class _Head(msgspec.Struct, gc=False):
    type: str
    stream: str | None = None


_decode_head = msgspec.json.Decoder(_Head).decode
