"""The event log that the demo loads: the same again for a seed, and awkward where it should be."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

GENERATOR = Path(__file__).resolve().parents[2] / "examples" / "order_to_cash" / "generate.py"
CASES = 400

Row = dict[str, str]


@dataclass(frozen=True)
class EventLog:
    """The three files, read."""

    cases: list[Row]
    events: list[Row]
    items: list[Row]


def generate(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the generator as a user does."""
    return subprocess.run(
        [sys.executable, str(GENERATOR), str(directory), *options],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def read(path: Path) -> list[Row]:
    """Read one file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(directory: Path) -> dict[str, bytes]:
    """Give the bytes of every file in a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a small event log."""
    directory = tmp_path_factory.mktemp("order_to_cash")
    done = generate(directory, "--cases", str(CASES))
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def log(directory: Path) -> EventLog:
    """Read the small event log."""
    return EventLog(
        cases=read(directory / "cases.csv"),
        events=read(directory / "events.csv"),
        items=read(directory / "order_items.csv"),
    )


def test_same_seed_gives_the_same_files(directory: Path, tmp_path: Path) -> None:
    assert generate(tmp_path, "--cases", str(CASES)).returncode == 0
    assert contents(tmp_path) == contents(directory)


def test_another_seed_gives_other_files(directory: Path, tmp_path: Path) -> None:
    assert generate(tmp_path, "--cases", str(CASES), "--seed", "2").returncode == 0
    ours, others = contents(directory), contents(tmp_path)
    assert set(ours) == set(others) == {"cases.csv", "events.csv", "order_items.csv"}
    assert all(ours[name] != others[name] for name in ours)


def test_counts(log: EventLog) -> None:
    assert len(log.cases) == CASES
    # 15,000 cases are to give some 100,000 events.
    assert 6 * CASES < len(log.events) < 7.5 * CASES
    assert len(log.items) > CASES


def test_keys_are_unique_and_never_empty(log: EventLog) -> None:
    case_keys = [row["case_key"] for row in log.cases]
    event_ids = [int(row["event_id"]) for row in log.events]
    item_keys = [(row["case_key"], int(row["item_number"])) for row in log.items]
    assert all(case_keys)
    assert len(set(case_keys)) == len(case_keys)
    assert len(set(event_ids)) == len(event_ids)
    assert len(set(item_keys)) == len(item_keys)


def test_events_and_items_belong_to_cases_and_every_case_has_both(log: EventLog) -> None:
    case_keys = {row["case_key"] for row in log.cases}
    assert {row["case_key"] for row in log.events} == case_keys
    assert {row["case_key"] for row in log.items} == case_keys


def test_net_amount_is_that_of_the_items(log: EventLog) -> None:
    hundredths: Counter[str] = Counter()
    for item in log.items:
        hundredths[item["case_key"]] += round(100 * float(item["unit_price"])) * int(
            item["quantity"]
        )
    assert {row["case_key"]: round(100 * float(row["net_amount"])) for row in log.cases} == dict(
        hundredths
    )


def test_cases_go_forward_in_time_and_begin_with_their_creation(log: EventLog) -> None:
    times: dict[str, list[datetime]] = defaultdict(list)
    first_activities: dict[str, str] = {}
    for event in log.events:
        times[event["case_key"]].append(datetime.fromisoformat(event["event_time"]))
        first_activities.setdefault(event["case_key"], event["activity"])
    assert set(first_activities.values()) == {"Create Sales Order"}
    for case in log.cases:
        case_times = times[case["case_key"]]
        assert case_times == sorted(case_times)
        assert case_times[0] == datetime.fromisoformat(case["created_at"])


def test_process_has_its_variants(log: EventLog) -> None:
    traces: dict[str, list[str]] = defaultdict(list)
    for event in log.events:
        traces[event["case_key"]].append(event["activity"])
    variants = Counter(map(tuple, traces.values()))
    assert len(variants) > 20
    assert variants.most_common(1)[0][0] == (
        "Create Sales Order",
        "Confirm Order",
        "Create Delivery",
        "Post Goods Issue",
        "Send Invoice",
        "Receive Payment",
    )
    assert {
        "Release Credit Block",
        "Change Price",
        "Cancel Order",
        "Issue Credit Memo",
        "Send Dunning Notice",
    } <= {event["activity"] for event in log.events}
    assert any(trace.count("Post Goods Issue") > 1 for trace in traces.values())
    cancelled = [trace for trace in traces.values() if "Cancel Order" in trace]
    assert not any("Post Goods Issue" in trace for trace in cancelled)


def test_texts_are_awkward(log: EventLog) -> None:
    notes = [row["note"] for row in log.cases]
    assert "" in notes
    assert any("ü" in note and "ß" in note for note in notes)
    assert any("\n" in note for note in notes)
    assert any('"' in note for note in notes)
    assert sum(len(note) > 80 for note in notes) > CASES / 10
    assert max(map(len, notes)) > 400
    descriptions = "".join(row["description"] for row in log.items)
    assert set("üöäß🎁") <= set(descriptions)


@pytest.mark.parametrize("column", ["user_name", "channel", "cost", "promised_date"])
def test_some_event_fields_are_empty_and_some_are_not(log: EventLog, column: str) -> None:
    assert {bool(event[column]) for event in log.events} == {True, False}


def test_open_orders_have_no_delivery_time(log: EventLog) -> None:
    assert {bool(item["delivered_at"]) for item in log.items} == {True, False}


def test_values_have_their_types(log: EventLog) -> None:
    assert {row["is_express"] for row in log.cases} == {"0", "1"}
    assert {event["is_automated"] for event in log.events} == {"0", "1"}
    for case in log.cases:
        date.fromisoformat(case["requested_date"])
    for event in log.events:
        if event["promised_date"]:
            date.fromisoformat(event["promised_date"])
    offsets = {datetime.fromisoformat(event["event_time"]).utcoffset() for event in log.events}
    assert None not in offsets
    assert len(offsets) > 3


def test_nothing_happens_after_the_end_of_the_log(log: EventLog) -> None:
    end = datetime(2025, 7, 1, tzinfo=UTC)
    assert all(datetime.fromisoformat(event["event_time"]) < end for event in log.events)
    assert all(
        datetime.fromisoformat(item["delivered_at"]) < end
        for item in log.items
        if item["delivered_at"]
    )


def test_one_case_is_enough(tmp_path: Path) -> None:
    assert generate(tmp_path, "--cases", "1").returncode == 0
    assert len(read(tmp_path / "cases.csv")) == 1


def test_no_case_is_refused(tmp_path: Path) -> None:
    done = generate(tmp_path / "files", "--cases", "0")
    assert done.returncode == 2
    assert "--cases must be at least 1" in done.stderr
    assert not (tmp_path / "files").exists()
