"""What came back over HTTP, read within bounds.

Hides compression, pages of things that stand between, and the shapes of error bodies. Guarantees:
no answer, whatever is in it, takes more memory than ``limits.ANSWER_LIMIT_BYTES`` for its body, or
raises anything but a ``RemoteError``. Must not know: what was asked, or whether to ask again.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from target_celonis import limits
from target_celonis.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECONDS_OF_HOUR = 3600.0
_PAGES = ("text/html", "application/xhtml+xml")
_COMPRESSED = ("gzip", "x-gzip", "deflate")
_UNREADABLE = (ValueError, RecursionError)  # no JSON, or nested too deep for any use


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        body: At most ``limits.ANSWER_LIMIT_BYTES`` of it.
        told_pause_seconds: The pause that a 429 asks for, if it names one.
        is_page: Whether it is a web page, which Celonis never answers with.
    """

    status: int
    body: bytes = field(repr=False)  # may hold a token
    told_pause_seconds: float | None = None
    is_page: bool = False

    @property
    def ok(self) -> bool:
        """Whether the request was done."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def json(self) -> Any:  # the caller checks the form
        """Return the body's JSON.

        Raises:
            RemoteError: The body is none.
        """
        try:
            return msgspec.json.decode(self.body)
        except _UNREADABLE:
            raise RemoteError(
                "TC-REMOTE-05",
                f"Celonis answered with status {self.status} and a body that is not JSON.",
                "Check that `base_url` is the address of a Celonis team.",
            ) from None

    def explanation(self) -> str:
        """Return what an error body says, in any of the shapes that Celonis uses."""
        try:
            content = msgspec.json.decode(self.body)
        except _UNREADABLE:
            return ""
        if not isinstance(content, dict):
            return ""
        errors = content.get("errors")
        if isinstance(errors, list):
            found = [_text(e.get("error")) for e in errors if isinstance(e, dict)]
            return "; ".join(text for text in found if text)[:500]
        names = ("message", "detail", "errorInformation", "error", "title")
        text = next((str(content[n]) for n in names if isinstance(content.get(n), str)), "")
        reference = _text(content.get("reference"))
        return (f"{text} (reference {reference})" if reference else text)[:500]


def _text(value: Any) -> str:
    """Return a plain value as a text; a nested one may be too deep for it."""
    return str(value) if isinstance(value, str | int | float) else ""


def read_answer(
    status: int, headers: Mapping[str, str], pieces: Iterable[bytes], now: float
) -> Answer:
    """Read an answer; what is behind the limit is left.

    Args:
        status: HTTP status.
        headers: Its headers, of any case.
        pieces: The body as it comes, not decoded.
        now: Seconds since the epoch.
    """
    limit = limits.ANSWER_LIMIT_BYTES
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) >= limit:
            del content[limit:]
            break
    body = bytes(content)
    if headers.get("Content-Encoding", "").strip().lower() in _COMPRESSED:  # unasked for
        with suppress(zlib.error):  # then it is whatever it is
            body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, limit)
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Answer(
        status=status,
        body=body,
        told_pause_seconds=told_pause_seconds(headers, now),
        is_page=kind in _PAGES and bool(body.strip()),
    )


def told_pause_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Return the pause that a 429 asks for.

    Args:
        headers: ``x-ratelimit-reset`` is in seconds; ``Retry-After`` in seconds or a date.
        now: Seconds since the epoch.
    """
    for name in ("x-ratelimit-reset", "retry-after"):
        told = headers.get(name, "")
        try:
            seconds = float(told)
        except ValueError:
            seconds = _seconds_until(told, now) if name == "retry-after" else -1.0
        if 0 <= seconds <= _SECONDS_OF_HOUR:
            return max(seconds, 0.1)
    return None


def _seconds_until(date: str, now: float) -> float:
    """Return the seconds until an HTTP date; less than zero if it is none."""
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:  # "-0000": no zone is named
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return -1.0
