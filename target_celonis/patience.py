"""Connections that are made quickly or not at all, and waited on patiently, but not for ever.

Hides what ``urllib3`` does not do: its connect timeout would also end a body that is sent slowly,
its read timeout begins anew with each byte, and of a failure it does not say whether the request
was sent. Guarantees: an answer ends by ``limits.ANSWER_SECONDS`` after its request, and holds no
more than twice ``limits.ANSWER_LIMIT_BYTES``, or there is none, over TLS and through proxies too;
a request that was never sent fails with a ``NotConnectedError``, and only such a one. Must not
know: what a request asks for, or what an answer says.
"""

from __future__ import annotations

import http.client
import io
import re
import ssl
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests.adapters
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions

from target_celonis import limits

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPARE = 2
"""Times ``limits.ANSWER_LIMIT_BYTES`` that an answer may have on the wire, headers and all."""

_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")


class NotConnectedError(urllib3.exceptions.NewConnectionError):
    """The connection was not made, its TLS and a proxy's tunnel included: nothing was sent.

    Attributes:
        tunnel_status: What the proxy answered, if it refused the tunnel.
        by_proxy: Whether a proxy is to blame, not TLS with what is behind it.
    """

    def __init__(self, connection: Any, cause: Exception) -> None:
        super().__init__(connection, str(cause))
        found = _TUNNEL_STATUS.match(str(cause))
        self.tunnel_status = int(found[1]) if found else None
        is_tls = any(isinstance(each, ssl.SSLError) for each in causes(cause))
        self.by_proxy = connection.proxy is not None and not is_tls


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that it was made from; not what was being handled beside it."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, getattr(each, "reason", None), *each.args]


class _TimedReader(io.RawIOBase):
    """What comes from a socket, until a moment and up to a size.

    Args:
        raw: The socket's own file.
        sock: The socket; its timeout stays the longest wait for a single byte.
    """

    def __init__(self, raw: Any, sock: Any) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._patience_seconds = sock.gettimeout() or limits.READ_TIMEOUT_SECONDS
        self._end = time.monotonic() + limits.ANSWER_SECONDS
        self._left_bytes = _SPARE * limits.ANSWER_LIMIT_BYTES
        self.ended = False

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def fileno(self) -> int:
        """Return the socket's number."""
        number: int = self._raw.fileno()
        return number

    def readinto(self, buffer: Any) -> int | None:
        """Read what there is; wait for it no longer than is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(min(left, self._patience_seconds))
        count: int | None = self._raw.readinto(buffer)
        self._left_bytes -= count or 0
        self.ended = count == 0
        if self._left_bytes < 0:
            raise OSError("the answer does not end")
        return count

    def close(self) -> None:
        """Close the socket's file."""
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """An answer, of the server or of a proxy that is asked for a tunnel."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        raw: Any = self.fp.detach()
        self._reader = _TimedReader(raw, sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read up to the body; what ends before it is cut off, not an answer without one."""
        super().begin()
        if self._reader.ended:
            self.close()
            raise http.client.BadStatusLine("headers without an end")


def _patient(base: Any) -> Any:
    """Return a kind of connection that does what this module says."""

    class Connection(base):  # type: ignore[misc]  # plain and TLS connections alike
        response_class = _TimedResponse
        cut_short = False

        def connect(self) -> None:
            """Connect within the connect timeout; what follows has the read timeout."""
            try:
                super().connect()
            except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
                raise NotConnectedError(self, error) from error
            self.sock.settimeout(limits.READ_TIMEOUT_SECONDS)

        def request(self, *args: Any, **options: Any) -> None:
            """Send; on a connection that is used again ``urllib3`` sets this timeout."""
            if self.sock is not None:
                self.timeout = limits.READ_TIMEOUT_SECONDS
            self.cut_short = False
            try:
                super().request(*args, **options)
            except OSError:  # urllib3 forgives some, and looks for an answer all the same
                self.cut_short = True
                raise

        def getresponse(self) -> Any:
            """Wait for the answer; one in advance, or to half a request done, is none."""
            response = super().getresponse()
            done = response.status < HTTPStatus.MULTIPLE_CHOICES
            if response.status < HTTPStatus.OK or (self.cut_short and done):
                response.close()
                self.close()
                raise http.client.BadStatusLine(str(response.status))
            return response

    return Connection


class _HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls: Any = _patient(urllib3.connection.HTTPConnection)


class _HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls: Any = _patient(urllib3.connection.HTTPSConnection)


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class PatientAdapter(requests.adapters.HTTPAdapter):
    """An adapter of ``requests`` with such connections, through proxies too."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Make the pools of a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager
