"""JSON schemas become columns, names become legal, plans widen, lengths are chosen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from target_celonis.errors import ContractError, InputError
from target_celonis.kinds import Kind
from target_celonis.names import column_names, legal_name
from target_celonis.stream_rules import ColumnRule
from target_celonis.table import Column, TablePlan, plan_table, widen

any_name = st.text(st.characters(exclude_categories=()), max_size=60)
likely_to_collide = st.text("aAbB _-.!ßsSé", max_size=4)

DEFINITIONS = {
    "int": {"type": "integer"},
    "text": {"type": ["null", "string"]},
    "stamp": {"type": "string", "format": "date-time"},
    "tree": {"type": "object", "properties": {"left": {"$ref": "#/definitions/tree"}}},
    "knot": {"$ref": "#/definitions/knot"},
    "ping": {"$ref": "#/definitions/pong"},
    "pong": {"anyOf": [{"$ref": "#/definitions/ping"}, {"type": "string"}]},
    "a/b": {"type": "boolean"},
    "a~b": {"type": "number"},
    "sdc_recursive_integer_array": {
        "type": ["null", "integer", "array"],
        "items": {"$ref": "#/definitions/sdc_recursive_integer_array"},
    },
}


def planned(subschema: Any, **root: Any) -> Column:
    schema = {"properties": {"p": subschema}, "definitions": DEFINITIONS, **root}
    return plan_table("s", "t", schema, ()).columns[0]


def columns(*pairs: tuple[str, Kind], keys: tuple[str, ...] = ()) -> TablePlan:
    return TablePlan(
        "s", "t", tuple(Column(name, name, kind, None, name in keys) for name, kind in pairs)
    )


# --- kinds


@pytest.mark.parametrize(
    ("subschema", "kind"),
    [
        ({"type": "integer"}, Kind.INTEGER),
        ({"type": ["null", "integer"]}, Kind.INTEGER),
        ({"type": ["integer", "null"], "minimum": 0, "exclusiveMaximum": True}, Kind.INTEGER),
        ({"type": "integer", "maximum": 9, "exclusiveMaximum": 10}, Kind.INTEGER),
        ({"type": "number"}, Kind.FLOAT),
        ({"type": ["integer", "number"]}, Kind.FLOAT),
        ({"type": ["null", "number"], "multipleOf": 0.01}, Kind.FLOAT),
        ({"type": "boolean"}, Kind.BOOLEAN),
        ({"type": ["null", "boolean"]}, Kind.BOOLEAN),
        ({"type": "string"}, Kind.TEXT),
        ({"type": ["string", "null"], "format": "date-time"}, Kind.DATETIME),
        ({"type": "string", "format": "date"}, Kind.DATE),
        ({"type": "string", "format": "time"}, Kind.TEXT),
        ({"type": "string", "format": "uuid"}, Kind.TEXT),
        ({"type": "string", "format": "singer.decimal"}, Kind.FLOAT),
        ({"type": ["string", "null"], "format": "x-singer.decimal", "scale": 2}, Kind.FLOAT),
        ({"type": "integer", "format": "date-time"}, Kind.INTEGER),
        ({"type": "string", "contentEncoding": "base64"}, Kind.TEXT),
        ({"type": "object"}, Kind.JSON),
        ({"type": "array", "items": {"type": "integer"}}, Kind.JSON),
        ({"type": ["string", "integer"]}, Kind.TEXT),
        ({"type": ["string", "boolean", "number", "null"]}, Kind.TEXT),
        ({"type": ["string", "integer"], "format": "date-time"}, Kind.TEXT),
        ({"type": ["string", "object"]}, Kind.JSON),
        ({"type": ["string", "array", "null"]}, Kind.JSON),
        ({"type": ["boolean", "integer"]}, Kind.JSON),
        ({"type": "null"}, Kind.JSON),
        ({"type": []}, Kind.JSON),
        ({"type": "any"}, Kind.JSON),
        ({"type": "date-time"}, Kind.JSON),
        ({}, Kind.JSON),
        (True, Kind.JSON),
        (None, Kind.JSON),
        ({"format": "date-time"}, Kind.DATETIME),
        ({"maxLength": 5}, Kind.TEXT),
        ({"contentEncoding": "base64"}, Kind.TEXT),
        ({"minimum": 5}, Kind.JSON),
        ({"format": "date", "enum": [1]}, Kind.INTEGER),
        ({"description": "no type"}, Kind.JSON),
        ({"enum": ["a", "b"]}, Kind.TEXT),
        ({"enum": ["a", None]}, Kind.TEXT),
        ({"enum": [1, 2]}, Kind.INTEGER),
        ({"enum": [1, 2.5]}, Kind.FLOAT),
        ({"enum": [1, "a"]}, Kind.TEXT),
        ({"enum": [True, 1]}, Kind.JSON),
        ({"enum": [{"a": 1}]}, Kind.JSON),
        ({"enum": []}, Kind.JSON),
        ({"const": 5}, Kind.INTEGER),
        ({"const": False}, Kind.BOOLEAN),
        ({"const": None}, Kind.JSON),
        ({"type": "string", "enum": [1]}, Kind.TEXT),
    ],
)
def test_plain_schemas(subschema: Any, kind: Kind) -> None:
    assert planned(subschema).kind is kind


@pytest.mark.parametrize(
    ("subschema", "kind"),
    [
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, Kind.INTEGER),
        ({"anyOf": [{"type": "null"}, {"type": "string", "format": "date"}]}, Kind.DATE),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, Kind.FLOAT),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, Kind.TEXT),
        ({"anyOf": [{"type": "object"}, {"type": "string"}]}, Kind.JSON),
        ({"allOf": [{"type": "boolean"}, {"description": "flag"}]}, Kind.BOOLEAN),
        ({"allOf": [{"$ref": "#/definitions/int"}]}, Kind.INTEGER),
        ({"type": "integer", "anyOf": [{"minimum": 1}, {"maximum": -1}]}, Kind.INTEGER),
        ({"type": "string", "oneOf": [{"pattern": "a"}, {"maxLength": 4}]}, Kind.TEXT),
        ({"anyOf": [{"anyOf": [{"type": "integer"}]}, {"type": "null"}]}, Kind.INTEGER),
        ({"anyOf": [True, {"type": "integer"}]}, Kind.JSON),
        ({"anyOf": [{"type": "integer"}, True]}, Kind.JSON),
        ({"anyOf": []}, Kind.JSON),
        (
            {
                "anyOf": [
                    {"type": "string", "format": "date-time"},
                    {"type": ["string", "null"]},
                ]
            },
            Kind.TEXT,
        ),
        (
            {
                "anyOf": [
                    {"type": "string", "format": "date-time"},
                    {"type": "string", "format": "date"},
                ]
            },
            Kind.TEXT,
        ),
        (
            {
                "anyOf": [
                    {"type": "string", "format": "date-time"},
                    {"type": "integer"},
                ]
            },
            Kind.TEXT,
        ),
    ],
)
def test_alternatives_are_taken_together(subschema: Any, kind: Kind) -> None:
    assert planned(subschema).kind is kind


@pytest.mark.parametrize("word", ["anyOf", "oneOf"])
@pytest.mark.parametrize(
    ("alternatives", "kind"),
    [
        ([{"type": "null"}, {"$ref": "#/definitions/int"}], Kind.INTEGER),
        ([{"type": "null"}, {"$ref": "#/definitions/stamp"}], Kind.DATETIME),
        ([{"type": "integer"}, {"$ref": "#/definitions/text"}], Kind.TEXT),
        ([{"type": "integer"}, {"enum": ["n/a"]}], Kind.TEXT),
        ([{"type": "integer"}, {"const": "n/a"}], Kind.TEXT),
        ([{"type": "integer"}, {}], Kind.JSON),
        ([{"type": "integer"}, {"anyOf": [{"type": "string"}]}], Kind.TEXT),
    ],
)
def test_no_alternative_is_lost_in_any_order(
    word: str, alternatives: list[Any], kind: Kind
) -> None:
    assert planned({word: alternatives}).kind is kind
    assert planned({word: alternatives[::-1]}).kind is kind


@pytest.mark.parametrize("parts", [[{"minimum": 0}, {"type": "integer"}]])
def test_all_of_does_not_depend_on_the_order_of_its_parts(parts: list[Any]) -> None:
    assert planned({"allOf": parts}).kind is Kind.INTEGER
    assert planned({"allOf": parts[::-1]}).kind is Kind.INTEGER


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("#/definitions/int", Kind.INTEGER),
        ("#/definitions/text", Kind.TEXT),
        ("#/definitions/stamp", Kind.DATETIME),
        ("#/definitions/tree", Kind.JSON),
        ("#/definitions/knot", Kind.JSON),
        ("#/definitions/ping", Kind.JSON),
        ("#/definitions/a~1b", Kind.BOOLEAN),
        ("#/definitions/a~0b", Kind.FLOAT),
        ("#/definitions/sdc_recursive_integer_array", Kind.JSON),
        ("#/$defs/int", Kind.INTEGER),
        ("#/definitions/nowhere", Kind.JSON),
        ("#", Kind.JSON),
        ("other.json#/definitions/int", Kind.JSON),
        ("https://example.com/schema", Kind.JSON),
    ],
)
def test_references(reference: str, kind: Kind) -> None:
    assert planned({"$ref": reference}, **{"$defs": {"int": {"type": "integer"}}}).kind is kind


def test_pipelinewise_arrays_are_json() -> None:
    column = planned(
        {
            "type": ["null", "array"],
            "items": {"$ref": "#/definitions/sdc_recursive_integer_array"},
        }
    )
    assert (column.kind, column.celonis_type) == (Kind.JSON, "STRING")


@pytest.mark.parametrize(
    "odd",
    [
        {"type": 5},
        {"type": [{"type": "string"}]},
        {"type": {"a": 1}},
        {"type": "string", "format": ["date"]},
        {"type": "string", "format": {}},
        {"enum": 5},
        {"enum": {"a": 1}},
        {"anyOf": 7},
        {"anyOf": [5]},
        {"$ref": 5},
        [1],
        5,
    ],
)
def test_what_is_no_json_schema_becomes_text_of_some_kind(odd: Any) -> None:
    assert planned(odd).celonis_type == "STRING"


@pytest.mark.parametrize(
    ("subschema", "max_length"),
    [
        ({"type": "string", "maxLength": 255}, 255),
        ({"type": ["null", "string"], "maxLength": 16250}, 16250),
        ({"type": "string", "maxLength": 16251}, None),
        ({"type": "string", "maxLength": 2**31 - 1}, None),
        ({"type": "string", "maxLength": 0}, None),
        ({"type": "string", "maxLength": -1}, None),
        ({"type": "string", "maxLength": "20"}, None),
        ({"type": "string"}, None),
        ({"type": "integer", "maxLength": 20}, None),
        (
            {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 9}]},
            9,
        ),
    ],
)
def test_max_length_counts_where_it_is_sane(subschema: Any, max_length: int | None) -> None:
    assert planned(subschema).max_length == max_length


@pytest.mark.parametrize(
    ("kind", "arrow", "celonis"),
    [
        (Kind.INTEGER, "int64", "INTEGER"),
        (Kind.FLOAT, "double", "FLOAT"),
        (Kind.BOOLEAN, "bool", "BOOLEAN"),
        (Kind.TEXT, "string", "STRING"),
        (Kind.JSON, "string", "STRING"),
        (Kind.DATETIME, "timestamp[us, tz=UTC]", "DATETIME"),
        (Kind.DATE, "date32[day]", "DATE"),
    ],
)
def test_types_of_each_kind(kind: Kind, arrow: str, celonis: str) -> None:
    column = Column("p", "p", kind)
    assert (str(column.arrow_type), column.celonis_type) == (arrow, celonis)
    assert column.is_text == (celonis == "STRING")


# --- plans


def test_columns_come_in_the_order_of_the_schema() -> None:
    schema = {"properties": {"z": {"type": "integer"}, "a": {"type": "string"}, "m": {}}}
    plan = plan_table("s", "My Table", schema, ["a"])
    assert [column.name for column in plan.columns] == ["z", "a", "m"]
    assert [key.name for key in plan.keys] == ["a"]
    assert plan.table == "My_Table"
    assert plan.arrow_schema.names == ["z", "a", "m"]
    assert plan.renamed == {}


def test_renamed_columns_are_listed() -> None:
    plan = plan_table("s", "t", {"properties": {"order id": {}, "x": {}}}, ["order id"])
    assert plan.renamed == {"order id": "order_id"}
    assert plan.keys[0].property_name == "order id"


@pytest.mark.parametrize("schema", [{}, {"properties": {}}, {"properties": []}, {"type": "object"}])
def test_a_schema_without_properties_is_refused(schema: Any) -> None:
    with pytest.raises(InputError, match=r"TC-INPUT-06.*`orders`"):
        plan_table("orders", "t", schema, ())


def test_a_key_that_is_no_property_is_refused() -> None:
    with pytest.raises(ContractError, match=r"TC-CONTRACT-02.*`ID`.*`orders`"):
        plan_table("orders", "t", {"properties": {"id": {}}}, ["id", "ID"])


@given(st.lists(st.one_of(likely_to_collide, any_name), unique=True, min_size=1), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_plan_of_a_property_does_not_depend_on_the_others_places(
    names: list[str], random: Any
) -> None:
    schema = {name: {"type": "integer"} for name in names}
    shuffled = list(names)
    random.shuffle(shuffled)
    one = plan_table("s", "t", {"properties": schema}, ())
    other = plan_table("s", "t", {"properties": {name: schema[name] for name in shuffled}}, ())
    assert {c.property_name: c for c in one.columns} == {c.property_name: c for c in other.columns}


# --- names


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("orders", "orders"),
        ("Orders_2-x", "Orders_2-x"),
        ("SELECT", "SELECT"),
        ("2024", "2024"),
        ("order id", "order_id"),
        ("a:b!c?d", "a_b_c_d"),
        ("schema.table", "schema_table"),
        ("a\"b'c`d", "a_b_c_d"),
        ("a\\b/c", "a_b_c"),
        ("a\tb\nc\0d", "a_b_c_d"),
        ("Größe", "Größe"),
        ("名前", "名前"),
        ("price€", "price_"),
        ("😀", "_"),
        ("", "_"),
        ("   ", "___"),
        ("a\ud800b", "a_b"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "x" * 123 + "_2699"),
        ("é" * 64, "é" * 64),
    ],
)
def test_legal_names(name: str, legal: str) -> None:
    assert legal_name(name) == legal


@pytest.mark.parametrize("before", range(5))
def test_a_cut_leaves_whole_characters(before: int) -> None:
    name = "x" * before + "𠀀" * 40  # a letter of four bytes
    legal = legal_name(name)
    kept, _, suffix = legal.rpartition("_")
    assert name.startswith(kept)
    assert 120 <= len(kept.encode()) <= 123
    assert len(suffix) == 4
    assert int(suffix, 16) >= 0


def test_long_names_that_differ_behind_the_cut_stay_apart() -> None:
    assert legal_name("x" * 200 + "a") != legal_name("x" * 200 + "b")


@given(any_name | st.text(min_size=100, max_size=300))
@settings(max_examples=100, deadline=None)
def test_every_name_becomes_legal(name: str) -> None:
    legal = legal_name(name)
    assert 0 < len(legal.encode()) <= 128
    assert all(letter.isalnum() or letter in "_-" for letter in legal)
    assert legal_name(legal) == legal


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], {"a": "a", "b": "b"}),
        (["A", "a"], {"A": "A", "a": "a_86f7"}),
        (["a", "A"], {"A": "A", "a": "a_86f7"}),
        (["ss", "ß", "SS"], {"SS": "SS", "ss": "ss_c1c9", "ß": "ß_00b3"}),
        ([""], {"": "_"}),
        (["_celonis_change_date"], {"_celonis_change_date": "_celonis_change_date_3818"}),
        (["a.b", "a_b", "a b"], {"a_b": "a_b", "a.b": "a_b_69f6", "a b": "a_b_7dbd"}),
    ],
)
def test_column_names_are_the_same_on_every_run(names: list[str], expected: dict[str, str]) -> None:
    assert column_names(names) == expected


@pytest.mark.parametrize("name", ["_CELONIS_CHANGE_DATE", "_Celonis_Change_Date"])
def test_no_property_gets_the_reserved_name(name: str) -> None:
    given_name = column_names([name, "id"])[name]
    assert given_name.startswith(name + "_")


def test_a_legal_name_that_nobody_shares_is_kept() -> None:
    # `a` makes way for `A`, and must not take the name of a third property for it.
    names = column_names(["A", "a", "a_86f7"])
    assert names["A"] == "A"
    assert names["a_86f7"] == "a_86f7"
    assert names["a"] not in ("A", "a", "a_86f7")


@given(st.lists(st.one_of(likely_to_collide, any_name), unique=True), st.randoms())
@settings(max_examples=150, deadline=None)
def test_column_names_are_unique_legal_and_free_of_order(names: list[str], random: Any) -> None:
    given_names = column_names(names)
    assert set(given_names) == set(names)
    blind = [name.casefold() for name in given_names.values()]
    assert len(set(blind)) == len(blind)
    assert "_celonis_change_date" not in blind
    assert all(len(name.encode()) <= 128 for name in given_names.values())
    shuffled = list(names)
    random.shuffle(shuffled)
    assert column_names(shuffled) == given_names


@given(st.lists(st.text("x" * 3 + "é", min_size=120, max_size=140), unique=True, max_size=5))
@settings(max_examples=50, deadline=None)
def test_long_names_that_collide_stay_within_the_limit(names: list[str]) -> None:
    given_names = column_names([*names, *(name.upper() for name in names)])
    assert len({name.casefold() for name in given_names.values()}) == len(given_names)
    assert all(len(name.encode()) <= 128 for name in given_names.values())


# --- widening

a_kind = st.sampled_from(list(Kind))
a_plan = st.dictionaries(
    st.sampled_from(["id", "ID", "a", "b", "a b", "c", "a_b"]), a_kind, min_size=1
).flatmap(
    lambda kinds: st.sets(st.sampled_from(sorted(kinds))).map(
        lambda keys: plan_table(
            "s",
            "t",
            {"properties": {name: _SCHEMAS[kind] for name, kind in kinds.items()}},
            [*keys],
        )
    )
)
_SCHEMAS: dict[Kind, Any] = {
    Kind.INTEGER: {"type": "integer"},
    Kind.FLOAT: {"type": "number"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.TEXT: {"type": "string", "maxLength": 20},
    Kind.JSON: {"type": "object"},
    Kind.DATETIME: {"type": "string", "format": "date-time"},
    Kind.DATE: {"type": "string", "format": "date"},
}


def holds(wide: Kind, narrow: Kind) -> bool:
    meeting = {(Kind.FLOAT, Kind.INTEGER), (Kind.DATETIME, Kind.DATE)}
    return wide in (narrow, Kind.TEXT) or (wide, narrow) in meeting


def widened(old: TablePlan, new: TablePlan) -> TablePlan:
    """Widen, unless a new property has a right to the name of a column that there is."""
    try:
        return widen(old, new)
    except ContractError as error:
        if error.code != "TC-CONTRACT-10":
            raise
        names = column_names({c.property_name for c in (*old.columns, *new.columns)})
        assert any(names[c.property_name] != c.name for c in old.columns)
        reject()


def test_a_new_property_does_not_take_the_name_of_a_column() -> None:
    old = plan_table("s", "t", {"properties": {"a b": {}}}, ())
    new = plan_table("s", "t", {"properties": {"a b": {}, "a_b": {}}}, ())
    with pytest.raises(ContractError, match=r"TC-CONTRACT-10.*`a_b`.*`a_b`.*`a b`"):
        widen(old, new)
    assert widen(old, old) == old


def test_a_chosen_name_goes_first_in_mid_run_too() -> None:
    rules = [ColumnRule("b", name="a")]
    old = plan_table("s", "t", {"properties": {"x": {}}}, (), rules)
    new = plan_table("s", "t", {"properties": {"x": {}, "a": {}, "b": {}}}, (), rules)
    names = {column.property_name: column.name for column in widen(old, new).columns}
    assert names["b"] == "a"
    assert names["a"].startswith("a_")


@given(a_plan, a_plan)
@settings(max_examples=100, deadline=None)
def test_a_widened_plan_holds_both(old: TablePlan, new: TablePlan) -> None:
    wide = widened(old, new)
    by_property = {column.property_name: column for column in wide.columns}
    assert len(by_property) == len(wide.columns)
    for plan in (old, new):
        for column in plan.columns:
            wider = by_property[column.property_name]
            assert holds(wider.kind, column.kind)
            assert wider.max_length is None or wider.max_length >= (column.max_length or 0)
    assert [c.name for c in wide.columns][: len(old.columns)] == [c.name for c in old.columns]
    names = [column.name.casefold() for column in wide.columns]
    assert len(set(names)) == len(names)
    assert {key.property_name for key in wide.keys} == {key.property_name for key in new.keys}


@given(a_plan, a_plan)
@settings(max_examples=100, deadline=None)
def test_widening_again_changes_nothing(old: TablePlan, new: TablePlan) -> None:
    wide = widened(old, new)
    assert widen(old, old) == old
    assert widen(wide, new) == wide
    assert widen(wide, wide) == wide


@pytest.mark.parametrize("one", list(Kind))
@pytest.mark.parametrize("other", list(Kind))
def test_two_kinds_meet_in_the_same_kind_either_way(one: Kind, other: Kind) -> None:
    ahead = widen(columns(("c", one)), columns(("c", other))).columns[0].kind
    back = widen(columns(("c", other)), columns(("c", one))).columns[0].kind
    assert ahead is back
    if one is other:
        assert ahead is one
    elif {one, other} == {Kind.INTEGER, Kind.FLOAT}:
        assert ahead is Kind.FLOAT
    elif {one, other} == {Kind.DATE, Kind.DATETIME}:
        assert ahead is Kind.DATETIME
    else:
        assert ahead is Kind.TEXT


def test_a_column_that_is_gone_stays_and_is_no_key() -> None:
    wide = widen(
        columns(("id", Kind.INTEGER), ("a", Kind.TEXT), keys=("id", "a")),
        columns(("id", Kind.INTEGER), keys=("id",)),
    )
    assert [column.name for column in wide.columns] == ["id", "a"]
    assert [key.name for key in wide.keys] == ["id"]
