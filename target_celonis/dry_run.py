"""A route that leads nowhere: everything is done but speaking to Celonis.

Hides how a plan is gathered and printed. Guarantees: nothing is sent; what is planned went through
the same conversion, the same merge and the same rules for lengths as a real push; where chunks are
to be kept, they are those that would be uploaded. Must not know: the network, states.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from target_celonis.push import (
    Listing,
    OpenJob,
    PushTask,
    Receipt,
    column_lengths,
    longest_texts,
    merge_task,
    receipt_of,
)
from target_celonis.spool import unwritable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.config import Config
    from target_celonis.spool import Chunk


@dataclass(frozen=True)
class Planned:
    """A push job that would be created, and executed once.

    Attributes:
        job: What it would hold.
        lengths: Length to declare, by name of each text column.
    """

    job: OpenJob
    lengths: dict[str, int]


class DryRun:
    """Stands in for the way into Celonis.

    Args:
        config: Settings.
        keep: Where chunks are kept; None to drop them.
    """

    def __init__(self, config: Config, keep: Path | None) -> None:
        self.planned: list[Planned] = []
        self._config = config
        self._keep = keep
        self._opening = threading.Lock()

    def look(self) -> Listing:
        """Know of no table."""
        return Listing(None)

    def open(self, task: PushTask, listing: Listing) -> OpenJob:  # noqa: ARG002  # the route's form
        """Merge a table's chunks and measure them."""
        with self._opening:
            merged = merge_task(task, self._config)
            lengths = column_lengths(task.plan, longest_texts(merged.chunks))
            number = f"{len(self.planned) + 1:03d}"
            superseded = merged.superseded_rows
            job = OpenJob(task, number, merged.chunks, superseded, length_verified=False)
            self.planned.append(Planned(job, lengths))
        return job

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Keep a chunk, or drop it."""
        if self._keep is None:
            chunk.path.unlink(missing_ok=True)
            return
        number = job.chunks.index(chunk) + 1
        directory = self._keep / job.task.plan.table
        try:
            for path in (self._keep, directory):
                path.mkdir(mode=0o700, exist_ok=True)
            shutil.move(chunk.path, directory / f"{job.id}-{number:04d}.parquet")
        except OSError as error:
            raise unwritable(self._keep, error) from None

    def commit(self, job: OpenJob) -> Receipt:
        """Return what a real job would."""
        return receipt_of(job)

    def abort(self, job: OpenJob) -> None:
        """Forget a job."""


def plan_lines(planned: Sequence[Planned]) -> list[str]:
    """Return a plan as lines for people."""
    lines = []
    for each in planned:
        job, plan = each.job, each.job.task.plan
        receipt = receipt_of(job)
        rows, older = receipt.loaded_rows, receipt.superseded_rows
        keys = ", ".join(column.name for column in plan.keys) or "none"
        lines += [
            f"stream {plan.stream} -> table {plan.table}",
            f"  push job   {job.task.type}, keys: {keys}",
            f"  rows       {rows}, and {older} older versions of their keys left out",
            f"  chunks     {receipt.chunks}, {receipt.uploaded_bytes / 1e6:.1f} MB",
            "  submits    1",
            "  columns",
        ]
        width = max(len(column.name) for column in plan.columns)
        for column in plan.columns:
            length = each.lengths.get(column.name)
            kind = column.celonis_type if length is None else f"{column.celonis_type}({length})"
            lines.append(f"    {column.name:<{width}}  {kind}")
    lines.append(f"{len(planned)} push jobs in all. Nothing was sent to Celonis.")
    return lines
