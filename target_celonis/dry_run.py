"""A route that leads nowhere: everything is done but speaking to Celonis.

Hides how a plan is gathered and printed. Guarantees: nothing is sent; what is planned went through
the same conversion, the same merge and the same rules for lengths as a real push; where chunks are
to be kept, they are those that would be uploaded. Must not know: the network, states.
"""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

from target_celonis.celonis import JobType
from target_celonis.contract import Terms, cut_lengths, terms
from target_celonis.errors import unwritable
from target_celonis.route import (
    Listing,
    OpenJob,
    OpenPush,
    PushTask,
    Receipt,
    longest_texts,
    merge_task,
    receipt_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.config import Config
    from target_celonis.spool import Chunk


class DryRun:
    """Stands in for the way into Celonis.

    Args:
        config: Settings.
        keep: Where chunks are kept; None to drop them.
    """

    def __init__(self, config: Config, keep: Path | None) -> None:
        self.planned: list[OpenPush] = []
        self._config = config
        self._keep = keep
        self._opening = threading.Lock()
        self._tables: dict[str, str] = {}

    def look(self) -> Listing:
        """Know of no table."""
        return Listing(None)

    def open(self, task: PushTask, listing: Listing) -> OpenPush:  # noqa: ARG002  # the route's form
        """Merge a table's chunks and measure them."""
        plan = task.plan
        with self._opening:
            cuts = cut_lengths(plan, (), self._config)
            merged = merge_task(task, plan, self._config, cuts)
            longest = longest_texts((*merged.chunks, *merged.deleted))
            agreed: Terms = terms(plan, longest, None, self._config)
            jobs = []
            if merged.chunks:
                jobs.append(OpenJob(self._number(0), task.type, merged.chunks))
            if merged.deleted and task.type is JobType.DELTA:
                number = self._number(len(jobs))
                jobs.append(OpenJob(number, task.type, merged.deleted, deletes=True))
            push = OpenPush(task, tuple(jobs), merged, agreed, length_verified=False)
            self.planned.append(push)
            for job in jobs:
                self._tables[job.id] = plan.table
        return push

    def _number(self, more: int) -> str:
        return f"{sum(len(push.jobs) for push in self.planned) + 1 + more:03d}"

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Keep a chunk, or drop it."""
        job.confirmed.append(chunk)
        if self._keep is None:
            return
        number = job.chunks.index(chunk) + 1
        directory = self._keep / self._tables[job.id]
        try:
            for path in (self._keep, directory):
                path.mkdir(mode=0o700, exist_ok=True)
            shutil.move(chunk.path, directory / f"{job.id}-{number:04d}.parquet")
        except OSError as error:
            raise unwritable(self._keep, error) from None

    def all_arrived(self, push: OpenPush) -> bool:  # noqa: ARG002  # the route's form
        """Miss no chunk."""
        return True

    def end(self) -> None:
        """Nothing is carried out anyway."""

    def wait_seconds(self, pushes: int) -> float:  # noqa: ARG002  # the route's form
        """Ask for no wait."""
        return 0.0

    def pace_seconds(self, pushes: int) -> float:  # noqa: ARG002  # the route's form
        """Ask for no pause."""
        return 0.0

    def commit(self, push: OpenPush) -> Receipt:
        """Return what a real push would."""
        return receipt_of(push)

    def abort(self, push: OpenPush) -> None:
        """Forget a push."""


def plan_lines(planned: Sequence[OpenPush]) -> list[str]:
    """Return a plan as lines for people."""
    lines = []
    for push in planned:
        plan = push.task.plan
        receipt = receipt_of(push)
        rows, older, deleted = receipt.loaded_rows, receipt.superseded_rows, receipt.deleted_rows
        keys = ", ".join(column.name for column in plan.keys) or "none"
        lines += [
            f"stream {plan.stream} -> table {plan.table}",
            f"  push job   {push.task.type}, keys: {keys}",
            f"  rows       {rows}, and {older} older versions of their keys left out",
            f"  deletes    {deleted}",
            f"  chunks     {receipt.chunks}, {receipt.uploaded_bytes / 1e6:.1f} MB",
            f"  submits    {len(push.jobs)}",
            "  columns",
        ]
        width = max(len(column.name) for column in plan.columns)
        for column in plan.columns:
            length = push.terms.lengths.get(column.name)
            kind = column.celonis_type if length is None else f"{column.celonis_type}({length})"
            lines.append(f"    {column.name:<{width}}  {kind}")
    submits = sum(len(push.jobs) for push in planned)
    lines.append(f"{submits} push jobs in all. Nothing was sent to Celonis.")
    return lines
