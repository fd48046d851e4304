"""A pipeline of one's own against a local Celonis: what arrived, and what happens on a bad day."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import requests

if TYPE_CHECKING:
    from celonis_emulator.testing import Emulator, EmulatorFactory


def push_orders(emulator: Emulator, orders: list[dict[str, Any]]) -> str:
    """Push orders as the pipeline under test would; return how the push job ended."""
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {emulator.api_key}"
    pool = emulator.data_pool_id
    jobs = f"{emulator.url}/data-ingestion/api/v1/data-push/{pool}/jobs"
    body = {"targetName": "orders", "type": "DELTA", "dataPoolId": pool, "keys": ["id"]}
    job = f"{jobs}/{session.post(f'{jobs}/', json=body, timeout=10).json()['id']}"
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(orders), file)
    session.post(f"{job}/chunks/upserted", files={"file": file.getvalue()}, timeout=10)
    while session.post(job, timeout=10).status_code in {429, 503}:
        time.sleep(0.01)
    while (status := session.get(job, timeout=10).json()["status"]) in {"QUEUED", "RUNNING"}:
        time.sleep(0.01)
    return str(status)


def test_orders_arrive_once(celonis_emulator: Emulator) -> None:
    """A second push of the same orders changes nothing."""
    orders = [{"id": 1, "amount": 9.5}, {"id": 2, "amount": 20.0}]
    for _ in range(2):
        assert push_orders(celonis_emulator, orders) == "DONE"
    arrived = celonis_emulator.query('SELECT id, amount FROM "sales"."orders" ORDER BY id')
    assert arrived == [(1, 9.5), (2, 20.0)]
    assert [job["truncated_values"] for job in celonis_emulator.push_jobs("orders")] == [0, 0]


def test_a_bad_day(celonis_emulator_factory: EmulatorFactory) -> None:
    """The server is busy at first; the pipeline tries again, and submits its job once."""
    emulator = celonis_emulator_factory(pool="sales", profile="harsh", delta_missing_table="create")
    emulator.add_fault("execute_job", answer=503, times=2)
    assert push_orders(emulator, [{"id": 1, "amount": 9.5}]) == "DONE"
    assert [fault["fired"] for fault in emulator.faults()] == [2]
    assert [job["submits"] for job in emulator.push_jobs("orders")] == [1]


def test_a_job_that_fails(celonis_emulator_factory: EmulatorFactory) -> None:
    """The pipeline notices that its job was cancelled."""
    emulator = celonis_emulator_factory()
    emulator.add_fault(job={"table": "orders", "status": "CANCELED"})
    assert push_orders(emulator, [{"id": 1, "amount": 9.5}]) == "CANCELED"
    assert emulator.tables() == []
