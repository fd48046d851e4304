"""Secrets are found wherever they are printed, and what waits on disk is for its owner alone."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import evidence
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(evidence.__file__).parent
SECRET = "planted/secret+of=this test"
PATIENCE_SECONDS = 60.0


# --- the search

printable = st.text("".join(map(chr, range(0x20, 0x7F))), min_size=8, max_size=60)


@given(printable, st.binary(max_size=40), st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_secret_is_found_at_any_place(secret: str, before: bytes, behind: bytes) -> None:
    search = evidence.Search([secret, "another-secret"])
    spellings = [
        secret.encode(),
        quote(secret, safe="").encode(),
        json.dumps({"key": secret}).encode(),
        base64.b64encode(before + secret.encode() + behind),
        base64.urlsafe_b64encode(before + secret.encode() + behind),
    ]
    for spelled in spellings:
        assert search.holds(before + spelled + behind)
        assert search.holds(spelled)


@given(st.lists(printable, max_size=5), st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_what_is_found_is_there(secrets: list[str], text: bytes) -> None:
    there = any(form in text for secret in secrets for form in evidence.forms(secret))
    assert evidence.Search(secrets).holds(text) == there


def test_a_part_of_a_secret_is_none() -> None:
    search = evidence.Search([SECRET, "t1"])
    assert not search.holds(SECRET[:-1].encode() + b" t1 " + SECRET[1:].encode())


# --- the whole run

LEAKING = f"""
import json, subprocess, sys
import evidence

SECRET = evidence.secret({SECRET!r})
CODE = "import os, sys; getattr(sys, sys.argv[1]).write('said: ' + os.environ['IT'])"


def run(stream, **options):
    subprocess.run(
        [sys.executable, "-c", CODE, stream], env={{"IT": SECRET}}, capture_output=True, **options
    )


def test_output():
    run("stdout")


def test_errors():
    run("stderr", text=True)


def test_print():
    print("one", SECRET)


def test_log(tmp_path):
    (tmp_path / "program.log").write_text("in a log: " + SECRET)


def test_report(tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "report.json").write_text(json.dumps({{"a": SECRET}}))


def test_handed_in():
    evidence.printed(SECRET.encode())


def test_settings():
    evidence.secrets_of({{"proxy": "http://user:pass%2Bword@proxy", "api_key": None}})
    print("pass+word")


def test_nothing():
    print("nothing of it")
"""

CLEAN = f"""
import json
import evidence


def test_settings_may_hold_them(tmp_path):
    secret = evidence.secret({SECRET!r})
    (tmp_path / "config-1.json").write_text(json.dumps({{"api_key": secret}}))
    print(secret[:-1])
"""


def run_suite(directory: Path, code: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run pytest with the plugin on a suite of one module."""
    directory.mkdir()
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "test_it.py").write_text(code)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "evidence", "-p", "no:cacheprovider"]
    command += ["-p", "no:randomly", "-p", "no:schemathesis", *options, str(directory)]
    return subprocess.run(
        command,
        cwd=directory,
        env=kept | {"PYTHONPATH": str(TESTS), "TMPDIR": str(directory)},
        capture_output=True,
        timeout=PATIENCE_SECONDS * 2,
        check=False,
    )


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "workers"])
def test_a_run_that_prints_secrets_fails(tmp_path: Path, workers: tuple[str, ...]) -> None:
    ended = run_suite(tmp_path / "suite", LEAKING, *workers)
    out = ended.stdout.decode()
    assert ended.returncode == 1, out
    assert "8 passed" in out
    named = [line.rpartition("SECRET in ")[2] for line in out.splitlines() if "SECRET in" in line]
    expected = ("output", "errors", "print", "handed_in", "settings")
    tests = {name.rpartition("::")[2] for name in named if "::" in name}
    assert tests == {f"test_{name}" for name in expected}
    files = {Path(name).name for name in named if "::" not in name}
    assert files == {"program.log", "report.json"}
    for shown in (ended.stdout, ended.stderr):
        assert SECRET.encode() not in shown
    assert not list((tmp_path / "suite").glob("evidence-*"))


def test_a_run_that_prints_none_passes(tmp_path: Path) -> None:
    ended = run_suite(tmp_path / "suite", CLEAN)
    assert ended.returncode == 0, ended.stdout
    assert b"SECRET in" not in ended.stdout
    assert not list((tmp_path / "suite").glob("evidence-*"))


def test_this_run_is_searched(request: pytest.FixtureRequest) -> None:
    assert request.config.pluginmanager.hasplugin("evidence")


# --- what lies on disk


def modes(directory: Path) -> dict[str, int]:
    """Return the permissions of all that is there, the directory among it; some may go."""
    found: dict[str, int] = {}
    for path in (directory, *directory.rglob("*")):
        try:
            found[str(path.relative_to(directory))] = path.stat().st_mode
        except FileNotFoundError:  # renamed or removed in the meantime
            continue
    return found


def assert_private(found: dict[str, int]) -> None:
    for name, mode in found.items():
        assert mode & 0o777 == (0o700 if mode & 0o040000 else 0o600), (name, oct(mode))


@pytest.fixture
def planning(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A ``--dry-run`` without a umask, fed by the test."""
    values = {"spool_dir": str(tmp_path / "spool"), "chunk_size_mb": 1}
    (tmp_path / "config.json").write_text(json.dumps(values))
    command = [sys.executable, "-m", "target_celonis", "--dry-run"]
    with (tmp_path / "out.txt").open("wb") as out:
        started = subprocess.Popen(
            [*command, "--config", str(tmp_path / "config.json")],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            cwd=tmp_path,
            umask=0,
        )
    yield started
    started.kill()
    started.wait(PATIENCE_SECONDS)
    assert started.stdin is not None
    with suppress(BrokenPipeError):
        started.stdin.close()


def test_the_spool_is_for_its_owner_alone(
    planning: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """While chunks wait, and what a dry run keeps: whatever the umask is."""
    assert planning.stdin is not None
    schema = {"properties": {"id": {"type": "integer"}, "text": {"type": "string"}}}
    begin = {"type": "SCHEMA", "stream": "a", "schema": schema, "key_properties": ["id"]}
    planning.stdin.write(json.dumps(begin).encode() + b"\n")
    spool = tmp_path / "spool"
    deadline = time.monotonic() + PATIENCE_SECONDS
    number = 0
    while not list(spool.rglob("run-*/*/*.parquet")):
        assert time.monotonic() < deadline
        assert planning.poll() is None, (tmp_path / "out.txt").read_text()
        with suppress(BrokenPipeError):  # then it has ended, and said why
            for _ in range(200):
                record = {"id": number, "text": os.urandom(2000).hex()}
                line = {"type": "RECORD", "stream": "a", "record": record}
                planning.stdin.write(json.dumps(line).encode() + b"\n")
                number += 1
    waiting = modes(spool)
    assert any(name.endswith("/lock") for name in waiting)
    assert_private(waiting)
    planning.stdin.close()
    code = planning.wait(PATIENCE_SECONDS)
    assert code == 0, (tmp_path / "out.txt").read_text()
    kept = modes(spool)
    assert any(name.startswith("dry-run-") and name.endswith(".parquet") for name in kept)
    assert_private(kept)
