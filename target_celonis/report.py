"""What happened in a run, counted, for people and as JSON.

Hides how the report is laid out, as lines and as JSON, and how its file is written. Guarantees:
``check_sums`` raises when a record is unaccounted for; a report's file is whole or not there, for
its owner alone (0600), and fits ``docs/report.schema.json``. Must not know: how any of it came
about.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from target_celonis.errors import InternalError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REPORT_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""

NEAR_LIMIT_PERCENT = 80
"""A column is named from this share of its declared length on."""

_NAMED = 10
"""Columns that a line names."""


@dataclass
class StreamReport:
    """The records of one stream. Each record read is in exactly one of the other counts.

    Attributes:
        stream: The stream's name.
        table: Its table.
        read: Records read.
        loaded: Rows in jobs that are DONE.
        merged: Older versions of a key, left out of the same push.
        deleted: Records that deleted a row, or kept it out of a table that was replaced.
        superseded: Records of an older version of a table that was sent in full.
        filtered: Records that a stream map left out.
        not_loaded: Records whose push did not come to its end.
        jobs: Push jobs that are DONE.
        chunks: Chunks uploaded.
        uploaded_bytes: Their size.
        length_unverified: Whether the table's column lengths could not be read.
        rules: How often each rule for odd values was applied, by property and rule.
        job_ids: The push jobs that are DONE, in order.
        texts: Characters of the longest text that was pushed, and the length that was declared,
            by name of the STRING column.
        failure: Code of the error that the stream's push failed with; empty where it did not.
    """

    stream: str
    table: str
    read: int = 0
    loaded: int = 0
    merged: int = 0
    deleted: int = 0
    superseded: int = 0
    filtered: int = 0
    not_loaded: int = 0
    jobs: int = 0
    chunks: int = 0
    uploaded_bytes: int = 0
    length_unverified: bool = False
    rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    job_ids: list[str] = field(default_factory=list)
    texts: dict[str, tuple[int, int]] = field(default_factory=dict)
    failure: str = ""

    @property
    def accounted(self) -> int:
        """Records that are known to be in one of the counts, those not loaded apart."""
        return self.loaded + self.merged + self.deleted + self.superseded + self.filtered

    def near_limit(self) -> list[tuple[str, int, int]]:
        """Return the columns whose texts come near the declared length: name, longest, length."""
        return [
            (name, longest, length)
            for name, (longest, length) in sorted(self.texts.items())
            if longest * 100 >= length * NEAR_LIMIT_PERCENT
        ]


@dataclass(frozen=True)
class RunReport:
    """A run that has ended, well or not.

    Attributes:
        version: Of this program.
        run_id: What the run was called.
        started_at: Seconds since the epoch.
        ended_at: Seconds since the epoch.
        exit_code: The program's.
        error: Code, sentence and next step of the error that ended the run; None where none did.
        team: Host of the Celonis team, or ``embedded``.
        data_pool_id: The data pool.
        connection_id: The data connection; None for the pool's global schema.
        streams: The counts, by stream.
        waits: Seconds that were waited, by what was waited for.
        submits_used: Push jobs that this run executed.
        states_read: STATE messages read.
        states_released: States handed out.
        last_state_line: Number of the input line of the last state handed out.
        notices: Sentences that people should read.
        publish: What data jobs and data model loads came to.
    """

    version: str
    run_id: str
    started_at: float
    ended_at: float
    exit_code: int
    error: tuple[str, str, str] | None
    team: str
    data_pool_id: str
    connection_id: str | None
    streams: tuple[StreamReport, ...]
    waits: Mapping[str, float]
    submits_used: int
    states_read: int
    states_released: int
    last_state_line: int | None
    notices: tuple[str, ...]
    publish: tuple[Mapping[str, Any], ...] = ()


def check_sums(streams: Iterable[StreamReport]) -> None:
    """Make sure that every record read is accounted for.

    Raises:
        InternalError: One is not.
    """
    for report in streams:
        counted = report.accounted + report.not_loaded
        if report.read != counted:
            raise InternalError(
                "TC-INTERNAL-01",
                f"Stream `{report.stream}`: {report.read} records were read and {counted} are "
                "accounted for.",
                "Please report this as a bug, with the log.",
            )


# --- for people


def closing_table(streams: Iterable[StreamReport]) -> list[str]:
    """Return the run as a table of text lines, the widest value deciding each column's width."""
    head = (
        "stream",
        "table",
        "read",
        "loaded",
        "merged",
        "deleted",
        "superseded",
        "filtered",
        "not loaded",
        "jobs",
        "chunks",
        "MB",
    )
    rows = [
        (
            report.stream,
            report.table,
            str(report.read),
            str(report.loaded),
            str(report.merged),
            str(report.deleted),
            str(report.superseded),
            str(report.filtered),
            str(report.not_loaded),
            str(report.jobs),
            str(report.chunks),
            f"{report.uploaded_bytes / 1e6:.1f}",
        )
        for report in streams
    ]
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    texts = 2  # the first columns are texts, the others numbers
    return [
        "  ".join(
            cell.ljust(width) if index < texts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in (head, *rows)
    ]


def closing_lines(report: RunReport) -> list[str]:
    """Return what is said at the end of a run; nothing of it names what a good run has not."""
    lines = closing_table(report.streams) if report.streams else []
    failed = [f"{one.stream} ({one.failure})" for one in report.streams if one.failure]
    if failed:
        lines.append(f"Not loaded to the end: {_some(failed)}.")
    waits = sorted(
        ((seconds, cause) for cause, seconds in report.waits.items() if seconds >= 1),
        key=lambda wait: -wait[0],
    )
    if waits:
        said = ", ".join(f"{seconds:.0f} s for {cause}" for seconds, cause in waits)
        lines.append(f"Waited {said}.")
    near = [
        f"{one.table}.{name} ({longest} of {length})"
        for one in report.streams
        for name, longest, length in one.near_limit()
    ]
    if near:
        lines.append(f"Texts near the length of their column: {_some(near)}.")
    return [*lines, *report.notices]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


# --- as JSON


def as_json(report: RunReport) -> dict[str, Any]:
    """Return the report as it is written, its keys in the order of the documents."""
    shown: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "version": report.version,
        "run_id": report.run_id,
        "started_at": _moment(report.started_at),
        "ended_at": _moment(report.ended_at),
        "duration_seconds": round(max(0.0, report.ended_at - report.started_at), 3),
        "exit_code": report.exit_code,
        "error": None,
        "team": _host(report.team),
        "data_pool_id": report.data_pool_id,
        "connection_id": report.connection_id,
        "streams": [_stream(stream) for stream in report.streams],
        "waits": [
            {"cause": cause, "seconds": round(seconds, 3)}
            for cause, seconds in sorted(report.waits.items(), key=lambda wait: -wait[1])
        ],
        "submits_used": report.submits_used,
        "states_read": report.states_read,
        "states_released": report.states_released,
        "last_state_line": report.last_state_line,
        "notices": list(report.notices),
    }
    if report.error is not None:
        code, sentence, next_step = report.error
        shown["error"] = {"code": code, "sentence": sentence, "next_step": next_step}
    if report.publish:
        shown["publish"] = [dict(one) for one in report.publish]
    return shown


def _stream(report: StreamReport) -> dict[str, Any]:
    return {
        "name": report.stream,
        "table": report.table,
        "read": report.read,
        "loaded": report.loaded,
        "merged": report.merged,
        "deleted": report.deleted,
        "superseded": report.superseded,
        "filtered": report.filtered,
        "not_loaded": report.not_loaded,
        "chunks": report.chunks,
        "uploaded_bytes": report.uploaded_bytes,
        "jobs": list(report.job_ids),
        "columns_near_limit": [
            {"column": name, "longest": longest, "length": length}
            for name, longest, length in report.near_limit()
        ],
        "length_unverified": report.length_unverified,
        "rules": [
            {"rule": rule, "property": name, "count": count}
            for (name, rule), count in sorted(report.rules.items(), key=lambda item: item[0][::-1])
        ],
        "failure": report.failure,
    }


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return moment.removesuffix("+00:00") + "Z"


def _host(team: str) -> str:
    """Return the host of an address that may be more than that; never what logs in."""
    parts = urlsplit(team if "://" in team else f"//{team}")
    return parts.netloc.rpartition("@")[2]


# --- its file


def check_report_path(path: Path) -> None:
    """Make sure, before a run begins, that its report can be written at the end.

    Raises:
        SettingsError: There is no directory for it, or one that cannot be written, or something
            that is no file stands in its place.
    """
    place = path.resolve()
    reason = ""
    if place.exists() and not place.is_file():
        reason = "which is not a file"
    elif not place.parent.is_dir():
        reason = "whose directory does not exist"
    else:
        try:
            descriptor, name = _beside(place)
            os.close(descriptor)
            Path(name).unlink()
        except OSError as error:
            reason = f"which cannot be written ({error.strerror or 'unknown reason'})"
    if reason:
        raise SettingsError(
            "TC-SETTINGS-03",
            f"The setting `report_path` names {path}, {reason}.",
            "Name a file in a directory that this user may write.",
        )


def write_report(path: Path, report: RunReport, redact: Callable[[str], str] = str) -> None:
    """Write the report as JSON: whole, or not at all.

    Args:
        path: Where; a report that is there is replaced.
        report: The report.
        redact: Applied to every text in it.

    Raises:
        OSError: It cannot be written; what was there before still is.
    """
    text = json.dumps(_redacted(as_json(report), redact), ensure_ascii=False, indent=2) + "\n"
    place = path.resolve()  # a link stays one
    descriptor, name = _beside(place)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # Half of a surrogate pair, which no encoding has, becomes its escape in JSON.
            file.write(text.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _beside(place: Path) -> tuple[int, str]:
    """Make a file, for its owner alone, that can be renamed to ``place``."""
    return tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(item, redact) for name, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, redact) for item in value]
    return value
