"""The endpoints of Celonis that a load needs, typed.

Hides paths, query parameters, field names and the shapes of answers. Guarantees: what it returns
has the form that its dataclass says; a refusal is an ``AccessError`` or a ``RemoteError``. No
policy and no sleeping here: what to call when is for others. Must not know: streams, files other
than the one it is told to upload.

Facts: the Data Push API of developer.celonis.com, and what Celonis' own clients send.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from target_celonis import limits
from target_celonis.errors import OutcomeUnknownError, RemoteError
from target_celonis.http import Http, expect
from target_celonis.multipart import FilePart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.answers import Answer
    from target_celonis.contract import ListedColumn


class JobType(StrEnum):
    """What a push job does with its table."""

    REPLACE = "REPLACE"
    DELTA = "DELTA"


class JobStatus(StrEnum):
    """Where a push job stands. An unknown status is taken for one under way."""

    NEW = "NEW"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    ERROR = "ERROR"
    CANCELED = "CANCELED"


TERMINAL = frozenset({JobStatus.DONE, JobStatus.ERROR, JobStatus.CANCELED})


@dataclass(frozen=True)
class SchemaColumn:
    """A column of a push job's table schema; ``length`` in characters, for texts only."""

    name: str
    type: str
    length: int | None = None
    is_key: bool = False


@dataclass(frozen=True)
class JobSpec:
    """A push job to be created.

    Attributes:
        table: Target table.
        type: REPLACE or DELTA.
        columns: All columns of the table.
        keys: Key columns; with DELTA they make an upsert.
        adds_columns: Whether table and chunks may each lack columns of the other.
    """

    table: str
    type: JobType
    columns: tuple[SchemaColumn, ...]
    keys: tuple[str, ...] = ()
    adds_columns: bool = False


@dataclass(frozen=True)
class PushJob:
    """A push job as Celonis shows it; ``connection_id`` is None in the global schema."""

    id: str
    status: str
    table: str
    logs: tuple[str, ...] = ()
    type: str = ""
    connection_id: str | None = None


@dataclass(frozen=True)
class PoolTable:
    """A table of the pool.

    Attributes:
        name: Its name.
        connection_id: Its data connection; None in the global schema.
        kind: TABLE or VIEW, where Celonis says so.
    """

    name: str
    connection_id: str | None
    kind: str | None = None


class Celonis:
    """One data pool of one team, seen through its APIs.

    Args:
        http: Signed session.
        pool_id: The data pool.
        connection_id: The data connection to push into; None for the global schema.
        push_prefix: Path before ``/api/v1/data-push``.
    """

    def __init__(
        self, http: Http, pool_id: str, connection_id: str | None, push_prefix: str
    ) -> None:
        self._http = http
        self.pool_id = pool_id
        self.connection_id = connection_id
        self._pool = f"/integration/api/pools/{quote(pool_id, safe='')}"
        self._jobs = push_jobs_path(push_prefix, pool_id)

    @property
    def http(self) -> Http:
        """The signed session, for other calls about the pool."""
        return self._http

    @property
    def pool_link(self) -> str:
        """Address of the data pool in the browser."""
        return f"{self._http.base_url}/integration/ui/pools/{quote(self.pool_id, safe='')}"

    # --- push jobs

    def list_jobs(self) -> list[PushJob]:
        """Return the pool's push jobs."""
        return _push_jobs(self._http.get(self._jobs))

    def list_jobs_if_allowed(self) -> list[PushJob] | None:
        """Return the pool's push jobs; None when the key may not list them."""
        answer = self._http.get(self._jobs)
        if answer.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            return None
        return _push_jobs(answer)

    def create_job(self, spec: JobSpec) -> PushJob:
        """Create a push job; nothing touches the table yet.

        Raises:
            OutcomeUnknownError: One may have been created, and its id is not known.
        """
        body: dict[str, Any] = {
            "targetName": spec.table,
            "dataPoolId": self.pool_id,
            "type": spec.type.value,
            "fileType": "PARQUET",
            "tableSchema": {
                "tableName": spec.table,
                "columns": [_column_body(column) for column in spec.columns],
            },
        }
        if self.connection_id is not None:
            body["connectionId"] = self.connection_id
        if spec.keys:
            body["keys"] = list(spec.keys)
        if spec.adds_columns:
            body["upsertStrategy"] = "UPSERT_WITH_NULLIFICATION"
        answer = self._http.post(self._jobs, json=body)
        expect(answer, f"create a push job for table `{spec.table}`")
        try:
            return _push_job(answer.json())
        except RemoteError as error:
            raise OutcomeUnknownError("TC-REMOTE-03", error.message, error.next_step) from None

    def get_job(self, job_id: str) -> PushJob:
        """Return a push job as it stands."""
        job = self.find_job(job_id)
        if job is None:
            raise RemoteError(
                "TC-REMOTE-02",
                f"Push job {job_id} is gone (status 404); somebody deleted it.",
                "Run again with the last state; look at the table first if it is appended to.",
            )
        return job

    def find_job(self, job_id: str) -> PushJob | None:
        """Return a push job as it stands; None when there is no such job."""
        answer = self._http.get(self._job(job_id))
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return _push_job(expect(answer, f"show push job {job_id}").json())

    def upload_chunk(self, job_id: str, path: Path, *, deletes: bool = False) -> None:
        """Add a file of rows to upsert, append or replace with, or of rows to delete by key."""
        kind = "deleted" if deletes else "upserted"
        answer = self._http.post(f"{self._job(job_id)}/chunks/{kind}", file=FilePart(path))
        expect(answer, f"take a chunk of push job {job_id}")

    def count_chunks(self, job_id: str) -> int:
        """Return how many chunks a push job has."""
        answer = self._http.get(f"{self._job(job_id)}/chunks")
        return len(_list_of_objects(expect(answer, f"list the chunks of push job {job_id}")))

    def execute_job(self, job_id: str) -> Answer:
        """Submit a push job; 409 and 429 are answers for the caller to act on."""
        return self._http.post(self._job(job_id), retry_rate_limit=False)

    def delete_job(self, job_id: str) -> None:
        """Delete a push job with its chunks; one that is gone already is fine."""
        answer = self._http.delete(self._job(job_id))
        if answer.status != HTTPStatus.NOT_FOUND:
            expect(answer, f"delete push job {job_id}")

    def _job(self, job_id: str) -> str:
        return f"{self._jobs}{quote(job_id, safe='')}"

    # --- the pool

    def tables(self) -> list[PoolTable] | None:
        """Return the pool's tables; None when the key may not list them."""
        answer = self._http.get(f"{self._pool}/tables")
        if answer.status == HTTPStatus.FORBIDDEN:
            return None
        entries = _list_of_objects(expect(answer, "list the tables of the data pool"))
        return [
            PoolTable(str(e.get("name")), e.get("dataSourceId"), e.get("type")) for e in entries
        ]

    def columns(self, table: str) -> list[ListedColumn] | None:
        """Return a table's columns; None when the key may not list them."""
        params = {"tableName": table}
        if self.connection_id is not None:
            params["schemaName"] = self.connection_id  # the id, as Celonis' own client sends it
        answer = self._http.get(f"{self._pool}/columns", params=params)
        if answer.status == HTTPStatus.FORBIDDEN:
            return None
        entries = _list_of_objects(expect(answer, f"list the columns of table `{table}`"))
        return [_listed_column(entry) for entry in entries]

    def get_connection(self, connection_id: str) -> Answer:
        """Ask for a data connection."""
        return self._http.get(f"{self._pool}/data-sources/{quote(connection_id, safe='')}")


def push_jobs_path(prefix: str, pool_id: str) -> str:
    """Return the path of the pool's push jobs, with the trailing slash of the documents."""
    return f"{prefix}/api/v1/data-push/{quote(pool_id, safe='')}/jobs/"


def _column_body(column: SchemaColumn) -> dict[str, Any]:
    body: dict[str, Any] = {"columnName": column.name, "columnType": column.type}
    if column.length is not None:
        body["fieldLength"] = column.length
    body["pkField"] = column.is_key
    return body


def _list_of_objects(answer: Answer) -> Sequence[dict[str, Any]]:
    content = answer.json()
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise _unexpected("a list")
    return content


def _push_jobs(answer: Answer) -> list[PushJob]:
    answer = expect(answer, "list the push jobs of the data pool")
    return [_push_job(entry) for entry in _list_of_objects(answer)]


def _push_job(entry: Any) -> PushJob:  # unchecked JSON
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise _unexpected("a push job")
    logs = entry.get("logs")
    return PushJob(
        id=entry["id"],
        status=str(entry.get("status")),
        table=str(entry.get("targetName")),
        logs=tuple(str(line) for line in logs) if isinstance(logs, list) else (),
        type=str(entry.get("type")),
        connection_id=entry.get("connectionId"),
    )


def _listed_column(entry: dict[str, Any]) -> ListedColumn:
    from target_celonis.contract import ListedColumn  # with Arrow, which takes long

    octets = entry.get("length")
    known = isinstance(octets, int) and octets > 0
    return ListedColumn(
        name=str(entry.get("name")),
        type=str(entry.get("type")),
        length=octets // limits.LISTED_OCTETS_PER_CHARACTER if known and octets else None,
    )


def _unexpected(wanted: str) -> RemoteError:
    return RemoteError(
        "TC-REMOTE-05",
        f"Celonis answered with JSON that is not {wanted}.",
        "Check that `base_url` is the address of a Celonis team.",
    )
