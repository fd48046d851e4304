"""What a server is set up with: pools, connections, data models, data jobs, and who may do what.

Hides: nothing; plain values that the set-up file, the command line and the admin endpoints make
and that the ledger keeps. Guarantees: frozen, and secrets never show in a ``repr``.
Must not know: files, YAML, HTTP, DuckDB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celonis_emulator.rights import Right

EVERY_POOL = "*"
"""Stands for all pools in the permissions of a key or client."""


# An id is a part of paths and of the name of a schema; "." and ".." would lead elsewhere.
ID_PATTERN: Final = r"^(?:[^\s/?#%\x00-\x1f]*[^\s/?#%\x00-\x1f.][^\s/?#%\x00-\x1f]*|\.{3,})$"
MAX_ID_CHARACTERS: Final = 100


def id_problem(text: str) -> str | None:
    """Say why a text cannot be an id, if it cannot."""
    if not re.fullmatch(ID_PATTERN, text):
        return "an id has no blanks and none of / ? # %."
    if len(text) > MAX_ID_CHARACTERS:
        return f"an id has no more than {MAX_ID_CHARACTERS} characters."
    return None


@dataclass(frozen=True)
class Pool:
    """A data pool."""

    id: str
    name: str


@dataclass(frozen=True)
class Connection:
    """A data connection of a pool; the API calls it a data source."""

    pool_id: str
    id: str
    name: str


@dataclass(frozen=True)
class ModelTable:
    """A table of a data model: which pool table it copies, and under what name it shows it."""

    id: str
    name: str
    connection_id: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class DataModel:
    """A process data model of a pool."""

    pool_id: str
    id: str
    name: str
    tables: tuple[ModelTable, ...] = ()


@dataclass(frozen=True)
class Task:
    """One transformation of a data job: SQL statements, run in order."""

    id: str
    name: str
    sql: str


@dataclass(frozen=True)
class DataJob:
    """A data job: transformations run in the schema of a connection (None: the pool's own).

    ``data_models`` are the ids of the models that the job loads at its end.
    """

    pool_id: str
    id: str
    name: str
    connection_id: str | None = None
    tasks: tuple[Task, ...] = ()
    data_models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Key:
    """A key that the server takes; ``kind`` is ``api`` or ``app``."""

    key: str = field(repr=False)
    kind: str
    permissions: Mapping[str, frozenset[Right]] | None = None
    """By pool id, or for :data:`EVERY_POOL`; None: everything everywhere."""


@dataclass(frozen=True)
class Team:
    """What is in a team, in the order of its making."""

    pools: tuple[Pool, ...] = ()
    connections: tuple[Connection, ...] = ()
    data_models: tuple[DataModel, ...] = ()
    data_jobs: tuple[DataJob, ...] = ()


DEFAULT_TEAM = Team(
    pools=(Pool("local", "local"),),
    connections=(Connection("local", "connection", "Connection"),),
    data_models=(DataModel("local", "model", "Default"),),
    data_jobs=(
        DataJob("local", "job", "Default", tasks=(Task("1", "Transformation", "SELECT 1"),)),
    ),
)
"""One of each, for a server that is told of no pool; all of it works on an empty pool."""
