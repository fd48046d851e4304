"""A process that has imported the emulator, and forks servers: most of a start is importing.

Started by the tests as a script. Commands come as lines of JSON on standard input, answers go to
standard output. Each child runs the real command line, as a process of its own that takes signals
and ends by itself; starts of the real program are for ``test_server.py`` to look at.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from signal import SIGKILL
from typing import Any

import anyio._backends._asyncio  # noqa: F401 - all of these are imported ahead
import pyarrow.parquet  # noqa: F401
import uvicorn.lifespan.off
import uvicorn.loops.auto
import uvicorn.protocols.http.auto  # noqa: F401

import celonis_emulator.serve  # noqa: F401 - imported ahead
from celonis_emulator.cli import main


def nurse() -> list[str] | None:
    """Fork as told until the input ends; return, in a child only, its command line."""
    children: set[int] = set()
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        if "arguments" in command:
            answer = os.fork()
            if not answer:
                os.environ.update(command["environment"])
                with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 - a descriptor is wanted
                    os.dup2(nothing.fileno(), 0)
                if command["log"]:
                    with open(command["log"], "ab") as log:  # noqa: PTH123 - a descriptor again
                        os.dup2(log.fileno(), 2)
                os.dup2(2, 1)  # the answers' pipe is not the child's
                return list(command["arguments"])
            children.add(answer)
        else:
            pid, status = os.waitpid(command["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            children.discard(pid)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    arguments = nurse()
    sys.exit(0 if arguments is None else main(arguments))
