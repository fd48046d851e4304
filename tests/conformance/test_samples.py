"""What real taps printed: it loads, the last state comes back, and twice is the same as once."""

from __future__ import annotations

import gzip
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program.harness import Target

if TYPE_CHECKING:
    from program.harness import Emulator, Ended

SAMPLES = Path(__file__).parent / "samples"
LOADABLE = sorted(path.stem for path in SAMPLES.glob("*.jsonl") if path.stem != "pg-ml-batch")


def messages(data: bytes, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in data.splitlines() if line.strip()]
    return [message for message in found if message["type"] == kind]


def last_state(data: bytes) -> bytes | None:
    """Return the JSON text of the last state's value, as it stands in the sample."""
    states = [line for line in data.splitlines() if json.loads(line)["type"] == "STATE"]
    if not states:
        return None
    found = re.search(rb'"value": ?(.*)\}\s*$', states[-1])
    assert found is not None
    assert json.loads(found.group(1)) == json.loads(states[-1])["value"]
    return found.group(1)


@dataclass(frozen=True)
class Loaded:
    """A sample that was loaded twice, into a table of its own.

    Attributes:
        schema: Its SCHEMA message.
        read: Its records.
        rows: How many rows the table had after each time.
    """

    data: bytes
    table: str
    schema: dict[str, Any]
    read: list[dict[str, Any]]
    runs: list[Ended]
    rows: list[int | None]


@pytest.fixture(scope="module")
def loaded(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """Load all samples, two at a time."""

    def load(sample: str) -> Loaded:
        data = (SAMPLES / f"{sample}.jsonl").read_bytes()
        (schema,) = {m["stream"]: m for m in messages(data, "SCHEMA")}.values()
        read = [message["record"] for message in messages(data, "RECORD")]
        found = Loaded(data, f"{sample}-{schema['stream']}", schema, read, [], [])
        target = Target(tmp_path_factory.mktemp("sample"), emulator.settings)
        for _ in range(2):
            found.runs.append(target.run(data, table_name=f"{sample}-{{stream}}"))
            with asking:
                found.rows.append(emulator.count(found.table))
        return found

    asking = threading.Lock()
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(LOADABLE, pool.map(load, LOADABLE), strict=True))


@pytest.mark.parametrize("sample", LOADABLE)
def test_a_sample_loads_twice(loaded: dict[str, Loaded], emulator: Emulator, sample: str) -> None:
    found = loaded[sample]
    keys = found.schema["key_properties"]
    unique = len({tuple(record[key] for key in keys) for record in found.read})
    count = len(found.read)
    assert found.rows == ([unique, unique] if keys else [count, 2 * count])
    for ended in found.runs:
        assert ended.code == 0, ended.err
        expected = last_state(found.data)
        assert ended.states[-1:] == ([] if expected is None else [expected])
        said = [line for line in ended.err.splitlines() if "ACTIVATE_VERSION" in line]
        assert len(said) == (1 if b"ACTIVATE_VERSION" in found.data else 0)
    assert len(emulator.types(found.table)) == len(found.schema["schema"]["properties"])
    for job in emulator.history(found.table):
        assert (job["submits"], job["status"], job["truncated_values"]) == (1, "DONE", 0)
    assert emulator.left_behind() == []


# Columns whose values are read again here, in a simple way, to be found in the tables.
LOOKED_AT = {
    "geo": {"geometry": "VARCHAR", "_sdc_filename": "VARCHAR"},
    "pg-ml-orders-inc": {"id": "BIGINT", "customer": "VARCHAR", "amount": "DOUBLE"},
    "pg-ml-wide": {"c_bigint": "BIGINT", "c_bool": "BOOLEAN", "c_text": "VARCHAR"},
    "pg-pipelinewise-logbased-initial": {"id": "BIGINT", "n": "DOUBLE", "v": "VARCHAR"},
    "pg-pw-orders-inc": {"id": "BIGINT", "note": "VARCHAR", "amount": "DOUBLE"},
    "pg-pw-wide": {"c_bigint": "BIGINT", "c_double": "DOUBLE", "c_bool": "BOOLEAN"},
    "tap-csv-folder": {"id": "VARCHAR", "note": "VARCHAR", "_sdc_line_number": "BIGINT"},
    "tap-jsonl": {"id": "BIGINT", "flag": "BOOLEAN", "name": "VARCHAR", "maybe": "VARCHAR"},
}


def shown(value: Any) -> str | None:
    """Return a value as the query of the emulator shows it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


@pytest.mark.parametrize("sample", LOADABLE)
def test_values_of_a_sample_arrive(
    loaded: dict[str, Loaded], emulator: Emulator, sample: str
) -> None:
    found = loaded[sample]
    columns = LOOKED_AT[sample]
    chosen = ", ".join(f'"{name}"' for name in columns)
    described = emulator.query(
        f"SELECT column_name, data_type FROM information_schema.columns "
        f"WHERE table_name = '{found.table}'"
    )
    assert columns.items() <= {str(name): kind for name, kind in described}.items()
    rows = emulator.query(f'SELECT {chosen} FROM local."{found.table}"')
    times = 1 if found.schema["key_properties"] else 2
    wanted = [[shown(record.get(name)) for name in columns] for record in found.read] * times
    assert sorted(rows, key=repr) == sorted(wanted, key=repr)


def test_batch_messages_need_their_files(target: Target, emulator: Emulator) -> None:
    data = (SAMPLES / "pg-ml-batch.jsonl").read_bytes()
    ended = target.run(data)
    assert (ended.code, ended.out) == (4, b"")
    assert "[TC-INPUT-12]" in ended.last_words
    assert "line 2" in ended.last_words.lower()
    assert "batch_config" in ended.last_words
    assert emulator.history("demo-orders") == []


def test_batch_messages_are_loaded(target: Target, emulator: Emulator, tmp_path: Path) -> None:
    data = (SAMPLES / "pg-ml-batch.jsonl").read_bytes()
    named = [uri for message in messages(data, "BATCH") for uri in message["manifest"]]
    records = [{"id": number, "status": "open"} for number in range(1, 2 * len(named) + 1)]
    for position, uri in enumerate(named):
        path = tmp_path / uri.rpartition("/")[2]
        texts = [json.dumps(record) + "\n" for record in records[2 * position :][:2]]
        path.write_bytes(gzip.compress("".join(texts).encode()))
        data = data.replace(uri.encode(), path.as_uri().encode())
    ended = target.run(data, table_name="batch-{stream}")
    assert ended.code == 0, ended.err
    assert ended.states == [last_state(data)]
    found = emulator.query('SELECT id, status FROM local."batch-demo-orders" ORDER BY id')
    assert found == [[str(record["id"]), "open"] for record in records]


def test_samples_name_no_machine() -> None:
    for path in SAMPLES.glob("*.jsonl"):
        assert not re.search(
            r'["/](data|home|root|tmp|work)/', path.read_text().replace('"data/', "")
        )
