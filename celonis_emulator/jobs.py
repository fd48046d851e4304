"""What a push job and its chunks are: frozen records, and how the API shows them.

Hides: the JSON names of the wire. Pure. Guarantees: a record never changes; a new state is a new
record. Must not know: who stores a job, who runs it, the web framework.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

LIVE: Final = ("QUEUED", "RUNNING")
ENDED: Final = ("DONE", "ERROR", "CANCELED")
NULLIFICATION: Final = "UPSERT_WITH_NULLIFICATION"


def now_ms() -> int:
    """Return the time in milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Chunk:
    """One uploaded file; ``type`` is UPSERT or DELETE, ``position`` its place in the job."""

    id: str
    job_id: str
    position: int
    type: str
    rows: int
    bytes: int
    checksum: str
    created_ms: int
    file_name: str

    def shown(self) -> dict[str, Any]:
        """Return the ``DataPushChunk`` JSON."""
        return {
            "id": self.id,
            "creationDate": self.created_ms,
            "type": self.type,
            "pushJobId": self.job_id,
            "checksum": self.checksum,
        }


@dataclass(frozen=True)
class DeclaredColumn:
    """A column of ``tableSchema``."""

    name: str
    type: str
    length_characters: int | None


@dataclass(frozen=True)
class Job:
    """A push job; ``request`` is the create body as the client sent it, without nulls."""

    id: str
    pool_id: str
    connection_id: str | None
    table: str
    type: str
    file_type: str
    keys: tuple[str, ...]
    request: dict[str, Any]
    created_ms: int
    status: str = "NEW"
    logs: tuple[str, ...] = ()
    changed_ms: int = 0
    executed_ms: int | None = None
    finished_ms: int | None = None
    deleted_ms: int | None = None
    submits: int = 0
    truncated_values: int = 0
    duplicate_removal_column: str | None = None

    @property
    def declared_columns(self) -> tuple[DeclaredColumn, ...]:
        """The columns of ``tableSchema``; none without one."""
        schema = self.request.get("tableSchema") or {}
        return tuple(
            DeclaredColumn(c["columnName"], c["columnType"], c.get("fieldLength"))
            for c in schema.get("columns") or ()
        )

    @property
    def fallback_characters(self) -> int | None:
        """The length for text columns that ``tableSchema`` does not describe."""
        value = self.request.get("fallbackVarcharLength")
        return int(value) if value is not None else None

    @property
    def adds_columns(self) -> bool:
        """Whether the job asked for differing columns to be filled with NULL."""
        return self.request.get("upsertStrategy") == NULLIFICATION

    def shown(self) -> dict[str, Any]:
        """Return the ``DataPushJob`` JSON: every field, null where unset."""
        asked = self.request.get
        return {
            "id": self.id,
            "targetName": self.table,
            "lastModified": self.changed_ms or self.created_ms,
            "lastPing": None,
            "status": self.status,
            "type": self.type,
            "fileType": self.file_type,
            "targetSchema": asked("targetSchema"),
            "upsertStrategy": asked("upsertStrategy"),
            "fallbackVarcharLength": asked("fallbackVarcharLength"),
            "dataPoolId": self.pool_id,
            "connectionId": self.connection_id,
            "postExecutionQuery": asked("postExecutionQuery"),
            "allowDuplicate": asked("allowDuplicate"),
            "foreignKeys": asked("foreignKeys"),
            "keys": list(self.keys) or None,
            "logs": list(self.logs),
            "tableSchema": asked("tableSchema"),
            "csvParsingOptions": asked("csvParsingOptions"),
            "mirrorTargetNames": asked("mirrorTargetNames"),
            "changeDate": asked("changeDate"),
        }


def shown_history(jobs: list[Job], chunks: dict[str, list[Chunk]]) -> list[dict[str, Any]]:
    """Return jobs as the JSON of the history."""
    return [
        {
            "id": job.id,
            "pool_id": job.pool_id,
            "connection_id": job.connection_id,
            "table": job.table,
            "type": job.type,
            "file_type": job.file_type,
            "keys": list(job.keys),
            "status": job.status,
            "created_ms": job.created_ms,
            "executed_ms": job.executed_ms,
            "finished_ms": job.finished_ms,
            "deleted": job.deleted_ms is not None,
            "deleted_ms": job.deleted_ms,
            "submits": job.submits,
            "truncated_values": job.truncated_values,
            "logs": list(job.logs),
            "chunks": [
                {
                    "id": chunk.id,
                    "type": chunk.type,
                    "rows": chunk.rows,
                    "bytes": chunk.bytes,
                    "checksum": chunk.checksum,
                }
                for chunk in chunks.get(job.id, [])
            ],
        }
        for job in jobs
    ]
