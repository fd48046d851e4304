"""What the figures were measured on: the machine, Python, and the versions of what took part.

Hides where this is found. Guarantees: no name of a machine, a person or a place.
"""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.environments import Package

_DISTRIBUTIONS = ("target-celonis", "singer-sdk", "msgspec", "pyarrow", "duckdb")


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "not known"
    return f"{size_bytes / 1e9:.0f} GB"


def versions(packages: Iterable[Package]) -> dict[str, str]:
    """Return the versions of this environment, and of what was installed beside it."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for package in packages:
        beside = f" (with {', '.join(package.others)})" if package.others else ""
        found[package.name] = package.version + beside
    return found


def about(packages: Iterable[Package]) -> dict[str, str]:
    """Return the date, the machine and the versions, in words."""
    said = ", ".join(f"{name} {number}" for name, number in versions(packages).items())
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{_cores()} cores of {_cpu_model()}, {_memory()}, {platform.system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": said,
    }
