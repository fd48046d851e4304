"""Runs of the program with faults: one lane of emulators, and what is seen of each cell.

Hides how a table is made ready, a run is forked, and its end is judged. Guarantees: what is judged
is asked of the emulator after the run, without faults; a run that hangs is ended, and said so. Must
not know: what the document says.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import select
import signal
import string
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import evidence
import pyarrow as pa
import pyarrow.parquet as pq

from .harness import TERMINAL, Emulator, eventually, lines, record, schema, start_emulator, syncing
from .matrix import BY_NAME, OAUTH, PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .matrix import Cell

HANG_SECONDS = 60.0
OLD = range(1, 7)
NEW = {"keyed": range(4, 16), "append": range(7, 19), "overwrite": range(4, 16)}
LOAD_METHODS = {"keyed": "upsert", "append": "append-only", "overwrite": "overwrite"}
LAST_STATE = b'{"bookmarks": {}, "currently_syncing": null}'
CLIENT = "matrix"

_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""They would be read by each run, for nothing."""

WAYS = (
    ("it was executed; asking", "loaded after asking"),
    ("another one is", "loaded by another job"),
    ("all of it is sent again", "loaded by another job"),
    ("chunks arrived; all did", "loaded after counting chunks"),
    ("it is sent again", "loaded, a chunk sent twice"),
    ("cannot be looked at just now", "loaded after patience"),
    ("(429)", "loaded after waiting"),
    ("(409)", "loaded after waiting"),
    ("trying again in", "loaded after trying again"),
    ("lengths are not verified", "loaded, lengths not verified"),
)
"""What the log says of how a load came to its end; the first that is found names the outcome."""


def _texts(salt: int) -> dict[int, str]:
    """Return texts that cannot be compressed: several chunks even of few rows."""
    made_up = random.Random(salt)  # noqa: S311  # test data
    return {n: "".join(made_up.choices(string.ascii_letters, k=1_500)) for n in range(1, 19)}


OLD_TEXTS, NEW_TEXTS = _texts(1), _texts(2)


def tables(method: str) -> tuple[Counter[tuple[int, str]], Counter[tuple[int, str]]]:
    """Return the rows of a table before and after a load."""
    old = {(n, OLD_TEXTS[n]) for n in OLD}
    new = {(n, NEW_TEXTS[n]) for n in NEW[method]}
    if method == "keyed":
        return Counter(old), Counter({r for r in old if r[0] not in NEW[method]} | new)
    return Counter(old), Counter(new if method == "overwrite" else old | new)


@dataclass
class Seen:
    """What came of a cell.

    Attributes:
        outcome: In the words of the document.
        problems: What must not be; nothing, where all is well.
        log: What the program printed.
    """

    outcome: str
    problems: list[str] = field(default_factory=list)
    log: str = ""


@dataclass
class _Run:
    code: int
    states: list[bytes]
    err: str
    report: dict[str, Any] | None

    @property
    def error_code(self) -> str:
        found = re.match(r"target-celonis: \[(TC-[A-Z]+-\d\d)\] ", self.last_words)
        return found[1] if found else "without a code"

    @property
    def last_words(self) -> str:
        return (self.err.strip().splitlines() or [""])[-1]


class Lane:
    """An emulator of each profile, and the program ready to be forked.

    Args:
        directory: Empty.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)
        self._secret = evidence.secret("".join(random.SystemRandom().choices("abcdef", k=30)))
        options = ("--pool", "local=Local", "--connection", "local:erp=ERP")
        options += ("--submits-per-second", "0", "--oauth-client", f"{CLIENT}:{self._secret}")
        self._emulators: dict[str, Emulator] = {}
        for profile in PROFILES:
            place = directory / profile
            place.mkdir(parents=True)
            self._emulators[profile] = start_emulator(place, *options, profile=profile)
        self._program = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("hurried_program.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={k: v for k, v in os.environ.items() if k not in _CERTIFICATES},
        )
        self._answers = b""

    def stop(self) -> None:
        """End all processes."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        self._program.wait(HANG_SECONDS)
        self._program.stdout.close()
        for emulator in self._emulators.values():
            emulator.stop()

    # --- one cell

    def run(self, cell: Cell, *, again: bool, also: Iterable[Mapping[str, Any]] = ()) -> Seen:
        """Run a cell.

        Args:
            cell: The cell.
            again: Whether a run that failed is followed by one without faults.
            also: More faults.
        """
        emulator = self._emulators[cell.profile]
        table = f"t{next(self._numbers)}"
        schema_name = "local_erp" if BY_NAME[cell.situation].connection else "local"
        self._make_ready(emulator, table, BY_NAME[cell.situation].connection)
        for fault in (*also, *cell.faults(table)):
            emulator._ask("POST", "faults", json=fault)
        try:
            run = self._go(emulator, cell, table)
            shown = emulator._ask("GET", "faults")
        finally:
            answer = emulator.session.delete(f"{emulator.url}/_emulator/faults", timeout=60)
            assert answer.status_code == 200
        left = eventually(lambda: self._at_rest(emulator, table), "all jobs have ended")
        rows = self._rows(emulator, schema_name, table)
        seen = _judged(cell, run, rows, [job["status"] for job in left[1:]])
        if not shown[-1]["fired"]:
            seen.problems.append("the fault was not met")
        if run.code != 0 and again and cell.method != "append":
            seen.problems += self._next_run(emulator, cell, table, schema_name)
        for job in self._at_rest(emulator, table)[1:]:
            emulator.session.delete(f"{self._jobs(emulator)}/{job['id']}", timeout=60)
        return seen

    def _next_run(
        self, emulator: Emulator, cell: Cell, table: str, schema_name: str
    ) -> Iterable[str]:
        """Run once more, without faults; yield what is not right then."""
        run = self._go(emulator, cell, table)
        if (run.code, run.states) != (0, [LAST_STATE]):
            yield f"the next run: {run.code} {run.last_words}"
        if self._rows(emulator, schema_name, table) != tables(cell.method)[1]:
            yield "the next run: not the rows that were sent"
        if any(job["status"] == "NEW" for job in self._at_rest(emulator, table)[1:]):
            yield "the next run: a NEW job stays"

    @staticmethod
    def _jobs(emulator: Emulator) -> str:
        return f"{emulator.url}/data-ingestion/api/v1/data-push/local/jobs"

    def _make_ready(self, emulator: Emulator, table: str, connection: bool) -> None:
        """Push the old rows."""
        columns = [
            {"columnName": "id", "columnType": "INTEGER"},
            {"columnName": "text", "columnType": "STRING", "fieldLength": 4000},
        ]
        body = {
            "targetName": table,
            "dataPoolId": "local",
            "type": "REPLACE",
            "tableSchema": {"tableName": table, "columns": columns},
        }
        if connection:
            body["connectionId"] = "erp"
        session, jobs = emulator.session, self._jobs(emulator)
        made = session.post(jobs, json=body, timeout=60)
        job = f"{jobs}/{made.json()['id']}"
        file = {"file": _old_parquet()}
        assert session.post(f"{job}/chunks/upserted", files=file, timeout=60).ok
        assert session.post(job, timeout=60).ok
        eventually(lambda: session.get(job, timeout=60).json()["status"] == "DONE", "a table")
        session.delete(job, timeout=60)

    def _at_rest(self, emulator: Emulator, table: str) -> list[dict[str, Any]]:
        """Return the jobs on a table behind a first entry; nothing while one is under way."""
        listed = emulator.session.get(self._jobs(emulator), timeout=60).json()
        jobs = [job for job in listed if job["targetName"] == table]
        is_at_rest = all(job["status"] in (*TERMINAL, "NEW") for job in jobs)
        return [{}, *jobs] if is_at_rest else []

    @staticmethod
    def _rows(emulator: Emulator, schema_name: str, table: str) -> Counter[tuple[int, str]]:
        found = emulator.query(f'SELECT id, "text" FROM "{schema_name}"."{table}"')
        return Counter((int(number or 0), text or "") for number, text in found)

    # --- one run

    def _go(self, emulator: Emulator, cell: Cell, table: str) -> _Run:
        """Run the program to its end."""
        place = self._directory / table
        place.mkdir(exist_ok=True)
        number = next(self._numbers)
        files = {name: place / f"{name}-{number}.txt" for name in ("stdin", "stdout", "stderr")}
        rows = [record(table, id=n, text=NEW_TEXTS[n]) for n in NEW[cell.method]]
        keys = () if cell.method == "append" else ("id",)
        data = (schema(table, keys=keys), *rows, syncing(None))
        files["stdin"].write_bytes(lines(*data))
        report = place / f"report-{number}.json"
        config = place / f"config-{number}.json"
        config.write_text(json.dumps(self._settings(emulator, cell, place, report)))
        order = {name: str(path) for name, path in files.items()} | {
            "directory": str(place),
            "arguments": ["--config", str(config)],
            "patience_seconds": 2.0 if cell.fault == "hang" else 30.0,
        }
        code = self._forked(json.dumps(order).encode())
        out, err = files["stdout"].read_bytes(), files["stderr"].read_text()
        evidence.printed(out, err)
        told = json.loads(report.read_text()) if report.exists() else None
        run = _Run(code, out.splitlines(), err, told)
        files["stdin"].unlink()
        return run

    def _settings(
        self, emulator: Emulator, cell: Cell, place: Path, report: Path
    ) -> dict[str, object]:
        settings: dict[str, object] = emulator.settings | {
            "spool_dir": str(place / "spool"),
            "load_method": LOAD_METHODS[cell.method],
            "report_path": str(report),
            "parallel_uploads": 1,
            "wait_timeout_minutes": 5,
            "auth_method": "api_key",
        }
        there = BY_NAME[cell.situation]
        if there.connection:
            settings["connection_id"] = "erp"
        if there.oauth or cell.fault in OAUTH:
            del settings["api_key"]
            settings["auth_method"] = "oauth"
            settings["oauth_client_id"] = CLIENT
            settings["oauth_client_secret"] = self._secret
        return settings

    def _forked(self, order: bytes) -> int:
        """Have a run forked, and return its exit code; one that hangs is killed."""
        assert self._program.stdin is not None
        self._program.stdin.write(order + b"\n")
        pid = self._answer(HANG_SECONDS)
        assert pid is not None
        code = self._answer(HANG_SECONDS)
        if code is None:
            os.kill(pid, signal.SIGKILL)
            code = self._answer(HANG_SECONDS)
        assert code is not None
        return code

    def _answer(self, patience_seconds: float) -> int | None:
        assert self._program.stdout is not None
        deadline = time.monotonic() + patience_seconds
        while b"\n" not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._program.stdout], [], [], left)[0]:
                return None
            self._answers += os.read(self._program.stdout.fileno(), 100) or b"-1\n"
        line, _, self._answers = self._answers.partition(b"\n")
        return int(line)


_parquet: list[bytes] = []


def _old_parquet() -> bytes:
    if not _parquet:
        sink = pa.BufferOutputStream()
        table = pa.table({"id": list(OLD), "text": [OLD_TEXTS[n] for n in OLD]})
        pq.write_table(table, sink)
        _parquet.append(sink.getvalue().to_pybytes())
    return _parquet[0]


# --- the judgement


def _judged(cell: Cell, run: _Run, rows: Counter[tuple[int, str]], left: Iterable[str]) -> Seen:
    """Say what a run came to, and what of it must not be."""
    old, new = tables(cell.method)
    place = "table as before" if rows == old else "table loaded" if rows == new else "a part loaded"
    words = [f"exit {run.code} {run.error_code}", place]
    if run.code == 0:
        ways = (words for said, words in WAYS if said in run.err)
        words = [next(ways, "loaded")]
    counted = Counter("a NEW job stays" if status == "NEW" else "the job stays" for status in left)
    words += [name if count == 1 else f"{name} ({count})" for name, count in counted.items()]
    problems = list(_problems(cell, run, rows, place))
    return Seen("; ".join((", ".join(words[:2]), *words[2:])), problems, run.err)


def _problems(cell: Cell, run: _Run, rows: Counter[tuple[int, str]], place: str) -> Iterable[str]:
    """Yield what breaks a promise."""
    new = tables(cell.method)[1]
    is_part = place == "a part loaded"
    told = run.report or {"exit_code": None, "error": None, "streams": []}
    code = (told["error"] or {"code": ""})["code"]
    broken = {
        f"exit code {run.code}": run.code not in (0, 3, 6, 7),
        f"states {run.states!r}": run.states not in ([], [LAST_STATE]),
        "the state is ahead of the data": bool(run.states) and rows != new,
        f"exit 0, and {place}": run.code == 0 and rows != new,
        "exit 0 without its state": run.code == 0 and not run.states,
        "no plain sentence": run.code != 0 and run.error_code == "without a code",
        "a part is loaded, which is not said": is_part and "not known" not in run.last_words,
        "a part is loaded": is_part and cell.situation != "job",
        "a traceback": "Traceback" in run.err,
        "a report of another end": told["exit_code"] != run.code,
        "a report of another error": run.code != 0 and code != run.error_code,
    }
    yield from (what for what, is_so in broken.items() if is_so)
    for one in told["streams"]:
        sums = sum(one[n] for n in ("loaded", "merged", "deleted", "superseded", "filtered"))
        if one["read"] != sums + one["not_loaded"]:
            yield f"the sums of the report: {one}"
        if one["loaded"] and rows != new:
            yield "the report is ahead of the data"
