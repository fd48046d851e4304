"""The emulator's own endpoints under ``/_emulator``: what no Celonis would tell.

Hides: their shapes. Guarantees: a valid key is needed, as everywhere.
Must not know: the Celonis API.
"""

# ruff: noqa: C901, TC001, TC003 - annotations are read at run time; one function binds all routes
from __future__ import annotations

from collections import Counter
from typing import Any

import duckdb
from fastapi import APIRouter, Response
from pydantic import BaseModel

from celonis_emulator.faults import FaultList, Faults
from celonis_emulator.inventory import described_tables, queried
from celonis_emulator.oauth import OAuthServer
from celonis_emulator.pushjobs import PushJobs
from celonis_emulator.refusals import invalid, not_found
from celonis_emulator.sqltext import SqlRefused
from celonis_emulator.warehouse import Warehouse


class QueryBody(BaseModel):
    """A query to run."""

    sql: str


def admin_routes(
    warehouse: Warehouse,
    push_jobs: PushJobs,
    requests: Counter[tuple[str, str]],
    faults: Faults,
    oauth: OAuthServer,
) -> APIRouter:
    """Return the admin routes."""
    routes = APIRouter(prefix="/_emulator", tags=["Emulator"])

    @routes.get("/history")
    def get_history() -> list[dict[str, Any]]:
        """List every push job there ever was, deleted ones too."""
        return push_jobs.history()

    @routes.get("/tables")
    def get_tables(name: str | None = None) -> list[dict[str, Any]]:
        """Describe every table, or those of one name: columns, declared lengths, rows."""
        with warehouse.reading() as cursor:
            return described_tables(cursor, name)

    @routes.post("/query")
    def run_query(body: QueryBody) -> dict[str, Any]:
        """Run one SQL query that reads tables; values come as text, of 100,000 rows at most."""
        with warehouse.reading() as cursor:
            try:
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                return queried(cursor, body.sql)
            except (SqlRefused, duckdb.Error) as error:
                raise invalid("sql", str(error), "SQL") from error

    @routes.get("/requests")
    def get_requests() -> list[dict[str, Any]]:
        """Count the requests so far by method and path, job ids left out."""
        return [
            {"method": method, "path": path, "count": count}
            for (method, path), count in sorted(requests.items())
        ]

    @routes.get("/faults")
    def get_faults() -> list[dict[str, Any]]:
        """List the faults that are set, spent ones too."""
        return faults.shown()

    @routes.post("/faults")
    def add_faults(body: FaultList) -> list[dict[str, Any]]:
        """Set a fault or several, behind those that are set; list them all."""
        faults.add(body)
        if any(fault.at_once for fault in body):
            oauth.forget_tokens()
        return faults.shown()

    @routes.delete("/faults")
    def clear_faults() -> Response:
        """Remove all faults."""
        faults.clear()
        return Response()

    @routes.delete("/faults/{fault_id}")
    def remove_fault(fault_id: str) -> Response:
        """Remove one fault."""
        if not faults.remove(fault_id):
            raise not_found("There is no such fault.")
        return Response()

    return routes
