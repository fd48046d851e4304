"""``--dry-run``: everything but speaking to Celonis."""

from __future__ import annotations

import json
import os
import re
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .harness import (
    Ended,
    Target,
    lines,
    message,
    record,
    rows,
    schema,
    state,
    syncing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROPERTIES: dict[str, Any] = {
    "id": {"type": "integer"},
    "short": {"type": ["null", "string"]},
    "long": {"type": ["null", "string"], "maxLength": 3000},
    "at": {"type": ["null", "string"], "format": "date-time"},
    "day": {"type": ["null", "string"], "format": "date"},
    "price": {"type": ["null", "number"]},
    "good": {"type": ["null", "boolean"]},
    "rest": {"type": ["null", "object"]},
}


class DryTarget:
    """The program with ``--dry-run``, in a place where nothing can be sent.

    Args:
        target: Without settings that a dry run does not need.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        target.prints_states = False
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"  # closed when it is asked
        self.temporary = target.directory / "tmp"
        self.temporary.mkdir()
        self.environment = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere)
        self.environment["TMPDIR"] = str(self.temporary)

    def run(self, *messages: bytes, **settings: Any) -> Ended:
        """Run to any end; without a ``spool_dir``, nothing may be left anywhere."""
        settings = {"spool_dir": None} | settings
        data = lines(*messages)
        ended = self.target.run(data, "--dry-run", environment=self.environment, **settings)
        assert b'{"' not in ended.out  # no state
        left = [path for path in self.temporary.rglob("*") if path.is_file()]
        assert left == []
        return ended

    def plan(self, *messages: bytes, **settings: Any) -> str:
        """Run, and expect it to go well; return what is printed."""
        ended = self.run(*messages, **settings)
        assert ended.code == 0, ended.err
        return ended.out.decode()

    def fail(self, code: int, error: str, *messages: bytes, **settings: Any) -> Ended:
        """Run, and expect it to fail so."""
        ended = self.run(*messages, **settings)
        assert (ended.code, ended.last_words.split()[1]) == (code, f"[{error}]"), ended.err
        assert ended.out == b""
        return ended


@pytest.fixture
def dry(make_target: Callable[..., Target]) -> DryTarget:
    return DryTarget(make_target())


def columns(plan: str) -> dict[str, str]:
    """Return the columns of a plan for one table: type by name."""
    _, _, after = plan.partition("  columns\n")
    return dict(re.findall(r"^    (\S+) +(\S+)$", after, re.MULTILINE))


def test_the_plan(dry: DryTarget) -> None:
    values = {
        "short": "ü" * 200,
        "long": "x",
        "at": "2024-01-01T00:00:00Z",
        "day": "2024-01-01",
        "price": 0.5,
        "good": True,
        "rest": {"a": 1},
    }
    plan = dry.plan(
        schema("orders", PROPERTIES),
        record("orders", id=1, **values),
        record("orders", id=1, **values | {"price": 1.5}),
        record("orders", id=2, **values),
        state({"orders": 2}),
        schema("log", keys=()),
        *rows("log", range(4)),
        state({"log": 4}),
    )
    orders, log = plan.split("stream log -> ")
    assert orders.startswith("stream orders -> table orders\n")
    assert re.search(r"push job +DELTA, keys: id\n", orders)
    assert re.search(r"rows +2, and 1 older version", orders)
    assert re.search(r"chunks +1, [0-9.]+ MB\n", orders)
    assert re.search(r"submits +1\n", orders)
    assert columns(orders) == {
        "id": "INTEGER",
        "short": "STRING(1000)",
        "long": "STRING(4000)",
        "at": "DATETIME",
        "day": "DATE",
        "price": "FLOAT",
        "good": "BOOLEAN",
        "rest": "STRING(255)",
    }
    assert log.startswith("table log\n")
    assert re.search(r"push job +DELTA, keys: none\n", log)
    assert re.search(r"rows +4, ", log)
    assert plan.endswith("2 push jobs in all. Nothing was sent to Celonis.\n")


def test_an_overwrite_and_a_table_of_another_name(dry: DryTarget) -> None:
    rules = [{"match": "*", "table": "its_{stream}", "load_method": "overwrite"}]
    plan = dry.plan(schema("a"), *rows("a", range(3)), syncing(None), streams=rules)
    assert "stream a -> table its_a\n" in plan
    assert re.search(r"push job +REPLACE, ", plan)


def test_no_input_is_no_job(dry: DryTarget) -> None:
    assert dry.plan() == "0 push jobs in all. Nothing was sent to Celonis.\n"
    # No row came, and nothing would be pushed.
    assert dry.plan(schema("a"), state({})).startswith("0 push jobs")


def test_settings_of_a_load_do_not_matter(dry: DryTarget) -> None:
    """Also: what is set for Celonis is neither asked nor shown."""
    settings = {"base_url": "http://127.0.0.1:9", "data_pool_id": "p", "api_key": "not-to-be-seen"}
    ended = dry.run(schema("a"), *rows("a", range(3)), **settings)
    assert ended.code == 0, ended.err
    assert "not-to-be-seen" not in ended.err + ended.out.decode()
    database = dry.target.directory / "celonis.duckdb"
    dry.plan(schema("a"), *rows("a", range(3)), base_url="embedded")
    assert not database.exists()


def kept(spool: Path) -> dict[str, list[Path]]:
    """Return the chunks in a spool directory by table, and see that nothing else is there."""
    found: dict[str, list[Path]] = {}
    for path in sorted(spool.rglob("*")):
        if path.is_file() and path != spool / "locks":  # which loads leave there
            assert path.suffix == ".parquet", path
            found.setdefault(path.parent.name, []).append(path)
    return found


def test_chunks_are_kept_where_spool_dir_is_set(dry: DryTarget, tmp_path: Path) -> None:
    spool = tmp_path / "kept"
    at = "2024-02-29T12:34:56.789012+02:00"
    printed = dry.plan(
        schema("orders", PROPERTIES),
        record("orders", id=1, short="old"),
        record("orders", id=2, short=None, at=at, day="2024-02-29", price=1, rest={"a": [1]}),
        record("orders", id=1, short="new", good=False),
        schema("log", keys=()),
        *rows("log", range(3)),
        spool_dir=str(spool),
    )
    assert str(spool) in printed
    chunks = kept(spool)
    assert {table: len(paths) for table, paths in chunks.items()} == {"orders": 1, "log": 1}
    orders = pq.read_table(chunks["orders"][0]).sort_by("id")
    assert orders.schema.names == list(PROPERTIES)
    types = dict(zip(orders.schema.names, orders.schema.types, strict=True))
    assert (types["id"], types["price"], types["good"]) == (pa.int64(), pa.float64(), pa.bool_())
    assert types["day"] == pa.date32()
    assert pa.types.is_timestamp(types["at"])
    assert {str(types[name]) for name in ("short", "long", "rest")} <= {"string", "large_string"}
    # All null, and typed all the same.
    assert orders["long"].null_count == 2
    assert orders["short"].to_pylist() == ["new", None]
    assert [text and json.loads(text) for text in orders["rest"].to_pylist()] == [None, {"a": [1]}]
    (_, stamp) = orders["at"].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    assert stamp == 1_709_202_896_789_012
    assert sorted(pq.read_table(chunks["log"][0])["id"].to_pylist()) == [0, 1, 2]


def test_kept_chunks_are_for_their_owner_alone(dry: DryTarget, tmp_path: Path) -> None:
    spool = tmp_path / "kept"
    dry.plan(schema("a"), *rows("a", range(3)), spool_dir=str(spool))
    paths = [spool, *spool.rglob("*")]
    assert len(paths) == 4
    assert {path: path.stat().st_mode & 0o077 for path in paths} == dict.fromkeys(paths, 0)


def test_runs_do_not_mix(dry: DryTarget, tmp_path: Path) -> None:
    """Also: a load that comes later leaves them alone."""
    spool = str(tmp_path / "kept")
    for _ in range(2):
        dry.plan(schema("a"), *rows("a", range(3)), spool_dir=spool)
    assert len(os.listdir(spool)) == 2  # noqa: PTH208 - names are enough
    dry.target.prints_states = True
    dry.target.load(schema("a"), *rows("a", range(3)), spool_dir=spool, base_url="embedded")
    assert len(kept(tmp_path / "kept")["a"]) == 2


def test_checkpoints_and_chunks_are_planned_as_they_would_be_pushed(
    dry: DryTarget, tmp_path: Path
) -> None:
    text = "0123456789" * 100
    data = [record("a", id=n, text=f"{n}{text}") for n in range(5000)]
    data[2500:2500] = [state({"at": 2500})]
    spool = tmp_path / "kept"
    settings = {"checkpoint_interval_minutes": 0.0001, "spool_dir": str(spool)}
    plan = dry.plan(schema("a"), *data, state({"at": 5000}), **settings)
    jobs = plan.count("submits    1")
    assert jobs >= 1
    assert f"{jobs} push jobs in all." in plan
    planned = sum(int(number) for number in re.findall(r"rows +(\d+), ", plan))
    chunks = sum(int(number) for number in re.findall(r"chunks +(\d+), ", plan))
    paths = kept(spool)["a"]
    assert (planned, chunks) == (5000, len(paths))
    assert sum(pq.read_metadata(path).num_rows for path in paths) == 5000
    assert len({str(pq.read_schema(path)) for path in paths}) == 1


@pytest.mark.parametrize("stream", ["../../up", "/tmp/abs", "a/b", "..", "."])  # noqa: S108
def test_a_name_does_not_lead_out_of_the_directory(
    dry: DryTarget, tmp_path: Path, stream: str
) -> None:
    outside = tmp_path / "outside"
    spool = outside / "deeper" / "kept"
    ended = dry.run(schema(stream), *rows(stream, range(3)), spool_dir=str(spool))
    assert ended.code == 0, ended.err
    paths = [path for path in tmp_path.rglob("*.parquet")]  # noqa: C416 - one look
    assert len(paths) == 1
    assert paths[0].parent.parent.parent == spool
    assert paths[0].resolve() == paths[0]


TOO_LONG = record("a", id=1, text="x" * 16_251)
BAD: dict[str, tuple[int, str, list[bytes], dict[str, Any]]] = {
    "no JSON": (4, "TC-INPUT-01", [schema("a"), b"nothing"], {}),
    "no schema": (4, "TC-INPUT-05", rows("a", [1]), {}),
    "null key": (4, "TC-INPUT-07", [schema("a"), record("a", id=None, text="x")], {}),
    "wrong value": (4, "TC-INPUT-08", [schema("a"), record("a", id="one", text="x")], {}),
    "unproven": (4, "TC-INPUT-10", [schema("a"), *rows("a", [1])], {"load_method": "overwrite"}),
    "a batch": (4, "TC-INPUT-11", [schema("a"), message("BATCH", stream="a")], {}),
    "one table": (5, "TC-CONTRACT-01", [schema("a"), schema("b")], {"table_name": "one"}),
    "no such key": (5, "TC-CONTRACT-02", [schema("a", keys=("other",))], {}),
    "too long": (5, "TC-CONTRACT-05", [schema("a"), TOO_LONG], {}),
    "a wrong setting": (2, "TC-SETTINGS-03", [], {"load_method": "delete"}),
}


@pytest.mark.parametrize("case", BAD)
def test_it_fails_as_a_load_would(
    dry: DryTarget, emulator: Any, make_target: Callable[..., Target], tmp_path: Path, case: str
) -> None:
    code, error, messages, settings = BAD[case]
    # Also: nothing is left of it where chunks would be kept.
    spool = tmp_path / "kept"
    planned = dry.fail(code, error, *messages, **settings, spool_dir=str(spool))
    assert not kept(spool)
    loaded = make_target(**emulator.settings).fail(code, error, *messages, **settings)
    assert planned.last_words == loaded.last_words


def test_a_failed_run_leaves_nothing(dry: DryTarget) -> None:
    dry.fail(4, "TC-INPUT-07", schema("a"), *rows("a", [1]), record("a", text="x"))
