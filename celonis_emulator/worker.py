"""One thread that does what it is given, one thing after the other.

Hides: the queue, the thread, the cursor at work. Guarantees: things are done in the order in which
they were given; when the server stops, the one at work is interrupted and the others are told so.
Must not know: what is done.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import duckdb

    from celonis_emulator.warehouse import Warehouse

log = logging.getLogger(__name__)

STOP_PATIENCE_SECONDS = 5.0

Thing = TypeVar("Thing")


class Stopping(Exception):  # noqa: N818
    """The server stops: what is at work must end without an effect."""


class Worker(Generic[Thing]):
    """A queue and its thread; ``run`` must not raise for what it can foresee."""

    def __init__(self, name: str, warehouse: Warehouse, run: Callable[[Thing], None]) -> None:
        self._name = name
        self._warehouse = warehouse
        self._run = run
        self._queue: queue.SimpleQueue[Thing | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._stopping = False
        # The owner's lock too; signalled when a pause must notice something.
        self.changed = threading.Condition()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what is at work, and end the thread."""
        with self.changed:
            self._stopping = True
        self.interrupt()
        self._queue.put(None)
        self._thread.join(STOP_PATIENCE_SECONDS)

    def put(self, thing: Thing) -> None:
        """Have something done."""
        self._queue.put(thing)

    def interrupt(self) -> None:
        """Interrupt a pause and the query at work, if any."""
        with self.changed:
            self.changed.notify_all()
            if self._cursor is not None:
                self._cursor.interrupt()

    def check(self) -> None:
        """Raise when the server stops.

        Raises:
            Stopping: It does.
        """
        if self._stopping:
            raise Stopping

    def pause(self, seconds: float, disturbed: Callable[[], bool] = lambda: False) -> None:
        """Wait, but not when something happens that cannot wait.

        Raises:
            Stopping: The server stops.
        """
        with self.changed:
            self.changed.wait_for(lambda: self._stopping or disturbed(), timeout=seconds)
        self.check()

    @contextlib.contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a cursor that :meth:`interrupt` reaches."""
        cursor = self._warehouse.cursor()
        try:
            with self.changed:
                self._cursor = cursor
            yield cursor
        finally:
            with self.changed:
                self._cursor = None
            cursor.close()

    def _work(self) -> None:
        while (thing := self._queue.get()) is not None:
            try:
                self._run(thing)
            except Exception:
                log.exception("%s failed", self._name)
            self._warehouse.checkpoint()
