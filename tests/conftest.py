"""Nothing of the machine's own settings reaches a test, and no secret is printed by one."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["evidence"]

_FOREIGN_PREFIXES = ("TARGET_CELONIS_", "CELONIS_EMULATOR_", "MELTANO_", "SINGER_SDK_")
_FOREIGN = {"loglevel", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "netrc"}


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Take away variables that would change what the programs do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_FOREIGN_PREFIXES) or name.lower() in _FOREIGN:
                patch.delenv(name)
        yield


_GZIP_WITH_TIME = re.compile(rb"\x1f\x8b\x08.(?!\0{4})", re.DOTALL)


def pytest_make_parametrize_id(val: object, argname: str) -> None:
    """Refuse a test's name that is another one when the next process collects it."""
    if isinstance(val, bytes) and _GZIP_WITH_TIME.match(val):
        fault = f"`{argname}`: name these cases by `ids`, or pack with `mtime=0`: gzip has the time"
        raise pytest.UsageError(fault)
