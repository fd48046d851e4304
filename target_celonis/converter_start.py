"""How a process that converts comes to be, and how it goes.

Hides whether it is a copy of this one, which is there at once, or a new Python, which imports all
that it needs first. Guarantees: it has nothing open but its socket and the shared memory, hears no
signal, prints nothing, and ends when the socket does. Must not know: what is said over the socket.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Protocol

from target_celonis.converter_process import run

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_OWN_SETTINGS = "TARGET_CELONIS_"
_OPEN_FILES = "/proc/self/fd"


class Child(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int | None:
        """Its number."""

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end.

        Returns:
            Its exit code, or minus the signal that ended it; None if it still runs then.
        """

    def end(self) -> None:
        """Kill it, if it still runs, and let go of it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that both processes share.

    Attributes:
        fd: Its file.
        size_bytes: Its size.
    """

    fd: int
    size_bytes: int


def can_fork() -> bool:
    """Return whether a copy of this process can do the work.

    Another thread might hold a lock that nobody would release in the copy. Threads of Arrow and of
    its allocators do not count: these see to it themselves. Elsewhere than on Linux the system's
    own libraries do not.
    """
    is_alone = threading.active_count() == 1
    return sys.platform == "linux" and is_alone and os.path.isdir(_OPEN_FILES)  # noqa: PTH112


def start(memory: Memory) -> tuple[Connection, Child]:
    """Start a process in the way that is the quickest here; return the way to it, and it.

    Raises:
        OSError: It cannot be started.
    """
    return fork(memory) if can_fork() else launch(memory)


def fork(memory: Memory) -> tuple[Connection, Child]:
    """Start a copy of this process. See ``start``."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = multiprocessing.get_context("fork").Process(
            target=_run_copy, args=(theirs.fileno(), memory), daemon=True
        )
        try:
            with warnings.catch_warnings():
                # Python 3.12 and later warn of any thread, also of those that ``can_fork`` allows.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
        except BaseException:
            ours.close()
            raise
    return Connection(ours.detach()), _Copy(process)


def _run_copy(socket_fd: int, memory: Memory) -> None:
    """Convert, in the copy: let go of all that is the other's first."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(nothing, fd)
    for name in os.listdir(_OPEN_FILES):  # noqa: PTH208  # numbers
        if int(name) not in {0, 1, 2, socket_fd, memory.fd}:
            with suppress(OSError):  # the one that listed them
                os.close(int(name))
    run(socket_fd, memory.fd, memory.size_bytes)


class _Copy:
    """A ``Child`` that is a copy of this process."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        self._process.join(seconds)
        return self._process.exitcode

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()


def launch(memory: Memory) -> tuple[Connection, Child]:
    """Start a new Python. See ``start``."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603  # this program itself
                [
                    *(sys.executable, "-P", "-m", "target_celonis.converter_process"),
                    *(str(theirs.fileno()), str(memory.fd), str(memory.size_bytes)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what Python says of a fault may hold values
                pass_fds=(theirs.fileno(), memory.fd),
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
    return Connection(ours.detach()), _NewPython(process)


def _environment() -> dict[str, str]:
    """Return the environment of a process, which needs none of our settings."""
    return {name: v for name, v in os.environ.items() if not name.startswith(_OWN_SETTINGS)}


class _NewPython:
    """A ``Child`` that is a new Python."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
