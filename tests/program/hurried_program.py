"""The program on a clock that runs a hundred times as fast, forked for each run.

Hides how a run is spared the imports, and which waits are shortened. Guarantees: the code that runs
is the real one, in a process of its own with its own arguments and files; all waits keep their
proportions, since it is the clock that hurries; each run begins at the same moment of an hour.
Must not know: what is run.

It reads runs from its standard input, one JSON object a line, and answers with the id of the
process, then with its exit code, a line each.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import time

from target_celonis import clock, limits, target

HURRY = 100
"""Seconds of the program in a second."""

BEGIN = 1_767_225_600.0 + 30 * 60
"""Half past some hour: no run sees a full hour pass, unless it waits for one."""


def hurry(patience_seconds: float) -> None:
    """Have time pass faster, from now on.

    Args:
        patience_seconds: Real seconds after which no answer counts as none.
    """
    began = time.monotonic()

    def passed(_: clock.SystemClock) -> float:
        return (time.monotonic() - began) * HURRY

    def wait(self: clock.SystemClock, seconds: float) -> bool:
        return self._stopped.wait(max(0.0, seconds / HURRY))

    made = clock.SystemClock
    made.now = lambda self: BEGIN + passed(self)  # type: ignore[method-assign]
    made.monotonic = passed  # type: ignore[method-assign]
    made.wait = wait  # type: ignore[method-assign]
    made.sleep = lambda _, seconds: time.sleep(max(0.0, seconds / HURRY))  # type: ignore[method-assign]
    # Those that the network waits for by itself are real seconds; and what must be much is less.
    limits.READ_TIMEOUT_SECONDS = patience_seconds
    limits.ANSWER_SECONDS = patience_seconds * 2
    limits.BLIND_SECONDS = 60.0
    limits.RATE_LIMIT_LONGEST_SECONDS = 600.0
    limits.ANSWER_LIMIT_BYTES = 500_000
    limits.CHUNK_LIMIT_BYTES = 9_000


def run(order: dict[str, object]) -> int:
    """Run the program in this process, with files for its standard streams."""
    os.chdir(str(order["directory"]))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(str(order[name]), flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    hurry(float(str(order["patience_seconds"])))
    arguments = order["arguments"]
    assert isinstance(arguments, list)
    return target.main(arguments)


def main() -> None:
    """Fork a process for each run."""
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.dup(1)
    for line in orders:
        pid = os.fork()
        if pid == 0:
            orders.close()
            os.close(answers)
            code = run(json.loads(line))
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)  # to take down what was imported would take longer than the run
        os.write(answers, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
