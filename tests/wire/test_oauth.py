"""OAuth: tokens are got, renewed and kept from everybody but the team's host."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from target_celonis.auth import OAuth
from target_celonis.config import OAuthClient, Secret
from target_celonis.errors import AccessError, RemoteError, TargetCelonisError
from target_celonis.http import Http
from target_celonis.multipart import FilePart
from target_celonis.preflight import Check, preflight

from .conftest import KEY
from .server import Reply, WireServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from target_celonis.clock import FakeClock
    from target_celonis.config import Config

TOKENS = "/oauth2/token"
ID = "client-1"


def token(text: str, life: object = 900, **more: object) -> Reply:
    return Reply(200, {"access_token": text, "token_type": "Bearer", "expires_in": life} | more)


@pytest.fixture
def signed(wire: WireServer, clock: FakeClock, client_auth: str) -> Iterator[Http]:
    client = OAuthClient(ID, Secret(KEY), "integration.data-pools", client_auth)
    with Http(wire.url, clock, 2) as http:
        http.authorize(OAuth(client, http, clock))
        yield http


@pytest.fixture
def client_auth() -> str:
    return "basic"


def bearers(wire: WireServer) -> list[str]:
    return [r.headers["authorization"] for r in wire.seen if r.path != TOKENS]


@pytest.mark.parametrize("client_auth", ["basic", "post"])
def test_how_the_client_says_who_it_is(wire: WireServer, signed: Http, client_auth: str) -> None:
    wire.answer(TOKENS, token("t1"))
    assert signed.get("/x").ok
    (asked,) = wire.of(TOKENS)
    assert asked.method == "POST"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
    expected = {"grant_type": "client_credentials", "scope": "integration.data-pools"}
    if client_auth == "post":
        assert "authorization" not in asked.headers
        expected |= {"client_id": ID, "client_secret": KEY}
    else:
        basic = base64.b64encode(f"{ID}:{KEY}".encode()).decode()
        assert asked.headers["authorization"] == f"Basic {basic}"
    assert form == expected
    assert KEY not in asked.target
    assert bearers(wire) == ["Bearer t1"]


def test_a_token_is_used_until_four_fifths_of_its_life(
    wire: WireServer, signed: Http, clock: FakeClock
) -> None:
    wire.answer(TOKENS, token("t1", 1000), token("t2", 1000))
    for seconds in (0, 400, 399, 2, 400):
        clock.seconds += seconds
        signed.get("/x")
    assert bearers(wire) == ["Bearer t1"] * 3 + ["Bearer t2"] * 2


def test_a_refused_token_is_renewed_once(wire: WireServer, signed: Http, chunk_file: Path) -> None:
    """Also for a POST: what was refused was not done."""
    wire.answer(TOKENS, token("t1"), token("t2"), token("t3"))
    wire.answer("/x", Reply(401))
    assert signed.post("/x", file=FilePart(chunk_file)).ok
    first, second = wire.of("/x")
    assert first.body == second.body
    assert bearers(wire) == ["Bearer t1", "Bearer t2"]
    wire.answer("/x", Reply(401), Reply(401), Reply(401))
    assert signed.get("/x").status == 401
    assert len(wire.of("/x")) == 4
    assert len(wire.of(TOKENS)) == 3


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_client_that_is_refused(wire: WireServer, signed: Http, status: int) -> None:
    wire.answer(TOKENS, Reply(status, {"error": "invalid_client"}))
    with pytest.raises(AccessError) as caught:
        signed.get("/x")
    assert (caught.value.code, caught.value.exit_code) == ("TC-ACCESS-04", 3)
    assert str(status) in str(caught.value)
    assert "oauth_client_secret" in str(caught.value)
    assert KEY not in f"{caught.value!r} {caught.value}"
    assert wire.of("/x") == []


def test_a_scope_that_is_refused(wire: WireServer, signed: Http) -> None:
    wire.answer(TOKENS, Reply(400, {"error": "invalid_scope"}))
    with pytest.raises(AccessError, match="oauth_scope"):
        signed.get("/x")


@pytest.mark.parametrize("body", [{}, [], "x", {"access_token": 3}, {"access_token": ""}, b"<p>"])
def test_answers_without_a_token(wire: WireServer, signed: Http, body: object) -> None:
    wire.answer(TOKENS, Reply(200, body))
    with pytest.raises(RemoteError) as caught:
        signed.get("/x")
    assert caught.value.code == "TC-REMOTE-05"


@pytest.mark.parametrize("text", ["a b", "a\r\nX-Injected: b", "tök", "\u2028"])
def test_a_token_that_fits_no_header(wire: WireServer, signed: Http, text: str) -> None:
    wire.answer(TOKENS, token(text))
    with pytest.raises(RemoteError) as caught:
        signed.post("/x")
    assert caught.value.code == "TC-REMOTE-05"
    assert wire.of("/x") == []


@pytest.mark.parametrize("client_auth", ["basic", "post"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_asking_for_a_token_is_not_redirected(wire: WireServer, signed: Http, status: int) -> None:
    """The secret is for the team's host alone."""
    with WireServer() as other:
        wire.answer(TOKENS, Reply(status, headers=(("Location", f"{other.url}/stolen"),)))
        with pytest.raises(RemoteError, match=f"status {status}"):
            signed.get("/x")
        assert other.seen == []
    assert len(wire.seen) == 1


def test_a_page_is_no_token(wire: WireServer, signed: Http) -> None:
    page = Reply(200, b"<p>Log in</p>", (("Content-Type", "text/html"),))
    wire.answer(TOKENS, page, token("t1"), *[page] * 9)
    assert signed.get("/x").ok
    wire.answer("/x", Reply(401))
    with pytest.raises(RemoteError, match="web page"):
        signed.get("/x")


@pytest.mark.parametrize("life", [None, "900", True])
def test_a_life_that_is_no_number(wire: WireServer, signed: Http, life: object) -> None:
    wire.answer(TOKENS, token("t1", life), token("t2"))
    for _ in range(3):
        assert signed.get("/x").ok


def test_asking_for_a_token_is_repeated(wire: WireServer, signed: Http) -> None:
    wire.answer(TOKENS, Reply(drop="read"), Reply(503), Reply(429), token("t1"))
    assert signed.get("/x").ok
    assert len(wire.of(TOKENS)) == 4


def test_the_token_is_for_one_host_only(wire: WireServer, clock: FakeClock) -> None:
    client = OAuthClient(ID, Secret(KEY), "s", "basic")
    with WireServer() as other, Http(wire.url, clock, 1) as http, Http(other.url, clock, 1) as away:
        away.authorize(OAuth(client, http, clock))
        away.get("/x")
        assert "authorization" not in other.seen[0].headers


def test_the_secret_is_in_no_repr() -> None:
    assert KEY not in repr(OAuthClient(ID, Secret(KEY), "s", "basic"))


def test_a_token_without_the_scope_to_push(
    wire: WireServer, clock: FakeClock, config: Callable[..., Config]
) -> None:
    settings = {"oauth_client_id": ID, "oauth_client_secret": KEY, "api_key": None}
    checks: list[Check] = []
    with Http(wire.url, clock, 1) as http:
        wire.answer(TOKENS, token("t1", scope="openid"))
        wire.answer("list", Reply(403))
        with pytest.raises(TargetCelonisError) as caught:
            preflight(http, config(**settings), None, clock, checks)
        assert (caught.value.code, caught.value.exit_code) == ("TC-ACCESS-04", 3)
        assert checks == []
        wire.answer(TOKENS, token("t2", scope="openid integration.data-pools:data_push"))
        preflight(http, config(**settings), None, clock, checks)
    assert "OAuth" in " ".join(check.found for check in checks)
