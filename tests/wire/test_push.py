"""A push job's life: what is sent, in which order, what is waited for, and what is left behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from target_celonis import limits
from target_celonis.celonis import JobType
from target_celonis.clock import FakeClock, StoppedError, SystemClock
from target_celonis.errors import (
    AccessError,
    ContractError,
    LimitError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.journal import read_account
from target_celonis.pusher import FailedPush, GivenUp, Pusher
from target_celonis.route import Receipt

from .conftest import KEY, POOL
from .pushing import COLUMNS, MakeConfig, Pushing, StoppingClock, failure, row, status
from .server import Reply, Seen, WireServer, parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.http import Http


@pytest.fixture
def pushing(http: Http, clock: FakeClock, config: MakeConfig, tmp_path: Path) -> Pushing:
    return Pushing(http, clock, config, tmp_path)


# --- what is sent


def test_the_whole_life_of_a_job(wire: WireServer, pushing: Pushing, http: Http) -> None:
    receipt = pushing.run(pushing.task([row(1), row(2)], [row(3)]))
    assert wire.kinds() == [
        *("tables", "list", "list", "create", "upload", "upload", "execute", "show", "delete"),
    ]
    assert (receipt.job_ids, receipt.loaded_rows, receipt.chunks) == (("job-1",), 3, 2)
    assert receipt.length_verified
    jobs = f"/data-ingestion/api/v1/data-push/{POOL}/jobs/"
    assert [request.path for request in wire.seen] == [
        f"/integration/api/pools/{POOL}/tables",
        *[jobs] * 3,
        *[f"{jobs}job-1/chunks/upserted"] * 2,
        *[f"{jobs}job-1"] * 3,
    ]
    execute = wire.of("execute")[0]
    assert (execute.body, execute.query) == (b"", {})
    for request in wire.seen:
        assert request.headers["authorization"] == f"AppKey {KEY}"
        assert KEY not in request.target
        assert KEY.encode() not in request.body
    assert http.base_url == wire.url


def test_the_body_of_create(wire: WireServer, pushing: Pushing) -> None:
    pushing.run(pushing.task([row(1, "x" * 200)]))
    (create,) = wire.of("create")
    assert create.json == {
        "targetName": "orders",
        "dataPoolId": POOL,
        "type": "DELTA",
        "fileType": "PARQUET",
        "keys": ["id"],
        "tableSchema": {
            "tableName": "orders",
            "columns": [
                {"columnName": "id", "columnType": "INTEGER", "pkField": True},
                {
                    "columnName": "text",
                    "columnType": "STRING",
                    "fieldLength": 1000,
                    "pkField": False,
                },
                {
                    "columnName": "more",
                    "columnType": "STRING",
                    "fieldLength": 1000,
                    "pkField": False,
                },
                {"columnName": "amount", "columnType": "FLOAT", "pkField": False},
                {"columnName": "flag", "columnType": "BOOLEAN", "pkField": False},
                {"columnName": "day", "columnType": "DATE", "pkField": False},
                {"columnName": "at", "columnType": "DATETIME", "pkField": False},
                {
                    "columnName": "tree",
                    "columnType": "STRING",
                    "fieldLength": 255,
                    "pkField": False,
                },
            ],
        },
    }


def test_appending_has_no_keys(wire: WireServer, pushing: Pushing) -> None:
    pushing.run(pushing.task(keys=()))
    body = wire.of("create")[0].json
    assert body["type"] == "DELTA"
    assert "keys" not in body
    assert not any(column["pkField"] for column in body["tableSchema"]["columns"])


def test_replacing_looks_at_no_column_and_has_no_keys(wire: WireServer, pushing: Pushing) -> None:
    wire.tables = [{"name": "orders", "dataSourceId": None}]
    pushing.run(pushing.task(job_type=JobType.REPLACE))
    body = wire.of("create")[0].json
    assert body["type"] == "REPLACE"
    assert "keys" not in body
    assert "upsertStrategy" not in body
    assert wire.of("columns") == []


def test_a_connection_is_named_everywhere(wire: WireServer, pushing: Pushing) -> None:
    wire.tables = [
        {"name": "ORDERS", "dataSourceId": "conn-1"},
        {"name": "orders", "dataSourceId": None},
    ]
    wire.columns = {"ORDERS": COLUMNS}
    pushing.run(pushing.task(), pushing.route("conn-1"))
    assert wire.of("create")[0].json["connectionId"] == "conn-1"
    (listing,) = wire.of("columns")
    assert listing.query == {"tableName": "ORDERS", "schemaName": "conn-1"}


def test_the_global_schema_has_no_schema_name(wire: WireServer, pushing: Pushing) -> None:
    wire.tables = [{"name": "orders", "dataSourceId": "conn-1"}]
    pushing.run(pushing.task())
    assert wire.of("columns") == []  # the table of a connection is another one
    wire.tables = [{"name": "Orders", "dataSourceId": None}]
    wire.columns = {"Orders": COLUMNS}
    pushing.run(pushing.task())
    assert wire.of("columns")[0].query == {"tableName": "Orders"}
    assert "connectionId" not in wire.of("create")[1].json


def test_chunks_arrive_as_they_lay_on_disk(
    wire: WireServer, pushing: Pushing, tmp_path: Path
) -> None:
    task = pushing.task([row(1)], [row(2, "ü" * 50)])
    contents = [chunk.path.read_bytes() for chunk in task.chunks]
    pushing.run(task)
    uploads = wire.of("upload")
    assert [bytes(parts(request)[0].content) for request in uploads] == contents
    for number, content in enumerate(contents):
        (path := tmp_path / f"got-{number}").write_bytes(content)
        assert pq.read_table(path).column("id").to_pylist() == [number + 1]
    assert all(chunk.path.exists() for chunk in task.chunks)  # they may be wanted again
    task.discard()
    assert not any(chunk.path.exists() for chunk in task.chunks)
    assert not task.directory.exists()


def test_a_key_occurs_once_over_all_chunks(
    wire: WireServer, pushing: Pushing, tmp_path: Path
) -> None:
    task = pushing.task([row(1, "old"), row(2, "two")], [row(1, "new"), row(3, "three")])
    receipt = pushing.run(task)
    assert (receipt.loaded_rows, receipt.superseded_rows) == (3, 1)
    found: dict[int, str] = {}
    for number, request in enumerate(wire.of("upload")):
        (path := tmp_path / f"got-{number}").write_bytes(bytes(parts(request)[0].content))
        for uploaded in pq.read_table(path).to_pylist():
            assert uploaded["id"] not in found
            found[uploaded["id"]] = uploaded["text"]
    assert found == {1: "new", 2: "two", 3: "three"}


# --- the table that is there


def there(wire: WireServer, *changed: dict[str, Any], without: Sequence[str] = ()) -> None:
    """Put the table into the pool, with some columns changed or left out."""
    changes = {column["name"].casefold(): column for column in changed}
    wire.tables = [{"name": "orders", "dataSourceId": None}]
    wire.columns = {
        "orders": [
            changes.get(column["name"].casefold(), column)
            for column in COLUMNS
            if column["name"] not in without
        ]
    }


def test_lengths_of_the_table_are_sent_back(wire: WireServer, pushing: Pushing) -> None:
    there(wire, {"name": "more", "type": "STRING", "length": 65_000})
    receipt = pushing.run(pushing.task([row(1, "x" * 255)]))
    columns = wire.of("create")[0].json["tableSchema"]["columns"]
    lengths = {c["columnName"]: c["fieldLength"] for c in columns if "fieldLength" in c}
    assert lengths == {"text": 255, "more": 16_250, "tree": 255}
    assert receipt.length_verified


def test_a_column_that_is_too_narrow_stops_before_anything_is_sent(
    wire: WireServer, pushing: Pushing
) -> None:
    there(wire)
    error = failure(lambda: pushing.run(pushing.task([row(1, "x" * 256)])))
    assert (type(error), error.code) == (ContractError, "TC-CONTRACT-03")
    for named in ("`text`", "`orders`", "255", "256", "overwrite"):
        assert named in str(error)
    assert wire.counts() == {"tables": 1, "list": 1, "columns": 1}


def test_length_is_in_characters_not_in_bytes(wire: WireServer, pushing: Pushing) -> None:
    there(wire)
    pushing.run(pushing.task([row(1, "\U0001f600" * 255)]))
    assert failure(lambda: pushing.run(pushing.task([row(1, "\U0001f600" * 256)]))).exit_code == 5


@pytest.mark.parametrize(
    ("column", "listed"), [("id", "DATE"), ("text", "INTEGER"), ("amount", "INTEGER")]
)
def test_a_changed_type_stops_before_anything_is_sent(
    wire: WireServer, pushing: Pushing, column: str, listed: str
) -> None:
    there(wire, {"name": column, "type": listed, "length": None})
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code) == (ContractError, "TC-CONTRACT-04")
    assert f"`{column}`" in str(error)
    assert listed in str(error)
    assert wire.counts() == {"tables": 1, "list": 1, "columns": 1}


def test_new_columns_are_read_again_after_done(wire: WireServer, pushing: Pushing) -> None:
    there(wire, without=["amount"])
    wire.answer("columns", Reply(200, wire.columns["orders"]))
    wire.columns["orders"] = COLUMNS
    pushing.run(pushing.task())
    body = wire.of("create")[0].json
    assert body["upsertStrategy"] == "UPSERT_WITH_NULLIFICATION"
    order = wire.kinds()
    assert order.count("columns") == 2
    last = len(order) - 1 - order[::-1].index("columns")
    assert last > order.index("show")


def test_a_new_column_that_does_not_come_stops_the_run(wire: WireServer, pushing: Pushing) -> None:
    there(wire, without=["amount"])
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code) == (ContractError, "TC-CONTRACT-06")
    assert "`amount`" in str(error)


def test_without_new_columns_no_strategy_is_named(wire: WireServer, pushing: Pushing) -> None:
    there(wire)
    pushing.run(pushing.task())
    assert "upsertStrategy" not in wire.of("create")[0].json
    assert len(wire.of("columns")) == 1


@pytest.mark.parametrize("kind", ["tables", "columns"])
def test_without_permission_to_list_it_is_pushed_and_said_once(
    wire: WireServer, pushing: Pushing, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    there(wire)
    wire.answer(kind, *[Reply(403)] * 2)
    route = pushing.route()
    for _ in range(2):
        assert not pushing.run(pushing.task(), route).length_verified
    said = [r for r in caplog.records if "may not list" in r.getMessage()]
    assert len(said) == 1
    assert said[0].levelname == "WARNING"


@pytest.mark.parametrize(
    ("present", "made"), [(False, "REPLACE"), (True, "DELTA")], ids=["missing", "there"]
)
def test_a_missing_table_can_be_made_by_a_replace(
    wire: WireServer, pushing: Pushing, made: str, *, present: bool
) -> None:
    if present:
        there(wire)
    pushing.run(pushing.task(), pushing.route(create_missing_table="replace"))
    body = wire.of("create")[0].json
    assert body["type"] == made
    assert ("keys" in body) == (made == "DELTA")


@pytest.mark.parametrize("kind", ["tables", "columns"])
@pytest.mark.parametrize("body", [{}, [1], "x", None])
def test_listings_of_another_form(
    wire: WireServer, pushing: Pushing, kind: str, body: object
) -> None:
    there(wire)
    wire.answer(kind, Reply(200, body))
    assert failure(lambda: pushing.run(pushing.task())).code == "TC-REMOTE-05"


# --- create and upload


@pytest.mark.parametrize("kind", ["create", "upload"])
@pytest.mark.parametrize(
    ("reply", "kind_of_error"),
    [
        (Reply(401), AccessError),
        (Reply(403), AccessError),
        (Reply(400, {"errors": [{"error": "bad name"}]}), RemoteError),
        (Reply(500, {"reference": "r", "message": "m"}), RemoteError),
    ],
)
def test_create_and_upload_that_are_refused_are_not_repeated(
    wire: WireServer, pushing: Pushing, kind: str, reply: Reply, kind_of_error: type[Exception]
) -> None:
    wire.answer(kind, reply)
    error = failure(lambda: pushing.run(pushing.task()))
    assert type(error) is kind_of_error
    assert len(wire.of(kind)) == 1
    assert wire.of("execute") == []
    assert len(wire.of("delete")) == (kind == "upload")


def test_create_and_upload_wait_after_429(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    wire.answer("create", Reply(429, headers=(("Retry-After", "2"),)))
    wire.answer("upload", Reply(429, headers=(("x-ratelimit-reset", "3"),)))
    pushing.run(pushing.task())
    assert clock.waits[:2] == [2.0, 3.0]
    first, second = wire.of("upload")
    assert first.body == second.body
    assert wire.counts()["execute"] == 1


# --- execute


def test_409_asks_waits_and_submits_the_same_job(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    wire.answer("execute", *[Reply(409, {"message": "busy"})] * 12)
    wire.answer("show", *[status("NEW")] * 12)
    pushing.run(pushing.task())
    assert wire.counts()["create"] == 1
    assert wire.counts()["upload"] == 1
    assert {request.path.rsplit("/", 1)[-1] for request in wire.of("execute")} == {"job-1"}
    assert len(wire.of("execute")) == 13
    pauses = [wait for wait in clock.waits if wait > 0.2]
    assert len(pauses) == 12
    assert max(pauses) <= limits.CONFLICT_WAIT_SECONDS * 1.2
    assert pauses[-1] > pauses[0] > 0.5


@pytest.mark.parametrize("now", ["QUEUED", "RUNNING", "DONE"])
def test_409_on_a_job_that_runs_already(wire: WireServer, pushing: Pushing, now: str) -> None:
    wire.answer("execute", Reply(409))
    wire.answer("show", status(now), status("RUNNING"))
    pushing.run(pushing.task())
    assert wire.counts()["execute"] == 1


def test_429_waits_as_told_then_shortly_then_for_the_hour(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    clock.seconds = 3600.0 * 400_000 + 1800
    wire.answer("execute", Reply(429, headers=(("x-ratelimit-reset", "33"),)), Reply(429))
    pushing.run(pushing.task())
    assert [wait for wait in clock.waits if wait > 0.2] == [33.0, 2.0]
    clock.waits.clear()
    wire.answer("execute", *[Reply(429)] * 4)
    pushing.run(pushing.task(table="other"))
    pauses = [wait for wait in clock.waits if wait > 0.2]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert max(pauses[3:]) <= 60  # in between it is asked whether there is any use in it
    assert 1700 < sum(pauses[3:]) < 1802
    assert wire.counts()["create"] == 2


def test_a_wait_for_the_next_submit_is_said(
    wire: WireServer, pushing: Pushing, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answer("execute", Reply(429, headers=(("Retry-After", "33"),)))
    pushing.run(pushing.task())
    (said,) = [r.getMessage() for r in caplog.records if "(429)" in r.getMessage()]
    for named in ("orders", "job-1", "33"):
        assert named in said


@pytest.mark.parametrize(
    ("reply", "pause"),
    [(Reply(429, headers=(("Retry-After", "600"),)), 600), (Reply(409), 36)],
    ids=["429", "409"],
)
def test_execute_has_a_deadline(
    wire: WireServer, pushing: Pushing, clock: FakeClock, reply: Reply, pause: float
) -> None:
    wire.answer("execute", *[reply] * 99)
    wire.answer("show", *[status("NEW")] * 99)
    started = clock.seconds
    route = pushing.route(wait_timeout_minutes=5)
    error = failure(lambda: pushing.run(pushing.task(), route))
    assert (type(error), error.code, error.exit_code) == (LimitError, "TC-LIMIT-08", 7)
    assert "job-1" in str(error)
    assert "wait_timeout_minutes" in str(error)
    assert 300 <= clock.seconds - started <= 300 + pause + 1  # one pause may go beyond
    assert wire.kinds()[-1] == "delete"  # it was never carried out


def test_submits_keep_their_distance(wire: WireServer, pushing: Pushing, clock: FakeClock) -> None:
    started = clock.seconds
    route = pushing.route()
    for number in range(11):
        pushing.run(pushing.task(table=f"t{number}"), route)
    assert wire.counts()["execute"] == 11
    assert clock.seconds - started >= 10 / limits.SUBMITS_PER_SECOND - 0.001


@pytest.mark.parametrize(
    ("reply", "kind_of_error", "exit_code"),
    [
        (Reply(400, {"errors": [{"error": "not now"}]}), RemoteError, 6),
        (Reply(401), AccessError, 3),
        (Reply(403), AccessError, 3),
        (Reply(404), RemoteError, 6),
        (Reply(500, {"reference": "ref-9", "message": "broken"}), RemoteError, 6),
    ],
)
def test_a_refused_execute_leaves_no_job_behind(
    wire: WireServer,
    pushing: Pushing,
    reply: Reply,
    kind_of_error: type[TargetCelonisError],
    exit_code: int,
) -> None:
    wire.answer("execute", reply)
    wire.answer("show", status("NEW"))
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.exit_code) == (kind_of_error, exit_code)
    assert len(wire.of("execute")) == 1
    assert wire.kinds()[-1] == "delete"


# --- waiting for the end


def test_polls_grow(wire: WireServer, pushing: Pushing, clock: FakeClock) -> None:
    wire.answer("show", status("NEW"), status("QUEUED"), *[status("RUNNING")] * 20)
    pushing.run(pushing.task())
    polls = clock.waits[-22:]
    assert polls == sorted(polls)
    assert polls[0] == limits.POLL_FIRST_SECONDS
    assert polls[-1] == limits.POLL_LONGEST_SECONDS


def test_an_unknown_status_is_said_once_and_waited_on(
    wire: WireServer, pushing: Pushing, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answer("show", *[status("THINKING")] * 3, status("RUNNING"), status("None"))
    pushing.run(pushing.task())
    said = [r.getMessage() for r in caplog.records if "THINKING" in r.getMessage()]
    assert len(said) == 1
    assert "job-1" in said[0]


@pytest.mark.parametrize("end", ["ERROR", "CANCELED"])
def test_a_job_that_ends_badly(wire: WireServer, pushing: Pushing, end: str) -> None:
    wire.answer("show", status("RUNNING"), status(end, "first line\n", "second line"))
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code, error.exit_code) == (RemoteError, "TC-REMOTE-04", 6)
    for named in (end, "job-1", "orders", "first line second line", "not known"):
        assert named in str(error)
    assert wire.kinds()[-2:] == ["show", "delete"]  # its logs were read before
    assert len(wire.of("execute")) == 1


def test_a_bad_end_without_logs(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("show", Reply(200, {"id": "job-1", "status": "ERROR", "logs": None}))
    assert "nothing" in str(failure(lambda: pushing.run(pushing.task())))


def test_a_job_that_does_not_end(wire: WireServer, pushing: Pushing, clock: FakeClock) -> None:
    wire.answer("show", *[status("RUNNING")] * 500)
    started = clock.seconds
    route = pushing.route(wait_timeout_minutes=10)
    error = failure(lambda: pushing.run(pushing.task(), route))
    assert (type(error), error.exit_code) == (LimitError, 7)
    for named in ("job-1", "orders", "RUNNING", "10 minutes", "wait_timeout_minutes"):
        assert named in str(error)
    assert 600 <= clock.seconds - started <= 630
    assert wire.of("delete") == []  # it goes on by itself


def test_looks_that_fail_are_repeated(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("show", Reply(drop="read"), Reply(503), status("RUNNING"), Reply(429))
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert wire.counts()["execute"] == 1


@pytest.mark.parametrize("reply", [Reply(500), Reply(403), Reply(409)])
def test_a_done_job_that_cannot_be_deleted_is_no_failure(
    wire: WireServer, pushing: Pushing, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answer("delete", reply)
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert "job-1" in [r for r in caplog.records if r.levelname == "WARNING"][-1].getMessage()


def test_a_job_that_is_gone_already_counts_as_deleted(
    wire: WireServer, pushing: Pushing, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answer("delete", Reply(503), Reply(404))
    pushing.run(pushing.task())
    assert len(wire.of("delete")) == 2
    assert not [r for r in caplog.records if "could not be deleted" in r.getMessage()]


# --- a signal


@pytest.fixture
def clock() -> FakeClock:
    return StoppingClock()


def stop_after(clock: FakeClock, waits: int) -> None:
    assert isinstance(clock, StoppingClock)
    clock.after = waits


def test_a_signal_before_execute_deletes_the_job(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    stop_after(clock, 0)
    with pytest.raises(StoppedError):
        pushing.run(pushing.task())
    assert wire.of("execute") == []
    assert wire.kinds()[-1] == "delete"


def test_a_signal_between_two_tries_of_execute_deletes_the_job(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    stop_after(clock, 2)
    wire.answer("execute", *[Reply(429)] * 9)
    with pytest.raises(StoppedError):
        pushing.run(pushing.task())
    assert wire.kinds()[-1] == "delete"


def test_a_signal_waits_for_a_job_that_runs(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    stop_after(clock, 3)
    wire.answer("show", *[status("RUNNING")] * 12)
    receipt = pushing.run(pushing.task(), pushing.route(signal_grace_seconds=20))
    assert receipt.loaded_rows == 1
    assert wire.kinds()[-1] == "delete"


@pytest.mark.parametrize("grace", [0, 5])
def test_a_signal_leaves_a_job_running_and_names_it(
    wire: WireServer,
    pushing: Pushing,
    clock: FakeClock,
    grace: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop_after(clock, 3)
    wire.answer("show", *[status("RUNNING")] * 99)
    with pytest.raises(StoppedError):
        pushing.run(pushing.task(), pushing.route(signal_grace_seconds=grace))
    assert wire.of("delete") == []
    assert not [request for request in wire.seen if "cancel" in request.path]
    said = [r.getMessage() for r in caplog.records if "left running" in r.getMessage()]
    assert len(said) == 1
    assert "job-1" in said[0]
    assert sum(clock.waits[4:]) <= grace + 0.01


# --- many tables


def finish(pusher: Pusher) -> tuple[list[Receipt], list[FailedPush]]:
    pusher.wait(30)
    pusher.close()
    outcomes = pusher.outcomes()
    return (
        [outcome for outcome in outcomes if isinstance(outcome, Receipt)],
        [outcome for outcome in outcomes if isinstance(outcome, FailedPush)],
    )


def tables_of(outcomes: Sequence[Receipt | FailedPush]) -> list[str]:
    return sorted(outcome.task.plan.table for outcome in outcomes)


def job_of(request: Seen) -> str:
    return request.path.split("/jobs/")[1].split("/")[0]


def test_at_most_four_pushes_go_side_by_side(wire: WireServer, pushing: Pushing) -> None:
    under_way: set[str] = set()
    most = [0]
    submitting: list[str] = []

    def watch(request: Seen) -> None:
        if request.kind == "execute":
            submitting.append(job_of(request))
            under_way.add(job_of(request))
            most[0] = max(most[0], len(under_way))
        elif request.kind == "delete":
            under_way.discard(job_of(request))

    wire.watch = watch
    pusher = Pusher(pushing.route(), 8)
    pusher.start([pushing.task([row(1)], [row(2)], table=f"t{n}") for n in range(8)])
    receipts, failed = finish(pusher)
    pusher.raise_failure()
    assert tables_of(receipts) == [f"t{n}" for n in range(8)]
    assert failed == []
    assert most[0] <= 4
    uploads: Counter[str] = Counter()
    for request in wire.seen:
        if request.kind == "upload":
            uploads[job_of(request)] += 1
        elif request.kind == "execute":
            assert uploads[job_of(request)] == 2  # all its chunks are there
    assert len(set(submitting)) == wire.counts()["delete"] == 8
    assert wire.counts()["tables"] == 1
    assert wire.counts()["list"] == 1 + 8  # once more before each create


def test_an_execute_waits_for_the_answer_to_the_one_before(
    wire: WireServer, pushing: Pushing
) -> None:
    in_flight = [0]
    most = [0]
    lock = threading.Lock()
    plain = wire.reply_to

    def reply_to(kind: str, *rest: Any) -> Reply:
        if kind == "execute":
            with lock:
                in_flight[0] += 1
                most[0] = max(most[0], in_flight[0])
            time.sleep(0.02)  # long enough for another to come, if one did
            with lock:
                in_flight[0] -= 1
        return plain(kind, *rest)

    wire.reply_to = reply_to  # type: ignore[method-assign]
    pusher = Pusher(pushing.route(), 4)
    pusher.start([pushing.task(table=f"t{n}") for n in range(8)])
    assert len(finish(pusher)[0]) == 8
    assert most == [1]


def test_a_push_that_fails_ends_no_other_one(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("show", status("ERROR", "no space"))
    pusher = Pusher(pushing.route(), 4)
    pusher.start([pushing.task(table=f"t{n}") for n in range(8)])
    receipts, failed = finish(pusher)
    pusher.raise_failure()
    assert len(receipts) == 7
    assert "no space" in str(failed[0].error)
    assert tables_of([*receipts, *failed]) == [f"t{n}" for n in range(8)]
    assert wire.counts()["create"] == wire.counts()["delete"] == wire.counts()["execute"] == 8


@pytest.mark.parametrize("kind", ["create", "upload", "execute"])
def test_a_request_that_is_refused_deletes_its_job_alone(
    wire: WireServer, pushing: Pushing, kind: str
) -> None:
    wire.answer(kind, Reply(413))
    pusher = Pusher(pushing.route(), 4)
    tasks = [pushing.task([row(1)], [row(2)], table=f"t{n}") for n in range(3)]
    pusher.start(tasks)
    receipts, failed = finish(pusher)
    pusher.raise_failure()
    assert (len(receipts), len(failed)) == (2, 1)
    assert wire.counts()["create"] == 3
    assert wire.counts()["delete"] == (2 if kind == "create" else 3)
    assert wire.counts()["execute"] == (3 if kind == "execute" else 2)
    assert not any(chunk.path.exists() for task in tasks for chunk in task.chunks)


@pytest.mark.parametrize("kind", ["tables", "list", "create", "upload", "execute"])
def test_after_a_failure_of_all_nothing_more_is_pushed(
    wire: WireServer, pushing: Pushing, kind: str
) -> None:
    wire.answer(kind, Reply(401))
    pusher = Pusher(pushing.route(), 2)
    pusher.start([pushing.task(table="first")])
    pusher.wait(30)
    seen = len(wire.seen)
    pusher.start([pushing.task(table="second")])
    receipts, failed = finish(pusher)
    with pytest.raises(AccessError, match="TC-ACCESS-01"):
        pusher.raise_failure()
    assert receipts == []
    assert tables_of(failed) == ([] if kind in ("tables", "list") else ["first"])
    assert len(wire.seen) == seen
    created = wire.counts()["create"] - (kind == "create")
    assert wire.counts()["delete"] == max(0, created)


@pytest.mark.parametrize("status_code", [409, 429])
def test_one_deadline_for_all_that_wait_for_the_team(
    wire: WireServer, pushing: Pushing, clock: FakeClock, status_code: int
) -> None:
    """Who is busy is the team, not a table: to wait as long again for each is of no use."""
    plain = wire.reply_to

    def reply_to(kind: str, *rest: Any) -> Reply:
        if kind == "execute":
            return Reply(status_code)
        return status("NEW") if kind == "show" else plain(kind, *rest)

    wire.reply_to = reply_to  # type: ignore[method-assign]
    started = clock.seconds
    pusher = Pusher(pushing.route(wait_timeout_minutes=120), 4)
    pusher.start([pushing.task(table=f"t{n}") for n in range(6)])
    receipts, failed = finish(pusher)
    with pytest.raises(LimitError, match="TC-LIMIT-08"):
        pusher.raise_failure()
    assert receipts == []
    assert {one.error.code for one in failed} == {"TC-LIMIT-08"}
    passed_hours = (clock.seconds - started) / 3600
    assert 2 <= passed_hours <= (2.1 if status_code == 409 else 3.1)
    assert len({job_of(request) for request in wire.of("execute")}) == 1
    assert wire.counts()["delete"] == wire.counts()["create"] <= 4


class HeldClock(FakeClock):
    """Tells when somebody waits for long, and lets nobody do so before it may."""

    def __init__(self) -> None:
        super().__init__(seconds=3600.0 * 400_000 + 60)
        self.waited_for = threading.Event()
        self.may = threading.Event()

    def wait(self, seconds: float) -> bool:
        if seconds > 30:
            self.waited_for.set()
            assert self.may.wait(20)
        return super().wait(seconds)


def test_a_failure_of_all_ends_a_wait_for_submits(
    wire: WireServer, http: Http, config: MakeConfig, tmp_path: Path
) -> None:
    clock = HeldClock()
    pushing = Pushing(http, clock, config, tmp_path)
    pushing.use_submits(1, 1)
    plain = wire.reply_to
    creates = itertools.count()

    def reply_to(kind: str, *rest: Any) -> Reply:
        if kind == "create" and next(creates):
            assert clock.waited_for.wait(20)  # the first one waits for the next hour
            return Reply(401)
        return plain(kind, *rest)

    wire.reply_to = reply_to  # type: ignore[method-assign]
    pusher = Pusher(pushing.route(submits_per_hour=1), 2)
    pusher.start([pushing.task(table=f"t{n}", keys=()) for n in range(2)])
    pause = threading.Event()
    for _ in range(2_000):
        try:
            pusher.raise_failure()
        except AccessError:
            break
        pause.wait(0.01)
    clock.may.set()
    receipts, failed = finish(pusher)
    assert receipts == []
    assert [one.error.code for one in failed] == ["TC-ACCESS-01"]
    assert wire.of("execute") == []
    assert [job_of(request) for request in wire.of("delete")] == ["job-1"]
    assert clock.seconds % 3600 <= 60 + 61  # it did not wait on for the hour


def test_who_closes_ends_a_wait_for_submits(
    wire: WireServer, http: Http, config: MakeConfig, tmp_path: Path
) -> None:
    """As when the input turns out to be bad: nobody waits an hour to be told."""
    clock = HeldClock()
    pushing = Pushing(http, clock, config, tmp_path)
    pushing.use_submits(1, 1)
    pusher = Pusher(pushing.route(submits_per_hour=1), 2)
    pusher.start([pushing.task(keys=())])
    assert clock.waited_for.wait(20)
    closing = threading.Thread(target=pusher.close)
    closing.start()
    for _ in range(5_000):
        if pushing.submits._is_ending:
            break
        threading.Event().wait(0.001)
    assert pushing.submits._is_ending
    clock.may.set()
    closing.join(30)
    assert wire.of("execute") == []
    assert [job_of(request) for request in wire.of("delete")] == ["job-1"]
    assert clock.seconds % 3600 <= 60 + 61


def test_nothing_is_appended_behind_an_append_that_failed(
    wire: WireServer, pushing: Pushing
) -> None:
    wire.answer("show", status("ERROR", "no space"))
    pusher = Pusher(pushing.route(), 4)
    pusher.start([pushing.task(table=f"t{n}", keys=()) for n in range(6)])
    pusher.wait(30)
    pusher.close()
    outcomes = pusher.outcomes()
    pusher.raise_failure()
    assert Counter(type(outcome) for outcome in outcomes) == {FailedPush: 1, GivenUp: 5}
    assert wire.counts()["execute"] == 1
    executed = job_of(wire.of("execute")[0])
    created = {f"job-{n + 1}" for n in range(6)}
    assert {job_of(request) for request in wire.of("delete")} == created | {executed}
    assert read_account(pushing.journal.path).unsettled == []


def test_after_the_first_409_ours_take_turns(
    wire: WireServer,
    http: Http,
    config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(limits, "POLL_FIRST_SECONDS", 0.005)
    pushing = Pushing(http, SystemClock(), config, tmp_path)
    jobs: dict[str, str] = {}
    looks: Counter[str] = Counter()
    refused = [0]
    lock = threading.Lock()
    plain = wire.reply_to

    def reply_to(kind: str, method: str, target: str, headers: dict[str, str]) -> Reply:
        job = target.rsplit("/", 1)[-1]
        with lock:
            if kind == "execute":
                if "RUNNING" in jobs.values():
                    refused[0] += 1
                    return Reply(409)
                jobs[job] = "RUNNING"
            elif kind == "show":
                looks[job] += 1
                if jobs.get(job) == "RUNNING" and looks[job] > 3 and refused[0]:
                    jobs[job] = "DONE"
                return Reply(200, {"id": job, "status": jobs.get(job, "NEW"), "logs": []})
        return plain(kind, method, target, headers)

    wire.reply_to = reply_to  # type: ignore[method-assign]
    pusher = Pusher(pushing.route(), 4)
    pusher.start([pushing.task(table=f"t{n}") for n in range(6)])
    receipts, failed = finish(pusher)
    pusher.raise_failure()
    assert (len(receipts), failed) == (6, [])
    assert refused[0] == 1  # from then on none was submitted before its turn
    assert wire.counts()["execute"] == 7
    assert len([r for r in caplog.records if "ours take turns" in r.getMessage()]) == 1
