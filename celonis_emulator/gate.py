"""What happens to every request before a route sees it.

Hides: path clean-up, missing prefixes, faults, the key check, bodies read ahead and to their end,
the count of requests. Guarantees: a refused upload is read to its end first, so that the client
sees the answer and not a broken connection; the emulator's own endpoints meet no faults.
Must not know: jobs, pools, the web framework's routes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from celonis_emulator.jsonbody import is_json, read_ahead
from celonis_emulator.misfortune import Misfortune
from celonis_emulator.refusals import Refusal, not_found, unauthorized
from celonis_emulator.wording import worded

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from celonis_emulator.faults import Faults
    from celonis_emulator.identity import Identities

# Whoever asks for a token says so in a way of its own.
OPEN_PATHS = frozenset({"/openapi.json", "/docs", "/oauth2/token"})
OWN_PATHS = "/_emulator/"
# Paths are the client's to choose; a count must not grow without end.
COUNTED_PATHS = 1000
_JOB_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATA_PUSH = re.compile(r"^/([^/]+)/api/v1/data-push(?:/|$)")


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        identities: Identities,
        prefixes: Iterable[str],
        requests: Counter[tuple[str, str]],
        faults: Faults,
        error_bodies: str,
    ) -> None:
        self._app = app
        self._error_bodies = error_bodies
        self._identities = identities
        self._prefixes = frozenset(prefixes)
        self._requests = requests
        self._faults = faults
        self._misfortune = Misfortune(self._handle, identities.oauth.forget_tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = re.sub(r"/{2,}", "/", scope["path"])
        scope["path"] = path.rstrip("/") or "/"
        # Routing looks at path alone; a stale raw path would only mislead.
        scope["raw_path"] = scope["path"].encode()
        self._count(scope["method"], scope["path"])
        own = scope["path"].startswith(OWN_PATHS)
        if own:
            # These take JSON and nothing else; curl calls a body something else unless told.
            named = (h for h in scope["headers"] if h[0].lower() != b"content-type")
            scope["headers"] = [*named, (b"content-type", b"application/json")]
        fault = None if own else self._faults.of_call(scope["method"], scope["path"])
        if fault is None:
            await self._handle(scope, receive, send)
        else:
            await self._misfortune.meet(fault, scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        drained = _Drained(receive, worded(self._error_bodies, scope["path"], send))
        channel: Receive = drained.receive
        try:
            self._admit(scope)
            if is_json(scope):
                channel = await read_ahead(channel)
        except Refusal as refusal:
            answer = JSONResponse(refusal.body, refusal.status, refusal.headers)
            await answer(scope, drained.receive, drained.send)
        else:
            await self._app(scope, channel, drained.send)

    def _count(self, method: str, path: str) -> None:
        counted = (method, _JOB_ID.sub("{id}", path))
        if counted not in self._requests and len(self._requests) >= COUNTED_PATHS:
            counted = (method, "(other)")
        self._requests[counted] += 1

    def _admit(self, scope: Scope) -> None:
        if scope["path"] in OPEN_PATHS:
            return
        headers = dict(scope["headers"])
        caller = self._identities.caller(headers.get(b"authorization"))
        if caller is None:
            raise unauthorized()
        scope.setdefault("state", {})["caller"] = caller
        push = _DATA_PUSH.match(scope["path"])
        if push and push.group(1) not in self._prefixes:
            raise not_found("There is nothing at this path.")


class _Drained:
    """A request's channel that reads what is left of the body before the answer starts."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._ended = True
        return message

    async def send(self, message: Message) -> None:
        while message["type"] == "http.response.start" and not self._ended:
            await self.receive()
        await self._send(message)
