"""Answers of any size and kind, of things in between too: bounded, and never taken for another."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_celonis import limits
from target_celonis.answers import Answer, read_answer, told_pause_seconds
from target_celonis.config import Secret
from target_celonis.errors import OutcomeUnknownError, RemoteError
from target_celonis.http import Http

from .server import Reply, WireServer

if TYPE_CHECKING:
    from target_celonis.clock import FakeClock

NOW = 1_700_000_000.0
OK = b"HTTP/1.1 200 OK\r\n"
HTML = (("Content-Type", "text/html; charset=utf-8"),)
LOGIN = b"<!DOCTYPE html><title>Log in to the guest network</title>"


def ends(http: Http, wire: WireServer, method: str) -> int | str:
    """Ask once and return the status, ``unknown``, or ``again`` if the answer was none.

    The server gives its ordinary answer to a second try.
    """
    before = len(wire.seen)
    try:
        answer = {"GET": http.get, "DELETE": http.delete, "POST": http.post}[method]("/x")
    except OutcomeUnknownError:
        assert len(wire.seen) == before + 1
        return "unknown"
    answer.explanation()
    if len(wire.seen) > before + 1:
        assert answer.status == 200
        return "again"
    return answer.status


# --- answers that do not come to an end


DRIPS = {
    "status line": Reply(raw=b"HTTP/1.1 200 ", flood=b"x"),
    "header": Reply(raw=OK + b"X-Long: ", flood=b"x"),
    "headers": Reply(raw=OK + b"Content-Length: 0\r\n", flood=b"A: b\r\n"),
    "body": Reply(raw=OK + b"Content-Length: 1000000\r\n\r\n", flood=b"x"),
    "body without a length": Reply(raw=OK + b"\r\n", flood=b"x"),
    "pieces": Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n", flood=b"1\r\nx\r\n"),
    "continue": Reply(raw=b"", flood=b"HTTP/1.1 100 Continue\r\n\r\n"),
}


def dripping(reply: Reply) -> Reply:
    return Reply(raw=reply.raw, flood=reply.flood, flood_pause_seconds=0.01)


@pytest.mark.parametrize("reply", [dripping(r) for r in DRIPS.values()], ids=list(DRIPS))
@pytest.mark.parametrize(("method", "end"), [("GET", "again"), ("POST", "unknown")])
def test_an_answer_in_drips_is_none(
    wire: WireServer,
    http: Http,
    monkeypatch: pytest.MonkeyPatch,
    reply: Reply,
    method: str,
    end: str,
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.2)
    wire.answer("/x", reply)
    assert ends(http, wire, method) == end


@pytest.mark.parametrize(("method", "end"), [("GET", "again"), ("POST", "unknown")])
def test_silence_is_no_answer(
    wire: WireServer, http: Http, monkeypatch: pytest.MonkeyPatch, method: str, end: str
) -> None:
    """Also when less is left of the deadline than a single byte may take."""
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.2)
    wire.answer("/x", Reply(delay_seconds=1.0))
    assert ends(http, wire, method) == end


def test_the_deadline_is_for_each_answer_anew(
    wire: WireServer, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a connection that is kept."""
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.5)
    wire.answer("/x", *[Reply(delay_seconds=0.2)] * 4)
    for _ in range(4):
        assert http.post("/x").ok
    assert len(wire.seen) == 4


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_drips_over_tls(
    tls_wire: WireServer, trusting: Http, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.2)
    tls_wire.answer("/x", dripping(DRIPS["body"]))
    assert ends(trusting, tls_wire, method) == {"GET": "again", "POST": "unknown"}[method]


FLOODS = {
    "header": Reply(raw=OK, flood=b"x" * 65536),
    "headers": Reply(raw=OK, flood=b"Name: value\r\n" * 1000),
    "continue": Reply(raw=b"", flood=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "size of a piece": Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n", flood=b"0" * 65536),
    "trailers": Reply(
        raw=OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", flood=b"Name: value\r\n" * 1000
    ),
}


@pytest.mark.parametrize("reply", FLOODS.values(), ids=list(FLOODS))
@pytest.mark.parametrize(("method", "end"), [("GET", "again"), ("POST", "unknown")])
def test_a_flood_is_no_answer(
    wire: WireServer,
    http: Http,
    monkeypatch: pytest.MonkeyPatch,
    reply: Reply,
    method: str,
    end: str,
) -> None:
    monkeypatch.setattr(limits, "ANSWER_LIMIT_BYTES", 1_000_000)
    wire.answer("/x", reply)
    assert ends(http, wire, method) == end
    assert wire.bytes_sent < 20_000_000  # what buffers of the system hold comes on top


@pytest.mark.parametrize("status", [200, 302, 404])
def test_a_body_without_an_end_is_cut(
    wire: WireServer, http: Http, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(limits, "ANSWER_LIMIT_BYTES", 1_000_000)
    wire.answer("/x", Reply(status, headers=(("Location", "/y"),), endless=True))
    answer = http.post("/x")
    assert (answer.status, len(answer.body)) == (status, 1_000_000)
    assert http.get("/x").ok  # on another connection


def bomb(size_of_block: int, blocks: int) -> bytes:
    """Return gzip of so many zeros; after a full flush each block is the same bytes."""
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(size_of_block)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * blocks


def test_a_bomb_is_not_let_off(
    wire: WireServer, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_LIMIT_BYTES", 1_000_000)
    body = bomb(1 << 24, 640)  # ten billion zeros
    assert zlib.decompressobj(31).decompress(body, 5_000_000) == bytes(5_000_000)
    wire.answer("/x", Reply(200, body, (("Content-Encoding", "gzip"),)))
    assert http.get("/x").body == bytes(1_000_000)
    assert wire.seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate"])
def test_an_answer_that_is_compressed_unasked(wire: WireServer, http: Http, encoding: str) -> None:
    body = json.dumps({"a": [1] * 1000}).encode()
    packed = zlib.compress(body) if encoding == "deflate" else gzip.compress(body)
    wire.answer("/x", Reply(200, packed, (("Content-Encoding", encoding),)))
    assert http.get("/x").json() == {"a": [1] * 1000}


# --- answers that are none, and answers that are strange


def headers(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % number for number in range(count))


NO_ANSWER = {
    "nothing": b"",
    "a word": b"hello",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status above all": b"HTTP/1.1 1000 OK\r\n\r\n",
    "long status line": b"HTTP/1.1 200 " + b"x" * 70_000,
    "half a header": OK + b"Content-Le",
    "headers without an end": OK + b"Content-Length: 0\r\n",
    "header flood": OK + headers(101) + b"Content-Length: 0\r\n\r\n",
    "long header": OK + b"A: " + b"x" * 70_000 + b"\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1, 2\r\n\r\nab",
    "too short": OK + b"Content-Length: 10\r\n\r\n12345",
    "too short, refused": b"HTTP/1.1 404 No\r\nContent-Length: 10\r\n\r\n12345",
    "piece too short": OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\nxx",
    "piece of no size": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n0\r\n\r\n",
    "no last piece": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n",
    "other protocol next": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n",
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("raw", NO_ANSWER.values(), ids=list(NO_ANSWER))
@pytest.mark.parametrize(
    ("method", "end"), [("GET", "again"), ("DELETE", "again"), ("POST", "unknown")]
)
def test_no_answers(wire: WireServer, http: Http, raw: bytes, method: str, end: str) -> None:
    wire.answer("/x", Reply(raw=raw))
    assert ends(http, wire, method) == end


STRANGE = {
    "empty": (200, OK + b"Content-Length: 0\r\n\r\n"),
    "no length": (200, OK + b"\r\nbody"),
    "less than no length": (200, OK + b"Content-Length: -5\r\n\r\nbody"),
    "length of letters": (200, OK + b"Content-Length: ten\r\n\r\nbody"),
    "length of many digits": (200, OK + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\nbody"),
    "too long": (200, OK + b"Content-Length: 2\r\n\r\n12345"),
    "continue first": (200, b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK + b"\r\nbody"),
    "old": (200, b"HTTP/1.0 200 OK\r\n\r\nbody"),
    "no content": (204, b"HTTP/1.1 204 No Content\r\n\r\n"),
    "no content with one": (204, b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"),
    "reset content": (205, b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
    "half": (206, b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx"),
    "several": (300, b"HTTP/1.1 300 Multiple Choices\r\nContent-Length: 0\r\n\r\n"),
    "not modified": (304, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
    "unheard of": (299, b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n"),
    "refused oddly": (499, b"HTTP/1.1 499 Odd\r\nContent-Length: 0\r\n\r\n"),
    "many headers": (200, OK + headers(98) + b"Content-Length: 0\r\n\r\n"),
    "odd headers": (
        200,
        OK + b"Content-Type: \xff\xfe;=;;\r\nSet-Cookie: =;;\xe4; expires=\r\n"
        b"Content-Encoding: gzip, gzip, br\r\nContent-Length: 1\r\n\r\nx",
    ),
    "gzip that is none": (200, OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"),
    "nowhere": (302, b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n"),
    "to no port": (
        307,
        b"HTTP/1.1 307 T\r\nLocation: http://a:b/\xff\r\nContent-Length: 0\r\n\r\n",
    ),
    "far away": (301, b"HTTP/1.1 301 M\r\nLocation: file:///etc/x\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize(("status", "raw"), STRANGE.values(), ids=list(STRANGE))
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_strange_answers(
    wire: WireServer, http: Http, status: int, raw: bytes, method: str
) -> None:
    wire.answer("/x", Reply(raw=raw))
    assert ends(http, wire, method) == status
    assert http.get("/x").ok  # nothing of it is left for the next request


DEEP = {
    "lists": b"[" * 100_000,
    "whole lists": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000,
    "in an error": b'{"errors":[{"error":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    "in a reference": b'{"message":"m","reference":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", DEEP.values(), ids=list(DEEP))
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_that_nests_deep(wire: WireServer, http: Http, status: int, body: bytes) -> None:
    wire.answer("/x", *[Reply(status, body)] * limits.RETRY_TRIES)
    answer = http.get("/x")
    assert answer.explanation() in ("", "m")
    with pytest.raises(RemoteError) as caught:
        answer.json()
    assert caught.value.code == "TC-REMOTE-05"


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode))
def test_any_body_has_an_explanation(body: bytes) -> None:
    answer = Answer(400, body)
    assert len(answer.explanation()) <= 500
    with suppress(RemoteError):  # and nothing else
        answer.json()


@pytest.mark.parametrize("depth", range(100, 1000, 150))
def test_what_a_refusal_nests_is_left_out(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    assert Answer(400, b'{"errors":[{"error":' + nested + b"}]}").explanation() == ""
    told = Answer(400, b'{"message":"m","reference":' + nested + b"}")
    assert told.explanation() in ("m", "")


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "gzip, gzip", "\xff"]))
def test_any_bytes_with_any_coding(body: bytes, coding: str) -> None:
    got = read_answer(200, {"Content-Encoding": coding}, [body], NOW)
    assert got.ok
    assert isinstance(got.body, bytes)


# --- pages


@pytest.mark.parametrize(("method", "end"), [("GET", "again"), ("DELETE", "again")])
@pytest.mark.parametrize("kind", ["text/html", "Text/HTML ; charset=x", "application/xhtml+xml"])
def test_a_page_is_no_answer(
    wire: WireServer, http: Http, method: str, end: str, kind: str
) -> None:
    wire.answer("/x", Reply(200, LOGIN, (("Content-Type", kind),)))
    assert ends(http, wire, method) == end


@pytest.mark.parametrize("status", [200, 201, 203])
def test_a_page_confirms_nothing(wire: WireServer, http: Http, status: int) -> None:
    wire.answer("/x", Reply(status, LOGIN, HTML))
    assert ends(http, wire, "POST") == "unknown"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_nothing_but_pages(wire: WireServer, http: Http, clock: FakeClock, method: str) -> None:
    wire.answer("/x", *[Reply(200, LOGIN, HTML)] * 50)
    with pytest.raises(RemoteError, match=r"web page .* `base_url`.* log-in") as caught:
        ends(http, wire, method)
    assert caught.value.code == "TC-REMOTE-05"
    assert type(caught.value) is RemoteError
    assert len(wire.seen) == limits.RETRY_TRIES
    assert len(clock.waits) == limits.RETRY_TRIES - 1


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"", HTML),  # what frameworks send along with nothing
        (204, b"", HTML),
        (200, b" \r\n", HTML),
        (200, b"fine", (("Content-Type", "text/plain"),)),
        (200, LOGIN, ()),
        (200, b"{}", (("Content-Type", "application/json"),)),
        (200, b"x", (("Content-Type", "application/octet-stream"),)),
        (403, LOGIN, HTML),
        (404, LOGIN, HTML),
        (302, LOGIN, HTML),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_no_page(
    wire: WireServer,
    http: Http,
    method: str,
    status: int,
    body: bytes,
    headers: tuple[tuple[str, str], ...],
) -> None:
    wire.answer("/x", Reply(status, body, headers))
    assert ends(http, wire, method) == status


# --- pauses that are told


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": formatdate(NOW + 90)}, 90.0),
        ({"retry-after": "Tue, 14 Nov 2023 23:14:20 +0100"}, 60.0),
        ({"retry-after": formatdate(NOW, usegmt=True)}, 0.1),
        ({"retry-after": formatdate(NOW - 1, usegmt=True)}, None),
        ({"retry-after": formatdate(NOW + 3601, usegmt=True)}, None),
        ({"retry-after": "Tue, 99 Nov 2023 99:99:99 GMT"}, None),
        ({"retry-after": "Tue, 14 Nov 99999999 22:14:20 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "a while"}, None),
        ({"x-ratelimit-reset": "7", "retry-after": formatdate(NOW + 90)}, 7.0),
        ({"x-ratelimit-reset": "-7", "retry-after": formatdate(NOW + 90)}, 90.0),
        ({"x-ratelimit-reset": formatdate(NOW + 90)}, None),
        ({}, None),
    ],
)
def test_told_pauses(headers: dict[str, str], seconds: float | None) -> None:
    assert told_pause_seconds(headers, NOW) == seconds


@given(st.text(max_size=40))
def test_any_text_as_a_told_pause(text: str) -> None:
    seconds = told_pause_seconds({"retry-after": text, "x-ratelimit-reset": text}, NOW)
    assert seconds is None or 0.1 <= seconds <= 3600


def test_a_date_is_waited_for(wire: WireServer, http: Http, clock: FakeClock) -> None:
    date = formatdate(clock.now() + 45, usegmt=True)
    wire.answer("/x", Reply(429, headers=(("Retry-After", date),)))
    assert http.post("/x").ok
    assert clock.waits == [45.0]


# --- proxies


@dataclass
class Tunnel:
    """A proxy, and a session that goes through it to a server with TLS."""

    proxy: WireServer
    server: WireServer
    http: Http


@pytest.fixture
def tunnel(
    wire: WireServer, tls_wire: WireServer, clock: FakeClock, certificate: tuple[object, object]
) -> Tunnel:
    proxy = Secret(wire.url)
    with Http(tls_wire.url, clock, 1, ca_bundle=certificate[0], proxy=proxy) as http:  # type: ignore[arg-type]
        yield Tunnel(wire, tls_wire, http)


@pytest.mark.parametrize("status", [400, 403, 407, 502, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_tunnel_that_is_refused(tunnel: Tunnel, method: str, status: int) -> None:
    tunnel.proxy.answer("tunnel", *[Reply(status)] * 50)
    with pytest.raises(RemoteError, match=f"proxy refuses .*status {status}") as caught:
        ends(tunnel.http, tunnel.server, method)
    assert caught.value.code == "TC-REMOTE-06"
    assert type(caught.value) is RemoteError
    assert len(tunnel.proxy.seen) == (1 if status < 500 else limits.RETRY_TRIES)
    assert tunnel.server.seen == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(503),
        Reply(drop="read"),
        Reply(raw=b"hello\r\n"),
        Reply(raw=OK + headers(101) + b"\r\n"),
        Reply(raw=OK, flood=b"A: b\r\n", flood_pause_seconds=0.01),
    ],
)
def test_a_tunnel_that_is_made_at_the_second_try(
    tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    """Nothing was sent before it, so a POST is sent, too."""
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.2)
    tunnel.proxy.answer("tunnel", reply)
    assert tunnel.http.post("/x").ok
    assert [request.method for request in tunnel.proxy.seen] == ["CONNECT"] * 2
    assert len(tunnel.server.seen) == 1


@pytest.mark.parametrize(
    "reply", [Reply(drop="read"), Reply(drop="garbage"), dripping(DRIPS["body"])]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_lost_in_a_tunnel(
    tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch, method: str, reply: Reply
) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.3)
    tunnel.server.answer("/x", reply)
    found = ends(tunnel.http, tunnel.server, method)
    assert found == {"GET": "again", "POST": "unknown"}[method]


@pytest.mark.parametrize("reply", [Reply(drop="read"), Reply(drop="unread"), Reply(raw=b"hello")])
def test_what_is_lost_behind_a_proxy(wire: WireServer, clock: FakeClock, reply: Reply) -> None:
    wire.answer("/x", reply)
    with Http("http://127.0.0.1:9", clock, 1, proxy=Secret(wire.url)) as http:
        assert ends(http, wire, "POST") == "unknown"


def test_a_proxy_that_wants_a_password(wire: WireServer, clock: FakeClock) -> None:
    wire.answer("/x", Reply(407))
    with (
        Http("http://127.0.0.1:9", clock, 1, proxy=Secret(wire.url)) as http,
        pytest.raises(RemoteError) as caught,
    ):
        http.post("/x")
    assert caught.value.code == "TC-REMOTE-06"
    assert len(wire.seen) == 1
