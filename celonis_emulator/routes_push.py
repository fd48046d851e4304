"""The Data Push API: jobs, chunks, execute.

Hides: paths and bodies of the wire. Guarantees: every field of the create body may be null where
it is not required; unknown fields are ignored or refused, as switched.
Must not know: how jobs are kept or run, DuckDB.
"""

# ruff: noqa: C901, N815, TC001 - one function binds all routes; names of the wire
from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from celonis_emulator.chunkfiles import name_problem
from celonis_emulator.columns import folded
from celonis_emulator.csvtext import date_format_problem
from celonis_emulator.jobs import Job, now_ms
from celonis_emulator.ledger import Ledger
from celonis_emulator.pushjobs import PushJobs
from celonis_emulator.queryvalues import blank_is
from celonis_emulator.refusals import invalid, not_found
from celonis_emulator.rights import Right, needs
from celonis_emulator.switches import Switches
from celonis_emulator.uploads import receive

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT_CHARACTERS = 65_000


class _Body(BaseModel):
    """An object of a body; fields that it does not know are looked at once, then dropped."""

    model_config = ConfigDict(extra="allow")

    def drop_unknown(self) -> list[str]:
        """Drop the fields that are not known, those of inner objects too; return their paths."""
        extra = self.model_extra or {}
        dropped = list(extra)
        extra.clear()
        for name in type(self).model_fields:
            value = getattr(self, name)
            listed = isinstance(value, list)
            for i, inner in enumerate(value if listed else [value]):
                if isinstance(inner, _Body):
                    place = f"{name}.{i}" if listed else name
                    dropped += [f"{place}.{field}" for field in inner.drop_unknown()]
        return dropped


class ColumnBody(_Body):
    """A column of ``tableSchema``."""

    columnName: str
    columnType: Literal["INTEGER", "DATE", "TIME", "DATETIME", "FLOAT", "BOOLEAN", "STRING"]
    fieldLength: Annotated[int, Field(ge=1, le=MAX_TEXT_CHARACTERS)] | None = None
    decimals: int | None = None
    pkField: bool | None = None


class TableSchemaBody(_Body):
    """The ``tableSchema`` of a job."""

    tableName: str | None = None
    columns: list[ColumnBody] | None = None


class ColumnOptionsBody(_Body):
    """How one column of a CSV file is spelled."""

    columnName: str
    dateFormat: str | None = None
    thousandsSeparator: str | None = None
    decimalSeparator: str | None = None


class CsvOptionsBody(_Body):
    """The ``csvParsingOptions`` of a job."""

    charSet: str | None = None
    separatorSequence: Annotated[str, Field(min_length=1, max_length=4)] | None = None
    quoteSequence: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    escapeSequence: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    lineEnding: str | None = None
    decimalSeparator: str | None = None
    thousandSeparator: str | None = None
    dateFormat: str | None = None
    additionalColumnOptions: list[ColumnOptionsBody] | None = None


class JobBody(_Body):
    """The body that creates a push job."""

    targetName: str
    dataPoolId: str
    type: Literal["REPLACE", "DELTA"]
    fileType: Literal["PARQUET", "CSV"] | None = None
    connectionId: str | None = None
    keys: list[str] | None = None
    targetSchema: str | None = None
    tableSchema: TableSchemaBody | None = None
    upsertStrategy: (
        Literal["UPSERT_WITH_UNCHANGED_METADATA", "UPSERT_WITH_NULLIFICATION"] | None
    ) = None
    fallbackVarcharLength: Annotated[int, Field(ge=1, le=MAX_TEXT_CHARACTERS)] | None = None
    allowDuplicate: bool | None = None
    csvParsingOptions: CsvOptionsBody | None = None
    foreignKeys: str | None = None
    postExecutionQuery: str | None = None
    mirrorTargetNames: list[str] | None = None
    changeDate: int | str | None = None
    # What the server says of a job: clients send a whole job, these as null.
    id: Any = None
    status: Any = None
    lastModified: Any = None
    lastPing: Any = None
    logs: Any = None


SERVER_MADE = frozenset({"id", "status", "lastModified", "lastPing", "logs"})
_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


def push_routes(push_jobs: PushJobs, ledger: Ledger, switches: Switches) -> APIRouter:
    """Return the routes below one Data Push prefix."""
    routes = APIRouter(tags=["Data Push"], dependencies=[needs(Right.PUSH)])
    created = int(switches.created_status)

    @routes.post("/jobs", status_code=created)
    def create_job(pool_id: str, body: JobBody) -> dict[str, Any]:
        """Create a push job."""
        _check(body, pool_id, ledger, switches)
        job = Job(
            id=str(uuid.uuid4()),
            pool_id=pool_id,
            connection_id=body.connectionId,
            table=body.targetName,
            type=body.type,
            file_type=body.fileType or "PARQUET",
            keys=tuple(body.keys or ()),
            request=body.model_dump(exclude_none=True, exclude=set(SERVER_MADE)),
            created_ms=now_ms(),
        )
        return push_jobs.create(job).shown()

    @routes.get("/jobs")
    def list_jobs(pool_id: str) -> list[dict[str, Any]]:
        """List the push jobs of the pool."""
        return [job.shown() for job in push_jobs.of_pool(pool_id)]

    @routes.get("/jobs/{job_id}")
    def get_job(pool_id: str, job_id: str) -> dict[str, Any]:
        """Show a push job: its status and logs."""
        return push_jobs.get(pool_id, job_id).shown()

    @routes.post("/jobs/{job_id}")
    def execute_job(
        pool_id: str,
        job_id: str,
        duplicate_removal_column: Annotated[
            str | None, Query(alias="duplicateRemovalColumn"), blank_is(None)
        ] = None,
    ) -> Response:
        """Execute a push job."""
        return Response(headers=push_jobs.execute(pool_id, job_id, duplicate_removal_column))

    @routes.delete("/jobs/{job_id}")
    def delete_job(pool_id: str, job_id: str) -> Response:
        """Delete a push job and its chunks."""
        push_jobs.delete(pool_id, job_id)
        return Response()

    @routes.post("/jobs/{job_id}/cancel")
    def cancel_job(pool_id: str, job_id: str) -> Response:
        """Cancel a push job that has not ended."""
        if not switches.cancel:
            raise not_found("There is nothing at this path.")
        push_jobs.cancel(pool_id, job_id)
        return Response()

    @routes.get("/jobs/{job_id}/chunks")
    def list_chunks(pool_id: str, job_id: str) -> list[dict[str, Any]]:
        """List the chunks of a push job."""
        return [chunk.shown() for chunk in push_jobs.chunks(pool_id, job_id)]

    async def take_chunk(pool_id: str, job_id: str, kind: str, request: Request) -> Response:
        content_type = request.headers.get("content-type", "")
        part = await to_thread.run_sync(push_jobs.open_upload, pool_id, job_id, kind)
        try:
            limit_bytes = switches.max_chunk_bytes
            checksum = await receive(request.stream(), content_type, part, limit_bytes)
            await to_thread.run_sync(push_jobs.add_chunk, pool_id, job_id, kind, part, checksum)
        finally:
            part.unlink(missing_ok=True)
        return Response()

    @routes.post("/jobs/{job_id}/chunks/upserted", openapi_extra=_FILE_BODY)
    async def add_upserted_chunk(pool_id: str, job_id: str, request: Request) -> Response:
        """Upload a file of rows to insert or update."""
        return await take_chunk(pool_id, job_id, "UPSERT", request)

    @routes.post("/jobs/{job_id}/chunks/deleted", openapi_extra=_FILE_BODY)
    async def add_deleted_chunk(pool_id: str, job_id: str, request: Request) -> Response:
        """Upload a file of rows to delete by their keys."""
        return await take_chunk(pool_id, job_id, "DELETE", request)

    return routes


def _check(body: JobBody, pool_id: str, ledger: Ledger, switches: Switches) -> None:
    """Refuse a create body that contradicts itself or the pool."""
    unknown = body.drop_unknown()
    if unknown and switches.unknown_fields == "refuse":
        raise invalid(unknown[0], "The field is not known.", "UNKNOWN_FIELD")
    if body.dataPoolId != pool_id:
        raise invalid("dataPoolId", "The data pool differs from the one in the path.")
    connection = body.connectionId
    if connection is not None and all(
        (known.pool_id, known.id) != (pool_id, connection) for known in ledger.connections()
    ):
        msg = f"There is no data connection {connection} in the pool."
        raise not_found(msg)
    columns = (body.tableSchema.columns if body.tableSchema else None) or []
    named = [("targetName", body.targetName)]
    named += [("tableSchema.columns", column.columnName) for column in columns]
    for attribute, name in named:
        problem = name_problem(name, switches.max_name_bytes)
        if problem:
            raise invalid(attribute, problem)
    for attribute, names in (
        ("tableSchema.columns", [column.columnName for column in columns]),
        ("keys", body.keys or []),
    ):
        if len({folded(name) for name in names}) < len(names):
            raise invalid(attribute, "A column is named twice; case does not matter.")
    for attribute, date_format in _date_formats(body.csvParsingOptions):
        problem = date_format_problem(date_format)
        if problem:
            raise invalid(attribute, problem)


def _date_formats(options: CsvOptionsBody | None) -> Iterator[tuple[str, str]]:
    """Yield the date formats of a create body with the places where they stand."""
    if options is None:
        return
    if options.dateFormat:
        yield "csvParsingOptions.dateFormat", options.dateFormat
    for i, column in enumerate(options.additionalColumnOptions or ()):
        if column.dateFormat:
            yield f"csvParsingOptions.additionalColumnOptions.{i}.dateFormat", column.dateFormat
