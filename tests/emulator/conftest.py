"""A real emulator as a subprocess, and a client that speaks plain HTTP to it."""

# ruff: noqa: A002 - `type` is the field's name on the wire
from __future__ import annotations

import io
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import evidence
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = "an-api-key"
APP_KEY = "an-app-key"
HARSH_CHUNK_BYTES = 1_000_000
ENDED = ("DONE", "ERROR", "CANCELED")
PATIENCE_SECONDS = 20.0
_names = itertools.count(1)


def parquet(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), buffer, **options)
    return buffer.getvalue()


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Poll until a condition holds and return its value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = 0.002
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    raise AssertionError(f"did not happen in time: {what}")


class Nursery:
    """A process that forks servers quickly; see ``nursery.py``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answered, _, _ = select.select([self._process.stdout], [], [], PATIENCE_SECONDS)
        assert answered, "the nursery does not answer"
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE_SECONDS)


class Forked:
    """A child of the nursery, with what is used of ``subprocess.Popen``."""

    def __init__(
        self,
        nursery: Nursery,
        arguments: Sequence[str],
        environment: dict[str, str],
        log: Path | None,
    ) -> None:
        self._nursery = nursery
        path = None if log is None else str(log)
        self.pid: int = nursery.ask(arguments=arguments, environment=environment, log=path)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.ask(pid=self.pid)
        return self.returncode

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"process {self.pid} does not end"
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:  # until it is waited for, no other process gets its number
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass
class Server:
    """A running emulator."""

    process: subprocess.Popen[bytes] | Forked
    url: str
    database: Path
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {KEY}"

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=PATIENCE_SECONDS, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=PATIENCE_SECONDS, **options)

    def history(self, table: str) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self.get("/_emulator/history").json()
        return [job for job in jobs if job["table"] == table]

    def described(self, table: str) -> dict[str, Any] | None:
        tables = self.get("/_emulator/tables", params={"name": table}).json()
        return next((found for found in tables if found["table"] == table), None)

    def rows(self, sql: str) -> list[list[Any]]:
        """Query the running server; every value comes as text."""
        answer = self.post("/_emulator/query", json={"sql": sql})
        assert answer.status_code == 200, answer.text
        rows: list[list[Any]] = answer.json()["rows"]
        return rows

    def columns(self, table: str, pool: str = "local", **params: str) -> dict[str, Any]:
        """Return the column listing of a table: (type, length) by name."""
        path = f"/integration/api/pools/{pool}/columns"
        answer = self.get(path, params={"tableName": table} | params)
        assert answer.status_code == 200, answer.text
        return {c["name"]: (c["type"], c["length"]) for c in answer.json()}

    def stop(self) -> int:
        self.session.close()
        self.process.terminate()
        return self.process.wait(PATIENCE_SECONDS)


@dataclass
class Push:
    """One client's use of the Data Push API of a pool."""

    server: Server
    pool: str = "local"
    prefix: str = "data-ingestion"

    @property
    def base(self) -> str:
        return f"/{self.prefix}/api/v1/data-push/{self.pool}/jobs"

    def try_create(self, table: str, type: str = "REPLACE", **fields: Any) -> requests.Response:
        body = {"targetName": table, "type": type, "dataPoolId": self.pool} | fields
        return self.server.post(self.base + "/", json=body)

    def create(self, table: str, type: str = "REPLACE", **fields: Any) -> str:
        answer = self.try_create(table, type, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def upload(self, job: str, content: bytes, kind: str = "upserted") -> requests.Response:
        files = {"file": ("file", content, "application/octet-stream")}
        return self.server.post(f"{self.base}/{job}/chunks/{kind}", files=files)

    def send(self, job: str, table: Any, kind: str = "upserted", **options: Any) -> None:
        answer = self.upload(job, parquet(table, **options), kind)
        assert answer.status_code == 200, answer.text
        assert answer.content == b""

    def execute(self, job: str, **params: Any) -> requests.Response:
        return self.server.post(f"{self.base}/{job}", params=params)

    def get(self, job: str) -> dict[str, Any]:
        answer = self.server.get(f"{self.base}/{job}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def wait(self, job: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            shown = self.get(job)
            return shown if shown["status"] in ENDED else None

        found: dict[str, Any] = eventually(ended, f"job {job} ends")
        return found

    def run(self, job: str, **params: Any) -> dict[str, Any]:
        answer = self.execute(job, **params)
        assert answer.status_code == 200, answer.text
        return self.wait(job)

    def load(
        self, table: str, *chunks: Any, type: str = "REPLACE", status: str = "DONE", **fields: Any
    ) -> dict[str, Any]:
        """Push chunks in one job and expect its end."""
        job = self.create(table, type, **fields)
        for chunk in chunks:
            self.send(job, chunk)
        shown = self.run(job)
        assert shown["status"] == status, shown["logs"]
        return shown


StartServer = Callable[..., Server]


def start(
    directory: Path,
    *arguments: str,
    nursery: Nursery | None = None,
    database: Path | None = None,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> Server:
    """Start an emulator on a free port and wait until it answers.

    Without a nursery the program itself is started, with the options of a ``Popen``; with one,
    ``log`` is a file for all that is printed.
    """
    ready = directory / f"ready-{uuid.uuid4()}"
    database = database or directory / "celonis.duckdb"
    command = ["serve", "--port", "0", "--database", str(database), "--ready-file", str(ready)]
    command += arguments
    keys = {"CELONIS_EMULATOR_API_KEY": KEY, "CELONIS_EMULATOR_APP_KEY": APP_KEY}
    for key in keys.values():
        evidence.secret(key)
    keys |= environment or {}
    process: subprocess.Popen[bytes] | Forked
    options = options if nursery is None else {"log": None} | options
    if nursery is None:
        program = [sys.executable, "-m", "celonis_emulator", *command]
        process = subprocess.Popen(program, env=os.environ | keys, **options)
    else:
        process = Forked(nursery, command, keys, **options)
    eventually(lambda: ready.exists() or process.poll() is not None, "the server answers")
    assert process.poll() is None, "the server did not start"
    about = json.loads(ready.read_text())
    return Server(process, f"{about['scheme']}://{about['host']}:{about['port']}", database)


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line that ends by itself, in this process."""
    from celonis_emulator.cli import main

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = main(arguments)
        shown = capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    return run


# Most tests submit more than a team may; the limits have tests of their own.
NO_LIMITS = ("--submits-per-second", "0", "--submits-per-hour", "0")


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where servers are forked."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Server]:
    """One server with default switches, but for the submit limits, for most tests."""
    server = start(
        tmp_path_factory.mktemp("shared"),
        *NO_LIMITS,
        *("--pool", "local=Local pool", "--pool", "other", "--connection", "local:erp=ERP"),
        nursery=nursery,
    )
    yield server
    server.stop()


@pytest.fixture(scope="session")
def harsh_server(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Server]:
    """One server with several switches set, each of which is seen by tests of its own."""
    server = start(
        tmp_path_factory.mktemp("harsh"),
        *NO_LIMITS,
        *("--oversize", "error", "--delta-missing-table", "error", "--strict-metadata", "on"),
        *("--listing-permission", "none", "--data-push-prefixes", "integration"),
        *("--fail-table", "Bad=ERROR", "--fail-table", "worse=canceled"),
        *("--max-chunk-bytes", str(HARSH_CHUNK_BYTES)),
        nursery=nursery,
    )
    yield server
    server.stop()


@pytest.fixture
def harsh(harsh_server: Server) -> Push:
    """The Data Push API of the harsh server."""
    return Push(harsh_server, prefix="integration")


@pytest.fixture
def push(shared_server: Server) -> Push:
    """The Data Push API of the shared server."""
    return Push(shared_server)


@pytest.fixture
def table() -> str:
    """A table name that no other test uses."""
    return f"table_{next(_names)}"


@pytest.fixture
def start_server(tmp_path: Path, nursery: Nursery) -> Iterator[StartServer]:
    """Start servers with switches of the test's own."""
    yield from _starter(tmp_path, nursery)


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[StartServer]:
    """Start the real program: for what a process inherits, prints, and does as it ends."""
    yield from _starter(tmp_path, None)


def _starter(directory: Path, nursery: Nursery | None) -> Iterator[StartServer]:
    servers: list[Server] = []

    def started(*arguments: str, limits: bool = False, **options: Any) -> Server:
        switches = (*(() if limits else NO_LIMITS), *arguments)
        servers.append(start(directory, *switches, nursery=nursery, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.session.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(PATIENCE_SECONDS)
