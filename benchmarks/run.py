"""``python -m benchmarks``: make the inputs, run the programs on them in turn, say what came out.

Programs take turns within a round, so that what the machine does beside them hits all of them
alike. In each round a program first runs on an input of one record, which tells its start-up. After
its first run on each kind of input its rows are counted: figures of unequal work are no figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.environments import UnavailableError
from benchmarks.figures import Figures, Timed, tables, with_section
from benchmarks.inputs import KINDS
from benchmarks.machine import about
from benchmarks.measurement import RunError, measure
from benchmarks.picture import picture
from benchmarks.programs import BASE, PROGRAMS, Program, Workplace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.inputs import Kind

RECORDS = {
    "orders": (500_000, 20_000),
    "wide": (60_000, 3_000),
    "interleaved": (600_000, 40_000),
    "nested": (400_000, 12_000),
    "text": (80_000, 20_000),
    "keyed": (600_000, 30_000),
}
"""At scale 1, for the fast programs and for the slow ones: some seconds of work for each, so that a
round has an end. A rate hardly depends on it."""

_GENERATOR = zlib.crc32(Path(inputs.__file__).read_bytes())
"""Another generator makes other bytes, which the files of before must not stand for."""

ROUNDS = 5
SHORT_KINDS = ("orders",)
SHORT_PROGRAMS = (BASE, "sdk-sink")
SHORT_ROUNDS = 3
SHORT_SCALE = 0.3


@dataclass(frozen=True)
class Selection:
    """What is run.

    Attributes:
        kinds: Of inputs.
        programs: In the order of a round.
        rounds: How many.
        scale: Times the usual number of records.
        settings: Settings of target-celonis beyond those of the programs.
    """

    kinds: tuple[str, ...]
    programs: tuple[str, ...]
    rounds: int
    scale: float
    settings: dict[str, Any]


class WrongWorkError(Exception):
    """A program wrote another number of rows than its input calls for."""


def records_for(kind: str, program: Program, scale: float) -> int:
    """Return how many records a program gets; never one, which is what tells start-up."""
    fast, slow = RECORDS[kind]
    return max(10, round((slow if program.is_slow else fast) * scale))


def check_rows(kind: Kind, program: Program, records: int, rows: int) -> None:
    """Make sure that a program did the work that it was measured at.

    Raises:
        WrongWorkError: It did not.
    """
    wanted = kind.distinct_keys(records) if program.merges_keys else records
    if rows != wanted:
        raise WrongWorkError(
            f"{program.name} wrote {rows:,} rows of {records:,} records of {kind.name}; "
            f"{wanted:,} were to be expected, so its figure would be of other work."
        )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Benchmark:
    """Runs a selection.

    Args:
        selection: What is run.
        directory: Where inputs and virtual environments are kept, and runs take place.
    """

    def __init__(self, selection: Selection, directory: Path) -> None:
        self._selection = selection
        self._inputs = directory / "inputs"
        self._environments = directory / "environments"
        self._runs = directory / "runs"
        self.skipped: dict[str, str] = {}

    def run(self) -> list[Timed]:
        """Run everything and return every run.

        Raises:
            RunError: A program failed.
            WrongWorkError: A program did other work than it should.
        """
        programs = self._available()
        timed: list[Timed] = []
        for name in self._selection.kinds if programs else ():
            kind = KINDS[name]
            one = self._input(kind, 1)
            files = {
                program.name: self._input(kind, records_for(name, program, self._selection.scale))
                for program in programs
            }
            for path, _ in {one, *files.values()}:
                _warm(path)
            for number in range(1, self._selection.rounds + 1):
                for program in programs:
                    for path, records in (one, files[program.name]):
                        run = self._timed(kind, program, number, path, records)
                        timed.append(run)
                        what = "start-up" if run.is_startup else f"{records:,} records"
                        _say(
                            f"{name}, round {number} of {self._selection.rounds}, {program.name}: "
                            f"{what} in {run.wall_seconds:.2f} s"
                        )
        return timed

    def _available(self) -> list[Program]:
        found = []
        for name in self._selection.programs:
            program = PROGRAMS[name]
            try:
                program.make_available(self._environments)
            except UnavailableError as error:
                _say(f"SKIPPED: {name}: {error}")
                self.skipped[name] = str(error)
            else:
                found.append(program)
        return found

    def _input(self, kind: Kind, records: int) -> tuple[Path, int]:
        """Return the file of an input, made unless it is there, and its records."""
        path = self._inputs / f"{kind.name}-{records}-{_GENERATOR:08x}.jsonl"
        if not path.exists():
            _say(f"Making {records:,} records of {kind.name}")
            self._inputs.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".unfinished")
            with unfinished.open("wb") as file:
                inputs.write(kind, file, records=records)
            unfinished.rename(path)
        return path, records

    def _timed(self, kind: Kind, program: Program, number: int, path: Path, records: int) -> Timed:
        with _emptied(self._runs) as directory:
            place = Workplace(directory, path, self._environments, self._selection.settings)
            with program.started(place) as command:
                measured = measure(command)
            if number == 1:
                check_rows(kind, program, records, program.rows(place))
        return Timed(
            kind=kind.name,
            program=program.name,
            round_number=number,
            records=records,
            input_bytes=path.stat().st_size,
            is_startup=records == 1,
            **asdict(measured),
        )


def _warm(path: Path) -> None:
    """Read a file, so that the first program to read it does not wait for the disk alone."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


@contextmanager
def _emptied(parent: Path) -> Iterator[Path]:
    """Give an empty directory, and remove it with all that a run has left in it."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# --- what is said


def section(figures: Figures, selection: Selection, skipped: dict[str, str]) -> str:
    """Return what was measured, where, and the tables."""
    kinds = {name: KINDS[name].about for name in figures.kinds}
    packages = [
        program.package
        for program in PROGRAMS.values()
        if program.package is not None and program.name in figures.programs
    ]
    lines = [f"- {name}: {said}" for name, said in about(packages).items()]
    rounds = "1 round" if selection.rounds == 1 else f"{selection.rounds} rounds"
    settings = f", {json.dumps(selection.settings)} set" if selection.settings else ""
    lines.append(f"- run: {rounds} at scale {selection.scale:g}{settings}")
    # The reason may name a place on this machine; it was said when the run began.
    lines += [f"- not installed there, and so left out: {name}" for name in skipped]
    return "\n".join(lines) + "\n\n" + tables(figures, BASE, kinds)


def as_json(figures: Figures, selection: Selection, skipped: dict[str, str]) -> dict[str, Any]:
    """Return everything that was measured and what follows from it."""
    packages = [program.package for program in PROGRAMS.values() if program.package is not None]
    cells = [(kind, name) for kind in figures.kinds for name in figures.programs]
    results = []
    for cell in cells:
        ratio = figures.ratio(*cell, BASE)
        results.append(
            {
                "kind": cell[0],
                "program": cell[1],
                "records_per_second": figures.rate(cell),
                "startup_seconds": figures.startup_seconds(cell),
                "cpu_microseconds_per_record": figures.cpu_microseconds(cell),
                "peak_memory_megabytes": figures.peak_megabytes(cell),
                "base_is_times_as_fast": None if ratio is None else ratio.median,
                "in_each_round": [] if ratio is None else list(ratio.values),
            }
        )
    return {
        "about": about(packages),
        "selection": asdict(selection),
        "skipped": skipped,
        "results": results,
        "runs": [asdict(run) for run in figures.runs],
    }


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"known are {', '.join(known)}")
        return names

    return parse


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("more than 0")
    return number


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure target-celonis beside other programs and print tables as Markdown.",
    )
    made.add_argument(
        "--kinds",
        type=_names(tuple(KINDS)),
        metavar="A,B",
        help=f"kinds of input (default all: {', '.join(KINDS)})",
    )
    made.add_argument(
        "--programs",
        type=_names(tuple(PROGRAMS)),
        metavar="A,B",
        help=f"programs, in the order of a round (default all: {', '.join(PROGRAMS)})",
    )
    made.add_argument(
        "--rounds", type=_at_least_one, metavar="N", help=f"rounds (default {ROUNDS})"
    )
    made.add_argument(
        "--scale", type=_positive, metavar="X", help="times the usual number of records (default 1)"
    )
    made.add_argument(
        "--short",
        action="store_true",
        help=f"other defaults: {', '.join(SHORT_KINDS)}; {', '.join(SHORT_PROGRAMS)}; "
        f"{SHORT_ROUNDS} rounds; scale {SHORT_SCALE}",
    )
    made.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="where inputs and virtual environments are kept for the next time; "
        "default: a temporary one",
    )
    made.add_argument(
        "--converter-processes",
        type=int,
        metavar="N",
        help="the setting `converter_processes` of target-celonis (default: not set)",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    made.add_argument("--picture", type=Path, metavar="FILE", help="write a bar chart, as SVG")
    made.add_argument(
        "--write-docs",
        type=Path,
        metavar="FILE",
        help="put the tables between the marks of this document",
    )
    return made


def selection_of(given: argparse.Namespace) -> Selection:
    """Return what a command line asks for."""
    usual = Selection(tuple(RECORDS), tuple(PROGRAMS), ROUNDS, 1.0, {})
    if given.short:
        usual = Selection(SHORT_KINDS, SHORT_PROGRAMS, SHORT_ROUNDS, SHORT_SCALE, {})
    named = {
        name: getattr(given, name)
        for name in ("kinds", "programs", "rounds", "scale")
        if getattr(given, name) is not None
    }
    if given.converter_processes is not None:
        named["settings"] = {"converter_processes": given.converter_processes}
    return replace(usual, **named)


@contextmanager
def _kept(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as made:
        yield Path(made)


def _fill(path: Path, said: str | None) -> None:
    """Put what was said into a document; None only looks whether that can be done."""
    document = with_section(path.read_text(encoding="utf-8"), said or "")
    if said is not None:
        path.write_text(document, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks."""
    command_line = parser()
    given = command_line.parse_args(arguments)
    selection = selection_of(given)
    if given.write_docs is not None:
        try:  # before an hour of measuring, not behind it
            _fill(given.write_docs, None)
        except (OSError, ValueError) as error:
            command_line.error(f"--write-docs: {error}")
    try:
        with _kept(given.directory) as directory:
            benchmark = Benchmark(selection, directory)
            figures = Figures(benchmark.run())
    except (RunError, WrongWorkError) as error:
        _say(f"benchmarks: {error}")
        return 1
    said = section(figures, selection, benchmark.skipped)
    sys.stdout.write(f"{said}\n")
    if given.json is not None:
        text = json.dumps(as_json(figures, selection, benchmark.skipped), indent=2)
        given.json.write_text(text + "\n", encoding="utf-8")
    if given.picture is not None:
        rates = {
            kind: {
                name: rate
                for name in figures.programs
                if (rate := figures.rate((kind, name))) is not None
            }
            for kind in figures.kinds
        }
        if not any(rates.values()):
            _say("benchmarks: no run was long enough to tell a rate: there is nothing to draw.")
            return 1
        given.picture.write_text(picture(rates, BASE), encoding="utf-8")
    if given.write_docs is not None:
        if given.picture is not None:
            link = os.path.relpath(given.picture, given.write_docs.parent)
            said = f"![Thousand records a second, by kind of input and program]({link})\n\n{said}"
        _fill(given.write_docs, said)
    return 0
