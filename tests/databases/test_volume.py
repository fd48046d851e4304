"""Large tables through the whole pipe: every value compared, and how many rows a second it made."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from .loading import Loading, differences

if TYPE_CHECKING:
    from .postgres import Source
    from .taps import Tap

# PostgreSQL's expressions, with DuckDB's where it has others
AGGREGATES: dict[str, dict[str, str]] = {
    "orders": {
        "count(*)": "",
        "count(note)": "",
        "count(DISTINCT customer)": "",
        "sum(id)::bigint": "",
        "sum(round(amount * 100))::bigint": "",
        "sum(length(note))::bigint": "",
        "sum((status = 'paid')::int)::bigint": "",
        "sum(extract(epoch FROM created_at) * 1e6)::numeric(30)::text": "sum(epoch_us(created_at))",
        "max(extract(epoch FROM updated_at) * 1e6)::bigint": "max(epoch_us(updated_at))",
    },
    "wide": {
        "count(*)": "",
        "count(c_double)": "",
        "sum(c_int)::bigint": "",
        "sum(c_bigint)::text": "",
        "sum(c_bool::int)::bigint": "",
        "sum(length(c_longtext))::bigint": "",
        "count(DISTINCT c_uuid)": "",
        "sum(c_date - date '2000-01-01')::bigint": "",
        "sum(extract(epoch FROM c_tstz) * 1e6)::numeric(30)::text": "sum(epoch_us(c_tstz))",
    },
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("table", "rows"), [("wide", 100_000), ("orders", 1_000_000)])
def test_volume(
    source: Source,
    tap: Tap,
    loading: Loading,
    capsys: pytest.CaptureFixture[str],
    table: str,
    rows: int,
) -> None:
    source.run_file(f"{table}.sql", rows=rows)
    tap.choose("FULL_TABLE")
    begin = time.monotonic()
    with tap.log.open("wb") as log:
        subprocess.run(tap.command(), stdout=subprocess.DEVNULL, stderr=log, check=True)
    alone = time.monotonic() - begin
    loaded = loading.load(tap)
    with capsys.disabled():
        print(  # noqa: T201 - what this test is for
            f"\n{rows:,} rows of {table}: {rows / loaded.seconds:,.0f} rows a second "
            f"({loaded.seconds:.1f} s); the tap alone {rows / alone:,.0f} ({alone:.1f} s)"
        )

    printed = loaded.printed(source.stream(table))
    pairs = AGGREGATES[table].items()
    (there,) = source.json(f"SELECT {_list([one for one, _ in pairs])} FROM {{schema}}.{table}")
    wanted = _list([other or one for one, other in pairs])
    (found,) = loading.tables.query(f'SELECT {wanted} FROM local."{printed.stream}"')
    assert [str(value) for value in found] == [str(value) for value in there]
    there_in_order = loading.tables.rows(printed, order="id")
    assert differences(printed, printed.rows_in_order(), there_in_order) == []


def _list(expressions: list[str]) -> str:
    return ", ".join(f"{one} AS a{number}" for number, one in enumerate(expressions))
