"""A server, a clock that takes no time, and a session between them."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import evidence
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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl, to make a certificate")
    directory = tmp_path_factory.mktemp("tls")
    made, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return made, key


@pytest.fixture
def tls_wire(certificate: tuple[Path, Path]) -> Iterator[WireServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with WireServer(
        scheme="https", wrap_socket=lambda raw: context.wrap_socket(raw, server_side=True)
    ) as server:
        yield server


@pytest.fixture
def trusting(
    tls_wire: WireServer,
    certificate: tuple[Path, Path],
    clock: FakeClock,
) -> Iterator[Http]:
    """A session that knows the server's certificate."""
    with Http(tls_wire.url, clock, 1, ca_bundle=certificate[0]) as http:
        yield http


@pytest.fixture(autouse=True)
def _key_in_no_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may bring the key into the log, at whatever level."""
    evidence.secret(KEY)
    caplog.set_level(logging.DEBUG)
    yield
    for when in ("setup", "call"):
        for record in caplog.get_records(when):
            assert KEY not in record.getMessage()
            assert KEY not in repr(record.args)
            assert KEY not in str(record.exc_text)
