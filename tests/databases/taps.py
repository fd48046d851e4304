"""The two real taps that read PostgreSQL, each in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from .postgres import SqlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .postgres import Cluster

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "postgres"


class Tap:
    """A tap on some schemas of a cluster.

    Args:
        cluster: The server.
        directory: Where its settings, its catalog, its state and its log are kept.
        schemas: Whose tables it reads.
        settings: More of its settings.
    """

    environment: ClassVar[str]

    def __init__(self, cluster: Cluster, directory: Path, *schemas: str, **settings: Any) -> None:
        if not self.program().exists():
            pytest.skip(f"no {self.program().relative_to(ROOT)}: make test makes it")
        self.cluster = cluster
        self.directory = directory
        self.schemas = schemas
        server = {"host": "127.0.0.1", "port": cluster.port}
        user = {"user": "postgres", "password": "none is asked for"}
        self.settings = {**server, **user, **self._settings(), **settings}
        self._catalog: Path | None = None

    @classmethod
    def program(cls) -> Path:
        return ROOT / cls.environment / "bin" / "tap-postgres"

    def _settings(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def slot(self) -> str:
        """The replication slot that it reads."""
        raise NotImplementedError

    @contextmanager
    def replication(self) -> Iterator[None]:
        """Have the server keep for the tap what is written from now on."""
        try:
            self.cluster.sql(
                f"SELECT pg_create_logical_replication_slot('{self.slot}', 'wal2json')"
            )
        except SqlError as error:
            if "could not access file" not in str(error):
                raise
            pytest.skip("no wal2json (Debian and Ubuntu: apt install postgresql-NN-wal2json)")
        try:
            yield
        finally:
            self.cluster.sql(f"SELECT pg_drop_replication_slot('{self.slot}')")

    @property
    def log(self) -> Path:
        return self.directory / "tap.log"

    def command(self, state: bytes | None = None) -> list[str]:
        """Return a command line, with the state of an earlier run."""
        config = self.directory / "tap.json"
        config.write_text(json.dumps(self.settings))
        command = [str(self.program()), "--config", str(config)]
        if self._catalog is not None:
            command += ["--catalog", str(self._catalog)]
        if state is not None:
            (self.directory / "state.json").write_bytes(state)
            command += ["--state", str(self.directory / "state.json")]
        return command

    def choose(self, method: str, replication_key: str | None = None) -> None:
        """Discover, and choose a replication method for all tables."""
        self.choose_each(dict.fromkeys(self.schemas, (method, replication_key)))

    def choose_each(self, methods: Mapping[str, tuple[str, str | None]]) -> None:
        """Discover, and choose for each schema a replication method with its key."""
        found = subprocess.run(
            [*self.command(), "--discover"], check=True, capture_output=True, cwd=self.directory
        )
        catalog = json.loads(found.stdout)
        for stream in catalog["streams"]:
            method, key = methods[stream["tap_stream_id"].partition("-")[0]]
            whole = next(m["metadata"] for m in stream["metadata"] if m["breadcrumb"] == [])
            whole |= {"selected": True, "replication-method": method}
            stream["replication_method"] = method
            if key is not None:
                stream["replication_key"] = whole["replication-key"] = key
        self._catalog = self.directory / "catalog.json"
        self._catalog.write_text(json.dumps(catalog))


class MeltanoLabsTap(Tap):
    """``meltanolabs-tap-postgres``, built with Meltano's SDK."""

    environment = ".venv-tap-postgres"

    def _settings(self) -> dict[str, Any]:
        return {
            "database": DATABASE,
            "filter_schemas": list(self.schemas),
            "replication_slot_name": self.slot,
            "replication_idle_exit_seconds": 1,
            # Without these it reads no rows from before the slot, and loses some of all tables
            # but one in long runs.
            "log_based_single_connection": True,
            "auto_bootstrap_log_based": True,
        }

    @property
    def slot(self) -> str:
        return f"slot_of_{self.schemas[0]}"


class PipelineWiseTap(Tap):
    """``pipelinewise-tap-postgres``."""

    environment = ".venv-tap-pipelinewise-postgres"

    def _settings(self) -> dict[str, Any]:
        return {
            "dbname": DATABASE,
            "filter_schemas": ",".join(self.schemas),
            "tap_id": self.schemas[0],
            "logical_poll_total_seconds": 1,
        }

    @property
    def slot(self) -> str:
        return f"pipelinewise_{DATABASE}_{self.schemas[0]}"


TAPS: dict[str, type[Tap]] = {"meltanolabs": MeltanoLabsTap, "pipelinewise": PipelineWiseTap}
