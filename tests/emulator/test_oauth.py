"""OAuth clients: the token endpoint, how long tokens live, what their scopes permit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from celonis_emulator.oauth import OAuthClient, OAuthServer
from celonis_emulator.refusals import Refusal
from celonis_emulator.switches import Switches

from .conftest import KEY, NO_LIMITS, Nursery, Push, Server, StartServer, eventually, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID, SECRET = "a-client", "s3cret:with+signs/%41"
FULL = "integration.data-pools"
PUSH, READ = f"{FULL}:data_push", f"{FULL}:read"
GRANT = {"grant_type": "client_credentials"}
POSTED = {"client_id": ID, "client_secret": SECRET}
JOBS = "/data-ingestion/api/v1/data-push/local/jobs/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Server]:
    """A server whose clients have several scopes and log in either way."""
    started = start(
        tmp_path_factory.mktemp("oauth"),
        *NO_LIMITS,
        *("--oauth-client", "another:client", "--oauth-client", f"{ID}:{SECRET}"),
        *("--oauth-scope", f"{FULL} {PUSH} {READ} process-analytics"),
        nursery=nursery,
    )
    yield started
    started.stop()


def ask(server: Server, *, basic: bool = False, **options: Any) -> requests.Response:
    """Send a token request, by a client of its own that keeps nothing."""
    auth = (ID, SECRET) if basic else None
    return requests.post(f"{server.url}/oauth2/token", auth=auth, timeout=20, **options)


def token_for(server: Server, scope: str) -> str:
    answer = ask(server, basic=True, data=GRANT | {"scope": scope})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def status(server: Server, token: str, path: str = JOBS, scheme: str = "Bearer") -> int:
    headers = {"Authorization": f"{scheme} {token}"}
    return requests.get(server.url + path, headers=headers, timeout=20).status_code


AS_PARTS = {name: (None, value) for name, value in (GRANT | POSTED | {"scope": PUSH}).items()}


@pytest.mark.parametrize(
    "options",
    [
        {"data": GRANT | POSTED | {"scope": PUSH}},
        {"files": AS_PARTS},
        {"params": GRANT | POSTED | {"scope": PUSH}},
        {"params": GRANT | {"scope": READ}, "data": POSTED | {"scope": PUSH}},
        {"data": GRANT | {"scope": PUSH}, "basic": True},
        {"data": GRANT | {"scope": f" {PUSH}  {PUSH} ", "client_id": ID}, "basic": True},
    ],
)
def test_a_token(server: Server, options: dict[str, Any]) -> None:
    answer = ask(server, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    content = answer.json()
    token = content.pop("access_token")
    assert content == {"scope": PUSH, "token_type": "Bearer", "expires_in": 899}
    assert len(token) >= 32
    assert ask(server, **options).json()["access_token"] != token
    assert status(server, token) == 200
    assert status(server, token, scheme="AppKey") == 401
    assert status(server, token + "x") == 401
    assert status(server, KEY) == 200


def test_without_a_scope_all_of_them(server: Server) -> None:
    content = ask(server, basic=True, data=GRANT).json()
    assert content["scope"] == f"{FULL} {PUSH} {READ} process-analytics"


@pytest.mark.parametrize(
    ("status", "error", "options"),
    [
        (400, "invalid_request", {}),
        (400, "invalid_request", {"data": POSTED}),
        (400, "invalid_request", {"json": GRANT | POSTED}),
        (400, "invalid_request", {"data": [*GRANT.items(), *GRANT.items()]}),
        (400, "invalid_request", {"data": GRANT | POSTED, "basic": True}),
        (400, "invalid_request", {"data": GRANT | {"client_id": "another"}, "basic": True}),
        (400, "invalid_request", {"files": AS_PARTS | {"file": ("f", b"x")}}),
        (
            400,
            "invalid_request",
            {"data": b"no parts", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        ),
        (400, "unsupported_grant_type", {"data": POSTED | {"grant_type": "password"}}),
        (400, "invalid_scope", {"data": GRANT | POSTED | {"scope": f"{FULL} everything"}}),
        (401, "invalid_client", {"data": GRANT}),
        (401, "invalid_client", {"data": GRANT | {"client_id": ID}}),
        (401, "invalid_client", {"data": GRANT | POSTED | {"client_secret": "wrong"}}),
        (401, "invalid_client", {"data": GRANT | POSTED | {"client_id": "another"}}),
        (401, "invalid_client", {"data": GRANT, "headers": {"Authorization": f"Bearer {KEY}"}}),
        (401, "invalid_client", {"data": GRANT, "headers": {"Authorization": "Basic ü"}}),
        (401, "invalid_client", {"data": GRANT, "headers": {"Authorization": "Basic bm9jb2xvbg"}}),
    ],
)
def test_refusals(server: Server, status: int, error: str, options: dict[str, Any]) -> None:
    headers = {k: v.encode("latin-1") for k, v in options.pop("headers", {}).items()}
    answer = ask(server, **options, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "error_description"}
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert SECRET not in answer.text


@pytest.mark.parametrize(("way", "other"), [("basic", "post"), ("post", "basic")])
def test_a_client_logs_in_as_it_was_registered(
    start_server: StartServer, way: str, other: str
) -> None:
    server = start_server("--oauth-client", f"{ID}:{SECRET}", "--oauth-client-auth", way)
    answers = {
        "basic": ask(server, basic=True, data=GRANT),
        "post": ask(server, data=GRANT | POSTED),
    }
    assert answers[way].status_code == 200
    assert answers[way].json()["scope"] == FULL
    assert answers[other].status_code == 401
    assert answers[other].json()["error"] == "invalid_client"


TABLES = "/integration/api/pools/local/tables"
SCOPED = {
    FULL: {"push", "list", "look"},
    PUSH: {"push"},
    READ: {"list", "look"},
    f"{PUSH} {READ}": {"push", "list", "look"},
    "process-analytics": set[str](),
}


@pytest.mark.parametrize("scope", SCOPED)
def test_what_a_scope_permits(server: Server, scope: str) -> None:
    token = token_for(server, scope)
    paths = {"push": JOBS, "list": TABLES, "look": "/api/cloud"}
    statuses = {name: status(server, token, path) for name, path in paths.items()}
    assert statuses == {name: 200 if name in SCOPED[scope] else 403 for name in paths}


def test_a_missing_scope_is_named(server: Server) -> None:
    headers = {"Authorization": f"Bearer {token_for(server, READ)}"}
    # The pool is not there either: who may not push does not learn that.
    for pool in ("local", "nowhere"):
        url = server.url + JOBS.replace("local", pool)
        answer = requests.post(url, json={}, headers=headers, timeout=20)
        assert answer.status_code == 403
        assert answer.json()["detail"] == f"The token lacks the scope {FULL} or {PUSH}."


def test_a_push_by_token(server: Server, table: str) -> None:
    by_token = Server(server.process, server.url, server.database)
    by_token.session.headers["Authorization"] = f"Bearer {token_for(server, PUSH)}"
    Push(by_token).load(table, {"id": [1, 2]})
    by_token.session.close()
    assert server.rows(f"SELECT count(*) FROM local.{table}") == [["2"]]


@pytest.mark.parametrize(
    ("seconds", "options"),
    [(1, ("--token-seconds", "1")), (899, ("--token-early-seconds", "898"))],
)
def test_a_token_dies(start_server: StartServer, seconds: int, options: tuple[str, ...]) -> None:
    server = start_server("--oauth-client", f"{ID}:{SECRET}", *options)
    answer = ask(server, basic=True, data=GRANT).json()
    started = time.monotonic()
    assert answer["expires_in"] == seconds
    assert status(server, answer["access_token"]) == 200
    eventually(lambda: status(server, answer["access_token"]) == 401, "the token dies")
    assert 0.8 < time.monotonic() - started < 5
    assert status(server, token_for(server, FULL)) == 200


def test_an_upload_that_began_in_time_is_taken(start_server: StartServer) -> None:
    server = start_server("--oauth-client", f"{ID}:{SECRET}", "--token-seconds", "1")
    headers = {"Authorization": f"Bearer {token_for(server, FULL)}"}

    def slow_body() -> Iterator[bytes]:
        yield b'{"targetName": "t", "type": "DELTA", '
        eventually(lambda: status(server, headers["Authorization"][7:]) == 401, "the token dies")
        yield b'"dataPoolId": "local"}'

    headers["Content-Type"] = "application/json"
    answer = requests.post(server.url + JOBS, data=slow_body(), headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text


def test_tokens_and_secrets_are_in_no_log_and_no_file(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Also: clients of the environment are taken, and a token dies with the server."""
    variables = {"CELONIS_EMULATOR_OAUTH_CLIENT": f"x:y, {ID}:{SECRET}"}
    log = tmp_path / "log.txt"
    options = {"environment": variables, "log": log}
    server = start_server("--log-level", "debug", **options)
    token = token_for(server, FULL)
    assert status(server, token) == 200
    ask(server, params=GRANT | POSTED | {"client_secret": "wrong-secret", "scope": "nothing"})
    server.stop()
    server = start_server("--log-level", "debug", database=server.database, **options)
    assert status(server, token) == 401
    server.stop()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert log.stat().st_size > 0
    for secret in (token, SECRET, "wrong-secret"):
        assert secret.encode() not in written


def test_nothing_of_it_is_shown() -> None:
    client = OAuthClient(ID, SECRET)
    assert SECRET not in repr(client)
    with pytest.raises(Refusal) as refused:
        OAuthServer([client], Switches()).grant(GRANT | POSTED | {"client_id": "other"}, None)
    assert SECRET not in str(refused.value)


def test_dead_tokens_are_forgotten() -> None:
    now = [0.0]
    server = OAuthServer([OAuthClient(ID, SECRET)], Switches(token_seconds=10), lambda: now[0])
    tokens = []
    for time_ in (0, 5, 10.5):
        now[0] = time_
        tokens.append(server.grant(GRANT | POSTED, None)["access_token"].encode())
    assert server.granted(tokens[0]) is None
    granted = server.granted(tokens[1])
    assert granted is not None
    assert granted.scopes == {FULL}
    assert len(server._tokens) == 2
