"""A TCP proxy that passes requests on, and breaks those that it is told to break."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE_BYTES = 1 << 14
_NAGGING = struct.pack("ii", 1, 0)


class Cruelty(StrEnum):
    """What may become of a request."""

    RESET = "reset"
    """A part of it is passed on, then the connection is reset on both sides."""

    SWALLOW = "swallow"
    """All of it is passed on and carried out; in place of the answer comes a reset."""

    THROTTLE = "throttle"
    """All of it is passed on and answered, slowly."""


@dataclass
class Fault:
    """What is to become of one request.

    Attributes:
        cruelty: What.
        method: Of the request.
        path: Pattern of its path.
        after_bytes: RESET: what is passed on, head and body.
        bytes_per_second: THROTTLE: of the request.
        hit: Whether it has happened.
    """

    cruelty: Cruelty
    method: str
    path: str
    after_bytes: int = 0
    bytes_per_second: int = 0
    hit: bool = False


@dataclass
class TcpProxy:
    """A proxy in threads of its own, on this machine.

    Attributes:
        host: Where it passes on to.
        onward: The port there.
        faults: Each happens once, to the first request that fits.
        requests: Method and path of all requests, in order.
    """

    host: str
    onward: int
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: set[socket.socket] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for one in (self._listener, *self._open):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Pass on the requests of one connection, one after the other."""
        with ExitStack() as stack, suppress(OSError):
            stack.enter_context(client)
            server = socket.create_connection((self.host, self.onward))
            stack.enter_context(server)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open.add(one)
                stack.callback(self._open.discard, one)
            while True:
                head = _head(client)
                if not head:
                    return
                method, path = head.split(b" ", 2)[:2]
                fault = self._fault_for(method.decode(), path.decode())
                if not self._pass_on(client, server, head, fault):
                    for one in (client, server):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NAGGING)
                    return

    def _fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            for fault in self.faults:
                fits = fault.method == method and re.fullmatch(fault.path, path.partition("?")[0])
                if fits and not fault.hit:
                    fault.hit = True
                    return fault
        return None

    def _pass_on(
        self, client: socket.socket, server: socket.socket, head: bytes, fault: Fault | None
    ) -> bool:
        """Pass on one request and its answer; return whether the connection is to stay."""
        cruelty = fault.cruelty if fault else None
        passed = 0
        for piece in _message(client, head):
            if fault and cruelty is Cruelty.RESET and passed + len(piece) > fault.after_bytes:
                server.sendall(piece[: fault.after_bytes - passed])
                return False
            if fault and cruelty is Cruelty.THROTTLE:
                time.sleep(len(piece) / fault.bytes_per_second)
            server.sendall(piece)
            passed += len(piece)
        if cruelty is Cruelty.RESET:
            return False  # shorter than what was to be passed on
        for piece in _message(server, _head(server)):
            if cruelty is not Cruelty.SWALLOW:
                client.sendall(piece)
        return cruelty is not Cruelty.SWALLOW


def _head(source: socket.socket) -> bytes:
    """Return all up to the body, nothing at the end; byte by byte, to take nothing of the body."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = source.recv(1)
        if not byte:
            return b""
        head += byte
    return bytes(head)


def _message(source: socket.socket, head: bytes) -> Iterator[bytes]:
    """Yield a request or an answer as it comes; each has a length, here."""
    if not head:
        raise ConnectionError
    assert b"transfer-encoding" not in head.lower()
    yield head
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    left = int(found[1]) if found else 0
    while left:
        piece = source.recv(min(left, _PIECE_BYTES))
        if not piece:
            raise ConnectionError
        left -= len(piece)
        yield piece
