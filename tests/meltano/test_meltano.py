"""Meltano itself runs the project: states, settings, failures, and nothing leaves the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .project import FILES, GENERATOR, read_csv, write_csv

if TYPE_CHECKING:
    from pathlib import Path

    from .project import Project

YESTERDAY = 1_750_000_000
TODAY = YESTERDAY + 86_400

TAP_THAT_ENDS = """
import json
print(json.dumps({"type": "SCHEMA", "stream": "orders", "key_properties": ["id"], "schema": {
    "type": "object", "properties": {"id": {"type": "integer"}, "text": {"type": "string"}}}}))
for number in range(3):
    print(json.dumps({"type": "RECORD", "stream": "orders",
                      "record": {"id": number, "text": "first"}}))
print(json.dumps({"type": "STATE", "value": {"bookmarks": {}, "currently_syncing": None}}))
"""

TAP_THAT_RAISES = """
import json
print(json.dumps({"type": "SCHEMA", "stream": "orders", "key_properties": ["id"], "schema": {
    "type": "object", "properties": {"id": {"type": "integer"}, "text": {"type": "string"}}}}))
print(json.dumps({"type": "STATE", "value": {"bookmarks": {}, "currently_syncing": "orders"}}))
for number in range(2):
    print(json.dumps({"type": "RECORD", "stream": "orders",
                      "record": {"id": number, "text": "second"}}), flush=True)
raise ConnectionError("the source is gone")
"""

TAP_WITH_DEPTH = """
import json
print(json.dumps({"type": "SCHEMA", "stream": "orders", "key_properties": ["id"], "schema": {
    "type": "object", "properties": {
        "id": {"type": "integer"},
        "customer": {"type": "object", "properties": {
            "name": {"type": "string"},
            "address": {"type": "object", "properties": {"city": {"type": "string"}}}}}}}}))
print(json.dumps({"type": "RECORD", "stream": "orders", "record": {
    "id": 7, "customer": {"name": "Ada", "address": {"city": "Turin"}}}}))
"""

TYPED_SETTINGS = {
    "streams": [{"match": "orders", "table": "all_orders"}],
    "stream_maps": {"orders": {"source": "config['system']"}},
    "stream_map_config": {"system": "ERP"},
    "flattening_enabled": True,
    "flattening_max_depth": 1,
    "add_record_metadata": True,
    "wait_timeout_minutes": 60,
}


def write_example(directory: Path) -> dict[str, int]:
    """Write the example's files, small, and return their numbers of rows."""
    generate = [sys.executable, str(GENERATOR), str(directory), "--cases", "40"]
    subprocess.run(generate, check=True, capture_output=True)
    rows = {path.stem: read_csv(path) for path in directory.glob("*.csv")}
    for name, values in rows.items():
        write_csv(directory / f"{name}.csv", values, YESTERDAY)
    return {name: len(values) for name, values in rows.items()}


def test_the_second_run_loads_only_what_is_new(project: Project) -> None:
    files = project.directory / FILES
    declared = project.file.read_text(encoding="utf-8")
    sizes = write_example(files)

    first = project.run("tap-spreadsheets")
    assert first.code == 0, first.log
    assert project.counts(*sizes) == sizes
    first_jobs = {(table, "DELTA", rows): 1 for table, rows in sizes.items()}
    assert project.push_jobs() == first_jobs

    changed, *_ = cases = read_csv(files / "cases.csv")[:2]
    new = [{**case, "case_key": f"new-{number}"} for number, case in enumerate(cases)]
    write_csv(files / "cases-2.csv", [{**changed, "note": "changed"}, *new], TODAY)
    second = project.run("tap-spreadsheets")
    assert second.code == 0, second.log
    assert project.counts(*sizes) == {**sizes, "cases": sizes["cases"] + 2}
    assert project.push_jobs() == first_jobs | {("cases", "DELTA", 3): 1}
    key = changed["case_key"]
    assert project.query(f"SELECT note FROM local.cases WHERE case_key = '{key}'") == [("changed",)]
    assert project.file.read_text(encoding="utf-8") == declared


@pytest.mark.slow
def test_a_full_refresh_loads_all_again_and_adds_no_row(project: Project) -> None:
    sizes = write_example(project.directory / FILES)
    assert project.run("tap-spreadsheets").code == 0
    refreshed = project.run("tap-spreadsheets", "--full-refresh")
    assert refreshed.code == 0, refreshed.log
    assert project.counts(*sizes) == sizes
    assert project.push_jobs() == {(table, "DELTA", rows): 2 for table, rows in sizes.items()}


def test_a_tap_that_raises_leaves_an_overwritten_table_as_it_was(project: Project) -> None:
    project.configure(load_method="overwrite")
    project.add_tap(TAP_THAT_ENDS)
    assert project.run("tap-script").code == 0
    before = project.query("SELECT * FROM local.orders ORDER BY id")
    assert before == [("0", "first"), ("1", "first"), ("2", "first")]
    assert project.push_jobs() == {("orders", "REPLACE", 3): 1}

    project.add_tap(TAP_THAT_RAISES)
    failed = project.run("tap-script")
    assert failed.code == 1
    assert "the source is gone" in failed.messages()
    assert project.query("SELECT * FROM local.orders ORDER BY id") == before
    assert project.push_jobs() == {("orders", "REPLACE", 3): 1}


@pytest.mark.parametrize(
    "place", ["environment", pytest.param("meltano.yml", marks=pytest.mark.slow)]
)
def test_settings_reach_the_loader_with_their_types(project: Project, place: str) -> None:
    project.add_tap(TAP_WITH_DEPTH)
    variables = {}
    if place == "environment":
        variables = {
            f"TARGET_CELONIS_{name.upper()}": v if isinstance(v, str) else json.dumps(v)
            for name, v in TYPED_SETTINGS.items()
        }
    else:
        project.configure(**TYPED_SETTINGS)
    ended = project.run("tap-script", **variables)
    assert ended.code == 0, ended.log
    sql = (
        "SELECT id, customer__name, customer__address LIKE '{%Turin%}', source, "
        "_sdc_received_at IS NOT NULL FROM local.all_orders"
    )
    assert project.query(sql) == [("7", "Ada", "true", "ERP", "true")]


def test_a_refusal_says_why_and_the_log_has_its_exit_code(project: Project) -> None:
    project.add_tap(TAP_THAT_ENDS)
    ended = project.meltano("--environment=prod", "run", "tap-script", "target-celonis")
    assert (ended.code, ended.loader_code()) == (1, 2)
    assert "TC-SETTINGS" in ended.messages()
    assert "`base_url`" in ended.messages()


def test_the_check_that_meltano_has_for_loaders_passes(project: Project) -> None:
    ended = project.meltano("--environment=dev", "config", "test", "target-celonis")
    assert "Test data was written to your target system" in ended.log, ended.log
    assert project.counts("meltano_test_stream") == {"meltano_test_stream": 1}
    if ended.code != 0:
        # Meltano has its verdict by then, and trips over asyncio before it prints it: there,
        # older Pythons forget a process that ended, and Meltano ends it once more.
        assert sys.version_info < (3, 13)
        assert "ProcessLookupError" in ended.log
    else:
        assert "Plugin configuration is valid" in ended.output


CELONIS = """
pools:
  - id: local
    data_jobs:
      - {id: job, tasks: ["CREATE OR REPLACE TABLE activities AS SELECT id, text FROM orders"]}
    data_models:
      - {id: model, name: Orders, tables: [orders, activities]}
"""


def test_a_run_ends_with_the_data_model_and_the_utility_publishes_alone(project: Project) -> None:
    (project.directory / "celonis.yaml").write_text(CELONIS, encoding="utf-8")
    publishes = {
        "embedded_config": "celonis.yaml",
        "data_jobs": [{"id": "job", "mode": "FULL"}],
        "data_models": [{"id": "model"}],
    }
    project.configure(**publishes)
    project.configure_utility(**publishes)
    project.add_tap(TAP_THAT_ENDS)
    ended = project.run("tap-script")
    assert ended.code == 0, ended.log
    assert "Data model Orders: reloaded completely (activities, orders), 6 rows" in ended.log
    rows = "SELECT count(*) FROM local_model_model.activities"
    assert project.query(rows) == [("3",)]
    alone = project.meltano("run", "celonis-publish:publish")
    assert alone.code == 0, alone.log
    assert "Data model Orders: reloaded completely (activities, orders), 6 rows" in alone.log
    assert project.meltano("invoke", "target-celonis:publish").code == 0
