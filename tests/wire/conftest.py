"""A server, a clock that takes no time, and a session between them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis.auth import KeyAuth
from target_celonis.celonis import Celonis
from target_celonis.clock import FakeClock
from target_celonis.config import Config, Secret, parse
from target_celonis.http import Http

from .server import WireServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "bmV2ZXIgc2hvd24=-key"
POOL = "pool-1"


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def http(wire: WireServer, clock: FakeClock) -> Iterator[Http]:
    with Http(wire.url, clock, 4) as session:
        session.authorize(KeyAuth("app_key", Secret(KEY), wire.url))
        yield session


@pytest.fixture
def celonis(http: Http) -> Celonis:
    return Celonis(http, POOL, None, "/data-ingestion")


@pytest.fixture
def config(wire: WireServer) -> Callable[..., Config]:
    def made(**settings: Any) -> Config:
        given = {"base_url": wire.url, "data_pool_id": POOL, "api_key": KEY} | settings
        return parse(given, {})

    return made


@pytest.fixture
def chunk_file(tmp_path: Path) -> Path:
    """A file with every byte and every line end, larger than one read."""
    path = tmp_path / "chunk.parquet"
    path.write_bytes(bytes(range(256)) * 3000 + b"\r\n--\r\n\n\r--boundary--\r\n")
    return path


@pytest.fixture(autouse=True)
def _key_in_no_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may bring the key into the log, at whatever level."""
    caplog.set_level(logging.DEBUG)
    yield
    for when in ("setup", "call"):
        for record in caplog.get_records(when):
            assert KEY not in record.getMessage()
            assert KEY not in repr(record.args)
            assert KEY not in str(record.exc_text)
