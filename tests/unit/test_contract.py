"""What may go into a table that is there, and what is declared of its columns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_celonis.config import Config, parse
from target_celonis.contract import (
    ListedColumn,
    Terms,
    check_outcome,
    cut_lengths,
    declared_length,
    fitted,
    refuse_shrinking,
    terms,
)
from target_celonis.errors import ContractError
from target_celonis.kinds import Kind
from target_celonis.table import Column, TablePlan


def config(**values: Any) -> Config:
    return parse({"base_url": "embedded"} | values, {})


def table(*columns: Column | tuple[str, Kind]) -> TablePlan:
    made = [c if isinstance(c, Column) else Column(c[0], c[0], c[1]) for c in columns]
    return TablePlan("s", "t", tuple(made))


def refused(code: str, *words: str) -> Any:
    """Expect a ContractError whose sentence has all of some words."""
    pattern = "".join(f"(?=.*{word})" for word in words)
    return pytest.raises(ContractError, match=rf"\[{code}\]{pattern}")


# --- lengths


@pytest.mark.parametrize(
    ("longest", "max_length", "length"),
    [
        (0, None, 255),
        (1, None, 255),
        (127, None, 255),
        (128, None, 1000),
        (500, None, 1000),
        (501, None, 4000),
        (2000, None, 4000),
        (2001, None, 16250),
        (8125, None, 16250),
        (8126, None, 16250),
        (16250, None, 16250),
        (0, 255, 255),
        (0, 256, 1000),
        (1, 1000, 1000),
        (1, 1001, 4000),
        (1, 4001, 16250),
        (501, 10, 4000),
    ],
)
def test_declared_lengths(longest: int, max_length: int | None, length: int) -> None:
    assert declared_length(longest, max_length) == length


@given(st.integers(0, 16250), st.none() | st.integers(1, 16250))
@settings(max_examples=100, deadline=None)
def test_a_declared_length_never_cuts(longest: int, max_length: int | None) -> None:
    length = declared_length(longest, max_length)
    assert length in (255, 1000, 4000, 16250)
    assert length >= max(longest, max_length or 0)
    assert length == 16250 or length >= 2 * longest


# --- types


@pytest.mark.parametrize(
    ("kind", "listed", "sent"),
    [
        (Kind.INTEGER, "INTEGER", Kind.INTEGER),
        (Kind.INTEGER, "FLOAT", Kind.FLOAT),
        (Kind.INTEGER, "STRING", Kind.TEXT),
        (Kind.INTEGER, "DATE", None),
        (Kind.FLOAT, "FLOAT", Kind.FLOAT),
        (Kind.FLOAT, "INTEGER", None),
        (Kind.FLOAT, "STRING", Kind.TEXT),
        (Kind.TEXT, "STRING", Kind.TEXT),
        (Kind.TEXT, "INTEGER", None),
        (Kind.TEXT, "DATE", None),
        (Kind.JSON, "STRING", Kind.JSON),
        (Kind.DATE, "DATE", Kind.DATE),
        (Kind.DATE, "STRING", Kind.TEXT),
        (Kind.DATETIME, "DATE", Kind.DATETIME),
        (Kind.DATETIME, "FLOAT", None),
        (Kind.BOOLEAN, "INTEGER", Kind.BOOLEAN),  # the listing does not show booleans
        (Kind.BOOLEAN, "STRING", Kind.TEXT),
        (Kind.BOOLEAN, "FLOAT", None),
        (Kind.INTEGER, "NEWLY INVENTED", Kind.INTEGER),
    ],
)
def test_what_a_listed_type_takes(kind: Kind, listed: str, sent: Kind | None) -> None:
    length = 80 if listed == "STRING" else None
    there = [ListedColumn("A", listed, length)]
    if sent is None:
        with refused("TC-CONTRACT-04", "`a`", f"{listed} in Celonis", "overwrite"):
            fitted(table(("a", kind)), there, config())
        return
    plan = fitted(table(("a", kind), ("b", kind)), there, config())
    assert [column.kind for column in plan.columns] == [sent, kind]


def test_a_text_column_without_a_length_may_be_one_of_booleans() -> None:
    plan = table(("a", Kind.BOOLEAN))
    assert fitted(plan, [ListedColumn("a", "STRING", None)], config()) is plan


def test_a_plan_that_fits_is_the_same_one() -> None:
    plan = table(("a", Kind.INTEGER), ("b", Kind.TEXT))
    there = [ListedColumn("A", "INTEGER", None), ListedColumn("_CELONIS_CHANGE_DATE", "DATE", None)]
    assert fitted(plan, there, config()) is plan


@pytest.mark.parametrize(
    ("there", "word"),
    [
        ([("a", "INTEGER")], "`b` of table `t` is new"),
        ([("A", "INTEGER"), ("b", "STRING"), ("c", "FLOAT")], "`c` of table `t` is not in"),
        ([("a", "FLOAT"), ("b", "STRING")], "`a` of table `t` has another type"),
        ([], "`a` of table `t` is new"),
    ],
)
def test_frozen_is_any_difference(there: list[tuple[str, str]], word: str) -> None:
    listed = [ListedColumn(name, kind, 80) for name, kind in there]
    plan = table(("a", Kind.INTEGER), ("b", Kind.TEXT))
    with refused("TC-CONTRACT-09", word):
        fitted(plan, listed, config(schema_change="freeze"))
    fitted(plan, listed, config())


def test_frozen_is_no_difference_of_celonis_itself() -> None:
    there = [ListedColumn("A", "INTEGER", None), ListedColumn("_celonis_change_date", "DATE", None)]
    plan = table(("a", Kind.INTEGER))
    assert fitted(plan, there, config(schema_change="freeze")) is plan


# --- texts and columns


@pytest.mark.parametrize(
    ("measured", "listed", "declared"),
    [(80, 80, 80), (81, 80, None), (0, 1, 1), (300, None, 1000), (0, 65_000, 65_000)],
)
def test_a_text_against_the_listed_length(
    measured: int, listed: int | None, declared: int | None
) -> None:
    plan, there = table(("a", Kind.TEXT)), [ListedColumn("A", "STRING", listed)]
    if declared is None:
        with refused("TC-CONTRACT-03", "`a`", "holds 80", "of 81", "widen_columns", "truncate"):
            terms(plan, {"a": measured}, there, config())
        agreed = terms(plan, {"a": measured}, there, config(widen_columns=True))
        assert (agreed.lengths, agreed.widened) == ({"a": 255}, (("a", 81),))
        return
    assert terms(plan, {"a": measured}, there, config()) == Terms({"a": declared})


def test_new_columns_are_those_that_the_pool_lacks() -> None:
    plan = table(("Id", Kind.INTEGER), ("added", Kind.TEXT))
    there = [ListedColumn("ID", "INTEGER", None), ListedColumn("gone", "STRING", 10)]
    assert terms(plan, {}, there, config()).new == ("added",)
    assert terms(plan, {}, None, config()).new == ()


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.JSON])
def test_a_chosen_length_is_declared_and_kept_to(kind: Kind) -> None:
    plan = table(Column("a", "a", kind, max_length=900, length=20_000))
    assert terms(plan, {"a": 20_000}, None, config()).lengths == {"a": 20_000}
    with refused("TC-CONTRACT-05", "20001", "20000"):
        terms(plan, {"a": 20_001}, None, config())


def test_where_texts_are_cut() -> None:
    plan = table(
        Column("k", "k", Kind.TEXT, is_key=True),
        ("n", Kind.INTEGER),
        ("there", Kind.TEXT),
        ("new", Kind.JSON),
        Column("chosen", "chosen", Kind.TEXT, length=10),
    )
    there = [ListedColumn("K", "STRING", 5), ListedColumn("THERE", "STRING", 80)]
    truncate = config(oversize_string="truncate")
    assert cut_lengths(plan, there, truncate) == {"there": 80, "new": 16_250, "chosen": 10}
    assert cut_lengths(plan, there, config()) == {}
    widening = config(oversize_string="truncate", widen_columns=True)
    assert cut_lengths(plan, there, widening)["there"] == 16_250


# --- afterwards


def test_what_a_push_must_have_made() -> None:
    plan = table(("a", Kind.TEXT), ("b", Kind.TEXT))
    agreed = Terms({"a": 1000, "b": 255}, new=("b",), widened=(("a", 300),))
    made = [ListedColumn("A", "STRING", 300), ListedColumn("B", "STRING", 255)]
    check_outcome(plan, agreed, made)
    check_outcome(plan, agreed, None)
    with refused("TC-CONTRACT-06", "`b`"):
        check_outcome(plan, agreed, made[:1])
    with refused("TC-CONTRACT-08", "`a`", "300"):
        check_outcome(plan, agreed, [ListedColumn("A", "STRING", 299), made[1]])


@pytest.mark.parametrize(
    ("before", "rows", "settings_", "refuses"),
    [
        (1000, 500, {}, False),
        (1000, 499, {}, True),
        (1000, 1, {"min_row_ratio": 0}, False),
        (1000, 999, {"min_row_ratio": 1}, True),
        (1000, 1, {"allow_shrink": ["other", "T"]}, False),
        (1000, 1, {"allow_shrink": ["other"]}, True),
        (None, 1, {}, False),
        (0, 1, {}, False),
    ],
)
def test_how_far_a_table_may_shrink(
    before: int | None, rows: int, settings_: dict[str, Any], refuses: bool
) -> None:
    if refuses:
        with refused("TC-CONTRACT-07", "`t`", "from 1000 rows", "allow_shrink"):
            refuse_shrinking("t", rows, before, config(**settings_))
    else:
        refuse_shrinking("t", rows, before, config(**settings_))
