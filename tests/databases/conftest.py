"""One server for all tests, and for each a schema, a tap and an emulator of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from .loading import Loading
from .postgres import Cluster, Source, SqlError, Tap, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A server with an empty cluster."""
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def source(postgres: Cluster, tmp_path: Path) -> Source:
    """A schema that no other test uses, with the tap for all its tables."""
    schema = f"demo_{next(_schemas)}"
    slot = {"replication_slot_name": f"slot_of_{schema}", "replication_idle_exit_seconds": 1}
    return Source(postgres, schema, Tap.of(postgres, tmp_path, schema, **slot))


@pytest.fixture
def replication(postgres: Cluster, source: Source) -> Iterator[None]:
    """A replication slot that keeps what is written from now on."""
    slot = source.tap.settings["replication_slot_name"]
    try:
        postgres.sql(f"SELECT pg_create_logical_replication_slot('{slot}', 'wal2json')")
    except SqlError as error:
        if "could not access file" not in str(error):
            raise
        pytest.skip("no wal2json (Debian and Ubuntu: apt install postgresql-NN-wal2json)")
    yield
    postgres.sql(f"SELECT pg_drop_replication_slot('{slot}')")


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)
