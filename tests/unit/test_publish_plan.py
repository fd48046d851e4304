"""What is to be published: the decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_celonis.errors import SettingsError
from target_celonis.publish_plan import Extent, Knowledge, TableKey, choose, due, key_of, named
from target_celonis.publish_rules import DataModelRule, Reload
from target_celonis.publishing_api import DataModel, ModelTable

ORDERS = ModelTable("1", "Orders", None)
ITEMS = ModelTable("2", "ITEMS", "erp", alias="Order items")
VIEW = ModelTable("3", "ACTIVITIES", None)
MODEL = DataModel("m", "Model", (ORDERS, ITEMS, VIEW))
KINDS = {key_of(ORDERS): "TABLE", key_of(ITEMS): "TABLE", key_of(VIEW): "TABLE"}


def keys(*names: str, connection: str | None = None) -> frozenset[TableKey]:
    return frozenset(TableKey.of(connection, name) for name in names)


SURE = Knowledge(keys("orders"), doubt=None, kinds=KINDS)
DOUBT = {"doubt": "no earlier publish is noted"}
AUTO = DataModelRule("m")
PARTIAL = DataModelRule("m", Reload.PARTIAL)
BAD = {"ERROR", "CANCELED"}


def chosen(
    rule: DataModelRule = AUTO, *, is_loaded: bool = True, **more: Any
) -> tuple[Extent, str]:
    choice = choose(rule, MODEL, replace(SURE, **more), is_loaded=is_loaded)
    return choice.extent, " ".join(table.id for table in choice.tables)


ALL = (Extent.ALL, "1 2 3")
NOTHING = (Extent.NOTHING, "")


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({}, (Extent.PART, "1")),
        ({"changed": keys("ORDERS", "other")}, (Extent.PART, "1")),
        ({"changed": keys("items", connection="erp")}, (Extent.PART, "2")),
        ({"changed": keys("items")}, NOTHING),  # of another connection
        ({"changed": keys("order items", connection="erp")}, NOTHING),  # an alias is no table
        ({"changed": keys()}, NOTHING),
        ({"changed": keys(), "is_asked_for": True}, ALL),
        ({"is_asked_for": True}, (Extent.PART, "1")),
        ({"is_asked_for": True, "is_open": True}, ALL),
        ({"after_jobs": True}, ALL),
        ({"after_jobs": True, "changed": keys()}, ALL),
        (DOUBT, ALL),
        (DOUBT | {"changed": keys()}, ALL),
        ({"is_loaded": False}, ALL),
        ({"kinds": None}, ALL),
        ({"kinds": KINDS | {key_of(VIEW): "VIEW"}}, ALL),
        ({"kinds": KINDS | {key_of(VIEW): None}}, ALL),
        ({"kinds": {key_of(ORDERS): "TABLE"}}, ALL),
        ({"kinds": KINDS | {key_of(VIEW): "VIEW"}, "changed": keys()}, NOTHING),
        ({"kinds": KINDS | {key_of(VIEW): "VIEW"}, "changed": keys("elsewhere")}, ALL),
        ({"kinds": None, "changed": keys("elsewhere")}, ALL),
        ({"changed": keys("elsewhere")}, NOTHING),
        ({"changed": keys("orders", "activities") | keys("items", connection="erp")}, ALL),
    ],
)
def test_auto_is_partial_only_where_that_is_surely_enough(
    known: dict[str, Any], wanted: tuple[Extent, str]
) -> None:
    assert chosen(**known) == wanted


@pytest.mark.parametrize(
    ("tables", "known", "wanted"),
    [
        ((), {}, (Extent.PART, "1")),
        ((), {"after_jobs": True, "kinds": None}, (Extent.PART, "1")),
        ((), DOUBT, ALL),
        ((), DOUBT | {"changed": keys()}, ALL),
        ((), {"is_asked_for": True}, (Extent.PART, "1")),
        ((), {"is_asked_for": True, "is_open": True}, (Extent.PART, "1")),
        ((), {"is_asked_for": True, "changed": keys()}, ALL),
        ((), {"changed": keys()}, NOTHING),
        ((), {"changed": keys(), "is_loaded": False}, ALL),
        (("activities",), {}, (Extent.PART, "3")),
        (("activities",), DOUBT, (Extent.PART, "3")),
        (("ORDER ITEMS", "Activities"), {"changed": keys()}, (Extent.PART, "2 3")),
        (("items", "Order items"), {}, (Extent.PART, "2")),
    ],
)
def test_partial_is_what_the_user_says(
    tables: tuple[str, ...], known: dict[str, Any], wanted: tuple[Extent, str]
) -> None:
    assert chosen(replace(PARTIAL, tables=tables), **known) == wanted


def test_complete_is_complete() -> None:
    assert chosen(DataModelRule("m", Reload.COMPLETE), changed=keys()) == ALL


def test_a_table_that_the_model_has_not() -> None:
    with pytest.raises(SettingsError, match=r"names `nothing`.*It has: ACTIVITIES, ITEMS, Orders"):
        chosen(replace(PARTIAL, tables=("nothing",)))


@given(
    changed=st.frozensets(st.sampled_from([key_of(t) for t in MODEL.tables])),
    others=st.booleans(),
    kinds=st.none()
    | st.dictionaries(st.sampled_from(list(KINDS)), st.sampled_from(["TABLE", "VIEW"])),
    doubt=st.sampled_from([None, "there is a doubt"]),
    flags=st.tuples(*[st.booleans()] * 4),
)
def test_auto_never_leaves_out_what_may_have_changed(
    changed: frozenset[TableKey],
    others: bool,
    kinds: dict[TableKey, str | None] | None,
    doubt: str | None,
    flags: tuple[bool, bool, bool, bool],
) -> None:
    after_jobs, is_asked_for, is_open, is_loaded = flags
    all_changed = changed | (keys("elsewhere") if others else keys())
    knowledge = Knowledge(all_changed, doubt, after_jobs, is_asked_for, is_open, kinds)
    choice = choose(AUTO, MODEL, knowledge, is_loaded=is_loaded)
    left_out = [t for t in MODEL.tables if t not in choice.tables]
    assert not {key_of(table) for table in left_out} & changed
    if left_out:
        assert doubt is None
        assert is_loaded
        assert not after_jobs
        assert not is_open
    if left_out and all_changed:
        assert {(kinds or {}).get(key_of(table)) for table in left_out} == {"TABLE"}
    assert choice.reason


@pytest.mark.parametrize(
    ("known", "status", "reason"),
    [
        ({}, "SUCCESS", "these tables changed: orders"),
        ({"changed": keys()}, "SUCCESS", None),
        ({"changed": keys()}, "WARNING", None),
        ({"changed": keys()}, "ERROR", "the last load of data model m did not end well"),
        ({"changed": keys()}, "CANCELED", "the last load of data model m did not end well"),
        ({"changed": keys()}, "RUNNING", None),
        ({"changed": keys()}, "LOST_CONNECTION", None),
        ({"changed": keys()}, None, "data model m was never loaded"),
        ({"changed": keys(), "doubt": "so it is"}, "SUCCESS", "so it is"),
        ({"doubt": "so it is"}, "ERROR", "so it is"),
        ({"changed": keys(), "is_asked_for": True}, "SUCCESS", "it is asked for"),
    ],
)
def test_when_something_is_due(
    known: dict[str, Any], status: str | None, reason: str | None
) -> None:
    assert due(replace(SURE, **known), {"m": status}, BAD) == reason
    assert (due(replace(SURE, **known), {}, BAD) is None) == (
        known.get("changed") == keys() and len(known) == 1
    )


def test_a_sentence_does_not_name_too_many() -> None:
    assert named(["b", "a"]) == "a, b"
    assert named(str(n) for n in range(12)) == "0, 1, 10, 11, 2, 3, 4, 5, 6, 7 and 2 more"
