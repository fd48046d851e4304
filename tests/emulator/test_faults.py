"""Faults: which call meets which, what its client sees, and what was done nevertheless."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from celonis_emulator.faults import BadFault, Faults, of_tables, parse

from .conftest import KEY, NO_LIMITS, Push, Server, eventually, parquet, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Command, Nursery, StartServer

ROWS = {"id": [1, 2]}
CLIENT = ("client", "secret")
# How long a client waits for what never comes.
IMPATIENT_SECONDS = 0.2
EVERYTHING = "* /**"
BROKEN = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)


# The rules, without a server

PUSH = "/integration/api/v1/data-push/p/jobs"
MODELS = "/integration/api/v1/data-pools/p/data-models/m"


@pytest.mark.parametrize(
    ("match", "call", "meets"),
    [
        ("GET /api/cloud", "GET /api/cloud", True),
        ("get  /api/cloud/", "GET /api/cloud", True),
        ("POST /api/cloud", "GET /api/cloud", False),
        ("* /api/cloud", "DELETE /api/cloud", True),
        ("GET /api/*", "GET /api/cloud", True),
        ("GET /api/*", "GET /api/cloud/permissions", False),
        ("GET /api/c*d", "GET /api/cloud", True),
        ("GET /api/**", "GET /api/cloud/permissions", True),
        ("GET /api/**", "GET /api", True),
        ("GET /api/**", "GET /apis", False),
        ("GET /**/permissions", "GET /api/cloud/permissions", True),
        ("GET /**/permissions", "GET /permissions", True),
        ("GET **", "GET /a/b", True),
        ("GET /a.c", "GET /abc", False),
        ("POST /data-ingestion/**/chunks/*", "POST " + PUSH + "/j/chunks/upserted", False),
        ("POST /*/**/chunks/*", "POST " + PUSH + "/j/chunks/upserted", True),
        ("connect", "GET /api/cloud", True),
        ("token", "POST /oauth2/token", True),
        ("create_job", "POST " + PUSH, True),
        ("create_job", "POST " + PUSH.replace("integration", "data-ingestion"), True),
        ("create_job", "POST " + PUSH + "/j", False),
        ("list_jobs", "GET " + PUSH, True),
        ("get_job", "GET " + PUSH + "/j", True),
        ("get_job", "GET " + PUSH + "/j/chunks", False),
        ("upload_chunk", "POST " + PUSH + "/j/chunks/upserted", True),
        ("upload_chunk", "POST " + PUSH + "/j/chunks/deleted", True),
        ("list_chunks", "GET " + PUSH + "/j/chunks", True),
        ("execute_job", "POST " + PUSH + "/j", True),
        ("execute_job", "POST " + PUSH + "/j/cancel", False),
        ("execute_job", "POST " + PUSH, False),
        ("cancel_job", "POST " + PUSH + "/j/cancel", True),
        ("delete_job", "DELETE " + PUSH + "/j", True),
        ("list_tables", "GET /integration/api/pools/p/tables", True),
        ("list_columns", "GET /integration/api/pools/p/columns", True),
        ("load_model", "POST " + MODELS + "/load", True),
        ("load_model", "POST " + MODELS + "/load/partial-sync", True),
        ("load_model", "POST /integration/api/pools/p/data-models/m/reload", True),
        ("load_model", "GET " + MODELS + "/last-load", False),
        (
            "load_status",
            "GET /integration/api/pools/p/data-models/m/load-history/load-info-sync",
            True,
        ),
        ("execute_data_job", "POST /integration/api/v2/data-pools/p/data-jobs/j/execute", True),
        ("execute_data_job", "POST /integration/api/pools/p/jobs/j/execute", True),
        ("data_job_status", "GET /integration/api/pools/p/logs/status", True),
        ("data_job_status", "GET /integration/api/pools/p/jobs/j", True),
    ],
)
def test_which_calls_match(match: str, call: str, *, meets: bool) -> None:
    (fault,) = parse({"match": match, "hang": True})
    assert fault.meets(*call.split(" ")) is meets


@pytest.mark.parametrize(
    ("objects", "place", "words"),
    [
        (3, "", "list"),
        ([3], "[0]", "dictionary"),
        ({}, "[0]", "Give one of"),
        ({"match": "connect"}, "[0]", "Give one of"),
        ({"match": "connect", "hang": True, "cut": True}, "[0]", "Give one of"),
        ([{"match": "connect", "hang": True}, {"answer": 500}], "[1]", "match"),
        ({"match": "conect", "hang": True}, "[0].match", "execute_job"),
        ({"match": "FETCH /", "hang": True}, "[0].match", "method"),
        ({"match": "GET api", "hang": True}, "[0].match", "path"),
        ({"match": "connect", "answer": 600}, "[0].answer.status", "599"),
        ({"match": "connect", "answer": True}, "[0].answer.status", "integer"),
        ({"match": "connect", "answer": "500"}, "[0].answer", "dictionary"),
        ({"match": "connect", "answer": {"status": 204, "body": ""}}, "[0].answer", "no body"),
        (
            {"match": "connect", "answer": {"status": 500, "headers": {"a": "b\r\nc: d"}}},
            "[0].answer.headers",
            "cannot be sent",
        ),
        (
            {"match": "connect", "answer": {"status": 500, "headers": {"Content-Length": "1"}}},
            "[0].answer.headers",
            "own",
        ),
        ({"match": "connect", "answer": 500, "bdy": ""}, "[0].bdy", "no such field"),
        ({"match": "connect", "answer": 500, "times": -1}, "[0].times", "0"),
        ({"match": "connect", "answer": 500, "skip": 1.5}, "[0].skip", "integer"),
        ({"match": "connect", "answer": 500, "when": "never"}, "[0].when", "during"),
        ({"match": "connect", "hang": True, "when": "during"}, "[0]", "during"),
        ({"match": "connect", "hang": False}, "[0].hang", "True"),
        ({"match": "connect", "cut": {"after_bytes": 1}, "when": "after"}, "[0]", "when"),
        ({"match": "connect", "slow": {"delay_seconds": float("inf")}}, "[0].slow.de", "number"),
        ({"match": "connect", "slow": {"bytes_per_second": 0}}, "[0].slow.bytes", "1"),
        ({"match": "connect", "tokens": "live"}, "[0].tokens", "die"),
        ({"job": {"table": "t", "status": "DONE"}}, "[0].job.status", "ERROR"),
        ({"job": {"table": "t", "status": "ERROR"}, "match": "connect"}, "[0]", "match"),
    ],
)
def test_what_cannot_be(objects: Any, place: str, words: str) -> None:
    with pytest.raises(BadFault) as error:
        parse(objects)
    assert error.value.place.startswith(place)
    assert words in error.value.sentence
    assert error.value.sentence.endswith((".", "?"))
    assert len(str(error.value).splitlines()) == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=4), st.integers(0, 12))
def test_turns(rules: list[tuple[int, int]], calls: int) -> None:
    """A call meets the first fault whose turn it is; the others had it counted all the same."""
    faults = Faults(
        parse([{"match": "connect", "hang": True, "skip": s, "times": t} for s, t in rules])
    )
    fired = [0] * len(rules)
    for number in range(1, calls + 1):
        due = [
            i
            for i, (skip, times) in enumerate(rules)
            if number > skip and (times == 0 or fired[i] < times)
        ]
        met = faults.of_call("GET", "/api/cloud")
        assert faults.of_call("GET", "/api/team") is None
        if due:
            assert met is not None
            assert (met.skip, met.times) == rules[due[0]]
            fired[due[0]] += 1
        else:
            assert met is None
    shown = faults.shown()
    assert [fault["fired"] for fault in shown] == fired
    assert {fault["matched"] for fault in shown} <= {calls}


def test_the_switch_for_tables_means_their_very_names() -> None:
    faults = Faults(of_tables([("Odd[*]", "ERROR")]))
    for _ in range(3):
        end = faults.of_job("odd[*]")
        assert end is not None
        assert end.status == "ERROR"
    assert faults.of_job("odd*") is None
    assert faults.of_job("odd[x]") is None


# Through HTTP


@pytest.fixture(scope="module")
def faulty_server(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Server]:
    server = start(
        tmp_path_factory.mktemp("faulty"),
        *NO_LIMITS,
        *("--oauth-client", ":".join(CLIENT)),
        nursery=nursery,
    )
    yield server
    server.stop()


@pytest.fixture
def faulty(faulty_server: Server) -> Iterator[Push]:
    """A server without faults, as far as earlier tests go."""
    faulty_server.session.delete(faulty_server.url + "/_emulator/faults")
    yield Push(faulty_server)
    faulty_server.session.delete(faulty_server.url + "/_emulator/faults")
    # Connections that were broken are not for the next test.
    faulty_server.session.close()


def set_faults(server: Server, *faults: dict[str, Any]) -> list[dict[str, Any]]:
    answer = server.post("/_emulator/faults", json=list(faults))
    assert answer.status_code == 200, answer.text
    shown: list[dict[str, Any]] = answer.json()
    return shown


def shown_faults(server: Server) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = server.get("/_emulator/faults").json()
    return shown


def open_line(server: Server) -> socket.socket:
    """Connect without any client library's ideas of HTTP."""
    parts = urlsplit(server.url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=20)


def head(method: str, path: str, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: h", f"Authorization: Bearer {KEY}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (401, {"error"}),
        (403, {"title", "status", "detail", "errorCode"}),
        (404, {"title", "status", "detail", "errorCode"}),
        (409, {"reference", "message", "shortMessage"}),
        (429, {"title", "status", "detail", "errorCode"}),
        (500, {"reference", "message", "shortMessage"}),
        (502, {"title", "status", "detail", "errorCode"}),
        (503, {"title", "status", "detail", "errorCode"}),
        (504, {"title", "status", "detail", "errorCode"}),
        (599, {"title", "status", "detail", "errorCode"}),
    ],
)
def test_a_status_has_its_usual_body(faulty: Push, status: int, fields: set[str]) -> None:
    set_faults(faulty.server, {"match": "connect", "answer": status})
    answer = faulty.server.get("/api/cloud")
    assert answer.status_code == status
    assert set(answer.json()) == fields
    assert answer.headers["content-type"] == "application/json"
    assert faulty.server.get("/api/cloud").status_code == 200


@pytest.mark.parametrize(
    ("given", "body", "content_type"),
    [
        ({"body": "<p>Bad gateway"}, b"<p>Bad gateway", "text/plain; charset=utf-8"),
        ({"body": "<p>", "content_type": "text/html"}, b"<p>", "text/html"),
        ({"body": {"a": [1]}}, b'{"a": [1]}', "application/json"),
        ({"body": ""}, b"", None),
        ({"body": "é"}, "é".encode(), "text/plain; charset=utf-8"),
        ({"body": "", "headers": {"Content-Type": "x/y"}}, b"", "x/y"),
    ],
)
def test_an_answer_of_ones_own(
    faulty: Push, given: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    headers = {"x-ratelimit-reset": "3", "Retry-After": "7"} | given.pop("headers", {})
    set_faults(
        faulty.server,
        {"match": "connect", "answer": {"status": 429, "headers": headers} | given},
    )
    answer = faulty.server.get("/api/cloud")
    assert answer.status_code == 429
    assert answer.content == body
    assert answer.headers.get("content-type") == content_type
    assert (answer.headers["x-ratelimit-reset"], answer.headers["retry-after"]) == ("3", "7")


@pytest.mark.parametrize("status", [200, 204, 302, 304])
def test_an_answer_may_be_no_error(faulty: Push, status: int) -> None:
    location = {"location": "/elsewhere"}
    set_faults(
        faulty.server,
        {"match": "create_job", "answer": {"status": status, "headers": location}},
    )
    body = {"targetName": "t", "type": "DELTA", "dataPoolId": "local"}
    path = faulty.server.url + faulty.base
    answer = faulty.server.session.post(path, json=body, allow_redirects=False, timeout=20)
    assert (answer.status_code, answer.content) == (status, b"")
    # The connection goes on.
    assert faulty.try_create("t").status_code == 200


def test_before_the_work_nothing_is_done(faulty: Push, table: str) -> None:
    set_faults(faulty.server, {"match": "create_job", "answer": 503})
    assert faulty.try_create(table).status_code == 503
    assert faulty.server.history(table) == []
    set_faults(faulty.server, {"match": "create_job", "cut": True})
    with pytest.raises(BROKEN):
        faulty.try_create(table)
    assert faulty.server.history(table) == []


def test_after_the_work_it_is_done(faulty: Push, table: str) -> None:
    after = {"when": "after"}
    set_faults(faulty.server, {"match": "create_job", "answer": 504} | after)
    assert faulty.try_create(table).status_code == 504
    set_faults(faulty.server, {"match": "create_job", "cut": True} | after)
    with pytest.raises(BROKEN):
        faulty.try_create(table)
    assert len(faulty.server.history(table)) == 2
    job = faulty.server.history(table)[0]["id"]
    set_faults(faulty.server, {"match": "execute_job", "cut": True} | after)
    faulty.send(job, ROWS)
    with pytest.raises(BROKEN):
        faulty.execute(job)
    assert faulty.wait(job)["status"] == "DONE"
    assert faulty.execute(job).status_code == 400


@pytest.mark.parametrize(("when", "arrived"), [("before", 0), ("during", 0), ("after", 1)])
def test_an_upload_that_is_cut(faulty: Push, table: str, when: str, arrived: int) -> None:
    set_faults(faulty.server, {"match": "upload_chunk", "cut": True, "when": when})
    job = faulty.create(table)
    content = parquet({"id": range(1_000_000)})
    assert len(content) > 1_000_000
    with pytest.raises(BROKEN):
        faulty.upload(job, content)
    assert len(faulty.server.get(f"{faulty.base}/{job}/chunks").json()) == arrived
    # The job itself is as good as before.
    faulty.send(job, ROWS)
    assert faulty.run(job)["status"] == "DONE"
    directory = faulty.server.database.parent
    eventually(lambda: not [*directory.glob(f"*.chunks/{job}/*")], "the files are removed")


def test_an_answer_in_mid_upload(faulty: Push, table: str) -> None:
    job = faulty.create(table)
    set_faults(faulty.server, {"match": "upload_chunk", "answer": 413, "when": "during"})
    path = f"{faulty.base}/{job}/chunks/upserted"
    length = 10_000_000
    with open_line(faulty.server) as line:
        line.sendall(head("POST", path, f"Content-Length: {length}") + b"x" * 1000)
        assert line.recv(12) == b"HTTP/1.1 413"
        # Who goes on is listened to, and may ask again.
        line.sendall(b"x" * (length - 1000) + head("GET", "/api/cloud"))
        seen = b""
        while b"HTTP/1.1 200" not in seen:
            seen += line.recv(65_536)
    assert faulty.server.get(f"{faulty.base}/{job}/chunks").json() == []


@pytest.mark.parametrize("after_bytes", [0, 5, 10_000_000])
def test_an_answer_that_ends_too_early(faulty: Push, table: str, after_bytes: int) -> None:
    set_faults(faulty.server, {"match": "create_job", "cut": {"after_bytes": after_bytes}})
    body = json.dumps({"targetName": table, "type": "REPLACE", "dataPoolId": "local"}).encode()
    with open_line(faulty.server) as line:
        line.sendall(
            head(
                "POST",
                faulty.base,
                f"Content-Length: {len(body)}",
                "Content-Type: application/json",
            )
            + body
        )
        answer = b"".join(iter(lambda: line.recv(65_536), b""))
    top, _, part = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200")
    promised = int(top.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert len(part) == min(after_bytes, promised - 1)
    assert len(faulty.server.history(table)) == 1


def test_an_early_end_of_an_empty_answer_is_none(faulty: Push, table: str) -> None:
    job = faulty.create(table)
    set_faults(faulty.server, {"match": "upload_chunk", "cut": {"after_bytes": 5}})
    with pytest.raises(BROKEN):
        faulty.upload(job, parquet(ROWS))
    assert len(faulty.server.get(f"{faulty.base}/{job}/chunks").json()) == 1


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("fault", [{"hang": True}, {"slow": {"delay_seconds": 3600}}])
def test_an_answer_that_does_not_come(
    faulty: Push, table: str, fault: dict[str, Any], when: str, made: int
) -> None:
    set_faults(faulty.server, {"match": "create_job", "when": when} | fault)
    body = {"targetName": table, "type": "DELTA", "dataPoolId": "local"}
    with pytest.raises(requests.exceptions.ReadTimeout):
        faulty.server.session.post(
            faulty.server.url + faulty.base, json=body, timeout=IMPATIENT_SECONDS
        )
    assert len(faulty.server.history(table)) == made


def test_a_delay_comes_to_its_end(faulty: Push, table: str) -> None:
    delay = {"slow": {"delay_seconds": 0.05}}
    set_faults(
        faulty.server,
        {"match": "create_job"} | delay,
        {"match": "create_job", "when": "after"} | delay,
        {"match": "create_job", "answer": 502} | delay,
    )
    answers = [faulty.try_create(table).status_code for _ in range(3)]
    assert answers == [200, 200, 502]
    assert len(faulty.server.history(table)) == 2


@pytest.mark.parametrize("more", [{}, {"answer": {"status": 200, "body": "x" * 50}}])
def test_a_body_that_drips(faulty: Push, more: dict[str, Any]) -> None:
    set_faults(faulty.server, {"match": "connect", "slow": {"bytes_per_second": 100}} | more)
    received = []
    with open_line(faulty.server) as line:
        line.sendall(head("GET", "/api/cloud", "Connection: close"))
        while piece := line.recv(65_536):
            received.append(piece)
    body = b"".join(received).partition(b"\r\n\r\n")[2]
    assert body == faulty.server.get("/api/cloud").content if not more else b"x" * 50
    # The head, and then the body in several pieces.
    assert len(received) > 3


def test_a_body_without_end(faulty: Push) -> None:
    set_faults(faulty.server, {"match": "list_tables", "endless": True})
    url = f"{faulty.server.url}/integration/api/pools/local/tables"
    with faulty.server.session.get(url, stream=True, timeout=20) as answer:
        assert answer.status_code == 200
        wanted = 30_000_000
        assert sum(len(answer.raw.read(1_000_000)) for _ in range(30)) == wanted
    assert faulty.server.get("/integration/api/pools/local/tables").status_code == 200


def test_one_prefix_is_gone(faulty: Push, table: str) -> None:
    set_faults(faulty.server, {"match": "* /data-ingestion/**", "answer": 404, "times": 0})
    for _ in range(2):
        answer = faulty.try_create(table)
        assert answer.status_code == 404
        assert answer.json()["errorCode"] == "GENERAL_NOTFOUND_PATH"
    other = Push(faulty.server, prefix="integration")
    assert other.load(table, ROWS)["status"] == "DONE"


def test_the_nth_call_of_several(faulty: Push, table: str) -> None:
    set_faults(
        faulty.server,
        {"match": "get_job", "answer": 503, "skip": 1, "times": 2},
        {"match": "get_job", "answer": 429, "skip": 2, "times": 2},
    )
    job = faulty.create(table)
    statuses = [faulty.server.get(f"{faulty.base}/{job}").status_code for _ in range(6)]
    # The third call would have been for both: the first rule wins, the second one goes on.
    assert statuses == [200, 503, 503, 429, 429, 200]
    shown = shown_faults(faulty.server)
    assert [(f["matched"], f["fired"], f["spent"]) for f in shown] == [(6, 2, True)] * 2
    assert shown[0]["last"] == f"GET {faulty.base}/{job}"


def test_setting_listing_and_removing(faulty: Push) -> None:
    server = faulty.server
    one = server.post("/_emulator/faults", json={"match": "connect", "cut": True}).json()
    assert [fault["fault"] for fault in one] == [{"match": "connect", "cut": True}]
    two = set_faults(server, {"match": "token", "hang": True}, {"match": "token", "answer": 500})
    assert two[0] == one[0]
    assert len({fault["id"] for fault in two}) == 3
    path = f"{server.url}/_emulator/faults"
    assert server.session.delete(f"{path}/{two[1]['id']}").status_code == 200
    assert server.session.delete(f"{path}/{two[1]['id']}").status_code == 404
    assert shown_faults(server) == [two[0], two[2]]
    assert server.session.delete(path).status_code == 200
    assert shown_faults(server) == []


def test_a_fault_that_cannot_be_is_refused(faulty: Push) -> None:
    faults = [{"match": "connect", "hang": True}, {"match": "nothing", "hang": True}]
    answer = faulty.server.post("/_emulator/faults", json=faults)
    assert answer.status_code == 400
    assert "execute_job" in answer.json()["errors"][0]["error"]
    assert shown_faults(faulty.server) == []


def test_no_fault_reaches_the_emulators_own_endpoints(faulty: Push) -> None:
    set_faults(faulty.server, {"match": EVERYTHING, "cut": True, "times": 0})
    with pytest.raises(BROKEN):
        faulty.server.get("/api/cloud")
    assert shown_faults(faulty.server)[0]["matched"] == 1
    assert faulty.server.get("/_emulator/history").status_code == 200
    assert faulty.server.rows("SELECT 1") == [["1"]]


def test_a_fault_does_not_ask_for_the_key(faulty: Push) -> None:
    set_faults(faulty.server, {"match": "connect", "answer": 503})
    url = f"{faulty.server.url}/api/cloud"
    assert requests.get(url, timeout=20).status_code == 503
    assert requests.get(url, timeout=20).status_code == 401


def test_calls_that_met_a_fault_are_counted(faulty: Push) -> None:
    def count() -> int:
        counted = faulty.server.get("/_emulator/requests").json()
        return sum(c["count"] for c in counted if c["path"] == "/api/team")

    before = count()
    set_faults(
        faulty.server,
        {"match": "GET /api/team", "answer": 503},
        {"match": "GET /api/team", "cut": True},
        {"match": "GET /api/team", "hang": True},
    )
    assert faulty.server.get("/api/team").status_code == 503
    with pytest.raises(BROKEN):
        faulty.server.get("/api/team")
    with pytest.raises(requests.exceptions.ReadTimeout):
        faulty.server.session.get(faulty.server.url + "/api/team", timeout=IMPATIENT_SECONDS)
    assert count() == before + 3


# Faults that are there from the start


def test_faults_of_the_command_line_and_of_a_file(start_server: StartServer, tmp_path: Any) -> None:
    config = tmp_path / "emulator.yaml"
    config.write_text(
        "faults:\n"
        "  - {match: connect, answer: 503}\n"
        "  - match: connect\n"
        "    skip: 1\n"
        "    cut: true\n"
        "  - {job: {table: bad, status: ERROR}, times: 0}\n"
    )
    option = json.dumps({"match": "connect", "skip": 2, "answer": 429})
    server = start_server("--config", str(config), "--fault", option)
    assert server.get("/api/cloud").status_code == 503
    with pytest.raises(BROKEN):
        server.get("/api/cloud")
    assert [server.get("/api/cloud").status_code for _ in range(2)] == [429, 200]
    Push(server).load("bad", ROWS, status="ERROR")
    assert [fault["id"] for fault in shown_faults(server)] == [f"fault-{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("{", "JSON"),
        ('{"match": "connect"}', "Give one of"),
        ('[{"match": "connect", "answer": 1}]', "[0].answer.status"),
    ],
)
def test_an_option_that_is_no_fault(
    command: Command, tmp_path: Any, option: str, words: str
) -> None:
    database = str(tmp_path / "c.duckdb")
    ended = command("serve", "--api-key", "k", "--database", database, "--fault", option)
    assert ended.code == 2
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


# Tokens


def token_of(server: Server) -> str:
    answer = requests.post(
        f"{server.url}/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=CLIENT,
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def status_with(server: Server, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.get(f"{server.url}/integration/api/pools", headers=headers, timeout=20)
    return answer.status_code


def test_all_tokens_die_at_once(faulty: Push) -> None:
    tokens = [token_of(faulty.server) for _ in range(2)]
    shown = set_faults(faulty.server, {"tokens": "die"})
    assert (shown[0]["fired"], shown[0]["spent"]) == (1, True)
    assert [status_with(faulty.server, token) for token in tokens] == [401, 401]
    assert status_with(faulty.server, token_of(faulty.server)) == 200
    assert faulty.server.get("/integration/api/pools").status_code == 200


@pytest.mark.parametrize(
    ("when", "statuses"), [("before", [200, 401, 401]), ("after", [200, 200, 401])]
)
def test_tokens_die_at_a_call(faulty: Push, when: str, statuses: list[int]) -> None:
    token = token_of(faulty.server)
    fault = {"match": "GET /integration/api/pools", "tokens": "die", "skip": 1, "when": when}
    set_faults(faulty.server, fault)
    assert [status_with(faulty.server, token) for _ in range(3)] == statuses


def test_a_token_is_born_dead(faulty: Push) -> None:
    set_faults(faulty.server, {"match": "token", "tokens": "die", "when": "after"})
    assert status_with(faulty.server, token_of(faulty.server)) == 401
    assert status_with(faulty.server, token_of(faulty.server)) == 200


# Jobs


@pytest.mark.parametrize("status", ["ERROR", "CANCELED"])
def test_a_job_is_made_to_end(faulty: Push, table: str, status: str) -> None:
    set_faults(faulty.server, {"job": {"table": table.upper(), "status": status}, "skip": 1})
    faulty.load(table, ROWS)
    shown = faulty.load(table, {"id": [3]}, status=status)
    assert status in shown["logs"][0]
    assert faulty.server.rows(f"SELECT count(*) FROM local.{table}") == [["2"]]
    faulty.load(table, {"id": [3]}, type="DELTA")
    (fault,) = shown_faults(faulty.server)
    assert (fault["matched"], fault["fired"], fault["last"]) == (3, 1, f"job on {table}")


def test_jobs_on_tables_by_a_pattern(faulty: Push, table: str) -> None:
    set_faults(faulty.server, {"job": {"table": f"{table}_?", "status": "ERROR"}, "times": 0})
    for name, status in ((f"{table}_a", "ERROR"), (f"{table}_b", "ERROR"), (table, "DONE")):
        faulty.load(name, ROWS, status=status)


@pytest.mark.parametrize(("after_chunks", "rows"), [(0, 1), (1, 2), (2, 3), (9, 4)])
def test_a_job_ends_after_some_chunks(
    faulty: Push, table: str, after_chunks: int, rows: int
) -> None:
    end = {"table": table, "status": "ERROR", "after_chunks": after_chunks}
    set_faults(faulty.server, {"job": end, "skip": 1})
    faulty.load(table, {"id": [0]})
    chunks = [{"id": [n]} for n in (1, 2, 3)]
    faulty.load(table, *chunks, type="DELTA", status="ERROR")
    found = faulty.server.rows(f"SELECT id FROM local.{table} ORDER BY id")
    assert found == [[str(n)] for n in range(rows)]


# The end of the server, and TLS


@contextmanager
def waiting(server: Server, path: str) -> Iterator[None]:
    """Ask for something that does not come while the server lives."""
    outcome: list[Exception] = []

    def ask() -> None:
        try:
            with requests.get(
                server.url + path, timeout=20, stream=True, verify=server.session.verify
            ) as answer:
                while answer.raw.read(1000):
                    pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            outcome.append(error)

    def met() -> bool:
        return any(fault["fired"] for fault in shown_faults(server))

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(met, "the call meets its fault")
    yield
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made by the openssl program")
    directory = tmp_path_factory.mktemp("certificate")
    certificate, key = str(directory / "cert.pem"), str(directory / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", key, "-out", certificate, "-subj", "/CN=emulator"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.mark.parametrize(
    "fault",
    [
        {"hang": True},
        {"slow": {"delay_seconds": 3600}},
        {"slow": {"bytes_per_second": 1}},
        {"answer": 500, "slow": {"delay_seconds": 3600}},
        {"endless": True},
    ],
)
def test_the_server_ends_all_the_same(
    start_server: StartServer, tmp_path: Any, fault: dict[str, Any]
) -> None:
    """At once, and with nothing to say: what is cut off in its grace is logged."""
    log = tmp_path / "log.txt"
    server = start_server(log=log)
    set_faults(server, {"match": "GET /docs"} | fault)
    with waiting(server, "/docs"):
        assert server.stop() == 0
    assert log.read_bytes() == b""


def test_faults_over_tls(start_server: StartServer, tmp_path: Any, pair: tuple[str, str]) -> None:
    log = tmp_path / "log.txt"
    server = start_server("--tls-cert", pair[0], "--tls-key", pair[1], log=log)
    server.session.verify = pair[0]
    push = Push(server)
    job = push.create("t")
    set_faults(
        server,
        {"match": "connect", "cut": True},
        {"match": "connect", "cut": {"after_bytes": 7}},
        {"match": "upload_chunk", "cut": True, "when": "during"},
        {"match": "GET /docs", "hang": True},
    )
    for _ in range(2):
        with pytest.raises(BROKEN):
            server.get("/api/cloud")
    with pytest.raises(BROKEN):
        push.upload(job, parquet({"id": range(1_000_000)}))
    assert server.get(f"{push.base}/{job}/chunks").json() == []
    assert push.load("t", ROWS)["status"] == "DONE"
    with waiting(server, "/docs"):
        assert server.stop() == 0
    assert log.read_bytes() == b""


def test_bodies_of_our_own_endpoints_are_json_whatever_they_are_called(
    shared_server: Server,
) -> None:
    """What ``curl --data`` says of a body unless it is told otherwise."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = shared_server.post(
        "/_emulator/faults", data='{"match": "GET /nowhere", "answer": 503}', headers=form
    )
    assert answer.status_code == 200, answer.text
    shared_server.session.delete(f"{shared_server.url}/_emulator/faults/{answer.json()[-1]['id']}")
    near = shared_server.post("/_emulator/faults", data='{"match": "execute_jb", "answer": 503}')
    assert near.status_code == 400
    assert "Did you mean execute_job?" in near.text
    assert "?." not in near.text
