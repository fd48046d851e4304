"""Nothing of the machine's own settings reaches a test, and no secret is printed by one."""

from __future__ import annotations

import os
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
