"""What happened in a run, counted, for people.

Guarantees: ``check_sums`` raises when a record is unaccounted for. Must not know: how any of it
came about.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from target_celonis.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable


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

    @property
    def accounted(self) -> int:
        """Records that are known to be in one of the counts, those not loaded apart."""
        return self.loaded + self.merged + self.deleted + self.superseded + self.filtered


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
