"""The promises page names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_that_a_promise_names_exists() -> None:
    named = NAMED.findall((ROOT / "docs/promises.md").read_text())
    assert len(named) >= 15
    missing = [
        (path, test)
        for path, test in named
        if not (ROOT / path).exists() or (test and f"def {test}(" not in (ROOT / path).read_text())
    ]
    assert missing == []


def test_every_promise_names_a_test() -> None:
    page = (ROOT / "docs/promises.md").read_text()
    promises = re.split(r"^\d+\. \*\*", page, flags=re.MULTILINE)[1:]
    assert len(promises) == 13
    assert all(NAMED.search(promise) for promise in promises)
