"""A Meltano project, and proof that it stays at home."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from .project import MELTANO, TAP, Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def _installed() -> None:
    for program in (MELTANO, TAP):
        if not program.exists():
            pytest.skip(f"{program.parents[1].name} is not there; `make test` makes it")


@pytest.fixture
def way_out() -> Iterator[str]:
    """Listen as the proxy of everything that wants to leave this machine: none may come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.settimeout(0)
        with suppress(BlockingIOError):
            connection, _ = server.accept()
            with connection:
                connection.settimeout(1)
                pytest.fail(f"it wants to leave this machine: {connection.recv(500)!r}")


@pytest.fixture
def project(_installed: None, tmp_path: Path, way_out: str) -> Iterator[Project]:
    made = Project(tmp_path, way_out)
    yield made
    assert not list(tmp_path.glob("*.duckdb")), "the database is where the environment says"
