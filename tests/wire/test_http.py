"""Requests end done, refused or not known; only what is surely undone is done again."""

from __future__ import annotations

import os
import re
import resource
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis import limits
from target_celonis.auth import KeyAuth
from target_celonis.clock import FakeClock, StoppedError
from target_celonis.config import Secret
from target_celonis.errors import AccessError, LimitError, OutcomeUnknownError, RemoteError
from target_celonis.http import Http, expect
from target_celonis.multipart import FilePart
from target_celonis.waits import Waits

from .conftest import KEY
from .server import Reply, WireServer, disposition, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


GATEWAY = (502, 503, 504)
LOST = (Reply(drop="unread"), Reply(drop="read"), Reply(body=b"x" * 100, drop="half"))


def eventually(condition: Callable[[], object]) -> None:
    """Poll until what another thread does is done."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def send(http: Http, method: str, path: str = "/x") -> int:
    return {"GET": http.get, "DELETE": http.delete, "POST": http.post}[method](path).status


# --- what is repeated


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("reply", [*LOST, *(Reply(status) for status in GATEWAY)])
def test_get_and_delete_are_repeated(
    wire: WireServer, http: Http, clock: FakeClock, method: str, reply: Reply
) -> None:
    wire.answer("/x", reply, reply, Reply(200))
    assert send(http, method) == 200
    assert [request.method for request in wire.seen] == [method] * 3
    assert len(clock.waits) == 2


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_repeating_ends(wire: WireServer, http: Http, clock: FakeClock, method: str) -> None:
    wire.answer("/x", *[Reply(drop="read")] * 50)
    with pytest.raises(RemoteError) as caught:
        send(http, method)
    assert caught.value.code == "TC-REMOTE-01"
    assert len(wire.seen) == limits.RETRY_TRIES
    assert sum(clock.waits) <= limits.RETRY_TRIES * limits.RETRY_LONGEST_SECONDS


def test_a_gateway_that_stays_down_is_the_answer(wire: WireServer, http: Http) -> None:
    wire.answer("/x", *[Reply(503)] * limits.RETRY_TRIES)
    assert send(http, "GET") == 503
    assert len(wire.seen) == limits.RETRY_TRIES


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_a_refusal_is_an_answer(
    wire: WireServer, http: Http, clock: FakeClock, method: str, status: int
) -> None:
    wire.answer("/x", Reply(status, {"message": "no"}))
    assert send(http, method) == status
    assert len(wire.seen) == 1
    assert clock.waits == []


@pytest.mark.parametrize(
    "reply",
    [
        *LOST,
        *(Reply(status) for status in GATEWAY),
        Reply(500, b"<html>Internal Server Error</html>", (("Content-Type", "text/html"),)),
        Reply(500),
    ],
)
def test_a_lost_answer_to_a_post_is_not_known(
    wire: WireServer, http: Http, clock: FakeClock, reply: Reply
) -> None:
    wire.answer("/x", reply)
    with pytest.raises(OutcomeUnknownError) as caught:
        http.post("/x", json={"a": 1})
    assert (caught.value.code, caught.value.exit_code) == ("TC-REMOTE-03", 6)
    assert "POST /x" in str(caught.value)
    assert len(wire.seen) == 1
    assert clock.waits == []


def test_a_500_with_a_reference_is_a_refusal(wire: WireServer, http: Http) -> None:
    body = {"reference": "ref-77", "message": "Internal error while validating the Parquet"}
    wire.answer("/x", Reply(500, body))
    answer = http.post("/x")
    with pytest.raises(RemoteError, match=r"validating the Parquet.*ref-77"):
        expect(answer, "take a chunk")
    assert len(wire.seen) == 1


@dataclass
class OpeningClock(FakeClock):
    """Opens a server when somebody waits for the second time."""

    server: WireServer | None = None

    def wait(self, seconds: float) -> bool:
        if len(self.waits) == 1 and self.server is not None:
            self.server.__enter__()
        return super().wait(seconds)


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_a_connection_that_was_never_made_is_tried_again(method: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = WireServer(port=port)
    clock = OpeningClock(server=server)
    with Http(f"http://127.0.0.1:{port}", clock, 1) as http:
        try:
            assert send(http, method) == 200
        finally:
            server.__exit__()
    assert [request.method for request in server.seen] == [method]
    assert len(clock.waits) == 2


def test_nothing_listens(clock: FakeClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with (
        Http(url, clock, 1) as http,
        pytest.raises(RemoteError, match=f"Nothing answers at {re.escape(url)}") as caught,
    ):
        http.post("/x")
    assert type(caught.value) is RemoteError  # not: outcome unknown
    assert len(clock.waits) == limits.RETRY_TRIES - 1


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let no file and no socket be opened any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Below three all are taken, whatever another thread closes meanwhile.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_too_many_open_files(wire: WireServer, http: Http, clock: FakeClock, method: str) -> None:
    with no_more_files(), pytest.raises(RemoteError) as caught:
        send(http, method)
    assert caught.value.code == "TC-REMOTE-01"
    assert "Too many files are open on this machine" in str(caught.value)
    assert type(caught.value) is RemoteError  # it was never sent
    assert len(clock.waits) == limits.RETRY_TRIES - 1
    assert wire.seen == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_answer_in_time(
    wire: WireServer,
    http: Http,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr(limits, "READ_TIMEOUT_SECONDS", 0.1)
    wire.answer("/x", Reply(delay_seconds=0.4))
    if method == "GET":
        assert send(http, "GET") == 200
        assert len(clock.waits) == 1
    else:
        with pytest.raises(OutcomeUnknownError):
            send(http, "POST")


def test_a_kept_connection_that_the_server_closed_is_no_lost_answer(
    wire: WireServer, http: Http
) -> None:
    wire.answer("/x", Reply(hang_up=True))
    assert send(http, "GET") == 200
    time.sleep(0.05)
    assert send(http, "POST") == 200
    assert len(wire.seen) == 2


def test_stop_ends_the_waiting(wire: WireServer, http: Http, clock: FakeClock) -> None:
    wire.answer("/x", *[Reply(503)] * 9)
    clock.stop()
    with pytest.raises(StoppedError):
        http.get("/x")
    assert len(wire.seen) == 1


# --- 429


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_after_429_any_request_is_repeated(
    wire: WireServer, http: Http, clock: FakeClock, method: str
) -> None:
    wire.answer("/x", Reply(429), Reply(429, headers=(("Retry-After", "7"),)))
    started = time.monotonic()
    assert send(http, method) == 200
    assert time.monotonic() - started < 2
    assert clock.waits == [1.0, 7.0]


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"x-ratelimit-reset": "11"}, 11.0),
        ({"X-RateLimit-Reset": "11", "Retry-After": "3"}, 11.0),
        ({"Retry-After": "3"}, 3.0),
        ({"x-ratelimit-reset": "soon", "Retry-After": "3"}, 3.0),
        ({"x-ratelimit-reset": "0"}, 0.1),
        ({"x-ratelimit-reset": "-5"}, 1.0),
        ({"x-ratelimit-reset": "nan"}, 1.0),
        ({"x-ratelimit-reset": "1e9"}, 1.0),
        ({"x-ratelimit-reset": ""}, 1.0),
        ({"Retry-After": "a while"}, 1.0),
    ],
)
def test_told_pauses(
    wire: WireServer, http: Http, clock: FakeClock, headers: dict[str, str], pause: float
) -> None:
    wire.answer("/x", Reply(429, headers=tuple(headers.items())))
    assert send(http, "POST") == 200
    assert clock.waits == [pause]


def test_without_a_told_pause_short_ones_then_the_next_full_hour(
    wire: WireServer, http: Http, clock: FakeClock
) -> None:
    clock.seconds = 3600.0 * 400_000 + 600
    wire.answer("/x", *[Reply(429)] * 4)
    assert send(http, "POST") == 200
    assert clock.waits[:3] == [1.0, 2.0, 4.0]
    assert 0 <= clock.seconds - 3600.0 * 400_001 <= 60


def test_429_without_end_is_the_answer(wire: WireServer, http: Http, clock: FakeClock) -> None:
    wire.answer("/x", *[Reply(429, headers=(("Retry-After", "1"),))] * 100)
    assert send(http, "POST") == 429
    assert len(wire.seen) == limits.RATE_LIMIT_TRIES + 1
    assert len(clock.waits) == limits.RATE_LIMIT_TRIES


def test_429_can_be_left_to_the_caller(wire: WireServer, http: Http, clock: FakeClock) -> None:
    wire.answer("/x", Reply(429, headers=(("x-ratelimit-reset", "9"),)))
    answer = http.post("/x", retry_rate_limit=False)
    assert (answer.status, answer.told_pause_seconds) == (429, 9.0)
    assert clock.waits == []


def test_waits_are_said_once(
    wire: WireServer, http: Http, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answer("/x", *[Reply(429, headers=(("Retry-After", "5"),))] * 3)
    assert http.get("/x").ok
    assert clock.waits == [5.0] * 3
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "GET /x" in warnings[0].getMessage()
    assert "429" in warnings[0].getMessage()


def test_each_reason_to_wait_is_said(
    wire: WireServer, http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        wire.answer("/x", Reply(429), Reply(503), Reply(503), Reply(drop="read"))
        assert http.get("/x").ok
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [re.sub(r"again in .*", "", text) for text in said] == [
        "GET /x: too many requests (429), trying ",
        "GET /x: status 503, trying ",
        "GET /x: no answer, trying ",
    ]


@pytest.mark.parametrize(
    ("replies", "causes"),
    [
        ([Reply(429, headers=(("Retry-After", "7"),))], ["rate limit (429)"]),
        ([Reply(503)], ["network"]),
        ([Reply(drop="read")], ["network"]),
        ([Reply(200, b"<p>", (("Content-Type", "text/html"),))], ["network"]),
        ([Reply(429), Reply(503)], ["network", "rate limit (429)"]),
        ([], []),
    ],
)
def test_waits_are_counted(
    wire: WireServer, clock: FakeClock, replies: list[Reply], causes: list[str]
) -> None:
    waits = Waits()
    wire.answer("/x", *replies)
    with Http(wire.url, clock, 1, waits=waits) as http:
        assert http.get("/x").ok
    counted = waits.by_cause()
    assert sorted(counted) == causes
    # Times of day are known to some tenths of a microsecond.
    assert sum(counted.values()) == pytest.approx(sum(clock.waits), abs=1e-5)


def test_waits_for_a_connection_are_counted(clock: FakeClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    waits = Waits()
    with Http(url, clock, 1, waits=waits) as http, pytest.raises(RemoteError):
        http.post("/x")
    assert waits.by_cause() == {"network": pytest.approx(sum(clock.waits), abs=1e-5)}


@pytest.mark.parametrize("status", [500, 501, 520, 524, 598, 408])
def test_any_fault_is_asked_again_and_a_post_that_met_one_is_not_known(
    wire: WireServer, http: Http, status: int
) -> None:
    """What stands before Celonis has statuses of its own; none says that nothing was done."""
    wire.answer("/x", Reply(status))
    assert http.get("/x").ok
    wire.answer("/x", Reply(status))
    with pytest.raises(OutcomeUnknownError):
        http.post("/x")


def test_waits_for_429_do_not_go_on_for_a_day(
    wire: WireServer, http: Http, clock: FakeClock
) -> None:
    wire.answer("/x", *[Reply(429)] * 20)
    before = clock.now()
    assert http.get("/x").status == 429
    assert clock.now() - before < 2 * 3_600


def test_a_delete_goes_on_when_the_run_is_to_stop(
    wire: WireServer, http: Http, clock: FakeClock
) -> None:
    clock.stop()
    wire.answer("/x", Reply(503), Reply(503))
    assert http.delete("/x").ok


# --- bodies


def test_json_body(wire: WireServer, http: Http) -> None:
    http.post("/x", json={"ä": [1, None]})
    (request,) = wire.seen
    assert request.json == {"ä": [1, None]}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == str(len(request.body))


def test_a_post_without_a_body_says_so(wire: WireServer, http: Http) -> None:
    http.post("/x")
    assert wire.seen[0].body == b""
    assert wire.seen[0].headers["content-length"] == "0"
    assert "transfer-encoding" not in wire.seen[0].headers


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 1_500_000])
def test_an_upload_is_one_part_named_file(
    wire: WireServer, http: Http, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "0001.parquet"
    path.write_bytes((b"\r\n--" + bytes(range(256)))[: size % 999] + b"\0" * (size - size % 999))
    content = path.read_bytes()
    assert http.post("/x", file=FilePart(path)).ok
    (request,) = wire.seen
    assert request.headers["content-length"] == str(len(request.body))
    assert "transfer-encoding" not in request.headers
    (part,) = parts(request)
    assert disposition(part) == {b"name": b"file", b"filename": b"file"}
    assert part.headers["content-type"] == "application/octet-stream"
    assert bytes(part.content) == content


@pytest.mark.parametrize("before", [Reply(429), Reply(429, {"title": "Too Many Requests"})])
def test_a_repeated_upload_is_the_same_bytes(
    wire: WireServer, http: Http, chunk_file: Path, before: Reply
) -> None:
    wire.answer("/x", before, before)
    assert http.post("/x", file=FilePart(chunk_file)).ok
    first, second, third = wire.seen
    assert first.body == second.body == third.body
    assert bytes(parts(third)[0].content) == chunk_file.read_bytes()


@pytest.mark.parametrize("reply", [Reply(drop="unread"), Reply(drop="read"), Reply(503)])
def test_a_lost_answer_to_an_upload_is_not_known(
    wire: WireServer, http: Http, chunk_file: Path, reply: Reply
) -> None:
    wire.answer("/x", reply)
    with pytest.raises(OutcomeUnknownError):
        http.post("/x", file=FilePart(chunk_file))
    assert len(wire.seen) == 1


@pytest.mark.parametrize("reused", [False, True])
def test_a_server_may_pause_in_mid_upload(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reused: bool
) -> None:
    """The time that a connection may take to be made is not the time that a body may take."""
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_SECONDS", 0.1)
    path = tmp_path / "chunk"
    path.write_bytes(b"x" * 30_000_000)  # more than the buffers of a socket hold
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            if reused:
                connection.recv(1 << 16)
                connection.sendall(ok)
            threading.Event().wait(0.5)
            got = 0
            while got < 30_000_000:
                got += len(connection.recv(1 << 20))
            connection.sendall(ok)

    thread = threading.Thread(target=serve)
    thread.start()
    with listener, Http(f"http://127.0.0.1:{listener.getsockname()[1]}", clock, 1) as http:
        if reused:
            assert http.get("/x").ok
        assert http.post("/x", file=FilePart(path)).ok
    thread.join()


def test_no_content_can_end_its_own_part(wire: WireServer, http: Http, tmp_path: Path) -> None:
    """A text in a record that looks like the boundary of an earlier upload is only a text."""
    path = tmp_path / "chunk"
    path.write_bytes(b"first")
    http.post("/x", file=FilePart(path))
    boundary = wire.seen[0].headers["content-type"].partition("boundary=")[2].encode()
    content = b"rows\r\n--" + boundary + b"--\r\nmore rows"
    path.write_bytes(content)
    http.post("/x", file=FilePart(path))
    (part,) = parts(wire.seen[1])
    assert bytes(part.content) == content


@dataclass
class Saboteur(FakeClock):
    """Does something when a body is read for the second time, which is in its midst."""

    act: Callable[[], object] = bool
    reads: int = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "stopped":
            self.reads += 1
            if self.reads == 3:  # behind the head and the first piece
                self.act()
        return super().__getattribute__(name)


def cut(path: Path) -> None:
    os.truncate(path, 1_000_000)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [cut, lengthen])
@pytest.mark.parametrize("size", [1_500_000, 300_000, 10])
def test_a_file_that_changes_its_size_is_never_sent_whole(
    wire: WireServer, tmp_path: Path, change: Callable[[Path], None], size: int
) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(b"x" * size)
    with (
        Http(wire.url, Saboteur(act=lambda: change(path)), 1) as http,
        pytest.raises(LimitError, match=f"{path} changed while") as caught,
    ):
        http.post("/x", file=FilePart(path))
    assert caught.value.code == "TC-LIMIT-02"
    eventually(lambda: wire.seen)
    (request,) = wire.seen
    assert len(request.body) < int(request.headers["content-length"])


def test_a_file_that_is_removed_on_the_way_is_sent_whole(wire: WireServer, tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(b"x" * 1_500_000)
    with Http(wire.url, Saboteur(act=path.unlink), 1) as http:
        assert http.post("/x", file=FilePart(path)).ok
    assert bytes(parts(wire.seen[0])[0].content) == b"x" * 1_500_000


def test_a_file_that_cannot_be_read_any_more(wire: WireServer, tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(b"x" * 1_500_000)

    def break_file() -> None:
        """Put a descriptor in its place that cannot be read from."""
        (held,) = [
            int(each.name)
            for each in Path("/proc/self/fd").iterdir()
            if os.path.realpath(each) == str(path)
        ]
        other = os.open(path, os.O_WRONLY)
        os.dup2(other, held)
        os.close(other)

    with (
        Http(wire.url, Saboteur(act=break_file), 1) as http,
        pytest.raises(LimitError, match="gone or cannot be read") as caught,
    ):
        http.post("/x", file=FilePart(path))
    assert caught.value.code == "TC-LIMIT-02"
    eventually(lambda: wire.seen)
    assert len(wire.seen[0].body) < 1_500_000


def test_a_file_that_is_gone(wire: WireServer, http: Http, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    for _ in range(2):  # not there, then not to be read
        with pytest.raises(LimitError, match=f"{path} is gone or cannot be read") as caught:
            http.post("/x", file=FilePart(path))
        assert (caught.value.code, caught.value.exit_code) == ("TC-LIMIT-02", 7)
        path.mkdir(exist_ok=True)
    assert wire.seen == []


@pytest.mark.parametrize("status", [200, 413])
def test_an_answer_before_the_body_was_sent(
    wire: WireServer, http: Http, tmp_path: Path, status: int
) -> None:
    """That it is refused may be known early; that it was done may not."""
    path = tmp_path / "chunk"
    path.write_bytes(b"x" * 30_000_000)  # more than the buffers of a socket hold
    wire.answer("/x", Reply(status, drop="early"))
    if status == 200:
        with pytest.raises(OutcomeUnknownError):
            http.post("/x", file=FilePart(path))
    else:
        assert http.post("/x", file=FilePart(path)).status == status
    assert len(wire.seen) == 1


# --- answers


def test_an_endless_answer_is_cut(
    wire: WireServer, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_LIMIT_BYTES", 1_000_000)
    wire.answer("/x", Reply(endless=True))
    answer = http.get("/x")
    assert 1_000_000 <= len(answer.body) < 1_200_000
    assert send(http, "GET") == 200  # on another connection


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b'{"a":', b"nope"])
def test_a_body_that_is_no_json(wire: WireServer, http: Http, body: bytes) -> None:
    wire.answer("/x", Reply(200, body))
    with pytest.raises(RemoteError) as caught:
        http.get("/x").json()
    assert caught.value.code == "TC-REMOTE-05"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"errors": [{"attribute": "a", "error": "too long"}, {"error": "bad"}]}, "too long; bad"),
        ({"reference": "r-1", "message": "broken"}, "broken (reference r-1)"),
        ({"frontendErrorKey": "k", "errorInformation": "info"}, "info"),
        ({"title": "Not Found", "status": 404, "detail": "no such path"}, "no such path"),
        ({"error": "Unauthorized"}, "Unauthorized"),
        ({"errors": "x"}, ""),
        ({"errors": ["x", None]}, ""),
        ([1], ""),
        (b"<html>oops</html>", ""),
        (b"", ""),
        ({"message": 3}, ""),
        ({"message": "m" * 9999}, "m" * 500),
    ],
)
def test_all_shapes_of_refusals_are_read(
    wire: WireServer, http: Http, body: object, said: str
) -> None:
    wire.answer("/x", Reply(400, body))
    assert http.get("/x").explanation() == said


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, AccessError, "TC-ACCESS-01"),
        (403, AccessError, "TC-ACCESS-02"),
        (404, RemoteError, "TC-REMOTE-02"),
        (302, RemoteError, "TC-REMOTE-02"),
        (413, RemoteError, "TC-REMOTE-02"),
    ],
)
def test_expect(
    wire: WireServer, http: Http, status: int, kind: type[RemoteError], code: str
) -> None:
    wire.answer("/x", Reply(status, {"message": "because"}))
    with pytest.raises(kind) as caught:
        expect(http.get("/x"), "open the door")
    assert caught.value.code == code
    assert "open the door" in str(caught.value)
    assert str(status) in str(caught.value)


# --- what leaves this machine


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_redirects_are_not_followed(wire: WireServer, http: Http, status: int, method: str) -> None:
    with WireServer() as other:
        wire.answer("/x", Reply(status, headers=(("Location", f"{other.url}/stolen"),)))
        assert send(http, method) == status
        assert other.seen == []
    assert len(wire.seen) == 1


def test_the_key_is_for_one_host_only(wire: WireServer, clock: FakeClock) -> None:
    with WireServer() as other, Http(other.url, clock, 1) as http:
        http.authorize(KeyAuth("api_key", Secret(KEY), wire.url))
        http.get("/x")
    assert "authorization" not in other.seen[0].headers


def test_the_host_of_the_key_is_not_case_sensitive(wire: WireServer, clock: FakeClock) -> None:
    base_url = f"http://LocalHost:{wire.port}"
    with Http(base_url, clock, 1) as http:
        http.authorize(KeyAuth("api_key", Secret(KEY), base_url))
        http.get("/x")
    assert wire.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_cookies_are_not_kept(wire: WireServer, http: Http) -> None:
    cookie = (("Set-Cookie", "XSRF-TOKEN=abc; Path=/"), ("Set-Cookie", "session=1"))
    wire.answer("/x", Reply(200, headers=cookie))
    http.get("/x")
    http.post("/x")
    assert all("cookie" not in request.headers for request in wire.seen)


def test_a_netrc_file_signs_nothing(
    wire: WireServer, http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    http.get("/x")
    assert wire.seen[0].headers["authorization"] == f"AppKey {KEY}"


def test_no_proxy_stands_before_this_machine(
    wire: WireServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Http(wire.url, clock, 1) as http:
        assert http.get("/x").ok


def test_the_key_is_in_the_header_only(wire: WireServer, http: Http, chunk_file: Path) -> None:
    http.get("/x", {"a": "b"})
    http.post("/x", json={"a": 1})
    http.post("/x", file=FilePart(chunk_file))
    http.delete("/x")
    for request in wire.seen:
        assert request.headers.pop("authorization") == f"AppKey {KEY}"
        assert KEY not in repr(request)


def test_the_key_is_in_no_repr_and_no_error(http: Http) -> None:
    auth = KeyAuth("app_key", Secret(KEY), "http://127.0.0.1")
    for thing in (http, auth, Secret(KEY), vars(auth), vars(http)):
        assert KEY not in f"{thing!r} {thing}"


# --- proxies


def test_a_named_proxy_is_used(
    wire: WireServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    proxy = Secret(f"http://somebody:{KEY}@127.0.0.1:{wire.port}")
    with Http("http://127.0.0.1:9", clock, 1, proxy=proxy) as http:
        assert http.get("/x").ok
    (request,) = wire.seen
    assert request.target == "http://127.0.0.1:9/x"
    assert request.headers["proxy-authorization"].startswith("Basic ")


def test_a_proxy_that_is_not_there(clock: FakeClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = Secret(f"http://somebody:{KEY}@127.0.0.1:{port}")
    with (
        Http("http://127.0.0.1:9", clock, 1, proxy=proxy) as http,
        pytest.raises(RemoteError) as caught,
    ):
        http.post("/x")
    assert caught.value.code == "TC-REMOTE-06"
    assert KEY not in f"{caught.value!r} {caught.value}"


# --- TLS


def test_tls_with_a_server_that_speaks_none(wire: WireServer, clock: FakeClock) -> None:
    """Nothing was sent: the outcome is known, of a POST too."""
    with (
        Http(wire.url.replace("http", "https"), clock, 1) as http,
        pytest.raises(RemoteError) as caught,
    ):
        http.post("/x")
    assert caught.value.code == "TC-REMOTE-01"
    assert type(caught.value) is RemoteError


def test_certificates_are_verified(tls_wire: WireServer, clock: FakeClock) -> None:
    with (
        Http(tls_wire.url, clock, 1) as http,
        pytest.raises(RemoteError, match=r"certificate of .* cannot be verified") as caught,
    ):
        http.post("/x")
    assert caught.value.code == "TC-REMOTE-01"
    assert tls_wire.seen == []


def test_over_tls_get_is_repeated(tls_wire: WireServer, trusting: Http) -> None:
    tls_wire.answer("/x", Reply(drop="read"), Reply(200, b"x" * 100, drop="half"))
    assert trusting.get("/x").ok
    assert len(tls_wire.seen) == 3


@pytest.mark.parametrize(
    "reply",
    [Reply(drop="read"), Reply(200, b"x" * 100, drop="half"), Reply(drop="garbage")],
)
def test_over_tls_a_lost_answer_to_a_post_is_not_known(
    tls_wire: WireServer, trusting: Http, reply: Reply
) -> None:
    """Not every SSL error comes from a handshake; what breaks later broke a request on its way."""
    tls_wire.answer("/x", reply)
    with pytest.raises(OutcomeUnknownError):
        trusting.post("/x", json={"a": 1})
    assert len(tls_wire.seen) == 1
