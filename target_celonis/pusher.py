"""Pushes in threads beside the one that reads.

Hides the threads and what passes between them. Guarantees: no job is carried out before all its
chunks are known to have arrived; a push that fails ends no other one, unless no other could succeed
either; after such a failure nothing more is executed, and jobs that were opened are aborted; pushes
that append are carried out one by one, and none after one of them failed;
files of a push are removed when it has ended. Must not know: what a route does, or streams.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from target_celonis.clock import StoppedError
from target_celonis.errors import TargetCelonisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target_celonis.route import Listing, OpenJob, OpenPush, PushRoute, PushTask, Receipt
    from target_celonis.spool import Chunk

_PUSHES = 4
"""Pushes at a time, and so jobs that are open: there is a cap on them, its number is not known."""

_HOPELESS = frozenset(
    {
        "TC-ACCESS-01",
        "TC-ACCESS-04",
        "TC-REMOTE-01",
        "TC-REMOTE-06",
        "TC-LIMIT-02",
        "TC-LIMIT-06",
        "TC-LIMIT-08",
    }
)
"""Failures that are not of one table: the key, the network, the disk, the team's submits."""


@dataclass(frozen=True)
class FailedPush:
    """A push that came to no good end.

    Attributes:
        task: What was asked for.
        error: Why.
    """

    task: PushTask
    error: TargetCelonisError


@dataclass(frozen=True)
class GivenUp:
    """A push that appends and was not carried out, since another one that appends failed.

    Attributes:
        task: What was asked for.
    """

    task: PushTask


class _GivenUpError(Exception):
    """Nothing more is to be appended."""


@dataclass
class _Progress:
    """What the threads of a ``Pusher`` tell the one that owns it."""

    outcomes: queue.SimpleQueue[Receipt | FailedPush | GivenUp] = field(
        default_factory=queue.SimpleQueue
    )
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
        self._pushes = ThreadPoolExecutor(min(parallel_uploads, _PUSHES), "push")
        self._coordinator = ThreadPoolExecutor(1, "coordinator")
        self._running: list[Future[None]] = []
        self._progress = _Progress()
        self._stopping = False
        self._append_turn = threading.Lock()
        self._append_failed = False

    def start(self, tasks: Sequence[PushTask]) -> None:
        """Push these tables, after all those of earlier calls."""
        self._running.append(self._coordinator.submit(self._run, tuple(tasks)))

    def wait_seconds(self, pushes: int) -> float:
        """Return how long it takes at least until so many pushes can be carried out."""
        return self._route.wait_seconds(pushes)

    def pace_seconds(self, pushes: int) -> float:
        """Return how far apart, at least, checkpoints of so many pushes are to be."""
        return self._route.pace_seconds(pushes)

    @property
    def busy(self) -> bool:
        """Whether a push is under way."""
        return any(not future.done() for future in self._running)

    def outcomes(self) -> list[Receipt | FailedPush | GivenUp]:
        """Return what pushes came to since the last call."""
        got = []
        while not self._progress.outcomes.empty():
            got.append(self._progress.outcomes.get())
        return got

    def raise_failure(self) -> None:
        """Raise what ended all pushes, if something did.

        Raises:
            TargetCelonisError: No table can be pushed any more.
            StoppedError: The run is to stop.
        """
        if self._progress.failure is not None:
            raise self._progress.failure

    def wait(self, seconds: float) -> None:
        """Wait for the pushes under way, at most so long."""
        wait(self._running, timeout=seconds)
        self._running = [future for future in self._running if not future.done()]

    def close(self) -> None:
        """Start nothing more, let what runs come to its end, and delete jobs not executed."""
        self._stopping = True
        self._route.end()
        for pool in (self._coordinator, self._pushes, self._uploads):
            pool.shutdown(wait=True, cancel_futures=pool is self._coordinator)

    def _run(self, tasks: Sequence[PushTask]) -> None:
        """Push some tables side by side."""
        try:
            if self._stopping:
                raise StoppedError
            listing = self._route.look()
            self._append_failed = False
            wait([self._pushes.submit(self._push, task, listing) for task in tasks])
        except BaseException as error:  # noqa: BLE001  # handed to the thread that owns us
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Let nothing more be pushed; the first reason is the one that is told."""
        if self._progress.failure is None:  # before others are stopped, which is no reason
            self._progress.failure = error
        self._stopping = True
        self._route.end()

    def _push(self, task: PushTask, listing: Listing) -> None:
        """Push a table; tell what came of it."""
        try:
            self._progress.outcomes.put(self._carry(task, listing))
        except _GivenUpError:
            self._progress.outcomes.put(GivenUp(task))
        except TargetCelonisError as error:
            self._append_failed |= task.appends
            if error.code in _HOPELESS:
                self._fail(error)
            self._progress.outcomes.put(FailedPush(task, error))
        except BaseException as error:  # noqa: BLE001  # handed to the thread that owns us
            self._fail(error)
        finally:
            task.discard()

    def _carry(self, task: PushTask, listing: Listing) -> Receipt:
        if self._stopping:
            raise StoppedError
        push = self._route.open(task, listing)
        try:
            self._upload(push)
            while not self._route.all_arrived(push):
                self._upload(push)
            if self._stopping:
                raise StoppedError
        except BaseException:
            self._route.abort(push)
            raise
        return self._append(push) if task.appends else self._route.commit(push)

    def _append(self, push: OpenPush) -> Receipt:
        """Carry out a push that appends: one at a time, and none after one that failed.

        No state behind that one can go out, so what is appended now would be appended again.
        """
        with self._append_turn:
            if self._append_failed or self._stopping:
                self._route.abort(push)
                raise StoppedError if self._stopping else _GivenUpError
            try:
                return self._route.commit(push)
            except BaseException:
                self._append_failed = True
                raise

    def _upload(self, push: OpenPush) -> None:
        """Upload all chunks that were not uploaded yet, and wait for it, also when one fails."""
        uploads = [
            self._uploads.submit(self._send, job, chunk)
            for job in push.jobs
            for chunk in job.wanting
        ]
        try:
            for upload in uploads:
                upload.result()
        except BaseException:
            for upload in uploads:
                upload.cancel()
            wait(uploads)
            raise

    def _send(self, job: OpenJob, chunk: Chunk) -> None:
        if self._stopping:
            raise StoppedError
        self._route.send(job, chunk)
