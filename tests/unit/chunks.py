"""Chunks made by hand, for the tests of what reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from target_celonis.spool import Chunk, ChunkWriter, read_row_groups
from target_celonis.table import Column, TablePlan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from target_celonis.kinds import Kind


def plan_of(kinds: dict[str, Kind], *keys: str) -> TablePlan:
    return TablePlan(
        "s",
        "t",
        tuple(Column(name, name, kind, None, name in keys) for name, kind in kinds.items()),
    )


def batch_of(plan: TablePlan, rows: Sequence[dict[str, Any]]) -> Any:
    return pa.RecordBatch.from_pylist(list(rows), schema=plan.arrow_schema)


def write(
    directory: Path,
    plan: TablePlan,
    batches: Sequence[Sequence[dict[str, Any]]],
    limit: int = 1_000_000,
    encoding: str = "int96",
) -> tuple[Chunk, ...]:
    writer = ChunkWriter(directory, plan, limit, encoding)
    for rows in batches:
        writer.add(batch_of(plan, rows))
    return writer.finish()


def read(chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    return [
        row for chunk in chunks for table in read_row_groups(chunk) for row in table.to_pylist()
    ]
