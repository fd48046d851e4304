"""The set-up file: YAML or JSON -> the values of :mod:`celonis_emulator.setup`, switches, faults.

Hides: the names of the file, their defaults, references between its parts. Guarantees: what is
returned can be set up as it is; anything wrong is a :class:`BadSetupFile` with one sentence that
names the file and the place; no secret is in it. Must not know: the command line, DuckDB, HTTP.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel

from celonis_emulator.document import BadDocument, Part, as_text, nearest, read_document
from celonis_emulator.faults import BadFault, Fault, parse
from celonis_emulator.oauth import OAuthClient
from celonis_emulator.rights import EVERYTHING, EVERYWHERE, Right
from celonis_emulator.setup import (
    DEFAULT_TEAM,
    EVERY_POOL,
    Connection,
    DataJob,
    DataModel,
    Key,
    ModelTable,
    Pool,
    Task,
    Team,
)
from celonis_emulator.switches import ON_OFF, PROFILES, Switches, option

if TYPE_CHECKING:
    from pathlib import Path

ALL: Final = "all"
LOG_LEVELS: Final = ("critical", "error", "warning", "info", "debug")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_PORT: Final = 65_535
_MAX_NUMBER: Final = 10**15

_FILE: Final = ("server", "switches", "pools", "keys", "oauth_clients", "faults")
_SERVER: Final = ("host", "port", "database", "tls_cert", "tls_key", "log_level")
_POOL: Final = ("id", "name", "connections", "data_models", "data_jobs")
_CONNECTION: Final = ("id", "name")
_MODEL: Final = ("id", "name", "tables")
_TABLE: Final = ("id", "name", "connection_id", "alias")
_JOB: Final = ("id", "name", "connection_id", "tasks", "data_models")
_TASK: Final = ("id", "name", "sql")
_KEY: Final = ("key", "key_env", "kind", "permissions")
_CLIENT: Final = ("id", "secret", "secret_env", "auth", "scope", "permissions")

Permissions = Mapping[str, frozenset[Right]]


class BadSetupFile(ValueError):  # noqa: N818
    """The file cannot be used; the text is one sentence for people."""


@dataclass(frozen=True)
class ServerPart:
    """How the server runs; None where the file does not say."""

    host: str | None = None
    port: int | None = None
    database: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_level: str | None = None


@dataclass(frozen=True)
class SetupFile:
    """What a set-up file says; ``switches`` holds only those that it names."""

    server: ServerPart = ServerPart()
    profile: str | None = None
    switches: Mapping[str, Any] = field(default_factory=dict)
    team: Team = field(default_factory=Team)
    keys: tuple[Key, ...] = ()
    oauth_clients: tuple[OAuthClient, ...] = ()
    faults: tuple[Fault, ...] = ()


def read_setup(path: Path, environment: Mapping[str, str], given: Team) -> SetupFile:
    """Read a set-up file.

    Args:
        path: YAML or JSON; paths in it start where it lies.
        environment: Where keys and secrets may be.
        given: Pools and connections that are made anyway; the file may name them.

    Raises:
        BadSetupFile: It cannot be read, or something in it is wrong.
    """
    try:
        content = read_document(path)
    except BadDocument as error:
        raise BadSetupFile(str(error)) from error
    try:
        return _setup(Part({} if content is None else content, "", _FILE), path, environment, given)
    except BadDocument as error:
        raise BadSetupFile(f"{path}: {error}") from error


def _setup(file: Part, path: Path, environment: Mapping[str, str], given: Team) -> SetupFile:
    pools = file.parts("pools", _POOL, short="id")
    team = _team(pools, given)
    known = {pool.id for pool in (*team.pools, *given.pools)}
    known |= {connection.pool_id for connection in given.connections}
    known = known or {pool.id for pool in DEFAULT_TEAM.pools}
    profile, switches = _switches(file)
    return SetupFile(
        server=_server(file, path.parent),
        profile=profile,
        switches=switches,
        team=team,
        keys=_keys(file.parts("keys", _KEY, secret=True), environment, known),
        oauth_clients=_clients(
            file.parts("oauth_clients", _CLIENT, secret=True), environment, known
        ),
        faults=_faults(file),
    )


def _server(file: Part, directory: Path) -> ServerPart:
    if "server" not in file:
        return ServerPart()
    part = Part(file.any("server"), "server", _SERVER)

    def beside(name: str) -> Path | None:
        return directory / part.text(name) if name in part else None

    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if name in part and other not in part:
            raise part.wrong(name, f"{other} is missing beside it.")
    return ServerPart(
        host=part.maybe("host"),
        port=part.whole_number("port", _MAX_PORT),
        database=beside("database"),
        tls_cert=beside("tls_cert"),
        tls_key=beside("tls_key"),
        log_level=part.choice("log_level", LOG_LEVELS, "warning") if "log_level" in part else None,
    )


# Pools and what is in them


def _team(parts: list[Part], given: Team) -> Team:
    pools = tuple(Pool(p.identity("id"), p.text_or("name", p.text("id"))) for p in parts)
    _refuse_twice(parts, [pool.id for pool in pools], "id")
    connections: list[Connection] = []
    models: list[DataModel] = []
    jobs: list[DataJob] = []
    for pool, part in zip(pools, parts, strict=True):
        connection_parts = part.parts("connections", _CONNECTION, short="id")
        own = [
            Connection(pool.id, c.identity("id"), c.text_or("name", c.text("id")))
            for c in connection_parts
        ]
        _refuse_twice(connection_parts, [c.id for c in own], "id")
        connections += own
        known = {c.id for c in (*own, *given.connections) if c.pool_id == pool.id}
        model_parts = part.parts("data_models", _MODEL)
        own_models = [_model(model, pool.id, known) for model in model_parts]
        _refuse_twice(model_parts, [model.id for model in own_models], "id")
        models += own_models
        job_parts = part.parts("data_jobs", _JOB)
        own_jobs = [_job(job, pool.id, known, {m.id for m in own_models}) for job in job_parts]
        _refuse_twice(job_parts, [job.id for job in own_jobs], "id")
        jobs += own_jobs
    return Team(pools, tuple(connections), tuple(models), tuple(jobs))


def _model(part: Part, pool_id: str, connections: set[str]) -> DataModel:
    identity = part.identity("id")
    parts = part.parts("tables", _TABLE, short="name")
    tables = tuple(
        ModelTable(
            table.identity("id") if "id" in table else table.text_or("alias", table.text("name")),
            table.text("name"),
            _connection(table, connections),
            table.maybe("alias"),
        )
        for table in parts
    )
    _refuse_twice(parts, [table.id for table in tables], "id")
    _refuse_twice(parts, [(table.alias or table.name).lower() for table in tables], "name")
    return DataModel(pool_id, identity, part.text_or("name", identity), tables)


def _job(part: Part, pool_id: str, connections: set[str], models: set[str]) -> DataJob:
    identity = part.identity("id")
    parts = part.parts("tasks", _TASK, short="sql")
    tasks = tuple(
        Task(
            task.identity("id") if "id" in task else str(number),
            task.text_or("name", f"Task {number}"),
            task.text("sql"),
        )
        for number, task in enumerate(parts, 1)
    )
    _refuse_twice(parts, [task.id for task in tasks], "id")
    loads = part.texts("data_models")
    for i, model in enumerate(loads):
        if model not in models:
            said = f"the pool has no data model {model}{nearest(model, sorted(models))}"
            raise BadDocument(f"{part.at('data_models')}[{i}]: {said}")
    connection = _connection(part, connections)
    name = part.text_or("name", identity)
    return DataJob(pool_id, identity, name, connection, tasks, tuple(loads))


def _connection(part: Part, known: set[str]) -> str | None:
    connection = part.maybe("connection_id")
    if connection is not None and connection not in known:
        meant = nearest(connection, sorted(known))
        raise part.wrong("connection_id", f"the pool has no connection {connection}{meant}")
    return connection


def _refuse_twice(parts: list[Part], names: list[str], name: str) -> None:
    """Refuse the second of two equal names; ``names`` are those of the parts."""
    for i, own in enumerate(names):
        if own in names[:i]:
            raise parts[i].wrong(name, f"the same as that of {parts[names.index(own)].place}.")


# Who may do what


def _keys(parts: list[Part], environment: Mapping[str, str], pools: set[str]) -> tuple[Key, ...]:
    keys = tuple(
        Key(
            key=_secret(part, "key", environment),
            kind=part.choice("kind", ("api", "app"), "api"),
            permissions=_permissions(part, pools),
        )
        for part in parts
    )
    for i, key in enumerate(keys):
        for earlier, other in zip(parts, keys[:i], strict=False):
            if (key.kind, key.key) == (other.kind, other.key):
                raise BadDocument(f"{parts[i].place}: the same key as {earlier.place}.")
    return keys


def _clients(
    parts: list[Part], environment: Mapping[str, str], pools: set[str]
) -> tuple[OAuthClient, ...]:
    clients = tuple(
        OAuthClient(
            id=part.text("id"),
            secret=_secret(part, "secret", environment),
            auth=part.choice("auth", ("basic", "post", "both"), "both") if "auth" in part else None,
            scopes=_scopes(part),
            permissions=_permissions(part, pools),
        )
        for part in parts
    )
    for part, client in zip(parts, clients, strict=True):
        if ":" in client.id:
            raise part.wrong("id", "the id of an OAuth client has no colon.")
    _refuse_twice(parts, [client.id for client in clients], "id")
    return clients


def _scopes(part: Part) -> tuple[str, ...] | None:
    given = part.any("scope")
    if given is None:
        return None
    listed = part.texts("scope") if isinstance(given, list) else [part.text("scope")]
    return tuple(dict.fromkeys(scope for text in listed for scope in text.split()))


def _secret(part: Part, name: str, environment: Mapping[str, str]) -> str:
    """Return a secret of the file or of the environment; what is wrong never repeats it."""
    variable_name = f"{name}_env"
    if (name in part) == (variable_name in part):
        raise BadDocument(f"{part.place}: expected either {name} or {variable_name}.")
    if name in part:
        secret = part.text(name)
    else:
        variable = part.text(variable_name)
        # Somebody may have put the secret itself there.
        if not _VARIABLE.fullmatch(variable):
            raise part.wrong(variable_name, "this is no name of an environment variable.")
        secret = environment.get(variable, "")
        if not secret:
            raise part.wrong(variable_name, "the environment has no such variable, or it is empty.")
    if secret != secret.strip():
        raise part.wrong(name if name in part else variable_name, "it begins or ends with a blank.")
    return secret


def _permissions(part: Part, pools: set[str]) -> Permissions:
    given = part.any("permissions")
    if given is None or given == ALL:
        return EVERYWHERE
    permissions = {}
    entries = part.entries("permissions")
    inner = Part(entries, part.at("permissions"), tuple(entries))
    for pool_id, rights in entries.items():
        if pool_id != EVERY_POOL and pool_id not in pools:
            meant = nearest(pool_id, (*sorted(pools), EVERY_POOL))
            raise BadDocument(f"{inner.at(pool_id)}: there is no such pool{meant}")
        permissions[pool_id] = _rights(rights, inner.at(pool_id))
    return permissions


def _rights(given: Any, place: str) -> frozenset[Right]:
    words = {right.value: frozenset({right}) for right in Right} | {ALL: EVERYTHING}
    found = frozenset[Right]()
    for i, word in enumerate(given if isinstance(given, list) else [given]):
        at = f"{place}[{i}]" if isinstance(given, list) else place
        text = as_text(word, at)
        if text not in words:
            raise BadDocument(f"{at}: {text} is no permission{nearest(text, words)}")
        found |= words[text]
    return found


# Switches and faults


def _switches(file: Part) -> tuple[str | None, dict[str, Any]]:
    fields = {option(switch.name): switch for switch in dataclasses.fields(Switches)}
    entries = file.entries("switches")
    part = Part(entries, "switches", (*fields, "profile"))
    profile = part.choice("profile", tuple(PROFILES), "") if "profile" in part else None
    given = {name: value for name, value in entries.items() if name in part and name in fields}
    return profile, {
        fields[name].name: _switch(fields[name], value, part.at(name))
        for name, value in given.items()
    }


def _switch(switch: dataclasses.Field[Any], value: Any, place: str) -> Any:
    default, choices = switch.default, switch.metadata["choices"]
    if switch.name == "fail_table":
        return _fail_tables(value, place)
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if value not in ON_OFF:
            raise BadDocument(f"{place}: expected on or off.")
        return value == ON_OFF[0]
    if isinstance(default, tuple):
        listed = value.split(",") if isinstance(value, str) else value
        names = listed if isinstance(listed, list) else [listed]
        found = tuple(as_text(name, place).strip() for name in names)
        if not set(found) <= set(choices):
            raise BadDocument(f"{place}: expected some of {', '.join(choices)}.")
        return found
    if isinstance(default, str):
        # A status is a number to people.
        spelled = str(value) if type(value) is int and choices else value
        if choices and spelled not in choices:
            raise BadDocument(f"{place}: expected one of {', '.join(choices)}.")
        return as_text(spelled, place)
    whole = isinstance(default, int)
    fits = type(value) is int or (not whole and isinstance(value, float))
    if not fits or not 0 <= value <= _MAX_NUMBER:
        raise BadDocument(f"{place}: expected a {'whole ' if whole else ''}number from 0 on.")
    return value if whole else float(value)


def _fail_tables(value: Any, place: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(
        isinstance(status, str) and status.upper() in ("ERROR", "CANCELED")
        for status in value.values()
    ):
        raise BadDocument(f"{place}: expected a mapping of table names to ERROR or CANCELED.")
    return tuple((table, status.upper()) for table, status in value.items())


def _faults(file: Part) -> tuple[Fault, ...]:
    given = file.any("faults")
    if given is None:
        return ()
    for i, one in enumerate(given if isinstance(given, list) else [given]):
        _check_names(one, f"faults[{i}]", Fault)
    try:
        return parse(given)
    except BadFault as error:
        raise BadDocument(f"faults{error}") from error


def _check_names(value: Any, place: str, model: type[BaseModel]) -> None:
    """Refuse names that a model does not have, with the one that may have been meant."""
    part = Part(value, place, tuple(model.model_fields))
    for name, about in model.model_fields.items():
        kinds = [about.annotation, *get_args(about.annotation)]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if inner and isinstance(part.any(name), dict):
            _check_names(part.any(name), part.at(name), inner[0])
