"""The HTTP application: routes put together, refusals and faults turned into answers.

Hides: the web framework's set-up. Guarantees: every answer is JSON or empty; what was not foreseen
is a 500 with a reference, in Celonis' shape. Must not know: sockets, signals, the command line.
"""

from __future__ import annotations

import logging
from collections import Counter
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from celonis_emulator.gate import Gate
from celonis_emulator.openapi import DocumentedApp, route_name
from celonis_emulator.refusals import Refusal, internal, not_found, sentence_of, validation_body
from celonis_emulator.rights import Doors
from celonis_emulator.routes_admin import admin_routes
from celonis_emulator.routes_datajobs import data_job_routes
from celonis_emulator.routes_models import model_routes
from celonis_emulator.routes_oauth import oauth_routes
from celonis_emulator.routes_pools import pool_routes
from celonis_emulator.routes_push import push_routes
from celonis_emulator.routes_setup import setup_routes

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from celonis_emulator.datajobs import DataJobs
    from celonis_emulator.faults import Faults
    from celonis_emulator.identity import Identities
    from celonis_emulator.ledger import Ledger
    from celonis_emulator.models import DataModels
    from celonis_emulator.pushjobs import PushJobs
    from celonis_emulator.switches import Switches
    from celonis_emulator.warehouse import Warehouse

log = logging.getLogger(__name__)

DATA_PUSH_PREFIXES = ("data-ingestion", "integration")


def create_app(
    warehouse: Warehouse,
    ledger: Ledger,
    *,
    push_jobs: PushJobs,
    models: DataModels,
    data_jobs: DataJobs,
    identities: Identities,
    switches: Switches,
    faults: Faults,
) -> FastAPI:
    """Build the application over an open database and a started worker."""
    requests: Counter[tuple[str, str]] = Counter()
    app = DocumentedApp(
        title="Celonis emulator",
        version=version("target-celonis"),
        generate_unique_id_function=route_name,
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.doors = Doors(lambda pool_id: any(p.id == pool_id for p in ledger.pools()), switches)
    app.include_router(oauth_routes(identities.oauth))
    app.include_router(pool_routes(warehouse, ledger))
    for prefix in DATA_PUSH_PREFIXES:
        routes = push_routes(push_jobs, ledger, switches)
        path = f"/{prefix}/api/v1/data-push/{{pool_id}}"
        # One document for both prefixes: the second set differs by its path only.
        app.include_router(routes, prefix=path, include_in_schema=prefix == "data-ingestion")
    app.include_router(model_routes(warehouse, models))
    app.include_router(data_job_routes(data_jobs, switches))
    app.include_router(setup_routes(ledger))
    app.include_router(admin_routes(warehouse, push_jobs, requests, faults, identities.oauth))
    app.add_middleware(
        Gate,
        identities=identities,
        prefixes=switches.data_push_prefixes,
        requests=requests,
        faults=faults,
        error_bodies=switches.error_bodies,
    )
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)
    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, Refusal):
        raise error
    return JSONResponse(error.body, error.status, error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    problems = [
        (
            ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0]),
            sentence_of(str(problem["msg"])),
            str(problem["type"]).upper(),
        )
        for problem in error.errors()
    ]
    return JSONResponse(validation_body(problems), 400)


async def _no_route(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return JSONResponse(validation_body([("body", error.detail, "UNREADABLE")]), 400)
    body = dict(not_found("There is nothing at this path.").body)
    body["status"] = error.status_code
    if error.status_code != HTTPStatus.NOT_FOUND:
        body |= {"title": error.detail, "detail": error.detail, "errorCode": "GENERAL_REQUEST"}
    return JSONResponse(body, error.status_code, error.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    # Nobody reads this answer; a client that gives up is no fault of ours.
    return Response(status_code=400)


async def _fault(request: Request, error: Exception) -> JSONResponse:
    refusal = internal("Internal server error.")
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(refusal.body, refusal.status)
