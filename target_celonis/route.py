"""A way for a table's chunks into Celonis: what passes over it, and the protocol of all such ways.

Hides nothing but how chunks are brought to one row per key. Guarantees: plain values; a ``Receipt``
stands for rows that are loaded. Must not know: how a way is gone, streams' states, threads.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from target_celonis.celonis import JobType
from target_celonis.merge import PARTITION_ROWS, Merged, merge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from target_celonis.celonis import JobSpec, PoolTable, PushJob
    from target_celonis.config import Config
    from target_celonis.contract import Terms
    from target_celonis.spool import Chunk
    from target_celonis.table import TablePlan

_BYTES_PER_SORTED_ROW = 100


@dataclass(frozen=True, eq=False)  # two tasks are never the same
class PushTask:
    """The rows of one table that are to be loaded together.

    Attributes:
        plan: The table.
        type: REPLACE or DELTA.
        chunks: In the order of their records; emptied from disk by the push.
        directory: Empty, for files made on the way.
        rows: Records in the chunks.
        last_line: Number of the input line of their last record.
    """

    plan: TablePlan
    type: JobType
    chunks: tuple[Chunk, ...]
    directory: Path
    rows: int
    last_line: int = 0

    @property
    def appends(self) -> bool:
        """Whether its rows would stand twice, were they loaded again."""
        return self.type is JobType.DELTA and not self.plan.keys

    def discard(self) -> None:
        """Remove its files."""
        shutil.rmtree(self.directory, ignore_errors=True)
        for chunk in self.chunks:
            chunk.path.unlink(missing_ok=True)
            with suppress(OSError):  # others are in it
                chunk.path.parent.rmdir()


@dataclass
class OpenJob:
    """A push job that was created.

    Attributes:
        id: Its id.
        type: REPLACE or DELTA.
        chunks: What it holds.
        deletes: Whether its rows are to be deleted by their keys.
        keyed: Whether a chunk that arrives twice does no harm.
        executed: Whether it was submitted, or may have been.
        confirmed: Chunks that are surely in it.
        in_doubt: Chunks of which this is not known.
    """

    id: str
    type: JobType
    chunks: tuple[Chunk, ...]
    deletes: bool = False
    keyed: bool = False
    executed: bool = False
    confirmed: list[Chunk] = field(default_factory=list)
    in_doubt: list[Chunk] = field(default_factory=list)

    @property
    def wanting(self) -> list[Chunk]:
        """Chunks that were not uploaded yet."""
        had = {chunk.path for chunk in (*self.confirmed, *self.in_doubt)}
        return [chunk for chunk in self.chunks if chunk.path not in had]

    @property
    def rows(self) -> int:
        """Rows in its chunks."""
        return sum(chunk.rows for chunk in self.chunks)


@dataclass
class OpenPush:
    """A task whose jobs are created: one, another for rows to delete, or none at all.

    Attributes:
        task: What was asked for.
        jobs: In the order in which they are to be executed.
        merged: What the chunks came to.
        terms: What was declared of the columns.
        length_verified: Whether the table's column lengths could be read.
        specs: What each job was made by.
        listed_jobs: Jobs that were there before.
        renewals: How often a job was made anew, since chunks of it were in doubt.
    """

    task: PushTask
    jobs: tuple[OpenJob, ...]
    merged: Merged
    terms: Terms
    length_verified: bool
    specs: tuple[JobSpec, ...] = ()
    listed_jobs: tuple[PushJob, ...] = ()
    renewals: int = 0


@dataclass(frozen=True)
class Receipt:
    """Rows that Celonis reported loaded: every job of their push is DONE.

    Attributes:
        task: What was asked for.
        job_ids: The jobs; they are deleted by now.
        loaded_rows: Rows inserted or updated.
        superseded_rows: Rows left out, since a later one of the same push has their key.
        deleted_rows: Rows deleted, or left out of a table that was replaced.
        chunks: How many were uploaded.
        uploaded_bytes: Their size.
        length_verified: Whether the table's column lengths could be read.
        cut_texts: How many texts were cut, by column name.
        texts: Longest text and declared length, in characters, by column name.
    """

    task: PushTask
    job_ids: tuple[str, ...]
    loaded_rows: int
    superseded_rows: int
    deleted_rows: int
    chunks: int
    uploaded_bytes: int
    length_verified: bool
    cut_texts: Counter[str] = field(default_factory=Counter)
    texts: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """What the pool holds at the start of a push.

    Attributes:
        tables: Its tables; None where the key may not list them.
        jobs: Its push jobs on tables of the data connection.
    """

    tables: tuple[PoolTable, ...] | None
    jobs: tuple[PushJob, ...] = ()


class PushRoute(Protocol):
    """A way for a table's chunks into Celonis."""

    def look(self) -> Listing:
        """Read what the pool holds."""
        ...

    def open(self, task: PushTask, listing: Listing) -> OpenPush:
        """Check a table and make the jobs for it."""
        ...

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Hand over one chunk; may be called from several threads."""
        ...

    def all_arrived(self, push: OpenPush) -> bool:
        """Return whether all chunks are surely there; else what was made anew wants them again."""
        ...

    def commit(self, push: OpenPush) -> Receipt:
        """Have the jobs carried out and wait for their end."""
        ...

    def abort(self, push: OpenPush) -> None:
        """Forget the jobs that were not carried out."""
        ...

    def end(self) -> None:
        """Have nothing more carried out; what is under way comes to its end."""
        ...

    def wait_seconds(self, pushes: int) -> float:
        """Return how long it takes at least until so many pushes can be carried out."""
        ...

    def pace_seconds(self, pushes: int) -> float:
        """Return how far apart, at least, checkpoints of so many pushes are to be."""
        ...


def merge_task(
    task: PushTask, plan: TablePlan, config: Config, cut_lengths: Mapping[str, int]
) -> Merged:
    """Bring a task's chunks to one schema and one row per key.

    Args:
        task: The task.
        plan: Its table, fitted to the one in the pool.
        config: Limits.
        cut_lengths: Characters at which texts are cut, by column name.
    """
    return merge(
        task.chunks,
        plan,
        task.directory,
        keyed=bool(plan.keys),
        chunk_limit_bytes=config.chunk_size_bytes,
        timestamp_encoding=config.timestamp_encoding,
        partition_rows=min(PARTITION_ROWS, config.memory_limit_bytes // 4 // _BYTES_PER_SORTED_ROW),
        cut_lengths=cut_lengths,
    )


def longest_texts(chunks: Sequence[Chunk]) -> dict[str, int]:
    """Return the characters of the longest text over all chunks, by column name."""
    longest: dict[str, int] = {}
    for chunk in chunks:
        for name, length in chunk.longest.items():
            longest[name] = max(length, longest.get(name, 0))
    return longest


def receipt_of(push: OpenPush) -> Receipt:
    """Return the receipt of a push whose jobs are DONE."""
    chunks = [chunk for job in push.jobs for chunk in job.chunks]
    return Receipt(
        task=push.task,
        job_ids=tuple(job.id for job in push.jobs),
        loaded_rows=sum(chunk.rows for chunk in push.merged.chunks),
        superseded_rows=push.merged.superseded_rows,
        deleted_rows=sum(chunk.rows for chunk in push.merged.deleted),
        chunks=len(chunks),
        uploaded_bytes=sum(chunk.size_bytes for chunk in chunks),
        length_verified=push.length_verified,
        cut_texts=push.merged.cut_texts,
        texts={
            name: (length, push.terms.lengths[name])
            for name, length in longest_texts(chunks).items()
            if name in push.terms.lengths
        },
    )
