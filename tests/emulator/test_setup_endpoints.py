"""The emulator's own endpoints that make pools, connections, data models and data jobs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from celonis_emulator.cli import _named
from celonis_emulator.ledger import Ledger
from celonis_emulator.setup import DataJob, Team
from celonis_emulator.setupfile import BadSetupFile, read_setup
from celonis_emulator.warehouse import Warehouse

from .conftest import Push, Server, StartServer
from .test_data_jobs import POOL

if TYPE_CHECKING:
    from pathlib import Path

BAD_MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such pool": ("nowhere", {"id": "m"}, "pool"),
    "no such connection": (
        "local",
        {"id": "m", "tables": [{"name": "t", "connection_id": "none"}]},
        "connection",
    ),
    "a table twice": ("local", {"id": "m", "tables": [{"name": "t"}, {"name": "T"}]}, "twice"),
    "an id twice": (
        "local",
        {"id": "m", "tables": [{"name": "t", "id": "i"}, {"name": "u", "id": "i"}]},
        "twice",
    ),
    "an alias that is a name": (
        "local",
        {"id": "m", "tables": [{"name": "t"}, {"name": "u", "alias": "T", "id": "i"}]},
        "twice",
    ),
    "an id with a slash": ("local", {"id": "a/b"}, "pattern"),
    "an unknown field": ("local", {"id": "m", "table": []}, "no such field"),
    "half a character": ("local", {"id": "m", "name": "\ud800"}, "surrogate"),
}


IDS = {
    **dict.fromkeys(["a", "a-b", "a.b", ".a", "...", "..a", "é", "a:b", "x" * 100], True),
    **dict.fromkeys(["", ".", "..", "a b", "a\tb", "a/b", "x?y", "a#", "5%", "a\n"], False),
    **dict.fromkeys(["a\x1f", "a\u00a0b", "x" * 101], False),
}


@pytest.mark.parametrize(("identity", "good"), IDS.items())
def test_ids_follow_one_rule(
    shared_server: Server, tmp_path: Path, *, identity: str, good: bool
) -> None:
    """Those of calls, of the set-up file, and of the command line."""
    body = {"id": identity}
    answer = shared_server.post("/_emulator/pools/other/connections", json=body)
    assert answer.status_code == (200 if good else 400), answer.text
    (file := tmp_path / "emulator.yaml").write_text(json.dumps({"pools": [body]}))

    def in_the_file() -> bool:
        try:
            return bool(read_setup(file, {}, Team()))
        except BadSetupFile:
            return False

    def on_the_command_line() -> bool:
        try:
            return _named(identity) == (identity, identity)
        except argparse.ArgumentTypeError:
            return False

    assert in_the_file() == good
    assert on_the_command_line() == good


@pytest.mark.parametrize("case", BAD_MODELS)
def test_models_that_cannot_be_made(shared_server: Server, case: str) -> None:
    pool, body, words = BAD_MODELS[case]
    answer = shared_server.post(f"/_emulator/pools/{pool}/data-models", json=body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["errors"][0]["error"]
    assert shared_server.get("/integration/api/pools/local/data-models/m").status_code == 404


def test_a_model_has_a_schema_to_itself(start_server: StartServer) -> None:
    server = start_server("--pool", "p", "--connection", "q:model_m")
    post = server.post
    assert post("/_emulator/pools/q/data-models", json={"id": "m"}).status_code == 400
    assert post("/_emulator/pools/p/data-models", json={"id": "m"}).status_code == 200
    for path, body in (("", {"id": "P_model_M"}), ("/p/connections", {"id": "model_m"})):
        answer = post(f"/_emulator/pools{path}", json=body)
        assert answer.status_code == 400
        assert "schema" in answer.json()["errors"][0]["error"]
    # What means a database cannot be a pool; the file's name does not.
    assert post("/_emulator/pools", json={"id": "_celonis_database"}).status_code == 400
    assert post("/_emulator/pools", json={"id": server.database.stem}).status_code == 200
    Push(server, server.database.stem).load("t", {"id": [1]})
    assert server.rows(f"SELECT * FROM {server.database.stem}.t") == [["1"]]


def test_pools_and_connections_can_be_made_at_any_time(start_server: StartServer) -> None:
    server = start_server()
    for _ in range(2):
        made = server.post("/_emulator/pools", json={"id": "new", "name": "New"})
        assert made.json() == {"id": "new", "name": "New"}
        made = server.post("/_emulator/pools/new/connections", json={"id": "c"})
        assert made.json() == {"pool_id": "new", "id": "c", "name": "c"}
    push = Push(server, pool="new")
    push.load("t", {"id": [1]}, connectionId="c")
    assert server.rows("SELECT * FROM new_c.t") == [["1"]]
    answer = server.post("/_emulator/pools/none/connections", json={"id": "c"})
    assert answer.status_code == 400


BAD_JOBS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such pool": ("nowhere", {"id": "j"}, "pool"),
    "no such connection": ("local", {"id": "j", "connection_id": "none"}, "connection"),
    "no such model": ("local", {"id": "j", "data_models": ["none"]}, "data model"),
    "an id twice": (
        "local",
        {"id": "j", "tasks": [{"sql": "", "id": "a"}, {"sql": "", "id": "a"}]},
        "twice",
    ),
    "a task without SQL": ("local", {"id": "j", "tasks": [{"name": "a"}]}, "required"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_jobs_that_cannot_be_made(shared_server: Server, case: str) -> None:
    pool, body, words = BAD_JOBS[case]
    answer = shared_server.post(f"/_emulator/pools/{pool}/data-jobs", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["errors"][0]["error"]
    assert shared_server.get(f"{POOL}/jobs/j").status_code == 404


def test_a_write_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    """What is written after it is kept."""
    database, chunks = tmp_path / "c.duckdb", tmp_path / "chunks"
    warehouse = Warehouse(database, chunks)
    ledger = Ledger(warehouse)
    ledger.ensure_pool("p", "P")
    ledger.put_data_job(DataJob("p", "j", "first"))
    with pytest.raises(duckdb.Error):
        ledger.put_data_job(DataJob("p", "j", "no text: \ud800"))
    assert [job.name for job in ledger.data_jobs("p")] == ["first"]
    ledger.put_data_job(DataJob("p", "k", "second"))
    ledger.close()
    warehouse.close()
    warehouse = Warehouse(database, chunks)
    ledger = Ledger(warehouse)
    assert [job.name for job in ledger.data_jobs("p")] == ["first", "second"]
    ledger.close()
    warehouse.close()
