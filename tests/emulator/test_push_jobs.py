"""The life of a push job over HTTP: create, show, execute, cancel, delete; what is refused."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from .conftest import Push, Server, StartServer, eventually, parquet

ROWS = {"id": [1, 2], "name": ["a", "b"]}
ALL_NULL = dict.fromkeys(
    [
        "id",
        "lastModified",
        "lastPing",
        "status",
        "fileType",
        "targetSchema",
        "upsertStrategy",
        "fallbackVarcharLength",
        "connectionId",
        "postExecutionQuery",
        "allowDuplicate",
        "foreignKeys",
        "keys",
        "logs",
        "tableSchema",
        "csvParsingOptions",
        "mirrorTargetNames",
        "changeDate",
    ]
)


def test_create_shows_every_field_and_epoch_milliseconds(push: Push, table: str) -> None:
    before = time.time_ns() // 1_000_000
    shown = push.try_create(table, "DELTA", **ALL_NULL).json()
    assert set(shown) == {*ALL_NULL, "targetName", "type", "dataPoolId"}
    assert shown["status"] == "NEW"
    assert shown["fileType"] == "PARQUET"
    assert shown["dataPoolId"] == "local"
    assert shown["logs"] == []
    assert uuid.UUID(shown["id"])
    assert before <= shown["lastModified"] <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("profile", ["lenient", "harsh"])
def test_what_the_server_makes_is_no_part_of_a_request(
    start_server: StartServer, table: str, profile: str
) -> None:
    """Clients send whole jobs, also those that they have read from the server."""
    push = Push(start_server("--profile", profile))
    made = {"id": "mine", "status": "DONE", "lastModified": 1, "lastPing": 2, "logs": ["a line"]}
    first = push.try_create(table, **ALL_NULL | made)
    assert first.status_code == 200, first.text
    shown = first.json()
    assert (shown["status"], shown["logs"], shown["lastPing"]) == ("NEW", [], None)
    assert shown["id"] != "mine"
    again = push.server.post(push.base, json=shown)
    assert (again.status_code, again.json()["status"]) == (200, "NEW")
    assert again.json()["id"] != shown["id"]


NO_EFFECT: dict[str, Any] = {
    "targetSchema": "s",
    "allowDuplicate": False,
    "foreignKeys": "k",
    "postExecutionQuery": "DROP TABLE x",
    "mirrorTargetNames": ["mirror"],
    "changeDate": 1,
}


def test_fields_without_effect_are_taken_and_shown(push: Push, table: str) -> None:
    schema = {"tableName": "another", "columns": [{"columnName": "id", "columnType": "INTEGER"}]}
    schema["columns"][0] |= {"decimals": 3, "pkField": True}  # type: ignore[index, operator]
    shown = push.load(table, ROWS, ROWS, tableSchema=schema, **NO_EFFECT)
    assert {name: shown[name] for name in NO_EFFECT} == NO_EFFECT
    assert push.server.rows(f'SELECT count(*) FROM local."{table}"') == [["4"]]
    assert push.server.described("mirror") is None
    assert push.server.described("another") is None


@pytest.mark.parametrize("removal", ["", "NO_SUCH_COLUMN", "name"])
def test_duplicate_removal_without_keys_or_name_does_nothing(
    push: Push, table: str, removal: str
) -> None:
    push.load(table, ROWS)
    for keys, rows in ((None, 4), (["id"], 2)):
        job = push.create(table, "DELTA", keys=keys)
        push.send(job, ROWS)
        shown = push.run(job, duplicateRemovalColumn=removal)
        if keys and removal == "NO_SUCH_COLUMN":
            assert shown["status"] == "ERROR"
            continue
        assert shown["status"] == "DONE"
        assert push.server.rows(f'SELECT count(*) FROM local."{table}"') == [[str(rows)]]


@pytest.mark.parametrize(("kind", "values"), [("INTEGER", ["x"]), ("STRING", [1])])
def test_a_replace_whose_file_has_another_type_than_declared(
    push: Push, table: str, kind: str, values: list[Any]
) -> None:
    schema = {"columns": [{"columnName": "a", "columnType": kind}]}
    shown = push.load(table, {"a": values}, status="ERROR", tableSchema=schema)
    assert "Column a" in shown["logs"][0]
    assert push.server.described(table) is None


def column(**fields: Any) -> dict[str, Any]:
    return {"columns": [{"columnName": "a", "columnType": "STRING"} | fields]}


@pytest.mark.parametrize(
    ("fields", "attribute"),
    [
        ({"type": "UPSERT"}, "type"),
        ({"type": None}, "type"),
        ({"targetName": None}, "targetName"),
        ({"targetName": " "}, "targetName"),
        ({"targetName": "n" * 129}, "targetName"),
        ({"targetName": "ü" * 65}, "targetName"),
        ({"targetName": "a\0b"}, "targetName"),
        ({"dataPoolId": "other"}, "dataPoolId"),
        ({"dataPoolId": None}, "dataPoolId"),
        ({"fileType": "XLSX"}, "fileType"),
        ({"keys": "id"}, "keys"),
        ({"keys": ["id", "ID"]}, "keys"),
        ({"upsertStrategy": "OTHER"}, "upsertStrategy"),
        ({"fallbackVarcharLength": 0}, "fallbackVarcharLength"),
        ({"fallbackVarcharLength": 65001}, "fallbackVarcharLength"),
        ({"tableSchema": column(columnType="TEXT")}, "tableSchema.columns.0.columnType"),
        ({"tableSchema": column(fieldLength=0)}, "tableSchema.columns.0.fieldLength"),
        ({"tableSchema": column(columnName="")}, "tableSchema.columns"),
        (
            {"tableSchema": {"columns": column()["columns"] + column(columnName="A")["columns"]}},
            "tableSchema.columns",
        ),
    ],
)
def test_create_refuses(push: Push, table: str, fields: dict[str, Any], attribute: str) -> None:
    answer = push.try_create(table, **fields)
    assert answer.status_code == 400
    (problem,) = answer.json()["errors"]
    assert problem["attribute"] == attribute
    assert set(problem) == {"attribute", "error", "errorCode", "additionalInfo"}
    assert push.server.history(table) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null"])
def test_create_refuses_what_is_no_object(push: Push, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = push.server.post(push.base, data=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"]


@pytest.mark.parametrize("prefix", ["data-ingestion", "integration"])
def test_both_prefixes_serve_the_same_jobs(shared_server: Server, table: str, prefix: str) -> None:
    push = Push(shared_server, prefix=prefix)
    job = push.create(table)
    for other in ("data-ingestion", "integration"):
        same = Push(shared_server, prefix=other)
        assert same.get(job)["id"] == job
        assert job in [shown["id"] for shown in shared_server.get(same.base + "/").json()]


@pytest.mark.parametrize("path", ["//{job}", "/{job}/", "//{job}//"])
def test_slashes_do_not_matter(push: Push, table: str, path: str) -> None:
    job = push.create(table)
    assert push.server.get(push.base + path.format(job=job)).json()["id"] == job


def test_jobs_of_another_pool_are_not_seen(push: Push, table: str) -> None:
    other = Push(push.server, pool="other")
    job = push.create(table)
    assert other.server.get(f"{other.base}/{job}").status_code == 404
    assert job not in [shown["id"] for shown in other.server.get(other.base).json()]


def test_unknown_things_answer_404(push: Push, table: str) -> None:
    server = push.server
    nobody = uuid.uuid4()
    files = {"file": b""}
    answers = [
        push.try_create(table, connectionId="nobody"),
        server.get(f"{push.base}/{nobody}"),
        server.post(f"{push.base}/{nobody}"),
        server.post(f"{push.base}/{nobody}/cancel"),
        server.get(f"{push.base}/{nobody}/chunks"),
        server.post(f"{push.base}/{nobody}/chunks/upserted", files=files),
        server.session.delete(f"{server.url}{push.base}/{nobody}"),
        server.get("/data-ingestion/api/v1/data-push/nopool/jobs/"),
        server.post("/integration/api/v1/data-push/nopool/jobs/", json={}),
        server.get("/integration/api/nothing"),
        server.get("/"),
    ]
    for answer in answers:
        assert answer.status_code == 404, answer.url
        assert answer.json()["status"] == 404
        assert answer.json()["detail"]


def test_wrong_method_answers_405(push: Push) -> None:
    assert push.server.session.put(push.server.url + push.base).status_code == 405


def test_nothing_touches_the_table_before_execute(push: Push, table: str) -> None:
    push.load(table, ROWS)
    job = push.create(table)
    push.send(job, {"id": [9]})
    described = push.server.described(table)
    assert described is not None
    assert described["rows"] == 2
    assert push.server.session.delete(f"{push.server.url}{push.base}/{job}").content == b""
    assert push.server.get(f"{push.base}/{job}").status_code == 404
    described = push.server.described(table)
    assert described is not None
    assert described["rows"] == 2


def test_a_job_runs_once(push: Push, table: str) -> None:
    job = push.create(table)
    push.send(job, ROWS)
    answer = push.execute(job)
    assert (answer.status_code, answer.content) == (200, b"")
    shown = push.wait(job)
    assert shown["status"] == "DONE"
    assert shown["logs"] == ["1 chunks applied: 2 rows written, 0 rows removed."]
    for refused in (push.execute(job), push.upload(job, parquet(ROWS))):
        assert refused.status_code == 400
        assert "DONE" in refused.json()["errors"][0]["error"]
    assert push.server.post(f"{push.base}/{job}/cancel").status_code == 400


def test_execute_takes_an_empty_json_body(push: Push, table: str) -> None:
    job = push.create(table)
    push.send(job, ROWS)
    assert push.server.post(f"{push.base}/{job}", json={}).status_code == 200
    assert push.wait(job)["status"] == "DONE"


def test_history_keeps_deleted_jobs(push: Push, table: str) -> None:
    shown = push.load(table, ROWS, {"id": [3], "name": ["x" * 81]})
    push.server.session.delete(f"{push.server.url}{push.base}/{shown['id']}")
    (entry,) = push.server.history(table)
    assert entry["id"] == shown["id"]
    assert entry["deleted"] is True
    assert (entry["status"], entry["submits"], entry["truncated_values"]) == ("DONE", 1, 1)
    assert [chunk["rows"] for chunk in entry["chunks"]] == [2, 1]
    assert entry["created_ms"] <= entry["executed_ms"] <= entry["finished_ms"]
    assert entry["finished_ms"] <= entry["deleted_ms"]


def test_cancel_of_a_new_job(push: Push, table: str) -> None:
    job = push.create(table)
    assert push.server.post(f"{push.base}/{job}/cancel").content == b""
    assert push.get(job)["status"] == "CANCELED"
    assert push.execute(job).status_code == 400


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING"])
def test_states_last_as_switched_and_can_be_cancelled(
    start_server: StartServer, table: str, state: str
) -> None:
    push = Push(start_server(f"--{state.lower()}-seconds", "60"))
    job = push.create(table)
    push.send(job, ROWS)
    push.execute(job)
    eventually(lambda: push.get(job)["status"] == state, f"job is {state}")
    assert push.execute(job).status_code == 400
    assert push.upload(job, parquet(ROWS)).status_code == 400
    deleted = push.server.session.delete(f"{push.server.url}{push.base}/{job}")
    assert deleted.status_code == 400
    assert push.server.post(f"{push.base}/{job}/cancel").status_code == 200
    shown = push.wait(job)
    assert shown["status"] == "CANCELED"
    assert "cancelled" in shown["logs"][0]
    assert push.server.described(table) is None


@pytest.mark.parametrize(("table", "status"), [("bad", "ERROR"), ("WORSE", "CANCELED")])
def test_a_fault_ends_jobs_on_a_table(harsh: Push, table: str, status: str) -> None:
    shown = harsh.load(table, ROWS, status=status)
    assert status in shown["logs"][0]
    assert harsh.server.described(table) is None
    harsh.load("good", ROWS)
