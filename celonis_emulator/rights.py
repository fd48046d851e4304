"""What a caller may do, and routes that ask for it.

Hides: which OAuth scope permits what. Guarantees: a key may do everything, a token what its scopes
permit; a refusal names the scopes that would do. Must not know: how a caller was recognised.

A scope never grants a permission of its own: it only narrows what its client may do.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from fastapi import Depends, Request

from celonis_emulator.refusals import forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable


class Right(StrEnum):
    """Something that not every caller may do."""

    READ = "read"
    """Look at the team, its pools and their tables."""
    PUSH = "push"
    """Use the Data Push API."""


EVERYTHING: Final = frozenset(Right)

SCOPES: Final[dict[str, frozenset[Right]]] = {
    "integration.data-pools": EVERYTHING,
    "integration.data-pools:data_push": frozenset({Right.PUSH}),
    "integration.data-pools:read": frozenset({Right.READ}),
}
"""What each scope permits; any other one permits nothing here."""


def rights_of(scopes: Iterable[str]) -> frozenset[Right]:
    """Return what scopes permit together."""
    return frozenset[Right]().union(*(SCOPES.get(scope, frozenset()) for scope in scopes))


def needs(right: Right) -> Any:
    """Return a dependency of routes: callers without ``right`` are answered 403."""
    would_do = " or ".join(scope for scope, rights in SCOPES.items() if right in rights)

    def check(request: Request) -> None:
        # The gate has seen to it that there is a caller.
        if right not in request.state.caller.rights:
            raise forbidden(f"The token lacks the scope {would_do}.")

    return Depends(check)
