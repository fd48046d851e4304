"""The two programs as subprocesses: a running emulator, and runs of the target against it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import evidence
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
TERMINAL = ("DONE", "ERROR", "CANCELED")


def eventually(
    condition: Callable[[], T], what: str, patience_seconds: float = PATIENCE_SECONDS
) -> T:
    """Poll until a condition holds and return its value."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"did not happen in time: {what}")


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self").exists()


# --- what a tap prints


def message(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, **fields}, ensure_ascii=False).encode()


def schema(
    stream: str, properties: Mapping[str, Any] | None = None, keys: Sequence[str] = ("id",)
) -> bytes:
    """Return a SCHEMA; without properties, of an ``id`` and a ``text``."""
    properties = properties or {"id": {"type": "integer"}, "text": {"type": ["null", "string"]}}
    return message(
        "SCHEMA",
        stream=stream,
        schema={"type": "object", "properties": properties},
        key_properties=list(keys),
    )


def record(stream: str, version: int | None = None, /, **values: Any) -> bytes:
    more = {} if version is None else {"version": version}
    return message("RECORD", stream=stream, record=values, **more)


def state(value: Any) -> bytes:
    return message("STATE", value=value)


def syncing(stream: str | None) -> bytes:
    return state({"bookmarks": {}, "currently_syncing": stream})


def lines(*messages: bytes) -> bytes:
    return b"".join(line + b"\n" for line in messages)


def rows(stream: str, numbers: Iterable[int], text: str = "a") -> list[bytes]:
    return [record(stream, id=number, text=text) for number in numbers]


# --- the emulator


@dataclass
class Emulator:
    """A running emulator.

    Attributes:
        key: A user API key that it accepts.
        app_key: An application key that it accepts.
        profile: Its answers where the real ones are not known.
    """

    process: subprocess.Popen[bytes]
    url: str
    key: str
    app_key: str
    profile: str = "lenient"
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {self.key}"

    @property
    def settings(self) -> dict[str, Any]:
        settings = {"base_url": self.url, "data_pool_id": "local", "api_key": self.key}
        if self.profile == "harsh":  # there, a DELTA push makes no table
            settings["create_missing_table"] = "replace"
        return settings

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        url = f"{self.url}/_emulator/{path}"
        answer = self.session.request(method, url, timeout=PATIENCE_SECONDS, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def history(self, *tables: str) -> list[dict[str, Any]]:
        """Return all push jobs that there were, or those of some tables."""
        jobs = self._ask("GET", "history")
        return [job for job in jobs if not tables or job["table"] in tables]

    def left_behind(self) -> list[dict[str, Any]]:
        return [job for job in self.history() if not job["deleted"]]

    def table(self, name: str) -> dict[str, Any] | None:
        found = [table for table in self._ask("GET", "tables") if table["table"] == name]
        return found[0] if found else None

    def types(self, name: str) -> dict[str, str]:
        table = self.table(name)
        assert table is not None
        return {
            c["name"]: c["type"] if c["length"] is None else f"{c['type']}({c['length']})"
            for c in table["columns"]
        }

    def counts(self) -> dict[str, int]:
        """Return the rows of every table."""
        return {table["table"]: table["rows"] for table in self._ask("GET", "tables")}

    def count(self, name: str) -> int | None:
        """Return the rows of a table of the pool's global schema; None where there is none."""
        known = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'local'"
        if not self.query(f"{known} AND lower(table_name) = lower('{name}')"):
            return None
        return int(self.query(f'SELECT count(*) FROM local."{name}"')[0][0] or 0)

    def query(self, sql: str) -> list[list[str | None]]:
        """Run a query; every value comes as text."""
        found: list[list[str | None]] = self._ask("POST", "query", json={"sql": sql})["rows"]
        return found

    def texts(self, name: str) -> dict[int, str | None]:
        """Return a table's ``text`` by ``id``."""
        found = self.query(f'SELECT id, "text" FROM local."{name}" ORDER BY ALL')
        return {int(key or 0): text for key, text in found}

    def requests(self) -> dict[tuple[str, str], int]:
        return {(r["method"], r["path"]): r["count"] for r in self._ask("GET", "requests")}

    def make(self, what: str, **body: Any) -> None:
        """Make a data model or data job of the pool, or replace the one with the id."""
        self._ask("POST", f"pools/local/{what}", json=body)

    def fault(self, *faults: dict[str, Any]) -> None:
        """Have calls meet faults, from now on."""
        self._ask("POST", "faults", json=list(faults))

    def unmet_faults(self) -> list[dict[str, Any]]:
        """Return the faults that no call has met yet."""
        return [shown for shown in self._ask("GET", "faults") if not shown["spent"]]

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Call the API of Celonis itself."""
        return self.session.request(method, self.url + path, timeout=PATIENCE_SECONDS, **options)

    def stop(self) -> None:
        self.session.close()
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


def start_emulator(directory: Path, *options: str, profile: str = "lenient") -> Emulator:
    """Start an emulator under random keys; one hour may see as many submits as it likes."""
    ready = directory / f"ready-{uuid.uuid4()}.json"
    command = [sys.executable, "-m", "celonis_emulator", "serve", "--port", "0"]
    command += ["--database", str(directory / "emulator.duckdb"), "--ready-file", str(ready)]
    key, app_key = (evidence.secret(secrets.token_hex(20)) for _ in range(2))
    variables = {"CELONIS_EMULATOR_API_KEY": key, "CELONIS_EMULATOR_APP_KEY": app_key}
    process = subprocess.Popen(
        [*command, "--submits-per-hour", "0", "--profile", profile, *options],
        env=os.environ | variables,
    )
    eventually(lambda: ready.exists() or process.poll() is not None, "the emulator answers")
    assert process.poll() is None
    about = json.loads(ready.read_text())
    return Emulator(process, f"http://{about['host']}:{about['port']}", key, app_key, profile)


# --- the target


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def states(self) -> list[bytes]:
        return self.out.splitlines()

    @property
    def last_words(self) -> str:
        return self.err.strip().splitlines()[-1]


class Running:
    """A run that is under way, fed by the test."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, target: Target) -> None:
        self.process = process
        self._log = log
        self._target = target
        self._out = bytearray()
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

    def write(self, *messages: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(lines(*messages))
        self.process.stdin.flush()

    def out(self) -> bytes:
        """Return what was printed so far."""
        assert self.process.stdout is not None
        self._out += self.process.stdout.read() or b""
        return bytes(self._out)

    def err(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, *, close: bool = True) -> Ended:
        """Wait for the end; unless told otherwise, after the end of the input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if close:
            self.process.stdin.close()
        code = self.process.wait(PATIENCE_SECONDS)
        os.set_blocking(self.process.stdout.fileno(), True)
        ended = Ended(code, self.out(), self.err())
        evidence.printed(ended.out, ended.err)
        self.close()
        if code != -signal.SIGKILL:
            self._target.look_at(ended)
        return ended

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Target:
    """The program, with a directory and settings.

    Args:
        directory: Working directory of the runs.
        settings: Those that a run does not name itself.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self._settings = {"spool_dir": str(self.spool)} | dict(settings)
        self._runs = 0
        self.running: list[Running] = []
        self.prints_states = True

    def command(self, *arguments: str, **settings: Any) -> list[str]:
        """Return a command line; settings that are None are left out."""
        self._runs += 1
        values = {k: v for k, v in (self._settings | settings).items() if v is not None}
        evidence.secrets_of(values)
        path = self.directory / f"config-{self._runs}.json"
        path.write_text(json.dumps(values))
        return [sys.executable, "-m", "target_celonis", "--config", str(path), *arguments]

    def run(
        self,
        data: bytes,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Ended:
        """Run to the end."""
        return self.run_command(self.command(*arguments, **settings), data, environment)

    def run_command(
        self,
        command: Sequence[str],
        data: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command line to the end."""
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            timeout=PATIENCE_SECONDS * 10,
            check=False,
            cwd=self.directory,
            env=os.environ | dict(environment or {}),
        )
        ended = Ended(done.returncode, done.stdout, done.stderr.decode())
        self.look_at(ended)
        return ended

    def load(self, *messages: bytes, **settings: Any) -> Ended:
        """Run, and expect it to go well."""
        ended = self.run(lines(*messages), **settings)
        assert ended.code == 0, ended.err
        return ended

    def fail(self, code: int, error: str, *messages: bytes, **settings: Any) -> Ended:
        """Run, and expect it to fail so."""
        ended = self.run(lines(*messages), **settings)
        assert (ended.code, ended.last_words.split()[1]) == (code, f"[{error}]"), ended.err
        return ended

    def start(self, *arguments: str, killed_at: Sequence[str] = (), **settings: Any) -> Running:
        """Start a run that the test feeds, or one that ends itself at a point of its way."""
        command = self.command(*arguments, **settings)
        if killed_at:  # in place of ``-m target_celonis``
            command[1:3] = [str(Path(__file__).with_name("killed_program.py")), *killed_at, "--"]
        log = self.directory / f"stderr-{self._runs}.txt"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                cwd=self.directory,
            )
        self.running.append(Running(process, log, self))
        return self.running[-1]

    def look_at(self, ended: Ended) -> None:
        """Check what holds for every run, good or bad."""
        key = self._settings.get("api_key")
        assert key is None or key not in ended.err + ended.out.decode()
        for line in ended.states if self.prints_states else ():
            assert isinstance(json.loads(line), dict)
        if ended.code == 0:
            for word in ("error", "exception", "traceback"):
                assert word not in ended.err.lower(), ended.err
        else:
            assert ended.last_words.startswith("target-celonis: [TC-")
            assert "Traceback" not in ended.err
        # Nothing of a run stays but what the next one is to know.
        left = {path.name for path in self.spool.glob("*")} - {
            "tables",
            "locks",
            "submits",
            "publish",
        }
        if "left running" in ended.err or "could not be deleted" in ended.err:
            for run in self.runs_in_spool():  # its journal names what is still in Celonis
                assert {path.name for path in run.iterdir()} <= {"journal.jsonl", "lock"}
                left.discard(run.name)
        assert left == set()

    def runs_in_spool(self) -> list[Path]:
        return sorted(self.spool.glob("run-*"))

    def stop(self) -> None:
        """End what a failed test left running."""
        for running in self.running:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait(PATIENCE_SECONDS)
            running.close()
