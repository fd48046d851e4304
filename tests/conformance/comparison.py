"""Runs of the program's own class against an emulator, and their comparison with the oracle.

Hides how tables are read back. Guarantees: everything that a run came to is compared: its end, its
last state, all tables of its pool with their types, lengths and rows, its jobs and its counts.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import logging
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pytest
from program.harness import start_emulator

from target_celonis import TargetCelonis, limits
from target_celonis.errors import TargetCelonisError

from .oracle import Counts, Outcome, Rules, Spelled, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from program.harness import Emulator

DUCKDB_TYPES = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "date-time": "TIMESTAMP",
    "string": "VARCHAR",
    "json": "VARCHAR",
}
COUNTS = ("read", "loaded", "merged", "deleted", "superseded", "filtered", "not_loaded")


@contextlib.contextmanager
def unhurried_emulator(directory: Path, pools: int, profile: str) -> Iterator[Emulator]:
    """Run an emulator with pools named pool1 and on, and have nobody wait longer than need be."""
    options = [f"--pool=pool{number}" for number in range(1, pools + 1)]
    emulator = start_emulator(
        directory, "--submits-per-second", "0", "--profile", profile, *options
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "POLL_FIRST_SECONDS", 0.002)
        patch.setattr(limits, "SUBMITS_PER_SECOND", 10_000)
        yield emulator
    emulator.stop()


@dataclass
class Run:
    """A run that has ended: what it ended with, what it printed and what it logged."""

    exit_code: int
    error: str | None
    states: list[bytes]
    log: list[str]
    said: str = ""


@dataclass
class Place:
    """A data pool of the shared emulator, and how to load into it."""

    emulator: Emulator
    pool: str
    spool: Path
    prefix: str = ""
    seen_jobs: int = 0

    def load(self, data: bytes, rules: Rules, **settings: Any) -> Run:
        """Run the program's own class in this process."""
        config = self.emulator.settings | {
            "data_pool_id": self.pool,
            "spool_dir": str(self.spool),
            "table_name": f"{self.prefix}{{stream}}",
            "create_missing_table": "replace" if rules.makes_by_replace else "delta",
            "load_method": rules.method,
            "hard_delete": rules.hard_delete,
            "trust_end_of_input": rules.trust_end_of_input,
            "process_activate_version_messages": rules.activate_version,
            **settings,
        }
        out, failure = io.BytesIO(), None
        with logged() as log, contextlib.redirect_stdout(io.TextIOWrapper(out, "utf-8")):
            try:
                TargetCelonis(config=config).listen(io.BytesIO(data))
            except TargetCelonisError as error:
                failure = error
            sys.stdout.flush()
            printed = out.getvalue().splitlines()
        if failure is None:
            return Run(0, None, printed, log)
        return Run(failure.exit_code, failure.code, printed, log, str(failure))

    def tables(self) -> dict[str, Table]:
        """Read every table of the pool."""
        found = self.emulator.query(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            f"WHERE table_schema = '{self.pool}' AND starts_with(table_name, '{self.prefix}') "
            "ORDER BY table_name, ordinal_position"
        )
        kinds: dict[str, dict[str, str]] = {}
        for table, column, kind in found:
            kinds.setdefault(self._name(table), {})[str(column)] = str(kind)
        return {name: Table(kinds[name], {}, self._rows(name, kinds[name])) for name in kinds}

    def _name(self, table: str | None) -> str:
        return str(table).removeprefix(self.prefix)

    def _rows(self, table: str, types: dict[str, str]) -> list[dict[str, Any]]:
        name = (self.prefix + table).replace('"', '""')
        rows = self.emulator.query(f'SELECT * FROM "{self.pool}"."{name}"')
        return [
            {
                column: _read(text, kind)
                for text, (column, kind) in zip(row, types.items(), strict=True)
            }
            for row in rows
        ]

    def lengths(self) -> dict[str, dict[str, int]]:
        """Return the declared lengths of all texts, by table and column."""
        found = self.emulator.query(
            "SELECT table_name, column_name, length_characters FROM _celonis.text_lengths "
            f"WHERE schema_name = '{self.pool}'"
        )
        lengths: dict[str, dict[str, int]] = {}
        for table, column, length in found:
            lengths.setdefault(self._name(table), {})[str(column)] = int(length or 0)
        return lengths

    def new_jobs(self) -> list[dict[str, Any]]:
        """Return the push jobs of the pool that this was not asked for before."""
        jobs = [
            job
            for job in self.emulator.history()
            if job["pool_id"] == self.pool and job["table"].startswith(self.prefix)
        ]
        new, self.seen_jobs = jobs[self.seen_jobs :], len(jobs)
        return new


def _read(text: str | None, kind: str) -> Any:
    if text is None or kind == "VARCHAR":
        return text
    if kind == "BOOLEAN":
        return {"true": True, "false": False}[text]
    readers: dict[str, Any] = {
        "BIGINT": int,
        "DOUBLE": float,
        "DATE": dt.date.fromisoformat,
        "TIMESTAMP": dt.datetime.fromisoformat,
    }
    return readers[kind](text)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Gather the program's log lines."""
    found: list[str] = []

    class Gatherer(logging.Handler):
        def emit(self, one: logging.LogRecord) -> None:
            found.append(f"{one.levelname} {one.getMessage()}")

    logger, gatherer = logging.getLogger("target-celonis"), Gatherer()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(gatherer)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(gatherer)
        logger.setLevel(level)
        logger.propagate = propagates


def shown_rows(table: Table, spelled: set[str]) -> Counter[tuple[str, ...]]:
    """Return rows to compare; a number that became a text may be spelled in any way."""

    def shown(column: str, value: Any) -> str:
        if column in spelled and value is not None:
            with contextlib.suppress(ValueError):
                return repr(float(value))
        return repr(value)

    return Counter(tuple(shown(c, row[c]) for c in table.kinds) for row in table.rows)


def agree(found: Table, wanted: Table) -> None:
    """Compare a table with the oracle's: its columns in order, their types, its rows."""
    types = {name: DUCKDB_TYPES[kind] for name, kind in wanted.kinds.items()}
    assert list(found.kinds.items()) == list(types.items())
    spelled = {name for row in wanted.rows for name in row if isinstance(row[name], Spelled)}
    one, other = shown_rows(found, spelled), shown_rows(wanted, spelled)
    assert one - other == Counter()
    assert other - one == Counter()


def counts_told(log: list[str]) -> dict[str, dict[str, int]]:
    """Return the numbers of the closing table by stream and table."""
    told = {}
    texts = [line.partition(" ")[2] for line in log]
    heads = [place for place, text in enumerate(texts) if text.startswith("stream ")]
    for text in texts[heads[-1] + 1 :] if heads else []:
        name, *numbers = text.rsplit(maxsplit=10)
        if len(numbers) == 10 and all(n.replace(".", "").isdigit() for n in numbers):
            told[" ".join(name.split())] = dict(zip(COUNTS, map(int, numbers[:7]), strict=True))
    return told


def compare(place: Place, run: Run, wanted: Outcome) -> None:
    """Compare all that a run came to with what the oracle says."""
    compare_end(run, wanted)
    compare_tables(place.tables(), place.lengths(), wanted)
    jobs = place.new_jobs()
    types = [(job["table"].removeprefix(place.prefix), job["type"]) for job in jobs]
    assert sorted(types) == sorted(wanted.jobs)
    for job in jobs:
        assert (job["truncated_values"], job["deleted"], job["submits"] <= 1) == (0, True, True)


def compare_end(run: Run, wanted: Outcome) -> None:
    assert (run.exit_code, run.error) == (wanted.exit_code, wanted.error), [*run.log, run.said]
    assert run.states[-1:] == ([] if wanted.state is None else [wanted.state.encode()])


def compare_tables(
    found: dict[str, Table], lengths: dict[str, dict[str, int]], wanted: Outcome
) -> None:
    assert sorted(found) == sorted(wanted.tables)
    for name, table in wanted.tables.items():
        agree(found[name], table)
        assert lengths.get(name, {}) == table.lengths


def compare_counts(run: Run, counts: dict[str, Counts]) -> None:
    told = counts_told(run.log)
    assert len(told) == len(counts)
    wanted = {stream: asdict(each) | {"filtered": 0} for stream, each in counts.items()}
    # The log's lines begin with stream and table; a name may hold blanks.
    for start, numbers in told.items():
        (stream,) = [
            name
            for name in wanted
            if (words := " ".join(name.split()))
            and start.startswith(words + " ")
            and len(start.split()) == len(words.split()) + 1
        ] or [""]
        assert numbers == wanted[stream], start
        assert numbers["read"] == sum(numbers.values()) - numbers["read"]
