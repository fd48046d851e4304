"""What Celonis refuses, and the JSON in which it says so.

Hides: the three error shapes seen on the wire (validation, gateway, service with a reference).
Guarantees: every refusal carries its HTTP status, body and headers; a message never holds a key.
Must not know: the web framework, jobs, DuckDB.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

JsonBody = dict[str, Any]

_STATUSES = frozenset(int(status) for status in HTTPStatus)
_OF_A_SERVICE = frozenset({HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR})
_GATEWAY_CODES = {
    403: "ADMIN_ACCESS_ERROR",
    404: "GENERAL_NOTFOUND_PATH",
    413: "GENERAL_PAYLOAD_TOO_LARGE",
    429: "LIMIT_RATE_EXCEEDED",
}


class Refusal(Exception):  # noqa: N818
    """A request that is answered with an error."""

    def __init__(
        self, status: int, body: JsonBody, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


def _gateway(status: int, title: str, detail: str, code: str) -> JsonBody:
    return {"title": title, "status": status, "detail": detail, "errorCode": code}


def validation_body(problems: list[tuple[str, str, str]]) -> JsonBody:
    """Return the body of a 400 from (attribute, error, error code) triples."""
    return {
        "errors": [
            {"attribute": attribute, "error": error, "errorCode": code, "additionalInfo": None}
            for attribute, error, code in problems
        ]
    }


def sentence_of(message: str) -> str:
    """Return a message of the validation of bodies as a sentence."""
    if message.startswith("Extra inputs"):
        return "There is no such field."
    message = message.removeprefix("Value error, ")
    return message if message.endswith((".", "?", "!")) else f"{message}."


def invalid(attribute: str, error: str, code: str = "INVALID_VALUE") -> Refusal:
    """Refuse a value of the request: 400."""
    return Refusal(400, validation_body([(attribute, error, code)]))


def unauthorized() -> Refusal:
    """Refuse a request without a valid key: 401."""
    return Refusal(401, {"error": "Unauthorized"})


def forbidden(detail: str) -> Refusal:
    """Refuse a caller without the permission: 403."""
    return Refusal(403, _gateway(403, "Forbidden", detail, "ADMIN_ACCESS_ERROR"))


def not_found(detail: str) -> Refusal:
    """Say that an object or a path does not exist: 404."""
    return Refusal(404, _gateway(404, "Not Found", detail, "GENERAL_NOTFOUND_PATH"))


def conflict(message: str) -> Refusal:
    """Refuse a submit while another job is at work: 409."""
    return Refusal(409, _service(message))


def too_large(limit_bytes: int) -> Refusal:
    """Refuse a chunk above the size limit: 413."""
    detail = f"The file is larger than {limit_bytes} bytes."
    return Refusal(413, _gateway(413, "Payload Too Large", detail, "GENERAL_PAYLOAD_TOO_LARGE"))


def too_many(detail: str, headers: Mapping[str, str]) -> Refusal:
    """Refuse a submit above the rate limit: 429."""
    body = _gateway(429, "Too Many Requests", detail, "LIMIT_RATE_EXCEEDED")
    return Refusal(429, body, headers)


def internal(message: str) -> Refusal:
    """Answer 500 the way the service does, with a reference for its support."""
    return Refusal(500, _service(message))


def usual_body(status: int) -> JsonBody:
    """Return the body that an error of this status usually has."""
    phrase = HTTPStatus(status).phrase if status in _STATUSES else "Error"
    if status == HTTPStatus.UNAUTHORIZED:
        return unauthorized().body
    if status in _OF_A_SERVICE:
        return _service(f"{phrase}.")
    code = _GATEWAY_CODES.get(status, f"GENERAL_{status}")
    return _gateway(status, phrase, phrase, code)


def _service(message: str) -> JsonBody:
    return {"reference": str(uuid.uuid4()), "message": message, "shortMessage": message[:80]}
