"""The official Python client's requests, in its order, with all that it sends; over http and https.

The client itself is no part of the project: what it sends is written down here as facts, and each
answer is held against what the client needs of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import requests

from celonis_emulator.switches import PROFILES

from .conftest import APP_KEY, KEY, NO_LIMITS, PATIENCE_SECONDS, Server, eventually, parquet, start
from .test_tls import made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Nursery

POOL = "pool-1"
PUSH = f"/data-ingestion/api/v1/data-push/{POOL}/jobs"
INTERNAL = f"/integration/api/pools/{POOL}"
SCOPE = "integration.data-pools"
CREDENTIALS = ("app key", "bearer key", "oauth")
NOT_FINISHED = ("RUNNING", "LOST_CONNECTION", "CANCELLING")


@dataclass
class Client:
    """One session of the client, ``authorization`` included in each request."""

    url: str
    verify: str | bool
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False
        self.session.verify = self.verify
        self.session.headers.clear()
        self.session.headers.update(
            {
                "user-agent": "a-test-that-plays-a-client/1.0",
                "accept": "*/*",
                "accept-encoding": "gzip, deflate",
                "connection": "keep-alive",
            }
        )

    def send(self, verb: str, path: str, **options: Any) -> requests.Response:
        """Send a request; its answer must be JSON or have no body."""
        answer = self.session.request(verb, self.url + path, timeout=PATIENCE_SECONDS, **options)
        if answer.content:
            assert answer.headers["content-type"].startswith("application/json"), answer.text
            answer.json()
        return answer

    def call(self, verb: str, path: str, body: Any = None, **options: Any) -> Any:
        """Send a request that must go well; return the JSON of its answer, or None."""
        if body is not None:
            options["data"] = json.dumps(body, separators=(",", ":"))
            options["headers"] = {"content-type": "application/json"}
        answer = self.send(verb, path, **options)
        assert answer.status_code in (200, 201), answer.text
        return answer.json() if answer.content else None

    def upload(self, job: str, kind: str, content: bytes) -> requests.Response:
        """Upload a chunk; its part and its file are both called ``file``."""
        files = {"file": ("file", content, "application/octet-stream")}
        request = requests.Request("POST", f"{self.url}{PUSH}/{job}/chunks/{kind}", files=files)
        prepared = self.session.prepare_request(request)
        body = prepared.body
        assert isinstance(body, bytes)
        part = b'Content-Disposition: form-data; name="file"; filename="file"\r\n'
        assert part in body
        assert b"Content-Type: application/octet-stream\r\n" in body
        assert prepared.headers["Content-Length"] == str(len(body))
        return self.session.send(prepared, timeout=PATIENCE_SECONDS, verify=self.session.verify)


def connected(server: Server, credentials: str) -> Client:
    """Connect as the client does, with a key of no given type or by OAuth."""
    verify = server.session.verify
    assert verify is not None
    client = Client(server.url, verify)
    if credentials == "oauth":
        answer = client.call(
            "POST",
            "/oauth2/token",
            data={"grant_type": "client_credentials", "scope": SCOPE},
            auth=("client", "secret"),
        )
        assert answer["token_type"] == "Bearer"
        assert (answer["expires_in"], answer["scope"]) == (899, SCOPE)
        client.session.headers["authorization"] = f"Bearer {answer['access_token']}"
        assert isinstance(client.call("GET", "/api/cloud"), dict)
    else:
        key = {"app key": APP_KEY, "bearer key": KEY}[credentials]
        statuses = []
        for word in ("AppKey", "Bearer"):
            client.session.headers["authorization"] = f"{word} {key}"
            statuses.append(client.send("GET", "/api/cloud").status_code)
            if statuses[-1] == 200:
                break
        assert statuses == ([200] if credentials == "app key" else [401, 200])
    for service in client.call("GET", "/api/cloud/permissions"):
        assert isinstance(service["serviceName"], str)
        assert all(isinstance(permission, str) for permission in service["permissions"])
    assert client.call("GET", "/api/team")["trackingEnabled"] is False
    return client


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["http", "https"])
def server(
    request: pytest.FixtureRequest,
    profile: str,
    tmp_path_factory: pytest.TempPathFactory,
    nursery: Nursery,
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("official")
    options: tuple[str, ...] = ()
    pair = None
    if request.param == "https":
        if shutil.which("openssl") is None:
            pytest.skip("certificates are made by the openssl program")
        pair = made(directory)
        options = pair.options
    server = start(
        directory,
        *NO_LIMITS,
        *("--profile", profile),
        *("--pool", f"{POOL}=A pool", "--connection", f"{POOL}:connection-1=ERP"),
        *("--oauth-client", "client:secret"),
        *options,
        nursery=nursery,
    )
    server.session.verify = str(pair.certificate) if pair else True
    yield server
    server.stop()


@pytest.fixture(params=CREDENTIALS)
def client(server: Server, request: pytest.FixtureRequest) -> Client:
    return connected(server, request.param)


def written(table: dict[str, Any]) -> bytes:
    """Return rows as the client writes them: Snappy, timestamps as INT96."""
    options = {"compression": "snappy", "version": "2.6", "use_deprecated_int96_timestamps": True}
    return parquet(pa.table(table), **options)


def job_body(table: str, kind: str, **chosen: Any) -> dict[str, Any]:
    """Return the body that creates a push job: every field, null where unset."""
    body: dict[str, Any] = {
        "id": None,
        "targetName": table,
        "lastModified": None,
        "lastPing": None,
        "status": None,
        "type": kind,
        "fileType": None,
        "targetSchema": None,
        "upsertStrategy": None,
        "fallbackVarcharLength": None,
        "dataPoolId": POOL,
        "connectionId": None,
        "postExecutionQuery": None,
        "allowDuplicate": None,
        "foreignKeys": None,
        "keys": None,
        "logs": None,
        "tableSchema": None,
        "csvParsingOptions": None,
        "mirrorTargetNames": None,
        "changeDate": None,
    }
    assert set(chosen) <= set(body)
    return body | chosen


def column(name: str, kind: str, length: int | None = None) -> dict[str, Any]:
    return {
        "columnName": name,
        "columnType": kind,
        "fieldLength": length,
        "decimals": None,
        "pkField": None,
    }


def schema(table: str) -> dict[str, Any]:
    columns = [column("ID", "INTEGER"), column("TEXT", "STRING", 20), column("AT", "DATETIME")]
    return {"tableName": table, "columns": columns}


def created(client: Client, body: dict[str, Any]) -> str:
    job = client.call("POST", f"{PUSH}/", body)
    assert (job["dataPoolId"], job["status"]) == (POOL, "NEW")
    assert (job["targetName"], job["type"]) == (body["targetName"], body["type"])
    assert isinstance(job["id"], str)
    return str(job["id"])


def sent(client: Client, job: str, kind: str, table: dict[str, Any]) -> None:
    answer = client.upload(job, kind, written(table))
    assert (answer.status_code, answer.content) == (200, b""), answer.text


def executed(client: Client, job: str, **params: str) -> dict[str, Any]:
    """Execute a job: it must be NEW before, and is asked for once more at its end."""
    assert client.call("GET", f"{PUSH}/{job}")["status"] == "NEW"
    assert client.call("POST", f"{PUSH}/{job}", params=params) is None

    def ended() -> bool:
        return client.call("GET", f"{PUSH}/{job}")["status"] in ("DONE", "ERROR")

    eventually(ended, "the push job ends")
    shown: dict[str, Any] = client.call("GET", f"{PUSH}/{job}")
    assert isinstance(shown["logs"], list)
    return shown


def pushed(
    client: Client, body: dict[str, Any], chunks: list[dict[str, Any]], **params: str
) -> dict[str, Any]:
    """Create a job, send its chunks, execute it, and delete it at the end."""
    job = created(client, body)
    for chunk in chunks:
        sent(client, job, "upserted", chunk)
    shown = executed(client, job, **params)
    assert client.call("DELETE", f"{PUSH}/{job}") is None
    assert client.send("GET", f"{PUSH}/{job}").status_code == 404
    return shown


def tables(client: Client, connection: str | None) -> list[str]:
    listed = client.call("GET", f"{INTERNAL}/tables")
    for entry in listed:
        assert entry["columns"] == []
        assert set(entry) >= {"name", "dataSourceId", "schemaName", "loaderSource", "available"}
    return [entry["name"] for entry in listed if entry["dataSourceId"] == connection]


def columns(client: Client, table: str, **params: str) -> dict[str, Any]:
    listed = client.call("GET", f"{INTERNAL}/columns", params={"tableName": table} | params)
    return {entry["name"]: (entry["type"], entry["length"]) for entry in listed}


def moment(*seconds: int) -> Any:
    return pa.array(seconds, pa.timestamp("s")).cast(pa.timestamp("ns"))


def test_pools_and_connections(client: Client) -> None:
    (pool,) = client.call("GET", "/integration/api/pools")
    assert (pool["id"], pool["name"]) == (POOL, "A pool")
    assert client.call("GET", INTERNAL)["id"] == POOL
    (connection,) = client.call("GET", f"{INTERNAL}/data-sources/")
    assert (connection["id"], connection["poolId"]) == ("connection-1", POOL)
    assert (connection["name"], bool(connection["type"])) == ("ERP", True)


@pytest.mark.parametrize("connection", [None, "connection-1"])
def test_create_append_upsert(client: Client, server: Server, table: str, connection: Any) -> None:
    place = {} if connection is None else {"schemaName": connection}
    assert table not in tables(client, connection)
    first = {"ID": [1, 2], "TEXT": ["é" * 100, "b"], "AT": moment(0, 86_399)}
    replace = job_body(table, "REPLACE", connectionId=connection)
    assert pushed(client, replace, [first])["status"] == "DONE"
    assert table in tables(client, connection)
    assert columns(client, table, **place) == {
        "ID": ("INTEGER", None),
        "TEXT": ("STRING", 4 * 80),
        "AT": ("DATE", None),
    }

    # The client reads the columns back, and declares the texts a fourth as long.
    configured = {"connectionId": connection, "tableSchema": schema(table)}
    replace = job_body(table, "REPLACE", **configured)
    assert pushed(client, replace, [first])["status"] == "DONE"
    assert columns(client, table, **place)["TEXT"] == ("STRING", 4 * 20)

    append = job_body(table, "DELTA", **configured)
    more = {"ID": [2, 3], "TEXT": ["b", "c"], "AT": moment(1, 2)}
    assert pushed(client, append, [more, more])["status"] == "DONE"

    upsert = job_body(table, "DELTA", keys=["ID"], **configured)
    changed = {"ID": [1, 1, 4], "TEXT": ["new", "old", "d"], "AT": moment(9, 8, 7)}
    assert pushed(client, upsert, [changed], duplicateRemovalColumn="AT")["status"] == "DONE"

    where = "pool-1" if connection is None else f"pool-1_{connection}"
    rows = server.rows(f'SELECT "ID", "TEXT", "AT" FROM "{where}"."{table}" ORDER BY ALL')
    assert rows == [
        ["1", "new", "1970-01-01 00:00:09"],
        ["2", "b", "1970-01-01 00:00:01"],
        ["2", "b", "1970-01-01 00:00:01"],
        ["2", "b", "1970-01-01 23:59:59"],
        ["3", "c", "1970-01-01 00:00:02"],
        ["3", "c", "1970-01-01 00:00:02"],
        ["4", "d", "1970-01-01 00:00:07"],
    ]


def test_a_push_job_by_hand(client: Client, server: Server, table: str) -> None:
    rows = {"ID": [1, 2, 3], "V": [0.5, 1.5, 2.5]}
    assert pushed(client, job_body(table, "REPLACE"), [rows])["status"] == "DONE"
    for chosen in ({"upsertStrategy": "UPSERT_WITH_UNCHANGED_METADATA"}, {"allowDuplicate": True}):
        job = created(client, job_body(table, "DELTA", keys=["ID"], **chosen))
        assert job in [listed["id"] for listed in client.call("GET", f"{PUSH}/")]
        # Whole rows, as the client's own example has them; keys alone are refused in harsh.
        sent(client, job, "deleted", {"ID": [1], "V": [0.5]})
        (chunk,) = client.call("GET", f"{PUSH}/{job}/chunks")
        assert (chunk["type"], chunk["pushJobId"]) == ("DELETE", job)
        assert isinstance(chunk["id"], str)
        assert isinstance(chunk["creationDate"], int)
        assert isinstance(chunk["checksum"], str)
        assert executed(client, job)["status"] == "DONE"
        # A job runs once: the client looks before it executes.
        assert client.call("GET", f"{PUSH}/{job}")["status"] != "NEW"
        assert client.call("DELETE", f"{PUSH}/{job}") is None
    assert server.rows(f'SELECT "ID" FROM "{POOL}"."{table}" ORDER BY 1') == [["2"], ["3"]]


def test_a_push_job_that_fails(client: Client, table: str) -> None:
    rows = {"ID": [1]}
    assert pushed(client, job_body(table, "REPLACE"), [rows])["status"] == "DONE"
    failed = pushed(client, job_body(table, "DELTA"), [{"ID": ["text"]}])
    assert failed["status"] == "ERROR"
    assert all(isinstance(line, str) for line in failed["logs"])
    assert any("ID" in line for line in failed["logs"])
    # What the client turns into advice about the keys.
    job = created(client, job_body(table, "DELTA", keys=["NO_SUCH_COLUMN"]))
    answer = client.upload(job, "upserted", written(rows))
    assert answer.status_code == 500
    assert "Internal error while validating the Parquet" in answer.text
    assert client.call("DELETE", f"{PUSH}/{job}") is None


def set_up(server: Server, table: str) -> None:
    """Make a data model and two data jobs, named after the table."""
    base = f"/_emulator/pools/{POOL}"
    for kind, body in (
        ("data-models", {"id": table, "tables": [{"name": table, "id": "cases"}]}),
        ("data-jobs", {"id": table, "tasks": [{"sql": f"DELETE FROM {table} WHERE ID = 1"}]}),
        ("data-jobs", {"id": f"{table}-bad", "tasks": [{"sql": "SELECT 1"}, {"sql": "SELEC 1"}]}),
    ):
        assert server.post(f"{base}/{kind}", json=body).status_code == 200


def test_data_models(client: Client, server: Server, profile: str, table: str) -> None:
    set_up(server, table)
    rows = {"ID": [1, 2]}
    assert pushed(client, job_body(table, "REPLACE"), [rows])["status"] == "DONE"
    models = client.call("GET", f"{INTERNAL}/data-models")
    assert {"id": table, "name": table, "poolId": POOL} in models
    assert client.call("GET", f"{INTERNAL}/data-models/{table}")["poolId"] == POOL
    (shown,) = client.call("GET", f"{INTERNAL}/data-model/{table}/tables")
    assert (shown["id"], shown["dataModelId"], shown["name"]) == ("cases", table, table)
    model = f"{INTERNAL}/data-models/{table}"
    partial = f"/integration/api/v1/data-pools/{POOL}/data-models/{table}/load/partial-sync"

    def status() -> Any:
        info = client.call("GET", f"{model}/load-history/load-info-sync")
        return info["loadInfo"]["currentComputeLoad"]

    for path, params, body, kind in (
        (f"{model}/reload", {"forceComplete": "true"}, None, "COMPLETE"),
        (f"{model}/reload", {"forceComplete": "false"}, None, "FROM_CACHE"),
        (partial, None, ["cases"], "PARTIAL"),
    ):
        before = status()
        assert before is None or before["loadStatus"] not in NOT_FINISHED
        assert client.call("POST", path, body, params=params) is None

        def has_ended(before: Any = before) -> bool:
            found = status()
            # This one still shows the load before, for an answer.
            if profile == "harsh" and found == before:
                return False
            return found["loadStatus"] not in NOT_FINISHED

        eventually(has_ended, "the load ends")
        ended = status()
        assert (ended["loadStatus"], ended["loadType"]) == ("SUCCESS", kind)
        assert ended["dataLoadId"] != (before or {}).get("dataLoadId")
        assert isinstance(ended["startDate"], int)
    assert server.rows(f'SELECT count(*) FROM "{POOL}_model_{table}"."{table}"') == [["2"]]


def job_execution(job: str) -> dict[str, Any]:
    """Return the body that executes a data job: every field, null where unset."""
    return {
        "id": None,
        "executionId": None,
        "poolId": POOL,
        "jobId": job,
        "mode": "DELTA",
        "executeOnlySubsetOfTransformations": False,
        "transformations": [],
        "executeOnlySubsetOfExtractions": False,
        "extractions": [],
        "dataSourceId": None,
        "loadOnlySubsetOfDataModels": False,
        "dataModels": [],
    }


def test_data_jobs(client: Client, server: Server, table: str) -> None:
    set_up(server, table)
    assert pushed(client, job_body(table, "REPLACE"), [{"ID": [1, 2]}])["status"] == "DONE"
    bad = f"{table}-bad"
    listed = {job["id"]: job for job in client.call("GET", f"{INTERNAL}/jobs")}
    assert listed[table]["dataPoolId"] == listed[bad]["dataPoolId"] == POOL
    assert client.call("GET", f"{INTERNAL}/jobs/{table}")["name"] == table

    def status(job: str) -> Any:
        (entry,) = [e for e in client.call("GET", f"{INTERNAL}/logs/status") if e["id"] == job]
        return entry["status"]

    for job, expected in ((table, "SUCCESS"), (bad, "FAIL")):
        # It is listed before its first run.
        assert status(job) not in ("QUEUED", "RUNNING")
        body = job_execution(job)
        assert client.call("POST", f"{INTERNAL}/jobs/{job}/execute", body) is None
        eventually(lambda job=job: status(job) not in ("QUEUED", "RUNNING"), "the data job ends")
        assert status(job) == expected
    assert server.rows(f'SELECT "ID" FROM "{POOL}"."{table}"') == [["2"]]

    executions = client.call("GET", f"{INTERNAL}/logs/{bad}/executions")["executionItems"]
    assert executions[0]["jobId"] == bad
    params = {"executionId": executions[0]["executionId"]}
    tasks = client.call(
        "GET", f"{INTERNAL}/logs/executions", params=params | {"type": "TASK", "id": bad}
    )
    assert {task["executionId"] for task in tasks} == set(params.values())
    (failed,) = [task for task in tasks if task["status"] == "FAIL"]
    params |= {"id": failed["taskId"], "type": failed["type"]}
    detail = client.call("GET", f"{INTERNAL}/logs/executions/detail", params=params)
    assert "SELEC" in detail["logMessages"][0]["logMessage"]


def test_errors_as_the_client_tells_them_apart(client: Client) -> None:
    nowhere = "/integration/api/pools/pool-2"
    assert client.send("GET", nowhere).status_code == 404
    assert client.send("GET", f"{INTERNAL}/data-models/none").status_code == 404
    assert client.send("GET", f"{INTERNAL}/jobs/none").status_code == 404
    client.session.headers["authorization"] = "Bearer nobody"
    assert client.send("GET", INTERNAL).status_code == 401


def test_headers_of_the_client_are_welcome(client: Client) -> None:
    """A cookie's value sent back, and both ways of spelling a collection."""
    client.session.headers["x-csrf-token"] = "token"
    client.session.cookies.set("XSRF-TOKEN", "token")
    assert client.call("GET", f"{PUSH}/") == client.call("GET", PUSH)


SYS_PIDFD_GETFD = 438


def nodelay(pid: int, client_port: int) -> int | None:
    """Return TCP_NODELAY of a server's end of a connection; None: it has no such connection."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not str(entry.readlink()).startswith("socket:"):
                continue
            number = libc.syscall(SYS_PIDFD_GETFD, process, int(entry.name), 0)
            if number < 0:
                pytest.skip("sockets of other processes cannot be looked at here")
            with socket.socket(fileno=number) as end, suppress(OSError):  # one of them listens
                if end.family == socket.AF_INET and end.getpeername()[1] == client_port:
                    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        os.close(process)
    return None


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_no_answer_waits_for_an_acknowledgement(server: Server) -> None:
    """A server that holds back small packets costs this client 40 ms with each request."""
    pid, port = server.process.pid, int(server.url.rsplit(":")[-1])
    with socket.create_connection(("127.0.0.1", port)) as line:
        own = line.getsockname()[1]
        eventually(lambda: nodelay(pid, own) == 1, "the server sends small packets at once")
