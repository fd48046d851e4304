"""The program, killed by its own hand: ``killed_program.py POINT before|after N -- ARGUMENTS``.

POINT is the name of a ``Step`` of the journal: the process is gone just before, or just after, the
N-th line of that step is written. ``STEP@TABLE`` counts those about one table. Other points:

- ``PRINTED``: a state is put on stdout and flushed;
- ``DELETED``: Celonis is asked to delete a push job;
- ``DROPPED``: the directory of a dead run is removed;
- ``RELOADED``: Celonis is asked to load a data model;
- ``NEVER``: the program lives, but it begins only when its first input is there, so that a test
  may have it ready when another one is killed.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any

from target_celonis import __main__, run
from target_celonis.celonis import Celonis
from target_celonis.journal import Journal, Step
from target_celonis.publishing_api import Publishing
from target_celonis.run_directory import DeadRun

if TYPE_CHECKING:
    from collections.abc import Callable

READY = "ready"

_POINTS: dict[str, tuple[Any, str]] = {
    "PRINTED": (run, "_print_state"),
    "DELETED": (Celonis, "delete_job"),
    "DROPPED": (DeadRun, "drop"),
    "RELOADED": (Publishing, "load_model"),
}


def set_trap(point: str, when: str, number: int) -> None:
    """Have this process end at a point."""
    name, _, table = point.partition("@")
    owner, method = _POINTS.get(name, (Journal, "note"))
    fits = _notes_of(Step[name], table) if owner is Journal else _all
    real = getattr(owner, method)
    count = itertools.count(1)

    def trapped(*arguments: Any, **about: Any) -> Any:
        hit = fits(*arguments, **about) and next(count) == number
        if hit and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **about)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, trapped)


def _all(*_arguments: Any, **_about: Any) -> bool:
    return True


def _notes_of(step: Step, table: str) -> Callable[..., bool]:
    tables: dict[str, str] = {}

    def fits(_journal: Journal, noted: Step, **about: Any) -> bool:
        if noted is Step.JOB_CREATED:
            tables[about["job"]] = about["table"]
        of = about.get("table") or tables.get(about.get("job", ""))
        return noted is step and (not table or of == table)

    return fits


if __name__ == "__main__":
    point, when, number, dashes, *arguments = sys.argv[1:]
    assert when in ("before", "after")
    assert dashes == "--"
    sys.argv[1:] = arguments
    if point == "NEVER":
        sys.stderr.write(f"{READY}\n")
        select.select([sys.stdin.fileno()], [], [])
    else:
        set_trap(point, when, int(number))
    __main__.main()
