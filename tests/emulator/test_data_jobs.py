"""Data jobs: what their SQL does, how runs stand, and what their logs tell."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Push, Server, StartServer, eventually

if TYPE_CHECKING:
    import requests

_jobs = itertools.count(1)
LIVE = ("QUEUED", "RUNNING")
POOL = "/integration/api/pools/local"
# Long enough for any test, and it writes.
ENDLESS = "CREATE TABLE endless AS SELECT count(*) AS n FROM range(1000000) a, range(1000000) b"


@dataclass
class DataJob:
    """A data job of the pool ``local``; tasks have the ids 1, 2 and so on."""

    server: Server
    tasks: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"job_{next(_jobs)}")

    def __post_init__(self) -> None:
        body = {"id": self.id, "tasks": [{"sql": sql} for sql in self.tasks]} | self.settings
        answer = self.server.post("/_emulator/pools/local/data-jobs", json=body)
        assert answer.status_code == 200, answer.text

    def execute(self, **body: Any) -> requests.Response:
        if body:
            return self.server.post(f"{POOL}/jobs/{self.id}/execute", json=body)
        path = f"/integration/api/v2/data-pools/local/data-jobs/{self.id}/execute?mode=FULL"
        return self.server.post(path)

    def cancel(self) -> requests.Response:
        return self.server.post(f"{POOL}/jobs/{self.id}/cancel")

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.get(f"{POOL}/jobs/{self.id}").json()
        return found

    def listed(self) -> dict[str, Any] | None:
        listed = self.server.get(f"{POOL}/logs/status").json()
        return next((entry for entry in listed if entry["id"] == self.id), None)

    def ended(self) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            shown = self.shown()
            return None if shown["status"] in LIVE else shown

        found: dict[str, Any] = eventually(over, f"data job {self.id} ends")
        return found

    def run(self, status: str = "SUCCESS", **body: Any) -> dict[str, Any]:
        answer = self.execute(**body)
        assert (answer.status_code, answer.content) == (200, b""), answer.text
        ended = self.ended()
        assert ended["status"] == status, self.log("1")
        return ended

    def executions(self, **params: Any) -> Any:
        answer = self.server.get(f"{POOL}/logs/{self.id}/executions", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def items(self, kind: str = "TASK", execution: str | None = None) -> Any:
        execution = execution or self.shown()["currentExecutionId"]
        params = {"executionId": execution, "type": kind, "id": self.id}
        return self.server.get(f"{POOL}/logs/executions", params=params).json()

    def statuses(self) -> dict[str, str]:
        return {item["taskId"]: item["status"] for item in self.items()}

    def messages(self, task: str, kind: str = "TASK", **params: Any) -> Any:
        params |= {"executionId": self.shown()["currentExecutionId"], "type": kind, "id": task}
        return self.server.get(f"{POOL}/logs/executions/detail", params=params).json()

    def log(self, task: str, **params: Any) -> list[str]:
        return [line["logMessage"] for line in self.messages(task, **params)["logMessages"]]


def test_tasks_run_in_order_in_the_schema_of_the_pool(push: Push, table: str) -> None:
    push.load(table, {"id": [1, 2]})
    job = DataJob(
        push.server,
        (
            (
                f"CREATE TABLE {table}_x AS SELECT id, 'a;b' AS s FROM {table}; -- one; comment\n"
                f"INSERT INTO {table}_x VALUES (3, 'é;'); ;"
            ),
            f"/* the next; one */ UPDATE {table.upper()}_X SET s = s || '!' WHERE id > 1;",
        ),
    )
    job.run()
    rows = push.server.rows(f"SELECT * FROM local.{table}_x ORDER BY 1")
    assert rows == [["1", "a;b"], ["2", "a;b!"], ["3", "é;!"]]
    assert job.statuses() == {"1": "SUCCESS", "2": "SUCCESS"}
    assert job.log("1") == [
        "Transformation Task 1 started.",
        f"CREATE TABLE {table}_x AS SELECT id, 'a;b' AS s FROM {table}: 2 rows.",
        f"INSERT INTO {table}_x VALUES (3, 'é;'): 1 rows.",
        "Transformation Task 1 ended.",
    ]
    assert "2 rows" in job.log("2")[1]


def test_a_job_of_a_connection(push: Push, table: str) -> None:
    push.load(table, {"id": [1]}, connectionId="erp")
    push.load(table, {"id": [2]})
    sql = f"CREATE TABLE {table}_x AS SELECT id FROM {table} UNION SELECT id FROM local.{table}"
    job = DataJob(push.server, (sql,), {"connection_id": "erp"})
    job.run()
    assert push.server.rows(f"SELECT id FROM local_erp.{table}_x ORDER BY 1") == [["1"], ["2"]]
    assert job.shown()["dataSourceId"] == "erp"


def test_the_first_failure_ends_the_job(push: Push, table: str) -> None:
    job = DataJob(
        push.server,
        (
            f"CREATE TABLE {table} (id INTEGER)",
            (
                f"INSERT INTO {table} VALUES (1); INSERT INTO {table} VALUES (2), ('x');"
                f"INSERT INTO {table} VALUES (3)"
            ),
            f"INSERT INTO {table} VALUES (4)",
        ),
    )
    job.run("FAIL")
    assert job.statuses() == {"1": "SUCCESS", "2": "FAIL", "3": "SKIPPED"}
    # Each statement commits itself: what was done stays, what failed leaves nothing.
    assert push.server.rows(f"SELECT id FROM local.{table}") == [["1"]]
    first, *rest = job.log("2")
    assert first.startswith("Conversion Error")
    assert rest == [
        "Transformation Task 2 started.",
        f"INSERT INTO {table} VALUES (1): 1 rows.",
    ]
    assert job.log("3") == []
    assert "Task 2 failed" in job.log(job.id, kind="JOB")[0]


ALL = {"poolId": "local", "mode": "DELTA"}
SUBSETS: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "all": ({}, {"1", "2"}, {"m1", "m2"}),
    "lists without the flags": (
        {
            "executeOnlySubsetOfTransformations": False,
            "transformations": ["1"],
            "dataModels": [{"dataModelExecutionId": "m1"}],
        },
        {"1", "2"},
        {"m1", "m2"},
    ),
    "no transformation": (
        {"executeOnlySubsetOfTransformations": True, "transformations": []},
        set(),
        {"m1", "m2"},
    ),
    "one transformation, no model": (
        {
            "executeOnlySubsetOfTransformations": True,
            "transformations": ["2"],
            "loadOnlySubsetOfDataModels": True,
            "dataModels": [],
        },
        {"2"},
        set(),
    ),
    "one model, no extraction": (
        {
            "executeOnlySubsetOfExtractions": True,
            "extractions": [{"extractionId": "e", "loadOnlySubsetOfTables": False, "tables": []}],
            "loadOnlySubsetOfDataModels": True,
            "dataModels": [{"dataModelExecutionId": "m2", "tables": []}],
        },
        {"1", "2"},
        {"m2"},
    ),
    "null for everything": (
        dict.fromkeys(
            (
                *("id", "executionId", "poolId", "jobId", "mode", "dataSourceId"),
                *("executeOnlySubsetOfTransformations", "transformations", "extractions"),
                *("executeOnlySubsetOfExtractions", "loadOnlySubsetOfDataModels", "dataModels"),
            )
        ),
        {"1", "2"},
        {"m1", "m2"},
    ),
}


@pytest.mark.parametrize("case", SUBSETS)
def test_parts_of_a_job(push: Push, table: str, case: str) -> None:
    body, tasks, loaded = SUBSETS[case]
    push.load(table, {"id": [1]})
    models = {name: f"{name}_{table}" for name in ("m1", "m2")}
    for model in models.values():
        put = {"id": model, "tables": [{"name": table}]}
        assert push.server.post("/_emulator/pools/local/data-models", json=put).status_code == 200
    job = DataJob(push.server, ("SELECT 1", "SELECT 2"), {"data_models": list(models.values())})
    if body.get("dataModels"):
        chosen = [
            m | {"dataModelExecutionId": models[m["dataModelExecutionId"]]}
            for m in body["dataModels"]
        ]
        body = body | {"dataModels": chosen}
    job.run(**{"jobId": job.id} | ALL | body)
    assert set(job.statuses()) == tasks
    assert {name for name, model in models.items() if loads_of(push.server, model)} == loaded


def loads_of(server: Server, model: str) -> Any:
    path = f"{POOL}/data-models/{model}/load-history/load-info-sync"
    return server.get(path).json()["loadHistory"]["dataLoadHistory"]


def test_some_tables_of_a_model(push: Push, table: str) -> None:
    push.load(table, {"id": [1]})
    model = f"model_of_{table}"
    put = {"id": model, "tables": [{"name": table, "id": "a"}]}
    assert push.server.post("/_emulator/pools/local/data-models", json=put).status_code == 200
    job = DataJob(push.server, (), {"data_models": [model]})
    chosen = [{"dataModelExecutionId": model, "tables": ["a"]}]
    job.run(loadOnlySubsetOfDataModels=True, dataModels=chosen)
    assert [load["loadType"] for load in loads_of(push.server, model)] == ["PARTIAL"]
    chosen[0]["tables"] = ["none"]
    job.run("FAIL", loadOnlySubsetOfDataModels=True, dataModels=chosen)
    assert "none" in job.log(job.id, kind="JOB")[0]


def test_a_failed_job_loads_nothing(push: Push, table: str) -> None:
    model = f"model_of_{table}"
    put = {"id": model, "tables": []}
    assert push.server.post("/_emulator/pools/local/data-models", json=put).status_code == 200
    DataJob(push.server, ("SELEC 1",), {"data_models": [model]}).run("FAIL")
    assert loads_of(push.server, model) == []


def test_nobody_waits_for_the_loads(start_server: StartServer) -> None:
    server = start_server("--model-load-seconds", "60")
    put = {"id": "m"}
    assert server.post("/_emulator/pools/local/data-models", json=put).status_code == 200
    job = DataJob(server, (), {"data_models": ["m"]})
    for _ in range(2):
        job.run()
        assert loads_of(server, "m")[0]["loadStatus"] == "RUNNING"
    assert len(loads_of(server, "m")) == 1  # the second one waits, and is not shown


REFUSED: dict[str, tuple[str, Any]] = {
    "no mode": ("/integration/api/v2/data-pools/local/data-jobs/{job}/execute", None),
    "a wrong mode": ("/integration/api/v2/data-pools/local/data-jobs/{job}/execute?mode=ALL", None),
    "a wrong version": (
        "/integration/api/v3/data-pools/local/data-jobs/{job}/execute?mode=FULL",
        None,
    ),
    "a wrong mode in the body": (POOL + "/jobs/{job}/execute", {"mode": "ALL"}),
    "another pool": (POOL + "/jobs/{job}/execute", {"poolId": "other"}),
    "another job": (POOL + "/jobs/{job}/execute", {"jobId": "other"}),
    "an unknown transformation": (
        POOL + "/jobs/{job}/execute",
        {"executeOnlySubsetOfTransformations": True, "transformations": ["9"]},
    ),
    "an unknown model": (
        POOL + "/jobs/{job}/execute",
        {"loadOnlySubsetOfDataModels": True, "dataModels": [{"dataModelExecutionId": "9"}]},
    ),
    "a body that is none": (POOL + "/jobs/{job}/execute", []),
    "nothing to cancel": (POOL + "/jobs/{job}/cancel", None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(shared_server: Server, case: str) -> None:
    path, body = REFUSED[case]
    job = DataJob(shared_server, ("SELECT 1",))
    answer = shared_server.post(path.format(job=job.id), json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["error"]
    assert job.shown()["status"] is None


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["FULL", "DELTA"])
def test_the_public_execute(shared_server: Server, version: str, mode: str) -> None:
    job = DataJob(shared_server, ("SELECT 1",))
    path = f"/integration/api/{version}/data-pools/local/data-jobs/{job.id}/execute"
    answer = shared_server.post(path, params={"mode": mode})
    assert (answer.status_code, answer.content) == (200, b"")
    assert job.ended()["status"] == "SUCCESS"
    assert job.items("JOB")[0]["mode"] == mode


@pytest.mark.parametrize("pool", ["local", "nowhere"])
def test_unknown_jobs(shared_server: Server, pool: str) -> None:
    base = f"/integration/api/pools/{pool}"
    for path in (f"{base}/jobs/none", f"{base}/logs/none/executions"):
        assert shared_server.get(path).status_code == 404
    public = f"/integration/api/v2/data-pools/{pool}/data-jobs/none/execute?mode=FULL"
    for path in (f"{base}/jobs/none/execute", f"{base}/jobs/none/cancel", public):
        assert shared_server.post(path).status_code == 404


def test_before_the_first_run(shared_server: Server, start_server: StartServer) -> None:
    job = DataJob(shared_server, ("SELECT 1",))
    assert job.listed() == {"id": job.id, "status": None, "lastExecutionStartDate": None}
    assert job.shown() == {
        "id": job.id,
        "name": job.id,
        "dataPoolId": "local",
        "dataSourceId": None,
        "timeStamp": None,
        "status": None,
        "currentExecutionId": None,
        "dagBasedExecutionEnabled": False,
        "latestExecutionItemId": None,
    }
    assert job.shown() in shared_server.get(f"{POOL}/jobs").json()
    assert job.executions() == {"executionItems": [], "numOfPages": 0}
    other = DataJob(start_server("--unrun-jobs-listed", "off"), ("SELECT 1",))
    assert other.listed() is None
    assert other.shown()["status"] is None
    other.run()
    assert other.listed() == {
        "id": other.id,
        "status": "SUCCESS",
        "lastExecutionStartDate": other.shown()["timeStamp"],
    }


def test_each_run_is_a_new_one(shared_server: Server) -> None:
    job = DataJob(shared_server, ("SELECT 1",))
    runs = [(job.run(), job.listed()) for _ in range(3)]
    for name in ("currentExecutionId", "latestExecutionItemId"):
        assert len({shown[name] for shown, _ in runs}) == 3
    starts = [listed["lastExecutionStartDate"] for _, listed in runs if listed]
    assert starts == sorted(set(starts))
    items = job.executions()["executionItems"]
    assert [item["executionId"] for item in items] == [
        shown["currentExecutionId"] for shown, _ in reversed(runs)
    ]
    assert [item["id"] for item in items] == [
        shown["latestExecutionItemId"] for shown, _ in reversed(runs)
    ]
    # The logs of an earlier run stay.
    first = runs[0][0]["currentExecutionId"]
    assert [item["executionId"] for item in job.items(execution=first)] == [first]


def test_pages_and_levels_of_logs(shared_server: Server) -> None:
    job = DataJob(shared_server, ("SELECT 1; SELECT 2; SELEC 3",))
    for _ in range(3):
        job.run("FAIL")
    newest, *older = job.executions()["executionItems"]
    page = job.executions(limit=2, page=0)
    assert page == {"executionItems": [newest, older[0]], "numOfPages": 2}
    assert job.executions(limit=2, page=1)["executionItems"] == [older[1]]
    assert job.executions(limit=2, page=2)["executionItems"] == []
    assert set(newest) >= {
        *("id", "poolId", "executionId", "jobId", "taskId", "stepId", "name", "status"),
        *("startDate", "endDate", "type", "mode"),
    }
    whole = job.messages("1")
    assert whole["numOfPages"] == 1
    lines = whole["logMessages"]
    assert [line["level"] for line in lines] == ["ERROR", "INFO", "INFO", "INFO"]
    (item,) = job.items()
    assert {line["executionItemId"] for line in lines} == {item["id"]}
    assert all(item["startDate"] <= line["date"] <= item["endDate"] for line in lines)
    assert job.messages("1", limit=3, page=1) == {"logMessages": lines[3:], "numOfPages": 2}
    assert job.messages("1", logLevels="error")["logMessages"] == lines[:1]
    assert job.messages("1", logLevels="INFO,WARN")["logMessages"] == lines[1:]
    # A parameter without a value is as good as none.
    blank = {"limit": "", "page": ""}
    assert job.executions(**blank) == job.executions()
    assert job.messages("1", logLevels="", type="", **blank) == whole
    execution = {"executionId": newest["executionId"]}
    listing = f"{POOL}/logs/executions"
    assert shared_server.get(listing, params=execution | {"type": "", "id": ""}).json() == [item]
    for bad in ({"limit": 0}, {"page": -1}, {"limit": "x"}, {"limit": " "}):
        path = f"{POOL}/logs/{job.id}/executions"
        assert shared_server.get(path, params=bad).status_code == 400


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory, nursery: Any) -> Any:
    """One server whose data jobs never begin their work."""
    from .conftest import start

    options = ("--pool", "local", "--pool", "other", "--data-job-seconds", "600")
    server = start(tmp_path_factory.mktemp("slow"), *options, nursery=nursery)
    yield server
    server.stop()


def test_running_and_queued_jobs(slow_server: Server) -> None:
    running, queued = (DataJob(slow_server, ("SELECT 1",)) for _ in range(2))
    assert running.execute().status_code == 200
    eventually(lambda: running.shown()["status"] == "RUNNING", "the job runs")
    listed = running.listed()
    assert listed is not None
    assert listed["status"] == "RUNNING"
    answer = running.execute()
    assert answer.status_code == 409
    assert running.id in answer.json()["message"]
    assert queued.execute().status_code == 200
    assert queued.shown()["status"] == "QUEUED"
    for job in (queued, running):
        answer = job.cancel()
        assert (answer.status_code, answer.content) == (200, b"")
        assert job.ended()["status"] == "CANCEL"
        assert job.cancel().status_code == 400
        assert job.items() == []
        (item,) = job.items("JOB")
        assert item["endDate"] is not None
    # What was cancelled in the queue does not run later, and the worker goes on.
    again = DataJob(slow_server, ("SELECT 1",))
    assert again.execute().status_code == 200
    eventually(lambda: again.shown()["status"] == "RUNNING", "the next job runs")
    assert queued.shown()["status"] == "CANCEL"
    assert again.cancel().status_code == 200
    assert again.ended()["status"] == "CANCEL"


def test_cancel_interrupts_a_statement(push: Push, table: str) -> None:
    sql = f"CREATE TABLE {table} AS SELECT 1 AS a; {ENDLESS.replace('endless', table + '_x')}"
    job = DataJob(push.server, (sql, "SELECT 2"))
    assert job.execute().status_code == 200
    eventually(lambda: job.statuses() and len(job.log("1")) == 2, "the first statement is done")
    assert job.cancel().status_code == 200
    assert job.ended()["status"] == "CANCEL"
    assert job.statuses() == {"1": "CANCEL", "2": "SKIPPED"}
    assert push.server.rows(f"SELECT * FROM local.{table}") == [["1"]]
    assert push.server.described(table + "_x") is None
    DataJob(push.server, ("SELECT 1",)).run()


def test_a_second_execution_can_wait(start_server: StartServer) -> None:
    server = start_server("--second-execution", "queue", "--data-job-seconds", "0.3")
    job = DataJob(server, ("CREATE TABLE IF NOT EXISTS n (a INTEGER); INSERT INTO n VALUES (1)",))
    for _ in range(3):
        assert job.execute().status_code == 200
    assert job.shown()["status"] == "QUEUED"
    assert job.ended()["status"] == "SUCCESS"
    assert {item["status"] for item in job.executions()["executionItems"]} == {"SUCCESS"}
    assert server.rows("SELECT count(*) FROM local.n") == [["3"]]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_run_that_the_server_did_not_survive(start_server: StartServer, how: str) -> None:
    server = start_server()
    job = DataJob(server, (f"CREATE TABLE t AS SELECT 1 AS a; {ENDLESS}", "SELECT 2"))
    behind = DataJob(server, ("CREATE TABLE never AS SELECT 1 AS a",))
    assert job.execute().status_code == 200
    assert behind.execute().status_code == 200
    eventually(lambda: job.statuses() and len(job.log("1")) == 2, "the first statement is done")
    if how == "stop":
        assert server.stop() == 0
    else:
        server.process.kill()
        server.process.wait(10)
    job.server = behind.server = start_server(database=server.database)
    for shown in (job.shown(), behind.shown()):
        assert shown["status"] == "FAIL"
    assert job.statuses() == {"1": "FAIL", "2": "SKIPPED"}
    assert "stopped" in job.log("1")[0]
    assert "stopped" in behind.log(behind.id, kind="JOB")[0]
    names = [[row["table"]] for row in job.server.get("/_emulator/tables").json()]
    assert names == [["t"]]
    behind.run()


def test_jobs_survive_a_restart_and_a_change(start_server: StartServer) -> None:
    server = start_server()
    job = DataJob(server, ("SELECT 1", "SELECT 2"))
    job.run()
    before = (job.shown(), job.executions(), job.items(), job.messages("1"))
    assert server.stop() == 0
    job.server = start_server(database=server.database)
    assert (job.shown(), job.executions(), job.items(), job.messages("1")) == before
    job.run()
    changed = DataJob(job.server, ("SELECT 3",), {"name": "Changed"}, id=job.id)
    assert changed.shown()["name"] == "Changed"
    assert len(changed.executions()["executionItems"]) == 2
    changed.run()
    assert changed.statuses() == {"1": "SUCCESS"}
    assert "SELECT 3" in changed.log("1")[1]
