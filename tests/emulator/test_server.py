"""The server as a process: start, lifeline, signals, locks, restart, a kill in mid job."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from .conftest import KEY, Command, Push, StartServer, eventually, parquet

ROWS = {"id": [1, 2]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(
    start_server: StartServer, tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log.txt"
    push = Push(start_server("--running-seconds", "60", log=log))
    job = push.create("t")
    push.send(job, ROWS)
    push.execute(job)
    eventually(lambda: push.get(job)["status"] == "RUNNING", "the job runs")
    push.server.process.send_signal(number)
    # The session's idle connection does not keep it alive.
    assert push.server.process.wait(10) == 0
    assert log.read_bytes() == b""
    push = Push(start_server(database=push.server.database))
    shown = push.get(job)
    assert shown["status"] == "ERROR"
    assert "stopped" in shown["logs"][0]


def test_a_healthy_run_prints_nothing_but_the_ready_file(
    start_program: StartServer, tmp_path: Path
) -> None:
    """Also: a closed stdin does not matter to who was not asked to watch it."""
    pipe = subprocess.PIPE
    push = Push(start_program(stdin=subprocess.DEVNULL, stderr=pipe, stdout=pipe))
    process = push.server.process
    assert isinstance(process, subprocess.Popen)
    (ready,) = tmp_path.glob("ready-*")
    about = json.loads(ready.read_text())
    assert (about["scheme"], about["host"], about["pid"]) == ("http", "127.0.0.1", process.pid)
    assert push.server.url.endswith(f":{about['port']}")
    push.load("t", ROWS)
    push.load("t", {"id": ["text"]}, type="DELTA", status="ERROR")
    push.server.get("/nothing")
    push.server.session.close()
    process.terminate()
    assert process.communicate(timeout=10) == (b"", b"")
    assert process.returncode == 0


def test_it_ends_when_stdin_closes(start_program: StartServer, start_server: StartServer) -> None:
    server = start_program("--until-stdin-closes", stdin=subprocess.PIPE)
    push = Push(server)
    push.load("t", ROWS)
    # A request in progress and a job at work do not hold it.
    slow = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":")[-1])))
    slow.sendall(b"POST /integration/api/pools HTTP/1.1\r\nContent-Length: 100\r\n\r\n")
    started = time.monotonic()
    assert isinstance(server.process, subprocess.Popen)
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.process.wait(5) == 0
    assert time.monotonic() - started < 1.5
    slow.close()
    again = Push(start_server(database=server.database))
    assert again.server.rows("SELECT count(*) FROM local.t") == [["2"]]


def test_state_survives_a_restart(start_server: StartServer) -> None:
    options = ("--pool", "p=Pool", "--connection", "p:c=Conn", "--connection", "q:c")
    push = Push(start_server(*options), pool="p")
    done = push.load("T", {"s": ["x" * 300]}, connectionId="c", fallbackVarcharLength=200)
    new = push.create("T", "DELTA", connectionId="c", keys=["s"])
    push.send(new, {"s": ["first"]})
    gone = push.load("gone", ROWS)["id"]
    push.server.session.delete(f"{push.server.url}{push.base}/{gone}")
    before = push.server.get("/_emulator/history").json()
    assert push.server.stop() == 0

    # Pools and connections need not be named again.
    push = Push(start_server("--pool", "p", database=push.server.database), pool="p")
    server = push.server
    assert [pool["id"] for pool in server.get("/integration/api/pools").json()] == ["p", "q"]
    sources = server.get("/integration/api/pools/p/data-sources/").json()
    assert [source["name"] for source in sources] == ["Conn"]
    assert server.get("/_emulator/history").json() == before
    assert push.get(done["id"]) == done
    assert server.get(f"{push.base}/{gone}").status_code == 404
    assert server.columns("t", pool="p", schemaName="c") == {"s": ("STRING", 800)}
    push.send(new, {"s": ["second" * 50]})
    assert push.run(new)["status"] == "DONE"
    rows = server.rows("SELECT length(s) FROM p_c.T ORDER BY 1")
    assert rows == [["5"], ["200"], ["200"]]


def test_a_kill_in_mid_job_leaves_the_table_as_it_was(start_server: StartServer) -> None:
    push = Push(start_server("--running-seconds", "0.2"))
    push.load("t", ROWS)
    job = push.create("t")
    push.send(job, {"id": range(2_000_000)})
    files = Path(f"{push.server.database}.chunks")
    push.execute(job)
    eventually(lambda: push.get(job)["status"] == "RUNNING", "the job runs")
    time.sleep(0.25)
    push.server.process.kill()
    push.server.process.wait(10)
    (stray := files / job / "stray.part").write_bytes(b"half an upload")
    push = Push(start_server(database=push.server.database))
    shown = push.get(job)
    rows = push.server.rows("SELECT count(*) FROM local.t")
    # Either it was just through, or nothing of it is seen.
    assert (shown["status"], rows) in [("ERROR", [["2"]]), ("DONE", [["2000000"]])]
    assert not stray.exists()
    assert push.execute(job).status_code == 400


def test_a_second_server_names_the_holder(start_server: StartServer, command: Command) -> None:
    server = start_server()
    started = time.monotonic()
    second = command("serve", "--port", "0", "--api-key", "k", "--database", str(server.database))
    assert time.monotonic() - started > 2
    assert second.code == 4
    (line,) = second.stderr.splitlines()
    assert str(server.database) in line
    assert f"process {server.process.pid}" in line
    assert "celonis-emulator serve" in line
    assert "base_url" in line


def test_a_database_that_is_let_go_in_time_is_opened(
    start_server: StartServer, tmp_path: Path
) -> None:
    database = tmp_path / "held.duckdb"
    code = (
        "import duckdb, sys, time; duckdb.connect(sys.argv[1]); print('held', flush=True); "
        "time.sleep(1.2)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert start_server(database=database).get("/api/cloud").status_code == 200


def test_a_file_that_is_no_database(tmp_path: Path, command: Command) -> None:
    (junk := tmp_path / "junk.duckdb").write_bytes(b"junk" * 1000)
    ended = command("serve", "--port", "0", "--api-key", "k", "--database", str(junk))
    assert ended.code == 4
    assert len(ended.stderr.splitlines()) == 1


def test_a_port_in_use(tmp_path: Path, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        database = str(tmp_path / "c.duckdb")
        ended = command("serve", "--port", port, "--api-key", "k", "--database", database)
    assert ended.code == 3
    assert port in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--pool", "_celonis"),
        ("--pool", "a_b", "--connection", "a:b"),
        ("--pool", "a", "--pool", "A"),
    ],
)
def test_pools_that_would_share_a_schema(
    tmp_path: Path, command: Command, options: tuple[str, ...]
) -> None:
    database = str(tmp_path / "c.duckdb")
    ended = command("serve", "--port", "0", "--api-key", "k", "--database", database, *options)
    assert ended.code == 2
    assert "schema" in ended.stderr


def test_a_key_is_made_and_told_when_none_is_given(tmp_path: Path, command: Command) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CELONIS_EMULATOR")}
    program = [sys.executable, "-m", "celonis_emulator", "serve", "--port", "0"]
    database = tmp_path / "c.duckdb"
    program += ["--database", str(database)]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            key = process.stderr.readline().split()[-1]
            # Without a ready file, people are told that it answers, and where.
            said = process.stderr.readline()
            assert str(database) in said
            url = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert url is not None
            tables = command("tables", "--url", url.group(), "--api-key", key)
            assert tables.code == 0, tables.stderr
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
    assert len(key) >= 32
    assert key.isalnum()  # so that no option can be seen in it
    assert key != KEY


def test_the_database_is_plain_duckdb(start_server: StartServer) -> None:
    push = Push(start_server())
    push.load('odd "name"', {"a": [1], "s": ["x"]})
    job = push.create("t", fileType="CSV")
    assert push.upload(job, b"a\n1\n").status_code == 200
    assert push.upload(job, parquet(ROWS)).status_code == 400
    push.run(job)
    push.server.stop()
    with duckdb.connect(str(push.server.database), read_only=True) as connection:
        sql = 'SELECT typeof(a), typeof(s) FROM local."odd ""name"""'
        assert connection.execute(sql).fetchall() == [("BIGINT", "VARCHAR")]
        assert connection.execute("SELECT * FROM local.t").fetchall() == [("1",)]
    assert not list(push.server.database.parent.glob("*.wal"))
