"""One answer is lost, or one connection breaks: the run ends well, and each row stands once."""

from __future__ import annotations

import hashlib
import random
import string
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from .harness import Emulator, Target, record, schema, syncing
from .tcp_proxy import Cruelty, Fault, TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = 2_200
JOBS = r"/[\w-]+/api/v1/data-push/[^/]+/jobs"
CALLS = {
    "create": ("POST", f"{JOBS}/"),
    "upload": ("POST", f"{JOBS}/[^/]+/chunks/upserted"),
    "execute": ("POST", f"{JOBS}/[^/]+"),
    "status": ("GET", f"{JOBS}/[^/]+"),
    "delete": ("DELETE", f"{JOBS}/[^/]+"),
}
METHODS = ("upsert", "append-only", "overwrite")


@pytest.fixture
def proxy(emulator: Emulator) -> Iterator[TcpProxy]:
    parts = urlsplit(emulator.url)
    with TcpProxy(parts.hostname or "", parts.port or 0) as started:
        yield started


@pytest.fixture
def target(
    emulator: Emulator, proxy: TcpProxy, make_target: Callable[..., Target]
) -> Iterator[Target]:
    """The program, with the proxy between it and the shared emulator."""
    yield make_target(**(emulator.settings | {"base_url": proxy.url, "chunk_size_mb": 1}))
    assert emulator.left_behind() == []


@pytest.fixture(scope="module")
def texts() -> dict[int, str]:
    """Texts that cannot be compressed by much: several chunks of the smallest size."""
    made_up = random.Random(7)  # noqa: S311  # test data
    letters = string.ascii_letters + string.digits
    return {number: "".join(made_up.choices(letters, k=1_300)) for number in range(ROWS)}


def load(target: Target, stream: str, method: str, texts: dict[int, str]) -> str:
    """Load all rows and return what was said on the way."""
    data = [record(stream, id=number, text=text) for number, text in texts.items()]
    rules = [{"match": "*", "load_method": method}]
    ended = target.load(schema(stream), *data, syncing(None), streams=rules)
    assert ended.states == [b'{"bookmarks": {}, "currently_syncing": null}']
    return ended.err


def check(emulator: Emulator, stream: str, texts: dict[int, str]) -> None:
    """Compare every row; a row that stands twice counts twice."""
    found = emulator.query(f'SELECT id, md5("text") FROM local."{stream}"')
    expected = [
        [str(number), hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()]
        for number, text in texts.items()
    ]
    assert sorted(found) == sorted(expected)


def cases() -> Iterator[object]:
    """Yield each call with each fault; the most telling ones run always, all with ``test-all``."""
    always = {
        ("upload", Cruelty.SWALLOW),
        ("execute", Cruelty.SWALLOW),
        ("create", Cruelty.SWALLOW),
    }
    for call in CALLS:
        for cruelty in Cruelty:
            marks = () if (call, cruelty) in always else (pytest.mark.slow,)
            yield pytest.param(call, cruelty, marks=marks, id=f"{call}-{cruelty}")


@pytest.mark.parametrize(("call", "cruelty"), list(cases()))
@pytest.mark.parametrize("method", METHODS)
def test_one_fault(
    target: Target,
    emulator: Emulator,
    proxy: TcpProxy,
    stream: str,
    texts: dict[int, str],
    method: str,
    call: str,
    cruelty: Cruelty,
) -> None:
    verb, path = CALLS[call]
    size = 300_000 if call == "upload" else 100
    fault = Fault(cruelty, verb, path, after_bytes=size, bytes_per_second=size)
    proxy.faults.append(fault)
    load(target, stream, method, texts)
    assert fault.hit
    check(emulator, stream, texts)
    jobs = emulator.history(stream)
    done = [job for job in jobs if job["status"] == "DONE"]
    assert [job["submits"] for job in done] == [1]
    assert len(done[0]["chunks"]) > 2
    assert sum(job["submits"] for job in jobs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cruelty", [Cruelty.SWALLOW, Cruelty.RESET])
def test_one_fault_of_each_kind_of_call(
    target: Target,
    emulator: Emulator,
    proxy: TcpProxy,
    stream: str,
    texts: dict[int, str],
    method: str,
    cruelty: Cruelty,
) -> None:
    """All in one run."""
    for call, (verb, path) in CALLS.items():
        size = 300_000 if call == "upload" else 100
        proxy.faults.append(Fault(cruelty, verb, path, after_bytes=size))
    load(target, stream, method, texts)
    assert all(fault.hit for fault in proxy.faults)
    check(emulator, stream, texts)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_fault_nothing_is_sent_twice(
    target: Target,
    emulator: Emulator,
    proxy: TcpProxy,
    stream: str,
    texts: dict[int, str],
    method: str,
) -> None:
    """The proxy is none: what the other tests find, faults have made."""
    said = load(target, stream, method, texts)
    check(emulator, stream, texts)
    (job,) = emulator.history(stream)
    uploads = [path for verb, path in proxy.requests if verb == "POST" and "/chunks/" in path]
    assert len(uploads) == len(job["chunks"]) > 2
    assert "trying again" not in said
