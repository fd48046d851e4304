"""Data models: what a load copies, how it stands meanwhile, and what is left of one that fails."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from .conftest import Command, Push, Server, StartServer, eventually

if TYPE_CHECKING:
    import requests

_models = itertools.count(1)
FAILED = ("ERROR",)
GOOD = ("SUCCESS", "WARNING")


@dataclass
class Model:
    """A data model of the pool ``local``; its tables are (name, more fields)."""

    server: Server
    tables: tuple[str | dict[str, Any], ...]
    id: str = field(default_factory=lambda: f"model_{next(_models)}")

    def __post_init__(self) -> None:
        self.put(*self.tables)

    def put(self, *tables: str | dict[str, Any]) -> None:
        listed = [{"name": t} if isinstance(t, str) else t for t in tables]
        body = {"id": self.id, "tables": listed}
        answer = self.server.post("/_emulator/pools/local/data-models", json=body)
        assert answer.status_code == 200, answer.text

    @property
    def internal(self) -> str:
        return f"/integration/api/pools/local/data-models/{self.id}"

    @property
    def public(self) -> str:
        return f"/integration/api/v1/data-pools/local/data-models/{self.id}"

    def trigger(self, kind: str = "COMPLETE", *table_ids: str) -> requests.Response:
        if kind == "COMPLETE":
            return self.server.post(f"{self.public}/load")
        if kind == "PARTIAL":
            return self.server.post(f"{self.public}/load/partial-sync", json=list(table_ids))
        return self.server.post(f"{self.internal}/reload", params={"forceComplete": "false"})

    def info(self) -> dict[str, Any]:
        answer = self.server.get(f"{self.internal}/load-history/load-info-sync")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def current(self) -> Any:
        return self.info()["loadInfo"]["currentComputeLoad"]

    def ended(self) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            shown = self.current()
            return shown if shown and shown["loadStatus"] != "RUNNING" else None

        found: dict[str, Any] = eventually(over, f"the load of {self.id} ends")
        return found

    def load(self, kind: str = "COMPLETE", *table_ids: str, status: str = "SUCCESS") -> Any:
        answer = self.trigger(kind, *table_ids)
        assert (answer.status_code, answer.content) == (200, b""), answer.text
        ended = self.ended()
        assert ended["loadStatus"] == status, ended
        assert ended["loadType"] == kind
        return ended

    def rows(self, table: str, columns: str = "*") -> list[list[Any]]:
        sql = f'SELECT {columns} FROM "local_model_{self.id}"."{table}" ORDER BY ALL'
        return self.server.rows(sql)

    def counts(self) -> dict[str, int]:
        live = self.info()["loadInfo"]["liveDataModel"]
        return {table["tableName"]: table["tableRowCount"] for table in live["tableLoads"]}


def other(table: str) -> str:
    return f"{table}_b"


def test_a_load_is_a_copy(push: Push, table: str) -> None:
    push.load(table, {"id": [1]})
    model = Model(push.server, (table.upper(), {"name": table, "alias": "Other", "id": "o"}))
    assert model.info()["loadInfo"] == {"liveDataModel": None, "currentComputeLoad": None}
    first = model.load()
    assert first["startDate"] <= first["endDate"]
    assert first["message"] is None
    push.load(table, {"id": [2, 3]}, type="DELTA")
    assert model.rows(table.upper()) == model.rows("Other") == [["1"]]
    assert model.counts() == {table.upper(): 1, "Other": 1}
    second = model.load()
    assert model.rows("Other") == [["1"], ["2"], ["3"]]
    assert model.counts() == {table.upper(): 3, "Other": 3}
    assert second["dataLoadId"] != first["dataLoadId"]
    assert [load["dataLoadId"] for load in model.info()["loadHistory"]["dataLoadHistory"]] == [
        second["dataLoadId"],
        first["dataLoadId"],
    ]


def test_partial_and_cached_loads(push: Push, table: str) -> None:
    """The others stay; what has no copy yet is copied in any case."""
    for name in (table, other(table)):
        push.load(name, {"id": [1]})
    model = Model(push.server, ({"name": table, "id": "a"}, {"name": other(table), "id": "b"}))
    model.load("PARTIAL", "a")
    assert model.counts() == {table: 1, other(table): 1}
    for name in (table, other(table)):
        push.load(name, {"id": [2]}, type="DELTA")
    model.load("PARTIAL", "b")
    assert model.rows(table) == [["1"]]
    assert model.rows(other(table)) == [["1"], ["2"]]
    model.load("FROM_CACHE")
    assert model.counts() == {table: 1, other(table): 2}
    model.put({"name": table, "id": "a"}, {"name": other(table), "id": "b", "alias": "New"})
    model.load("FROM_CACHE")
    assert model.counts() == {table: 1, "New": 2}
    answer = push.server.post(f"{model.internal}/reload", params={"forceComplete": "true"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert model.ended()["loadType"] == "COMPLETE"
    assert model.counts() == {table: 2, "New": 2}


def test_the_model_shows_its_tables_and_no_others(push: Push, table: str) -> None:
    for name in (table, other(table)):
        push.load(name, {"id": [1]})
    model = Model(push.server, (table, other(table)))
    model.load()
    model.put(other(table))
    assert model.rows(table) == [["1"]]  # until the next load
    model.load("FROM_CACHE")
    schema = f"'local_model_{model.id}'"
    sql = f"SELECT table_name FROM duckdb_tables() WHERE schema_name = {schema}"
    assert push.server.rows(sql) == [[other(table)]]
    model.put()
    model.load()
    assert push.server.rows(sql) == []
    assert model.counts() == {}
    assert len(model.info()["loadHistory"]["dataLoadHistory"]) == 3


def test_tables_of_connections_and_views(push: Push, table: str) -> None:
    push.load(table, {"id": [1]})
    push.load(table, {"id": [2]}, connectionId="erp")
    view = f"{table}_view"
    run_sql(push.server, f'CREATE VIEW "{view}" AS SELECT id + 10 AS id FROM "{table}"')
    model = Model(push.server, (table, {"name": table, "connection_id": "erp", "alias": "E"}, view))
    model.load()
    assert [model.rows(name) for name in (table, "E", view)] == [[["1"]], [["2"]], [["11"]]]


def run_sql(server: Server, sql: str) -> None:
    """Run SQL by a data job of its own."""
    base = "/integration/api/pools/local"
    job = f"job_of_models_{next(_models)}"
    body = {"id": job, "tasks": [{"sql": sql}]}
    assert server.post("/_emulator/pools/local/data-jobs", json=body).status_code == 200
    assert server.post(f"{base}/jobs/{job}/execute").status_code == 200

    def ended() -> Any:
        return server.get(f"{base}/jobs/{job}").json()["status"] not in ("QUEUED", "RUNNING")

    eventually(ended, "the data job ends")
    assert server.get(f"{base}/jobs/{job}").json()["status"] == "SUCCESS"


def dates(*days: tuple[int, int, int]) -> dict[str, Any]:
    """Return days as dates and as timestamps; the year 10000 is one day after the last date."""
    numbers = [
        (dt.date(9999, 12, 31) if y > 9999 else dt.date(y, m, d)).toordinal()
        - dt.date(1970, 1, 1).toordinal()
        + (y > 9999)
        for y, m, d in days
    ]
    day = 86_400_000
    return {
        "id": list(range(len(numbers))),
        "d": pa.array([*numbers], pa.int32()).cast(pa.date32()),
        "t": pa.array([n * day for n in numbers], pa.int64()).cast(pa.timestamp("ms")),
    }


OUT = dates((1399, 12, 31), (1400, 1, 1), (9999, 12, 31), (10000, 1, 1))


@pytest.mark.parametrize("status", GOOD)
def test_dates_that_the_engine_cannot_hold(start_server: StartServer, status: str) -> None:
    push = Push(start_server("--lost-dates-status", status))
    push.load("t", OUT)
    push.load("fine", dates((1400, 1, 1)))
    model = Model(push.server, ("t", "fine"))
    ended = model.load(status=status)
    assert ended["message"] == "Dates outside 1400-01-01 to 9999-12-31 became NULL: 4 in t."
    assert model.rows("t", "id, d IS NULL, t IS NULL") == [
        ["0", "true", "true"],
        ["1", "false", "false"],
        ["2", "false", "false"],
        ["3", "true", "true"],
    ]
    assert model.counts() == {"t": 4, "fine": 1}
    # The pool keeps them.
    assert push.server.rows("SELECT count(d), count(t) FROM local.t") == [["4", "4"]]
    assert push.server.rows("SELECT typeof(d), typeof(t) FROM local_model_" + model.id + ".t")[
        0
    ] == ["DATE", "TIMESTAMP"]
    # What was not copied again is not told again.
    assert model.load("FROM_CACHE")["message"] is None


def test_a_missing_table_leaves_all_copies_as_they_were(push: Push, table: str) -> None:
    for name in (table, other(table)):
        push.load(name, {"id": [1]})
    model = Model(push.server, (table, other(table)))
    good = model.load()
    push.load(table, {"id": [2]}, type="DELTA")
    run_sql(push.server, f'DROP TABLE "{other(table)}"')
    failed = model.load(status="ERROR")
    assert other(table) in failed["message"]
    assert "local" in failed["message"]
    assert failed["endDate"] is not None
    assert model.rows(table) == model.rows(other(table)) == [["1"]]
    info = model.info()
    assert info["loadInfo"]["liveDataModel"]["dataLoadId"] == good["dataLoadId"]
    assert info["loadHistory"]["lastSuccessfulDataModel"]["dataLoadId"] == good["dataLoadId"]
    # The table that is there can be loaded alone.
    model.load("PARTIAL", table)
    assert model.counts() == {table: 2, other(table): 1}


def test_a_broken_view_fails_the_load(push: Push, table: str) -> None:
    push.load(table, {"id": [1]})
    view = f"{table}_view"
    run_sql(push.server, f'CREATE VIEW "{view}" AS SELECT id FROM "{table}"')
    model = Model(push.server, (view,))
    model.load()
    run_sql(push.server, f'DROP TABLE "{table}"')
    assert "copied" in model.load(status="ERROR")["message"]
    assert model.rows(view) == [["1"]]


@pytest.mark.parametrize("body", [["none"], ["a", "none"], {"a": 1}, "a", [1], None])
def test_partial_loads_that_are_refused(push: Push, table: str, body: Any) -> None:
    push.load(table, {"id": [1]})
    model = Model(push.server, ({"name": table, "id": "a"},))
    answer = push.server.post(f"{model.public}/load/partial-sync", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["error"]
    assert model.current() is None


def test_full_reload_is_accepted(push: Push, table: str) -> None:
    push.load(table, {"id": [1]})
    model = Model(push.server, ({"name": table, "id": "a"},))
    path = f"{model.public}/load/partial-sync?fullReload=true"
    assert push.server.post(path, json=["a"]).status_code == 200
    assert model.ended()["loadType"] == "PARTIAL"


def test_a_second_load_is_refused(start_server: StartServer) -> None:
    push = Push(start_server("--model-load-seconds", "60"))
    push.load("t", {"id": [1]})
    model, free = (Model(push.server, ("t",)) for _ in range(2))
    assert model.trigger().status_code == 200
    running = model.current()
    assert (running["loadStatus"], running["endDate"]) == ("RUNNING", None)
    for kind in ("COMPLETE", "PARTIAL", "FROM_CACHE"):
        answer = model.trigger(kind)
        assert answer.status_code == 409
        assert model.id in answer.json()["message"]
    assert model.current() == running
    assert model.info()["loadInfo"]["liveDataModel"] is None
    # Another model is none of its business.
    assert free.trigger().status_code == 200


def test_a_second_load_can_wait(start_server: StartServer) -> None:
    push = Push(start_server("--second-load", "queue", "--model-load-seconds", "0.3"))
    push.load("t", {"id": [1]})
    model = Model(push.server, ("t",))
    for _ in range(3):
        assert model.trigger().status_code == 200
    assert len(model.info()["loadHistory"]["dataLoadHistory"]) < 3

    def statuses() -> list[str]:
        return [load["loadStatus"] for load in model.info()["loadHistory"]["dataLoadHistory"]]

    eventually(lambda: statuses() == ["SUCCESS"] * 3, "all three loads end")
    starts = [load["startDate"] for load in model.info()["loadHistory"]["dataLoadHistory"]]
    ends = [load["endDate"] for load in model.info()["loadHistory"]["dataLoadHistory"]]
    assert all(end <= start for start, end in itertools.pairwise(sorted(starts + ends)[::-1]))
    assert starts[0] >= ends[1] >= starts[1] >= ends[2]


def test_the_first_answers_can_be_stale(start_server: StartServer) -> None:
    push = Push(start_server("--stale-load-answers", "2"))
    push.load("t", {"id": [1]})
    model = Model(push.server, ("t",))
    assert model.trigger().status_code == 200
    assert [model.current() for _ in range(2)] == [None, None]
    first = model.ended()
    before = model.info()
    assert model.trigger().status_code == 200
    assert [model.info() for _ in range(2)] == [before, before]
    assert model.ended()["dataLoadId"] != first["dataLoadId"]


def test_listings(push: Push, table: str) -> None:
    push.load(table, {"a": ["x"], "b": [1.5]})
    model = Model(push.server, ({"name": table, "alias": "Cases", "id": "c"}, "no_such_table"))
    shown = {"id": model.id, "name": model.id, "poolId": "local"}
    assert push.server.get(model.internal).json() == shown
    path = "/integration/api/pools/local/data-models"
    assert shown in push.server.get(path).json()
    assert len(push.server.get(path, params={"limit": 1}).json()) == 1
    assert shown in push.server.get(path, params={"limit": 10_000}).json()
    assert push.server.get("/integration/api/pools/other/data-models").json() == []
    tables = push.server.get(f"/integration/api/pools/local/data-model/{model.id}/tables").json()
    assert tables == push.server.get(f"{model.public}/tables").json()
    about = {"dataModelId": model.id, "dataSourceId": None, "primaryKeys": []}
    about["useDirectStorage"] = False
    assert tables == [
        about
        | {
            "id": "c",
            "name": table,
            "alias": "Cases",
            "aliasOrName": "Cases",
            "columns": [
                {"name": "a", "type": "STRING", "primaryKey": False},
                {"name": "b", "type": "FLOAT", "primaryKey": False},
            ],
        },
        about
        | {
            "id": "no_such_table",
            "name": "no_such_table",
            "alias": None,
            "aliasOrName": "no_such_table",
            "columns": [],
        },
    ]


def test_the_last_load(push: Push, table: str) -> None:
    push.load(table, {"id": [1]})
    model = Model(push.server, (table,))
    assert push.server.get(f"{model.public}/last-load").json() == {}
    loaded = model.load()
    assert push.server.get(f"{model.public}/last-load").json() == loaded


def test_all_fields_of_the_load_status(push: Push, table: str) -> None:
    push.load(table, {"id": [1, 2]})
    model = Model(push.server, ({"name": table, "id": "a"},))
    loaded = model.load()
    info = model.info()
    live = info["loadInfo"]["liveDataModel"]
    assert live == live | {
        "dataModelId": model.id,
        "dataModelName": model.id,
        "done": True,
        "error": False,
        "tablesLoaded": True,
        "errorMessage": None,
        "lastLoad": loaded["endDate"],
        "numTables": 1,
        "startTime": loaded["startDate"],
        "endTime": loaded["endDate"],
        "response": None,
        "dataLoadId": loaded["dataLoadId"],
    }
    table_load = {"tableId": "a", "tableName": table, "tableRowCount": 2}
    assert live["tableLoads"] == [table_load | {"done": True, "invisible": False, "cancel": False}]
    assert set(loaded) == {
        *("dataLoadId", "dataModelId", "startDate", "endDate", "loadStatus", "message"),
        *("loadType", "dataPoolVersion"),
    }
    (average,) = info["loadHistory"]["averageLoadTime"]
    taken = loaded["endDate"] - loaded["startDate"]
    assert average == {"type": "COMPLETE", "averageLoadingTime": taken}


@pytest.mark.parametrize("pool", ["local", "nowhere"])
def test_unknown_models(shared_server: Server, pool: str) -> None:
    internal = f"/integration/api/pools/{pool}"
    public = f"/integration/api/v1/data-pools/{pool}/data-models/none"
    gets = [
        f"{internal}/data-models/none",
        f"{internal}/data-model/none/tables",
        f"{internal}/data-models/none/load-history/load-info-sync",
        f"{public}/tables",
        f"{public}/last-load",
    ]
    for path in gets:
        assert shared_server.get(path).status_code == 404
    posts = {f"{internal}/data-models/none/reload": None, f"{public}/load": None}
    for path, body in (posts | {f"{public}/load/partial-sync": []}).items():
        assert shared_server.post(path, json=body).status_code == 404


def test_a_model_belongs_to_its_pool(push: Push, table: str) -> None:
    model = Model(push.server, (table,))
    path = model.internal.replace("/local/", "/other/")
    assert push.server.get(path).status_code == 404


def test_models_survive_a_restart(start_server: StartServer) -> None:
    push = Push(start_server())
    push.load("t", {"id": [1]})
    model = Model(push.server, ({"name": "t", "id": "a", "alias": "T2"},))
    model.load()
    before = model.info()
    assert push.server.stop() == 0
    model.server = start_server(database=push.server.database)
    assert model.info() == before
    assert model.rows("T2") == [["1"]]
    model.load("PARTIAL", "a")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_load_that_the_server_did_not_survive(start_server: StartServer, how: str) -> None:
    push = Push(start_server())
    push.load("t", {"id": [1]})
    model = Model(push.server, ("t",))
    model.load()
    assert push.server.stop() == 0
    model.server = start_server("--model-load-seconds", "60", database=push.server.database)
    assert model.trigger().status_code == 200
    if how == "stop":
        assert model.server.stop() == 0
    else:
        model.server.process.kill()
        model.server.process.wait(10)
    model.server = start_server(database=push.server.database)
    ended = model.ended()
    assert ended["loadStatus"] == "ERROR"
    assert "stopped" in ended["message"]
    assert model.counts() == {"t": 1}
    model.load()


def test_a_kill_in_mid_copy_leaves_whole_copies(start_server: StartServer) -> None:
    push = Push(start_server())
    push.load("t", {"id": range(10)})
    push.load("u", {"id": range(10)})
    model = Model(push.server, ("t", "u"))
    model.load()
    many = pa.table({"id": pa.array(range(2_000_000), pa.int64())})
    for name in ("t", "u"):
        push.load(name, many)
    assert model.trigger().status_code == 200
    push.server.process.kill()
    push.server.process.wait(10)
    model.server = start_server(database=push.server.database)
    counts = [int(model.rows(name, "count(*)")[0][0]) for name in ("t", "u")]
    # Either it was just through, or nothing of it is seen.
    assert (model.ended()["loadStatus"], counts) in [
        ("ERROR", [10, 10]),
        ("SUCCESS", [2_000_000, 2_000_000]),
    ]


def test_the_copies_are_shown(start_server: StartServer, command: Command) -> None:
    push = Push(start_server())
    push.load("t", {"id": [1, 2]})
    model = Model(push.server, ({"name": "t", "alias": "Shown"},), id="m")
    model.load()
    described = push.server.described("Shown")
    assert described is not None
    assert (described["model_id"], described["rows"]) == ("m", 2)
    push.server.stop()
    shown = command("tables", "--database", str(push.server.database)).stdout
    assert "(model m)" in shown
    assert "local / (model m) / Shown" in shown
