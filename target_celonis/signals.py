"""SIGTERM and SIGINT, noted and acted on later.

Hides handlers and how a blocked read is woken. Guarantees: nothing is done inside a handler but
taking note, so that no write is cut in its middle; every wait on the clock ends. Must not know:
what is to be done when a signal came.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target_celonis.clock import SystemClock


class Signals:
    """SIGTERM and SIGINT as a flag and a readable file descriptor.

    Args:
        clock: Stopped, so that every wait ends.

    Attributes:
        number: The first signal that came.
        wake_fd: Becomes readable when one comes.
    """

    def __init__(self, clock: SystemClock) -> None:
        self.number: int | None = None
        self._clock = clock
        self.wake_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)

    def _note(self, number: int, _frame: object) -> None:
        self.number = number if self.number is None else self.number
        self._clock.stop()
        with suppress(OSError):
            os.write(self._write_fd, b"!")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals while the context lasts."""
        before: dict[int, Any] = {}
        with suppress(ValueError):  # not in the main thread, where tests may run us
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for taken, handler in before.items():
                signal.signal(taken, handler)
            os.close(self.wake_fd)
            os.close(self._write_fd)
