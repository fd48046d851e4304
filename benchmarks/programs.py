"""The programs that are measured: how each is started on an input, and what it has written.

Hides command lines, settings and forms of output. Guarantees: every run begins in an empty
directory, with none of the shell's settings for Singer programs; what a program keeps running
beside it, such as the emulator, is started before the measuring and ended behind it.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks.environments import Package, UnavailableError, installed
from benchmarks.measurement import Command, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

_HERE = Path(__file__).parent
_FOREIGN_SETTINGS = ("TARGET_", "CELONIS_EMULATOR_", "SINGER_SDK_", "MELTANO_", "PYTHON")
_EMULATOR_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Workplace:
    """Where one run takes place.

    Attributes:
        directory: An empty directory of the run's own.
        input: The Singer input.
        environments: Where virtual environments are kept.
        settings: Settings of target-celonis beyond those of the program.
    """

    directory: Path
    input: Path
    environments: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """Where the program writes to."""
        path = self.directory / "output"
        path.mkdir(exist_ok=True)
        return path

    def config(self, **values: Any) -> str:
        """Write a configuration and return its path."""
        path = self.directory / "config.json"
        path.write_text(json.dumps(values))
        return str(path)

    def command(self, *arguments: str, **variables: str) -> Command:
        """Return a command line that reads the input."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(_FOREIGN_SETTINGS)
        }
        return Command(arguments, self.input, self.directory, environment | variables)


@dataclass(frozen=True)
class Program:
    """A program that is measured.

    Attributes:
        name: What it is called on the command line.
        about: What it does, for people.
        started: Gives the command for a workplace, and keeps running what it needs.
        rows: Counts what is in a workplace after the run.
        is_slow: Gets a smaller input.
        merges_keys: Leaves one row for a key.
        package: Where it comes from, if it is installed on demand.
        modules: Modules that must be there.
    """

    name: str
    about: str
    started: Callable[[Workplace], AbstractContextManager[Command]]
    rows: Callable[[Workplace], int]
    is_slow: bool = False
    merges_keys: bool = False
    package: Package | None = None
    modules: tuple[str, ...] = ()

    def make_available(self, environments: Path) -> None:
        """Install what it needs.

        Raises:
            UnavailableError: It cannot be had here.
        """
        for module in self.modules:
            if find_spec(module) is None:
                raise UnavailableError(f"{module} is missing: install 'target-celonis[emulator]'")
        if self.package is not None:
            installed(self.package, environments)


# --- target-celonis

_TARGET = (sys.executable, "-m", "target_celonis")


def _dry_run(load_method: str) -> Callable[[Workplace], AbstractContextManager[Command]]:
    @contextmanager
    def started(place: Workplace) -> Iterator[Command]:
        config = place.config(
            load_method=load_method, spool_dir=str(place.output), **place.settings
        )
        yield place.command(*_TARGET, "--config", config, "--dry-run")

    return started


@contextmanager
def _emulator(directory: Path, key: str) -> Iterator[str]:
    """Run an emulator with an empty database and give its address."""
    ready = directory / "ready.json"
    command = [sys.executable, "-m", "celonis_emulator", "serve", "--port", "0"]
    command += ["--database", str(directory / "emulator.duckdb"), "--ready-file", str(ready)]
    process = subprocess.Popen(  # noqa: S603  # spelled out above
        # It ends with its input, and so with this program, however that ends.
        [*command, "--submits-per-hour", "0", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        env=os.environ | {"CELONIS_EMULATOR_API_KEY": key},
    )
    try:
        deadline = time.monotonic() + _EMULATOR_PATIENCE_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RunError("The emulator did not start.")
            time.sleep(0.02)
        about = json.loads(ready.read_text())
        yield f"http://{about['host']}:{about['port']}"
    finally:
        process.terminate()
        process.wait(_EMULATOR_PATIENCE_SECONDS)
        if process.stdin is not None:
            process.stdin.close()


@contextmanager
def _against_emulator(place: Workplace) -> Iterator[Command]:
    key = secrets.token_hex(20)
    with _emulator(place.directory, key) as address:
        config = place.config(
            base_url=address,
            data_pool_id="local",
            load_method="append-only",
            spool_dir=str(place.output),
            report_path=str(place.directory / "report.json"),
            **place.settings,
        )
        yield place.command(*_TARGET, "--config", config, TARGET_CELONIS_API_KEY=key)


def _reported_rows(place: Workplace) -> int:
    report = json.loads((place.directory / "report.json").read_text(encoding="utf-8"))
    return sum(stream["loaded"] for stream in report["streams"])


def _parquet_rows(place: Workplace) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in place.output.rglob("*.parquet"))


# --- beside it


@contextmanager
def _sdk_sink(place: Workplace) -> Iterator[Command]:
    config = place.config(output_directory=str(place.output))
    yield place.command(sys.executable, "-P", str(_HERE / "sdk_sink.py"), "--config", config)


def _duckdb(threads: int) -> Callable[[Workplace], AbstractContextManager[Command]]:
    @contextmanager
    def started(place: Workplace) -> Iterator[Command]:
        yield place.command(
            *(sys.executable, "-P", str(_HERE / "duckdb_json.py"), str(place.input)),
            *(str(place.output / "rows.parquet"), "--threads", str(threads)),
        )

    return started


def _from_pypi(
    package: Package, settings: Callable[[Path], Mapping[str, Any]]
) -> Callable[[Workplace], AbstractContextManager[Command]]:
    @contextmanager
    def started(place: Workplace) -> Iterator[Command]:
        directory = installed(package, place.environments)
        config = place.config(**settings(place.output))
        yield place.command(str(directory / package.executable), "--config", config)

    return started


def _lines(place: Workplace) -> int:
    total = 0
    for path in place.output.glob("*.jsonl"):
        with path.open("rb") as file:
            total += sum(1 for _ in file)
    return total


def _csv_rows(place: Workplace) -> int:
    def counted(file: IO[str]) -> int:
        return sum(1 for _ in csv.reader(file)) - 1  # the head

    csv.field_size_limit(1 << 30)
    total = 0
    for path in place.output.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            total += counted(file)
    return total


_JSONL = Package("target-jsonl", "0.1.4", "target-jsonl")
_CSV = Package("meltanolabs-target-csv", "0.5.0", "target-csv")
# With the DuckDB of its time: with newer ones it loses the first row of every batch, as they take
# the first line of its temporary file, which has no head, for one.
_DUCKDB = Package("target-duckdb", "0.8.0", "target-duckdb", ("duckdb==1.1.3",))

_COUNT = """
import duckdb, sys
with duckdb.connect(sys.argv[1], read_only=True) as file:
    names = [name for name, in file.sql("SELECT table_name FROM duckdb_tables()").fetchall()]
    counts = [file.sql(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names]
print(sum(counts))
"""


def _duckdb_rows(place: Workplace) -> int:
    python = installed(_DUCKDB, place.environments) / "python"  # which can read its own file
    counted = subprocess.run(  # noqa: S603  # spelled out above
        [str(python), "-c", _COUNT, str(place.output / "rows.duckdb")],
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(counted.stdout)


BASE = "target-celonis"
"""What the others are compared with."""

PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program(
            BASE,
            "append-only, to the Parquet chunks in its spool (`--dry-run`)",
            _dry_run("append-only"),
            _parquet_rows,
        ),
        Program(
            "target-celonis-upsert",
            "the same with `upsert`: one row for each key",
            _dry_run("upsert"),
            _parquet_rows,
            merges_keys=True,
        ),
        Program(
            "target-celonis-emulator",
            "append-only, through to the end in an emulator on the same machine; CPU and memory "
            "are the target's own",
            _against_emulator,
            _reported_rows,
            modules=("duckdb", "fastapi", "uvicorn"),
        ),
        Program(
            "sdk-sink",
            "a plain BatchSink of the Singer SDK, to Parquet (`benchmarks/sdk_sink.py`)",
            _sdk_sink,
            _parquet_rows,
            is_slow=True,
        ),
        Program(
            "duckdb-1-thread",
            "DuckDB's `read_json` on the file, to Parquet (`benchmarks/duckdb_json.py`)",
            _duckdb(1),
            _parquet_rows,
            modules=("duckdb",),
        ),
        Program(
            "duckdb-2-threads",
            "the same with two threads",
            _duckdb(2),
            _parquet_rows,
            modules=("duckdb",),
        ),
        Program(
            "target-jsonl",
            "to JSON lines",
            _from_pypi(
                _JSONL,
                lambda output: {"destination_path": str(output), "do_timestamp_file": False},
            ),
            _lines,
            is_slow=True,
            package=_JSONL,
        ),
        Program(
            "target-csv",
            "to CSV",
            _from_pypi(_CSV, lambda output: {"output_path": str(output)}),
            _csv_rows,
            is_slow=True,
            package=_CSV,
        ),
        Program(
            "target-duckdb",
            "to a DuckDB file, one row for each key",
            _from_pypi(
                _DUCKDB,
                lambda output: {
                    "filepath": str(output / "rows.duckdb"),
                    "default_target_schema": "main",
                },
            ),
            _duckdb_rows,
            is_slow=True,
            merges_keys=True,
            package=_DUCKDB,
        ),
    )
}
