"""Memory stays bounded, whatever comes in."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .harness import PATIENCE_SECONDS, Emulator, Target, schema, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEGABYTE = 1_000_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process had so far; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0][1]) * 1024 if found else 0


def feed(target: Target, blocks: Iterator[bytes], **settings: object) -> tuple[int, bytes]:
    """Run with an input that is made on the way; return the peak of memory, and stdout."""
    log = target.directory / "stderr.txt"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            target.command(**settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=target.directory,
        )
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for block in blocks:
            process.stdin.write(block)
        process.stdin.close()
        out = process.stdout.read()
        code = process.wait(PATIENCE_SECONDS)
    finally:
        process.kill()
        process.stdout.close()
        done.set()
        watcher.join()
    assert code == 0, log.read_text()
    return peak, out


def text_records(stream: str, total_bytes: int) -> Iterator[bytes]:
    """Make records of half a kilobyte that do not compress, and a state behind them."""
    made_up = random.Random(5)  # noqa: S311  # test data
    parts = [made_up.randbytes(60).hex() for _ in range(5_000)]
    yield schema(stream) + b"\n"
    made = number = 0
    while made < total_bytes:
        block = []
        for _ in range(2_000):
            text = "".join(made_up.sample(parts, 4))
            block.append(
                f'{{"type":"RECORD","stream":"{stream}","record":{{"id":{number},"text":"{text}"}}}}'
            )
            number += 1
        joined = ("\n".join(block) + "\n").encode()
        made += len(joined)
        yield joined
    yield state({"rows": number}) + b"\n"


def test_200_megabytes_in_chunks_of_one(emulator: Emulator, target: Target, stream: str) -> None:
    peak, out = feed(target, text_records(stream, 200 * MEGABYTE), chunk_size_mb=1)
    (job,) = emulator.history(stream)
    assert (job["submits"], job["status"]) == (1, "DONE")
    assert len(job["chunks"]) > 100
    assert max(chunk["bytes"] for chunk in job["chunks"]) <= MEGABYTE
    rows = emulator.count(stream)
    assert rows is not None
    assert rows > 300_000
    assert out == b'{"rows": %d}\n' % rows
    assert peak < 500 * MEGABYTE


def keyed_records(stream: str, count: int, keys: int) -> Iterator[bytes]:
    """Make small records; each key comes several times."""
    yield schema(stream) + b"\n"
    head = f'{{"type":"RECORD","stream":"{stream}","record":{{"id":'
    for first in range(0, count, 10_000):
        numbers = range(first, min(first + 10_000, count))
        block = [f'{head}{number * 7919 % keys},"text":"{number}"}}}}\n' for number in numbers]
        yield "".join(block).encode()


@pytest.mark.parametrize("key", ["id", "text"])
def test_memory_is_flat_over_millions_of_keys(
    emulator: Emulator, make_target: Callable[..., Target], stream: str, key: str
) -> None:
    """Ten times the records take no more than a little more memory."""
    rules = [{"match": "*", "key_properties": [key]}]
    peaks = []
    for count in (200_000, 2_000_000):
        name = f"{stream}_{key}_{count}"
        target = make_target(**emulator.settings)
        peak, _ = feed(target, keyed_records(name, count, count // 2), streams=rules)
        peaks.append(peak)
        assert emulator.count(name) == (count // 2 if key == "id" else count)
        (job,) = emulator.history(name)
        assert job["submits"] == 1
    assert peaks[1] < 500 * MEGABYTE
    assert peaks[1] - peaks[0] < 200 * MEGABYTE
