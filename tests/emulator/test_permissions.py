"""Who may do what: every kind of caller at every kind of call; hidden pools; scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from celonis_emulator.rights import EVERYTHING, EVERYWHERE, Caller, Right

from .conftest import KEY, NO_LIMITS, Nursery, Push, Server, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETUP = """
pools:
  - id: one
    connections: [erp]
    data_models:
      - {id: model, tables: [made]}
    data_jobs:
      - id: job
        tasks: [SELECT 1]
  - two
keys:
  - {key: nothing, permissions: {}}
  - {key: reads, permissions: {one: read}}
  - {key: edits, permissions: {one: [edit]}}
  - {key: pushes, permissions: {one: [push]}}
  - {key: manages, permissions: {one: manage}}
  - {key: runs, kind: app, permissions: {one: [read, manage]}}
  - {key: elsewhere, permissions: {two: all}}
  - {key: reads everywhere, permissions: {"*": read}}
  - {key: mixed, permissions: {"*": read, one: push}}
oauth_clients:
  - {id: full, secret: s, permissions: {one: all}}
  - {id: pusher, secret: s, permissions: {one: push}}
  - {id: narrow, secret: s, scope: "integration.data-pools:data_push", permissions: {one: all}}
  - id: looker
    secret: s
    scope: ["integration.data-pools:read", "integration.data-pools:data_push"]
    permissions: {one: push, two: read}
switches:
  # So that one load or execute after the other is taken.
  second-load: queue
  second-execution: queue
"""
PUSH = "/data-ingestion/api/v1/data-push/{pool}/jobs"
POOL = "/integration/api/pools/{pool}"
DATA_POOL = "/integration/api/v1/data-pools/{pool}"
BODY = {"targetName": "made", "type": "DELTA", "dataPoolId": "{pool}"}
CREATE = ("POST", PUSH, BODY)
TABLES = ("GET", f"{POOL}/tables", None)
LOOK = ("GET", POOL, None)

# The callers by the columns of the matrix; of the last two the server does not know the keys.
CALLERS = (
    *("Bearer nothing", "Bearer reads", "Bearer edits", "Bearer pushes", "Bearer manages"),
    *("AppKey runs", "Bearer elsewhere", "Bearer reads everywhere", f"Bearer {KEY}"),
    *("Bearer runs", "Bearer unknown"),
)
# fmt: off
MATRIX: list[tuple[str, str, Any, list[int]]] = [
    #                             nothing reads edits pushes manages runs elsewh everyw full
    ("GET", "/api/cloud", None,              [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET", "/api/cloud/permissions", None,  [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET", "/api/team", None,               [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET", "/integration/api/pools", None,  [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("GET", "/_emulator/history", None,      [200, 200, 200, 200, 200, 200, 200, 200, 200]),
    (*LOOK,                                  [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/data-sources/", None,   [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/data-sources/erp", None, [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    (*TABLES,                                [403, 200, 403, 200, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/columns?tableName=x", None,
                                             [403, 200, 403, 200, 403, 200, 403, 200, 200]),
    (*CREATE,                                [403, 403, 403, 200, 403, 403, 403, 403, 200]),
    ("POST", f"{PUSH}/", None,               [403, 403, 403, 400, 403, 403, 403, 403, 400]),
    ("GET", f"{PUSH}/", None,                [403, 403, 403, 200, 403, 403, 403, 403, 200]),
    ("GET", f"{PUSH}/none", None,            [403, 403, 403, 404, 403, 403, 403, 403, 404]),
    ("DELETE", f"{PUSH}/none", None,         [403, 403, 403, 404, 403, 403, 403, 403, 404]),
    ("POST", f"{PUSH}/none", None,           [403, 403, 403, 404, 403, 403, 403, 403, 404]),
    ("POST", f"{PUSH}/none/cancel", None,    [403, 403, 403, 404, 403, 403, 403, 403, 404]),
    ("GET", f"{PUSH}/none/chunks", None,     [403, 403, 403, 404, 403, 403, 403, 403, 404]),
    ("POST", f"{PUSH}/none/chunks/deleted", None,
                                             [403, 403, 403, 404, 403, 403, 403, 403, 404]),
    ("GET", f"{POOL}/data-models", None,     [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/data-models/model", None, [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/data-model/model/tables", None,
                                             [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/data-models/model/load-history/load-info-sync", None,
                                             [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("POST", f"{POOL}/data-models/model/reload?forceComplete=true", None,
                                             [403, 403, 200, 403, 403, 403, 403, 403, 200]),
    ("POST", f"{DATA_POOL}/data-models/model/load", None,
                                             [403, 403, 200, 403, 403, 403, 403, 403, 200]),
    ("POST", f"{DATA_POOL}/data-models/model/load/partial-sync", ["made"],
                                             [403, 403, 200, 403, 403, 403, 403, 403, 200]),
    ("GET", f"{POOL}/jobs", None,            [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/jobs/job", None,        [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("GET", f"{POOL}/logs/status", None,     [403, 200, 403, 403, 403, 200, 403, 200, 200]),
    ("POST", f"{POOL}/jobs/job/execute", {"mode": "FULL"},
                                             [403, 403, 403, 403, 403, 200, 403, 403, 200]),
    ("POST", "/integration/api/v2/data-pools/{pool}/data-jobs/job/execute?mode=FULL", None,
                                             [403, 403, 403, 403, 403, 200, 403, 403, 200]),
]
# fmt: on


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("permissions") / "emulator.yaml"
    path.write_text(SETUP)
    return path


@pytest.fixture(scope="module")
def server(setup: Path, nursery: Nursery) -> Iterator[Server]:
    started = start(setup.parent, *NO_LIMITS, "--config", str(setup), nursery=nursery)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def hiding(setup: Path, nursery: Nursery) -> Iterator[Server]:
    """The same server, but that it hides pools and is strict about listings."""
    options = ("--hidden-pools", "404", "--listing-permission", "read")
    database = setup.with_name("hiding.duckdb")
    started = start(
        setup.parent, "--config", str(setup), *options, database=database, nursery=nursery
    )
    yield started
    started.stop()


def ask(server: Server, who: str, call: tuple[str, str, Any], pool: str) -> int:
    method, path, body = call
    if isinstance(body, dict):
        body = {name: str(value).format(pool=pool) for name, value in body.items()}
    url = server.url + path.format(pool=pool)
    headers = {"Authorization": who}
    answer = requests.request(method, url, json=body, headers=headers, timeout=20)
    return answer.status_code


def statuses(server: Server, method: str, path: str, body: Any, pool: str = "one") -> list[int]:
    return [ask(server, who, (method, path, body), pool) for who in CALLERS]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"), MATRIX, ids=[f"{m} {p}" for m, p, *_ in MATRIX]
)
def test_every_caller_at_every_call(
    server: Server, method: str, path: str, body: Any, expected: list[int]
) -> None:
    assert statuses(server, method, path, body) == [*expected, 401, 401]
    if "{pool}" in path:
        # A pool that is not there is not there for everybody who is known.
        assert statuses(server, method, path, body, "none") == [404] * 9 + [401] * 2


def test_the_matrix_holds_every_call_that_needs_a_right(server: Server) -> None:
    """A new route must be looked at."""
    document = requests.get(server.url + "/openapi.json", timeout=20).json()
    pool_paths = {path for path in document["paths"] if "{pool_id}" in path}
    untested = {p for p in pool_paths if not p.startswith("/_emulator")}
    for method, path, *_ in MATRIX:
        shape = path.partition("?")[0].rstrip("/").format(pool="one").split("/")
        for known in list(untested):
            pieces = known.split("/")
            alike = len(pieces) == len(shape) and all(
                a == b or a.startswith("{") for a, b in zip(pieces, shape, strict=True)
            )
            if alike and method.lower() in document["paths"][known]:
                untested.discard(known)
    # Covered by their neighbours: the same router, the same right.
    assert untested <= {
        "/data-ingestion/api/v1/data-push/{pool_id}/jobs/{job_id}/chunks/upserted",
        "/integration/api/v1/data-pools/{pool_id}/data-models/{model_id}/tables",
        "/integration/api/v1/data-pools/{pool_id}/data-models/{model_id}/last-load",
        "/integration/api/pools/{pool_id}/jobs/{job_id}/cancel",
        "/integration/api/pools/{pool_id}/logs/{job_id}/executions",
        "/integration/api/pools/{pool_id}/logs/executions",
        "/integration/api/pools/{pool_id}/logs/executions/detail",
    }


def test_a_refusal_names_what_is_lacking(server: Server) -> None:
    headers = {"Authorization": "Bearer reads"}
    answer = requests.get(server.url + PUSH.format(pool="one"), headers=headers, timeout=20).json()
    assert answer["errorCode"] == "ADMIN_ACCESS_ERROR"
    assert answer["detail"] == "The caller lacks the permission push on the data pool one."


def test_pools_are_hidden_from_who_has_no_right_there(hiding: Server) -> None:
    #                                nothing reads edits pushes manages runs elsewh everyw full
    assert statuses(hiding, *LOOK) == [404, 200, 403, 403, 403, 200, 404, 200, 200, 401, 401]
    assert statuses(hiding, *CREATE) == [404, 403, 403, 200, 403, 403, 404, 403, 200, 401, 401]
    headers = {"Authorization": "Bearer nothing"}
    known, unknown = (
        requests.get(hiding.url + POOL.format(pool=pool), headers=headers, timeout=20).json()
        for pool in ("one", "none")
    )
    assert {**known, "detail": known["detail"].replace("one", "none")} == unknown


def test_listings_for_readers_only(hiding: Server) -> None:
    assert statuses(hiding, *TABLES) == [404, 200, 403, 403, 403, 200, 404, 200, 200, 401, 401]


@pytest.mark.parametrize(
    ("who", "pools", "permissions"),
    [
        ("nothing", [], None),
        ("reads", ["one"], ["READ"]),
        ("pushes", [], ["PUSH"]),
        ("elsewhere", ["two"], ["EDIT", "MANAGE", "PUSH", "READ"]),
        ("reads everywhere", ["one", "two"], ["READ"]),
        ("mixed", ["one", "two"], ["PUSH", "READ"]),
        (KEY, ["one", "two"], ["EDIT", "MANAGE", "PUSH", "READ"]),
    ],
)
def test_what_is_shown_to_whom(
    server: Server, who: str, pools: list[str], permissions: list[str] | None
) -> None:
    headers = {"Authorization": f"Bearer {who}"}
    listed = requests.get(server.url + "/integration/api/pools", headers=headers, timeout=20)
    assert [pool["id"] for pool in listed.json()] == pools
    url = server.url + "/api/cloud/permissions"
    shown = requests.get(url, headers=headers, timeout=20).json()
    wanted = [{"serviceName": "integration", "permissions": permissions}]
    assert shown == (wanted if permissions else [])


# Tokens: the scope and the permission, both


def token(server: Server, client: str, scope: str | None = None) -> str:
    body = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    answer = requests.post(f"{server.url}/oauth2/token", auth=(client, "s"), data=body, timeout=20)
    assert answer.status_code == 200, answer.text
    return f"Bearer {answer.json()['access_token']}"


@pytest.mark.parametrize(
    ("client", "scope", "expected"),
    [
        # user, look, list, push in pool one; look in pool two
        ("full", None, [200, 200, 200, 200, 403]),
        ("pusher", None, [200, 403, 200, 200, 403]),
        ("narrow", None, [403, 403, 403, 200, 403]),
        ("looker", None, [200, 403, 200, 200, 200]),
        ("looker", "integration.data-pools:read", [200, 403, 200, 403, 200]),
        ("looker", "integration.data-pools:data_push", [403, 403, 403, 200, 403]),
    ],
)
def test_a_token_may_what_scope_and_permission_allow(
    server: Server, client: str, scope: str | None, expected: list[int]
) -> None:
    who = token(server, client, scope)
    found = [
        ask(server, who, ("GET", "/api/cloud", None), "one"),
        ask(server, who, LOOK, "one"),
        ask(server, who, TABLES, "one"),
        ask(server, who, CREATE, "one"),
        ask(server, who, LOOK, "two"),
    ]
    assert found == expected


def test_a_client_may_ask_for_its_own_scopes_only(server: Server) -> None:
    for client, scope in (("narrow", "integration.data-pools"), ("full", "other")):
        body = {"grant_type": "client_credentials", "scope": scope}
        answer = requests.post(
            f"{server.url}/oauth2/token", auth=(client, "s"), data=body, timeout=20
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


def test_a_key_that_may_only_push_pushes(server: Server) -> None:
    pusher = Server(server.process, server.url, server.database)
    pusher.session.headers["Authorization"] = "Bearer pushes"
    Push(pusher, "one").load("pushed", {"id": [1, 2]})
    pusher.session.close()
    assert server.rows("SELECT count(*) FROM one.pushed") == [["2"]]


def test_rights_of_a_caller() -> None:
    caller = Caller("api_key", {"*": frozenset({Right.READ}), "p": frozenset({Right.PUSH})})
    assert caller.may(Right.READ, "p")
    assert caller.may(Right.PUSH, "p")
    assert not caller.may(Right.PUSH, "q")
    assert caller.rights == {Right.READ, Right.PUSH}
    narrowed = Caller("oauth", EVERYWHERE, frozenset({Right.PUSH}))
    assert narrowed.rights == {Right.PUSH}
    assert [right for right in EVERYTHING if narrowed.may(right, "any")] == [Right.PUSH]
