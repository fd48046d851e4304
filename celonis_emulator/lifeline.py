"""The end of the process when the other end of its standard input is gone.

Hides: the thread that waits for it. Guarantees: the process ends within a second, whatever it does.
Must not know: what is ended; the thread outlives the interpreter, and whatever this module could
reach would then not be freed, which DuckDB reports as a leak.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Final, Protocol

LIFELINE_SECONDS: Final = 0.7


class Stoppable(Protocol):
    """Something that ends soon after it was told to."""

    should_exit: bool


def end_with_stdin(server: Stoppable) -> None:
    """Tell a server to end when standard input does; end the process if it takes too long."""
    threading.Thread(target=_watch, args=(weakref.ref(server),), daemon=True).start()


def _watch(watched: weakref.ref[Stoppable]) -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    server = watched()
    if server is not None:
        server.should_exit = True
    del server
    time.sleep(LIFELINE_SECONDS)
    # DuckDB's log makes this safe: what was not committed is gone, the rest stays.
    os._exit(0)
