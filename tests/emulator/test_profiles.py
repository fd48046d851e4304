"""Every inference has a switch with both answers; two profiles bundle them: all of it over HTTP."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import requests

from celonis_emulator.switches import PROFILES, Switches

from .conftest import NO_LIMITS, Nursery, Push, Server, StartServer, eventually, parquet, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SETUP = """
pools: [local]
keys:
  - {key: pusher, permissions: {local: push}}
  - {key: stranger, permissions: {}}
"""
# The other answers of the switches that no profile sets.
OTHER = (
    *("--duplicate-keys", "error", "--execute-not-new", "409", "--created-status", "201"),
    *("--hidden-pools", "404", "--listing-permission", "none"),
)
JOBS = "/data-ingestion/api/v1/data-push/local/jobs"
POOL = "/integration/api/pools/local"


def started(directory: Path, nursery: Nursery, name: str, *options: str) -> Server:
    (config := directory / "emulator.yaml").write_text(SETUP)
    database = directory / f"{name}.duckdb"
    arguments = (*NO_LIMITS, "--config", str(config), *options)
    return start(directory, *arguments, database=database, nursery=nursery)


@pytest.fixture(scope="module")
def profiles(
    tmp_path_factory: pytest.TempPathFactory, nursery: Nursery
) -> Iterator[dict[str, Server]]:
    """A server of each profile, and one with the other answers of the remaining switches."""
    directory = tmp_path_factory.mktemp("profiles")
    servers = {
        "lenient": started(directory, nursery, "lenient", "--profile", "lenient"),
        "harsh": started(directory, nursery, "harsh", "--profile", "harsh"),
        "other": started(directory, nursery, "other", *OTHER),
    }
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture
def lenient(profiles: dict[str, Server]) -> Push:
    return Push(profiles["lenient"])


@pytest.fixture(name="harsh")
def harsh_push(profiles: dict[str, Server]) -> Push:
    return Push(profiles["harsh"])


def rows(push: Push, table: str) -> list[list[Any]]:
    return push.server.rows(f'SELECT * FROM local."{table}" ORDER BY ALL')


def keyed(*pairs: tuple[Any, Any]) -> pa.Table:
    return pa.table({"id": [key for key, _ in pairs], "v": [value for _, value in pairs]})


SCHEMA: dict[str, Any] = {
    "tableSchema": {
        "tableName": "t",
        "columns": [
            {"columnName": "id", "columnType": "INTEGER"},
            {"columnName": "v", "columnType": "STRING"},
        ],
    }
}
KEYS = {"id": [1]}
WHOLE = {"ID": [1], "V": ["a"]}


# Probes: what a client does, and what it sees of the answer


def delta_to_a_missing_table(push: Push, table: str) -> Any:
    job = push.create(table, "DELTA")
    push.send(job, KEYS)
    return push.run(job)["status"]


def file_that_lacks_a_column(push: Push, table: str) -> Any:
    push.load(table, keyed((1, "a")))
    job = push.create(table, "DELTA")
    push.send(job, KEYS)
    return push.run(job)["status"]


def chunks(push: Push, table: str, *kinds: str) -> list[int]:
    push.load(table, keyed((1, "a"), (2, "b")))
    job = push.create(table, "DELTA", keys=["id"])
    return [push.upload(job, parquet(WHOLE), kind).status_code for kind in kinds]


def deleted_after_upserted(push: Push, table: str) -> Any:
    return chunks(push, table, "upserted", "deleted", "upserted")


def upserted_after_deleted(push: Push, table: str) -> Any:
    return chunks(push, table, "deleted", "upserted", "deleted")


def delete_file(push: Push, table: str, content: Any, **fields: Any) -> Any:
    push.load(table, keyed((1, "a"), (2, "b")))
    job = push.create(table, "DELTA", **{"keys": ["id"]} | fields)
    answer = push.upload(job, parquet(content), "deleted")
    if answer.status_code == 200:
        assert push.run(job)["status"] == "DONE"
        return rows(push, table)
    return answer.status_code


def delete_by_keys(push: Push, table: str) -> Any:
    return delete_file(push, table, KEYS)


def delete_by_keys_with_a_schema(push: Push, table: str) -> Any:
    return delete_file(push, table, KEYS, **SCHEMA)


def delete_by_some_columns_with_a_schema(push: Push, table: str) -> Any:
    return delete_file(push, table, {"id": [1], "other": [2]}, **SCHEMA)


def delete_by_more_than_keys(push: Push, table: str) -> Any:
    return delete_file(push, table, {"id": [1], "other": [2]})


def delete_by_whole_rows_with_a_schema(push: Push, table: str) -> Any:
    return delete_file(push, table, WHOLE, **SCHEMA)


def delete_where_all_columns_are_keys(push: Push, table: str) -> Any:
    return delete_file(push, table, {"id": [1], "v": ["a"]}, keys=["ID", "V"], **SCHEMA)


def long_text(push: Push, table: str) -> Any:
    push.load(table, {"s": ["x" * 81]})
    return [len(text) for (text,) in rows(push, table)]


def cancel(push: Push, table: str) -> Any:
    job = push.create(table)
    answer = push.server.post(f"{push.base}/{job}/cancel")
    return answer.status_code, push.get(job)["status"]


def fields_of_a_job(push: Push, table: str, **extra: Any) -> Any:
    answer = push.try_create(table, **extra)
    if answer.status_code == 200:
        assert not {"nonsense", "other"} & set(answer.json())
        return 200
    return answer.status_code, answer.json()["errors"][0]["attribute"]


def unknown_field(push: Push, table: str) -> Any:
    return fields_of_a_job(push, table, nonsense=None)


def unknown_inner_field(push: Push, table: str) -> Any:
    columns: list[dict[str, Any]] = [{"columnName": "a", "columnType": "DATE"}]
    columns.append({"columnName": "b", "columnType": "DATE", "other": {}})
    return fields_of_a_job(push, table, tableSchema={"tableName": table, "columns": columns})


def unknown_csv_field(push: Push, table: str) -> Any:
    return fields_of_a_job(push, table, csvParsingOptions={"nonsense": ","})


def failing_second_chunk(push: Push, table: str) -> Any:
    push.load(table, keyed((0, "old")))
    job = push.create(table, "DELTA")
    push.send(job, keyed((1, "a")))
    push.send(job, {"id": ["no number"], "v": ["b"]})
    assert push.run(job)["status"] == "ERROR"
    return rows(push, table)


def by(push: Push, key: str, path: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.get(push.server.url + path, headers=headers, timeout=20).status_code


def listings_by_who_may_push(push: Push, _: str) -> Any:
    paths = (f"{POOL}/tables", f"{POOL}/columns?tableName=t", POOL, f"{JOBS}/")
    return [by(push, "pusher", path) for path in paths]


def listings_by_who_may_everything(push: Push, _: str) -> Any:
    paths = (f"{POOL}/tables", f"{POOL}/columns?tableName=t", POOL)
    return [push.server.get(path).status_code for path in paths]


def pool_of_others(push: Push, _: str) -> Any:
    return [by(push, "stranger", path) for path in (POOL, f"{JOBS}/", f"{POOL}/tables")]


def execute_twice(push: Push, table: str) -> Any:
    job = push.create(table, **SCHEMA)
    push.run(job)
    return push.execute(job).status_code


def keys_twice(push: Push, table: str, **params: str) -> Any:
    push.load(table, keyed((0, "old")))
    job = push.create(table, "DELTA", keys=["id"])
    push.send(job, keyed((1, "b")))
    push.send(job, keyed((1, "a")))
    shown = push.run(job, **params)
    return shown["status"], rows(push, table)


def keys_twice_in_a_job(push: Push, table: str) -> Any:
    return keys_twice(push, table)


def keys_twice_where_one_is_removed(push: Push, table: str) -> Any:
    return keys_twice(push, table, duplicateRemovalColumn="v")


def keys_once(push: Push, table: str) -> Any:
    push.load(table, keyed((0, "old")))
    job = push.create(table, "DELTA", keys=["id"])
    push.send(job, keyed((0, "new"), (None, "x"), (None, "x")))
    return push.run(job)["status"]


def create(push: Push, table: str) -> Any:
    return push.server.post(
        JOBS, json={"targetName": table, "type": "DELTA", "dataPoolId": "local"}
    ).status_code


ALL, LEFT = [["1", "a"], ["2", "b"]], [["2", "b"]]
OLD = ["0", "old"]
GREATEST = ("DONE", [OLD, ["1", "b"]])
# Each probe with what the profiles answer, lenient and harsh.
BUNDLED: list[tuple[Callable[[Push, str], Any], Any, Any]] = [
    (delta_to_a_missing_table, "DONE", "ERROR"),
    (file_that_lacks_a_column, "DONE", "ERROR"),
    (deleted_after_upserted, [200, 200, 200], [200, 400, 200]),
    (upserted_after_deleted, [200, 200, 200], [200, 400, 200]),
    (delete_by_keys, LEFT, 400),
    (delete_by_keys_with_a_schema, LEFT, 400),
    (delete_by_some_columns_with_a_schema, LEFT, 400),
    (delete_by_more_than_keys, LEFT, LEFT),
    (delete_by_whole_rows_with_a_schema, LEFT, LEFT),
    (delete_where_all_columns_are_keys, LEFT, LEFT),
    (long_text, [80], [80]),
    (cancel, (200, "CANCELED"), (404, "NEW")),
    (unknown_field, 200, (400, "nonsense")),
    (unknown_inner_field, 200, (400, "tableSchema.columns.1.other")),
    (unknown_csv_field, 200, (400, "csvParsingOptions.nonsense")),
    (failing_second_chunk, [OLD], [OLD, ["1", "a"]]),
    (listings_by_who_may_push, [200, 200, 403, 200], [403, 403, 403, 200]),
    (listings_by_who_may_everything, [200, 200, 200], [200, 200, 200]),
]
# Each probe of another switch, with the default and the other answer; no profile differs.
SWITCHED: list[tuple[Callable[[Push, str], Any], Any, Any]] = [
    (pool_of_others, [403, 403, 403], [404, 404, 404]),
    (listings_by_who_may_everything, [200, 200, 200], [403, 403, 200]),
    (execute_twice, 400, 409),
    (create, 200, 201),
    (keys_twice_in_a_job, ("DONE", [OLD, ["1", "a"]]), ("ERROR", [OLD])),
    (keys_twice_where_one_is_removed, GREATEST, GREATEST),
    (keys_once, "DONE", "DONE"),
]


class Created(Push):
    """A client that takes any good answer to a create."""

    def create(self, table: str, type: str = "REPLACE", **fields: Any) -> str:  # noqa: A002
        answer = self.try_create(table, type, **fields)
        assert answer.ok, answer.text
        return str(answer.json()["id"])


@pytest.mark.parametrize("profile", ["lenient", "harsh"])
@pytest.mark.parametrize("row", BUNDLED, ids=lambda row: row[0].__name__)
def test_what_a_profile_answers(
    profiles: dict[str, Server], table: str, row: tuple[Any, Any, Any], profile: str
) -> None:
    probe, lenient, harsh = row
    assert probe(Push(profiles[profile]), table) == (lenient if profile == "lenient" else harsh)


@pytest.mark.parametrize("server", ["lenient", "harsh", "other"])
@pytest.mark.parametrize("row", SWITCHED, ids=lambda row: row[0].__name__)
def test_switches_beside_the_profiles(
    profiles: dict[str, Server], table: str, row: tuple[Any, Any, Any], server: str
) -> None:
    probe, default, other = row
    assert probe(Created(profiles[server]), table) == (other if server == "other" else default)


def test_the_profiles_name_switches_and_values_that_there_are() -> None:
    known = {switch.name: switch for switch in fields(Switches)}
    assert PROFILES["lenient"] == {}
    for name, value in PROFILES["harsh"].items():
        assert value != known[name].default
        assert type(value) is type(known[name].default)
        assert not known[name].metadata["choices"] or value in known[name].metadata["choices"]


def test_harsh_is_team_wide_and_has_no_cancel(start_server: StartServer) -> None:
    server = start_server(
        *("--profile", "harsh", "--pool", "local", "--pool", "two", "--running-seconds", "60")
    )
    push, other = Push(server), Push(server, "two")
    job = push.create("t")
    push.execute(job)
    eventually(lambda: push.get(job)["status"] == "RUNNING", "the job runs")
    assert other.execute(other.create("u")).status_code == 409
    assert server.post(f"{push.base}/{job}/cancel").status_code == 404
    assert push.get(job)["status"] == "RUNNING"


def test_an_explicit_switch_wins_over_the_profile(start_server: StartServer, table: str) -> None:
    push = Push(start_server("--profile", "harsh", "--cancel", "on", "--unknown-fields", "ignore"))
    assert cancel(push, table) == (200, "CANCELED")
    assert unknown_field(push, table) == 200
    assert delta_to_a_missing_table(push, table) == "ERROR"


# What a failed job leaves

GOOD = [keyed((n, f"chunk {n}")) for n in range(5)]
BAD = {"id": ["no number"], "v": ["x"]}
DAMAGED = bytearray(parquet({"id": range(50_000), "v": ["x"] * 50_000}, compression="gzip"))
DAMAGED[4000:90_000] = bytes(86_000)


def chunk_rows(*numbers: int) -> list[list[str]]:
    return [[str(n), f"chunk {n}"] for n in numbers]


KINDS: dict[str, tuple[str, list[str] | None, list[list[str]]]] = {
    # The type of the job, its keys, and what stays of the old rows.
    "replace": ("REPLACE", None, []),
    "append": ("DELTA", None, [["0", "old"], ["9", "old"]]),
    "upsert": ("DELTA", ["id"], [["9", "old"]]),
}


@pytest.mark.parametrize("bad", [BAD, bytes(DAMAGED)], ids=["wrong type", "damaged"])
@pytest.mark.parametrize("place", [0, 1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_chunks_before_a_failing_one_stay(
    harsh: Push, table: str, *, kind: str, place: int, bad: Any
) -> None:
    type_, keys, kept = KINDS[kind]
    harsh.load(table, keyed((0, "old"), (9, "old")))
    job = harsh.create(table, type_, keys=keys, **SCHEMA)
    for chunk in (*GOOD[:place], bad, *GOOD[place:]):
        content = chunk if isinstance(chunk, bytes) else parquet(chunk)
        assert harsh.upload(job, content).status_code == 200
    shown = harsh.run(job)
    assert shown["status"] == "ERROR"
    if place:
        assert rows(harsh, table) == sorted([*chunk_rows(*range(place)), *kept])
        assert f"The first {place} chunks stay: {place} rows written" in shown["logs"][-1]
    else:
        assert rows(harsh, table) == [["0", "old"], ["9", "old"]]
        assert shown["logs"][-1].endswith("The table is unchanged.")


@pytest.mark.parametrize("status", ["ERROR", "CANCELED"])
@pytest.mark.parametrize(("count", "stay"), [(0, 0), (1, 1), (2, 1), (3, 2), (5, 3)])
def test_half_of_the_chunks_of_a_job_that_is_made_to_fail_stay(
    harsh: Push, lenient: Push, table: str, *, status: str, count: int, stay: int
) -> None:
    for push, expected in ((harsh, stay), (lenient, 0)):
        push.load(table, keyed((9, "old")))
        fault = {"job": {"table": table, "status": status}}
        assert push.server.post("/_emulator/faults", json=fault).status_code == 200
        push.load(table, *GOOD[:count], status=status)
        assert rows(push, table) == (chunk_rows(*range(expected)) or [["9", "old"]])
        # The fault is met once.
        push.load(table, *GOOD[:2])
        assert rows(push, table) == chunk_rows(0, 1)


@pytest.mark.parametrize("asked", [1, 4, 9])
def test_a_fault_may_say_how_many_chunks_stay(lenient: Push, table: str, asked: int) -> None:
    lenient.load(table, keyed((9, "old")))
    fault = {"job": {"table": table, "status": "CANCELED", "after_chunks": asked}}
    assert lenient.server.post("/_emulator/faults", json=fault).status_code == 200
    lenient.load(table, *GOOD, status="CANCELED")
    assert rows(lenient, table) == chunk_rows(*range(min(asked, 5)))


def test_a_fault_of_a_job_whose_first_half_fails(harsh: Push, table: str) -> None:
    harsh.load(table, keyed((9, "old")))
    fault = {"job": {"table": table, "status": "ERROR"}}
    assert harsh.server.post("/_emulator/faults", json=fault).status_code == 200
    harsh.load(table, GOOD[0], BAD, *GOOD[1:], status="ERROR")
    assert rows(harsh, table) == chunk_rows(0)


def wait_until_it_runs(push: Push, job: str) -> None:
    eventually(lambda: push.get(job)["status"] == "RUNNING", "the job runs")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("roll_back", [["9", "old"]]), ("keep_first_chunks", chunk_rows(0, 0, 1))],
)
def test_what_a_cancelled_job_leaves(
    start_server: StartServer, table: str, answer: str, expected: Any
) -> None:
    push = Push(start_server())
    push.load(table, keyed((9, "old")))
    push.server.stop()
    options = ("--failed-jobs", answer, "--running-seconds", "60")
    push = Push(start_server(*options, database=push.server.database))
    # The second one shows that nothing of the first cancel is left.
    for number, kind in ((3, "REPLACE"), (1, "DELTA")):
        job = push.create(table, kind)
        for chunk in GOOD[:number]:
            push.send(job, chunk)
        push.execute(job)
        wait_until_it_runs(push, job)
        assert push.server.post(f"{push.base}/{job}/cancel").status_code == 200
        assert push.wait(job)["status"] == "CANCELED"
    assert rows(push, table) == expected


def test_nothing_of_a_queued_job_stays(start_server: StartServer, table: str) -> None:
    push = Push(start_server("--failed-jobs", "keep_first_chunks", "--queued-seconds", "60"))
    job = push.create(table)
    push.send(job, GOOD[0])
    push.execute(job)
    assert push.server.post(f"{push.base}/{job}/cancel").status_code == 200
    assert push.wait(job)["status"] == "CANCELED"
    assert push.server.described(table) is None


@pytest.mark.parametrize("answer", ["roll_back", "keep_first_chunks"])
@pytest.mark.parametrize(("kind", "seconds"), [("append", 0.02), ("upsert", 0.2), ("replace", 0.5)])
def test_a_kill_in_mid_job_leaves_whole_chunks(
    start_server: StartServer, answer: str, seconds: float, kind: str
) -> None:
    """The job's last chunk is bad, so that the server is at both: applying and keeping."""
    options = ("--failed-jobs", answer)
    push = Push(start_server(*options))
    push.load("t", {"id": [-1]})
    type_, keys, _ = KINDS[kind]
    job = push.create("t", type_, keys=keys)
    count = 300_000
    for n in range(3):
        push.send(job, {"id": range(n * count, (n + 1) * count)})
    push.send(job, {"id": ["no number"]})
    push.execute(job)
    eventually(lambda: push.get(job)["status"] != "QUEUED", "the job runs")
    time.sleep(seconds)
    push.server.process.kill()
    push.server.process.wait(10)
    push = Push(start_server(*options, database=push.server.database))
    shown = push.get(job)
    found = push.server.rows("SELECT count(*), count(DISTINCT id) FROM local.t")
    assert shown["status"] == "ERROR"
    old = 0 if kind == "replace" else 1
    if answer == "keep_first_chunks" and "The first 3 chunks stay" in shown["logs"][-1]:
        assert found == [[str(3 * count + old)] * 2]
    else:
        assert "able is unchanged" in shown["logs"][-1]
        assert found == [["1", "1"]]
    push.load("t", {"id": [1]})


# How refusals are worded


@pytest.mark.parametrize("style", ["text", "empty"])
def test_refusals_without_json(start_server: StartServer, style: str) -> None:
    server = start_server("--error-bodies", style, "--running-seconds", "60")
    push = Push(server)
    job, busy = push.create("t", "DELTA", keys=["id"]), push.create("u")
    assert push.execute(busy).status_code == 200
    sentences = {
        server.get("/nothing"): (404, "There is nothing at this path."),
        server.get("/integration/api/pools/x"): (404, "There is no data pool x."),
        push.try_create("t", "UPSERT"): (400, "Input should be 'REPLACE' or 'DELTA'"),
        push.execute(job): (409, "Push job .*; submit again when it has ended."),
        push.upload(job, parquet({"a": [1]})): (500, "Internal error while validating the Parquet"),
        requests.get(server.url + "/api/cloud", timeout=20): (401, "Unauthorized"),
        server.session.put(server.url + "/api/cloud"): (405, "Method Not Allowed"),
    }
    for answer, (status, sentence) in sentences.items():
        assert answer.status_code == status
        if style == "empty":
            assert answer.content == b""
            assert "content-type" not in answer.headers
        else:
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert all(part in answer.text for part in sentence.split(".*"))
    # The emulator's own endpoints and the token endpoint have shapes of their own.
    own = server.post("/_emulator/query", json={"sql": "SELEC"})
    assert own.json()["errors"]
    token = requests.post(server.url + "/oauth2/token", timeout=20)
    assert token.json()["error"] == "invalid_request"
    assert server.get("/api/cloud").json()["id"]


def test_the_help_shows_what_a_profile_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    from celonis_emulator.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--profile {lenient,harsh}" in shown
    assert "(default create; harsh: error)" in shown
    assert "(default on; harsh: off)" in shown
    assert shown.count("; harsh: ") == len(PROFILES["harsh"])
