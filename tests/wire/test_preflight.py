"""What is found out before the first line is read: kind of key, prefix, pool, connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from target_celonis.auth import candidates
from target_celonis.clock import FakeClock
from target_celonis.config import Config, Secret
from target_celonis.errors import AccessError, RemoteError, TargetCelonisError
from target_celonis.http import Http
from target_celonis.preflight import Check, preflight

from .conftest import KEY, POOL
from .server import Reply, WireServer

if TYPE_CHECKING:
    from target_celonis.celonis import Celonis

MakeConfig = Callable[..., Config]
OTHER_WORD = {"AppKey": "Bearer", "Bearer": "AppKey"}
METHODS = {"AppKey": "app_key", "Bearer": "api_key"}


@pytest.fixture
def unsigned(wire: WireServer, clock: FakeClock) -> Iterator[Http]:
    with Http(wire.url, clock, 2) as session:
        yield session


def look(http: Http, config: Config) -> tuple[Celonis, list[Check]]:
    checks: list[Check] = []
    return preflight(http, config, Secret(KEY), FakeClock(), checks), checks


def failure(http: Http, config: Config) -> TargetCelonisError:
    with pytest.raises(TargetCelonisError) as caught:
        look(http, config)
    assert KEY not in f"{caught.value!r} {caught.value}"
    return caught.value


@pytest.mark.parametrize("prefix", ["data-ingestion", "integration"])
@pytest.mark.parametrize("word", ["AppKey", "Bearer"])
def test_kind_of_key_and_prefix_are_found_out(
    wire: WireServer, unsigned: Http, config: MakeConfig, word: str, prefix: str
) -> None:
    wire.accepts, wire.prefixes = {f"{word} {KEY}"}, (prefix,)
    celonis, checks = look(unsigned, config())
    assert word in " ".join(check.found for check in checks)
    assert f"/{prefix}" in " ".join(check.found for check in checks)
    wire.seen.clear()
    celonis.list_jobs()
    (request,) = wire.seen
    assert request.path == f"/{prefix}/api/v1/data-push/{POOL}/jobs/"
    assert request.headers["authorization"] == f"{word} {KEY}"


@pytest.mark.parametrize("word", ["AppKey", "Bearer"])
def test_a_named_kind_of_key_is_the_only_one_tried(
    wire: WireServer, unsigned: Http, config: MakeConfig, word: str
) -> None:
    wire.accepts = {f"{OTHER_WORD[word]} {KEY}"}
    error = failure(unsigned, config(auth_method=METHODS[word]))
    assert (error.code, error.exit_code) == ("TC-ACCESS-01", 3)
    assert {request.headers["authorization"] for request in wire.seen} == {f"{word} {KEY}"}
    wire.accepts = {f"{word} {KEY}"}
    look(unsigned, config(auth_method=METHODS[word]))


@pytest.mark.parametrize("given", ["integration", "/integration", "/integration/"])
def test_a_named_prefix_is_the_only_one_tried(
    wire: WireServer, unsigned: Http, config: MakeConfig, given: str
) -> None:
    look(unsigned, config(data_push_prefix=given))
    assert {r.path for r in wire.of("list")} == {f"/integration/api/v1/data-push/{POOL}/jobs/"}
    wire.prefixes = ("data-ingestion",)
    error = failure(unsigned, config(data_push_prefix=given))
    assert (error.code, error.exit_code) == ("TC-ACCESS-02", 3)


def test_the_current_prefix_comes_first(
    wire: WireServer, unsigned: Http, config: MakeConfig
) -> None:
    look(unsigned, config())
    assert {request.path.split("/")[1] for request in wire.of("list")} == {"data-ingestion"}


def test_a_wrong_key(wire: WireServer, unsigned: Http, config: MakeConfig) -> None:
    wire.accepts = set()
    error = failure(unsigned, config())
    assert isinstance(error, AccessError)
    assert error.code == "TC-ACCESS-01"
    assert "401" in str(error)
    assert "api_key" in str(error)
    assert len(wire.seen) <= 4


@pytest.mark.parametrize("status", [403, 404])
def test_an_unknown_pool_or_one_without_permission(
    wire: WireServer, unsigned: Http, config: MakeConfig, status: int
) -> None:
    wire.answer("list", *[Reply(status, {"title": "no"})] * 8)
    error = failure(unsigned, config())
    assert (error.code, error.exit_code) == ("TC-ACCESS-02", 3)
    for hint in (POOL, str(status), "does not exist", "may not push", "data_pool_id"):
        assert hint in str(error)


def test_one_kind_of_key_refused_and_the_other_without_a_pool(
    wire: WireServer, unsigned: Http, config: MakeConfig
) -> None:
    wire.answer("list", Reply(401), Reply(404), Reply(404))
    assert failure(unsigned, config()).code == "TC-ACCESS-02"


@pytest.mark.parametrize("status", [400, 409, 410, 302])
def test_any_other_answer_is_final(
    wire: WireServer, unsigned: Http, config: MakeConfig, status: int
) -> None:
    wire.answer("list", Reply(status, {"message": "odd"}))
    error = failure(unsigned, config())
    assert (type(error), error.code) == (RemoteError, "TC-REMOTE-02")
    assert len(wire.seen) == 1


def test_429_asks_for_patience_not_for_another_key(
    wire: WireServer, unsigned: Http, config: MakeConfig, clock: FakeClock
) -> None:
    wire.answer("list", Reply(429, headers=(("Retry-After", "3"),)))
    look(unsigned, config())
    assert clock.waits == [3.0]
    assert len({request.headers["authorization"] for request in wire.seen}) == 1


def test_something_that_is_no_celonis(wire: WireServer, unsigned: Http, config: MakeConfig) -> None:
    wire.answer("list", *[Reply(200, b"<html>Welcome!</html>")] * 2)
    assert failure(unsigned, config()).code == "TC-REMOTE-05"


@pytest.mark.parametrize("body", [{}, {"content": []}, [1], ["a"], [{"no": "id"}], None, "x"])
def test_json_that_is_no_list_of_jobs(
    wire: WireServer, unsigned: Http, config: MakeConfig, body: object
) -> None:
    wire.answer("list", *[Reply(200, body)] * 2)
    assert failure(unsigned, config()).code == "TC-REMOTE-05"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(404), "TC-ACCESS-03"),
        (Reply(401), "TC-ACCESS-01"),
        (Reply(400), "TC-REMOTE-02"),
    ],
)
def test_a_connection_that_cannot_be_used(
    wire: WireServer, unsigned: Http, config: MakeConfig, reply: Reply, code: str
) -> None:
    wire.answer("connection", reply)
    error = failure(unsigned, config(connection_id="conn/1"))
    assert error.code == code
    if code == "TC-ACCESS-03":
        assert "conn/1" in str(error)
        assert "connection_id" in str(error)


@pytest.mark.parametrize("reply", [Reply(200, {"id": "conn/1"}), Reply(403)])
def test_a_connection_that_is_there_or_cannot_be_looked_at(
    wire: WireServer, unsigned: Http, config: MakeConfig, reply: Reply
) -> None:
    wire.answer("connection", reply)
    _, checks = look(unsigned, config(connection_id="conn/1"))
    (request,) = wire.of("connection")
    assert request.path == f"/integration/api/pools/{POOL}/data-sources/conn%2F1"
    assert "conn/1" in checks[-1].found


def test_what_was_good_is_told_also_when_something_is_not(
    wire: WireServer, unsigned: Http, config: MakeConfig
) -> None:
    wire.answer("connection", Reply(404))
    checks: list[Check] = []
    with pytest.raises(AccessError):
        preflight(unsigned, config(connection_id="gone"), Secret(KEY), FakeClock(), checks)
    assert len(checks) >= 3
    assert not any("gone" in check.found for check in checks)


def test_looking_changes_nothing(wire: WireServer, unsigned: Http, config: MakeConfig) -> None:
    look(unsigned, config(connection_id="c"))
    assert {request.method for request in wire.seen} == {"GET"}
    for request in wire.seen:
        assert KEY not in request.target
        assert request.body == b""


def test_ids_are_quoted_in_paths(wire: WireServer, unsigned: Http, config: MakeConfig) -> None:
    look(unsigned, config(data_pool_id="a pool?"))
    assert wire.seen[0].path == "/data-ingestion/api/v1/data-push/a%20pool%3F/jobs/"


def test_candidates() -> None:
    assert candidates("auto") == ("app_key", "api_key")
    assert candidates("api_key") == ("api_key",)


@pytest.mark.parametrize("host", ["127.example.com", "localhost.example.com", "10.0.0.1"])
def test_plain_http_is_for_this_machine_only(config: MakeConfig, host: str) -> None:
    with pytest.raises(TargetCelonisError) as caught:
        config(base_url=f"http://{host}")
    assert caught.value.code == "TC-SETTINGS-03"
