"""What only a load needs is not there before the first line is read, so that a start is short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from target_celonis.config import parse
from target_celonis.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import atexit, gc, json, os, sys
from target_celonis import __main__, lines

def tell():
    seen = {"modules": sorted(sys.modules), "gc": gc.isenabled(), "frozen": gc.get_freeze_count()}
    print(json.dumps(seen), file=sys.stderr, flush=True)

def read(*_):
    tell()
    os._exit(9)

lines.Source.read = read
atexit.register(tell)
__main__.main()
"""
FIRST_LINE = 9
"""Exit code of a program that came to its first line."""

TAKES_ROWS_IN = (
    "pyarrow",
    "target_celonis.loader",
    "target_celonis.push",
    "target_celonis.publish",
)
RUNS = ("target_celonis.run", "target_celonis.messages", *TAKES_ROWS_IN)
NEVER = ("duckdb", "fastapi", "faker", "sqlalchemy", "celonis_emulator")


def look(directory: Path, *arguments: str) -> tuple[int, dict[str, object], list[str]]:
    """Run the program to its end or its first line; return its code and what it had there."""
    names = ("TARGET_CELONIS_", "COVERAGE_", "COV_CORE_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(names)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment | {"TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    told = json.loads(ended.stderr.splitlines()[-1])
    return ended.returncode, told, told.pop("modules")


def there(modules: list[str], unwanted: tuple[str, ...]) -> list[str]:
    return [name for name in unwanted if name in modules]


class Celonis(BaseHTTPRequestHandler):
    """A data pool without push jobs."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Settings of a load, and nothing more than it must have."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Celonis) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        file = tmp_path / "target.json"
        file.write_text(json.dumps({"base_url": address, "data_pool_id": "p", "api_key": "k"}))
        yield file
        server.shutdown()


def test_a_load_has_nothing_to_take_rows_in_before_the_first_line(
    config: Path, tmp_path: Path
) -> None:
    code, _, modules = look(tmp_path, "--config", str(config))
    assert code == FIRST_LINE
    assert there(modules, TAKES_ROWS_IN + NEVER) == []


def test_a_dry_run_has_nothing_to_take_rows_in_before_the_first_line(tmp_path: Path) -> None:
    code, _, modules = look(tmp_path, "--dry-run")
    assert code == FIRST_LINE
    assert there(modules, TAKES_ROWS_IN + NEVER) == []


@pytest.mark.parametrize("option", ["--help", "--version", "--about"])
def test_what_is_only_said_needs_no_run(tmp_path: Path, option: str) -> None:
    code, _, modules = look(tmp_path, option)
    assert code == 0
    # The program that looks has the input's module, and what that needs, imported already.
    assert there(modules, RUNS + NEVER) == []


def test_no_garbage_is_looked_for_in_what_was_imported(tmp_path: Path) -> None:
    _, told, _ = look(tmp_path, "--dry-run")
    assert told["gc"] is True
    assert isinstance(told["frozen"], int)
    assert told["frozen"] > 10_000


@pytest.mark.parametrize("address", ["embedded", "http://127.0.0.1:1"])
def test_certificates_are_not_read_where_none_is_looked_at(address: str) -> None:
    variables = {"REQUESTS_CA_BUNDLE": "/no/such/file.pem"}
    settings = {"base_url": address, "data_pool_id": "p", "api_key": "k"}
    assert parse(settings, variables).ca_bundle is None
    with pytest.raises(SettingsError, match="REQUESTS_CA_BUNDLE"):
        parse(settings | {"base_url": "https://team.eu-1.celonis.cloud"}, variables)
