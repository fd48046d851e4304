"""What a publish waits for before it begins: its turn on this machine, and pushes that still run.

Hides a lock in the spool directory, and how push jobs of others are told from ended ones.
Guarantees: of the runs on this machine that publish in one place, one does at a time; every wait
has a deadline, says once what it waits for, and ends on a signal. Must not know: data jobs and data
models, what is noted.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.celonis import TERMINAL, JobStatus
from target_celonis.clock import Deadline, growing_pauses, wait_or_stop
from target_celonis.errors import LimitError
from target_celonis.file_locks import try_lock
from target_celonis.fingerprint import fingerprint
from target_celonis.publish_plan import TableKey
from target_celonis.waits import Blindness

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from target_celonis.celonis import Celonis, PushJob
    from target_celonis.clock import Clock

logger = logging.getLogger("target-celonis")


class PublishGate:
    """Lets a publish begin.

    Args:
        celonis: The pool.
        clock: For waits.
        timeout_seconds: How long each wait may take.
        spool_dir: Directory that outlives runs.
        place: What tells the data pool and connection from all others.
    """

    def __init__(
        self,
        celonis: Celonis,
        clock: Clock,
        timeout_seconds: float,
        spool_dir: Path,
        place: Sequence[str],
    ) -> None:
        self._celonis = celonis
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._path = spool_dir / "publish" / f"turn-{fingerprint(place)}"

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn, and keep it while the context lasts.

        Raises:
            LimitError: Another run does not give it up in time.
            StoppedError: The run is to stop.
        """
        descriptor = None
        try:
            with suppress(OSError):  # without locks, runs publish side by side
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
                self._take(descriptor)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        deadline = Deadline(self._clock, self._timeout_seconds)
        said = False
        for pause in growing_pauses(limits.POLL_FIRST_SECONDS, limits.POLL_LONGEST_SECONDS):
            if try_lock(descriptor):
                return
            if not said:
                logger.info("Another run on this machine publishes; its end is waited for.")
                said = True
            if deadline.passed():
                raise LimitError(
                    "TC-LIMIT-07",
                    "Another run on this machine publishes and has not ended within "
                    f"{self._timeout_seconds / 60:g} minutes.",
                    "Look at that run, or raise `wait_timeout_minutes`. The next run publishes.",
                )
            wait_or_stop(self._clock, min(pause, deadline.remaining_seconds()))

    def await_pushes(self, tables: Collection[TableKey]) -> bool:
        """Wait until no push job is under way on any of the tables.

        Returns:
            Whether that is known; False where push jobs may not be listed.

        Raises:
            LimitError: One does not end in time.
            RemoteError: For long, nothing of use was answered.
            StoppedError: The run is to stop.
        """
        if not tables:
            return True
        deadline = Deadline(self._clock, self._timeout_seconds)
        blind = Blindness(self._clock, "The data pool's push jobs")
        said: set[str] = set()
        listed: list[PushJob] | None = []
        for pause in growing_pauses(limits.POLL_FIRST_SECONDS, limits.POLL_LONGEST_SECONDS):
            with blind.borne(may_last=not deadline.passed()):
                listed = self._celonis.list_jobs_if_allowed()
            if listed is None:
                logger.warning(
                    "The key may not list push jobs, so that it is not known whether one still "
                    "runs on what is published: what was owed stays owed to the next run."
                )
                return False
            if not blind.is_blind:
                under_way = [job for job in listed if self._is_under_way(job, tables)]
                if not under_way:
                    return True
                for job in under_way:
                    if job.id not in said:
                        logger.info(
                            "Table %s: push job %s is %s; it is to end before anything is "
                            "published.",
                            job.table,
                            job.id,
                            job.status,
                        )
                        said.add(job.id)
                if deadline.passed():
                    raise self._late(under_way[0])
            wait_or_stop(self._clock, min(pause, deadline.remaining_seconds()))
        raise AssertionError  # the pauses have no end

    @staticmethod
    def _is_under_way(job: PushJob, tables: Collection[TableKey]) -> bool:
        """Return whether a job may change a table by itself; one that is NEW waits for somebody."""
        if job.status == JobStatus.NEW or job.status in TERMINAL:
            return False
        return TableKey.of(job.connection_id, job.table) in tables

    def _late(self, job: PushJob) -> LimitError:
        return LimitError(
            "TC-LIMIT-01",
            f"Push job {job.id} on table `{job.table}` has not ended within "
            f"{self._timeout_seconds / 60:g} minutes, so that nothing is published; its status is "
            f"{job.status}.",
            "It goes on by itself. Look at it in Celonis, or raise `wait_timeout_minutes`. The "
            "next run publishes.",
        )
