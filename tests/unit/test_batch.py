"""Values become columns: each by its rule, whole columns and single values alike."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from target_celonis.batch import RULES, Notes, convert
from target_celonis.errors import ContractError, InputError
from target_celonis.messages import RecordRun
from target_celonis.table import TablePlan, plan_table

SCHEMAS: dict[str, Any] = {
    "integer": {"type": ["null", "integer"]},
    "number": {"type": ["null", "number"]},
    "boolean": {"type": ["null", "boolean"]},
    "text": {"type": ["null", "string"]},
    "json": {},
    "date-time": {"type": ["null", "string"], "format": "date-time"},
    "date": {"type": ["null", "string"], "format": "date"},
}


def plan_of(schemas: dict[str, Any], *keys: str) -> TablePlan:
    return plan_table("s", "t", {"properties": schemas}, keys)


def run_of(*records: str | bytes, first_line: int = 1) -> RecordRun:
    texts = [record if isinstance(record, bytes) else record.encode() for record in records]
    lines = list(range(first_line, first_line + len(texts)))
    return RecordRun("s", None, texts, lines)


def rows_of(run: RecordRun, plan: TablePlan) -> tuple[list[dict[str, Any]], Counter[Any]]:
    notes = Notes()
    rows: list[dict[str, Any]] = []
    for batch, deleted in convert(run, plan, notes):
        assert deleted is None
        assert batch.schema.equals(plan.arrow_schema)
        batch.validate(full=True)
        rows += batch.to_pylist()
    assert {rule for _, rule in notes.counts} <= set(RULES)
    return rows, notes.counts


def column(kind: str, *values: str | bytes) -> tuple[list[Any], dict[str, int]]:
    """Convert one column, given as JSON texts; return values and counts by rule."""
    raws = [value if isinstance(value, bytes) else value.encode() for value in values]
    run = run_of(*(b'{"a": ' + raw + b"}" for raw in raws))
    rows, counts = rows_of(run, plan_of({"a": SCHEMAS[kind]}))
    assert {name for name, _ in counts} <= {"a"}
    return [row["a"] for row in rows], {rule: count for (_, rule), count in counts.items()}


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


# --- what fits stays what it is


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
@example([-(2**63), 2**63 - 1, 0, 2**53 + 1, None])
@settings(max_examples=100, deadline=None)
def test_whole_numbers_are_exact(values: list[int | None]) -> None:
    assert column("integer", *map(json.dumps, values)) == (values, {})


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@settings(max_examples=100, deadline=None)
def test_doubles_come_back_bit_by_bit(values: list[float | None]) -> None:
    got, counts = column("number", *map(json.dumps, values))
    assert list(map(repr, got)) == list(map(repr, values))
    assert counts == {}


@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=None).filter(
            lambda number: abs(number) < Decimal("1e300")
        )
        | st.integers(-(10**40), 10**40).map(Decimal),
        min_size=1,
    )
)
@settings(max_examples=100, deadline=None)
def test_decimals_become_the_nearest_double(values: list[Decimal]) -> None:
    texts = [str(value).replace("E+", "e") for value in values]
    got, counts = column("number", *texts)
    assert got == [json.loads(text, parse_int=float) for text in texts]
    assert counts == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.67000000000000003996", 0.67),
        ("12345678901234567890123456789012345678", 1.2345678901234568e37),
        ("9007199254740993", 9007199254740992.0),
        ("-0.0", -0.0),
        ("5e-324", 5e-324),
        ("1e-400", 0.0),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("0.1e1", 1.0),
        ("7", 7.0),
    ],
)
def test_numbers_are_read_exactly_before_they_are_rounded(text: str, value: float) -> None:
    got, counts = column("number", text)
    assert (repr(got[0]), counts) == (repr(value), {})


@given(st.lists(st.none() | st.booleans(), min_size=1))
@settings(max_examples=30, deadline=None)
def test_booleans(values: list[bool | None]) -> None:
    assert column("boolean", *map(json.dumps, values)) == (values, {})


@given(st.lists(st.none() | st.text(), min_size=1), st.booleans())
@example(values=["\0", "\u2028", "😀", "\ufeff", '"\\', "null", "", "é" * 300], escaped=True)
@settings(max_examples=100, deadline=None)
def test_any_unicode_stays_as_it_is(values: list[str | None], escaped: bool) -> None:
    texts = [json.dumps(value, ensure_ascii=escaped) for value in values]
    assert column("text", *texts) == (values, {})


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
).filter(lambda value: "Infinity" not in json.dumps(value))


@given(
    st.lists(any_json, min_size=1, max_size=8),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_json_keeps_the_spelling_of_the_tap(
    values: list[Any], separators: tuple[str, str], escaped: bool
) -> None:
    texts = [json.dumps(v, ensure_ascii=escaped, separators=separators) for v in values]
    expected = [None if text == "null" else text for text in texts]
    assert column("json", *texts) == (expected, {})


@pytest.mark.parametrize(
    "text",
    [
        '{"b":1,"a":2}',
        '{"a":1,"a":2}',
        "1.50",
        "1E+2",
        '"\\u00e9"',
        "[ 1 , 2 ]",
        '"\\ud83d\\ude00"',
    ],
)
def test_json_is_not_rewritten(text: str) -> None:
    assert column("json", text) == ([text], {})


# --- date-times

ZONES = ("", "Z", "z", " UTC", "+00", "+0000", "+00:00", "+00:00+00:00", " +00:00")


@st.composite
def a_date_time(draw: st.DrawFn) -> tuple[str, dt.datetime]:
    """Draw a spelling and what it means, made without parsing."""
    moment = draw(
        st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29))  # noqa: DTZ001  # local time
    )
    separator = draw(st.sampled_from(["T", " "]))
    digits = draw(st.integers(0, 9))
    text = f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}{separator}"
    text += f"{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d}"
    fraction = f"{moment.microsecond:06d}" + draw(st.from_regex(r"[0-9]{3}", fullmatch=True))
    kept = fraction[:digits]
    text += f".{kept}" if kept else ""
    moment = moment.replace(microsecond=int(f"{kept[:6]:0<6}"))
    offset = draw(st.none() | st.integers(-14 * 60, 14 * 60))
    if offset is None:
        return text + draw(st.sampled_from(ZONES)), moment.replace(tzinfo=dt.UTC)
    sign = "-" if offset < 0 else "+"
    hours, minutes = divmod(abs(offset), 60)
    forms = [f"{sign}{hours:02d}:{minutes:02d}", f"{sign}{hours:02d}{minutes:02d}"]
    forms += [f"{sign}{hours:02d}"] if minutes == 0 else []
    shifted = moment - dt.timedelta(minutes=offset)
    return text + draw(st.sampled_from(forms)), shifted.replace(tzinfo=dt.UTC)


@given(st.lists(a_date_time(), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_date_times_in_any_spelling(spelled: list[tuple[str, dt.datetime]]) -> None:
    got, counts = column("date-time", *(json.dumps(text) for text, _ in spelled))
    assert got == [moment for _, moment in spelled]
    early = sum(moment.year < 1400 for _, moment in spelled)
    assert counts == ({"outside_data_model_years": early} if early else {})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-31", utc(2024, 5, 31)),
        ("2024-05-31T12:34", utc(2024, 5, 31, 12, 34)),
        ("2024-05-31T12:34Z", utc(2024, 5, 31, 12, 34)),
        ("2024-05-31 12:34:56,5", utc(2024, 5, 31, 12, 34, 56, 500000)),
        ("  2024-05-31T12:34:56Z ", utc(2024, 5, 31, 12, 34, 56)),
        ("2024-05-31t12:34:56z", utc(2024, 5, 31, 12, 34, 56)),
        ("2024-02-29T00:00:00-00:30", utc(2024, 2, 29, 0, 30)),
        ("2024-05-31T12:34:56 GMT", utc(2024, 5, 31, 12, 34, 56)),
        ("2024-05-31T12:34:56.999999999Z", utc(2024, 5, 31, 12, 34, 56, 999999)),
        ("0001-01-01T00:00:00Z", utc(1, 1, 1)),
        ("9999-12-31T23:59:59.999999Z", utc(9999, 12, 31, 23, 59, 59, 999999)),
    ],
)
def test_spellings_of_date_times(text: str, moment: dt.datetime) -> None:
    assert column("date-time", json.dumps(text))[0] == [moment]


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-05-31T25:00:00Z",
        "2024-05-31T12:60:00Z",
        "2024-05-31T12:34:56+24:00",
        "-1 day, 11:25:04",
        "12:34:57",
        "2024-05-31T12.5Z",
        "2024-05-31T12:34.5Z",
        "tomorrow",
        "1717158896",
        "infinity",
    ],
)
def test_what_is_no_date_time_ends_the_run(text: str) -> None:
    with pytest.raises(InputError, match="TC-INPUT-08") as caught:
        column("date-time", json.dumps(text))
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("9999-12-31T23:59:59-05:00", utc(9999, 12, 31, 23, 59, 59, 999_999)),
        ("0001-01-01T00:00:00+01:00", utc(1, 1, 1)),
    ],
)
def test_a_zone_takes_no_date_time_out_of_the_calendar(text: str, moment: dt.datetime) -> None:
    """The end of time in New York is a common sentinel, and no reason to end a load."""
    values, counts = column("date-time", json.dumps(text), '"2024-05-31T00:00:00Z"')
    assert values == [moment, utc(2024, 5, 31)]
    assert counts["kept_within_years_1_to_9999"] == 1


@pytest.mark.parametrize("text", ["1890-01-01T00:53:28+00:53:28", "1890-01-01 00:53:28.0+005328"])
def test_local_mean_time_has_offsets_with_seconds(text: str) -> None:
    assert column("date-time", json.dumps(text)) == ([utc(1890, 1, 1)], {})


@pytest.mark.parametrize("year", [1, 1399])
@pytest.mark.parametrize("kind", ["date", "date-time"])
def test_years_before_1400_are_loaded_and_counted(kind: str, year: int) -> None:
    spelled = f'"{year:04d}-12-31"'
    value = dt.date(year, 12, 31) if kind == "date" else utc(year, 12, 31)
    assert column(kind, spelled, "null", spelled) == (
        [value, None, value],
        {"outside_data_model_years": 2},
    )
    assert column(kind, '"1400-01-01"')[1] == {}


# --- dates


@given(st.lists(st.none() | st.dates(), min_size=1))
@settings(max_examples=60, deadline=None)
def test_dates(values: list[dt.date | None]) -> None:
    got, counts = column("date", *(json.dumps(value and value.isoformat()) for value in values))
    assert got == values
    early = sum(value is not None and value.year < 1400 for value in values)
    assert counts == ({"outside_data_model_years": early} if early else {})


@given(st.lists(a_date_time(), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_of_a_date_time_the_date_is_kept_as_written(
    spelled: list[tuple[str, dt.datetime]],
) -> None:
    got, counts = column("date", *(json.dumps(text) for text, _ in spelled))
    assert [day.isoformat() for day in got] == [text[:10] for text, _ in spelled]
    assert counts["date_time_as_date"] == len(spelled)


@pytest.mark.parametrize("text", ["2024-02-30", "2024-5-31", "0000-01-01", "31.05.2024", "x", "20"])
def test_what_is_no_date_ends_the_run(text: str) -> None:
    with pytest.raises(InputError, match="TC-INPUT-08"):
        column("date", json.dumps(text))


# --- odd values, one written rule each


@pytest.mark.parametrize(
    ("kind", "text", "value", "rules"),
    [
        ("integer", str(2**63), None, {"overflow_as_null": 1}),
        ("integer", str(-(2**63) - 1), None, {"overflow_as_null": 1}),
        ("integer", "9" * 38, None, {"overflow_as_null": 1}),
        ("integer", "1e30", None, {"overflow_as_null": 1}),
        ("integer", "1e400", None, {"overflow_as_null": 1}),
        ("integer", "9" * 5000, None, {"overflow_as_null": 1}),
        ("integer", "1e5000", None, {"overflow_as_null": 1}),
        ("integer", "-1e99999999999999999999", None, {"overflow_as_null": 1}),
        ("integer", "0e5000", 0, {}),
        ("integer", "0.0e-5000", 0, {}),
        ("number", "1e99999999999999999999", None, {"not_finite_as_null": 1}),
        ("number", "1e-99999999999999999999", 0.0, {}),
        ("integer", f'"{2**63}"', None, {"overflow_as_null": 1, "text_as_value": 1}),
        ("integer", "1.0", 1, {}),
        ("integer", "-0", 0, {}),
        ("integer", "1.2e3", 1200, {}),
        ("integer", "9007199254740993.0", 9007199254740993, {}),
        ("integer", "90071992547409930e-1", 9007199254740993, {}),
        ("integer", "true", 1, {"boolean_as_number": 1}),
        ("integer", "false", 0, {"boolean_as_number": 1}),
        ("integer", '"12"', 12, {"text_as_value": 1}),
        ("integer", '" -12 "', -12, {"text_as_value": 1}),
        ("integer", '"12.0"', 12, {"text_as_value": 1}),
        ("integer", '""', None, {"empty_text_as_null": 1}),
        ("integer", '"  "', None, {"empty_text_as_null": 1}),
        ("integer", "null", None, {}),
        ("number", "1e400", None, {"not_finite_as_null": 1}),
        ("number", "-1e400", None, {"not_finite_as_null": 1}),
        ("number", "1" + "0" * 400, None, {"not_finite_as_null": 1}),
        ("number", '"NaN"', None, {"not_finite_as_null": 1, "text_as_value": 1}),
        ("number", '"-Infinity"', None, {"not_finite_as_null": 1, "text_as_value": 1}),
        ("number", '"0.50"', 0.5, {"text_as_value": 1}),
        ("number", '" 1e3"', 1000.0, {"text_as_value": 1}),
        ("number", "true", 1.0, {"boolean_as_number": 1}),
        ("number", "false", 0.0, {"boolean_as_number": 1}),
        ("number", '""', None, {"empty_text_as_null": 1}),
        ("boolean", "1", True, {"number_as_boolean": 1}),
        ("boolean", "0", False, {"number_as_boolean": 1}),
        ("boolean", "1.0", True, {"number_as_boolean": 1}),
        ("boolean", '"TRUE"', True, {"text_as_value": 1}),
        ("boolean", '"f"', False, {"text_as_value": 1}),
        ("boolean", '"Yes"', True, {"text_as_value": 1}),
        ("boolean", '"n"', False, {"text_as_value": 1}),
        ("boolean", '" 0 "', False, {"text_as_value": 1}),
        ("boolean", '""', None, {"empty_text_as_null": 1}),
        ("text", "12", "12", {"value_as_text": 1}),
        ("text", "1.50", "1.50", {"value_as_text": 1}),
        ("text", "true", "true", {"value_as_text": 1}),
        ("text", '{"b": 1, "a": [null]}', '{"b": 1, "a": [null]}', {"value_as_text": 1}),
        ("text", "[]", "[]", {"value_as_text": 1}),
        ("text", '""', "", {}),
        ("text", '"null"', "null", {}),
        ("date", '""', None, {"empty_text_as_null": 1}),
        ("date", '"2024-05-31T23:59:59-05:00"', dt.date(2024, 5, 31), {"date_time_as_date": 1}),
        ("date-time", '""', None, {"empty_text_as_null": 1}),
        ("date-time", '"   "', None, {"empty_text_as_null": 1}),
        ("json", '""', '""', {}),
    ],
)
def test_odd_values_follow_a_counted_rule(
    kind: str, text: str, value: Any, rules: dict[str, int]
) -> None:
    got, counts = column(kind, text)
    assert (got, type(got[0]), counts) == ([value], type(value), rules)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("integer", "1.5", "is not a whole number"),
        ("integer", "1e-1", "is not a whole number"),
        ("integer", "1e-999999999", "is not a whole number"),
        ("integer", "1e-99999999999999999999", "is not a whole number"),
        ("integer", "9007199254740993.5", "is not a whole number"),
        ("integer", '"x77x"', "is not a whole number"),
        ("integer", '"1_000"', "is not a whole number"),
        ("integer", '"0x10"', "is not a whole number"),
        ("integer", '{"secret":"x77x"}', "is not a whole number"),
        ("number", '"x77x"', "is not a number"),
        ("number", '"1,5"', "is not a number"),
        ("number", '"1_000"', "is not a number"),
        ("number", '["x77x"]', "is not a number"),
        ("boolean", "77", "is not true or false"),
        ("boolean", '"x77x"', "is not true or false"),
        ("boolean", '["x77x"]', "is not true or false"),
        ("date", "20240531", "is not a date"),
        ("date", '"x77x"', "is not a date"),
        ("date", "true", "is not a date"),
        ("date-time", "1717158896", "is not a date-time"),
        ("date-time", '"x77x"', "is not a date-time"),
        ("date-time", '{"secret":"x77x"}', "is not a date-time"),
        ("text", b'"x77x\xff"', "is not valid UTF-8"),
        ("json", b'["x77x\xff"]', "is not valid UTF-8"),
    ],
)
def test_a_misfit_names_stream_line_and_column_but_not_the_value(
    kind: str, text: str | bytes, reason: str
) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    run = run_of(b'{"a":null}', b'{"a":' + raw + b"}", b'{"a":null}', first_line=41)
    with pytest.raises(InputError) as caught:
        rows_of(run, plan_of({"a": SCHEMAS[kind]}))
    assert caught.value.code == "TC-INPUT-08"
    message = str(caught.value)
    assert f"Stream `s`, line 42, column `a`: the value {reason}" in message
    assert "x77x" not in message
    assert raw.decode(errors="replace") not in message


# --- the whole column and the single value agree

ORDINARY: dict[str, list[str]] = {
    "integer": ["0", "-1", str(2**63 - 1), str(-(2**63)), str(2**53 + 1), "null", "12"],
    "number": [
        "0.1",
        "-0.0",
        "1e300",
        "5e-324",
        "9007199254740993",
        "null",
        "3",
        "0.30000000000000004",
    ],
    "boolean": ["true", "false", "null"],
    "text": ['""', '"a"', '"\\u00e9\\n"', '"😀"', '"\\ud83d\\ude00"', '"12"', "null", '"\\u0000"'],
    "json": ["{}", "[1, 2]", '"a"', "null", "1.50"],
    "date": ['"2024-05-31"', '"0001-01-01"', '"9999-12-31"', "null"],
    "date-time": [
        '"2024-05-31T12:34:56Z"',
        '"2024-05-31T12:34:56.123456+02:00"',
        '"2024-05-31 12:34:56.1-0930"',
        '"0001-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59.999999Z"',
        '"1969-12-31T23:59:59.999999Z"',
        '"2024-05-31T12:34Z"',
        "null",
    ],
}
ODD: dict[str, list[str]] = {
    "integer": [str(2**63), '"7"', "true", '""', "1.0"],
    "number": ["1e400", '"7"', "true", '""'],
    "boolean": ["1", '"t"', '""'],
    "text": ["1", "{}", "true"],
    "json": ["{}"],
    "date": ['""', '"2024-05-31T00:00:00Z"'],
    "date-time": ['""', '"2024-05-31"', '"2024-05-31T12:34:56.1234567Z"', '"2024-05-31T12:34:56"'],
}


@pytest.mark.parametrize(("kind", "odd"), [(k, odd) for k, odds in ODD.items() for odd in odds])
def test_one_odd_value_changes_no_other(kind: str, odd: str) -> None:
    ordinary = ORDINARY[kind]
    alone, counts = column(kind, *ordinary)
    odd_alone, odd_counts = column(kind, odd)
    together, all_counts = column(kind, *ordinary[:2], odd, *ordinary[2:])
    expected = [*alone[:2], *odd_alone, *alone[2:]]
    assert list(map(repr, together)) == list(map(repr, expected))
    assert Counter(all_counts) == Counter(counts) + Counter(odd_counts)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-31T12",
        "2024-05-31 12Z",
        "2024-05-31T12:34",
        "2024-05-31T12:34:56+02",
        "2024-05-31T12:34:56+0200",
        "2024-05-31T12:34:56.1+02:00",
        "2024-05-31T12:34:56-00:30",
        "2024-05-31",
        "2024-05-31T24:00:00",
        "2024-05-31T12:34:60Z",
        "20240531T123456Z",
        "2024-05-31T12:34:56.",
        "2024-5-31T12:34:56",
        "9999-12-31T23:59:59-01:00",
        "2024-05-31T12:34:56+23:59",
        "2024-05-31T12:34:56+25:00",
    ],
)
@pytest.mark.parametrize("friend", ['""', '"2024-05-31T12:34:56.1234567Z"', '"2024-05-31"'])
def test_a_date_time_is_read_alike_in_any_company(text: str, friend: str) -> None:
    def outcome(*values: str) -> Any:
        try:
            return column("date-time", *values)[0][0]
        except InputError as error:
            return error.code

    assert outcome(json.dumps(text)) == outcome(json.dumps(text), friend)


numbers_in_texts = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**40), 2**40).map(lambda n: f'"{n}"'),
    st.sampled_from(["null", "true", "false", '""', "1e3", "1.0", "1e400", '" 5 "']),
)


def rule_for_number(text: str) -> tuple[float | None, str | None]:
    """Say by the written rules what a JSON value is in a column of numbers."""
    value = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    if value is None or value == "":
        return None, None if value is None else "empty_text_as_null"
    if isinstance(value, bool):
        return float(value), "boolean_as_number"
    rule = "text_as_value" if isinstance(value, str) else None
    number = float(Decimal(value.strip()) if isinstance(value, str) else value)
    return (None, "not_finite_as_null") if math.isinf(number) else (number, rule)


@given(st.lists(numbers_in_texts, min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_mixtures_of_numbers_follow_the_rules(texts: list[str]) -> None:
    expected = [rule_for_number(text) for text in texts]
    got, counts = column("number", *texts)
    assert list(map(repr, got)) == [repr(value) for value, _ in expected]
    assert counts == Counter(rule for _, rule in expected if rule)


def rule_for_integer(text: str) -> tuple[int | None, str | None]:
    """Say by the written rules what a JSON value is in a column of whole numbers."""
    value = json.loads(text, parse_float=Decimal)
    if value is None or value == "":
        return None, None if value is None else "empty_text_as_null"
    if isinstance(value, bool):
        return int(value), "boolean_as_number"
    rule = "text_as_value" if isinstance(value, str) else None
    whole = int(value)
    return (whole, rule) if -(2**63) <= whole < 2**63 else (None, "overflow_as_null")


@given(
    st.lists(
        st.one_of(
            st.integers(-(2**65), 2**65).map(str),
            st.integers(-(2**62), 2**62).map(lambda n: f'"{n}"'),
            st.integers(-(2**53), 2**53).map(lambda n: f"{n}.0"),
            st.sampled_from(["null", "true", "false", '""', "1e3", "1e18", "1E19", "-1e400"]),
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=100, deadline=None)
def test_mixtures_of_whole_numbers_follow_the_rules(texts: list[str]) -> None:
    expected = [rule_for_integer(text) for text in texts]
    got, counts = column("integer", *texts)
    assert got == [value for value, _ in expected]
    assert counts == Counter(rule for _, rule in expected if rule)


# --- records

generated_row = st.fixed_dictionaries(
    {"id": st.integers(-(2**63), 2**63 - 1)},
    optional={
        "n": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "b": st.none() | st.booleans(),
        "t": st.none() | st.text(max_size=10),
        "d": st.none() | st.dates().map(dt.date.isoformat),
        "j": st.none() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
        "unknown": st.integers(),
    },
)


@given(st.lists(generated_row, min_size=1, max_size=15))
@settings(max_examples=100, deadline=None)
def test_records_come_back_whole_and_in_order(records: list[dict[str, Any]]) -> None:
    plan = plan_of(
        {
            "id": {"type": "integer"},
            "n": SCHEMAS["number"],
            "b": SCHEMAS["boolean"],
            "t": SCHEMAS["text"],
            "d": SCHEMAS["date"],
            "j": {"type": "object"},
        },
        "id",
    )
    rows, counts = rows_of(run_of(*map(json.dumps, records)), plan)
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        day, tree = record.get("d"), record.get("j")
        assert row == {
            "id": record["id"],
            "n": record.get("n"),
            "b": record.get("b"),
            "t": record.get("t"),
            "d": day and dt.date.fromisoformat(day),
            "j": None if tree is None else json.dumps(tree),
        }
    for name in "nbtdj":
        missing = sum(name not in record for record in records)
        assert counts[name, "missing_as_null"] == missing
    assert counts["unknown", "unknown_property"] == sum("unknown" in r for r in records)


def test_escaped_names_of_properties_are_understood() -> None:
    rows, counts = rows_of(
        run_of(r'{"\u0061": 1, "b\"c": 2, "é": 3}'),
        plan_of({name: {"type": "integer"} for name in ("a", 'b"c', "é")}),
    )
    assert rows == [{"a": 1, "b_c": 2, "é": 3}]
    assert not counts


def test_a_name_that_differs_in_case_is_another_property() -> None:
    rows, counts = rows_of(run_of('{"A": 1}'), plan_of({"a": {"type": "integer"}}))
    assert rows == [{"a": None}]
    assert counts == {("a", "missing_as_null"): 1, ("A", "unknown_property"): 1}


def test_an_empty_record_is_a_row_of_nulls() -> None:
    assert rows_of(run_of("{}"), plan_of({"a": {}}))[0] == [{"a": None}]


def test_a_long_run_comes_in_slices_and_in_order() -> None:
    plan = plan_of({"id": {"type": "integer"}, "t": {"type": "string"}}, "id")
    records = [json.dumps({"id": i, "t": str(i)}) for i in range(2_500)]
    records[1_700] = '{"id": "1700", "t": 1700}'
    notes = Notes()
    batches = [batch for batch, _ in convert(run_of(*records), plan, notes)]
    assert max(batch.num_rows for batch in batches) <= 1_000
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert rows == [{"id": i, "t": str(i)} for i in range(2_500)]
    assert notes.counts == {("id", "text_as_value"): 1, ("t", "value_as_text"): 1}


def test_a_misfit_deep_in_a_run_names_its_own_line() -> None:
    records = ['{"a":1}'] * 2_500
    records[1_999] = '{"a":"x"}'
    with pytest.raises(InputError, match=r"line 2100,"):
        rows_of(run_of(*records, first_line=101), plan_of({"a": {"type": "integer"}}))


def test_what_the_reader_mended_is_counted() -> None:
    run = run_of('{"a":1}')
    run.not_finite, run.surrogates = 2, 3
    counts = rows_of(run, plan_of({"a": {"type": "integer"}}))[1]
    assert counts == {("*", "not_finite_as_null"): 2, ("*", "surrogate_replaced"): 3}


def test_a_record_that_is_no_json_names_its_line() -> None:
    with pytest.raises(InputError, match=r"TC-INPUT-01\] Line 7 "):
        rows_of(run_of('{"a":1', first_line=7), plan_of({"a": {}}))


# --- texts that no column can hold


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", json.dumps("x" * 16_250)),
        ("text", json.dumps("é" * 16_250)),
        ("text", json.dumps("😀" * 16_250, ensure_ascii=False)),
        ("json", json.dumps(["x" * 16_246])),
    ],
)
def test_the_longest_text_is_taken_whole(kind: str, text: str) -> None:
    (value,), _ = column(kind, text)
    assert len(value) == 16_250


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", json.dumps("x" * 16_251)),
        ("text", json.dumps("é" * 16_251)),
        ("text", "1" * 16_251),
        ("json", json.dumps(["x" * 16_247])),
    ],
)
def test_a_text_longer_than_any_column_ends_the_run(kind: str, text: str) -> None:
    run = run_of('{"a":null}', '{"a":"x"}', f'{{"a":{text}}}', first_line=5)
    with pytest.raises(ContractError) as caught:
        rows_of(run, plan_of({"a": SCHEMAS[kind]}))
    assert caught.value.code == "TC-CONTRACT-05"
    assert "Stream `s`, line 7, column `a`: a text of 16251 characters" in str(caught.value)
    assert len(str(caught.value)) < 500


# --- keys


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", "null"),
        ("integer", '""'),
        ("integer", str(2**63)),
        ("number", "1e400"),
        ("text", "null"),
        ("date", '""'),
        ("date-time", "null"),
        ("boolean", "null"),
        ("json", "null"),
    ],
)
def test_a_null_key_ends_the_run(kind: str, text: str) -> None:
    plan = plan_of({"k": SCHEMAS[kind], "x": {}}, "k")
    good = next(value for value in ORDINARY[kind] if value != "null")
    run = run_of(f'{{"k":{good}}}', f'{{"k":{text}}}', f'{{"k":{text}}}', first_line=9)
    with pytest.raises(InputError) as caught:
        rows_of(run, plan)
    assert caught.value.code == "TC-INPUT-07"
    assert "Stream `s`, line 10: the key property `k`" in str(caught.value)


def test_a_missing_key_ends_the_run() -> None:
    plan = plan_of({"a": {"type": "integer"}, "b": {"type": "string"}}, "a", "b")
    with pytest.raises(InputError, match=r"TC-INPUT-07.*line 2: the key property `b`"):
        rows_of(run_of('{"a":1,"b":""}', '{"a":1}'), plan)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [("integer", "0", 0), ("text", '""', ""), ("boolean", "false", False), ("number", "0", 0.0)],
)
def test_zero_false_and_the_empty_text_are_keys(kind: str, text: str, value: Any) -> None:
    rows, _ = rows_of(run_of(f'{{"k":{text}}}'), plan_of({"k": SCHEMAS[kind]}, "k"))
    assert rows == [{"k": value}]
