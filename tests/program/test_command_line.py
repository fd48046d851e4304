"""Options, settings, checks before the first line, and how each fault of them ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from .harness import Emulator, Target, lines, record, rows, schema, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program without a configuration file of the test's."""
    return subprocess.run(
        [sys.executable, "-m", "target_celonis", *arguments],
        input="",
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env=os.environ | variables,
    )


def test_about_in_its_forms() -> None:
    forms = [("--about",), ("--about", "--format=json"), ("--about", "--format=markdown")]
    with ThreadPoolExecutor(2) as pool:
        shown = list(pool.map(lambda arguments: run(*arguments), forms))
    for ended in shown:
        assert ended.returncode == 0, ended.stderr
        for name in ("target-celonis", "load_method", "checkpoint_interval_minutes"):
            assert name in ended.stdout
    about = json.loads(shown[1].stdout)
    assert about["name"] == "target-celonis"
    assert "load_method" in about["settings"]["properties"]


def test_version() -> None:
    ended = run("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("target-celonis")


# --- settings


FAULTS_OF_SETTINGS = [
    (None, "TC-SETTINGS-01", "config-0.json"),
    ("{", "TC-SETTINGS-01", "config-1.json"),
    ("[1]", "TC-SETTINGS-01", "config-2.json"),
    ("{}", "TC-SETTINGS-04", "base_url"),
    ('{"base_url": "embedded", "load_methods": 1}', "TC-SETTINGS-02", "`load_method`"),
    ('{"base_url": "embedded", "chunk_size_mb": 0}', "TC-SETTINGS-03", "chunk_size_mb"),
    ('{"base_url": "https://a.celonis.cloud"}', "TC-SETTINGS-04", "data_pool_id"),
    ("--chekc", "TC-SETTINGS-05", "--chekc"),
]


def test_faults_of_settings(tmp_path: Path) -> None:
    commands = []
    for number, (content, _, _) in enumerate(FAULTS_OF_SETTINGS):
        path = tmp_path / f"config-{number}.json"
        if content is not None and not content.startswith("--"):
            path.write_text(content)
        options = (content,) if content and content.startswith("--") else ()
        commands.append(("--config", str(path), *options))
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda arguments: run(*arguments), commands))
    for ended, (_, error, said) in zip(ends, FAULTS_OF_SETTINGS, strict=True):
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.count("\n") <= 2
        last = ended.stderr.splitlines()[-1]
        assert last.startswith(f"target-celonis: [{error}]")
        assert said in last


def test_settings_from_the_environment(
    make_target: Callable[..., Target], emulator: Emulator, stream: str
) -> None:
    """The file wins; lists come as JSON; names that are not ours are nobody's fault."""
    environment = {
        "TARGET_CELONIS_BASE_URL": emulator.url,
        "TARGET_CELONIS_DATA_POOL_ID": f"{emulator.url}/integration/ui/pools/local/details",
        "TARGET_CELONIS_API_KEY": emulator.key,
        "TARGET_CELONIS_LOAD_METHOD": "overwrite",
        "TARGET_CELONIS_STREAMS": json.dumps([{"match": "*", "table": "env_{stream}"}]),
        "TARGET_CELONIS__NAMESPACE": "target_celonis",
        "TARGET_CELONIS_COMMANDS": "{}",
    }
    target = make_target(load_method="append-only")
    data = lines(schema(stream), *rows(stream, [1, 1]))
    ended = target.run(data, "--config=ENV", environment=environment)
    assert ended.code == 0, ended.err
    assert emulator.key not in ended.err
    assert emulator.count(f"env_{stream}") == 2


@pytest.mark.parametrize("tail", ["\n", "\r\nX-Other: 1", "\u0141"])
def test_a_key_that_no_header_can_hold(
    make_target: Callable[..., Target], emulator: Emulator, tail: str
) -> None:
    """Keys are pasted, with a line end behind them; the log at its most talkative shows none."""
    target = make_target(**emulator.settings | {"api_key": None})
    target.prints_states = False
    variables = {"TARGET_CELONIS_API_KEY": emulator.key + tail, "LOGLEVEL": "DEBUG"}
    ended = target.run(b"", "--check", environment=variables)
    assert emulator.key not in ended.err
    assert ended.code == 2 or (ended.code == 0 and tail == "\n")


# --- before the first line


def test_check_prints_what_it_found_and_reads_nothing(
    target: Target, emulator: Emulator, stream: str
) -> None:
    target.prints_states = False
    running = target.start("--check", connection_id="erp")
    running.write(schema(stream), *rows(stream, [1]))
    ended = running.wait(close=False)
    assert ended.code == 0, ended.err
    shown = ended.out.decode()
    assert len([line for line in shown.splitlines() if line.startswith("ok")]) == 5
    for named in (emulator.url, "local", "/data-ingestion", "erp", "Bearer"):
        assert named in shown
    assert emulator.history(stream) == []


ACCESS = [
    ({"api_key": "wrong"}, "TC-ACCESS-01", "api_key"),
    ({"auth_method": "app_key"}, "TC-ACCESS-01", "api_key"),
    ({"data_pool_id": "nowhere"}, "TC-ACCESS-02", "nowhere"),
    ({"connection_id": "nothing"}, "TC-ACCESS-03", "nothing"),
    ({"data_push_prefix": "/elsewhere"}, "TC-ACCESS-02", "local"),
]


def test_access_is_known_before_the_first_line(target: Target, emulator: Emulator) -> None:
    """Nothing is written to the programs, so nothing was waited for."""
    begun = [target.start(**settings) for settings, _, _ in ACCESS]
    for running, (_, error, said) in zip(begun, ACCESS, strict=True):
        ended = running.wait(close=False)
        assert ended.code == 3, ended.err
        assert f"[{error}]" in ended.last_words
        assert said in ended.last_words
        assert ended.out == b""
        assert emulator.key not in ended.err


def test_nothing_listens(make_target: Callable[..., Target], stream: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    target = make_target(
        base_url=f"http://127.0.0.1:{port}", data_pool_id="p", api_key="never-shown"
    )
    ended = target.fail(6, "TC-REMOTE-01", schema(stream), state({}))
    assert f"127.0.0.1:{port}" in ended.last_words
    assert ended.out == b""


def asked(celonis: Emulator) -> dict[tuple[str, str], int]:
    """Return the requests so far, but for those of the tests."""
    return {
        (method, path): count
        for (method, path), count in celonis.requests().items()
        if not path.startswith("/_emulator")
    }


def test_a_dry_run_speaks_to_nobody(target: Target, emulator: Emulator, stream: str) -> None:
    target.prints_states = False
    before = asked(emulator)
    data = lines(schema(stream), *rows(stream, [1, 2, 2]), record(stream, id=3, text="x" * 300))
    ended = target.run(data, "--dry-run", base_url="http://127.0.0.1:9", spool_dir=None)
    assert ended.code == 0, ended.err
    shown = ended.out.decode()
    for named in (f"table {stream}", "DELTA, keys: id", "STRING(1000)", "INTEGER"):
        assert named in shown
    assert asked(emulator) == before
    target.fail(4, "TC-INPUT-05", record(stream, id=1, text="a"))


# --- keys, prefixes, connections


def test_an_application_key_the_older_prefix_and_a_connection(
    start: Callable[..., Emulator], make_target: Callable[..., Target]
) -> None:
    celonis = start("--data-push-prefixes", "integration", "--connection", "local:erp=ERP")
    settings = celonis.settings | {"api_key": celonis.app_key, "connection_id": "erp"}
    target = make_target(**settings)
    for _ in range(2):
        target.load(schema("orders"), *rows("orders", [1, 2]), state({}))
    table = celonis.table("orders")
    assert table is not None
    assert (table["connection_id"], table["rows"]) == ("erp", 2)
    posts = [path for method, path in celonis.requests() if method == "POST"]
    assert any(path.startswith("/integration/api/v1/data-push") for path in posts)
    assert not any(path.startswith("/data-ingestion") for path in posts)
    for job in celonis.history("orders"):
        assert job["connection_id"] == "erp"


def test_the_key_is_in_no_log_however_much_it_says(
    target: Target, emulator: Emulator, stream: str
) -> None:
    data = lines(schema(stream), *rows(stream, [1]), state({}))
    ended = target.run(data, environment={"LOGLEVEL": "DEBUG"})
    assert ended.code == 0, ended.err
    assert "POST" in ended.err  # it does say a lot
    assert emulator.count(stream) == 1


def test_a_healthy_run_ends_with_its_counts(
    target: Target, emulator: Emulator, stream: str
) -> None:
    ended = target.load(schema(stream), *rows(stream, [1, 2, 2]), state({}))
    told = [line.rpartition("|")[2].split("  ") for line in ended.err.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in told]
    (head,) = [line for line in cells if line and line[0] == "stream"]
    (counts,) = [line for line in cells if line and line[0] == stream]
    found = dict(zip(head, counts, strict=True))
    expected = {"table": stream, "read": "3", "loaded": "2", "merged": "1", "jobs": "1"}
    assert found | expected == found
    assert emulator.count(stream) == 2
