"""Fixtures of pytest for other people's suites.

Put ``pytest_plugins = ["celonis_emulator.testing"]`` into the ``conftest.py`` beside your pytest
settings; then a test asks for ``celonis_emulator``, a server that the whole session shares, or for
``celonis_emulator_factory``, which starts more of them.

Hides: the server's process, its files, its keys and its admin endpoints. Guarantees: a free port of
127.0.0.1 and no other address; when the session ends, however it does, the server ends too.
Must not know: the client that is tested.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 60.0
CONFIG_INI: Final = "celonis_emulator_config"
_ENVIRONMENT: Final = "CELONIS_EMULATOR_"

Config = str | os.PathLike[str] | dict[str, Any]
"""A set-up file, or what would be in it."""


class EmulatorFailed(Exception):  # noqa: N818
    """The emulator does not start, or refuses; the text says why."""


class Emulator:
    """A running emulator with a database of its own; the API key may do everything.

    Args:
        directory: Where its files go.
        config: A set-up file, or what would be in it.
        options: Options of ``celonis-emulator serve``: ``running_seconds=1``, ``cancel=False``; a
            list gives one several times.

    Raises:
        EmulatorFailed: It does not start.
    """

    def __init__(self, directory: Path, config: Config | None = None, **options: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.api_key = secrets.token_hex(16)
        ready = directory / "ready.json"
        command = [sys.executable, "-m", "celonis_emulator", "serve"]
        command += ["--host", "127.0.0.1", "--port", "0"]
        command += ["--database", str(self.database), "--ready-file", str(ready)]
        command += ["--until-stdin-closes", *_arguments(options)]
        if config is not None:
            command += ["--config", str(_config_file(config, directory))]
        # Nothing that is set for another server reaches this one.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_ENVIRONMENT)}
        environment[f"{_ENVIRONMENT}API_KEY"] = self.api_key
        ready.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            # It ends when this process does, by whatever end: its standard input closes then.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
            )
        try:
            self.url = self._wait(ready)
            # Our own child at a loopback address: its certificate proves nothing more, and a proxy
            # is for the world outside.
            trusting = ssl.create_default_context()
            trusting.check_hostname = False
            trusting.verify_mode = ssl.CERT_NONE
            self._handlers = (
                urllib.request.ProxyHandler({}),
                urllib.request.HTTPSHandler(context=trusting),
            )
            pools = self._ask("GET", "/integration/api/pools")
        except BaseException:
            self.stop()
            raise
        self.data_pool_id: str = pools[0]["id"] if pools else ""

    @property
    def database(self) -> Path:
        """The DuckDB file; the server holds it."""
        return self.directory / "celonis.duckdb"

    @property
    def log(self) -> Path:
        """The file of all that the server prints."""
        return self.directory / "celonis-emulator.log"

    @property
    def settings(self) -> dict[str, Any]:
        """A configuration of target-celonis that loads into it, for a test to add to."""
        return {
            "base_url": self.url,
            "auth_method": "api_key",
            "api_key": self.api_key,
            "data_pool_id": self.data_pool_id,
        }

    def _wait(self, ready: Path) -> str:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(encoding="utf-8", errors="replace").strip()
                raise EmulatorFailed(f"The emulator does not start: {said or 'it says nothing'}")
            time.sleep(0.01)
        about = json.loads(ready.read_text(encoding="utf-8"))
        return f"{about['scheme']}://{about['host']}:{about['port']}"

    # What arrived

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query in DuckDB's SQL; a table is ``"<pool id>"."<table>"``."""
        answer = self._ask("POST", "/_emulator/query", {"sql": sql})
        kinds = [kind.partition("(")[0] for kind in answer["types"]]
        return [
            tuple(_value(kind, text) for kind, text in zip(kinds, row, strict=True))
            for row in answer["rows"]
        ]

    def tables(self) -> list[dict[str, Any]]:
        """Describe the tables of all pools: columns, declared lengths, rows."""
        found: list[dict[str, Any]] = self._ask("GET", "/_emulator/tables")
        return found

    def push_jobs(self, table: str | None = None) -> list[dict[str, Any]]:
        """List all push jobs that there ever were, or those on a table, with their chunks."""
        jobs: list[dict[str, Any]] = self._ask("GET", "/_emulator/history")
        return [job for job in jobs if table is None or job["table"].lower() == table.lower()]

    def requests(self) -> dict[tuple[str, str], int]:
        """Count the requests so far by method and path; job ids are written ``{id}``."""
        counted = self._ask("GET", "/_emulator/requests")
        return {(one["method"], one["path"]): one["count"] for one in counted}

    # Faults

    def add_fault(self, match: str | None = None, **fault: Any) -> str:
        """Set a fault, as in the documentation of faults; return its id.

        Example:
            ``emulator.add_fault("execute_job", answer=503, times=2)``
        """
        given = fault if match is None else {"match": match} | fault
        shown: list[dict[str, Any]] = self._ask("POST", "/_emulator/faults", given)
        return str(shown[-1]["id"])

    def faults(self) -> list[dict[str, Any]]:
        """List the faults that are set, and how often each was matched and fired."""
        shown: list[dict[str, Any]] = self._ask("GET", "/_emulator/faults")
        return shown

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._ask("DELETE", "/_emulator/faults")

    # Its life

    def stop(self) -> None:
        """End it; the database stays, and another process may open it."""
        process = self._process
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdin is not None:
                process.stdin.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            self.url + path,
            data=data,
            method=method,
            headers={
                "Authorization": f"Bearer {self.api_key}",
                "Content-Type": "application/json",
            },
        )
        opener = urllib.request.build_opener(*self._handlers)
        try:
            with opener.open(request, timeout=ANSWER_SECONDS) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode("utf-8", "replace")
            raise EmulatorFailed(f"{method} {path} answers {error.code}: {said}") from None
        return json.loads(content) if content else None


def _arguments(options: Mapping[str, Any]) -> list[str]:
    arguments: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        for one in value if isinstance(value, (list, tuple)) else [value]:
            shown = {True: "on", False: "off"}[one] if isinstance(one, bool) else str(one)
            arguments += [option, shown]
    return arguments


def _config_file(config: Config, directory: Path) -> Path:
    if not isinstance(config, dict):
        return Path(config).absolute()
    path = directory / "emulator.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    **dict.fromkeys(["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"], int),
    **dict.fromkeys(["UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"], int),
    **dict.fromkeys(["FLOAT", "DOUBLE"], float),
    "DECIMAL": Decimal,
    "BOOLEAN": "true".__eq__,
    "DATE": dt.date.fromisoformat,
    "TIME": dt.time.fromisoformat,
    "TIMESTAMP": dt.datetime.fromisoformat,
}
"""How values come out of their text; those of other types stay text."""


def _value(kind: str, text: str | None) -> Any:
    """Return a value of a DuckDB type from its text; a date before or after Python's stays text."""
    if text is None:
        return None
    try:
        return _READERS.get(kind, str)(text)
    except ValueError:
        return text


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the pytest settings name a set-up file."""
    parser.addini(CONFIG_INI, "set-up file of celonis-emulator, relative to the pytest settings")


@pytest.fixture(scope="session")
def celonis_emulator_config(pytestconfig: pytest.Config) -> Config | None:
    """The set-up of the shared emulator: the file of the pytest settings; yours to override."""
    try:
        named = pytestconfig.getini(CONFIG_INI)
    except (KeyError, ValueError):
        # A plugin that a test module asks for comes too late to add settings.
        return None
    base = pytestconfig.inipath.parent if pytestconfig.inipath else pytestconfig.rootpath
    return base / str(named) if named else None


@pytest.fixture(scope="session")
def celonis_emulator(
    tmp_path_factory: pytest.TempPathFactory, celonis_emulator_config: Config | None
) -> Iterator[Emulator]:
    """An emulator that the whole session shares; what tests push stays in it."""
    emulator = Emulator(tmp_path_factory.mktemp("celonis"), celonis_emulator_config)
    try:
        yield emulator
    finally:
        emulator.stop()


class EmulatorFactory:
    """Starts emulators, each with a database of its own; they end with the test."""

    def __init__(self, directories: Callable[[str], Path]) -> None:
        self._directories = directories
        self._started: list[Emulator] = []

    def __call__(
        self, *, config: Config | None = None, directory: Path | None = None, **options: Any
    ) -> Emulator:
        """Start one.

        Args:
            config: A set-up file, or what would be in it.
            directory: That of one that was stopped, to go on with its database.
            options: Those of ``celonis-emulator serve``.

        Raises:
            EmulatorFailed: It does not start.
        """
        directory = directory or self._directories("celonis")
        self._started.append(Emulator(directory, config, **options))
        return self._started[-1]

    def stop(self) -> None:
        """End all of them."""
        for emulator in self._started:
            emulator.stop()


@pytest.fixture
def celonis_emulator_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorFactory]:
    """Start emulators with options of the test's own: ``factory(running_seconds=1)``."""
    factory = EmulatorFactory(tmp_path_factory.mktemp)
    try:
        yield factory
    finally:
        factory.stop()
