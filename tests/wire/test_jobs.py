"""Calls whose answer is lost, refused or late: what is asked, what is repeated, what is left."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis import limits
from target_celonis.celonis import JobType
from target_celonis.clock import FakeClock, StoppedError
from target_celonis.errors import LimitError, OutcomeUnknownError, RemoteError
from target_celonis.journal import read_account

from .pushing import MakeConfig, Pushing, StoppingClock, failure, row, status
from .server import Reply, Seen, WireServer, parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.http import Http

LOST = [Reply(drop="read"), Reply(drop="half", body=b"{}"), Reply(502), Reply(504)]
NO_JOB = [{}, [], "x", None, {"id": 3}, {"status": "NEW"}, b"<html>", b"{"]


@pytest.fixture
def clock() -> FakeClock:
    return StoppingClock()


@pytest.fixture
def pushing(http: Http, clock: FakeClock, config: MakeConfig, tmp_path: Path) -> Pushing:
    return Pushing(http, clock, config, tmp_path)


def listed(job_id: str, state: str = "NEW", table: str = "orders", **more: Any) -> dict[str, Any]:
    job = {"id": job_id, "status": state, "targetName": table, "type": "DELTA"}
    return {**job, "connectionId": None, **more}


def deleted(wire: WireServer) -> list[str]:
    return [request.path.rsplit("/", 1)[-1] for request in wire.of("delete")]


def looks_like(states: Sequence[str]) -> list[Reply]:
    return [status(state) for state in states]


# --- create


class Creating:
    """A server on which the answer to some creates is lost, though the job is made."""

    def __init__(self, wire: WireServer, lost: int, reply: Reply) -> None:
        self.made = 0
        self._wire, self._lost, self._reply = wire, lost, reply
        self._plain = wire.reply_to
        wire.reply_to = self._reply_to  # type: ignore[method-assign]

    def _reply_to(self, kind: str, method: str, target: str, headers: dict[str, str]) -> Reply:
        if kind != "create":
            return self._plain(kind, method, target, headers)
        self.made += 1
        self._wire.jobs.append(listed(f"made-{self.made}"))
        if self.made <= self._lost:
            return self._reply
        return Reply(200, {"id": f"made-{self.made}", "status": "NEW"})


@pytest.mark.parametrize("reply", [*LOST, *[Reply(200, body) for body in NO_JOB]], ids=repr)
@pytest.mark.parametrize("lost", [1, 2])
def test_a_create_that_was_not_answered_is_made_up_for(
    wire: WireServer, pushing: Pushing, reply: Reply, lost: int
) -> None:
    wire.jobs = [listed("before"), listed("elsewhere", table="other")]
    Creating(wire, lost, reply)
    receipt = pushing.run(pushing.task())
    mine = f"made-{lost + 1}"
    assert receipt.job_ids == (mine,)
    assert deleted(wire) == [*[f"made-{n + 1}" for n in range(lost)], mine]
    account = read_account(pushing.journal.path)
    assert account.unsettled == []
    assert account.appended_beyond_state == []


def test_a_create_that_is_never_answered_leaves_nothing(wire: WireServer, pushing: Pushing) -> None:
    wire.jobs = [listed("before")]
    creating = Creating(wire, 99, Reply(502))
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code, error.exit_code) == (OutcomeUnknownError, "TC-REMOTE-03", 6)
    assert creating.made == limits.PUSH_TRIES
    assert deleted(wire) == [f"made-{n + 1}" for n in range(limits.PUSH_TRIES)]
    assert wire.of("execute") == wire.of("upload") == []
    assert read_account(pushing.journal.path).unsettled == []


@pytest.mark.parametrize(
    "another",
    [
        listed("x", "QUEUED"),
        listed("x", "DONE"),
        listed("x", table="Orders"),
        listed("x", type="REPLACE"),
        listed("x", connectionId="erp"),
    ],
    ids=["queued", "done", "other table", "other type", "other connection"],
)
def test_a_job_that_cannot_be_the_lost_one_is_not_touched(
    wire: WireServer, pushing: Pushing, another: dict[str, Any]
) -> None:
    task = pushing.task()
    route = pushing.route()
    push_listing = route.look()
    wire.jobs = [another]  # it came after the look
    wire.answer("create", Reply(502))
    push = route.open(task, push_listing)
    assert deleted(wire) == []
    route.abort(push)
    assert deleted(wire) == ["job-1"]


def test_among_several_candidates_none_is_touched_and_all_are_named(
    wire: WireServer, pushing: Pushing, caplog: pytest.LogCaptureFixture
) -> None:
    Creating(wire, 1, Reply(502))
    task, route = pushing.task(), pushing.route()

    def watch(request: Seen) -> None:
        if request.kind == "create" and len(wire.jobs) == 1:  # at the same moment as ours
            wire.jobs.append(listed("of-another-run"))

    wire.watch = watch
    push = route.open(task, route.look())
    assert deleted(wire) == []
    said = [r.getMessage() for r in caplog.records if "of nobody" in r.getMessage()]
    assert len(said) == 1
    assert "made-1" in said[0]
    assert "of-another-run" in said[0]
    assert push.jobs[0].id == "made-2"
    assert "made-2" not in said[0]


@pytest.mark.parametrize("reply", [Reply(502), Reply(504), Reply(drop="read")], ids=repr)
@pytest.mark.parametrize("arrived", [True, False], ids=["arrived", "never arrived"])
def test_a_job_that_another_client_made_before_the_create_is_not_touched(
    wire: WireServer, pushing: Pushing, reply: Reply, *, arrived: bool
) -> None:
    """On the same table and of the same type; it came after the look at the pool."""
    if arrived:
        Creating(wire, 1, reply)
    else:
        wire.answer("create", reply)
    task, route = pushing.task(), pushing.route()
    listing = route.look()
    wire.jobs.append(listed("theirs"))
    push = route.open(task, listing)
    assert deleted(wire) == (["made-1"] if arrived else [])
    route.abort(push)
    assert "theirs" not in deleted(wire)


@pytest.mark.parametrize("known", [True, False], ids=["listed before", "not listed before"])
def test_where_jobs_cannot_be_listed_again_the_first_listing_counts(
    wire: WireServer, pushing: Pushing, *, known: bool
) -> None:
    before = [listed("before")] if known else []
    theirs = [listed("before")]
    wire.answer("list", Reply(200, before), Reply(403), Reply(200, theirs))
    wire.answer("create", Reply(502))
    push = pushing.open(pushing.task(), pushing.route())
    assert deleted(wire) == ([] if known else ["before"])
    assert push.jobs[0].id == "job-1"


def test_orphans_that_cannot_be_listed_are_left(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("list", Reply(200, []), Reply(200, []), Reply(403))
    wire.answer("create", Reply(502))
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert deleted(wire) == ["job-1"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_job_whose_creation_cannot_be_noted_is_deleted(
    wire: WireServer, pushing: Pushing, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """After a kill, the next run would know nothing of it."""
    if lost:
        Creating(wire, lost, Reply(502))
    write = os.write

    def full(file: int, data: bytes) -> int:
        if b'"job created"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code) == (LimitError, "TC-LIMIT-02")
    assert deleted(wire) == ["made-2" if lost else "job-1"]
    assert wire.of("upload") == wire.of("execute") == []
    monkeypatch.undo()
    assert read_account(pushing.journal.path).unsettled == []


# --- upload


@pytest.mark.parametrize("reply", LOST, ids=repr)
def test_a_chunk_with_keys_is_sent_again(wire: WireServer, pushing: Pushing, reply: Reply) -> None:
    wire.answer("upload", *[reply] * (limits.PUSH_TRIES - 1))
    assert pushing.run(pushing.task()).loaded_rows == 1
    bodies = {bytes(parts(request)[0].content) for request in wire.of("upload")}
    assert len(bodies) == 1
    assert wire.counts()["upload"] == limits.PUSH_TRIES
    assert wire.counts()["chunk list"] == 0
    assert wire.counts()["create"] == 1


def test_a_chunk_with_keys_is_not_sent_for_ever(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("upload", *[Reply(502)] * 99)
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code) == (OutcomeUnknownError, "TC-REMOTE-03")
    assert wire.counts()["upload"] == limits.PUSH_TRIES
    assert wire.of("execute") == []
    assert deleted(wire) == ["job-1"]


UNKEYED: list[dict[str, Any]] = [{"keys": ()}, {"keys": (), "job_type": JobType.REPLACE}]
CHUNKS: list[list[dict[str, Any]]] = [[row(1)], [row(2)], [row(3)]]


def chunk_list(count: int) -> Reply:
    return Reply(200, [{"id": f"c{number}"} for number in range(count)])


@pytest.mark.parametrize("kind", UNKEYED, ids=["append", "replace"])
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_chunks_in_doubt_are_counted(
    wire: WireServer, pushing: Pushing, kind: dict[str, Any], lost: int
) -> None:
    route = pushing.route()
    push = pushing.open(pushing.task(*CHUNKS, **kind), route)
    there = len(push.jobs[0].chunks)
    assert there == 3
    lost = min(lost, there)
    wire.answer("upload", *[Reply(502)] * lost)
    for chunk in push.jobs[0].wanting:
        route.send(push.jobs[0], chunk)
    wire.answer("chunk list", chunk_list(there))
    assert push.jobs[0].wanting == []
    assert route.all_arrived(push)
    assert route.commit(push).loaded_rows == 3
    assert wire.counts()["upload"] == there
    assert wire.counts()["chunk list"] == 1
    assert wire.counts()["create"] == 1


@pytest.mark.parametrize("kind", UNKEYED, ids=["append", "replace"])
@pytest.mark.parametrize(
    "listing",
    [
        chunk_list(0),
        chunk_list(2),
        chunk_list(4),
        Reply(403),
        Reply(404),
        Reply(200, {}),
        Reply(400),
    ],
    ids=["none", "fewer", "more", "forbidden", "unknown", "no list", "refused"],
)
def test_a_job_whose_chunks_are_in_doubt_is_made_anew(
    wire: WireServer, pushing: Pushing, kind: dict[str, Any], listing: Reply
) -> None:
    wire.answer("upload", Reply(502))
    wire.answer("chunk list", listing)
    receipt = pushing.run(pushing.task(*CHUNKS, **kind))
    assert receipt.job_ids == ("job-2",)
    assert deleted(wire) == ["job-1", "job-2"]
    first, second = (json.loads(request.body) for request in wire.of("create"))
    assert first == second
    by_job: dict[str, list[bytes]] = {"job-1": [], "job-2": []}
    for request in wire.of("upload"):
        job = request.path.split("/jobs/")[1].split("/")[0]
        by_job[job].append(bytes(parts(request)[0].content))
    assert sorted(by_job["job-1"]) == sorted(by_job["job-2"])
    assert len(by_job["job-2"]) == receipt.chunks
    assert [r.path.rsplit("/", 1)[-1] for r in wire.of("execute")] == ["job-2"]


def test_chunks_in_doubt_for_ever_are_not_executed(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("upload", *[Reply(502)] * 99)
    error = failure(lambda: pushing.run(pushing.task(keys=())))
    assert (type(error), error.code) == (OutcomeUnknownError, "TC-REMOTE-03")
    assert "orders" in str(error)
    assert "Nothing has touched the table" in str(error)
    assert wire.counts()["create"] == limits.PUSH_TRIES
    assert wire.of("execute") == []
    assert deleted(wire) == [f"job-{n + 1}" for n in range(limits.PUSH_TRIES)]
    assert read_account(pushing.journal.path).unsettled == []


# --- execute


@pytest.mark.parametrize("reply", [*LOST, Reply(drop="unread"), Reply(503)], ids=repr)
@pytest.mark.parametrize("now", ["QUEUED", "RUNNING", "DONE"])
def test_an_execute_that_was_taken_is_not_repeated(
    wire: WireServer, pushing: Pushing, reply: Reply, now: str
) -> None:
    wire.answer("execute", reply)
    wire.answer("show", *looks_like([now]))
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert wire.counts()["execute"] == 1
    assert pushing.submits is not None
    assert pushing.submits.count == 1


def test_an_execute_that_arrives_late_is_not_repeated(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("execute", Reply(504))
    wire.answer("show", *looks_like(["NEW", "RUNNING"]))
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert wire.counts()["execute"] == 1


@pytest.mark.parametrize("end", ["ERROR", "CANCELED"])
def test_an_execute_in_doubt_that_ended_badly(wire: WireServer, pushing: Pushing, end: str) -> None:
    wire.answer("execute", Reply(504))
    wire.answer("show", status(end), status(end, "broken"))
    assert failure(lambda: pushing.run(pushing.task())).code == "TC-REMOTE-04"
    assert wire.counts()["execute"] == 1


@pytest.mark.parametrize("reply", [Reply(400), Reply(409), Reply(429), Reply(404)], ids=repr)
def test_an_execute_that_is_refused_since_the_lost_one_was_taken(
    wire: WireServer, pushing: Pushing, reply: Reply
) -> None:
    wire.answer("execute", Reply(504), reply)
    wire.answer("show", *looks_like(["NEW", "NEW", "RUNNING"]))
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert wire.counts()["execute"] == 2
    assert wire.counts()["create"] == 1


@pytest.mark.parametrize("lost", [1, 2])
def test_an_execute_that_did_not_come_is_repeated_while_the_job_is_new(
    wire: WireServer, pushing: Pushing, clock: FakeClock, lost: int
) -> None:
    wire.answer("execute", *[Reply(504)] * lost)
    wire.answer("show", *looks_like(["NEW", "NEW"] * lost))
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert wire.counts()["execute"] == lost + 1
    assert clock.waits.count(limits.DOUBT_SECONDS) == 2 * lost
    assert wire.counts()["create"] == wire.counts()["upload"] == 1


def test_an_execute_that_is_lost_again_and_again_is_unknown(
    wire: WireServer, pushing: Pushing
) -> None:
    wire.answer("execute", *[Reply(504)] * 99)
    wire.answer("show", *looks_like(["NEW"] * 99))
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code, error.exit_code) == (OutcomeUnknownError, "TC-REMOTE-03", 6)
    assert "job-1" in str(error)
    assert wire.counts()["execute"] == limits.PUSH_TRIES
    assert deleted(wire) == []  # it may come yet
    (left,) = read_account(pushing.journal.path).unsettled
    assert (left.id, left.executed) == ("job-1", True)


@pytest.mark.parametrize(
    "answer", [Reply(503), Reply(drop="read"), Reply(403), Reply(404), Reply(200, "x")], ids=repr
)
def test_an_execute_that_is_asked_after_in_vain_is_unknown(
    wire: WireServer, pushing: Pushing, answer: Reply
) -> None:
    wire.answer("execute", Reply(504))
    wire.answer("show", *[answer] * 99)
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code) == (OutcomeUnknownError, "TC-REMOTE-03")
    assert wire.counts()["execute"] == 1
    assert deleted(wire) == []
    assert [job.executed for job in read_account(pushing.journal.path).unsettled] == [True]


def test_a_signal_while_the_execute_is_in_doubt_leaves_the_job(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    wire.answer("execute", Reply(504))
    wire.answer("show", *looks_like(["NEW"] * 9))
    wire.watch = lambda request: clock.stop() if request.kind == "execute" else None
    with pytest.raises(StoppedError):
        pushing.run(pushing.task())
    assert wire.counts()["execute"] == 1
    assert deleted(wire) == []


def test_an_execute_that_was_never_sent_leaves_the_job_unexecuted(
    wire: WireServer, pushing: Pushing, http: Http
) -> None:
    task, route = pushing.task(), pushing.route()
    push = pushing.open(task, route)
    for chunk in push.jobs[0].chunks:
        route.send(push.jobs[0], chunk)
    host, http.base_url = http.base_url, "http://127.0.0.1:1"  # nobody listens
    with pytest.raises(RemoteError, match="TC-REMOTE-01"):
        route.commit(push)
    assert not push.jobs[0].executed
    http.base_url = host
    route.abort(push)
    assert deleted(wire) == ["job-1"]
    assert wire.of("execute") == []
    assert read_account(pushing.journal.path).unsettled == []


def test_an_execute_that_was_never_sent_behind_a_lost_one_leaves_the_job_alone(
    wire: WireServer, pushing: Pushing, http: Http
) -> None:
    """The one that was lost may arrive yet."""
    task, route = pushing.task(), pushing.route()
    push = pushing.open(task, route)
    for chunk in push.jobs[0].chunks:
        route.send(push.jobs[0], chunk)
    wire.answer("execute", Reply(504))
    wire.answer("show", *looks_like(["NEW", "NEW"]))
    host = http.base_url

    def watch(_: Seen) -> None:
        if wire.counts()["show"] == 2:
            http.base_url = "http://127.0.0.1:1"  # nobody listens

    wire.watch = watch
    with pytest.raises(RemoteError, match="TC-REMOTE-01"):
        route.commit(push)
    wire.watch = None
    http.base_url = host
    route.abort(push)
    assert wire.counts()["execute"] == 1
    assert deleted(wire) == []
    assert [job.executed for job in read_account(pushing.journal.path).unsettled] == [True]


@pytest.mark.parametrize("now", ["QUEUED", "RUNNING", "DONE"])
def test_an_execute_that_was_taken_though_the_answer_is_a_fault_with_a_reference(
    wire: WireServer, pushing: Pushing, now: str
) -> None:
    wire.answer("execute", Reply(500, {"reference": "ref-9", "message": "late"}))
    wire.answer("show", *looks_like([now]))
    assert pushing.run(pushing.task(keys=())).loaded_rows == 1
    assert wire.counts()["execute"] == wire.counts()["create"] == 1
    kinds = wire.kinds()
    assert kinds.index("delete") > kinds.index("show")
    assert ("done", "job-1") in pushing.noted()


# --- 409 and 429


@pytest.mark.parametrize("reply", [Reply(409), Reply(429)], ids=repr)
def test_a_wait_for_the_hour_is_not_charged_to_the_deadline(
    wire: WireServer, pushing: Pushing, clock: FakeClock, reply: Reply
) -> None:
    clock.seconds = 3600.0 * 400_000 + 60
    pushing.use_submits(2, 2)
    wire.answer("execute", reply)
    wire.answer("show", status("NEW" if reply.status == 409 else "DONE"))
    route = pushing.route(submits_per_hour=2, wait_timeout_minutes=5)
    assert pushing.run(pushing.task(), route).loaded_rows == 1
    assert 0 <= clock.seconds - 3600.0 * 400_001 < 60
    assert wire.counts()["execute"] == 2


def test_409_without_a_job_of_ours_backs_off_and_is_said_once(
    wire: WireServer, pushing: Pushing, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answer("execute", *[Reply(409)] * 3)
    wire.answer("show", *looks_like(["NEW"] * 3))
    pushing.run(pushing.task())
    pauses = [wait for wait in clock.waits if wait > 0.5]
    assert len(pauses) == 3
    assert all(
        0.8 * base <= wait <= 1.2 * base for base, wait in zip((1, 1.5, 2.25), pauses, strict=True)
    )
    assert "another push job of the team is running (409)" in pushing.waits.by_cause()
    assert len([r for r in caplog.records if "is running (409)" in r.getMessage()]) >= 1
    assert wire.counts()["create"] == 1


@pytest.mark.parametrize("counts_submits", [True, False], ids=["counted", "not counted"])
@pytest.mark.parametrize(
    ("headers", "wanted"), [((("Retry-After", "40"),), 40.0), ((), 1.0)], ids=["told", "untold"]
)
def test_429_is_waited_for(
    wire: WireServer,
    pushing: Pushing,
    clock: FakeClock,
    headers: tuple[tuple[str, str], ...],
    wanted: float,
    *,
    counts_submits: bool,
) -> None:
    wire.answer("execute", Reply(429, headers=headers))
    route = pushing.route(counts_submits=counts_submits)
    assert pushing.run(pushing.task(), route).loaded_rows == 1
    assert [wait for wait in clock.waits if wait > 0.5] == [pytest.approx(wanted)]
    assert pushing.submits is not None
    assert pushing.submits.count == wire.counts()["execute"] == 2
    steps = [step for step, _ in pushing.noted()]
    assert steps.count("execute meant") == 2
    assert steps.count("executed") == 1


def test_429_of_one_table_lets_all_wait(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    wire.answer("execute", Reply(429, headers=(("Retry-After", "40"),)), Reply(400))
    route = pushing.route()
    started = clock.seconds
    failure(lambda: pushing.run(pushing.task(), route))
    assert clock.seconds - started >= 40
    wire.answer("execute", Reply(429, headers=(("Retry-After", "500"),)))
    wire.answer("execute", Reply(429, headers=(("Retry-After", "500"),)))
    narrow = pushing.route(wait_timeout_minutes=5)
    error = failure(lambda: pushing.run(pushing.task(), narrow))
    assert (error.code, error.exit_code) == ("TC-LIMIT-08", 7)


@pytest.mark.parametrize("on_limit", ["wait", "fail"])
def test_submits_of_the_hour(
    wire: WireServer,
    pushing: Pushing,
    clock: FakeClock,
    on_limit: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock.seconds = 3600.0 * 400_000 + 60
    route = pushing.route(submits_per_hour=2, on_submit_limit=on_limit)
    for number in range(2):
        pushing.run(pushing.task(table=f"t{number}"), route)
    third = pushing.task(table="third")
    if on_limit == "fail":
        error = failure(lambda: pushing.run(third, route))
        assert (type(error), error.code, error.exit_code) == (LimitError, "TC-LIMIT-06", 7)
        for named in ("`third`", "job-3", "2 submits of this hour", "`on_submit_limit`"):
            assert named in str(error)
        assert deleted(wire)[-1] == "job-3"
        assert wire.counts()["execute"] == 2
        return
    pushing.run(third, route)
    assert clock.seconds >= 3600.0 * 400_001
    assert wire.counts()["execute"] == 3
    assert len([r for r in caplog.records if "next full hour" in r.getMessage()]) == 1
    assert pushing.waits.by_cause()["submits"] >= 3500


# --- the end of a job


def test_a_job_that_vanishes_after_execute(wire: WireServer, pushing: Pushing) -> None:
    wire.answer("show", status("RUNNING"), Reply(404))
    error = failure(lambda: pushing.run(pushing.task()))
    assert (type(error), error.code) == (RemoteError, "TC-REMOTE-04")
    for named in ("job-1", "orders", "gone", "not known"):
        assert named in str(error)
    assert wire.counts()["execute"] == 1
    assert deleted(wire) == []


@pytest.mark.parametrize("reply", [Reply(503), Reply(500), Reply(200, "x")], ids=repr)
def test_a_job_that_cannot_be_looked_at_for_a_while(
    wire: WireServer, pushing: Pushing, reply: Reply
) -> None:
    wire.answer("show", *[reply] * 13, status("RUNNING"), *[reply] * 7)
    assert pushing.run(pushing.task()).loaded_rows == 1
    assert wire.counts()["execute"] == 1


def test_blindness_is_counted_from_the_last_look(
    wire: WireServer, pushing: Pushing, clock: FakeClock
) -> None:
    started = clock.seconds
    plain = wire.reply_to

    def reply_to(kind: str, *rest: Any) -> Reply:
        if kind != "show":
            return plain(kind, *rest)
        passed = clock.seconds - started
        if passed > 3 * limits.BLIND_SECONDS:
            return status("DONE")
        # Blind for two thirds of what is borne, again and again.
        return status("RUNNING") if passed % 600 < 60 else Reply(200, "x")

    wire.reply_to = reply_to  # type: ignore[method-assign]
    assert pushing.run(pushing.task()).loaded_rows == 1


@pytest.mark.parametrize("reply", [Reply(503), Reply(200, "x")], ids=repr)
def test_a_job_that_can_never_be_looked_at(
    wire: WireServer, pushing: Pushing, clock: FakeClock, reply: Reply
) -> None:
    wire.answer("show", *[reply] * 2_000)
    started = clock.seconds
    error = failure(lambda: pushing.run(pushing.task()))
    assert isinstance(error, RemoteError)
    assert limits.BLIND_SECONDS <= clock.seconds - started <= limits.BLIND_SECONDS + 120
    assert deleted(wire) == []
    assert [job.executed for job in read_account(pushing.journal.path).unsettled] == [True]


# --- jobs of others


def said_of(words: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name == "target-celonis"]
    return [record.getMessage() for record in ours if words in record.getMessage()]


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "STRANGE"])
def test_a_job_of_another_run_on_the_table_is_waited_for(
    wire: WireServer, pushing: Pushing, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire.jobs = [listed("theirs", state, "ORDERS")]
    wire.answer("show", *looks_like([state, "RUNNING", "DONE"]))
    route = pushing.route()
    pushing.run(pushing.task(), route)
    order = [
        (r.kind, r.path.rsplit("/", 1)[-1]) for r in wire.seen if r.kind in ("show", "execute")
    ]
    assert order == [*[("show", "theirs")] * 3, ("execute", "job-1"), ("show", "job-1")]
    assert deleted(wire) == ["job-1"]  # theirs is theirs
    assert len(said_of("of another run", caplog)) == 1
    assert wire.kinds().index("create") > wire.kinds().index("show")
    assert wire.counts()["tables"] == 2  # it may have made the table
    assert "push jobs of other runs" in pushing.waits.by_cause()
    seen = len(wire.of("show"))
    pushing.run(pushing.task(), route)  # it ended before: once for each table
    assert [r.path.rsplit("/", 1)[-1] for r in wire.of("show")[seen:]] == ["job-2"]


@pytest.mark.parametrize(
    "theirs",
    [
        listed("theirs", "RUNNING", "other"),
        listed("theirs", "RUNNING", connectionId="erp"),
        listed("theirs", "DONE"),
        listed("theirs", "NEW"),
    ],
    ids=["other table", "other connection", "ended", "new"],
)
def test_other_jobs_are_neither_waited_for_nor_touched(
    wire: WireServer,
    pushing: Pushing,
    theirs: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire.jobs = [theirs]
    pushing.run(pushing.task())
    assert not [r for r in wire.seen if r.path.endswith("/theirs")]
    assert len(said_of("theirs", caplog)) == (theirs["status"] == "NEW")


def test_a_job_of_another_run_that_does_not_end(wire: WireServer, pushing: Pushing) -> None:
    wire.jobs = [listed("theirs", "RUNNING")]
    wire.answer("show", *[Reply(200, listed("theirs", "RUNNING"))] * 500)
    error = failure(lambda: pushing.run(pushing.task(), pushing.route(wait_timeout_minutes=10)))
    assert (error.code, error.exit_code) == ("TC-LIMIT-01", 7)
    assert "theirs" in str(error)
    assert wire.of("execute") == wire.of("create") == []
    assert deleted(wire) == []


@pytest.mark.parametrize("state", ["RUNNING", "DONE", "ERROR"])
def test_a_job_of_a_dead_run_is_deleted_behind_its_end(
    wire: WireServer, pushing: Pushing, state: str
) -> None:
    wire.jobs = [listed("dead", state), listed("alive", state)]
    wire.answer("show", *looks_like(["RUNNING", "DONE"] if state == "RUNNING" else []))
    pushing.run(pushing.task(), pushing.route(inherited=["dead"]))
    kinds = [(r.kind, r.path.rsplit("/", 1)[-1]) for r in wire.seen]
    assert deleted(wire) == ["dead", "job-1"]
    assert kinds.index(("delete", "dead")) < kinds.index(("execute", "job-1"))
    assert read_account(pushing.journal.path).unsettled == []


# --- the journal goes first


def test_every_intent_is_in_the_journal_before_it_is_carried_out(
    wire: WireServer, pushing: Pushing
) -> None:
    found: list[tuple[str, list[tuple[str, str]]]] = []

    def watch(request: Seen) -> None:
        if request.kind in ("create", "execute"):
            found.append((request.kind, pushing.noted()))

    wire.watch = watch
    wire.answer("execute", Reply(429))
    pushing.run(pushing.task(keys=()))
    assert [kind for kind, _ in found] == ["create", "execute", "execute"]
    assert [noted[-1] for _, noted in found] == [
        ("job meant", ""),
        ("execute meant", "job-1"),
        ("execute meant", "job-1"),
    ]
    assert pushing.noted() == [
        ("job meant", ""),
        ("job created", "job-1"),
        ("chunk confirmed", "job-1"),
        ("execute meant", "job-1"),
        ("execute meant", "job-1"),
        ("executed", "job-1"),
        ("done", "job-1"),
        ("job deleted", "job-1"),
    ]


def test_what_cannot_be_noted_is_not_carried_out(wire: WireServer, pushing: Pushing) -> None:
    steps: list[str] = []
    note = pushing.journal.note

    def full(step: Any, **about: Any) -> None:
        steps.append(step)
        if step == "execute meant":
            raise LimitError("TC-LIMIT-02", "The disk is full.")
        note(step, **about)

    pushing.journal.note = full  # type: ignore[method-assign]
    failure(lambda: pushing.run(pushing.task()))
    assert steps[-2:] == ["execute meant", "job deleted"]
    assert wire.of("execute") == []
    assert deleted(wire) == ["job-1"]
