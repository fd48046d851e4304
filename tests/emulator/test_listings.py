"""The read side: keys, user, pools, connections, tables and columns; speed of small calls."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from .conftest import APP_KEY, KEY, Push, Server, StartServer


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"AppKey {APP_KEY}", 200),
        (f"Bearer {APP_KEY}", 401),
        (f"AppKey {KEY}", 401),
        (f"Bearer {KEY}x", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("", 401),
        (None, 401),
    ],
)
@pytest.mark.parametrize(
    "path", ["/api/cloud", "/data-ingestion/api/v1/data-push/local/jobs/", "/_emulator/history"]
)
def test_keys(shared_server: Server, header: str | None, status: int, path: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = requests.get(shared_server.url + path, headers=headers, timeout=20)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    if status == 401:
        assert answer.json() == {"error": "Unauthorized"}


def test_a_path_that_does_not_exist_tells_nothing_without_a_key(shared_server: Server) -> None:
    answer = requests.get(shared_server.url + "/integration/api/pools/x", timeout=20)
    assert answer.status_code == 401


SMALL: list[tuple[str, Any]] = [
    (
        "/api/cloud/permissions",
        [{"serviceName": "integration", "permissions": ["EDIT", "MANAGE", "PUSH", "READ"]}],
    ),
    (
        "/integration/api/pools",
        [{"id": "local", "name": "Local pool"}, {"id": "other", "name": "other"}],
    ),
    ("/integration/api/pools/local", {"id": "local", "name": "Local pool"}),
    ("/integration/api/pools/other/data-sources/", []),
    (
        "/integration/api/pools/local/data-sources/erp",
        {
            "id": "erp",
            "name": "ERP",
            "poolId": "local",
            "type": "CUSTOM",
            "targetSchemaName": "local_erp",
        },
    ),
    ("/integration/api/pools/other/tables", []),
    ("/integration/api/pools/local/columns?tableName=none", []),
    ("/integration/api/pools/local/columns?tableName=none&schemaName=none", []),
]


@pytest.mark.parametrize(("path", "expected"), SMALL)
def test_small_answers(push: Push, path: str, expected: Any) -> None:
    if path.endswith("other/tables"):
        # Other tests push into the shared pools.
        expected = push.server.get(path).json()
    assert push.server.get(path).json() == expected


def test_the_user_and_the_team_are_objects(shared_server: Server) -> None:
    assert shared_server.get("/api/cloud").json()["id"]
    assert shared_server.get("/api/team").json()["trackingEnabled"] is False


@pytest.mark.parametrize(
    "path",
    [
        "/integration/api/pools/none",
        "/integration/api/pools/none/tables",
        "/integration/api/pools/none/columns?tableName=t",
        "/integration/api/pools/none/data-sources/",
        "/integration/api/pools/local/data-sources/none",
        "/integration/api/pools/other/data-sources/erp",
    ],
)
def test_unknown_pools_and_connections(shared_server: Server, path: str) -> None:
    assert shared_server.get(path).status_code == 404


def test_columns_need_a_table_name(shared_server: Server) -> None:
    answer = shared_server.get("/integration/api/pools/local/columns")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["attribute"] == "tableName"


def test_tables_and_columns_by_connection(push: Push, table: str) -> None:
    push.load(table, {"a": ["x"]})
    push.load(table, {"b": [1]}, connectionId="erp")
    listed = push.server.get("/integration/api/pools/local/tables").json()
    assert [entry for entry in listed if entry["name"] == table] == [
        {
            "name": table,
            "loaderSource": None,
            "available": False,
            "dataSourceId": source,
            "dataSourceName": name,
            "columns": [],
            "type": "TABLE",
            "schemaName": schema,
        }
        for source, name, schema in ((None, None, "local"), ("erp", "ERP", "local_erp"))
    ]
    assert push.server.columns(table.upper()) == {"a": ("STRING", 320)}
    assert push.server.columns(table, schemaName="erp") == {"b": ("INTEGER", None)}


def test_listings_can_be_forbidden(harsh: Push) -> None:
    harsh.load("seen", {"a": [1]})
    for path in ("tables", "columns?tableName=seen"):
        answer = harsh.server.get(f"/integration/api/pools/local/{path}")
        assert answer.status_code == 403
        assert answer.json()["errorCode"] == "ADMIN_ACCESS_ERROR"
    assert harsh.server.get("/integration/api/pools/local").status_code == 200


def test_a_prefix_can_be_gone(harsh: Push, start_server: StartServer) -> None:
    assert Push(harsh.server).try_create("t").status_code == 404
    assert harsh.try_create("t").status_code == 200
    server = start_server("--data-push-prefixes", "data-ingestion")
    assert Push(server, prefix="integration").try_create("t").status_code == 404
    assert Push(server).try_create("t").status_code == 200
    assert server.get("/integration/api/pools").status_code == 200


def test_small_calls_are_not_delayed(shared_server: Server) -> None:
    """Delayed acknowledgements would make it eight seconds."""
    started = time.monotonic()
    for _ in range(200):
        assert shared_server.get("/integration/api/pools/local").status_code == 200
    assert time.monotonic() - started < 4


def test_requests_are_counted(start_server: StartServer) -> None:
    server = start_server()
    Push(server).load("t", {"a": [1]})
    counted = server.get("/_emulator/requests").json()
    base = "/data-ingestion/api/v1/data-push/local/jobs"
    assert {c["path"]: c["count"] for c in counted if c["method"] == "POST"} == {
        base: 1,
        base + "/{id}": 1,
        base + "/{id}/chunks/upserted": 1,
    }


def test_the_openapi_document(shared_server: Server) -> None:
    document = requests.get(shared_server.url + "/openapi.json", timeout=20).json()
    assert "/data-ingestion/api/v1/data-push/{pool_id}/jobs/{job_id}/chunks" in document["paths"]


NO_QUERIES = [
    "DROP SCHEMA local",
    "CREATE TABLE local.x (a INTEGER)",
    "SELEC 1",
    "SELECT * FROM no",
    "",
    "-- nothing",
    "COMMIT; DROP TABLE local.kept; SELECT 1",
    "COMMIT; DROP TABLE local.kept",
    "SELECT 1; SELECT 2",
    "WITH gone AS (DELETE FROM local.kept RETURNING *) SELECT * FROM gone",
    "EXPLAIN ANALYZE DROP TABLE local.kept",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{chunks}/x.csv'",
    "COPY (SELECT 1) TO '{chunks}/x.csv'",
    "EXPORT DATABASE '{chunks}/x'",
    "ATTACH '{chunks}/x.duckdb' AS x",
    "PRAGMA database_list",
    "SET memory_limit = '1GB'",
    "SELECT * FROM read_text('{chunks}/*/*')",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM '{chunks}/*/*'",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM range(100001)",
]


@pytest.mark.parametrize("sql", NO_QUERIES)
def test_the_admin_query_only_reads(shared_server: Server, sql: str) -> None:
    push = Push(shared_server)
    push.load("kept", {"id": [1]})
    chunks = shared_server.database.with_name(shared_server.database.name + ".chunks")
    before = set(chunks.iterdir())
    sql = sql.replace("{chunks}", str(chunks))
    answer = shared_server.post("/_emulator/query", json={"sql": sql})
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["error"]
    assert set(chunks.iterdir()) == before
    assert shared_server.rows("SELECT * FROM local.kept") == [["1"]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "/* one; */ WITH a AS (SELECT 1) SELECT * FROM a -- end;",
        "FROM range(1)",
        "VALUES (1)",
        "SHOW ALL TABLES",
        "DESCRIBE local.kept",
        "SUMMARIZE local.kept",
        "EXPLAIN SELECT 1",
        "SELECT * FROM range(100000)",
    ],
)
def test_the_admin_query_takes_all_kinds_of_queries(shared_server: Server, sql: str) -> None:
    Push(shared_server).load("kept", {"id": [1]})
    assert shared_server.rows(sql)
