"""The emulator's own endpoints that set a team up: pools, connections, data models, data jobs.

Hides: their bodies. Guarantees: what is there already stays; a data model or data job with a known
id is replaced, and keeps its loads and executions. Must not know: the Celonis API.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from celonis_emulator.ledger import BadSetUp, Ledger
from celonis_emulator.refusals import invalid
from celonis_emulator.setup import (
    ID_PATTERN,
    MAX_ID_CHARACTERS,
    DataJob,
    DataModel,
    ModelTable,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Id = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_ID_CHARACTERS, pattern=ID_PATTERN)
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NamedBody(_Body):
    """A pool or connection; without a name it is called as its id."""

    id: Id
    name: Name | None = None


class ModelTableBody(_Body):
    """A table of a data model; without an id it gets its alias or name as one."""

    name: Name
    id: Id | None = None
    connection_id: Id | None = None
    alias: Name | None = None


class ModelBody(NamedBody):
    """A data model."""

    tables: list[ModelTableBody] = Field(default_factory=list)


class TaskBody(_Body):
    """A task of a data job; without an id it gets its place, from 1 on."""

    sql: str
    id: Id | None = None
    name: Name | None = None


class DataJobBody(NamedBody):
    """A data job; ``data_models`` are the ids of those that it loads at its end."""

    connection_id: Id | None = None
    tasks: list[TaskBody] = Field(default_factory=list)
    data_models: list[Id] = Field(default_factory=list)


def setup_routes(ledger: Ledger) -> APIRouter:
    """Return the routes that make pools and what is in them."""
    routes = APIRouter(prefix="/_emulator/pools", tags=["Emulator"])

    @routes.post("")
    def make_pool(body: NamedBody) -> dict[str, Any]:
        """Make a data pool, if there is none with the id."""
        with _refusing():
            ledger.ensure_pool(body.id, body.name or body.id)
        return next(asdict(pool) for pool in ledger.pools() if pool.id == body.id)

    @routes.post("/{pool_id}/connections")
    def make_connection(pool_id: str, body: NamedBody) -> dict[str, Any]:
        """Make a data connection, if there is none with the id."""
        with _refusing():
            ledger.ensure_connection(pool_id, body.id, body.name or body.id)
        return next(
            asdict(c) for c in ledger.connections() if (c.pool_id, c.id) == (pool_id, body.id)
        )

    @routes.post("/{pool_id}/data-models")
    def put_model(pool_id: str, body: ModelBody) -> dict[str, Any]:
        """Make a data model, or replace the one with the id."""
        tables = (
            ModelTable(t.id or t.alias or t.name, t.name, t.connection_id, t.alias)
            for t in body.tables
        )
        model = DataModel(pool_id, body.id, body.name or body.id, tuple(tables))
        with _refusing():
            ledger.put_model(model)
        return asdict(model)

    @routes.post("/{pool_id}/data-jobs")
    def put_data_job(pool_id: str, body: DataJobBody) -> dict[str, Any]:
        """Make a data job, or replace the one with the id."""
        tasks = (
            Task(task.id or str(place), task.name or f"Task {place}", task.sql)
            for place, task in enumerate(body.tasks, start=1)
        )
        job = DataJob(
            pool_id,
            body.id,
            body.name or body.id,
            body.connection_id,
            tuple(tasks),
            tuple(body.data_models),
        )
        with _refusing():
            ledger.put_data_job(job)
        return asdict(job)

    return routes


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Answer 400 for what cannot be set up."""
    try:
        yield
    except BadSetUp as error:
        raise invalid("body", str(error)) from error
