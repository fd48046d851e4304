"""Data models: listings, loads and how they stand.

Hides: paths and shapes of these answers, public and internal ones. Guarantees: looking needs READ,
loading EDIT on the pool. Must not know: how a load is done.
"""

# ruff: noqa: C901, TC001 - annotations are read at run time; one function binds all routes
from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from celonis_emulator.columns import Column
from celonis_emulator.models import DataModels
from celonis_emulator.queryvalues import blank_is
from celonis_emulator.rights import Right, needs
from celonis_emulator.setup import DataModel, ModelTable
from celonis_emulator.warehouse import Warehouse, find_table, schema_name, table_columns

_POOL = "/integration/api/pools/{pool_id}"
_PUBLIC = "/integration/api/v1/data-pools/{pool_id}/data-models/{model_id}"


def model_routes(warehouse: Warehouse, models: DataModels) -> APIRouter:
    """Return the routes of data models."""
    routes = APIRouter(tags=["Data models"])
    looking, loading = [needs(Right.READ)], [needs(Right.EDIT)]

    def listed_tables(pool_id: str, model_id: str) -> list[dict[str, Any]]:
        model = models.get(pool_id, model_id)
        shown = []
        with warehouse.reading() as cursor:
            for table in model.tables:
                found = find_table(cursor, schema_name(pool_id, table.connection_id), table.name)
                columns = table_columns(cursor, found) if found else []
                shown.append(_shown_table(model, table, columns))
        return shown

    @routes.get(_POOL + "/data-models", dependencies=looking)
    def list_models(
        pool_id: str, limit: Annotated[int | None, Query(ge=0), blank_is(None)] = None
    ) -> list[dict[str, Any]]:
        """List the data models of a pool."""
        found = models.of_pool(pool_id)
        # Nobody asks for none; 0 stands for no limit.
        return [_shown_model(model) for model in found[: limit or None]]

    @routes.get(_POOL + "/data-models/{model_id}", dependencies=looking)
    def get_model(pool_id: str, model_id: str) -> dict[str, Any]:
        """Show a data model."""
        return _shown_model(models.get(pool_id, model_id))

    @routes.get(_POOL + "/data-model/{model_id}/tables", dependencies=looking)
    def list_model_tables(pool_id: str, model_id: str) -> list[dict[str, Any]]:
        """List the tables of a data model; the path has ``data-model`` in the singular."""
        return listed_tables(pool_id, model_id)

    @routes.get(_PUBLIC + "/tables", dependencies=looking)
    def list_public_model_tables(pool_id: str, model_id: str) -> list[dict[str, Any]]:
        """List the tables of a data model."""
        return listed_tables(pool_id, model_id)

    @routes.post(_PUBLIC + "/load", dependencies=loading)
    def load_model(pool_id: str, model_id: str) -> Response:
        """Load all tables of a data model."""
        models.load(pool_id, model_id, "COMPLETE")
        return Response()

    @routes.post(_PUBLIC + "/load/partial-sync", dependencies=loading)
    def load_model_partially(
        pool_id: str,
        model_id: str,
        table_ids: Annotated[list[str], Body()],
        full_reload: Annotated[  # noqa: ARG001
            bool | None, Query(alias="fullReload"), blank_is(None)
        ] = None,
    ) -> Response:
        """Load some tables of a data model, by their ids; the others stay as they are."""
        models.load(pool_id, model_id, "PARTIAL", table_ids)
        return Response()

    @routes.get(_PUBLIC + "/last-load", dependencies=looking)
    def get_last_load(pool_id: str, model_id: str) -> dict[str, Any]:
        """Show the newest load of a data model."""
        load = models.last_load(pool_id, model_id)
        return load.shown() if load else {}

    @routes.post(_POOL + "/data-models/{model_id}/reload", dependencies=loading)
    def reload_model(
        pool_id: str,
        model_id: str,
        *,
        force_complete: Annotated[
            bool, Query(alias="forceComplete"), blank_is(default=False)
        ] = False,
    ) -> Response:
        """Load a data model: all tables, or from the cache."""
        models.load(pool_id, model_id, "COMPLETE" if force_complete else "FROM_CACHE")
        return Response()

    @routes.get(_POOL + "/data-models/{model_id}/load-history/load-info-sync", dependencies=looking)
    def get_load_info(pool_id: str, model_id: str) -> dict[str, Any]:
        """Show how the loads of a data model stand."""
        return models.load_info(pool_id, model_id)

    return routes


def _shown_model(model: DataModel) -> dict[str, Any]:
    return {"id": model.id, "name": model.name, "poolId": model.pool_id}


def _shown_table(model: DataModel, table: ModelTable, columns: list[Column]) -> dict[str, Any]:
    return {
        "id": table.id,
        "dataModelId": model.id,
        "dataSourceId": table.connection_id,
        "name": table.name,
        "alias": table.alias,
        "aliasOrName": table.alias or table.name,
        "columns": [{"name": c.name, "type": c.type, "primaryKey": False} for c in columns],
        "primaryKeys": [],
        "useDirectStorage": False,
    }
