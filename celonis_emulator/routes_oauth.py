"""The token endpoint.

Hides: in which of its three forms a token request comes. Guarantees: parameters of the body go
before those of the address; every refusal has the shape of RFC 6749; no answer may be cached.
Must not know: keys, pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException

from celonis_emulator.oauth import OAuthServer, refused

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PARAMETERS = 100

_FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            media_type: {
                "schema": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string"}
                        for name in ("grant_type", "scope", "client_id", "client_secret")
                    },
                }
            }
            for media_type in ("application/x-www-form-urlencoded", "multipart/form-data")
        }
    }
}


def oauth_routes(server: OAuthServer) -> APIRouter:
    """Return the token endpoint."""
    routes = APIRouter(tags=["OAuth"])

    @routes.post("/oauth2/token", openapi_extra=_FORM_BODY)
    async def get_token(request: Request) -> JSONResponse:
        """Give an OAuth client a token (client credentials)."""
        try:
            # Neither a file nor an endless list belongs into a token request.
            async with request.form(max_files=0, max_fields=MAX_PARAMETERS) as form:
                parameters = _once(request.query_params.multi_items())
                parameters |= _once(form.multi_items())
        except (HTTPException, FormParserError) as error:
            raise refused(400, "invalid_request", "The body cannot be read.") from error
        answer = server.grant(parameters, request.headers.get("authorization"))
        return JSONResponse(answer, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})

    return routes


def _once(items: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return parameters by name; RFC 6749 lets each come once."""
    found: dict[str, str] = {}
    for name, value in items:
        if name in found:
            # The name is the caller's: it may hold anything, and is not repeated.
            raise refused(400, "invalid_request", "A parameter is given more than once.")
        found[name] = str(value)
    return found
