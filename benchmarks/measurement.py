"""Run one program to its end, and measure it with all the processes that it starts.

Hides how the operating system is asked. CPU time is what the kernel charges to the program and to
all its descendants that were waited for. Memory is the sum over all processes that are alive at
one moment, looked at five times a second: of their proportional set sizes (PSS), so that pages
which they share are counted once, or of their resident set sizes (RSS) where there are no others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SAMPLE_SECONDS = 0.2
"""A look takes some milliseconds of a core: more often would show in the program's figures."""

_PROC = Path("/proc")
_LAST_LINES = 5


class RunError(Exception):
    """A program did not do what it was to be measured at; the message says what it said."""


@dataclass(frozen=True)
class Command:
    """What is run.

    Attributes:
        arguments: The command line.
        input: What its standard input reads.
        directory: Its working directory; what it prints is kept there, too.
        environment: All its variables.
        patience_seconds: It is killed after so long.
    """

    arguments: Sequence[str]
    input: Path
    directory: Path
    environment: Mapping[str, str]
    patience_seconds: float = 1_800.0


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes:
        wall_seconds: From its start to its end.
        cpu_seconds: User and system time of all its processes.
        peak_memory_bytes: None where nothing could be seen of it.
        memory_kind: ``PSS`` or ``RSS``; empty without a peak.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    memory_kind: str


def descendants(pairs: Iterable[tuple[int, int]], root: int) -> set[int]:
    """Return a process and all below it.

    Args:
        pairs: Of each process its id and its parent's.
        root: The process.
    """
    children: dict[int, list[int]] = {}
    for process, parent in pairs:
        children.setdefault(parent, []).append(process)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting += children.get(process, ())
    return found


def _process_ids() -> set[int]:
    return {int(name) for name in os.listdir(_PROC) if name.isdecimal()}  # noqa: PTH208  # names


def _with_parents(processes: Iterable[int]) -> list[tuple[int, int]]:
    pairs = []
    for process in processes:
        with suppress(OSError):  # it ended in the meantime
            stat = (_PROC / str(process) / "stat").read_text(errors="replace")
            # The name before the last parenthesis may hold anything.
            pairs.append((process, int(stat.rpartition(")")[2].split()[1])))
    return pairs


def field_bytes(text: str, name: str) -> int | None:
    """Return a field of ``status`` or ``smaps_rollup``, which counts in kB; None without it."""
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


class _Sampler:
    """Looks at the memory of a process tree until it is told to stop.

    Made before the tree's first process is started: what runs by then is none of it.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.kind = "PSS" if _PROC.joinpath("self", "smaps_rollup").exists() else "RSS"
        self._is_possible = _PROC.joinpath("self", "stat").exists()
        self._others = _process_ids() if self._is_possible else set()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, root: int) -> None:
        if self._is_possible:
            self._thread = threading.Thread(target=self._watch, args=(root,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, root: int) -> None:
        while not self._done.wait(SAMPLE_SECONDS if self.peak_bytes else SAMPLE_SECONDS / 4):
            tree = descendants(_with_parents(_process_ids() - self._others), root)
            self.peak_bytes = max(self.peak_bytes, sum(map(self._held_bytes, tree)))

    def _held_bytes(self, process: int) -> int:
        name, field = ("smaps_rollup", "Pss") if self.kind == "PSS" else ("status", "VmRSS")
        with suppress(OSError):  # it has ended in the meantime
            return field_bytes((_PROC / str(process) / name).read_text(), field) or 0
        return 0


def measure(command: Command) -> Measured:
    """Run a program to its end.

    What it prints is in ``out.txt`` and ``err.txt`` of its directory.

    Raises:
        RunError: It failed, or did not come to its end.
    """
    out, err = (command.directory / name for name in ("out.txt", "err.txt"))
    with command.input.open("rb") as source, out.open("wb") as said, err.open("wb") as logged:
        sampler = _Sampler()
        began = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603  # the commands are this package's own
            command.arguments,
            stdin=source,
            stdout=said,
            stderr=logged,
            cwd=command.directory,
            env=command.environment,
            process_group=0,  # so that all of it can be ended
        )
        guard = threading.Timer(command.patience_seconds, _end, (process.pid,))
        guard.daemon = True
        guard.start()
        sampler.start(process.pid)
        try:
            # Unlike ``wait``, this tells of the one process and what it waited for itself.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
        except BaseException:
            _end(process.pid)
            raise
        finally:
            guard.cancel()
            sampler.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        lines = err.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        end = "\n".join(f"  {line[:300]}" for line in lines[-_LAST_LINES:])
        raise RunError(f"{command.arguments[0]} ended with {process.returncode}:\n{end}")
    peak = sampler.peak_bytes or None
    return Measured(
        wall, usage.ru_utime + usage.ru_stime, peak, sampler.kind if peak is not None else ""
    )


def _end(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
