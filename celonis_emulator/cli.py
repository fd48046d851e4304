"""The command line: ``celonis-emulator serve``, ``tables`` and ``query``.

Hides: argument parsing, exit codes. Guarantees: a failure that people can cause is one plain
sentence on stderr; nothing heavy is imported before it is needed. Exit codes: 0 fine, 1 a server
or query refused, 2 usage, 3 the address cannot be used, 4 the database cannot be opened.
Must not know: how anything is done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celonis_emulator.setup import DEFAULT_TEAM, Connection, Key, Pool, Team, id_problem
from celonis_emulator.switches import HARSH, LENIENT, ON_OFF, PROFILES, Switches, chosen, option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celonis_emulator.faults import Fault
    from celonis_emulator.serve import ServerOptions
    from celonis_emulator.setupfile import SetupFile

MISSING_EXTRA = "The emulator needs more packages: pip install 'target-celonis[emulator]'"
DEFAULT_DATABASE = "celonis.duckdb"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4444
DEFAULT_URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
DEFAULT_LOG_LEVEL = "warning"
EXAMPLES = f"""\
examples:
  celonis-emulator serve --api-key KEY      (answers at {DEFAULT_URL})
  celonis-emulator tables --url {DEFAULT_URL} --api-key KEY
  celonis-emulator query --url {DEFAULT_URL} --api-key KEY 'SELECT * FROM local.orders'
"""  # noqa: S608 - for people to read
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
        prog="celonis-emulator",
        description="A local Celonis for the load side.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the server")
    serve.set_defaults(run=_serve)
    serve.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="set-up file (YAML or JSON): pools, keys, switches, faults; options win over it",
    )
    serve.add_argument("--host", help=f"address (default {DEFAULT_HOST})")
    serve.add_argument("--port", type=int, help=f"0 = a free one (default {DEFAULT_PORT})")
    _add_database(serve, default=None)
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
        default=[],
        metavar="ID[=NAME]",
        help="make this data pool; repeatable (default: local, with one of each in it)",
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
        "--fault",
        action="append",
        default=[],
        metavar="JSON",
        help="set this fault at the start, as POST /_emulator/faults takes it; repeatable",
    )
    serve.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="speak https with this certificate (PEM)"
    )
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM, unlocked)")
    serve.add_argument("--ready-file", type=Path, metavar="PATH", help="written when it answers")
    serve.add_argument(
        "--until-stdin-closes", action="store_true", help="end when standard input ends"
    )
    serve.add_argument("--log-level", choices=LOG_LEVELS, help=f"(default {DEFAULT_LOG_LEVEL})")
    switches = serve.add_argument_group(
        "switches", "What is not known for sure about Celonis has a switch with both answers."
    )
    switches.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        help=f"a set of values for the switches (default {LENIENT}); those of {HARSH} are below",
    )
    _add_switches(switches)

    tables = commands.add_parser("tables", help="show tables, columns and push jobs")
    tables.set_defaults(run=_tables)
    _add_source(tables)

    query = commands.add_parser("query", help="run one SQL query")
    query.set_defaults(run=_query)
    query.add_argument(
        "sql",
        metavar="SQL",
        help="in DuckDB's dialect; tables are POOL.TABLE, those of a connection "
        '"POOL_CONNECTION".TABLE, those of a data model "POOL_model_MODEL".TABLE',
    )
    query.add_argument("--csv", action="store_true", help="print CSV")
    _add_source(query)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    _add_database(parser)
    parser.add_argument("--url", help=f"ask a running server instead of a file: {DEFAULT_URL}")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="key for --url, of either kind; also CELONIS_EMULATOR_API_KEY",
    )


def _add_database(
    parser: argparse.ArgumentParser, default: Path | None = Path(DEFAULT_DATABASE)
) -> None:
    parser.add_argument(
        "--database",
        type=Path,
        default=default,
        metavar="FILE",
        help=f"DuckDB file (default {DEFAULT_DATABASE})",
    )


def _add_switches(group: argparse._ArgumentGroup) -> None:
    for switch in dataclasses.fields(Switches):
        default, harsh = switch.default, switch.metadata["harsh"]
        settings: dict[str, Any]
        if isinstance(default, bool):
            settings = {"choices": ON_OFF}
        elif switch.name == "fail_table":
            settings = {"action": "append", "type": _fault, "metavar": "NAME=STATUS"}
        elif isinstance(default, tuple):
            settings = {"type": _list_of(switch.metadata["choices"]), "metavar": "LIST"}
        elif isinstance(default, str):
            choices = switch.metadata["choices"]
            settings = {"choices": choices} if choices else {"metavar": "TEXT"}
        elif isinstance(default, int):
            settings = {"type": _count, "metavar": "N"}
        else:
            settings = {"type": _seconds, "metavar": "SECONDS"}
        values = f"default {_shown(default)}"
        if harsh is not None:
            values += f"; {HARSH}: {_shown(harsh)}"
        text = f"{switch.metadata['doc']} ({values})".replace("%", "%%")
        group.add_argument(f"--{option(switch.name)}", help=text, **settings)


def _shown(value: Any) -> str:
    """Return the value of a switch as it is written on the command line."""
    if isinstance(value, bool):
        return ON_OFF[0] if value else ON_OFF[1]
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _explicit_switches(arguments: argparse.Namespace) -> dict[str, Any]:
    explicit: dict[str, Any] = {}
    for switch in dataclasses.fields(Switches):
        value = getattr(arguments, switch.name)
        if value is None:
            continue
        if isinstance(switch.default, bool):
            value = value == ON_OFF[0]
        explicit[switch.name] = tuple(value) if isinstance(value, list) else value
    return explicit


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
    problem = id_problem(identity)
    if problem:
        raise argparse.ArgumentTypeError(f"expected ID or ID=NAME; {problem.rstrip('.')}")
    return identity, name or identity


def _connection(text: str) -> tuple[str, str, str]:
    pool_id, colon, rest = text.partition(":")
    problem = id_problem(pool_id)
    if not colon or problem:
        reason = f"; {problem.rstrip('.')}" if problem else ""
        raise argparse.ArgumentTypeError(f"expected POOL:ID or POOL:ID=NAME{reason}")
    return (pool_id, *_named(rest))


def _keys(arguments: argparse.Namespace, kind: str) -> list[str]:
    """Return what the options ``--KIND`` and the environment name."""
    in_environment = os.environ.get(f"CELONIS_EMULATOR_{kind.upper()}", "")
    return [*getattr(arguments, kind), *_split(in_environment)]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class _Usage(Exception):  # noqa: N818
    """What was asked for does not make sense; the text is one sentence for people."""


def _serve(arguments: argparse.Namespace) -> int:
    from celonis_emulator.ledger import BadSetUp
    from celonis_emulator.serve import BadCertificate, BadReadyFile, CannotListen, serve
    from celonis_emulator.setupfile import BadSetupFile
    from celonis_emulator.warehouse import DatabaseUnavailable

    try:
        serve(_server_options(arguments))
    except (_Usage, BadSetupFile, BadSetUp, BadCertificate, BadReadyFile) as error:
        return _say(str(error), 2)
    except CannotListen as error:
        return _say(str(error), 3)
    except DatabaseUnavailable as error:
        return _say(str(error), 4)
    return 0


def _server_options(arguments: argparse.Namespace) -> ServerOptions:
    """Return what the command line says, else the set-up file, else the defaults."""
    from celonis_emulator.oauth import OAuthClient
    from celonis_emulator.serve import Certificate, ServerOptions
    from celonis_emulator.setupfile import SetupFile, read_setup

    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise _Usage("--tls-cert and --tls-key go together.")
    clients = [text.partition(":") for text in _keys(arguments, "oauth_client")]
    if not all(identity and secret for identity, _, secret in clients):
        # What was given is not repeated: half of it may be a secret.
        raise _Usage("An OAuth client is given as ID:SECRET.")
    given = _given_team(arguments)
    file = SetupFile()
    if arguments.config is not None:
        file = read_setup(arguments.config, os.environ, given)
    oauth_clients = {client.id: client for client in file.oauth_clients}
    oauth_clients |= {identity: OAuthClient(identity, secret) for identity, _, secret in clients}
    keys = _all_keys(arguments, file)
    made_key: str | None = None
    if not keys and not oauth_clients:
        # Hexadecimal: a key that began with a dash would be no value for --api-key.
        keys = [Key(secrets.token_hex(24), "api")]
        made_key = keys[0].key
    server = file.server
    certificate: Path | None = arguments.tls_cert or server.tls_cert
    its_key: Path | None = arguments.tls_key or server.tls_key
    port = server.port if arguments.port is None else arguments.port
    profile = arguments.profile or file.profile or LENIENT
    return ServerOptions(
        host=arguments.host or server.host or DEFAULT_HOST,
        port=DEFAULT_PORT if port is None else port,
        database=arguments.database or server.database or Path(DEFAULT_DATABASE),
        keys=keys,
        oauth_clients=list(oauth_clients.values()),
        team=_whole_team(file.team, given),
        switches=chosen(profile, file.switches, _explicit_switches(arguments)),
        faults=(*file.faults, *_faults(arguments)),
        certificate=Certificate(certificate, its_key) if certificate and its_key else None,
        ready_file=arguments.ready_file,
        until_stdin_closes=arguments.until_stdin_closes,
        log_level=arguments.log_level or server.log_level or DEFAULT_LOG_LEVEL,
        made_key=made_key,
    )


def _faults(arguments: argparse.Namespace) -> list[Fault]:
    """Return the faults of the options ``--fault``."""
    from celonis_emulator.faults import BadFault, parse

    try:
        return [fault for text in arguments.fault for fault in parse(json.loads(text))]
    except BadFault as error:
        raise _Usage(f"The fault cannot be set: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _Usage("A fault is given as JSON.") from error


def _all_keys(arguments: argparse.Namespace, file: SetupFile) -> list[Key]:
    """Return the keys of the file, and those that only the command line or environment has."""
    keys = {(key.kind, key.key): key for key in file.keys}
    for kind in ("api", "app"):
        for key in _keys(arguments, f"{kind}_key"):
            keys.setdefault((kind, key), Key(key, kind))
    return list(keys.values())


def _given_team(arguments: argparse.Namespace) -> Team:
    """Return the pools and connections of the command line."""
    pools = [Pool(*pool) for pool in arguments.pool]
    if arguments.connection and not pools and arguments.config is None:
        pools = list(DEFAULT_TEAM.pools)
    connections = [Connection(*connection) for connection in arguments.connection]
    return Team(tuple(pools), tuple(connections))


def _whole_team(file: Team, given: Team) -> Team:
    """Return everything that is to be made; names of the command line win."""
    pools = {pool.id: pool for pool in (*file.pools, *given.pools)}
    connections = {(c.pool_id, c.id): c for c in (*file.connections, *given.connections)}
    for connection in connections.values():
        # A connection brings its pool along.
        pools.setdefault(connection.pool_id, Pool(connection.pool_id, connection.pool_id))
    if not pools:
        return DEFAULT_TEAM
    return dataclasses.replace(
        file, pools=tuple(pools.values()), connections=tuple(connections.values())
    )


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
    if not keys:
        raise _Usage("Give a key of the server: --api-key KEY, or CELONIS_EMULATOR_API_KEY.")
    return keys[0]


def _print(read: Callable[[], str]) -> int:
    from celonis_emulator.reading import ReadingFailed
    from celonis_emulator.warehouse import DatabaseUnavailable

    try:
        sys.stdout.write(read())
        sys.stdout.flush()
    except _Usage as error:
        return _say(str(error), 2)
    except DatabaseUnavailable as error:
        return _say(str(error), 4)
    except ReadingFailed as error:
        return _say(str(error), 1)
    return 0
