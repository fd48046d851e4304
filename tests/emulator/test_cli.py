"""The command line: tables, query, help, and the table of switches."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from celonis_emulator.assumed import ASSUMED
from celonis_emulator.cli import DEFAULT_HOST, DEFAULT_PORT, EXAMPLES, _parser
from celonis_emulator.switches import Switches

from .conftest import APP_KEY, KEY, Command, Push, StartServer

SHOWN = """\
POOL   CONNECTION  TABLE   ROWS
local  (global)    Größe      1
local  erp         orders     2

local / Größe
COLUMN  TYPE
a       BOOLEAN

local / erp / orders
COLUMN  TYPE
id      INTEGER
name    STRING(80)

PUSH JOB ON           TYPE     STATUS  CHUNKS  ROWS  CUT  DELETED
local / erp / orders  REPLACE  DONE         2     2    1  yes
local / Größe         DELTA    DONE         1     1    0  no
"""


def test_tables_and_query_of_a_server_and_of_a_file(
    start_server: StartServer, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Push(start_server("--connection", "local:erp"))
    chunks = [{"id": [1], "name": ["x" * 100]}, {"id": [2], "name": pa.array([None], pa.string())}]
    job = push.load("orders", *chunks, connectionId="erp")["id"]
    push.server.session.delete(f"{push.server.url}{push.base}/{job}")
    push.load("Größe", {"a": [True]}, type="DELTA")
    server = ("--url", push.server.url + "/", "--api-key", KEY)
    file = ("--database", str(push.server.database))
    sql = "SELECT id, name AS n, TIMESTAMPTZ '2024-01-01 00:00:00Z' AS t FROM local_erp.orders"
    grid_lines = f"id  n{' ' * 81}t\n1   {'x' * 80}  2024-01-01 00:00:00+00\n"
    csv_text = f"id,n,t\n1,{'x' * 80},2024-01-01 00:00:00+00\n2,,2024-01-01 00:00:00+00\n"

    for held in (("tables", *file), ("query", "SELECT 1", *file)):
        ended = command(*held)
        assert ended.code == 4
        assert f"process {push.server.process.pid}" in ended.stderr
        assert "--url" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1

    def outputs(source: tuple[str, ...]) -> None:
        assert command("tables", *source).stdout == SHOWN
        assert command("query", sql, *source).stdout.startswith(grid_lines)
        assert command("query", sql, "--csv", *source).stdout == csv_text
        refused = command("query", "SELECT nothing FROM nowhere", *source)
        assert refused.code == 1
        assert "nowhere" in refused.stderr

    outputs(server)
    outputs((*server[:3], APP_KEY))
    # No proxy of the environment comes between; this one would refuse.
    for proxy in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    outputs(server)
    wrong = command("tables", *server[:3], "wrong")
    assert (wrong.code, wrong.stdout) == (1, "")
    assert "key" in wrong.stderr
    monkeypatch.delenv("CELONIS_EMULATOR_API_KEY", raising=False)
    keyless = command("tables", *server[:2])
    assert (keyless.code, keyless.stdout) == (2, "")
    assert "--api-key" in keyless.stderr
    monkeypatch.setenv("CELONIS_EMULATOR_API_KEY", f"{KEY},other")
    assert command("tables", *server[:2]).stdout == SHOWN
    push.server.stop()
    outputs(file)
    gone = command("tables", *server)
    assert gone.code == 1
    assert "No emulator answers" in gone.stderr


@pytest.mark.parametrize("name", ["sales.duckdb", "MEMORY.duckdb", "it's k=1.db"])
def test_a_file_with_the_name_of_a_pool(
    start_server: StartServer, command: Command, tmp_path: Path, name: str
) -> None:
    push = Push(start_server("--pool", "sales", "--pool", "memory"), "sales")
    push.load("orders", {"id": [1]})
    assert push.server.stop() == 0
    file = push.server.database.rename(tmp_path / name)
    shown = command("query", "SELECT * FROM sales.orders", "--csv", "--database", str(file))
    assert (shown.code, shown.stdout) == (0, "id\n1\n"), shown.stderr
    assert "orders" in command("tables", "--database", str(file)).stdout
    again = Push(start_server("--pool", "sales", database=file), "sales")
    again.load("orders", {"id": [2]}, type="DELTA")
    assert again.server.rows("SELECT id FROM sales.orders ORDER BY 1") == [["1"], ["2"]]
    again.server.process.kill()
    again.server.process.wait()
    # What was committed is in the log of a server that did not end by itself.
    shown = command("query", "SELECT count(*) FROM sales.orders", "--csv", "--database", str(file))
    assert shown.stdout.split() == ["count_star()", "2"]
    assert again.server.database == file


def test_a_query_of_a_file_writes_and_reads_no_other(
    start_server: StartServer, command: Command, tmp_path: Path
) -> None:
    push = Push(start_server())
    push.load("t", {"id": [1]})
    push.server.stop()
    before = push.server.database.read_bytes()
    (secret := tmp_path / "secret.csv").write_text("a\n1\n")
    for sql in (
        f"COPY (SELECT 1) TO '{tmp_path / 'x.csv'}'",
        f"ATTACH '{tmp_path / 'x.duckdb'}' AS x",
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM read_csv('{secret}')",
        "DROP TABLE local.t",
        "COMMIT; DROP TABLE local.t",
    ):
        ended = command("query", sql, "--database", str(push.server.database))
        assert (ended.code, ended.stdout) == (1, ""), sql
        assert ended.stderr
    assert not list(tmp_path.glob("x.*"))
    assert push.server.database.read_bytes() == before


def test_a_file_of_somebody_else(command: Command, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER)")
    ended = command("tables", "--database", str(tmp_path / "x.duckdb"))
    assert (ended.code, ended.stdout) == (4, "")
    assert len(ended.stderr.splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path: Path, command: Command) -> None:
    for arguments in (["tables"], ["query", "SELECT 1"]):
        ended = command(*arguments, "--database", str(tmp_path / "none.duckdb"))
        assert ended.code == 4
        assert "none.duckdb" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "place", "code"),
    [
        ("--database", "file/celonis.duckdb", 4),
        ("--database", "directory.duckdb", 4),
        ("--database", "taken.duckdb", 4),
        ("--ready-file", "file/ready", 2),
        ("--ready-file", "none/ready", 2),
        ("--ready-file", "directory.duckdb", 2),
    ],
)
def test_files_that_cannot_be_made(
    tmp_path: Path, command: Command, option: str, place: str, code: int
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory.duckdb").mkdir()
    (tmp_path / "taken.duckdb.chunks").touch()
    options = {"--port": "0", "--database": str(tmp_path / "good.duckdb")}
    options[option] = str(tmp_path / place)
    ended = command("serve", *(part for pair in options.items() for part in pair))
    assert (ended.code, len(ended.stderr.splitlines())) == (code, 1), ended.stderr
    assert str(tmp_path / place) in ended.stderr
    assert "API key of this run" not in ended.stderr


def test_the_ready_file_is_there_while_the_server_is(
    start_server: StartServer, tmp_path: Path, command: Command
) -> None:
    def ready() -> list[Path]:
        return list(tmp_path.glob("ready-*"))

    server = start_server()
    (left,) = ready()
    busy = ("--host", "127.0.0.1", "--port", server.url.rpartition(":")[2])
    stale = tmp_path / "ready-stale"
    stale.write_text("{}")
    database = ("--database", str(tmp_path / "other.duckdb"))
    assert command("serve", *busy, *database, "--ready-file", str(stale)).code == 3
    assert ready() == [left]
    assert server.stop() == 0
    assert ready() == []


def test_help_shows_an_address_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for line in EXAMPLES.splitlines()[1:]:
        arguments = shlex.split(line.partition("(")[0] if "(answers" in line else line)
        assert arguments[0] == "celonis-emulator"
        assert _parser().parse_args(arguments[1:])
    with pytest.raises(SystemExit):
        _parser().parse_args(["--help"])
    assert EXAMPLES in capsys.readouterr().out
    assert f"{DEFAULT_HOST}:{DEFAULT_PORT}" in EXAMPLES


def test_a_missing_extra_is_one_plain_sentence() -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None; sys.modules['fastapi'] = None\n"
        "from celonis_emulator.cli import main\n"
        "sys.exit(main(['serve', '--api-key', 'k']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "pip install 'target-celonis[emulator]'" in ended.stderr


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from celonis_emulator.cli import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'duckdb', 'fastapi', 'uvicorn', 'pyarrow'} & set(sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    for switch in dataclasses.fields(Switches):
        assert "--" + switch.name.replace("_", "-") in ended.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--fail-table", "t=DONE"],
        ["--fail-table", "t"],
        ["--oversize", "explode"],
        ["--queued-seconds", "-1"],
        ["--submits-per-hour", "-1"],
        ["--data-push-prefixes", "nonsense"],
        ["--connection", "nopool"],
        ["--pool", "a/b"],
        ["--pool", "=name"],
        ["--pool", ".."],
        ["--pool", "a b"],
        ["--pool", "x?y=name"],
        ["--pool", "x" * 101],
        ["--connection", "a b:c"],
        ["--connection", "a:#"],
        ["--strict-metadata", "maybe"],
        ["--oauth-client-auth", "bearer"],
        ["--token-seconds", "soon"],
        ["--profile", "gentle"],
        ["--listing-permission", "off"],
        ["--execute-not-new", "404"],
    ],
)
def test_bad_options(options: list[str]) -> None:
    from celonis_emulator.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["serve", *options])
    assert ended.value.code == 2


@pytest.mark.parametrize("client", ["id-alone", ":secret", "id:"])
def test_a_bad_oauth_client_is_not_repeated(command: Command, client: str) -> None:
    ended = command("serve", "--oauth-client", client)
    assert ended.code == 2
    assert len(ended.stderr.splitlines()) == 1
    assert client not in ended.stderr


def test_each_switch_says_what_it_does_and_why() -> None:
    for switch in dataclasses.fields(Switches):
        assert switch.metadata["doc"]
        assert switch.metadata["fact"]


def test_assumed_sentences() -> None:
    for name, sentence in ASSUMED.items():
        assert name.isidentifier()
        assert sentence.endswith(".")
    options = {switch.name.replace("_", "-") for switch in dataclasses.fields(Switches)}
    for sentence in ASSUMED.values():
        if "(switch: " in sentence:
            assert sentence.partition("(switch: ")[2].removesuffix(").") in options


def test_neither_package_imports_the_other() -> None:
    import celonis_emulator

    for path in Path(celonis_emulator.__file__).parent.glob("*.py"):
        assert "target_celonis" not in path.read_text(encoding="utf-8")
