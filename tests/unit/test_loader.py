"""What is pushed when, which state goes out, and how every record is counted."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.batch import RULES, rules_applied
from target_celonis.errors import (
    AccessError,
    ContractError,
    InputError,
    LimitError,
    RemoteError,
    TargetCelonisError,
)
from target_celonis.messages import (
    RecordRun,
    SchemaMessage,
)

from .loading import PATIENCE_SECONDS, Run, running

OVERWRITE = [{"match": "o*", "load_method": "overwrite"}]


# --- what is loaded how


def test_a_keyed_stream_is_upserted(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id", a="string")
        for number, text in [(1, "x"), (2, "y"), (1, "z")]:
            run.record("orders", number, a=text)
        last = run.state()
        run.loader.finish()
        assert run.celonis.tables["orders"] == [
            {"line": 3, "id": 2, "a": "y"},
            {"line": 4, "id": 1, "a": "z"},
        ]
        assert run.counts("orders") == (3, 2, 1, 0)
        assert run.states == [last]


def test_a_stream_without_keys_is_appended(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("events")
        for _ in range(3):
            run.record("events", 1)
        run.loader.finish()
        assert run.ids("events") == [1, 1, 1]
        assert run.counts("events") == (3, 3, 0, 0)


def test_append_only_leaves_keys_out(tmp_path: Path) -> None:
    with running(tmp_path, load_method="append-only") as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.record("orders", 1)
        run.loader.finish()
        assert run.ids("orders") == [1, 1]


def test_keys_of_a_rule_come_before_the_taps(tmp_path: Path) -> None:
    rules = [{"match": "orders", "key_properties": ["a"], "table": "T_{stream}"}]
    with running(tmp_path, streams=rules) as run:
        run.schema("orders", "id", a="string")
        run.record("orders", 1, a="x")
        run.record("orders", 2, a="x")
        run.loader.finish()
        assert run.ids("T_orders") == [2]


def test_an_overwritten_table_holds_only_the_new_rows(tmp_path: Path) -> None:
    with running(tmp_path, load_method="overwrite", trust_end_of_input=True) as run:
        run.celonis.tables["orders"] = [{"id": 99}]
        run.schema("orders", "id")
        run.record("orders", 1)
        run.loader.finish()
        assert run.ids("orders") == [1]


def test_no_rows_never_replace_a_table(tmp_path: Path) -> None:
    with running(tmp_path, load_method="overwrite", trust_end_of_input=True) as run:
        run.celonis.tables["orders"] = [{"id": 99}]
        run.schema("orders", "id")
        run.activate("orders", 1)
        last = run.state(None)
        run.loader.finish()
        assert run.ids("orders") == [99]
        assert run.celonis.events == []
        assert run.counts("orders") == (0, 0, 0, 0)
        assert run.states == [last]


def test_a_stream_without_records_makes_no_job(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        last = run.state()
        run.loader.finish()
        assert run.celonis.events == []
        assert run.states == [last]


def test_one_job_for_each_stream(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        names = [f"s{number}" for number in range(12)]
        for name in names:
            run.schema(name)
        for _ in range(5):
            for name in names:
                run.record(name, 1)
        run.loader.finish()
        assert sorted(run.celonis.verbs("commit")) == sorted(names)
        assert sorted(run.celonis.verbs("open")) == sorted(names)


# --- states


def test_a_state_waits_for_the_records_before_it(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        first = run.state()
        assert run.states == [first]
        run.record("orders", 1)
        second = run.state()
        run.record("orders", 2)
        assert run.states == [first]
        run.loader.finish()
        assert run.states == [first, second]


def test_a_state_waits_for_the_receipt_not_for_the_push(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        last = run.state()
        run.celonis.gate.clear()
        run.clock.seconds += 1_800
        run.loader.tick()
        assert run.pusher.busy
        run.loader.tick()
        assert run.states == []
        run.celonis.gate.set()
        run.settle()
        assert run.states == [last]


def test_a_state_in_the_middle_of_a_push_waits_for_it(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        middle = run.state()
        run.record("orders", 2)
        run.celonis.gate.clear()
        run.clock.seconds += 1_800
        run.loader.tick()
        run.loader.tick()
        assert run.states == []
        run.celonis.gate.set()
        run.settle()
        assert run.states == [middle]


def test_records_read_during_a_push_hold_back_later_states_only(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        early = run.state()
        run.celonis.gate.clear()
        run.clock.seconds += 1_800
        run.loader.tick()
        run.record("orders", 2)
        late = run.state()
        run.celonis.gate.set()
        run.settle()
        assert run.states == [early]
        run.loader.finish()
        assert run.states == [early, late]


def test_an_idle_stream_holds_nobody_back(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("idle", "id")
        run.schema("busy", "id")
        run.record("idle", 1)
        run.record("busy", 1)
        first = run.state()
        run.checkpoint()
        run.record("busy", 2)
        second = run.state()
        run.checkpoint()
        assert run.states == [first, second]


def test_a_stream_that_overwrites_holds_later_states_to_the_end(tmp_path: Path) -> None:
    with running(tmp_path, streams=OVERWRITE) as run:
        run.schema("orders", "id")
        run.schema("events", "id")
        run.record("events", 1)
        before = run.state("events")
        run.record("orders", 1)
        run.state("orders")
        run.record("events", 2)
        last = run.state("events")
        run.checkpoint()
        assert run.ids("events") == [1, 2]
        assert run.ids("orders") is None
        assert run.states == [before]
        run.loader.finish()
        assert run.ids("orders") == [1]
        assert run.states == [before, last]


def test_what_appends_waits_for_the_end_of_an_overwrite_before_it(tmp_path: Path) -> None:
    """Should that come to no good end, its rows come again, and would stand twice."""
    with running(tmp_path, streams=OVERWRITE) as run:
        run.schema("orders", "id")
        for name in ("early", "late"):
            run.schema(name)
        run.record("early", 1)
        first = run.state()
        run.record("orders", 1)
        for number in range(3):
            run.record("late", number)
            run.state()
            run.checkpoint()
        assert (run.ids("early"), run.ids("late")) == ([1], None)
        assert run.states == [first]
        with pytest.raises(InputError, match="TC-INPUT-10"):
            run.loader.finish()
        run.loader.settle_after_failure()
        assert run.ids("late") is None
        assert run.states == [first]


def test_what_appends_comes_behind_the_overwrite_at_the_end(tmp_path: Path) -> None:
    rules = [OVERWRITE[0] | {"trust_end_of_input": True}]
    with running(tmp_path, streams=rules) as run:
        run.schema("orders", "id")
        run.schema("late")
        run.record("orders", 1)
        for number in range(3):
            run.record("late", number)
            last = run.state()
            run.checkpoint()
        run.loader.finish()
        assert run.celonis.verbs("commit") == ["orders", "late"]
        assert run.ids("late") == [0, 1, 2]
        assert run.states == [last]


# --- checkpoints


def test_a_checkpoint_comes_when_the_interval_has_passed(tmp_path: Path) -> None:
    with running(tmp_path, checkpoint_interval_minutes=10) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.checkpoint(599)
        assert run.celonis.events == []
        run.checkpoint(1)
        assert run.ids("orders") == [1]
        run.record("orders", 2)
        run.checkpoint(599)
        assert run.ids("orders") == [1]
        run.checkpoint(1)
        assert run.ids("orders") == [1, 2]
        assert run.counts("orders") == (2, 2, 0, 0)


def test_without_an_interval_all_is_pushed_at_the_end(tmp_path: Path) -> None:
    with running(tmp_path, checkpoint_interval_minutes=0) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.checkpoint(1_000_000)
        assert run.celonis.events == []
        run.loader.finish()
        assert run.celonis.verbs("commit") == ["orders"]


def test_a_key_of_an_earlier_checkpoint_is_no_merged_row(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.checkpoint()
        run.record("orders", 1)
        run.record("orders", 1)
        run.loader.finish()
        assert run.counts("orders") == (3, 2, 1, 0)
        assert run.ids("orders") == [1]


def test_while_a_push_runs_no_other_begins(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.celonis.gate.clear()
        for number in range(5):
            run.record("orders", number)
            run.clock.seconds += 1_800
            run.loader.tick()
        run.celonis.gate.set()
        run.settle()
        run.loader.finish()
        assert run.ids("orders") == [0, 1, 2, 3, 4]
        assert len(run.celonis.verbs("commit")) <= 3


# --- proofs of an end


@pytest.mark.parametrize("proof", ["another stream", "another id", "none", "version"])
def test_what_proves_the_end(tmp_path: Path, proof: str) -> None:
    with running(tmp_path, load_method="overwrite") as run:
        run.schema("orders", "id")
        if proof == "another id":
            run.state("db-orders")
        if proof == "another stream":
            run.schema("events")
        run.record("orders", 1, version=7)
        if proof == "version":
            run.activate("orders", 7)
        else:
            next_one = {"another stream": "events", "another id": "db-events"}
            run.state(next_one.get(proof))
        run.loader.finish()
        assert run.ids("orders") == [1]


@pytest.mark.parametrize(
    "sign",
    [
        "nothing",
        "a plain state",
        "itself",
        "its id",
        "an id of something",
        "an older version",
        "another's version",
        "more",
        "more that is filtered",
    ],
)
def test_what_proves_nothing(tmp_path: Path, sign: str) -> None:
    with running(tmp_path, streams=OVERWRITE) as run:
        run.celonis.tables["orders"] = [{"id": 99}]
        run.schema("orders", "id")
        run.schema("other_stream", "id")
        run.schema("events", "id")
        run.record("events", 5)
        safe = [run.state("db-orders")] if sign == "its id" else []
        run.record("orders", 1, version=7)
        if sign == "its id":
            run.state("db-orders")
        if sign == "an id of something":
            run.state("db-orders")
        if sign == "more that is filtered":
            run.state("events")
            run.line += 1
            run.loader.records(RecordRun("orders", 7, filtered=1, read_to=run.line))
        if sign == "a plain state":
            run.state()
        elif sign == "itself":
            run.state("orders")
        elif sign == "an older version":
            run.activate("orders", 6)
        elif sign == "another's version":
            run.activate("other_stream", 7)
        elif sign == "more":
            run.state("events")
            run.record("orders", 2, version=7)
        with pytest.raises(InputError) as caught:
            run.loader.finish()
        assert caught.value.code == "TC-INPUT-10"
        assert "`orders`" in str(caught.value)
        assert "`trust_end_of_input`" in str(caught.value)
        assert "`other_stream`" not in str(caught.value)
        assert run.ids("orders") == [99]
        assert run.ids("events") == [5]
        run.loader.settle_after_failure()
        read_rows = 2 if sign.startswith("more") else 1
        filtered_rows = 1 if sign == "more that is filtered" else 0
        assert run.counts("orders") == (read_rows, 0, 0, read_rows - filtered_rows)
        assert run.counts("events") == (1, 1, 0, 0)
        assert run.states == safe


def test_a_proof_before_the_stream_began_is_none(tmp_path: Path) -> None:
    with running(tmp_path, load_method="overwrite") as run:
        run.schema("orders", "id")
        run.state(None)
        run.activate("orders", 7)
        run.record("orders", 1, version=7)
        with pytest.raises(InputError, match="TC-INPUT-10"):
            run.loader.finish()


def test_all_streams_without_a_proof_are_named(tmp_path: Path) -> None:
    with running(tmp_path, load_method="overwrite") as run:
        for name in ("a", "b", "c"):
            run.schema(name)
            run.record(name, 1)
        run.state("c")
        with pytest.raises(InputError) as caught:
            run.loader.finish()
        assert "`c`" in str(caught.value)
        assert "`a`" not in str(caught.value)
        assert (run.ids("a"), run.ids("b"), run.ids("c")) == ([1], [1], None)


def test_trust_may_be_given_to_one_stream(tmp_path: Path) -> None:
    rules = [{"match": "a", "trust_end_of_input": True}]
    with running(tmp_path, load_method="overwrite", streams=rules) as run:
        for name in ("a", "b"):
            run.schema(name)
            run.record(name, 1)
        with pytest.raises(InputError, match=r"TC-INPUT-10.*`b`"):
            run.loader.finish()
        assert (run.ids("a"), run.ids("b")) == ([1], None)


def test_messages_speak_of_a_stream_by_the_taps_name(tmp_path: Path) -> None:
    with running(tmp_path, load_method="overwrite") as run:
        run.schema("alias", "id", source="orders")
        run.record("alias", 1, version=7)
        run.state("orders")
        run.activate("orders", 7)
        run.loader.finish()
        assert run.ids("alias") == [1]


# What a stream must be for ACTIVATE_VERSION to replace its table; change one thing, and it is not.
FULL: dict[str, Any] = {"versions": (7, 7), "bookmarks": (), "activated": 7, "settings": {}}
NOT_FULL: dict[str, dict[str, Any]] = {
    "no version": {"versions": (None, 7)},
    "bookmarks": {"bookmarks": ("id",)},
    "another version": {"activated": 8},
    "switched off": {"settings": {"process_activate_version_messages": False}},
    "append": {"settings": {"load_method": "append-only"}},
    "never activated": {"activated": None},
}


def load_versions(
    run: Run,
    versions: tuple[int | None, ...],
    bookmarks: tuple[str, ...],
    activated: int | None,
) -> None:
    run.celonis.tables["orders"] = [{"id": 99}]
    run.schema("orders", "id", bookmarks=bookmarks)
    for number, version in enumerate(versions):
        run.record("orders", number, version)
    if activated is not None:
        run.activate("orders", activated)
    run.state()
    run.loader.finish()


def test_a_stream_sent_in_full_replaces_its_table(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        load_versions(run, **{k: v for k, v in FULL.items() if k != "settings"})
        assert run.ids("orders") == [0, 1]
        assert len(run.states) == 1


@pytest.mark.parametrize("change", NOT_FULL)
def test_no_other_stream_does(tmp_path: Path, change: str) -> None:
    case = FULL | NOT_FULL[change]
    with running(tmp_path, **case.pop("settings")) as run:
        load_versions(run, **case)
        assert sorted(run.ids("orders") or []) == [0, 1, 99]
        assert len(run.states) == 1


def test_a_stream_sent_in_full_takes_no_checkpoint(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.celonis.tables["orders"] = [{"id": 99}]
        run.schema("orders", "id")
        run.record("orders", 1, 7)
        run.activate("orders", 7)  # early: a record follows
        run.state()
        run.checkpoint()
        assert run.ids("orders") == [99]
        run.record("orders", 2, 7)
        run.activate("orders", 7)
        run.activate("orders", 7)  # repeated
        run.activate("orders", 6)  # of an older version
        run.loader.finish()
        assert run.ids("orders") == [1, 2]


def test_a_table_that_the_tap_was_in_the_midst_of_is_left_alone(tmp_path: Path) -> None:
    """The tap could go on there in the next run, and call whole what is only the rest.

    Also: the state that says the table is about to be sent is held back with those after it.
    """
    with running(tmp_path) as run:
        run.celonis.tables["orders"] = [{"id": 99}]
        run.schema("orders", "id")
        run.state("orders")
        run.activate("orders", 7)
        run.record("orders", 1, 7)
        run.state("orders")
        run.record("orders", 2, 7)
        run.state("orders")
        with pytest.raises(InputError, match="TC-INPUT-10"):
            run.loader.finish()
        run.loader.settle_after_failure()
        assert run.ids("orders") == [99]
        assert run.states == []


@pytest.mark.parametrize("then", ["record", "other", "end"])
def test_a_state_that_only_begins_a_stream_goes_out_later(tmp_path: Path, then: str) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id", bookmarks=("id",))
        begun = run.state("orders")
        assert run.states == []
        if then == "record":
            run.record("orders", 1)
            assert run.states == []
            run.loader.tick()
            assert run.states == [begun]
        elif then == "other":
            later = run.state("events")
            assert run.states == [later]
        else:
            run.loader.finish()
            assert run.states == [begun]


@pytest.mark.parametrize("activated", [2, 1, None])
def test_records_of_an_older_version(tmp_path: Path, activated: int | None) -> None:
    """They go when a newer version replaces the table, and are rows like any other when not."""
    with running(tmp_path) as run:
        run.celonis.tables["orders"] = [{"id": 99}]
        run.schema("orders", "id")
        old = [run.record("orders", 1, 1), run.record("orders", 2, 1, text="old")]
        run.record("orders", 2, 2, text="new")
        old.append(run.record("orders", 3, 1))
        if activated is not None:
            run.activate("orders", activated)
        if activated == 2:
            run.celonis.committed_lines |= set(old)  # they are counted out
        run.state()
        run.loader.finish()
        report = run.loader.reports()[0]
        counts = (report.read, report.loaded, report.merged, report.superseded)
        if activated == 2:
            assert run.ids("orders") == [2]
            assert counts == (4, 1, 0, 3)
        else:
            assert sorted(run.ids("orders") or []) == [1, 2, 3, 99]
            assert counts == (4, 3, 1, 0)
        assert len(run.states) == 1


def test_a_version_without_records_replaces_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.celonis.tables["orders"] = [{"id": 99}]
        run.schema("orders", "id")
        run.activate("nobody", 1)
        run.activate("orders", 1)
        run.state()
        run.loader.finish()
        assert run.ids("orders") == [99]
        assert len(run.states) == 1


def test_a_key_that_changes_ends_a_full_table(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.celonis.tables["orders"] = [{"id": 99, "line": 0}]
        run.schema("orders", "id")
        run.record("orders", 1, 7)
        run.schema("orders", "id", "line")
        run.record("orders", 1, 7)
        run.activate("orders", 7)
        run.state()
        run.loader.finish()
        assert run.ids("orders") == [99, 1, 1]


# --- schemas that change


def test_a_new_column_in_mid_run_is_null_before(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.schema("orders", "id", a="string")
        run.record("orders", 2, a="x")
        run.schema("orders", "id")
        run.record("orders", 3)
        run.loader.finish()
        assert [(row["id"], row["a"]) for row in run.celonis.tables["orders"]] == [
            (1, None),
            (2, "x"),
            (3, None),
        ]
        assert run.celonis.verbs("commit") == ["orders"]


def test_a_wider_type_in_mid_run_is_one_job(tmp_path: Path) -> None:
    with running(tmp_path, load_method="overwrite", trust_end_of_input=True) as run:
        for kind, value in (("integer", 1), ("number", 2.5), ("string", "x"), ("integer", 4)):
            run.schema("orders", "id", a=kind)
            run.record("orders", run.line, a=value)
        run.loader.finish()
        assert [row["a"] for row in run.celonis.tables["orders"]] == ["1", "2.5", "x", "4"]
        assert run.celonis.verbs("commit") == ["orders"]


def test_the_same_schema_again_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        for number in range(3):
            run.schema("orders", "id", a="string")
            run.record("orders", number, a="x")
        run.loader.finish()
        assert run.celonis.verbs("send") == ["orders"]
        assert run.ids("orders") == [0, 1, 2]


def test_a_key_that_changes_in_mid_run_takes_a_job_of_its_own(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id", a="string")
        run.record("orders", 1, a="x")
        run.record("orders", 1, a="y")
        middle = run.state()
        run.schema("orders", "a", a="string")
        run.record("orders", 2, a="y")
        run.record("orders", 3, a="z")
        last = run.state()
        run.loader.finish()
        assert run.celonis.verbs("commit") == ["orders", "orders"]
        assert run.counts("orders") == (4, 3, 1, 0)
        assert sorted(run.ids("orders") or []) == [2, 3]
        assert run.states in ([middle, last], [last])


def test_two_streams_on_one_table_are_refused(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("Orders", "id")
        with pytest.raises(ContractError, match=r"TC-CONTRACT-01.*`Orders` and `orders`"):
            run.schema("orders", "id")


def test_two_streams_whose_names_become_one_are_refused(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("a.b")
        with pytest.raises(ContractError, match="TC-CONTRACT-01"):
            run.schema("a b")


def test_a_record_before_its_schema_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders")
        with pytest.raises(InputError, match=r"TC-INPUT-05.*`events`, line 2,"):
            run.record("events", 1)


# --- failures


BAD_END = RemoteError("TC-REMOTE-04", "It ended as ERROR.")


def test_a_table_that_fails_ends_no_other_one(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        names = [f"s{number}" for number in range(8)]
        for name in names:
            run.schema(name, "id")
        run.record("s0", 1)
        first = run.state()
        for name in names[1:]:
            run.record(name, 1)
        run.state()
        run.celonis.faults["commit", "s1"] = BAD_END
        with pytest.raises(RemoteError, match="TC-REMOTE-04"):
            run.loader.finish()
        run.loader.settle_after_failure()
        assert sorted(run.celonis.verbs("commit")) == names
        assert run.states == [first]
        assert run.counts("s1") == (1, 0, 0, 1)
        assert all(run.counts(name) == (1, 1, 0, 0) for name in names if name != "s1")
        failures = {report.stream: report.failure for report in run.loader.reports()}
        assert failures == dict.fromkeys(names, "") | {"s1": "TC-REMOTE-04"}


@pytest.mark.parametrize(
    "error",
    [
        AccessError("TC-ACCESS-01", "No."),
        RemoteError("TC-REMOTE-01", "Nothing answers."),
        LimitError("TC-LIMIT-06", "Used up."),
    ],
    ids=lambda error: error.code,
)
def test_after_a_failure_of_all_nothing_more_is_opened(
    tmp_path: Path, error: TargetCelonisError
) -> None:
    with running(tmp_path) as run:
        names = [f"s{number}" for number in range(8)]
        run.celonis.gate.clear()  # the other push under way goes no further
        for name in names:
            run.schema(name, "id")
            run.record(name, 1)
        run.state()
        run.celonis.faults["open", "s0"] = error
        with pytest.raises(type(error), match=error.code):
            run.loader.finish()
        run.celonis.gate.set()
        run.loader.settle_after_failure()
        assert set(run.celonis.verbs("open")) <= {"s0", "s1"}
        loaded = set(run.celonis.verbs("commit"))
        assert loaded <= {"s1"}
        assert set(run.celonis.verbs("abort")) == set(run.celonis.verbs("open")) - {"s0"} - loaded
        assert run.states == []
        for name in names:
            assert run.counts(name) == ((1, 1, 0, 0) if name in loaded else (1, 0, 0, 1))


@pytest.mark.parametrize("verb", ["open", "send", "commit"])
def test_a_table_that_fails_is_given_up_alone(tmp_path: Path, verb: str) -> None:
    with running(tmp_path) as run:
        for name in ("a", "b", "c"):
            run.schema(name, "id")
            run.record(name, 1)
        run.state()
        run.celonis.faults[verb, "b"] = RemoteError("TC-REMOTE-02", "No.")
        with pytest.raises(RemoteError, match="TC-REMOTE-02"):
            run.loader.finish()
        run.loader.settle_after_failure()
        assert (run.ids("a"), run.ids("b"), run.ids("c")) == ([1], None, [1])
        assert run.celonis.verbs("abort") == (["b"] if verb == "send" else [])
        assert run.states == []
        assert run.counts("b") == (1, 0, 0, 1)
        assert run.counts("a") == run.counts("c") == (1, 1, 0, 0)


def test_what_would_be_appended_again_is_not_appended(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        for name, *keys in (("orders", "id"), ("early",), ("late",)):
            run.schema(name, *keys)
        run.record("early", 1)
        safe = run.state()
        run.record("orders", 1)
        run.record("late", 1)
        run.state()
        run.celonis.faults["commit", "orders"] = BAD_END
        with pytest.raises(RemoteError, match="TC-REMOTE-04"):
            run.loader.finish()
        run.loader.settle_after_failure()
        assert (run.ids("early"), run.ids("late")) == ([1], None)
        assert "late" not in run.celonis.verbs("open")
        assert run.states == [safe]
        assert run.counts("late") == (1, 0, 0, 1)


def test_what_appends_is_pushed_behind_all_others(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        names = [f"{kind}{number}" for number in range(3) for kind in ("plain", "keyed")]
        for name in names:
            run.schema(name, *(("id",) if name.startswith("keyed") else ()))
            run.record(name, 1)
        last = run.state()
        run.loader.finish()
        commits, opens = run.celonis.verbs("commit"), run.celonis.verbs("open")
        assert sorted(commits) == sorted(names)
        assert {name[:5] for name in commits[:3]} == {name[:5] for name in opens[:3]} == {"keyed"}
        assert run.states == [last]


def test_a_failed_checkpoint_does_not_end_the_reading(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id", a="string")
        run.schema("events", "id")
        run.record("orders", 1)
        run.state()
        run.celonis.faults["commit", "orders"] = BAD_END
        run.checkpoint()
        run.celonis.faults.clear()
        run.record("orders", 2)
        run.schema("orders", "a", a="string")
        run.record("orders", 3)
        run.record("events", 1)
        run.state()
        run.checkpoint()
        with pytest.raises(RemoteError, match="TC-REMOTE-04"):
            run.loader.finish()
        run.loader.settle_after_failure()
        assert run.ids("events") == [1]
        assert run.celonis.verbs("commit") == ["orders", "events"]
        assert run.counts("orders") == (3, 0, 0, 3)
        assert run.states == []
        assert [p.name for p in run.spool.path.rglob("*.parquet*")] == []


def test_the_first_failure_is_the_one_that_is_told(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        for name in ("a", "b"):
            run.schema(name, "id")
        run.record("a", 1)
        run.celonis.faults["commit", "a"] = BAD_END
        run.checkpoint()
        run.record("b", 1)
        run.celonis.faults["open", "b"] = ContractError("TC-CONTRACT-03", "Too narrow.")
        run.checkpoint()
        with pytest.raises(RemoteError, match="TC-REMOTE-04"):
            run.loader.finish()
        run.loader.settle_after_failure()
        failures = [report.failure for report in run.loader.reports()]
        assert failures == ["TC-REMOTE-04", "TC-CONTRACT-03"]


def test_bad_input_lets_what_was_executed_end_and_its_state_go_out(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        first = run.state()
        run.celonis.gate.clear()
        run.clock.seconds += 1_800
        run.loader.tick()
        run.record("orders", 2)
        run.state()
        run.record("orders", 3, line=None, id="x")
        with pytest.raises(InputError):
            run.loader.finish()
        threading.Timer(0.1, run.celonis.gate.set).start()
        run.loader.settle_after_failure()
        assert run.ids("orders") in ([1], None)
        loaded = len(run.ids("orders") or [])
        assert run.states == [first][:loaded]
        assert run.counts("orders") == (3, loaded, 0, 3 - loaded)


def test_a_push_that_was_never_begun_is_counted_as_not_loaded(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.celonis.gate.clear()
        for name in ("orders", "events"):
            run.schema(name, "id")
        run.record("orders", 1)
        first = run.state()
        run.record("events", 1)
        run.state()
        run.celonis.faults["commit", "events"] = AccessError("TC-ACCESS-01", "No.")
        run.clock.seconds += 1_800
        run.loader.tick()
        run.wait_for("gate", "orders", "events")
        run.record("orders", 2)
        run.state()
        threading.Timer(0.2, run.celonis.gate.set).start()
        with pytest.raises(AccessError):
            run.loader.finish()  # pushes again, behind the first
        run.loader.settle_after_failure()
        assert run.ids("orders") == [1]
        assert run.celonis.verbs("open").count("orders") == 1
        assert run.states == [first]
        assert run.counts("orders") == (2, 1, 0, 1)
        assert run.counts("events") == (1, 0, 0, 1)


def test_what_ends_all_is_known_before_the_others_are_stopped(tmp_path: Path) -> None:
    """That they were stopped is not why the run failed."""
    error = AccessError("TC-ACCESS-01", "No.")
    with running(tmp_path) as run:
        seen: list[BaseException | None] = []
        run.celonis.when_ended = lambda: seen.append(run.pusher._progress.failure)
        run.schema("orders", "id")
        run.record("orders", 1)
        run.celonis.faults["open", "orders"] = error
        finish_failing(run, error)
        assert seen[0] is error


def test_threads_that_cannot_be_started_fail_the_run(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.state()
        run.pusher._pushes.shutdown()  # takes nothing more, as where the machine has no threads
        with pytest.raises(RuntimeError):
            run.loader.finish()
        run.loader.settle_after_failure()
        assert run.states == []
        assert run.counts("orders") == (1, 0, 0, 1)


def finish_failing(run: Run, error: TargetCelonisError) -> None:
    with pytest.raises(type(error), match=error.code):
        run.loader.finish()
    run.loader.settle_after_failure()


@pytest.mark.parametrize("verb", ["open", "send", "commit"])
def test_behind_an_append_that_failed_nothing_more_is_appended(tmp_path: Path, verb: str) -> None:
    """No state behind it can go out, so that all would be appended again by the next run."""
    with running(tmp_path) as run:
        names = [f"p{number}" for number in range(8)]
        for name in names:
            run.schema(name)
            run.record(name, 1)
        run.state()
        run.celonis.faults[verb, "p0"] = BAD_END

        def open_gate() -> None:
            run.wait_for("open", "p2")  # what took the first one goes on: it has failed
            run.celonis.gate.set()

        if verb != "commit":
            run.celonis.gate.clear()
            threading.Thread(target=open_gate, daemon=True).start()
        finish_failing(run, BAD_END)
        happened = run.celonis.events
        assert ("commit", "p2") not in happened
        behind = happened[happened.index((verb, "p0")) :]
        loaded = {name for name in names if run.ids(name)}
        assert loaded <= {"p1"}  # which was under way by then
        if verb == "commit":
            assert [what for what, _ in behind].count("commit") == 1
        opened = set(run.celonis.verbs("open"))
        aborted = opened - loaded - (set() if verb == "send" else {"p0"})
        assert set(run.celonis.verbs("abort")) == aborted
        assert run.states == []
        for name in names:
            assert run.counts(name) == ((1, 1, 0, 0) if name in loaded else (1, 0, 0, 1))
        wanted = {name: "" if name in loaded else BAD_END.code for name in names}
        assert run.failures() == wanted
        assert [p.name for p in run.spool.path.rglob("*.parquet*")] == []


def test_appends_are_carried_out_one_by_one(tmp_path: Path) -> None:
    """With two under way, one would be DONE behind the failure of the other."""
    with running(tmp_path) as run:
        names = ["p0", "p1", "p2"]
        for name in names:
            run.schema(name)
            run.record(name, 1)
        last = run.state()
        run.celonis.gate.clear()
        run.clock.seconds += 1_800
        run.loader.tick()
        run.wait_for("send", "p0", "p1")
        threading.Timer(0.2, run.celonis.gate.set).start()  # so long for the other to come up
        run.loader.finish()
        happened = [event for event in run.celonis.events if event[0] in ("gate", "commit")]
        assert [verb for verb, _ in happened] == ["gate", "commit"] * 3
        assert run.states == [last]


def test_an_append_that_failed_ends_no_later_one_of_others(tmp_path: Path) -> None:
    """What comes behind it waits in vain; what lies before it does not."""
    with running(tmp_path, streams=OVERWRITE) as run:
        for name in ("before", "broken"):
            run.schema(name)
        run.schema("keyed", "id")
        run.record("before", 1)
        first = run.state()
        run.celonis.faults["commit", "broken"] = BAD_END
        run.checkpoint()
        run.record("broken", 1)
        run.state()
        run.checkpoint()
        for name in ("before", "broken", "keyed"):
            run.record(name, 2)
        run.state()
        finish_failing(run, BAD_END)
        assert (run.ids("before"), run.ids("broken"), run.ids("keyed")) == ([1], None, [2])
        assert run.states == [first]
        assert run.failures() == {"before": BAD_END.code, "broken": BAD_END.code, "keyed": ""}
        assert run.counts("before") == (2, 1, 0, 1)


def test_what_is_given_up_says_why(tmp_path: Path) -> None:
    error = ContractError("TC-CONTRACT-04", "Another type.")
    with running(tmp_path) as run:
        run.schema("keyed", "id")
        run.schema("plain")
        run.record("keyed", 1)
        run.record("plain", 1)
        run.state()
        run.celonis.faults["open", "keyed"] = error
        finish_failing(run, error)
        assert run.failures() == dict.fromkeys(["keyed", "plain"], "TC-CONTRACT-04")
        assert run.counts("plain") == (1, 0, 0, 1)


def test_what_is_given_up_while_the_input_breaks_says_why(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        for name in ("p0", "p1"):
            run.schema(name)
            run.record(name, 1)
        run.state()
        for name in ("p0", "p1"):
            run.celonis.faults["commit", name] = BAD_END
        run.clock.seconds += 1_800
        run.loader.tick()
        run.pusher.wait(PATIENCE_SECONDS)  # both have ended, and nobody has asked
        run.loader.settle_after_failure()
        assert run.failures() == dict.fromkeys(["p0", "p1"], BAD_END.code)
        assert run.counts("p0") == run.counts("p1") == (1, 0, 0, 1)


def test_a_key_that_appears_in_mid_run_waits_for_rows_without_one(tmp_path: Path) -> None:
    """What appends waits for the others; newer rows must not go before it."""
    with running(tmp_path) as run:
        run.schema("busy", "id")
        run.record("busy", 1)
        run.celonis.gate.clear()
        run.clock.seconds += 1_800
        run.loader.tick()
        run.wait_for("gate", "busy")
        run.schema("orders")
        older = run.record("orders", 1)
        middle = run.state()
        threading.Timer(0.2, run.celonis.gate.set).start()
        run.schema("orders", "id")
        assert run.celonis.tables["orders"] == [{"line": older, "id": 1}]
        newer = run.record("orders", 1)
        last = run.state()
        run.loader.finish()
        assert run.celonis.verbs("commit") == ["busy", "orders", "orders"]
        assert run.celonis.tables["orders"] == [{"line": newer, "id": 1}]
        assert run.states == [middle, last]
        assert run.counts("orders") == (2, 2, 0, 0)


def test_a_stream_on_a_disk_that_is_gone_can_be_given_up(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.celonis.gate.clear()
        run.celonis.faults["commit", "orders"] = BAD_END
        run.clock.seconds += 1_800
        run.loader.tick()
        run.wait_for("gate", "orders")
        run.record("orders", 2)
        stream = run.loader._streams["orders"]
        stream.convert()  # held by the writer, not yet in a file
        assert stream.held_bytes
        for directory in run.spool.path.glob("*-orders"):
            shutil.rmtree(directory)
        run.celonis.gate.set()
        run.settle()
        assert stream.held_bytes == 0
        finish_failing(run, BAD_END)
        assert run.counts("orders") == (2, 0, 0, 2)


def test_a_stream_that_is_given_up_leaves_no_open_chunk(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.record("orders", 1)
        run.celonis.gate.clear()
        run.celonis.faults["commit", "orders"] = BAD_END
        run.clock.seconds += 1_800
        run.loader.tick()
        run.wait_for("gate", "orders")
        run.record("orders", 2)
        stream = run.loader._streams["orders"]
        stream.flush()
        assert list(run.spool.path.rglob("*.parquet.part"))
        run.celonis.gate.set()
        run.settle()
        assert not stream.has_open_file
        assert list(run.spool.path.rglob("*.parquet*")) == []
        finish_failing(run, BAD_END)


def test_checkpoints_leave_no_directories(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        for name, *keys in (("keyed", "id"), ("plain",)):
            run.schema(name, *keys)
        for number in range(5):
            run.record("keyed", number)
            run.record("plain", number)
            run.state()
            run.checkpoint()
            run.settle()
        assert run.ids("keyed") == run.ids("plain") == list(range(5))
        assert [path.name for path in run.spool.path.iterdir() if path.is_dir()] == []


# --- bounds and counts


def test_row_groups_in_the_making_stay_within_the_memory_limit(tmp_path: Path) -> None:
    with running(tmp_path, memory_limit_mb=64) as run:
        names = [f"s{number}" for number in range(20)]
        wide = [f"c{number}" for number in range(60)]
        for name in names:
            run.schema(name, **dict.fromkeys(wide, "string"))
        for _ in range(3):
            for name in names:
                run.record(name, 1, **dict.fromkeys(wide, "x" * 16_000))
                held = sum(stream.held_bytes for stream in run.loader._streams.values())
                assert held <= 64_000_000 / 4 + 1_000_000
        run.loader.finish()
        assert all(run.counts(name) == (3, 3, 0, 0) for name in names)


def noise() -> str:
    """A text that cannot be compressed."""
    return random.randbytes(8_000).hex()  # noqa: S311  # no secrets


def test_a_full_spool_closes_the_checkpoint_early(tmp_path: Path) -> None:
    with running(tmp_path, limit_bytes=3_000_000, chunk_size_mb=1) as run:
        run.schema("orders", "id", text="string")
        run.schema("events", text="string")
        states = []
        for number in range(300):
            run.record("orders", number, text=noise())
            run.record("events", number, text=noise())
            states.append(run.state())
            assert run.spool.room.used_bytes() <= 3_000_000
        assert len(run.celonis.verbs("commit")) >= 4  # of 9 MB, though no time has passed
        assert len(run.states) >= 2
        run.loader.finish()
        assert run.ids("events") == list(range(300))
        assert run.counts("orders") == run.counts("events") == (300, 300, 0, 0)
        assert run.states[-1] == states[-1]


def test_a_full_spool_does_not_wait_with_what_appends(tmp_path: Path) -> None:
    """No state goes out before the overwrite; else nothing more could be read."""
    rules = [OVERWRITE[0] | {"trust_end_of_input": True}]
    with running(tmp_path, limit_bytes=3_000_000, chunk_size_mb=1, streams=rules) as run:
        run.schema("orders", "id")
        run.schema("events", text="string")
        run.record("orders", 1)
        for number in range(300):
            run.record("events", number, text=noise())
        assert run.celonis.verbs("commit").count("events") >= 1
        assert "orders" not in run.celonis.verbs("open")
        last = run.state()
        run.loader.finish()
        assert run.ids("events") == list(range(300))
        assert run.states == [last]


def fill(run: Run, stream: str) -> None:
    """Send more than there is room for."""
    for number in range(300):
        run.record(stream, number, text=noise())


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with another"])
def test_a_spool_that_is_full_of_what_waits_for_its_end(tmp_path: Path, *, beside: bool) -> None:
    with running(tmp_path, limit_bytes=3_000_000, chunk_size_mb=1, streams=OVERWRITE) as run:
        run.schema("orders", "id", text="string")
        run.schema("events", "id", text="string")
        if beside:
            for number in range(10):
                run.record("events", number, text=noise())
        with pytest.raises(LimitError) as caught:
            fill(run, "orders")
        assert (caught.value.code, caught.value.exit_code) == ("TC-LIMIT-05", 7)
        for named in ("`orders`", "0.00 GB", "`spool_limit_gb`", "`spool_dir`"):
            assert named in str(caught.value)
        assert run.spool.room.used_bytes() <= 3_000_000
        run.loader.settle_after_failure()
        assert run.celonis.verbs("commit") == (["events"] if beside else [])
        assert run.ids("orders") is None


def test_checkpoints_are_as_far_apart_as_the_submits_of_the_hour_ask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with running(tmp_path, checkpoint_interval_minutes=10) as run:
        run.celonis.pace_seconds_per_push = 500
        for name in ("a", "b"):
            run.schema(name, "id")
            run.record(name, 1)
        run.checkpoint(600)
        run.checkpoint(399)
        assert run.celonis.events == []
        run.checkpoint(1)
        assert sorted(run.celonis.verbs("commit")) == ["a", "b"]
        run.record("a", 2)
        run.checkpoint(600)  # one push needs no more than 500
        assert run.ids("a") == [1, 2]
        said = [r.getMessage() for r in caplog.records if "further apart" in r.getMessage()]
        assert len(said) == 1
        assert "2 push jobs" in said[0]


def test_filtered_records_are_counted_and_hold_nothing_back(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id")
        run.loader.records(RecordRun("orders", None, [], [], filtered=3))
        last = run.state()
        assert run.states == [last]
        run.record("orders", 1)
        run.loader.finish()
        report = run.loader.reports()[0]
        assert (report.read, report.filtered, report.loaded) == (4, 3, 1)


def test_rules_that_were_applied_are_told_with_their_columns() -> None:
    counts = Counter({("a", "overflow_as_null"): 2, ("b", "overflow_as_null"): 1,
                      ("c", "text_as_value"): 5})  # fmt: skip
    told = {line: level for level, line in rules_applied("s", counts)}
    (overflow,) = [line for line in told if RULES["overflow_as_null"] in line]
    (text,) = [line for line in told if RULES["text_as_value"] in line]
    assert "a (2), b (1)" in overflow
    assert "c (5)" in text
    assert told[overflow] > told[text]  # what loses something is a warning


def test_rules_are_counted_over_the_whole_run(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.schema("orders", "id", a="integer")
        run.record("orders", 1, a="7")
        run.checkpoint()
        run.record("orders", 2)
        run.record("orders", 3, a="8", b=1)
        run.loader.finish()
        assert run.loader.reports()[0].rules == {
            ("a", "text_as_value"): 2,
            ("a", "missing_as_null"): 1,
            ("b", "unknown_property"): 1,
        }


# --- anything, in any order

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("record"), st.sampled_from(["keyed", "plain", "over"]), st.integers(0, 3)
        ),
        st.tuples(st.just("state"), st.sampled_from([(), (None,), ("over",), ("keyed",)])),
        st.tuples(st.just("schema"), st.sampled_from(["keyed", "plain", "over"]), st.booleans()),
        st.tuples(st.just("activate"), st.integers(0, 1)),
        st.tuples(st.just("checkpoint")),
        st.tuples(st.just("tick")),
    ),
    max_size=30,
)


class Expected:
    """What a run must come to, by line numbers."""

    def __init__(self) -> None:
        self.by_key: dict[int, int] = {}
        self.plain: list[int] = []
        self.over: dict[int, int] = {}
        self.proven = True
        self.last_state: int | None = None


def take(step: str, facts: list[Any], run: Run, expected: Expected) -> None:
    """Do a step, and note what follows from it."""
    if step == "record":
        stream, number = facts
        line = run.record(stream, number, version=1 if stream == "over" else None)
        if stream == "plain":
            expected.plain.append(line)
        elif stream == "keyed":
            expected.by_key[number] = line
        else:
            expected.over[number] = line
            expected.proven = False
    elif step == "state":
        expected.last_state = run.state(*facts[0])
        expected.proven |= facts[0] not in ((), ("over",))
    elif step == "schema":
        stream, wide = facts
        keys = () if stream == "plain" else ("id",)
        run.schema(stream, *keys, **({"extra": "string"} if wide else {}))
    elif step == "activate":
        run.activate("over", facts[0])
        expected.proven |= facts[0] == 1
    elif step == "checkpoint":
        run.checkpoint()
    else:
        run.loader.tick()


@given(steps)
@settings(max_examples=60, deadline=None)
def test_any_run_keeps_the_promises(drawn: list[Any]) -> None:
    expected = Expected()
    rules = [{"match": "over", "load_method": "overwrite"}]
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), streams=rules) as run,
    ):
        run.schema("keyed", "id")
        run.schema("plain")
        run.schema("over", "id")
        for step, *facts in drawn:
            take(step, facts, run, expected)
        before = [row["line"] for row in run.celonis.tables.get("plain", [])]
        if expected.over and not expected.proven:
            with pytest.raises(InputError, match="TC-INPUT-10"):
                run.loader.finish()
            expected.over = {}
            # The rest is appended all or not at all, and only if its state could go out.
            if len(run.celonis.tables.get("plain", [])) > len(before):
                assert expected.plain[-1:] <= run.states[-1:]
            else:
                expected.plain = before
        else:
            run.loader.finish()
            last = expected.last_state
            assert run.states[-1:] == ([] if last is None else [last])
        run.loader.settle_after_failure()
        assert run.states == sorted(set(run.states))
        lines = {t: [row["line"] for row in rows] for t, rows in run.celonis.tables.items()}
        assert sorted(lines.get("keyed", [])) == sorted(expected.by_key.values())
        assert lines.get("plain", []) == expected.plain
        assert sorted(lines.get("over", [])) == sorted(expected.over.values())
        assert len(run.celonis.verbs("commit")) == len(run.celonis.verbs("open"))
        assert run.celonis.verbs("commit").count("over") <= 1
        for report in run.loader.reports():
            assert report.read == sum(step[:2] == ("record", report.stream) for step in drawn)


def test_two_streams_that_a_map_gives_one_name_are_refused(tmp_path: Path) -> None:
    """The end of one would be taken for the end of both."""
    with running(tmp_path) as run:
        schema = {"properties": {"id": {"type": "integer"}}}
        run.loader.schema(SchemaMessage(1, "all", schema, ("id",), "a"))
        with pytest.raises(ContractError, match="TC-CONTRACT-01"):
            run.loader.schema(SchemaMessage(2, "all", schema, ("id",), "b"))


def test_states_between_single_records_make_no_batch_of_each(tmp_path: Path) -> None:
    """Each batch would cost kilobytes that nobody counts."""
    with running(tmp_path) as run:
        run.schema("orders", "id")
        held = []
        for number in range(2_500):
            run.record("orders", number)
            run.state()
            held.append(run.loader._holdings._held_bytes)
        assert max(held) < 1_000_000
        run.loader.finish()
        assert run.ids("orders") == list(range(2_500))
