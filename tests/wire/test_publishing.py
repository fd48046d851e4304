"""Data jobs and data models on the wire: paths, shapes of answers, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from target_celonis.errors import AccessError, OutcomeUnknownError, RemoteError
from target_celonis.publishing_api import DataJob, DataModel, LoadInfo, ModelTable, Publishing

from .conftest import POOL
from .server import Reply, WireServer

if TYPE_CHECKING:
    from target_celonis.http import Http

INTERNAL = f"/integration/api/pools/{POOL}"
PUBLIC = f"/integration/api/{{}}/data-pools/{POOL}"
JOB = {
    "id": "j",
    "name": "Nightly",
    "status": "SUCCESS",
    "currentExecutionId": "e1",
    "latestExecutionItemId": "i1",
}


@pytest.fixture
def api(http: Http) -> Publishing:
    return Publishing(http, POOL)


def answer(wire: WireServer, *bodies: Any) -> None:
    """Answer the next requests, which are of a kind that the server does not know."""
    wire.answer("other", *[b if isinstance(b, Reply) else Reply(200, b) for b in bodies])


def asked(wire: WireServer) -> list[str]:
    return [f"{request.method} {request.target}" for request in wire.seen]


def test_a_data_job(wire: WireServer, api: Publishing) -> None:
    answer(wire, JOB)
    assert api.get_data_job("j") == DataJob("j", "Nightly", "SUCCESS", "e1", ("i1", "e1", None))
    assert asked(wire) == [f"GET {INTERNAL}/jobs/j"]


@pytest.mark.parametrize(
    ("shown", "listed", "wanted"),
    [
        (
            {},
            [{"id": "i"}, {"id": "j", "status": "FAIL", "lastExecutionStartDate": 7}],
            DataJob("j", "j", "FAIL", None, (None, None, "7")),
        ),
        ({"status": "SUCCESS"}, [], DataJob("j", "j", "SUCCESS", None, (None, None, None))),
        ({"name": "N"}, [{"id": "other"}], DataJob("j", "N", None, None, (None, None, None))),
        ({}, Reply(403), DataJob("j", "j", None, None, (None, None, None))),
        ({}, {"no": "list"}, DataJob("j", "j", None, None, (None, None, None))),
    ],
)
def test_the_list_of_statuses_where_the_job_says_too_little(
    wire: WireServer, api: Publishing, shown: Any, listed: Any, wanted: DataJob
) -> None:
    answer(wire, shown, listed)
    assert api.get_data_job("j") == wanted
    assert asked(wire)[1] == f"GET {INTERNAL}/logs/status"


def test_executing(wire: WireServer, api: Publishing) -> None:
    answer(wire, b"", Reply(409))
    assert api.execute_data_job("j/1", "FULL").ok
    assert api.execute_data_job("j", "DELTA").status == 409
    assert asked(wire) == [
        f"POST {PUBLIC.format('v2')}/data-jobs/j%2F1/execute?mode=FULL",
        f"POST {PUBLIC.format('v2')}/data-jobs/j/execute?mode=DELTA",
    ]
    assert {request.body for request in wire.seen} == {b""}
    wire.seen.clear()
    answer(wire, Reply(504))
    with pytest.raises(OutcomeUnknownError):
        api.execute_data_job("j", "FULL")
    assert len(wire.seen) == 1


def test_why_a_data_job_failed(wire: WireServer, api: Publishing) -> None:
    tasks = [
        {"taskId": "t1", "status": "SUCCESS", "name": "First"},
        {"taskId": "t2", "status": "FAIL", "name": "Second"},
        {"taskId": "t3", "status": "FAIL", "name": "Third"},
        {"taskId": "t4", "status": "SKIPPED", "name": "Fourth"},
    ]
    answer(
        wire,
        tasks,
        {"logMessages": [{"logMessage": "line 1\n  no such table"}, {"logMessage": "more"}]},
        {"logMessages": []},
    )
    job = DataJob("j", "Nightly", "FAIL", "e1", ())
    assert api.reasons(job) == ["Second: line 1 no such table"]
    wire.seen.clear()
    answer(wire, {"executionItems": [{"executionId": "e2"}]}, [])
    assert api.reasons(DataJob("j", "Nightly", "FAIL", None, ())) == []
    assert [request.query.get("executionId") for request in wire.seen] == [None, "e2"]


@pytest.mark.parametrize("odd", [Reply(403), Reply(200, b"<html>"), {"a": 1}, [1], None])
def test_reasons_that_cannot_be_read(wire: WireServer, api: Publishing, odd: Any) -> None:
    """That the data job failed is known already, and is what is to be said."""
    for execution in ("e1", None):
        answer(wire, odd)
        assert api.reasons(DataJob("j", "Nightly", "FAIL", execution, ())) == []


def test_a_data_model(wire: WireServer, api: Publishing) -> None:
    tables = [
        {"id": "1", "name": "A", "dataSourceId": None, "alias": None, "aliasOrName": "A"},
        {"id": "2", "name": "B", "dataSourceId": "erp", "alias": "Bee"},
    ]
    answer(wire, {"id": "m", "name": "Model"}, tables)
    assert api.get_model("m") == DataModel(
        "m", "Model", (ModelTable("1", "A", None), ModelTable("2", "B", "erp", "Bee"))
    )
    assert asked(wire) == [
        f"GET {INTERNAL}/data-models/m",
        f"GET {PUBLIC.format('v1')}/data-models/m/tables",
    ]


def info(current: Any = None, live: Any = None, last: Any = None) -> dict[str, Any]:
    return {
        "loadInfo": {"currentComputeLoad": current, "liveDataModel": live},
        "loadHistory": {"lastSuccessfulDataModel": last},
    }


GOOD = {"dataLoadId": "l1", "startDate": 5, "loadStatus": "WARNING", "message": "M"}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, LoadInfo(None, "", (None, None), was_loaded=False)),
        ({"loadInfo": None}, LoadInfo(None, "", (None, None), was_loaded=False)),
        (info(), LoadInfo(None, "", (None, None), was_loaded=False)),
        (info(GOOD), LoadInfo("WARNING", "M", ("l1", "5"), was_loaded=True)),
        (
            info({"loadStatus": "ERROR"}, last={"done": True}),
            LoadInfo("ERROR", "", (None, None), was_loaded=True),
        ),
        (
            info(None, {"tableLoads": [{"tableId": "1", "tableRowCount": 7}, {"tableId": "2"}]}),
            LoadInfo(None, "", (None, None), was_loaded=True, rows={"1": 7}),
        ),
    ],
)
def test_how_loads_stand(
    wire: WireServer, api: Publishing, body: dict[str, Any], wanted: LoadInfo
) -> None:
    answer(wire, body)
    assert api.load_info("m") == wanted
    assert asked(wire) == [f"GET {INTERNAL}/data-models/m/load-history/load-info-sync"]


def test_loading(wire: WireServer, api: Publishing) -> None:
    answer(wire, b"", b"", Reply(409))
    assert api.load_model("m", None).ok
    assert api.load_model("m", ("1", "2")).ok
    assert api.load_model("m", ()).status == 409
    path = f"POST {PUBLIC.format('v1')}/data-models/m/load"
    assert asked(wire) == [path, f"{path}/partial-sync", f"{path}/partial-sync"]
    assert wire.seen[0].body == b""
    assert [request.json for request in wire.seen[1:]] == [["1", "2"], []]


@pytest.mark.parametrize("status", [403, 404])
def test_refusals_name_what_is_missing(wire: WireServer, api: Publishing, status: int) -> None:
    of_jobs = (lambda: api.get_data_job("x"), lambda: api.execute_data_job("x", "FULL"))
    of_models = (
        lambda: api.get_model("x"),
        lambda: api.load_info("x"),
        lambda: api.load_model("x", None),
        lambda: api.load_model("x", ("1",)),
    )
    for calls, code, hints in (
        (of_jobs, "TC-ACCESS-05", ("manage data jobs", "`data_jobs`")),
        (of_models, "TC-ACCESS-06", ("permission Edit", "`data_models`")),
    ):
        for call in calls:
            answer(wire, Reply(status, {"message": "No."}))
            with pytest.raises(AccessError) as caught:
                call()
            assert caught.value.code == code
            assert hints[status == 404] in str(caught.value)
            assert ("integration.data-pools" in str(caught.value)) == (status == 403)
            assert "x" in caught.value.message


@pytest.mark.parametrize("body", [b"<html>", [], "text", 7])
def test_answers_that_are_none(wire: WireServer, api: Publishing, body: Any) -> None:
    for call in (api.get_data_job, api.get_model, api.load_info):
        answer(wire, body)
        with pytest.raises(RemoteError, match="TC-REMOTE-05"):
            call("x")


def test_any_other_refusal(wire: WireServer, api: Publishing) -> None:
    answer(wire, Reply(400, {"message": "Not so."}))
    with pytest.raises(RemoteError, match=r"refused to load the data model m .*Not so"):
        api.load_model("m", None)
