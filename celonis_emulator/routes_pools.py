"""The read side of a team: user, pools, connections, tables and columns.

Hides: paths and shapes of these answers. Guarantees: nothing here changes anything, and nothing
counts a table's rows: Celonis has no such call. Must not know: push jobs.
"""

# ruff: noqa: C901, TC001 - annotations are read at run time; one function binds all routes
from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from celonis_emulator.ledger import Ledger
from celonis_emulator.refusals import not_found
from celonis_emulator.rights import Right, needs, needs_listing
from celonis_emulator.setup import Connection, Pool
from celonis_emulator.warehouse import (
    Warehouse,
    find_table,
    pool_tables,
    schema_name,
    table_columns,
)


def pool_routes(warehouse: Warehouse, ledger: Ledger) -> APIRouter:
    """Return the routes of the team and its pools."""
    routes = APIRouter(tags=["Pools"])
    looking, listing = [needs(Right.READ)], [needs_listing()]

    def known_pool(pool_id: str) -> Pool:
        for pool in ledger.pools():
            if pool.id == pool_id:
                return pool
        msg = f"There is no data pool {pool_id}."
        raise not_found(msg)

    def connections_of(pool_id: str) -> list[Connection]:
        known_pool(pool_id)
        return [c for c in ledger.connections() if c.pool_id == pool_id]

    @routes.get("/api/cloud", dependencies=looking)
    def get_user() -> dict[str, Any]:
        """Show the caller."""
        return {"id": "emulator", "name": "Emulator", "email": "emulator@localhost"}

    @routes.get("/api/cloud/permissions", dependencies=looking)
    def list_permissions(request: Request) -> list[dict[str, Any]]:
        """List the caller's permissions by service: those on one pool or another."""
        permissions = sorted(right.upper() for right in request.state.caller.rights)
        return [{"serviceName": "integration", "permissions": permissions}] if permissions else []

    @routes.get("/api/team", dependencies=looking)
    def get_team() -> dict[str, Any]:
        """Show the team."""
        return {"id": "emulator", "name": "Emulator", "trackingEnabled": False}

    @routes.get("/integration/api/pools", dependencies=looking)
    def list_pools(request: Request) -> list[dict[str, Any]]:
        """List the data pools that the caller may read."""
        may = request.state.caller.may
        return [_shown_pool(pool) for pool in ledger.pools() if may(Right.READ, pool.id)]

    @routes.get("/integration/api/pools/{pool_id}", dependencies=looking)
    def get_pool(pool_id: str) -> dict[str, Any]:
        """Show a data pool."""
        return _shown_pool(known_pool(pool_id))

    @routes.get("/integration/api/pools/{pool_id}/data-sources", dependencies=looking)
    def list_data_sources(pool_id: str) -> list[dict[str, Any]]:
        """List the data connections of a pool."""
        return [_shown_connection(connection) for connection in connections_of(pool_id)]

    @routes.get(
        "/integration/api/pools/{pool_id}/data-sources/{data_source_id}", dependencies=looking
    )
    def get_data_source(pool_id: str, data_source_id: str) -> dict[str, Any]:
        """Show a data connection."""
        for connection in connections_of(pool_id):
            if connection.id == data_source_id:
                return _shown_connection(connection)
        msg = f"There is no data connection {data_source_id} in the pool."
        raise not_found(msg)

    @routes.get("/integration/api/pools/{pool_id}/tables", dependencies=listing)
    def list_tables(pool_id: str) -> list[dict[str, Any]]:
        """List the tables of a pool: the global ones and those of its connections."""
        connections = connections_of(pool_id)
        owners: list[Connection | None] = [None, *connections]
        listed: list[dict[str, Any]] = []
        with warehouse.reading() as cursor:
            for owner in owners:
                schema = schema_name(pool_id, owner.id if owner else None)
                listed += [
                    {
                        "name": table.name,
                        "loaderSource": None,
                        "available": False,
                        "dataSourceId": owner.id if owner else None,
                        "dataSourceName": owner.name if owner else None,
                        "columns": [],
                        "type": table.kind,
                        "schemaName": schema,
                    }
                    for table in pool_tables(cursor, schema)
                ]
        return listed

    @routes.get("/integration/api/pools/{pool_id}/columns", dependencies=listing)
    def list_columns(
        pool_id: str,
        table_name: Annotated[str, Query(alias="tableName")],
        data_source_id: Annotated[str | None, Query(alias="schemaName")] = None,
    ) -> list[dict[str, Any]]:
        """List the columns of a table; ``schemaName`` is the id of its data connection."""
        with warehouse.reading() as cursor:
            table = find_table(cursor, schema_name(pool_id, data_source_id or None), table_name)
            columns = table_columns(cursor, table) if table else []
        return [{"name": c.name, "length": c.listed_length, "type": c.listed_type} for c in columns]

    return routes


def _shown_pool(pool: Pool) -> dict[str, Any]:
    return {"id": pool.id, "name": pool.name}


def _shown_connection(connection: Connection) -> dict[str, Any]:
    return {
        "id": connection.id,
        "name": connection.name,
        "poolId": connection.pool_id,
        "type": "CUSTOM",
        "targetSchemaName": schema_name(connection.pool_id, connection.id),
    }
