"""Run the demo: files -> a real tap -> target-celonis -> the embedded Celonis emulator.

`make demo` makes the two virtual environments that this needs and then calls it. Everything it
writes lies under `build/demo/`. A second run loads the same orders again, and as the tables
are keyed, it changes no row count.

It relies on nothing of the programs but what they document: their options, states on standard
output, messages on standard error and exit codes.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path("examples", "order_to_cash")
OUTPUT = Path("build", "demo")
FILES = OUTPUT / "files"
DATABASE = OUTPUT / "celonis.duckdb"
STATE_FILE = OUTPUT / "state.json"
TAP_LOG = OUTPUT / "tap.log"

TAP = Path(".venv-tap", "bin", "tap-spreadsheets")
TARGET = Path(".venv", "bin", "target-celonis")
EMULATOR = Path(".venv", "bin", "celonis-emulator")

# What the data model shows is in the file's schema `POOL_model_MODEL`.
MODEL_TABLES = ("cases", "order_items", "activities")
MODEL_QUERY = " UNION ALL ".join(
    f"SELECT '{table}' AS name, count(*) AS shown "  # noqa: S608 - the names stand above
    f'FROM "local_model_order-to-cash".{table}'
    for table in MODEL_TABLES
)
# The tables of the pool `local` are in the file's schema of that name.
QUERY = (
    "SELECT activity, count(*) AS events, count(DISTINCT case_key) AS cases "
    "FROM local.events GROUP BY activity ORDER BY events DESC"
)

# What a shell may hold for other Singer programs is not meant for the demo.
FOREIGN_SETTINGS = ("TARGET_CELONIS_", "CELONIS_EMULATOR_", "TAP_SPREADSHEETS_", "SINGER_SDK_")
FOREIGN_PATHS = frozenset({"PYTHONPATH", "PYTHONHOME"})
TAP_LOG_LINES_SHOWN = 15
INTERRUPTED = 130


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class Ended:
    """How both ends of the pipe ended, and the states that came out of it."""

    tap_code: int
    target_code: int
    states: tuple[str, ...]


def child_environment() -> dict[str, str]:
    """Give the environment for the demo's programs."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN_SETTINGS) and name not in FOREIGN_PATHS
    }
    # The tap opens its files in the encoding of the machine; the files are UTF-8.
    environment["PYTHONUTF8"] = "1"
    return environment


def say(text: str) -> None:
    """Print a line at once: the programs print to the same terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(command: list[str], purpose: str) -> None:
    """Run a program that has to succeed, its output shown."""
    code = subprocess.run(  # noqa: S603 - the commands are spelled out in this file
        command, cwd=ROOT, env=child_environment(), check=False
    ).returncode
    if code != 0:
        message = f"{purpose} failed with exit code {code}; its message is above."
        raise DemoError(message)


def pipe() -> Ended:
    """Run `tap | target` to the end of both."""
    tap_command = [str(TAP), "--config", str(EXAMPLE / "tap.json")]
    target_command = [str(TARGET), "--config", str(EXAMPLE / "target.json")]
    say(f"$ {' '.join(tap_command)} | {' '.join(target_command)}")
    environment = child_environment()
    with (ROOT / TAP_LOG).open("wb") as tap_log:
        tap = subprocess.Popen(  # noqa: S603 - see run
            tap_command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=tap_log
        )
        target = subprocess.Popen(  # noqa: S603 - see run
            target_command,
            cwd=ROOT,
            env=environment,
            stdin=tap.stdout,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
    if tap.stdout is None or target.stdout is None:
        raise AssertionError
    # Were it left open here, a tap whose target is gone would write into the pipe for ever.
    tap.stdout.close()
    try:
        lines = target.stdout.read().splitlines()
    finally:
        # On Ctrl-C both get the signal as well, and the target cleans up before it ends.
        target_code = target.wait()
        tap_code = tap.wait()
    return Ended(tap_code, target_code, tuple(line for line in lines if line.strip()))


def tap_failure(code: int, *, target_failed: bool) -> str:
    """Say that the tap failed, with the end of its log unless it only lost its target."""
    failure = f"tap-spreadsheets failed with exit code {code}"
    log = (ROOT / TAP_LOG).read_text(encoding="utf-8", errors="replace")
    if target_failed and ("Traceback" not in log or "BrokenPipeError" in log):
        return f"{failure} too, as it does when its target is gone; its log is {TAP_LOG}."
    last_lines = "\n".join(f"  {line}" for line in log.splitlines()[-TAP_LOG_LINES_SHOWN:])
    return f"{failure}. The end of {TAP_LOG}:\n{last_lines}"


def load() -> None:
    """Load the files and keep the last state; a failure of either end fails."""
    ended = pipe()
    target_failed = ended.target_code != 0
    failures = []
    if target_failed:
        failures.append(
            f"target-celonis failed with exit code {ended.target_code}; its message is above."
        )
    if ended.tap_code != 0:
        failures.append(tap_failure(ended.tap_code, target_failed=target_failed))
    if failures:
        raise DemoError("\n".join(failures))
    if not ended.states:
        message = "target-celonis ended well but printed no state."
        raise DemoError(message)
    (ROOT / STATE_FILE).write_text(f"{ended.states[-1]}\n", encoding="utf-8")


def source_counts() -> dict[str, int]:
    """Count in the files what the data model is to show, by table."""
    rows: dict[str, list[dict[str, str]]] = {}
    for name in ("cases", "events", "order_items"):
        with (ROOT / FILES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    delivered = sum(bool(item["delivered_at"]) for item in rows["order_items"])
    return {
        "cases": len(rows["cases"]),
        "order_items": len(rows["order_items"]),
        "activities": len(rows["events"]) + delivered,
    }


def compare_model() -> None:
    """Print the rows of the data model's tables; they have to be those of the files."""
    command = [str(EMULATOR), "query", "--database", str(DATABASE), "--csv", MODEL_QUERY]
    asked = subprocess.run(  # noqa: S603 - see run
        command,
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if asked.returncode != 0:
        message = "The data model cannot be read; the message is above."
        raise DemoError(message)
    shown = {row["name"]: int(row["shown"]) for row in csv.DictReader(asked.stdout.splitlines())}
    wanted = source_counts()
    for table, count in wanted.items():
        found = shown.get(table, 0)
        say(f"  {table:<12} {found:>9,} rows in the data model, {count:>9,} in the files")
    if shown != wanted:
        message = "The data model does not show what is in the files."
        raise DemoError(message)


def check_programs() -> None:
    """Make sure that the virtual environments are there."""
    for program in (TAP, TARGET, EMULATOR):
        if not (ROOT / program).exists():
            message = f"{program} is missing: run `make demo`, which installs it."
            raise DemoError(message)


def demo() -> None:
    """Run the demo's four steps."""
    check_programs()
    started = time.monotonic()
    say("\n1. Inventing orders, their items and what happened to them")
    run([sys.executable, str(EXAMPLE / "generate.py"), str(FILES)], "Writing the files")

    say("\n2. Loading them with a tap and target-celonis; Celonis is the embedded emulator")
    load()
    say(f"The last state is in {STATE_FILE}, the tap's log in {TAP_LOG}.")

    say("\n3. What landed in the data pool")
    run([str(EMULATOR), "tables", "--database", str(DATABASE)], "Listing the tables")

    say("\n4. What the data model shows: loaded tables, and one that a data job made of them")
    compare_model()
    say(
        f"\nDone in {time.monotonic() - started:.0f} seconds. "
        f"The data pool is the DuckDB file {DATABASE}. To list it again, or to ask it:\n"
        f"  {EMULATOR} tables --database {DATABASE}\n"
        f"  {EMULATOR} query --database {DATABASE} \\\n"
        f'    "{QUERY}"'
    )


def main() -> int:
    """Run the program."""
    try:
        demo()
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted\n")
        return INTERRUPTED
    except DemoError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
