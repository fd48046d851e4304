"""The pipe ``tap | tee | target-celonis`` into the embedded emulator, and what it left there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb
from program.harness import Ended, Target

from .oracle import Printed, Value, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .taps import Tap

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
    def state(self) -> bytes | None:
        """The state for the next run."""
        return self.ended.states[-1] if self.ended.states else None

    def printed(self, stream: str) -> Printed:
        return Printed(self.lines, stream)


class Tables:
    """What stands in a DuckDB file of the embedded emulator; the tables are in schema ``local``.

    Args:
        database: The file.
    """

    def __init__(self, database: Path) -> None:
        self.database = database

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(str(self.database), read_only=True) as connection:
            yield connection

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the file."""
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

    @cached_property
    def _shown(self) -> list[str]:
        command = [sys.executable, "-m", "celonis_emulator", "tables"]
        return subprocess.run(
            [*command, "--database", str(self.database)],
            check=True,
            capture_output=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONUTF8": "1"},
        ).stdout.splitlines()

    def types(self, table: str) -> dict[str, str]:
        """Return a table's columns with their types, as the emulator shows them the first time."""
        begin = self._shown.index(f"local / {table}") + 2  # a line with titles
        end = self._shown.index("", begin)
        return dict(line.split() for line in self._shown[begin:end])

    def copy(self, path: Path) -> Tables:
        """Return a copy that later runs leave as it is."""
        assert not self.database.with_name(f"{self.database.name}.wal").exists()
        shutil.copyfile(self.database, path)
        return Tables(path)


class Loading:
    """Loads into a DuckDB file of its own.

    Args:
        directory: For the file, the tap's lines and the logs.
        settings: Of the target.

    Attributes:
        tables: What was loaded.
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self.tables = Tables(directory / "celonis.duckdb")
        place = {"base_url": "embedded", "embedded_database": str(self.tables.database)}
        self._target = Target(directory, place | settings)
        self._runs = 0

    def load(
        self,
        tap: Tap,
        state: bytes | None = None,
        *,
        cut: int | None = None,
        code: int = 0,
        **settings: Any,
    ) -> Loaded:
        """Run the pipe and expect it to go well.

        Args:
            tap: Whose tables to load.
            state: That of an earlier run.
            cut: The tap ends when it has printed so many lines.
            code: How the target is to end.
            settings: Of the target.
        """
        commands = [
            tap.command(state),
            ["tee", self._next_lines()],
            self._target.command(**settings),
        ]
        if cut is not None:
            commands.insert(1, ["head", "-n", str(cut)])
        with tap.log.open("wb") as tap_log:
            loaded, codes = self._pipe(commands, subprocess.DEVNULL, tap_log)
        errors = tap.log.read_text()[-5000:] + loaded.ended.err
        assert not any(codes[:-1] if cut is None else codes[1:-1]), errors
        assert codes[-1] == code, errors
        return loaded

    def load_again(self, loaded: Loaded, **settings: Any) -> Loaded:
        """Load what a tap printed for another target."""
        shutil.copyfile(loaded.lines, self._next_lines())
        with loaded.lines.open("rb") as lines:
            again, codes = self._pipe([self._target.command(**settings)], lines, None)
        assert not any(codes), again.ended.err
        return again

    def _next_lines(self) -> Path:
        return self._directory / f"lines-{self._runs + 1}.jsonl"

    def _pipe(
        self, commands: list[list[Any]], first_input: Any, first_log: Any
    ) -> tuple[Loaded, list[int]]:
        """Run programs, each of them reading what the one before it prints; the target is last."""
        lines = self._next_lines()
        self._runs += 1
        log = self._directory / f"target-{self._runs}.log"
        # The measuring of coverage would take most of the time of a large load.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
        begin = time.monotonic()
        running: list[subprocess.Popen[bytes]] = []
        with log.open("wb") as target_log:
            for command in commands:
                source = running[-1].stdout if running else first_input
                is_last = len(running) == len(commands) - 1
                running.append(
                    subprocess.Popen(
                        command,
                        stdin=source,
                        stdout=subprocess.PIPE,
                        stderr=target_log if is_last else first_log,
                        cwd=self._directory,
                        env=environment if is_last else None,
                    )
                )
                if len(running) > 1:
                    source.close()
            out, _ = running[-1].communicate()
            codes = [process.wait() for process in running]
        seconds = time.monotonic() - begin
        ended = Ended(codes[-1], out, log.read_text(encoding="utf-8"))
        self._target.look_at(ended)
        return Loaded(lines, ended, seconds), codes


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
