"""What a caller may do in which pool, and routes that ask for it.

Hides: which OAuth scope permits what; in what order a refusal is decided. Guarantees: a caller may
do what its permissions and, for a token, its scopes both permit; who lacks the scope does not learn
whether a pool is there. Must not know: how a caller was recognised, where pools are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from fastapi import Depends, Request

from celonis_emulator.refusals import forbidden, not_found
from celonis_emulator.setup import EVERY_POOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celonis_emulator.switches import Switches


class Right(StrEnum):
    """Something that not every caller may do; the values are the words of the set-up file."""

    READ = "read"
    """Look at a pool: its connections, tables, data models and data jobs."""
    EDIT = "edit"
    """Load a data model."""
    PUSH = "push"
    """Use the Data Push API."""
    MANAGE = "manage"
    """Execute a data job, together with READ."""


NOTHING: Final = frozenset[Right]()
EVERYTHING: Final = frozenset(Right)
EVERYWHERE: Final[Mapping[str, frozenset[Right]]] = {EVERY_POOL: EVERYTHING}

SCOPES: Final[dict[str, frozenset[Right]]] = {
    "integration.data-pools": EVERYTHING,
    "integration.data-pools:data_push": frozenset({Right.PUSH}),
    "integration.data-pools:read": frozenset({Right.READ}),
}
"""What each scope permits; any other one permits nothing here."""


def rights_of(scopes: Iterable[str]) -> frozenset[Right]:
    """Return what scopes permit together."""
    return NOTHING.union(*(SCOPES.get(scope, NOTHING) for scope in scopes))


@dataclass(frozen=True)
class Caller:
    """A caller who was recognised.

    Attributes:
        kind: ``api_key``, ``app_key`` or ``oauth``.
        permissions: What it was given, by pool id or for every pool.
        scope_rights: What the scopes of its token let through; a key has no scopes.
    """

    kind: str
    permissions: Mapping[str, frozenset[Right]]
    scope_rights: frozenset[Right] = EVERYTHING

    def permitted(self, pool_id: str) -> frozenset[Right]:
        """Return the permissions on a pool, whatever the scopes."""
        return self.permissions.get(pool_id, NOTHING) | self.permissions.get(EVERY_POOL, NOTHING)

    def may(self, right: Right, pool_id: str) -> bool:
        """Say whether the caller may do this in a pool."""
        return right in self.permitted(pool_id) & self.scope_rights

    @property
    def rights(self) -> frozenset[Right]:
        """What the caller may do in one pool or another."""
        return NOTHING.union(*self.permissions.values()) & self.scope_rights


class Doors:
    """Decides who is let in to which pool.

    Args:
        known: Says whether there is a pool of this id.
        switches: What is told to who has no right on a pool; who may list tables.
    """

    def __init__(self, known: Callable[[str], bool], switches: Switches) -> None:
        self._known = known
        self._hides = switches.hidden_pools == "404"
        self._listing = switches.listing_permission

    def admit(
        self, caller: Caller, right: Right, pool_id: str | None, instead: Right | None = None
    ) -> None:
        """Let a caller in to a pool or, without one, to what belongs to the team.

        Args:
            caller: Who.
            right: What the scopes must permit, and the permissions on the pool.
            pool_id: Of which pool.
            instead: A permission that does as well.

        Raises:
            Refusal: 403, or 404 for a pool that is not there or is hidden.
        """
        if right not in caller.scope_rights:
            would_do = " or ".join(scope for scope, rights in SCOPES.items() if right in rights)
            raise forbidden(f"The token lacks the scope {would_do}.")
        if pool_id is None:
            return
        permitted = caller.permitted(pool_id)
        if not self._known(pool_id) or (self._hides and not permitted):
            raise not_found(f"There is no data pool {pool_id}.")
        if not permitted & {right, instead or right}:
            raise forbidden(f"The caller lacks the permission {right} on the data pool {pool_id}.")

    def admit_to_listing(self, caller: Caller, pool_id: str) -> None:
        """Let a caller in to the listings of a pool's tables and columns.

        Raises:
            Refusal: 403, or 404 for a pool that is not there or is hidden.
        """
        instead = Right.PUSH if self._listing == "push" else None
        self.admit(caller, Right.READ, pool_id, instead)
        if self._listing == "none":
            raise forbidden("Nobody may list the tables of the data pool.")


# The gate has seen to it that there is a caller; the application holds the doors.


def needs(*rights: Right) -> Any:
    """Return a dependency of routes: only callers with all these rights are let in.

    The pool is the one in the path, if the path has one; one that is not there answers 404.
    """

    def check(request: Request) -> None:
        for right in rights:
            pool_id = request.path_params.get("pool_id")
            request.app.state.doors.admit(request.state.caller, right, pool_id)

    return Depends(check)


def needs_listing() -> Any:
    """Return a dependency of the routes that list a pool's tables and columns."""

    def check(request: Request) -> None:
        pool_id = request.path_params["pool_id"]
        request.app.state.doors.admit_to_listing(request.state.caller, pool_id)

    return Depends(check)
