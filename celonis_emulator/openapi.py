"""The OpenAPI document that the server serves.

Hides: what has to be added to the document that the web framework makes of the routes: shapes of
answers, errors, ways to log in. Guarantees: every operation is complete, and an operation without a
known answer is a fault that is seen at once. Must not know: how anything is answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter

from celonis_emulator import setup, shapes
from celonis_emulator.rights import SCOPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi.routing import APIRoute

DESCRIPTION: Final = """\
A local Celonis for the load side. Some of its answers are known from public sources, others are
assumed; the documentation lists the latter.

The paths of Data Push are served below `/integration/...` as below `/data-ingestion/...`. A slash
at the end of a path, or two for one, do not matter. A switch has errors come as plain text or
without a body instead of the JSON that is described here.
"""
TAGS: Final = {
    "OAuth": "Tokens for OAuth clients (client credentials).",
    "Pools": "The team, its data pools and connections, tables and columns.",
    "Data Push": "Push jobs and their chunks. Every path exists below `/integration/api/v1/` too.",
    "Data models": "Data models, their tables and loads.",
    "Data jobs": "Data jobs, their runs and logs.",
    "Emulator": "What no Celonis has: looking inside, setting up, faults.",
}
PARAMETERS: Final = {
    "pool_id": "id of the data pool",
    "job_id": "id of the job",
    "model_id": "id of the data model",
    "data_source_id": "id of the data connection",
    "fault_id": "id of the fault",
    "version": "version of the API; all answer the same",
}
ANSWERS: Final[dict[str, Any]] = {
    "get_token": shapes.Token,
    "get_user": shapes.User,
    "list_permissions": list[shapes.ServicePermissions],
    "get_team": shapes.TeamShown,
    "list_pools": list[shapes.DataPool],
    "get_pool": shapes.DataPool,
    "list_data_sources": list[shapes.DataSource],
    "get_data_source": shapes.DataSource,
    "list_tables": list[shapes.PoolTableShown],
    "list_columns": list[shapes.ColumnShown],
    "create_job": shapes.DataPushJob,
    "list_jobs": list[shapes.DataPushJob],
    "get_job": shapes.DataPushJob,
    "list_chunks": list[shapes.DataPushChunk],
    "list_models": list[shapes.DataModelShown],
    "get_model": shapes.DataModelShown,
    "list_model_tables": list[shapes.DataModelTable],
    "list_public_model_tables": list[shapes.DataModelTable],
    "get_last_load": shapes.ComputeLoad | shapes.NoLoad,
    "get_load_info": shapes.LoadInfo,
    "list_data_jobs": list[shapes.DataJobShown],
    "get_data_job": shapes.DataJobShown,
    "list_statuses": list[shapes.DataJobStatus],
    "list_executions": shapes.Executions,
    "list_execution_items": list[shapes.ExecutionItemShown],
    "list_messages": shapes.LogMessages,
    "get_history": list[shapes.PastJob],
    "get_tables": list[shapes.StoredTable],
    "run_query": shapes.QueryResult,
    "get_requests": list[shapes.RequestCount],
    "get_faults": list[shapes.ArmedFault],
    "add_faults": list[shapes.ArmedFault],
    "make_pool": setup.Pool,
    "make_connection": setup.Connection,
    "put_model": setup.DataModel,
    "put_data_job": setup.DataJob,
    **dict.fromkeys(
        [
            *("execute_job", "cancel_job", "delete_job"),
            *("add_upserted_chunk", "add_deleted_chunk"),
            *("load_model", "load_model_partially", "reload_model"),
            *("execute_data_job", "execute_data_job_in_part", "cancel_data_job"),
            *("clear_faults", "remove_fault"),
        ]
    ),
}
"""By the name of the route; None for one that answers without a body."""

ERRORS: Final[dict[int, tuple[str, Any]]] = {
    400: ("The request is not valid, or not in this state", shapes.ValidationErrors),
    401: ("No valid key or token", shapes.Unauthorized),
    403: ("The caller lacks a permission or the token a scope", shapes.GatewayError),
    404: ("There is nothing of this id", shapes.GatewayError),
    409: ("Something else is at work", shapes.ServiceError),
    413: ("The chunk is too large", shapes.GatewayError),
    429: ("Too many jobs were submitted", shapes.GatewayError),
    500: ("Internal error while validating the Parquet file: no key column", shapes.ServiceError),
}
_CHUNK_ERRORS: Final = (413, 500)
MORE_ERRORS: Final[dict[str, tuple[int, ...]]] = {
    "execute_job": (409, 429),
    "add_upserted_chunk": _CHUNK_ERRORS,
    "add_deleted_chunk": _CHUNK_ERRORS,
    "load_model": (409,),
    "load_model_partially": (409,),
    "reload_model": (409,),
    "execute_data_job": (409,),
    "execute_data_job_in_part": (409,),
}
_JOB: Final = {"pool_id": "$request.path.pool_id", "job_id": "$response.body#/id"}
_FIRST_JOB: Final = {"pool_id": "$request.path.pool_id", "job_id": "$response.body#/0/id"}
_FIRST_MODEL: Final = {"pool_id": "$request.path.pool_id", "model_id": "$response.body#/0/id"}
_FIRST_POOL: Final = {"pool_id": "$response.body#/0/id"}
_FIRST_RUN: Final = {
    "pool_id": "$request.path.pool_id",
    "executionId": "$response.body#/executionItems/0/executionId",
}
LINKS: Final[dict[str, tuple[dict[str, str], tuple[str, ...]]]] = {
    "list_pools": (
        _FIRST_POOL,
        ("get_pool", "list_tables", "list_data_sources", "list_models", "list_data_jobs"),
    ),
    "create_job": (
        _JOB,
        (
            *("add_upserted_chunk", "add_deleted_chunk", "list_chunks"),
            *("execute_job", "get_job", "cancel_job", "delete_job"),
        ),
    ),
    "list_models": (
        _FIRST_MODEL,
        (
            *("get_model", "list_model_tables", "list_public_model_tables", "load_model"),
            *("reload_model", "get_load_info", "get_last_load"),
        ),
    ),
    "list_data_jobs": (
        _FIRST_JOB,
        ("get_data_job", "execute_data_job_in_part", "cancel_data_job", "list_executions"),
    ),
    "list_executions": (_FIRST_RUN, ("list_execution_items", "list_messages")),
    "get_faults": ({"fault_id": "$response.body#/0/id"}, ("remove_fault",)),
}
"""Which operations go on with what one has answered."""
_LIMIT_HEADERS: Final = {
    f"x-ratelimit-{name}": {"description": text, "schema": {"type": "string"}}
    for name, text in (
        ("limit", "submits that are allowed"),
        ("remaining", "submits that are left"),
        ("reset", "seconds to wait"),
    )
}
_SECURITY: Final[dict[str, Any]] = {
    "ApiKey": {"type": "http", "scheme": "bearer", "description": "A user's API key."},
    "AppKey": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "An application's key: `AppKey <key>`.",
    },
    "OAuth": {
        "type": "oauth2",
        "flows": {
            "clientCredentials": {
                "tokenUrl": "/oauth2/token",
                "scopes": {
                    scope: f"may {', '.join(sorted(rights))}" for scope, rights in SCOPES.items()
                },
            }
        },
    },
    "OAuthClient": {
        "type": "http",
        "scheme": "basic",
        "description": "Id and secret of an OAuth client; they may come in the body instead.",
    },
}
_REFERENCES: Final = "#/components/schemas/{model}"
_GIVES_TOKENS: Final = "get_token"


class DocumentedApp(FastAPI):
    """An application that completes the document of its routes."""

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        if self.openapi_schema is None:
            document = super().openapi()
            _complete(document)
            self.openapi_schema = document
        return self.openapi_schema


def route_name(route: APIRoute) -> str:
    """Return the id of an operation."""
    return route.name


def _complete(document: dict[str, Any]) -> None:
    types = {name: kind for name, kind in ANSWERS.items() if kind is not None}
    types |= {str(status): kind for status, (_, kind) in ERRORS.items()}
    types["oauth"] = shapes.OAuthError
    schemas, definitions = TypeAdapter.json_schemas(
        [(name, "serialization", TypeAdapter(kind)) for name, kind in types.items()],
        ref_template=_REFERENCES,
    )
    answers = {name: schema for (name, _), schema in schemas.items()}
    components = document.setdefault("components", {})
    known = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        known.pop(unused, None)
    known |= definitions["$defs"]
    components["securitySchemes"] = _SECURITY
    document["info"]["description"] = DESCRIPTION
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    document["security"] = [{"ApiKey": []}, {"AppKey": []}, {"OAuth": []}]
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete_operation(operation, answers)


def _complete_operation(operation: dict[str, Any], answers: Mapping[str, Any]) -> None:
    name = operation["operationId"]
    responses = operation["responses"]
    responses.pop("422", None)
    (good,) = responses.values()
    if ANSWERS[name] is None:
        good.pop("content", None)
        good["description"] = "Done; without a body"
    else:
        good["content"] = {"application/json": {"schema": answers[name]}}
    for status in _errors(operation):
        text, _ = ERRORS[status]
        shown = "oauth" if name == _GIVES_TOKENS else str(status)
        responses[str(status)] = {
            "description": text,
            "content": {"application/json": {"schema": answers[shown]}},
        }
    if name in LINKS:
        parameters, followers = LINKS[name]
        good["links"] = {
            follower: {"operationId": follower, "parameters": parameters} for follower in followers
        }
    if name == _GIVES_TOKENS:
        operation["security"] = [{"OAuthClient": []}, {}]
    for limited in (good, responses.get("429")) if "429" in responses else ():
        limited["headers"] = _LIMIT_HEADERS
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in PARAMETERS:
            parameter["description"] = PARAMETERS[parameter["name"]]


def _errors(operation: Mapping[str, Any]) -> list[int]:
    """Return the statuses of errors that an operation can be answered with."""
    name = operation["operationId"]
    if name == _GIVES_TOKENS:
        return [400, 401]
    found = {401, *MORE_ERRORS.get(name, ())}
    parameters = operation.get("parameters", ())
    if parameters or "requestBody" in operation:
        found.add(400)
    if any(parameter["in"] == "path" for parameter in parameters):
        found.add(404)
    if "Emulator" not in operation["tags"]:
        found.add(403)
    return sorted(found)
