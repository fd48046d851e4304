"""Running the server: database, socket, ready file, signals, lifeline.

Hides: uvicorn, process life. Guarantees: ends with 0 on SIGTERM, SIGINT and, within a second, on
the end of stdin when asked to watch it; a job at work then is rolled back.
Must not know: routes, the shape of any answer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvicorn

from celonis_emulator.app import create_app
from celonis_emulator.connection import BreakableProtocol
from celonis_emulator.datajobs import DataJobs
from celonis_emulator.faults import Faults, of_tables
from celonis_emulator.identity import Identities
from celonis_emulator.ledger import Ledger
from celonis_emulator.lifeline import end_with_stdin
from celonis_emulator.models import DataModels
from celonis_emulator.oauth import OAuthServer
from celonis_emulator.pushjobs import PushJobs
from celonis_emulator.runledger import RunLedger
from celonis_emulator.warehouse import DatabaseUnavailable, Warehouse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastapi import FastAPI

    from celonis_emulator.faults import Fault
    from celonis_emulator.oauth import OAuthClient
    from celonis_emulator.setup import Key, Team
    from celonis_emulator.switches import Switches

# Answers in progress may end; a client that never reads must not hold the process.
GRACE_SECONDS: Final = 3


class CannotListen(Exception):  # noqa: N818
    """The address cannot be bound; the text is one sentence for people."""


class BadCertificate(Exception):  # noqa: N818
    """The server cannot speak TLS with it; the text is one sentence for people."""


class BadReadyFile(Exception):  # noqa: N818
    """The ready file cannot be written; the text is one sentence for people."""


@dataclass(frozen=True)
class Certificate:
    """A certificate, with those that vouch for it, and its key: two PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ServerOptions:
    """What a server is started with."""

    host: str
    port: int
    database: Path
    keys: Sequence[Key]
    oauth_clients: Sequence[OAuthClient]
    team: Team
    switches: Switches
    certificate: Certificate | None
    ready_file: Path | None
    until_stdin_closes: bool
    log_level: str
    faults: Sequence[Fault] = ()
    # A key that was made for this run, to be told once the server answers.
    made_key: str | None = None


def serve(options: ServerOptions) -> None:
    """Serve until told to stop.

    Raises:
        DatabaseUnavailable: another process holds the database, or it is none.
        CannotListen: the address is in use or not ours.
        BadSetUp: a pool, or something in it, cannot be made.
        BadCertificate: the certificate or its key cannot be used.
        BadReadyFile: the ready file cannot be written.
    """
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(message)s")
    if options.certificate is not None:
        _try_certificate(options.certificate)
    directory = options.database.with_name(options.database.name + ".chunks")
    if options.ready_file is not None:
        _clear_ready_file(options.ready_file)
    warehouse = _opened(options.database, directory)
    try:
        with _listening_socket(options.host, options.port) as listener:
            ledger = Ledger(warehouse)
            _set_up(ledger, options.team)
            faults = Faults([*of_tables(options.switches.fail_table), *options.faults])
            push_jobs = PushJobs(warehouse, ledger, options.switches, directory, faults)
            runs = RunLedger(warehouse)
            models = DataModels(warehouse, ledger, runs, options.switches)
            data_jobs = DataJobs(warehouse, ledger, runs, models, options.switches)
            push_jobs.start()
            models.start()
            data_jobs.start()
            oauth = OAuthServer(options.oauth_clients, options.switches)
            identities = Identities(options.keys, oauth)
            app = create_app(
                warehouse,
                ledger,
                push_jobs=push_jobs,
                models=models,
                data_jobs=data_jobs,
                identities=identities,
                switches=options.switches,
                faults=faults,
            )
            try:
                _run(app, listener, options)
            finally:
                push_jobs.stop()
                data_jobs.stop()
                models.stop()
                runs.close()
                ledger.close()
    finally:
        warehouse.close()


def _opened(database: Path, directory: Path) -> Warehouse:
    """Open the database, and make the directories that there must be."""
    warehouse: Warehouse | None = None
    try:
        warehouse = Warehouse(database, directory)
        directory.mkdir(exist_ok=True)
    except OSError as error:
        if warehouse is not None:
            warehouse.close()
        place = error.filename or database
        msg = (
            f"The database {database} cannot be used, because of {place}: "
            f"{error.strerror or error}."
        )
        raise DatabaseUnavailable(msg) from error
    return warehouse


def _clear_ready_file(path: Path) -> None:
    """Remove what an earlier server left, and try whether the file can be written."""
    part = _part_of(path)
    try:
        path.unlink(missing_ok=True)
        part.touch()
        part.unlink()
    except OSError as error:
        msg = f"The ready file {path} cannot be written: {error.strerror or error}."
        raise BadReadyFile(msg) from error


def _part_of(path: Path) -> Path:
    """Return the file that becomes the ready file when it is whole."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _set_up(ledger: Ledger, team: Team) -> None:
    """Make what is not there yet; data models and jobs of a known id become what they are here."""
    for pool in team.pools:
        ledger.ensure_pool(pool.id, pool.name)
    for connection in team.connections:
        ledger.ensure_connection(connection.pool_id, connection.id, connection.name)
    for model in team.data_models:
        ledger.put_model(model)
    for job in team.data_jobs:
        ledger.put_data_job(job)


def _run(app: FastAPI, listener: socket.socket, options: ServerOptions) -> None:
    certificate = options.certificate
    config = uvicorn.Config(
        app,
        log_level=options.log_level,
        access_log=False,
        http=BreakableProtocol,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE_SECONDS,
        # A client that thinks for a while between two requests keeps its connection.
        timeout_keep_alive=75,
        server_header=False,
        ssl_certfile=certificate.certificate if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    server = _Server(config, listener, options)
    # uvicorn raises a signal again after its clean end; nothing may happen then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if options.until_stdin_closes:
        end_with_stdin(server)
    try:
        server.run(sockets=[listener])
    finally:
        server.withdraw()


class _Server(uvicorn.Server):
    """Tells that it answers, once it does: in the ready file or, without one, to people."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, options: ServerOptions
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._options = options
        self._announcement: str | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        scheme = "https" if self._options.certificate else "http"
        host, port = self._options.host, self._listener.getsockname()[1]
        path = self._options.ready_file
        if self._options.made_key is not None:
            sys.stderr.write(
                f"No key was given; the API key of this run is {self._options.made_key}\n"
            )
            sys.stderr.flush()
        if path is None:
            address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
            sys.stderr.write(
                f"celonis-emulator answers at {address} and keeps its tables in "
                f"{self._options.database}; Ctrl-C ends it.\n"
            )
            sys.stderr.flush()
        else:
            about = {"scheme": scheme, "host": host, "port": port, "pid": os.getpid()}
            self._announcement = json.dumps(about) + "\n"
            part = _part_of(path)
            part.write_text(self._announcement, encoding="utf-8")
            part.replace(path)

    def withdraw(self) -> None:
        """Remove the ready file, if it is still that of this server."""
        path = self._options.ready_file
        if path is None or self._announcement is None:
            return
        with contextlib.suppress(OSError, ValueError):
            if path.read_text(encoding="utf-8") == self._announcement:
                path.unlink()


def _try_certificate(certificate: Certificate) -> None:
    """Load the files once before anything is opened, so that a fault in them is a sentence."""
    for path in (certificate.certificate, certificate.key):
        try:
            path.read_bytes()
        except OSError as error:
            msg = f"The file {path} cannot be read: {error.strerror or error}."
            raise BadCertificate(msg) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password: OpenSSL would ask for that of a locked key on the terminal.
        context.load_cert_chain(certificate.certificate, certificate.key, password="")
    except ssl.SSLError as error:
        msg = (
            f"{certificate.certificate} and {certificate.key} are no certificate and its unlocked "
            "key in PEM form."
        )
        raise BadCertificate(msg) from error


def _listening_socket(host: str, port: int) -> socket.socket:
    listener: socket.socket | None = None
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = info[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        if listener is not None:
            listener.close()
        msg = f"The address {host} port {port} cannot be used: {error.strerror or error}."
        raise CannotListen(msg) from error
    return listener
