"""Virtual environments for programs from PyPI, made when they are needed.

Hides how they are made and kept. Guarantees: what cannot be installed here is said in a sentence,
and is no failure.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE_SECONDS = 600.0
_NEVER_COMPILED = ("--only-binary", "duckdb")
"""Where it has no wheel, compiling it takes hours."""


class UnavailableError(Exception):
    """A program cannot be had here; the message says why."""


@dataclass(frozen=True)
class Package:
    """A program from PyPI.

    Attributes:
        name: Of the distribution.
        version: Which one.
        executable: Of the program.
        others: What else is pinned beside it.
    """

    name: str
    version: str
    executable: str
    others: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is installed."""
        return (f"{self.name}=={self.version}", *self.others)


def installed(package: Package, directory: Path) -> Path:
    """Return the ``bin`` of an environment with a package, making it unless it is there.

    Args:
        package: What is to be in it.
        directory: Where environments are kept.

    Raises:
        UnavailableError: It cannot be installed.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = directory / f"{package.name}-{package.version}-python-{version}"
    stamp = place / "installed.txt"
    wanted = "\n".join(package.requirements)
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(place, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        log = directory / f"{place.name}.log"
        python = str(place / "bin" / "python")
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [python, "-m", "pip", "install", "--quiet", *_NEVER_COMPILED, *package.requirements],
        ):
            _run(command, log, f"{package.requirements[0]} for Python {version}")
        stamp.write_text(wanted)
    return place / "bin"


def _run(command: list[str], log: Path, what: str) -> None:
    try:
        with log.open("ab") as file:
            subprocess.run(  # noqa: S603  # spelled out above
                command, stdout=file, stderr=file, timeout=_PATIENCE_SECONDS, check=True
            )
    except (subprocess.SubprocessError, OSError):
        raise UnavailableError(f"{what} cannot be installed here (see {log})") from None
