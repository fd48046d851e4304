"""Data models and their loads, and the one worker that does the loads.

Hides: locks, the worker, how long the status of an earlier load is still shown. Guarantees: a load
is RUNNING, then SUCCESS, WARNING or ERROR; its copies and its end are one transaction, so that
copies are never half made; loads of one model never overlap.
Must not know: HTTP routes, keys, the SQL of a copy.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb

from celonis_emulator.jobs import now_ms
from celonis_emulator.modelcopy import CopyFailed, copy_tables
from celonis_emulator.refusals import conflict, invalid, not_found
from celonis_emulator.runs import LIVE_LOADS, ModelLoad, TableLoad, shown_load_info
from celonis_emulator.worker import Stopping, Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celonis_emulator.ledger import Ledger
    from celonis_emulator.runledger import RunLedger
    from celonis_emulator.setup import DataModel
    from celonis_emulator.switches import Switches
    from celonis_emulator.warehouse import Warehouse

log = logging.getLogger(__name__)

# DuckDB's messages can quote a whole query.
MESSAGE_CHARACTERS = 600
INTERRUPTED = "The server stopped during the load; the data model shows what it showed before."


class DataModels:
    """The data models of the team; safe from several threads."""

    def __init__(
        self, warehouse: Warehouse, ledger: Ledger, runs: RunLedger, switches: Switches
    ) -> None:
        self._warehouse = warehouse
        self._ledger = ledger
        self._runs = runs
        self._switches = switches
        self._worker: Worker[ModelLoad] = Worker("data model load", warehouse, self._run)
        self._lock = self._worker.changed
        # What is still answered of the time before the last trigger, and how often.
        self._stale: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        for load in runs.loads_with(*LIVE_LOADS):
            self._end(load, "ERROR", INTERRUPTED)

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def stop(self) -> None:
        """Stop the worker; a load at work is rolled back and ends ERROR."""
        self._worker.stop()

    def of_pool(self, pool_id: str) -> list[DataModel]:
        """List the data models of a pool."""
        return self._ledger.models(pool_id)

    def get(self, pool_id: str, model_id: str) -> DataModel:
        """Return a data model of a pool.

        Raises:
            Refusal: 404.
        """
        for model in self._ledger.models(pool_id):
            if model.id == model_id:
                return model
        msg = f"There is no data model {model_id} in the pool."
        raise not_found(msg)

    def load(
        self,
        pool_id: str,
        model_id: str,
        kind: str,
        table_ids: Sequence[str] | None = None,
        *,
        waits: bool | None = None,
    ) -> ModelLoad:
        """Start a load.

        Args:
            pool_id: The model's pool.
            model_id: The model.
            kind: COMPLETE, PARTIAL or FROM_CACHE.
            table_ids: For a partial load, the tables to copy.
            waits: Whether it may wait for another load of the model; None: as switched.

        Raises:
            Refusal: 404; 400 for an unknown table; 409 while the model is being loaded.
        """
        with self._lock:
            model = self.get(pool_id, model_id)
            unknown = set(table_ids or ()) - {table.id for table in model.tables}
            if unknown:
                names = ", ".join(sorted(unknown))
                raise invalid("tables", f"The data model has no table with the id: {names}.")
            earlier = self._runs.loads(pool_id, model_id)
            busy = any(load.status in LIVE_LOADS for load in earlier)
            if waits is None:
                waits = self._switches.second_load == "queue"
            if busy and not waits:
                msg = f"The data model {model_id} is being loaded; wait for the end of that load."
                raise conflict(msg)
            if self._switches.stale_load_answers:
                answer = shown_load_info(model, earlier)
                self._stale[pool_id, model_id] = (self._switches.stale_load_answers, answer)
            wanted: tuple[str, ...] | None = tuple(table_ids or ())
            load = ModelLoad(
                id=str(uuid.uuid4()),
                pool_id=pool_id,
                model_id=model_id,
                type=kind,
                status="QUEUED" if busy else "RUNNING",
                table_ids=None if kind == "COMPLETE" else wanted,
                started_ms=None if busy else now_ms(),
            )
            self._runs.add_load(load)
            self._worker.put(load)
            return load

    def load_info(self, pool_id: str, model_id: str) -> dict[str, Any]:
        """Return the answer of ``load-info-sync``.

        Raises:
            Refusal: 404.
        """
        with self._lock:
            model = self.get(pool_id, model_id)
            left, answer = self._stale.pop((pool_id, model_id), (0, {}))
            if left > 1:
                self._stale[pool_id, model_id] = (left - 1, answer)
            if left:
                return answer
            return shown_load_info(model, self._runs.loads(pool_id, model_id))

    def last_load(self, pool_id: str, model_id: str) -> ModelLoad | None:
        """Return the newest load that has begun.

        Raises:
            Refusal: 404 for a model that is not there.
        """
        self.get(pool_id, model_id)
        loads = self._runs.loads(pool_id, model_id)
        return next((load for load in loads if load.status != "QUEUED"), None)

    # The worker

    def _run(self, load: ModelLoad) -> None:
        if load.status == "QUEUED":
            load = replace(load, status="RUNNING", started_ms=now_ms())
            self._runs.write_load(load)
        try:
            self._worker.pause(self._switches.model_load_seconds)
            self._copy(load)
        except (Stopping, duckdb.InterruptException):
            self._end(load, "ERROR", INTERRUPTED)
        except CopyFailed as error:
            self._end(load, "ERROR", str(error))
        except duckdb.Error as error:
            reason = " ".join(str(error).split())[:MESSAGE_CHARACTERS]
            self._end(load, "ERROR", f"The tables cannot be copied: {reason}")
        except Exception as error:
            log.exception("the data model %s could not be loaded", load.model_id)
            self._end(load, "ERROR", f"Internal fault: {error}")

    def _copy(self, load: ModelLoad) -> None:
        """Make the copies and mark the load as done, both or neither."""
        model = self.get(load.pool_id, load.model_id)
        with (
            self._worker.cursor() as cursor,
            self._warehouse.changing(self._worker.check),
        ):
            cursor.execute("BEGIN")
            try:
                tables = copy_tables(cursor, model, load.table_ids)
                self._worker.check()
                done = replace(load, status="SUCCESS", ended_ms=now_ms(), tables=tables)
                if message := _lost_dates(tables):
                    status = self._switches.lost_dates_status
                    done = replace(done, status=status, message=message)
                self._runs.write_load(done, cursor)
                cursor.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
                raise

    def _end(self, load: ModelLoad, status: str, message: str) -> None:
        self._runs.write_load(replace(load, status=status, message=message, ended_ms=now_ms()))


def _lost_dates(tables: Sequence[TableLoad]) -> str | None:
    lost = [f"{table.nulled_values} in {table.name}" for table in tables if table.nulled_values]
    return (
        f"Dates outside 1400-01-01 to 9999-12-31 became NULL: {', '.join(lost)}." if lost else None
    )
