"""Connections that are made quickly or not at all, and waited on patiently once they are made.

``urllib3`` applies its connect timeout to the sending of a body, too: a server that pauses in mid
upload for longer than a connection may take would end it. Must not know: requests and answers.
"""

from __future__ import annotations

from typing import Any

import requests.adapters
import urllib3.connection
import urllib3.connectionpool

from target_celonis import limits


def _patient(base: Any) -> Any:
    """Return a kind of connection whose socket has the read timeout as soon as there is one."""

    class Connection(base):  # type: ignore[misc]  # plain and TLS connections alike
        def connect(self) -> None:
            """Connect within the connect timeout; what follows has the read timeout."""
            super().connect()
            self.sock.settimeout(limits.READ_TIMEOUT_SECONDS)

        def request(self, *args: Any, **options: Any) -> None:
            """Send; on a connection that is used again ``urllib3`` sets this timeout."""
            if self.sock is not None:
                self.timeout = limits.READ_TIMEOUT_SECONDS
            super().request(*args, **options)

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
