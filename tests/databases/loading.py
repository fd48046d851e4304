"""The pipe ``tap | tee | target-celonis`` into the embedded emulator, and what it left there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
from program.harness import Ended, Target

from .oracle import Printed, Value, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .postgres import Tap

DIFFERENCES_SHOWN = 20
ROWS_FETCHED = 10_000


@dataclass(frozen=True)
class Loaded:
    """A run of the pipe.

    Attributes:
        lines: File with what the tap printed.
        ended: The target's end.
        seconds: From the start of the tap to the end of the target.
    """

    lines: Path
    ended: Ended
    seconds: float

    @property
    def state(self) -> bytes:
        return self.ended.states[-1]

    def printed(self, stream: str) -> Printed:
        return Printed(self.lines, stream)


class Loading:
    """Loads into a DuckDB file of its own.

    Args:
        directory: For the file, the tap's lines and the logs.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = directory / "celonis.duckdb"
        settings = {"base_url": "embedded", "embedded_database": str(self._database)}
        self._target = Target(directory, settings)
        self._runs = 0

    def load(self, tap: Tap, state: bytes | None = None, **settings: Any) -> Loaded:
        """Run the pipe and expect it to go well.

        Args:
            tap: Whose tables to load.
            state: That of an earlier run.
            settings: Of the target.
        """
        self._runs += 1
        lines = self._directory / f"lines-{self._runs}.jsonl"
        log = self._directory / f"target-{self._runs}.log"
        # The measuring of coverage would take most of the time of a large load.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
        begin = time.monotonic()
        with tap.log.open("wb") as tap_log, log.open("wb") as target_log:
            first = subprocess.Popen(
                tap.command(state), stdout=subprocess.PIPE, stderr=tap_log, cwd=self._directory
            )
            tee = subprocess.Popen(["tee", str(lines)], stdin=first.stdout, stdout=subprocess.PIPE)
            last = subprocess.Popen(
                self._target.command(**settings),
                stdin=tee.stdout,
                stdout=subprocess.PIPE,
                stderr=target_log,
                cwd=self._directory,
                env=environment,
            )
            for pipe in (first.stdout, tee.stdout):
                assert pipe is not None
                pipe.close()
            out, _ = last.communicate()
            codes = (first.wait(), tee.wait(), last.returncode)
        seconds = time.monotonic() - begin
        ended = Ended(last.returncode, out, log.read_text(encoding="utf-8"))
        assert codes == (0, 0, 0), tap.log.read_text() + ended.err
        self._target.look_at(ended)
        return Loaded(lines, ended, seconds)

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(str(self._database), read_only=True) as connection:
            yield connection

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the file; the tables are in the schema ``local``."""
        with self._connection() as connection:
            return connection.execute(sql).fetchall()

    def rows(self, printed: Printed, order: str) -> Iterator[tuple[Value, ...]]:
        """Return a stream's table, the columns as in its SCHEMA."""
        names = ", ".join(f'"{column.name}"' for column in printed.columns.values())
        with self._connection() as connection:
            found = connection.execute(
                f'SELECT {names} FROM local."{printed.stream}" ORDER BY {order}'
            )
            while some := found.fetchmany(ROWS_FETCHED):
                yield from some

    def types(self, table: str) -> dict[str, str]:
        """Return a table's columns with their types, as the emulator shows them."""
        command = [sys.executable, "-m", "celonis_emulator", "tables"]
        shown = subprocess.run(
            [*command, "--database", str(self._database)],
            check=True,
            capture_output=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONUTF8": "1"},
        ).stdout.splitlines()
        begin = shown.index(f"local / {table}") + 2  # a line with titles
        end = shown.index("", begin)
        return dict(line.split() for line in shown[begin:end])


def differences(
    printed: Printed, expected: Iterable[tuple[Value, ...]], found: Iterable[tuple[Value, ...]]
) -> list[str]:
    """Compare two tables of a stream that have the same order, value by value."""
    names = list(printed.columns)
    told: list[str] = []
    rows = iter(found)
    for wanted in expected:
        row = next(rows, None)
        if row is None:
            told.append(f"{wanted[0]!r} is missing")
        else:
            told += [
                f"{wanted[0]!r}, {name}: {value!r} instead of {want!r}"
                for name, want, value in zip(names, wanted, row, strict=True)
                if not same(want, value)
            ]
        if len(told) > DIFFERENCES_SHOWN:
            return told
    return told + [f"{row[0]!r} is too many" for row in rows]
