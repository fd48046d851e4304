"""Data jobs: listings, execute and cancel, and the logs.

Hides: paths and bodies of the wire, public and internal ones. Guarantees: looking needs READ,
executing and cancelling READ and MANAGE on the pool; unknown fields are ignored.
Must not know: how a job is run.
"""

# ruff: noqa: C901, N815, TC001 - one function binds all routes; names of the wire
from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from celonis_emulator.datajobs import DataJobs, Scope
from celonis_emulator.queryvalues import blank_is
from celonis_emulator.refusals import invalid
from celonis_emulator.rights import Right, needs
from celonis_emulator.runs import shown_job, shown_status
from celonis_emulator.switches import Switches

_POOL = "/integration/api/pools/{pool_id}"
_PUBLIC = "/integration/api/{version}/data-pools/{pool_id}/data-jobs/{job_id}/execute"
PAGE_ITEMS = 50
MOST_ITEMS = 10_000

Mode = Literal["FULL", "DELTA"]
Kind = Annotated[Literal["SCHEDULE", "JOB", "TASK", "STEP"], Query(), blank_is("TASK")]
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS), blank_is(PAGE_ITEMS)]
Page = Annotated[int, Query(ge=0, le=MOST_ITEMS), blank_is(0)]
Identity = Annotated[str | None, Query(), blank_is(None)]
Item = TypeVar("Item")


class ExtractionBody(BaseModel):
    """One extraction to run; there are none here."""

    extractionId: str | None = None
    loadOnlySubsetOfTables: bool | None = None
    tables: list[Any] | None = None


class ModelToLoadBody(BaseModel):
    """One data model to load; no tables: all."""

    dataModelExecutionId: str
    tables: list[str] | None = None


class ExecuteBody(BaseModel):
    """What the internal execute says of a run."""

    id: str | None = None
    executionId: str | None = None
    poolId: str | None = None
    jobId: str | None = None
    mode: Mode | None = None
    executeOnlySubsetOfTransformations: bool | None = None
    transformations: list[str] | None = None
    executeOnlySubsetOfExtractions: bool | None = None
    extractions: list[ExtractionBody] | None = None
    dataSourceId: str | None = None
    loadOnlySubsetOfDataModels: bool | None = None
    dataModels: list[ModelToLoadBody] | None = None

    def scope(self) -> Scope:
        """Return what is to be run."""
        return Scope(
            mode=self.mode or "DELTA",
            tasks=frozenset(self.transformations or ())
            if self.executeOnlySubsetOfTransformations
            else None,
            models={
                model.dataModelExecutionId: model.tables or () for model in self.dataModels or ()
            }
            if self.loadOnlySubsetOfDataModels
            else None,
        )


def data_job_routes(jobs: DataJobs, switches: Switches) -> APIRouter:
    """Return the routes of data jobs."""
    routes = APIRouter(tags=["Data jobs"])
    looking, running = [needs(Right.READ)], [needs(Right.READ, Right.MANAGE)]

    @routes.get(_POOL + "/jobs", dependencies=looking)
    def list_data_jobs(pool_id: str) -> list[dict[str, Any]]:
        """List the data jobs of a pool."""
        return [shown_job(job, last) for job, last in jobs.of_pool(pool_id)]

    @routes.get(_POOL + "/jobs/{job_id}", dependencies=looking)
    def get_data_job(pool_id: str, job_id: str) -> dict[str, Any]:
        """Show a data job and how its newest run stands."""
        return shown_job(*jobs.get(pool_id, job_id))

    @routes.post(_PUBLIC, dependencies=running)
    def execute_data_job(
        version: Literal["v1", "v2"],  # noqa: ARG001 - both answer the same
        pool_id: str,
        job_id: str,
        mode: Annotated[Mode, Query()],
    ) -> Response:
        """Execute a data job."""
        jobs.execute(pool_id, job_id, Scope(mode))
        return Response()

    @routes.post(_POOL + "/jobs/{job_id}/execute", dependencies=running)
    def execute_data_job_in_part(
        pool_id: str, job_id: str, body: ExecuteBody | None = None
    ) -> Response:
        """Execute a data job, or parts of it."""
        asked = body or ExecuteBody()
        for attribute, given, expected in (
            ("poolId", asked.poolId, pool_id),
            ("jobId", asked.jobId, job_id),
        ):
            if given not in (None, expected):
                raise invalid(attribute, f"The {attribute} differs from the one in the path.")
        jobs.execute(pool_id, job_id, asked.scope())
        return Response()

    @routes.post(_POOL + "/jobs/{job_id}/cancel", dependencies=running)
    def cancel_data_job(pool_id: str, job_id: str) -> Response:
        """Cancel a data job that is at work."""
        jobs.cancel(pool_id, job_id)
        return Response()

    @routes.get(_POOL + "/logs/status", dependencies=looking)
    def list_statuses(pool_id: str) -> list[dict[str, Any]]:
        """List how the newest run of each data job stands."""
        return [
            shown_status(job, last)
            for job, last in jobs.of_pool(pool_id)
            if last is not None or switches.unrun_jobs_listed
        ]

    @routes.get(_POOL + "/logs/{job_id}/executions", dependencies=looking)
    def list_executions(
        pool_id: str, job_id: str, limit: Limit = PAGE_ITEMS, page: Page = 0
    ) -> dict[str, Any]:
        """List the runs of a data job, newest first."""
        items, pages = _paged(jobs.executions(pool_id, job_id), limit, page)
        return {"executionItems": [item.shown() for item in items], "numOfPages": pages}

    @routes.get(_POOL + "/logs/executions", dependencies=looking)
    def list_execution_items(
        pool_id: str,
        execution_id: Annotated[str, Query(alias="executionId")],
        type: Kind = "TASK",  # noqa: A002 - the parameter's name
        id: Identity = None,  # noqa: A002 - the parameter's name
    ) -> list[dict[str, Any]]:
        """List the items of a run; ``id`` is that of the data job."""
        return [
            item.shown()
            for item in jobs.items(pool_id, execution_id)
            if item.type == type and id in (None, item.job_id)
        ]

    @routes.get(_POOL + "/logs/executions/detail", dependencies=looking)
    def list_messages(
        *,
        pool_id: str,
        execution_id: Annotated[str, Query(alias="executionId")],
        type: Kind = "TASK",  # noqa: A002 - the parameter's name
        id: Identity = None,  # noqa: A002 - the parameter's name
        limit: Limit = PAGE_ITEMS,
        page: Page = 0,
        log_levels: Annotated[list[str] | None, Query(alias="logLevels")] = None,
    ) -> dict[str, Any]:
        """List the log of a run's job or task; ``id`` is that of the job or task."""
        named = {level.strip().upper() for text in log_levels or () for level in text.split(",")}
        levels = named - {""}
        messages = [
            message
            for item in jobs.items(pool_id, execution_id)
            if item.type == type and id in (None, item.task_id or item.job_id)
            for message in jobs.messages(item)
            if not levels or message.level in levels
        ]
        shown, pages = _paged(messages, limit, page)
        return {"logMessages": [message.shown() for message in shown], "numOfPages": pages}

    return routes


def _paged(items: list[Item], limit: int, page: int) -> tuple[list[Item], int]:
    """Return one page, the first being 0, and the number of pages."""
    return items[page * limit : (page + 1) * limit], -(-len(items) // limit)
