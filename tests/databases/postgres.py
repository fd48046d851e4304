"""A throw-away PostgreSQL server.

The server is the one that the machine has; it gets a cluster of its own in a temporary directory
and listens on loopback only. PostgreSQL refuses to run as root, so root lends it to another user.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60.0
SERVER_USERS = ("postgres", "nobody")
SETTINGS = {
    # Logical replication is off in a new cluster.
    "wal_level": "logical",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # Neither UTC nor a zone of whole hours all the time: Berlin's was +00:53:28 until 1893.
    "timezone": "Europe/Berlin",
    # Nothing has to survive a crash of the machine.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "4GB",
}
# However the tests end, the pipe from them does, and with it the server and its directory.
UNTIL_INPUT_ENDS = '"$@" & read _; kill -QUIT $!; wait $!; rm -rf "$0"'


class SqlError(Exception):
    """The server refused a statement; the message is psql's."""


def server_programs() -> Path | None:
    """Return the directory of the newest server's programs; Debian keeps them out of PATH."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    versions = [p.parent for p in Path("/usr/lib/postgresql").glob("[0-9]*/bin/initdb")]
    found += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    needed = ("initdb", "postgres", "psql")
    return next((d for d in found if all((d / name).exists() for name in needed)), None)


def why_not() -> str | None:
    """Return what these tests lack on this machine, if anything."""
    if server_programs() is None:
        return "no PostgreSQL server programs (Debian and Ubuntu: apt install postgresql)"
    if os.geteuid() == 0 and _server_user() is None:
        return "PostgreSQL does not run as root, and there is no other user to run it"
    return None


def _server_user() -> pwd.struct_passwd | None:
    known = {user.pw_name: user for user in pwd.getpwall()}
    return next((known[name] for name in SERVER_USERS if name in known), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A running server.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self) -> None:
        programs = server_programs()
        assert programs is not None
        self._psql = programs / "psql"
        self.port = _free_port()
        # Not one of pytest's directories: these are closed to other users.
        self._directory = Path(tempfile.mkdtemp(prefix="target-celonis-postgres-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _server_user()
            assert user is not None
            os.chown(self._directory, user.pw_uid, user.pw_gid)
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = str(self._directory / "data")
        command = [programs / "initdb", "--pgdata", data, "--username", "postgres", "--no-sync"]
        command += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
        self._run(command)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
        self._log = self._directory / "log"
        server = [programs / "postgres", "-D", data, f"--port={self.port}", *options]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", UNTIL_INPUT_ENDS, self._directory, *server],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                **self._user,
            )
        self._wait()

    def _run(self, command: list[Any]) -> None:
        done = subprocess.run(
            command, cwd=self._directory, capture_output=True, text=True, check=False, **self._user
        )
        assert done.returncode == 0, done.stderr

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.sql("SELECT 1")
            except SqlError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.05)
            else:
                return

    def sql(self, statements: str) -> str:
        """Run statements and return what they print, fields separated by tabs."""
        command = [self._psql, "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        command += ["-d", f"postgresql://postgres@127.0.0.1:{self.port}/postgres"]
        done = subprocess.run(
            command, input=statements.encode(), capture_output=True, check=False, timeout=600
        )
        if done.returncode:
            raise SqlError(done.stderr.decode())
        return done.stdout.decode()

    def stop(self) -> None:
        """Stop the server at once and remove all that it wrote."""
        self._process.communicate(timeout=PATIENCE_SECONDS)
        assert not self._directory.exists()


@dataclass(frozen=True)
class Source:
    """A schema of a cluster.

    In statements ``{schema}`` stands for the schema's name.
    """

    cluster: Cluster
    schema: str

    def stream(self, table: str) -> str:
        """Return what the taps call a table."""
        return f"{self.schema}-{table}"

    def run_file(self, name: str, **variables: int) -> None:
        """Run one of the files with SQL beside this one; ``variables`` are those it names."""
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        values: dict[str, int | str] = {"schema": self.schema, **variables}
        sets = "".join(f"\\set {name} {value}\n" for name, value in values.items())
        self.cluster.sql(sets + text)

    def sql(self, statements: str) -> None:
        self.cluster.sql(statements.format(schema=self.schema))

    def json(self, select: str) -> list[list[Any]]:
        """Return the rows of a SELECT, each value as JSON has it."""
        found = self.cluster.sql(
            f"SELECT to_json(row) FROM ({select.format(schema=self.schema)}) AS row"
        )
        return [list(json.loads(line).values()) for line in found.splitlines()]
