"""Ways to log in and ways through the network: OAuth, proxies, certificates."""

from __future__ import annotations

import base64
import os
import random
import secrets
import shutil
import socket
import subprocess
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import evidence
import pytest

from .harness import Emulator, Ended, Target, lines, rows, schema, start_emulator, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FULL = "integration.data-pools"
PUSH, READ = f"{FULL}:data_push", f"{FULL}:read"
TOKEN = ("POST", "/oauth2/token")
CLIENT = "a-client"
# A name that only the test's proxy knows; none of this machine, so that the environment counts.
HOST = "team.celonis.test"
DEBUG = {"TARGET_CELONIS_LOGLEVEL": "DEBUG"}

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made by the openssl program"
)


@pytest.fixture(autouse=True)
def _no_certificates_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


# --- a forward proxy


@dataclass
class Proxy:
    """A forward proxy that asks for user and password.

    Attributes:
        names: Where a name leads to, for names that lead nowhere else.
        delay_seconds: What each request waits here.
        targets: What was asked for, in order, refused or not.
        authorizations: The ``Authorization`` headers that were seen.
    """

    password: str = field(default_factory=lambda: secrets.token_hex(12))
    names: dict[str, int] = field(default_factory=dict)
    delay_seconds: float = 0.0
    targets: list[str] = field(default_factory=list)
    refused: int = 0
    authorizations: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        evidence.secret(self.password)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, password: str | None = None) -> str:
        return f"http://user:{password or self.password}@127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                block = client.recv(65536)
                if not block:
                    return
                head += block
            head, _, body = head.partition(b"\r\n\r\n")
            first, *fields = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            self.targets.append(target)
            headers = {
                name.lower(): value for name, _, value in (f.partition(": ") for f in fields)
            }
            expected = base64.b64encode(f"user:{self.password}".encode()).decode()
            if headers.get("proxy-authorization") != f"Basic {expected}":
                self.refused += 1
                client.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                    b'Proxy-Authenticate: Basic realm="test"\r\n'
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
                return
            self.authorizations.add(headers.get("authorization", ""))
            time.sleep(self.delay_seconds)
            self._pass_on(client, method, target, fields, body)

    def _pass_on(
        self, client: socket.socket, method: str, target: str, fields: list[str], body: bytes
    ) -> None:
        authority, slash, path = target.removeprefix("http://").partition("/")
        host, _, port = authority.partition(":")
        with socket.create_connection(("127.0.0.1", self.names.get(host, int(port)))) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                # One request for each connection keeps this proxy small.
                kept = [f for f in fields if not f.lower().startswith(("connection", "proxy-"))]
                head = [f"{method} {slash}{path} HTTP/1.1", *kept, "Connection: close", "", ""]
                server.sendall("\r\n".join(head).encode("latin-1") + body)
            back = threading.Thread(target=_pump, args=(server, client))
            back.start()
            _pump(client, server)
            back.join(20)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(65536):
            sink.sendall(block)
    for end, how in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
        with suppress(OSError):
            end.shutdown(how)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


# --- OAuth


@dataclass
class Team:
    """An emulator with an OAuth client that logs in one ``way``."""

    emulator: Emulator
    way: str
    secret: str

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "base_url": self.emulator.url,
            "data_pool_id": "local",
            "oauth_client_id": CLIENT,
            "oauth_client_secret": self.secret,
            "oauth_client_auth": self.way,
        }

    def tokens(self) -> int:
        """Return how often a token was asked for."""
        return self.emulator.requests().get(TOKEN, 0)


def started(factory: pytest.TempPathFactory, way: str, *options: str) -> Team:
    secret = secrets.token_hex(16)
    options = ("--oauth-client", f"{CLIENT}:{secret}", "--oauth-client-auth", way, *options)
    return Team(start_emulator(factory.mktemp(f"oauth-{way}"), *options), way, secret)


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Tokens live for one second, and say so."""
    scopes = f"{FULL} {PUSH} {READ}"
    team = started(tmp_path_factory, "basic", "--oauth-scope", scopes, "--token-seconds", "1")
    yield team
    team.emulator.stop()


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Tokens live for one second, and say 899."""
    team = started(tmp_path_factory, "post", "--token-early-seconds", "898")
    yield team
    team.emulator.stop()


@pytest.fixture(params=["basic", "post"])
def team(request: pytest.FixtureRequest) -> Team:
    found: Team = request.getfixturevalue(request.param)
    return found


def says_none_of(ended: Ended, *secret: str) -> None:
    shown = ended.err + ended.out.decode()
    for text in secret:
        assert len(text) >= 8
        evidence.secret(text)
        assert text not in shown
        assert base64.b64encode(text.encode()).decode() not in shown


def unlooked(target: Target, *arguments: str, data: bytes = b"", **settings: Any) -> Ended:
    """Run with all that can be logged; stdout may hold other things than states."""
    done = subprocess.run(
        target.command(*arguments, **settings),
        input=data,
        capture_output=True,
        timeout=120,
        check=False,
        cwd=target.directory,
        env=os.environ | DEBUG,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize("method", ["auto", "oauth"])
def test_an_oauth_client(
    team: Team, make_target: Callable[..., Target], stream: str, method: str
) -> None:
    target = make_target(**team.settings, auth_method=method)
    ended = target.load(schema(stream), *rows(stream, range(3)), state({"at": 3}))
    assert ended.states == [b'{"at": 3}']
    assert team.emulator.count(stream) == 3
    checked = unlooked(target, "--check")
    assert (checked.code, checked.err.count("Traceback")) == (0, 0)
    assert "OAuth client" in checked.out.decode()
    says_none_of(checked, team.secret)


def test_tokens_die_while_input_arrives(
    team: Team, make_target: Callable[..., Target], stream: str
) -> None:
    before = team.tokens()
    running = make_target(**team.settings).start(checkpoint_interval_minutes=0.02)
    running.write(schema(stream))
    began, count = time.monotonic(), 0
    # For several lives of a token, and until there were pushes in the first and in later ones.
    while time.monotonic() < began + 4 or len(team.emulator.history(stream)) < 3:
        assert time.monotonic() < began + 60, running.err()
        running.write(*rows(stream, range(count, count + 20)))
        count += 20
        running.write(state({"rows": count}))
        time.sleep(0.2)
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert team.emulator.count(stream) == count
    assert ended.states[-1] == b'{"rows": %d}' % count
    assert {job["status"] for job in team.emulator.history(stream)} == {"DONE"}
    assert team.tokens() - before >= 3
    says_none_of(ended, team.secret)


def test_tokens_die_in_mid_upload(
    team: Team, make_target: Callable[..., Target], stream: str, proxy: Proxy
) -> None:
    """Also through a proxy that takes its time, so that tokens die on their way, too."""
    proxy.delay_seconds = 0.3
    target = make_target(**team.settings, proxy=proxy.url())
    before = team.tokens()
    texts = random.Random(stream)  # noqa: S311 - texts that do not compress
    data = [row for n in range(6000) for row in rows(stream, [n], texts.randbytes(600).hex())]
    data += [state({"done": True})]
    settings = {"chunk_size_mb": 1, "parallel_uploads": 2}
    ended = unlooked(target, data=lines(schema(stream), *data), **settings)
    assert ended.code == 0, ended.err
    assert team.emulator.count(stream) == 6000
    (job,) = team.emulator.history(stream)
    assert len(job["chunks"]) >= 5
    assert team.tokens() - before >= 3
    # Bearer tokens, and the Basic log-in of the client.
    words = [sent.partition(" ")[2] for sent in proxy.authorizations if sent]
    assert len(words) >= 3
    says_none_of(ended, team.secret, proxy.password, *words)


def test_a_client_that_is_refused(
    basic: Team, make_target: Callable[..., Target], stream: str
) -> None:
    target = make_target(**basic.settings)
    message = (schema(stream), *rows(stream, range(3)))
    wrong = secrets.token_hex(16)
    ended = target.fail(3, "TC-ACCESS-04", *message, oauth_client_secret=wrong)
    assert "oauth_client_secret" in ended.last_words
    says_none_of(ended, wrong)
    ended = target.fail(3, "TC-ACCESS-04", *message, oauth_client_auth="post")
    assert "oauth_client_auth" in ended.last_words
    says_none_of(ended, basic.secret)
    assert basic.emulator.history(stream) == []


def test_a_missing_scope_is_not_a_missing_permission(
    basic: Team, make_target: Callable[..., Target], stream: str
) -> None:
    target = make_target(**basic.settings)
    message = (schema(stream), *rows(stream, range(3)))
    # The client does not have it; it has it, and it is the wrong one; it is right, the pool is not.
    not_had = target.fail(3, "TC-ACCESS-04", *message, oauth_scope=f"{FULL} more")
    wrong = target.fail(3, "TC-ACCESS-04", *message, oauth_scope=READ)
    no_pool = target.fail(3, "TC-ACCESS-02", *message, data_pool_id="nowhere")
    assert f"{FULL} more" in not_had.last_words
    assert "oauth_scope" in not_had.last_words
    assert PUSH in wrong.last_words
    assert "data pool nowhere" in no_pool.last_words
    assert "scope" not in no_pool.last_words
    assert basic.emulator.history(stream) == []


def test_a_scope_for_pushing_alone(
    basic: Team, make_target: Callable[..., Target], stream: str
) -> None:
    target = make_target(**basic.settings, oauth_scope=PUSH)
    for _ in range(2):
        target.load(schema(stream), *rows(stream, range(3)))
    assert basic.emulator.count(stream) == 3


# --- proxies


def test_through_a_proxy_with_a_password(
    target: Target, emulator: Emulator, stream: str, proxy: Proxy
) -> None:
    ended = target.load(schema(stream), *rows(stream, range(3)), proxy=proxy.url())
    assert emulator.count(stream) == 3
    assert {target.split("/")[2] for target in proxy.targets} == {emulator.url.split("/")[2]}
    assert len([t for t in proxy.targets if t.endswith("/chunks/upserted")]) == 1
    assert proxy.refused == 0
    says_none_of(ended, proxy.password)


def test_a_proxy_that_refuses(target: Target, emulator: Emulator, stream: str) -> None:
    wrong = secrets.token_hex(12)
    with Proxy() as proxy:
        message = (schema(stream), *rows(stream, range(3)))
        ended = target.fail(6, "TC-REMOTE-06", *message, proxy=proxy.url(wrong))
        assert proxy.refused >= 1
    says_none_of(ended, wrong)
    ended = target.fail(6, "TC-REMOTE-06", *message, proxy=proxy.url())  # now nobody listens there
    says_none_of(ended, proxy.password)
    assert emulator.history(stream) == []


# --- certificates


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate; its key lies beside it."""
    directory = tmp_path_factory.mktemp("certificates")
    path = directory / "cert.pem"
    names = f"subjectAltName=IP:127.0.0.1,DNS:{HOST}"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(directory / "key.pem"), "-out", str(path), "-subj", "/CN=test"]
    command += ["-addext", names, "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Emulator]:
    options = ("--tls-cert", str(bundle), "--tls-key", str(bundle.with_name("key.pem")))
    emulator = start_emulator(tmp_path_factory.mktemp("https"), *options)
    emulator.url = emulator.url.replace("http:", "https:")
    emulator.session.verify = str(bundle)
    yield emulator
    emulator.stop()


@pytest.fixture
def secure(https: Emulator, make_target: Callable[..., Target]) -> Target:
    return make_target(**https.settings)


# What people set to have peace; none of it turns the check off.
PEACE: list[dict[str, str]] = [
    {},
    {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", "SSL_CERT_FILE": ""},
    {"PYTHONHTTPSVERIFY": "0", "NODE_TLS_REJECT_UNAUTHORIZED": "0", "CURL_INSECURE": "1"},
    {"TARGET_CELONIS_CA_BUNDLE": "", "TARGET_CELONIS_VERIFY": "false"},
]


@needs_openssl
def test_a_certificate_that_nobody_vouches_for_is_refused(
    https: Emulator,
    make_target: Callable[..., Target],
    stream: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = []
    for variables in PEACE:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            runs.append(make_target(**https.settings).start())
    # Nothing is fed to them: a run that is refused ends before it reads.
    for running in runs:
        ended = running.wait(close=False)
        assert ended.code == 6, ended.err
        assert "[TC-REMOTE-01]" in ended.last_words
        assert "`ca_bundle`" in ended.last_words
    assert https.history(stream) == []


@needs_openssl
def test_a_certificate_of_ones_own_is_accepted(
    secure: Target, https: Emulator, stream: str, bundle: Path
) -> None:
    secure.load(schema(stream), *rows(stream, range(3)), ca_bundle=str(bundle))
    assert https.count(stream) == 3


@needs_openssl
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_may_name_the_certificates(
    secure: Target, https: Emulator, stream: str, bundle: Path, variable: str
) -> None:
    data = lines(schema(stream), *rows(stream, range(3)))
    ended = secure.run(data, environment={variable: str(bundle)})
    assert ended.code == 0, ended.err
    assert https.count(stream) == 3


def test_a_bundle_that_is_not_there(target: Target, stream: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    ended = target.fail(2, "TC-SETTINGS-03", schema(stream), ca_bundle=missing)
    assert "`ca_bundle`" in ended.last_words
    assert missing in ended.last_words


@needs_openssl
def test_a_bundle_that_is_none(secure: Target, stream: str, tmp_path: Path) -> None:
    (junk := tmp_path / "junk.pem").write_text("junk")
    ended = secure.fail(2, "TC-SETTINGS-03", schema(stream), ca_bundle=str(junk))
    assert "`ca_bundle`" in ended.last_words


@needs_openssl
def test_a_bundle_of_the_environment_that_is_not_there(
    secure: Target, stream: str, tmp_path: Path
) -> None:
    missing = {"REQUESTS_CA_BUNDLE": str(tmp_path / "none.pem")}
    ended = secure.run(lines(schema(stream)), environment=missing)
    assert ended.code == 2, ended.err
    assert missing["REQUESTS_CA_BUNDLE"] in ended.last_words


# --- all of it at once


@needs_openssl
@pytest.mark.parametrize("named", ["settings", "environment"])
def test_https_through_a_proxy(
    https: Emulator,
    make_target: Callable[..., Target],
    stream: str,
    bundle: Path,
    proxy: Proxy,
    named: str,
) -> None:
    proxy.names[HOST] = port_of(https.url)
    variables = {"HTTPS_PROXY": proxy.url(), "REQUESTS_CA_BUNDLE": str(bundle)}
    settings = {"proxy": proxy.url(), "ca_bundle": str(bundle)}
    target = make_target(**https.settings | {"base_url": f"https://{HOST}"})
    data = lines(schema(stream), *rows(stream, range(3)))
    if named == "environment":
        ended = target.run(data, environment=variables)
    else:
        ended = target.run(data, **settings)
    assert ended.code == 0, ended.err
    assert https.count(stream) == 3
    assert set(proxy.targets) == {f"{HOST}:443"}
    says_none_of(ended, proxy.password)


@needs_openssl
def test_https_through_a_proxy_that_refuses(
    https: Emulator, make_target: Callable[..., Target], stream: str, bundle: Path, proxy: Proxy
) -> None:
    wrong = secrets.token_hex(12)
    settings = https.settings | {"base_url": f"https://{HOST}", "ca_bundle": str(bundle)}
    target = make_target(**settings, proxy=proxy.url(wrong))
    ended = target.fail(6, "TC-REMOTE-06", schema(stream), *rows(stream, range(3)))
    assert proxy.refused >= 1
    assert proxy.authorizations == set()
    says_none_of(ended, wrong)
