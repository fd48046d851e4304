"""The files of BATCH messages become runs of records.

Hides how taps name files, compression (told by a file's first bytes, never by its name or by the
message), and reading by blocks. Guarantees: each line of a file is one record, or blank; memory is
bounded by the block and the longest line allowed, however small a file makes itself; records come
as those of stdin do, repaired and counted alike; a fault is an ``InputError`` that names stream,
message, file and line, but no value. Must not know: tables, what a record holds.

Files are read once, when their message comes, and are left where they are: the Singer SDK's own
targets do not remove them either, and a run that fails needs them again.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import stat
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, cast
from urllib.parse import unquote_to_bytes

import msgspec

from target_celonis.errors import InputError
from target_celonis.lines import (
    BLOCK_BYTES,
    BYTE_ORDER_MARK,
    LineSplitter,
    line_too_long,
    repair,
)
from target_celonis.messages import SEND_RECORDS, BatchMessage, Idle, RecordRun, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from target_celonis.messages import Message

logger = logging.getLogger("target-celonis")

M = TypeVar("M")

RUN_RECORDS = 4_000
"""Records of a run, at most: a signal is heard between two runs."""

_GZIP = b"\x1f\x8b"
_COMPRESSIONS = (None, "none", "gzip")
_SHOWN_CHARACTERS = 300

_check = msgspec.json.Decoder(msgspec.Raw).decode


def with_batch_files(
    messages: Iterable[M | Message], line_limit_bytes: int
) -> Iterator[M | Message]:
    """Yield messages, behind each BATCH the records of its files.

    Raises:
        InputError: As of ``read_batch``.
    """
    for message in messages:
        yield message
        if isinstance(message, BatchMessage):
            yield from read_batch(message, line_limit_bytes)


def read_batch(message: BatchMessage, line_limit_bytes: int) -> Iterator[RecordRun | Idle]:
    """Read the files of a BATCH message.

    Args:
        message: Names them.
        line_limit_bytes: No line may be longer.

    Yields:
        Runs of at most ``RUN_RECORDS`` records out of one block; ``Idle`` for a block in which
        no record ends.

    Raises:
        InputError: A file is not local, cannot be read, or holds a line that is no JSON object.
    """
    if message.format != "jsonl":
        raise _untaken(message, f"the format {_word(message.format)}", "`jsonl`")
    if message.compression not in _COMPRESSIONS:
        raise _untaken(
            message, f"the compression {_word(message.compression)}", "`gzip`, `none` or null"
        )
    files = [_BatchFile(message, name, line_limit_bytes) for name in message.manifest]
    for file in files:
        yield from file.runs()


class _BatchFile:
    """A file of a batch, read from its first line to its last.

    Args:
        message: The message that names it.
        name: Its name there.
        line_limit_bytes: No line may be longer.

    Raises:
        InputError: It is not local.
    """

    def __init__(self, message: BatchMessage, name: str, line_limit_bytes: int) -> None:
        self._message = message
        self._path = _path(message, name)
        self._shown = _shown(name)
        self._line_limit_bytes = line_limit_bytes
        self._line = 0
        self._records = 0

    def runs(self) -> Iterator[RecordRun | Idle]:
        """Yield its records.

        Raises:
            InputError: It cannot be read, or a line is no JSON object.
        """
        splitter = LineSplitter()
        for block in self._blocks():
            records = self._records
            yield from self._runs_of(splitter.add(block))
            if splitter.held_bytes > self._line_limit_bytes:
                self._line += 1
                raise line_too_long(f"{self._place()} it", self._line_limit_bytes)
            if records == self._records:
                yield Idle()
        yield from self._runs_of(splitter.rest(), last=True)
        if not self._records:
            logger.warning(
                "Stream %s: the batch file %s (line %d) holds no records.",
                self._message.stream,
                self._shown,
                self._message.line,
            )

    def _blocks(self) -> Iterator[bytes]:
        """Yield its bytes, decompressed."""
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise self._unreadable("is no regular file")
            file: IO[bytes] = self._path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise self._unreadable("is not there") from None
        except (OSError, ValueError) as error:
            raise self._unreadable(f"cannot be opened ({_reason(error)})") from None
        with file:
            reader = file
            if self._read(file, len(_GZIP)) == _GZIP:
                reader = cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb"))
            file.seek(0)
            while block := self._read(reader, BLOCK_BYTES):
                yield block

    def _read(self, reader: IO[bytes], size_bytes: int) -> bytes:
        try:
            return reader.read(size_bytes)
        except EOFError:
            fault = "is compressed by gzip, and its end is missing"
        except (gzip.BadGzipFile, zlib.error):
            fault = "is compressed by gzip, and damaged"
        except OSError as error:
            fault = f"cannot be read ({_reason(error)})"
        raise self._unreadable(f"{fault}, behind line {self._line}")

    def _runs_of(self, lines: list[bytes], *, last: bool = False) -> Iterator[RecordRun]:
        """Make runs of lines, emptying the list from behind."""
        while lines:
            run = RecordRun(
                self._message.stream,
                self._message.version,
                file=self._shown,
                message_line=self._message.line,
            )
            while lines and len(run.records) < RUN_RECORDS:
                line = lines.pop()
                self._line += 1
                if self._line == 1 and line.startswith(BYTE_ORDER_MARK):
                    line = line[len(BYTE_ORDER_MARK) :]
                if not line or line.isspace():
                    continue
                self._take(line.strip(b" \t\r"), run, last=last)
            if run.records:
                self._records += len(run.records)
                yield run

    def _take(self, text: bytes, run: RecordRun, *, last: bool) -> None:
        """Add a line's record to a run."""
        try:
            try:
                _check(text)
            except msgspec.DecodeError:
                text, not_finite, surrogates = repair(text)
                run.not_finite += not_finite
                run.surrogates += surrogates
                _check(text)
            if not text.startswith(b"{"):
                raise self._no_object()
        except RecursionError:
            raise InputError(
                "TC-INPUT-01",
                f"{self._place()} it is nested too deeply to be read.",
                SEND_RECORDS,
            ) from None
        except msgspec.DecodeError:
            if not last:
                raise self._no_object() from None
            raise InputError(
                "TC-INPUT-02",
                f"{self._place()} the file ends in the middle of it.",
                "The tap was cut off while it wrote the file; look at its own log.",
            ) from None
        run.records.append(text)
        run.lines.append(self._line)

    def _no_object(self) -> InputError:
        return InputError(
            "TC-INPUT-01",
            f"{self._place()} it is not a JSON object.",
            "Each line of a batch file must be one record; otherwise, remove `batch_config` from "
            "the tap's configuration, so that it sends records.",
        )

    def _place(self) -> str:
        """Return where reading is, to begin a sentence."""
        line = place_of(self._line, self._shown, self._message.line)
        return f"Stream `{self._message.stream}`, {line}:"

    def _unreadable(self, fault: str) -> InputError:
        advice = "A batch file must stay on a disk that tap and target share until it is loaded"
        if not self._path.is_absolute():
            advice = f"The name is relative to the directory that the target runs in. {advice}"
        return InputError(
            "TC-INPUT-12",
            f"Stream `{self._message.stream}`: the batch file {self._shown} "
            f"(line {self._message.line}) {fault}.",
            f"{advice}; otherwise, remove `batch_config` from the tap's configuration.",
        )


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?=/)")


def _path(message: BatchMessage, name: str) -> Path:
    """Return the path that a manifest's entry means.

    Taps write ``file://`` and a path, some with percent-escapes and some without: where nothing
    has the name as it stands, it is unescaped. A plain path is one, too.

    Raises:
        InputError: It is elsewhere.
    """
    scheme = _SCHEME.match(name)
    if scheme is None:
        return Path(name)
    if scheme[1].lower() != "file":
        # The rest of such an address may hold a key.
        raise _untaken(message, f"a file at {scheme[1][:20]}://", "local files")
    rest = re.sub(r"^//(localhost(?=/))?", "", name[scheme.end() :])
    unescaped = Path(os.fsdecode(unquote_to_bytes(rest)))
    try:
        return Path(rest) if "%" not in rest or Path(rest).exists() else unescaped
    except (OSError, ValueError):
        return unescaped


def _untaken(message: BatchMessage, what: str, taken: str) -> InputError:
    return InputError(
        "TC-INPUT-11",
        f"The BATCH of stream `{message.stream}` in line {message.line} has {what}; this target "
        f"takes {taken}.",
        "Change `batch_config` in the tap's configuration, or remove it, so that the tap sends "
        "records.",
    )


def _word(word: str | None) -> str:
    """Return a format's name to be shown, if it can be one."""
    return f"`{word}`" if re.fullmatch(r"[\w.+-]{1,40}", word or "") else "that it names"


def _shown(name: str) -> str:
    """Return a file's name on one line."""
    name = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..."


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or type(error).__name__).rstrip(".")
