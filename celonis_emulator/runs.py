"""What a data model load and a data job execution are: frozen records, and how the API shows them.

Hides: the JSON names of the wire. Pure. Guarantees: a record never changes; a new state is a new
record. Must not know: who stores a run, who does it, the web framework.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celonis_emulator.setup import DataJob, DataModel

GOOD_LOADS: Final = ("SUCCESS", "WARNING")
LIVE_LOADS: Final = ("QUEUED", "RUNNING")
SHOWN_LOADS: Final = 100
LIVE_EXECUTIONS: Final = ("QUEUED", "RUNNING")


@dataclass(frozen=True)
class TableLoad:
    """One table of a load; ``copied`` is False when the copy of an earlier load was kept."""

    table_id: str
    name: str
    rows: int
    nulled_values: int = 0
    copied: bool = True


@dataclass(frozen=True)
class ModelLoad:
    """A load of a data model.

    ``type`` is COMPLETE, PARTIAL or FROM_CACHE, ``status`` QUEUED (not shown), RUNNING, SUCCESS,
    WARNING or ERROR. ``table_ids`` are the tables that were asked for; None: all.
    """

    id: str
    pool_id: str
    model_id: str
    type: str
    status: str
    table_ids: tuple[str, ...] | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    message: str | None = None
    tables: tuple[TableLoad, ...] = ()

    def shown(self) -> dict[str, Any]:
        """Return the JSON of ``currentComputeLoad`` and of the load history."""
        return {
            "dataLoadId": self.id,
            "dataModelId": self.model_id,
            "startDate": self.started_ms,
            "endDate": self.ended_ms,
            "loadStatus": self.status,
            "message": self.message,
            "loadType": self.type,
            "dataPoolVersion": None,
        }

    def shown_live(self, model: DataModel) -> dict[str, Any]:
        """Return the JSON of ``liveDataModel``: what the model shows since this load."""
        return {
            "dataModelId": model.id,
            "dataModelName": model.name,
            "done": True,
            "error": False,
            "tablesLoaded": True,
            "errorMessage": None,
            "lastLoad": self.ended_ms,
            "projectName": None,
            "nextLoad": None,
            "dataModelUUID": model.id,
            "numTables": len(self.tables),
            "scheduledLoading": False,
            "cancel": False,
            "tableLoads": [
                {
                    "tableId": table.table_id,
                    "tableName": table.name,
                    "tableRowCount": table.rows,
                    "done": True,
                    "invisible": False,
                    "cancel": False,
                }
                for table in self.tables
            ],
            "startTime": self.started_ms,
            "endTime": self.ended_ms,
            "response": self.message,
            "dataLoadId": self.id,
        }


def shown_load_info(model: DataModel, loads: Sequence[ModelLoad]) -> dict[str, Any]:
    """Return the answer of ``load-info-sync``; ``loads`` come newest first."""
    started = [load for load in loads if load.status != "QUEUED"]
    good = next((load for load in started if load.status in GOOD_LOADS), None)
    last_good = None
    if good is not None:
        last_good = {
            "dataModelId": model.id,
            "dataLoadId": good.id,
            "message": good.message,
            "loadStatus": good.status,
            "startDate": good.started_ms,
            "endDate": good.ended_ms,
            "warmupDuration": None,
            "done": True,
        }
    return {
        "loadInfo": {
            "liveDataModel": good.shown_live(model) if good else None,
            "currentComputeLoad": started[0].shown() if started else None,
        },
        "loadHistory": {
            "lastSuccessfulDataModel": last_good,
            "dataLoadHistory": [load.shown() for load in started[:SHOWN_LOADS]],
            "averageLoadTime": _average_times(started),
        },
    }


def _average_times(loads: Sequence[ModelLoad]) -> list[dict[str, Any]]:
    times: dict[str, list[int]] = {}
    for load in loads:
        if load.status in GOOD_LOADS and load.started_ms is not None and load.ended_ms is not None:
            times.setdefault(load.type, []).append(load.ended_ms - load.started_ms)
    return [
        {"type": kind, "averageLoadingTime": sum(taken) // len(taken)}
        for kind, taken in sorted(times.items())
    ]


@dataclass(frozen=True)
class ExecutionItem:
    """A run of a data job (``type`` JOB) or of one of its tasks (TASK).

    ``status`` is QUEUED, RUNNING, SUCCESS, FAIL, CANCEL or SKIPPED.
    """

    id: str
    execution_id: str
    pool_id: str
    job_id: str
    task_id: str | None
    type: str
    name: str
    mode: str
    status: str
    started_ms: int | None = None
    ended_ms: int | None = None

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE_EXECUTIONS

    def shown(self) -> dict[str, Any]:
        """Return the JSON of an execution item."""
        return {
            "id": self.id,
            "poolId": self.pool_id,
            "poolName": None,
            "executionId": self.execution_id,
            "schedulingId": None,
            "jobId": self.job_id,
            "taskId": self.task_id,
            "stepId": None,
            "name": self.name,
            "status": self.status,
            "dataPoolVersion": None,
            "startDate": self.started_ms,
            "endDate": self.ended_ms,
            "type": self.type,
            "mode": self.mode,
            "schedulingName": None,
            "executionOrder": None,
        }


@dataclass(frozen=True)
class Message:
    """A line in the log of an execution item; ``level`` is INFO, WARN or ERROR."""

    id: str
    item_id: str
    level: str
    at_ms: int
    text: str

    def shown(self) -> dict[str, Any]:
        """Return the JSON of a log message."""
        return {
            "id": self.id,
            "executionItemId": self.item_id,
            "level": self.level,
            "date": self.at_ms,
            "logMessage": self.text,
            "logTranslationCode": None,
            "logTranslationParameters": [],
        }


def shown_job(job: DataJob, last: ExecutionItem | None) -> dict[str, Any]:
    """Return the ``JobTransport`` JSON; ``last`` is the job's newest execution."""
    return {
        "id": job.id,
        "name": job.name,
        "dataPoolId": job.pool_id,
        "dataSourceId": job.connection_id,
        "timeStamp": last.started_ms if last else None,
        "status": last.status if last else None,
        "currentExecutionId": last.execution_id if last else None,
        "dagBasedExecutionEnabled": False,
        "latestExecutionItemId": last.id if last else None,
    }


def shown_status(job: DataJob, last: ExecutionItem | None) -> dict[str, Any]:
    """Return a job's entry in ``logs/status``."""
    return {
        "id": job.id,
        "status": last.status if last else None,
        "lastExecutionStartDate": last.started_ms if last else None,
    }
