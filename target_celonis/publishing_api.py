"""The endpoints of data jobs and data models, typed.

Hides paths, field names, the shapes of answers, and which of the public and internal calls says
what. Guarantees: what it returns has the form that its dataclass says; a refusal is an
``AccessError`` that names the permission, or a ``RemoteError``. No policy and no sleeping here:
what to call when is for others. Must not know: streams, pushes, settings.

Facts: the Data Job Execution API and the Process Data Model API of developer.celonis.com, and what
Celonis' own client asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from target_celonis.errors import AccessError, RemoteError
from target_celonis.http import Http, expect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from target_celonis.answers import Answer

Marker = tuple[str | None, ...]
"""What tells one execution or load from the next; all None where there was none."""

ENDED_EXECUTIONS = frozenset({"SUCCESS", "FAIL", "CANCEL", "SKIPPED"})
GOOD_LOADS = frozenset({"SUCCESS", "WARNING"})
ENDED_LOADS = GOOD_LOADS | {"ERROR", "CANCELED"}
"""Any other status is taken for one under way: QUEUED, RUNNING, LOST_CONNECTION, CANCELLING, and
those that are not known."""


_FAILED_TASKS = 3
"""Failed tasks of which a message is read; the first ones say most."""

_SCOPE = "an OAuth client also needs the scope `integration.data-pools`."


@dataclass(frozen=True)
class DataJob:
    """A data job, and its newest execution.

    Attributes:
        id: Its id.
        name: Its name.
        status: Of the newest execution; None where there was none.
        execution_id: Of the newest execution.
        marker: Changes with each execution.
    """

    id: str
    name: str
    status: str | None
    execution_id: str | None
    marker: Marker


@dataclass(frozen=True)
class ModelTable:
    """A table of a data model.

    Attributes:
        id: Its id, which a partial load names.
        name: Name of the table in the pool.
        connection_id: Its data connection; None in the global schema.
        alias: Its name in the data model, where it has another one.
    """

    id: str
    name: str
    connection_id: str | None
    alias: str | None = None


@dataclass(frozen=True)
class DataModel:
    """A data model with its tables."""

    id: str
    name: str
    tables: tuple[ModelTable, ...]


@dataclass(frozen=True)
class LoadInfo:
    """How the loads of a data model stand.

    Attributes:
        status: Of the newest load; None where there was none.
        message: What Celonis says of it.
        marker: Changes with each load.
        was_loaded: Whether any load was good.
        rows: Rows that the data model shows, by id of its table, where Celonis says so.
    """

    status: str | None
    message: str
    marker: Marker
    was_loaded: bool
    rows: Mapping[str, int] = field(default_factory=dict)


class Publishing:
    """Data jobs and data models of one data pool.

    Args:
        http: Signed session.
        pool_id: The data pool.
    """

    def __init__(self, http: Http, pool_id: str) -> None:
        self._http = http
        pool = quote(pool_id, safe="")
        self._pool_id = pool_id
        self._internal = f"/integration/api/pools/{pool}"
        self._public = f"/integration/api/{{}}/data-pools/{pool}"

    def probe(self, job_id: str | None, model_id: str | None) -> Answer:
        """Look at a data job or, without one, a data model; any answer is returned."""
        if job_id is not None:
            return self._http.get(self._job(job_id))
        return self._http.get(f"{self._internal}/data-models/{quote(model_id or '', safe='')}")

    # --- data jobs

    def get_data_job(self, job_id: str) -> DataJob:
        """Return a data job and how its newest execution stands.

        Raises:
            AccessError: It is unknown, or the key may not look at it.
        """
        answer = self._http.get(self._job(job_id))
        shown = _object(self._expect_job(answer, job_id, "look at"))
        status, execution = _text(shown, "status"), _text(shown, "currentExecutionId")
        item, started = _text(shown, "latestExecutionItemId"), None
        if status is None or (execution is None and item is None):
            listed = self._listed_status(job_id)
            status = status or _text(listed, "status")
            started = _text(listed, "lastExecutionStartDate")
        name = _text(shown, "name") or job_id
        return DataJob(job_id, name, status, execution, (item, execution, started))

    def _job(self, job_id: str) -> str:
        return f"{self._internal}/jobs/{quote(job_id, safe='')}"

    def _listed_status(self, job_id: str) -> Mapping[str, Any]:
        """Return what the list of all data jobs says of one; nothing where it may not be read."""
        answer = self._http.get(f"{self._internal}/logs/status")
        entries = answer.json() if answer.ok else []
        entries = entries if isinstance(entries, list) else []
        found = [e for e in entries if isinstance(e, dict) and e.get("id") == job_id]
        return found[0] if found else {}

    def execute_data_job(self, job_id: str, mode: str) -> Answer:
        """Execute a data job; 409, that it is at work, is an answer for the caller to act on.

        Raises:
            AccessError: It is unknown, or the key may not execute it.
            RemoteError: Celonis refused.
            OutcomeUnknownError: No usable answer came.
        """
        path = f"{self._public.format('v2')}/data-jobs/{quote(job_id, safe='')}/execute"
        answer = self._http.post(f"{path}?mode={quote(mode, safe='')}")
        if answer.status == HTTPStatus.CONFLICT:
            return answer
        return self._expect_job(answer, job_id, "execute")

    def reasons(self, job: DataJob) -> list[str]:
        """Return the first message of each failed task of a job's newest execution.

        Whatever cannot be read is left out: that the job failed is known already.
        """
        logs, execution = f"{self._internal}/logs", job.execution_id
        try:
            if execution is None:
                path = f"{logs}/{quote(job.id, safe='')}/executions"
                items = _object(self._http.get(path, {"limit": "1", "page": "0"}))
                execution = next(_texts(items.get("executionItems"), "executionId"), None)
            if execution is None:
                return []
            of_tasks = {"executionId": execution, "type": "TASK", "id": job.id}
            tasks = self._http.get(f"{logs}/executions", of_tasks).json()
            failed = [e for e in _objects(tasks) if e.get("status") == "FAIL"]
            found = [self._reason(e, execution) for e in failed[:_FAILED_TASKS]]
        except RemoteError:
            return []
        return [text for text in found if text]

    def _reason(self, task: Mapping[str, Any], execution_id: str) -> str:
        of_task = {
            "executionId": execution_id,
            "id": str(task.get("taskId")),
            "type": "TASK",
            "limit": "1",
            "page": "0",
        }
        path = f"{self._internal}/logs/executions/detail"
        shown = _object(self._http.get(path, of_task))
        text = next(_texts(shown.get("logMessages"), "logMessage"), "")
        return f"{task.get('name')}: {' '.join(text.split())[:500]}" if text else ""

    def _expect_job(self, answer: Answer, job_id: str, doing: str) -> Answer:
        if answer.status == HTTPStatus.FORBIDDEN:
            raise AccessError(
                "TC-ACCESS-05",
                f"The key may not {doing} the data job {job_id} (status 403).{_said(answer)}",
                "Give it the permissions to view and to manage data jobs on the data pool; "
                f"{_SCOPE}",
            )
        if answer.status == HTTPStatus.NOT_FOUND:
            raise AccessError(
                "TC-ACCESS-05",
                f"The data job {job_id} does not exist in data pool {self._pool_id}, or the key "
                "may not see it (status 404).",
                "Check its `id` in `data_jobs`.",
            )
        return expect(answer, f"{doing} the data job {job_id}")

    # --- data models

    def get_model(self, model_id: str) -> DataModel:
        """Return a data model and its tables.

        Raises:
            AccessError: It is unknown, or the key may not look at it.
        """
        path = f"{self._internal}/data-models/{quote(model_id, safe='')}"
        shown = _object(self._expect_model(self._http.get(path), model_id, "look at"))
        answer = self._http.get(f"{self._model(model_id)}/tables")
        entries = _objects(self._expect_model(answer, model_id, "list the tables of").json())
        tables = [
            ModelTable(
                id=str(entry.get("id")),
                name=str(entry.get("name")),
                connection_id=_text(entry, "dataSourceId"),
                alias=_text(entry, "alias"),
            )
            for entry in entries
        ]
        return DataModel(model_id, _text(shown, "name") or model_id, tuple(tables))

    def load_info(self, model_id: str) -> LoadInfo:
        """Return how the loads of a data model stand.

        Raises:
            AccessError: It is unknown, or the key may not look at it.
        """
        model = quote(model_id, safe="")
        path = f"{self._internal}/data-models/{model}/load-history/load-info-sync"
        answer = self._expect_model(self._http.get(path), model_id, "look at the loads of")
        shown = _object(answer)
        info, history = _inner(shown, "loadInfo"), _inner(shown, "loadHistory")
        current, live = _inner(info, "currentComputeLoad"), _inner(info, "liveDataModel")
        status = _text(current, "loadStatus")
        rows = {
            str(entry.get("tableId")): entry["tableRowCount"]
            for entry in _objects(live.get("tableLoads") or [])
            if type(entry.get("tableRowCount")) is int
        }
        return LoadInfo(
            status=status,
            message=_text(current, "message") or "",
            marker=(_text(current, "dataLoadId"), _text(current, "startDate")),
            was_loaded=bool(live or history.get("lastSuccessfulDataModel") or status in GOOD_LOADS),
            rows=rows,
        )

    def load_model(self, model_id: str, table_ids: tuple[str, ...] | None) -> Answer:
        """Load a data model; 409, that it is being loaded, is an answer for the caller to act on.

        Args:
            model_id: Which.
            table_ids: The tables to load; None: all.

        Raises:
            AccessError: It is unknown, or the key may not load it.
            RemoteError: Celonis refused.
            OutcomeUnknownError: No usable answer came.
        """
        path = f"{self._model(model_id)}/load"
        if table_ids is None:
            answer = self._http.post(path)
        else:
            answer = self._http.post(f"{path}/partial-sync", json=list(table_ids))
        if answer.status == HTTPStatus.CONFLICT:
            return answer
        return self._expect_model(answer, model_id, "load")

    def _model(self, model_id: str) -> str:
        return f"{self._public.format('v1')}/data-models/{quote(model_id, safe='')}"

    def _expect_model(self, answer: Answer, model_id: str, doing: str) -> Answer:
        if answer.status == HTTPStatus.FORBIDDEN:
            raise AccessError(
                "TC-ACCESS-06",
                f"The key may not {doing} the data model {model_id} (status 403).{_said(answer)}",
                f"Give it the permission Edit on the data pool; {_SCOPE}",
            )
        if answer.status == HTTPStatus.NOT_FOUND:
            raise AccessError(
                "TC-ACCESS-06",
                f"The data model {model_id} does not exist in data pool {self._pool_id}, or the "
                "key may not see it (status 404).",
                "Check its `id` in `data_models`.",
            )
        return expect(answer, f"{doing} the data model {model_id}")


def _said(answer: Answer) -> str:
    text = answer.explanation()
    return f" It says: {text}" if text else ""


def _object(answer: Answer) -> Mapping[str, Any]:
    content = answer.json()
    if not isinstance(content, dict):
        raise _unexpected("an object")
    return content


def _objects(content: Any) -> list[Mapping[str, Any]]:  # unchecked JSON
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise _unexpected("a list")
    return content


def _inner(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an inner object; nothing where it is null or missing."""
    value = outer.get(name)
    return value if isinstance(value, dict) else {}


def _text(entry: Mapping[str, Any], name: str) -> str | None:
    """Return a value as text, numbers too; None where there is none."""
    value = entry.get(name)
    return None if value is None or value == "" else str(value)


def _texts(entries: Any, name: str) -> Any:  # unchecked JSON
    return (text for entry in _objects(entries or []) if (text := _text(entry, name)))


def _unexpected(wanted: str) -> RemoteError:
    return RemoteError(
        "TC-REMOTE-05",
        f"Celonis answered with JSON that is not {wanted}.",
        "Check that `base_url` is the address of a Celonis team.",
    )
