"""Pushes in threads beside the one that reads.

Hides the threads and what passes between them. Guarantees: no job is carried out before all its
chunks are confirmed; jobs are carried out one after the other over the whole process, each when
the one before has ended, while the chunks of the next are uploaded; after a failure nothing more
is carried out, and jobs that were opened are aborted. Must not know: what a route does.
"""

from __future__ import annotations

import queue
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from target_celonis.clock import StoppedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target_celonis.route import Listing, OpenJob, OpenPush, PushRoute, PushTask, Receipt
    from target_celonis.spool import Chunk

_STAGED_JOBS = 4
"""Jobs that are open at a time: there is a cap on them, its number is not known."""


@dataclass
class _Progress:
    """What the threads of a ``Pusher`` tell the one that owns it."""

    receipts: queue.SimpleQueue[Receipt] = field(default_factory=queue.SimpleQueue)
    failure: BaseException | None = None


class Pusher:
    """Runs pushes beside the reading thread.

    Args:
        route: The way into Celonis.
        parallel_uploads: Chunks uploaded at the same time.
    """

    def __init__(self, route: PushRoute, parallel_uploads: int) -> None:
        self._route = route
        self._uploads = ThreadPoolExecutor(parallel_uploads, "upload")
        self._stages = ThreadPoolExecutor(min(parallel_uploads, _STAGED_JOBS), "stage")
        self._coordinator = ThreadPoolExecutor(1, "push")
        self._running: list[Future[None]] = []
        self._progress = _Progress()
        self._stopping = False

    def start(self, tasks: Sequence[PushTask]) -> None:
        """Push these tables, after all those of earlier calls."""
        self._running.append(self._coordinator.submit(self._run, tuple(tasks)))

    @property
    def busy(self) -> bool:
        """Whether a push is under way."""
        return any(not future.done() for future in self._running)

    def receipts(self) -> list[Receipt]:
        """Return the receipts that came since the last call."""
        got = []
        while not self._progress.receipts.empty():
            got.append(self._progress.receipts.get())
        return got

    def raise_failure(self) -> None:
        """Raise what a push failed with, if one did.

        Raises:
            TargetCelonisError: Celonis refused, or a table does not fit.
            StoppedError: The run is to stop.
        """
        if self._progress.failure is not None:
            raise self._progress.failure

    def wait(self, seconds: float) -> None:
        """Wait for the pushes under way, at most so long."""
        for future in list(self._running):
            try:
                future.exception(timeout=seconds)
            except TimeoutError:
                return
        self._running.clear()

    def close(self) -> None:
        """Start nothing more, let what runs come to its end, and delete jobs not executed."""
        self._stopping = True
        for pool in (self._coordinator, self._stages, self._uploads):
            pool.shutdown(wait=True, cancel_futures=pool is self._coordinator)

    def _run(self, tasks: Sequence[PushTask]) -> None:
        """Stage jobs ahead of the one that is committed, in order."""
        if self._progress.failure is not None:
            return
        staged: deque[Future[OpenPush]] = deque()
        waiting = deque(tasks)
        try:
            listing = self._route.look()
            while waiting or staged:
                while waiting and len(staged) < _STAGED_JOBS:
                    staged.append(self._stages.submit(self._stage, waiting.popleft(), listing))
                push = staged.popleft().result()
                if self._stopping:
                    self._route.abort(push)
                    raise StoppedError  # one way out for all that was staged
                self._progress.receipts.put(self._route.commit(push))
        except BaseException as error:  # noqa: BLE001  # handed to the thread that owns us
            self._stopping = True
            for future in staged:
                if future.exception() is None:
                    self._route.abort(future.result())
            self._progress.failure = error

    def _stage(self, task: PushTask, listing: Listing) -> OpenPush:
        """Open jobs and upload their chunks; delete them again when that fails."""
        if self._stopping:
            raise StoppedError
        push = self._route.open(task, listing)
        uploads = [
            self._uploads.submit(self._send, job, chunk)
            for job in push.jobs
            for chunk in job.chunks
        ]
        try:
            for upload in uploads:
                upload.result()
        except BaseException:
            for upload in uploads:
                upload.cancel()
            for upload in uploads:
                if not upload.cancelled():
                    upload.exception()
            self._route.abort(push)
            raise
        return push

    def _send(self, job: OpenJob, chunk: Chunk) -> None:
        if self._stopping:
            raise StoppedError
        self._route.send(job, chunk)
