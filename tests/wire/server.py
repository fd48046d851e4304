"""A real HTTP server that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import itertools
import json
import re
import socket
import struct
import threading
import time
from collections import Counter, defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from collections.abc import Callable

_PATHS = (
    ("jobs", re.compile(r"/(?P<prefix>[\w-]+)/api/v1/data-push/(?P<pool>[^/]+)/jobs/")),
    ("job", re.compile(r"/(?P<prefix>[\w-]+)/api/v1/data-push/[^/]+/jobs/(?P<job>[^/]+)")),
    ("chunks", re.compile(r".*/jobs/(?P<job>[^/]+)/chunks/(upserted|deleted)")),
    ("chunk list", re.compile(r".*/jobs/(?P<job>[^/]+)/chunks")),
    ("tables", re.compile(r"/integration/api/pools/(?P<pool>[^/]+)/tables")),
    ("columns", re.compile(r"/integration/api/pools/(?P<pool>[^/]+)/columns")),
    ("connection", re.compile(r"/integration/api/pools/[^/]+/data-sources/(?P<id>[^/]+)")),
)
_KINDS = {
    ("GET", "jobs"): "list",
    ("POST", "jobs"): "create",
    ("GET", "job"): "show",
    ("POST", "job"): "execute",
    ("DELETE", "job"): "delete",
    ("POST", "chunks"): "upload",
}


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    Attributes:
        status: HTTP status.
        body: Body; anything but bytes is sent as JSON.
        headers: More headers.
        drop: Close the connection instead of answering: ``unread`` before the body was read,
            ``read`` behind it, ``half`` in the middle of the answer; ``early`` answers before the
            body was read, and resets the connection.
        delay_seconds: Wait before answering.
        endless: Send a body without an end.
        hang_up: Close the connection after the answer without having said so.
        raw: All that is sent, in place of an answer that is made well.
        flood: What follows it again and again, until the client has had enough.
        flood_pause_seconds: Wait between two of these.
    """

    status: int = 200
    body: Any = b""
    headers: tuple[tuple[str, str], ...] = ()
    drop: str = ""
    delay_seconds: float = 0.0
    endless: bool = False
    hang_up: bool = False
    raw: bytes | None = None
    flood: bytes = b""
    flood_pause_seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    kind: str
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class WireServer:
    """The server; without a script it is a Celonis in which every job is DONE at once.

    Attributes:
        script: Answers by kind of request, used up from the left; those to ``other`` are for paths
            that have no kind.
        seen: All requests, in order.
        accepts: Authorization headers that are not answered with 401; None for all.
        tables: What the listing of tables shows.
        columns: What the listing of columns shows, by table name.
        jobs: What the listing of push jobs shows.
        bytes_sent: Of endless bodies and floods.
        watch: Called with each request before it is answered.
    """

    port: int = 0
    script: defaultdict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))
    seen: list[Seen] = field(default_factory=list)
    accepts: set[str] | None = None
    prefixes: tuple[str, ...] = ("data-ingestion", "integration")
    tables: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    bytes_sent: int = 0
    watch: Callable[[Seen], None] | None = None
    wrap_socket: Callable[[socket.socket], socket.socket] | None = None
    scheme: str = "http"
    _ids: Any = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._http = _Server(("127.0.0.1", self.port), _Handler)
        self._http.wire = self
        if self.wrap_socket is not None:
            self._http.socket = self.wrap_socket(self._http.socket)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def answer(self, kind: str, *replies: Reply) -> None:
        """Script the next answers to a kind of request."""
        self.script[kind].extend(replies)

    def of(self, kind: str) -> list[Seen]:
        return [request for request in self.seen if request.kind == kind]

    def kinds(self) -> list[str]:
        return [request.kind for request in self.seen]

    def counts(self) -> Counter[str]:
        return Counter(self.kinds())

    def reply_to(self, kind: str, method: str, target: str, headers: dict[str, str]) -> Reply:
        """Take the next scripted answer, or the ordinary one."""
        with self._lock:
            if kind.startswith("/") and not self.script[kind]:
                kind = "other"
            if self.script[kind]:
                return self.script[kind].popleft()
        path = urlsplit(target).path
        if "/data-push/" in path and path.split("/")[1] not in self.prefixes:
            return Reply(404, {"title": "Not Found", "status": 404})
        if self.accepts is not None and headers.get("authorization") not in self.accepts:
            return Reply(401, {"error": "Unauthorized"})
        ordinary: dict[str, Any] = {
            "list": self.jobs,
            "chunk list": [],
            "create": lambda: {"id": f"job-{next(self._ids)}", "status": "NEW"},
            "show": lambda: {"id": path.rsplit("/", 1)[-1], "status": "DONE", "logs": []},
            "tables": self.tables,
            "columns": lambda: self.columns.get(
                dict(parse_qsl(urlsplit(target).query))["tableName"]
            ),
            "connection": {"id": path.rsplit("/", 1)[-1]},
        }
        body = ordinary.get(kind, b"")
        del method
        return Reply(200, body() if callable(body) else body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    wire: WireServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:  # type: ignore[override]
        """Say nothing."""

    def _any(self) -> None:
        wire = self.server.wire
        headers = {name.lower(): value for name, value in self.headers.items()}
        kind = self._kind()
        reply = wire.reply_to(kind, self.command, self.path, headers)
        body = b""
        if reply.drop not in ("unread", "early"):
            body = self.rfile.read(int(headers.get("content-length", 0)))
        wire.seen.append(Seen(kind, self.command, self.path, headers, body))
        if wire.watch is not None:
            wire.watch(wire.seen[-1])
        time.sleep(reply.delay_seconds)
        if reply.drop == "garbage":
            socket.socket.send(self.connection, b"\x17\x03\x03\x00\x20" + b"?" * 32)
            self.close_connection = True
            return
        if reply.drop in ("unread", "read"):
            self.close_connection = True
            return
        if reply.raw is not None:
            self._send_raw(reply.raw, reply)
            return
        self._send(reply)
        if reply.drop == "early":
            self._reset()
        elif self.command == "CONNECT" and reply.status == 200:
            self._pass_on()
        elif reply.hang_up:
            self.close_connection = True

    def _send_raw(self, raw: bytes, reply: Reply) -> None:
        self.close_connection = True
        self.connection.sendall(raw)
        while reply.flood:
            time.sleep(reply.flood_pause_seconds)
            self.connection.sendall(reply.flood)
            self.server.wire.bytes_sent += len(reply.flood)

    def _reset(self) -> None:
        """End the connection at once; what is on its way is lost."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _pass_on(self) -> None:
        """Be the tunnel that a proxy is asked for."""
        self.close_connection = True
        host, port = self.path.split(":")

        def copy(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

        with socket.create_connection((host, int(port))) as onward:
            back = threading.Thread(target=copy, args=(onward, self.connection), daemon=True)
            back.start()
            copy(self.connection, onward)
            back.join()

    def _kind(self) -> str:
        if self.command == "CONNECT":
            return "tunnel"
        path = urlsplit(self.path).path
        for name, pattern in _PATHS:
            if pattern.fullmatch(path):
                return _KINDS.get((self.command, name), name)
        return path

    def _send(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.endless:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            self.close_connection = True
            while True:  # until the client has had enough
                self.wfile.write(piece)
                self.server.wire.bytes_sent += len(piece)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if reply.drop == "half":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_CONNECT = _any  # noqa: N815  # names that the standard library looks for


@dataclass
class Part:
    """One part of a multipart body."""

    headers: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    ended: bool = False


def parts(request: Seen) -> list[Part]:
    """Read a multipart body with the parser that web frameworks use, which raises on any fault."""
    kind, options = parse_options_header(request.headers["content-type"])
    assert kind == b"multipart/form-data"
    found: list[Part] = []
    name, value, finished = bytearray(), bytearray(), []

    def header_ended() -> None:
        found[-1].headers[name.decode().lower()] = value.decode()
        name.clear()
        value.clear()

    def part_ended() -> None:
        found[-1].ended = True

    parser = MultipartParser(
        options[b"boundary"],
        {
            "on_part_begin": lambda: found.append(Part()),
            "on_header_field": lambda data, start, end: name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]),
            "on_header_end": header_ended,
            "on_part_data": lambda data, start, end: found[-1].content.extend(data[start:end]),
            "on_part_end": part_ended,
            "on_end": lambda: finished.append(True),
        },
    )
    assert parser.write(request.body) == len(request.body)
    parser.finalize()
    assert finished
    assert all(part.ended for part in found)
    return found


def disposition(part: Part) -> dict[bytes, bytes]:
    """Return the parameters of a part's Content-Disposition."""
    kind, options = parse_options_header(part.headers["content-disposition"])
    assert kind == b"form-data"
    return options
