"""The command line: ``celonis-emulator serve``, ``tables`` and ``query``.

Hides: argument parsing, exit codes. Guarantees: a failure that people can cause is one plain
sentence on stderr; nothing heavy is imported before it is needed. Exit codes: 0 fine, 1 a server
or query refused, 2 usage, 3 the address cannot be used, 4 the database cannot be opened.
Must not know: how anything is done.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celonis_emulator.switches import ON_OFF, Switches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MISSING_EXTRA = "The emulator needs more packages: pip install 'target-celonis[emulator]'"
DEFAULT_DATABASE = "celonis.duckdb"
FAULTS = ("ERROR", "CANCELED")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("celonis_emulator"):
            raise
        return _say(MISSING_EXTRA, 2)
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say.
        os._exit(0)
    return code


def _say(sentence: str, code: int) -> int:
    sys.stderr.write(f"celonis-emulator: {sentence}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="celonis-emulator", description="A local Celonis for the load side."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the server")
    serve.set_defaults(run=_serve)
    serve.add_argument("--host", default="127.0.0.1", help="address (default %(default)s)")
    serve.add_argument("--port", type=int, default=4444, help="0 = a free one (default 4444)")
    _add_database(serve)
    for kind in ("api", "app"):
        serve.add_argument(
            f"--{kind}-key",
            action="append",
            default=[],
            metavar="KEY",
            help=f"a valid {kind} key; repeatable; also CELONIS_EMULATOR_{kind.upper()}_KEY, "
            "separated by commas",
        )
    serve.add_argument(
        "--oauth-client",
        action="append",
        default=[],
        metavar="ID:SECRET",
        help="an OAuth client; repeatable; also CELONIS_EMULATOR_OAUTH_CLIENT, separated by commas",
    )
    serve.add_argument(
        "--pool",
        action="append",
        type=_named,
        metavar="ID[=NAME]",
        help="make this data pool; repeatable (default: local)",
    )
    serve.add_argument(
        "--connection",
        action="append",
        type=_connection,
        default=[],
        metavar="POOL:ID[=NAME]",
        help="make this data connection; repeatable",
    )
    serve.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="speak https with this certificate (PEM)"
    )
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM, unlocked)")
    serve.add_argument("--ready-file", type=Path, metavar="PATH", help="written when it answers")
    serve.add_argument(
        "--until-stdin-closes", action="store_true", help="end when standard input ends"
    )
    serve.add_argument("--log-level", choices=LOG_LEVELS, default="warning")
    _add_switches(serve.add_argument_group("switches"))

    tables = commands.add_parser("tables", help="show tables, columns and push jobs")
    tables.set_defaults(run=_tables)
    _add_source(tables)

    query = commands.add_parser("query", help="run one SQL query")
    query.set_defaults(run=_query)
    query.add_argument("sql", metavar="SQL")
    query.add_argument("--csv", action="store_true", help="print CSV")
    _add_source(query)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    _add_database(parser)
    parser.add_argument("--url", help="ask a running server instead of a file")
    parser.add_argument("--api-key", metavar="KEY", help="key for --url")


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database",
        type=Path,
        default=Path(DEFAULT_DATABASE),
        metavar="FILE",
        help="DuckDB file (default %(default)s)",
    )


def _add_switches(group: argparse._ArgumentGroup) -> None:
    for switch in dataclasses.fields(Switches):
        default = switch.default
        shown: Any = default
        settings: dict[str, Any] = {"type": type(default)}
        if isinstance(default, bool):
            shown = ON_OFF[0] if default else ON_OFF[1]
            settings = {"choices": ON_OFF}
        elif switch.name == "fail_table":
            shown = "none"
            settings = {"action": "append", "type": _fault, "metavar": "NAME=STATUS"}
        elif isinstance(default, tuple):
            shown = ",".join(default)
            settings = {"type": _list_of(switch.metadata["choices"]), "metavar": "LIST"}
        elif isinstance(default, str):
            choices = switch.metadata["choices"]
            settings = {"choices": choices} if choices else {"metavar": "TEXT"}
        elif isinstance(default, int):
            settings = {"type": _count, "metavar": "N"}
        else:
            settings = {"type": _seconds, "metavar": "SECONDS"}
        text = f"{switch.metadata['doc']} (default {shown})".replace("%", "%%")
        group.add_argument("--" + switch.name.replace("_", "-"), help=text, **settings)


def _switches(arguments: argparse.Namespace) -> Switches:
    chosen: dict[str, Any] = {}
    for switch in dataclasses.fields(Switches):
        value = getattr(arguments, switch.name)
        if value is None:
            continue
        if isinstance(switch.default, bool):
            value = value == ON_OFF[0]
        chosen[switch.name] = tuple(value) if isinstance(value, list) else value
    return Switches(**chosen)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


def _list_of(choices: Sequence[str]) -> Any:
    def listed(text: str) -> tuple[str, ...]:
        names = tuple(_split(text))
        if unknown := [name for name in names if name not in choices]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return names

    return listed


def _fault(text: str) -> tuple[str, str]:
    name, _, status = text.rpartition("=")
    if not name or status.upper() not in FAULTS:
        raise argparse.ArgumentTypeError("expected NAME=ERROR or NAME=CANCELED")
    return name, status.upper()


def _named(text: str) -> tuple[str, str]:
    identity, _, name = text.partition("=")
    if not identity or "/" in identity:
        raise argparse.ArgumentTypeError("expected ID or ID=NAME, without a slash in the id")
    return identity, name or identity


def _connection(text: str) -> tuple[str, str, str]:
    pool_id, colon, rest = text.partition(":")
    if not pool_id or not colon:
        raise argparse.ArgumentTypeError("expected POOL:ID or POOL:ID=NAME")
    return (pool_id, *_named(rest))


def _keys(arguments: argparse.Namespace, kind: str) -> list[str]:
    """Return what the options ``--KIND`` and the environment name."""
    in_environment = os.environ.get(f"CELONIS_EMULATOR_{kind.upper()}", "")
    return [*getattr(arguments, kind), *_split(in_environment)]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _serve(arguments: argparse.Namespace) -> int:
    from celonis_emulator.ledger import NameTaken
    from celonis_emulator.oauth import OAuthClient
    from celonis_emulator.serve import (
        BadCertificate,
        CannotListen,
        Certificate,
        ServerOptions,
        serve,
    )
    from celonis_emulator.warehouse import DatabaseUnavailable

    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        return _say("--tls-cert and --tls-key go together.", 2)
    api_keys, app_keys = _keys(arguments, "api_key"), _keys(arguments, "app_key")
    clients = [text.partition(":") for text in _keys(arguments, "oauth_client")]
    if not all(identity and secret for identity, _, secret in clients):
        # What was given is not repeated: half of it may be a secret.
        return _say("An OAuth client is given as ID:SECRET.", 2)
    if not api_keys and not app_keys and not clients:
        # Hexadecimal: a key that began with a dash would be no value for --api-key.
        api_keys = [secrets.token_hex(24)]
        sys.stderr.write(f"No key was given; the API key of this run is {api_keys[0]}\n")
    pools = arguments.pool or [("local", "local")]
    known = {pool_id for pool_id, _ in pools}
    # A connection brings its pool along.
    pools += [(pool_id, pool_id) for pool_id, *_ in arguments.connection if pool_id not in known]
    options = ServerOptions(
        host=arguments.host,
        port=arguments.port,
        database=arguments.database,
        api_keys=api_keys,
        app_keys=app_keys,
        oauth_clients=[OAuthClient(identity, secret) for identity, _, secret in clients],
        pools=pools,
        connections=arguments.connection,
        switches=_switches(arguments),
        certificate=Certificate(arguments.tls_cert, arguments.tls_key)
        if arguments.tls_cert
        else None,
        ready_file=arguments.ready_file,
        until_stdin_closes=arguments.until_stdin_closes,
        log_level=arguments.log_level,
    )
    try:
        serve(options)
    except (NameTaken, BadCertificate) as error:
        return _say(str(error), 2)
    except CannotListen as error:
        return _say(str(error), 3)
    except DatabaseUnavailable as error:
        return _say(str(error), 4)
    return 0


def _tables(arguments: argparse.Namespace) -> int:
    from celonis_emulator.inventory import rendered
    from celonis_emulator.reading import inventory_of_file, inventory_of_server

    def read() -> str:
        if arguments.url:
            return rendered(*inventory_of_server(arguments.url, _client_key(arguments)))
        return rendered(*inventory_of_file(arguments.database))

    return _print(read)


def _query(arguments: argparse.Namespace) -> int:
    from celonis_emulator.reading import as_csv, as_grid, query_file, query_server

    def read() -> str:
        if arguments.url:
            answer = query_server(arguments.url, _client_key(arguments), arguments.sql)
        else:
            answer = query_file(arguments.database, arguments.sql)
        return as_csv(answer) if arguments.csv else as_grid(answer)

    return _print(read)


def _client_key(arguments: argparse.Namespace) -> str:
    keys = _split(arguments.api_key or os.environ.get("CELONIS_EMULATOR_API_KEY", ""))
    return keys[0] if keys else ""


def _print(read: Callable[[], str]) -> int:
    from celonis_emulator.reading import ReadingFailed
    from celonis_emulator.warehouse import DatabaseUnavailable

    try:
        sys.stdout.write(read())
        sys.stdout.flush()
    except DatabaseUnavailable as error:
        return _say(str(error), 4)
    except ReadingFailed as error:
        return _say(str(error), 1)
    return 0
