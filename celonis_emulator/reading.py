"""Looking into an emulator from outside: a file that no server holds, or a running server.

Hides: read-only opening, the admin endpoints' addresses. Guarantees: nothing is written; a failure
is one sentence. Must not know: the command line, how text is laid out.
"""

from __future__ import annotations

import contextlib
import csv
import io
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import duckdb

from celonis_emulator.inventory import described_jobs, described_tables, grid, queried
from celonis_emulator.sqltext import SqlRefused
from celonis_emulator.warehouse import DatabaseUnavailable, connect

if TYPE_CHECKING:
    from pathlib import Path

Inventory = tuple[list[dict[str, Any]], list[dict[str, Any]]]

SERVER_PATIENCE_SECONDS = 30
NULL_SHOWN = "NULL"


class ReadingFailed(Exception):  # noqa: N818
    """A server or a query refused; the text is one sentence for people."""


def inventory_of_file(database: Path) -> Inventory:
    """Return the tables and jobs in a file.

    Raises:
        DatabaseUnavailable: a server holds the file, or it is no database of an emulator.
    """
    with _open(database) as connection:
        try:
            return described_tables(connection), described_jobs(connection)
        except duckdb.Error as error:
            msg = f"{database} was not written by celonis-emulator."
            raise DatabaseUnavailable(msg) from error


def inventory_of_server(url: str, key: str) -> Inventory:
    """Return the tables and jobs of a running server.

    Raises:
        ReadingFailed: it does not answer, or refuses the key.
    """
    return _ask(url, key, "tables"), _ask(url, key, "history")


def query_file(database: Path, sql: str) -> dict[str, Any]:
    """Run one SQL query on a file; return its columns and rows.

    Raises:
        DatabaseUnavailable: a server holds the file.
        ReadingFailed: DuckDB refuses the query.
    """
    with _open(database) as connection:
        try:
            return queried(connection, sql)
        except (SqlRefused, duckdb.Error) as error:
            raise ReadingFailed(str(error)) from error


def query_server(url: str, key: str, sql: str) -> dict[str, Any]:
    """Run one SQL query in a running server; return its columns and rows.

    Raises:
        ReadingFailed: the server does not answer, or refuses the key or the query.
    """
    found: dict[str, Any] = _ask(url, key, "query", {"sql": sql})
    return found


def as_csv(answer: dict[str, Any]) -> str:
    """Return columns and rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([answer["columns"], *answer["rows"]])
    return text.getvalue()


def as_grid(answer: dict[str, Any]) -> str:
    """Return columns and rows as aligned text."""
    rows = [[NULL_SHOWN if v is None else v for v in row] for row in answer["rows"]]
    return grid(answer["columns"], rows) + "\n"


def _open(database: Path) -> duckdb.DuckDBPyConnection:
    if not database.exists():
        msg = f"There is no database {database}."
        raise DatabaseUnavailable(msg)
    connection = connect(database, read_only=True, patience_seconds=0)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _ask(url: str, key: str, what: str, body: dict[str, Any] | None = None) -> Any:
    address = f"{url.rstrip('/')}/_emulator/{what}"
    if not address.startswith(("http://", "https://")):
        msg = f"{url} is no http address."
        raise ReadingFailed(msg)
    data = None if body is None else json.dumps(body).encode()
    try:
        try:
            return _answer(address, f"Bearer {key}", data)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.UNAUTHORIZED:
                raise
            # The other kind of key; nothing in a key tells which one it is.
            return _answer(address, f"AppKey {key}", data)
    except urllib.error.HTTPError as error:
        reasons = {400: _reason(error), 401: "the key is not valid"}
        reason = reasons.get(error.code, f"status {error.code}")
        msg = f"The server at {url} refuses: {reason}"
        raise ReadingFailed(msg) from error
    except (OSError, ValueError) as error:
        msg = f"No emulator answers at {url}: {getattr(error, 'reason', error)}."
        raise ReadingFailed(msg) from error


def _answer(address: str, authorization: str, data: bytes | None) -> Any:
    """Return the JSON that an http address answers with."""
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    # The scheme was checked by the caller.
    request = urllib.request.Request(address, data=data, headers=headers)  # noqa: S310
    # A proxy is for the world outside.
    around = [urllib.request.ProxyHandler({})] if _is_loopback(request.host) else []
    opener = urllib.request.build_opener(*around)
    with opener.open(request, timeout=SERVER_PATIENCE_SECONDS) as answer:
        return json.load(answer)


def _is_loopback(host_and_port: str) -> bool:
    host = urllib.parse.urlsplit(f"//{host_and_port}").hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["errors"][0]["error"])
    except (ValueError, LookupError):
        return "status 400"
