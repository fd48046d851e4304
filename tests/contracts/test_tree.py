"""What is in the tree: public names, and nothing that belongs to one machine or one person."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

import target_celonis

ROOT = Path(__file__).resolve().parents[2]
SECRETS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[0-9A-Za-z]{30,}\b",
    r"\bgithub_pat_\w{20,}",
    r"\bpypi-[0-9A-Za-z_-]{30,}",
    r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    r"\b(?:AppKey|Bearer) [A-Za-z0-9+/]{24,}={0,2}",
    r"\beyJ[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{20,}",
)
PLACES = r"(?<![\w.:-])/(?:home|root|Users|work|mnt)/\w+|\b[A-Z]:\\\\?Users\\"


@cache
def tracked() -> dict[str, str]:
    """Return the texts of all files that are, or would be, in a commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("needs a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.is_file()
    }


def test_public_names() -> None:
    assert target_celonis.__all__ == ["TargetCelonis"]
    assert target_celonis.TargetCelonis.name == "target-celonis"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = target_celonis.Nothing  # type: ignore[attr-defined]


def test_the_package_says_that_it_is_typed() -> None:
    for package in ("target_celonis", "celonis_emulator"):
        assert (ROOT / package / "py.typed").exists()


def test_no_secret_is_in_the_tree() -> None:
    for name, text in tracked().items():
        for pattern in SECRETS:
            assert not re.search(pattern, text), (name, pattern)


def test_no_place_of_one_machine_is_in_the_tree() -> None:
    for name, text in tracked().items():
        if name == Path(__file__).resolve().relative_to(ROOT).as_posix():
            continue
        assert not re.search(PLACES, text), (name, re.search(PLACES, text))


def test_top_level() -> None:
    for name in (
        *("target_celonis", "celonis_emulator", "tests", "examples", "docs", ".github"),
        *("meltano.yml", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"),
        ".ci/run",
    ):
        assert (ROOT / name).exists(), name
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "make test" in (ROOT / ".ci" / "run").read_text()
