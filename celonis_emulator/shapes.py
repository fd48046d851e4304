"""What the answers look like, for the OpenAPI document; nothing is checked against it at run time.

Hides: nothing. Guarantees: every field of an answer is named; that the answers keep to it is shown
by tests. Must not know: how an answer is made.
"""

# ruff: noqa: N815 - names of the wire
from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

JobStatus = Literal["NEW", "QUEUED", "RUNNING", "DONE", "ERROR", "CANCELED"]
LoadStatus = Literal["RUNNING", "SUCCESS", "WARNING", "ERROR", "CANCELED"]
LoadType = Literal["FROM_CACHE", "COMPLETE", "PARTIAL"]
RunStatus = Literal["QUEUED", "RUNNING", "SUCCESS", "FAIL", "CANCEL", "SKIPPED"]
Milliseconds = int
"""Since 1970, UTC."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


# Errors


class ValidationProblem(_Shape):
    """What is wrong with one part of a request."""

    attribute: str
    error: str
    errorCode: str
    additionalInfo: None


class ValidationErrors(_Shape):
    """A request that is not valid."""

    errors: list[ValidationProblem]


class GatewayError(_Shape):
    """An error of the platform."""

    title: str
    status: int
    detail: str
    errorCode: str


class ServiceError(_Shape):
    """An error of the service, with a reference for its support."""

    reference: str
    message: str
    shortMessage: str


class Unauthorized(_Shape):
    """No valid key or token came with the request."""

    error: Literal["Unauthorized"]


class OAuthError(_Shape):
    """An error of RFC 6749."""

    error: str
    error_description: str


# Team and pools


class Token(_Shape):
    """An OAuth token."""

    access_token: str
    scope: str
    token_type: Literal["Bearer"]
    expires_in: int


class User(_Shape):
    """Who calls."""

    id: str
    name: str
    email: str


class ServicePermissions(_Shape):
    """What the caller may do in a service."""

    serviceName: str
    permissions: list[str]


class TeamShown(_Shape):
    """The team."""

    id: str
    name: str
    trackingEnabled: bool


class DataPool(_Shape):
    """A data pool."""

    id: str
    name: str


class DataSource(_Shape):
    """A data connection."""

    id: str
    name: str
    poolId: str
    type: str
    targetSchemaName: str


class PoolTableShown(_Shape):
    """A table in the listing of a pool; its columns are listed by themselves."""

    name: str
    loaderSource: None
    available: bool
    dataSourceId: str | None
    dataSourceName: str | None
    columns: list[Any] = Field(max_length=0)
    type: Literal["TABLE", "VIEW"]
    schemaName: str


class ColumnShown(_Shape):
    """A column in the listing of a table; the length of a text is four times its characters."""

    name: str
    length: int | None
    type: Literal["STRING", "DATE", "FLOAT", "INTEGER"]


# Data Push


class DataPushJob(_Shape):
    """A push job."""

    id: str
    targetName: str
    lastModified: Milliseconds
    lastPing: Milliseconds | None
    status: JobStatus
    type: Literal["REPLACE", "DELTA"]
    fileType: Literal["PARQUET", "CSV"]
    targetSchema: str | None
    upsertStrategy: Literal["UPSERT_WITH_UNCHANGED_METADATA", "UPSERT_WITH_NULLIFICATION"] | None
    fallbackVarcharLength: int | None
    dataPoolId: str
    connectionId: str | None
    postExecutionQuery: str | None
    allowDuplicate: bool | None
    foreignKeys: str | None
    keys: list[str] | None
    logs: list[str]
    tableSchema: dict[str, Any] | None
    csvParsingOptions: dict[str, Any] | None
    mirrorTargetNames: list[str] | None
    changeDate: int | str | None


class DataPushChunk(_Shape):
    """A chunk of a push job."""

    id: str
    creationDate: Milliseconds
    type: Literal["UPSERT", "DELETE"]
    pushJobId: str
    checksum: str


# Data models


class DataModelShown(_Shape):
    """A data model."""

    id: str
    name: str
    poolId: str


class DataModelColumn(_Shape):
    """A column of a table of a data model."""

    name: str
    type: str
    primaryKey: bool


class DataModelTable(_Shape):
    """A table of a data model."""

    id: str
    dataModelId: str
    dataSourceId: str | None
    name: str
    alias: str | None
    aliasOrName: str
    columns: list[DataModelColumn]
    primaryKeys: list[str]
    useDirectStorage: bool


class ComputeLoad(_Shape):
    """A load of a data model."""

    dataLoadId: str
    dataModelId: str
    startDate: Milliseconds | None
    endDate: Milliseconds | None
    loadStatus: LoadStatus
    message: str | None
    loadType: LoadType
    dataPoolVersion: str | None


class NoLoad(_Shape):
    """A data model that was never loaded."""


class TableLoad(_Shape):
    """A table that a data model shows."""

    tableId: str
    tableName: str
    tableRowCount: int
    done: bool
    invisible: bool
    cancel: bool


class LiveDataModel(_Shape):
    """What a data model shows since its newest good load."""

    dataModelId: str
    dataModelName: str
    done: bool
    error: bool
    tablesLoaded: bool
    errorMessage: str | None
    lastLoad: Milliseconds | None
    projectName: str | None
    nextLoad: Milliseconds | None
    dataModelUUID: str
    numTables: int
    scheduledLoading: bool
    cancel: bool
    tableLoads: list[TableLoad]
    startTime: Milliseconds | None
    endTime: Milliseconds | None
    response: str | None
    dataLoadId: str


class CurrentLoads(_Shape):
    """How a data model stands."""

    liveDataModel: LiveDataModel | None
    currentComputeLoad: ComputeLoad | None


class GoodLoad(_Shape):
    """The newest good load of a data model."""

    dataModelId: str
    dataLoadId: str
    message: str | None
    loadStatus: LoadStatus
    startDate: Milliseconds | None
    endDate: Milliseconds | None
    warmupDuration: int | None
    done: bool


class AverageTime(_Shape):
    """How long loads of a type take."""

    type: LoadType
    averageLoadingTime: int


class LoadHistory(_Shape):
    """The loads of a data model so far, newest first."""

    lastSuccessfulDataModel: GoodLoad | None
    dataLoadHistory: list[ComputeLoad]
    averageLoadTime: list[AverageTime]


class LoadInfo(_Shape):
    """How the loads of a data model stand."""

    loadInfo: CurrentLoads
    loadHistory: LoadHistory


# Data jobs


class DataJobShown(_Shape):
    """A data job and how its newest run stands."""

    id: str
    name: str
    dataPoolId: str
    dataSourceId: str | None
    timeStamp: Milliseconds | None
    status: RunStatus | None
    currentExecutionId: str | None
    dagBasedExecutionEnabled: bool
    latestExecutionItemId: str | None


class DataJobStatus(_Shape):
    """How the newest run of a data job stands."""

    id: str
    status: RunStatus | None
    lastExecutionStartDate: Milliseconds | None


class ExecutionItemShown(_Shape):
    """A run of a data job, or of one of its tasks."""

    id: str
    poolId: str
    poolName: str | None
    executionId: str
    schedulingId: str | None
    jobId: str
    taskId: str | None
    stepId: str | None
    name: str
    status: RunStatus
    dataPoolVersion: str | None
    startDate: Milliseconds | None
    endDate: Milliseconds | None
    type: Literal["SCHEDULE", "JOB", "TASK", "STEP"]
    mode: Literal["FULL", "DELTA"]
    schedulingName: str | None
    executionOrder: int | None


class Executions(_Shape):
    """A page of runs."""

    executionItems: list[ExecutionItemShown]
    numOfPages: int


class LogMessage(_Shape):
    """A line in the log of a run."""

    id: str
    executionItemId: str
    level: str
    date: Milliseconds
    logMessage: str
    logTranslationCode: str | None
    logTranslationParameters: list[str]


class LogMessages(_Shape):
    """A page of log lines."""

    logMessages: list[LogMessage]
    numOfPages: int


# The emulator's own


class StoredChunk(_Shape):
    """A chunk in the history."""

    id: str
    type: Literal["UPSERT", "DELETE"]
    rows: int
    bytes: int
    checksum: str


class PastJob(_Shape):
    """A push job in the history; deleted ones stay in it."""

    id: str
    pool_id: str
    connection_id: str | None
    table: str
    type: Literal["REPLACE", "DELTA"]
    file_type: Literal["PARQUET", "CSV"]
    keys: list[str]
    status: JobStatus
    created_ms: Milliseconds
    executed_ms: Milliseconds | None
    finished_ms: Milliseconds | None
    deleted: bool
    deleted_ms: Milliseconds | None
    submits: int
    truncated_values: int
    logs: list[str]
    chunks: list[StoredChunk]


class StoredColumn(_Shape):
    """A column of a table; a text has a declared length in characters."""

    name: str
    type: str
    length: int | None


class StoredTable(_Shape):
    """A table of a pool, or one that a data model shows."""

    pool_id: str
    connection_id: str | None
    model_id: str | None
    table: str
    schema_: str = Field(alias="schema")
    kind: Literal["TABLE", "VIEW"]
    rows: int
    columns: list[StoredColumn]


class QueryResult(_Shape):
    """The result of a query: names and DuckDB types of its columns, values as text."""

    columns: list[str]
    types: list[str]
    rows: list[list[str | None]]


class RequestCount(_Shape):
    """How often a path was asked for; job ids are left out."""

    method: str
    path: str
    count: int


class ArmedFault(_Shape):
    """A fault that was set, and how often calls or jobs matched and met it."""

    id: str
    fault: dict[str, Any]
    matched: int
    fired: int
    spent: bool
    last: str | None
