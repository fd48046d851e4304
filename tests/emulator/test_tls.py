"""https, with a certificate made for the test."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import requests

from .conftest import KEY, Command, Push, StartServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made by the openssl program"
)


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key."""

    certificate: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))


def made(directory: Path, *lock: str) -> Pair:
    pair = Pair(directory / "cert.pem", directory / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *(lock or ("-nodes",))]
    command += ["-keyout", str(pair.key), "-out", str(pair.certificate), "-days", "2"]
    command += ["-subj", "/CN=emulator", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run(command, check=True, capture_output=True)
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(tmp_path_factory.mktemp("tls"))


def test_https(start_server: StartServer, pair: Pair) -> None:
    server = start_server(*pair.options)
    assert server.url.startswith("https://127.0.0.1:")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{server.url}/api/cloud", timeout=20)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{server.url.replace('https', 'http')}/api/cloud", timeout=20)
    server.session.verify = str(pair.certificate)
    Push(server).load("t", {"id": [1, 2]})
    assert server.rows("SELECT count(*) FROM local.t") == [["2"]]
    assert server.stop() == 0


def test_the_tables_of_an_https_server(
    start_server: StartServer, pair: Pair, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(*pair.options)
    asked = ("query", "SELECT 1 AS one", "--url", server.url, "--api-key", KEY)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    refused = command(*asked)
    assert refused.code == 1
    assert "certificate" in refused.stderr
    monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
    assert command(*asked).stdout == "one\n1\n"


def test_what_cannot_be_used_is_one_sentence(
    tmp_path: Path, pair: Pair, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (locked := tmp_path / "locked").mkdir()
    (other := tmp_path / "other").mkdir()
    (junk := tmp_path / "junk.pem").write_text("junk")
    cases = {
        "together": pair.options[:2],
        "No such file": Pair(tmp_path / "none.pem", pair.key).options,
        "unlocked": made(locked, "-passout", "pass:word").options,
        "PEM": Pair(pair.certificate, junk).options,
        "its": Pair(made(other).certificate, pair.key).options,
    }
    for words, options in cases.items():
        ended = command("serve", "--port", "0", "--api-key", "k", *options)
        assert ended.code == 2
        (line,) = ended.stderr.splitlines()
        assert words in line
    # Nothing was made before that was found out.
    assert not list(tmp_path.glob("*.duckdb*"))
