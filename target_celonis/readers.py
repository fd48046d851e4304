"""The values of one column, from their JSON text to an Arrow array.

Hides how taps spell numbers, dates and the like, and the written rule for each value that does not
fit its column. Guarantees: one entry for each value, in order; a rule that was applied is told to
the caller; a value that no rule covers raises ``MisfitError``, which does not hold it. Must not
know: records, streams, tables.

Each reader tries the whole column at once; only what that refuses is read value by value.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from target_celonis import limits
from target_celonis.kinds import Kind


class MisfitError(Exception):
    """A value that no rule covers.

    Args:
        index: Its place in the column.
        reason: The rule that it breaks, to follow "the value".
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index
        self.reason = reason


_decode_integer = msgspec.json.Decoder(int | None).decode
_decode_float = msgspec.json.Decoder(float | None).decode
_decode_boolean = msgspec.json.Decoder(bool | None).decode
_decode_text = msgspec.json.Decoder(str | None).decode
_decode_any = msgspec.json.Decoder().decode

# The JSON text of one property in each record; None where the record lacks it.
Raws = Sequence[msgspec.Raw | None]
_NULL = b"null"
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, pa.ArrowInvalid)

_Note = Callable[..., None]


def _present(raws: Raws) -> Iterable[bytes]:
    return (_NULL if raw is None else bytes(raw) for raw in raws)


def _read_integers(raws: Raws, note: _Note) -> Any:  # pyarrow ships no types
    try:
        return pa.array([None if r is None else _decode_integer(r) for r in raws], pa.int64())
    except _REFUSED:
        values = [_integer(raw, i, note) for i, raw in enumerate(_present(raws))]
        return pa.array(values, pa.int64())


def _integer(raw: bytes, index: int, note: _Note) -> int | None:
    text = _plain(raw, index)
    if text is None:
        return None
    if text in ("true", "false") and not raw.startswith(b'"'):
        note("boolean_as_number")
        return int(text == "true")
    if raw.startswith(b'"') and not text.strip():
        note("empty_text_as_null")
        return None
    try:
        value = _whole(text.strip())
    except ValueError:
        raise MisfitError(index, "is not a whole number") from None
    if raw.startswith(b'"'):
        note("text_as_value")
    if value is None:
        note("overflow_as_null")
    return value


_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INT64_DIGITS = 19


def _whole(text: str) -> int | None:
    """Read a whole number, also as ``12.0`` or ``1.2e3``, exactly; None beyond 64 bits.

    Raises:
        ValueError: It is none.
    """
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)
    try:
        number = Decimal(text)
    except ArithmeticError:  # an exponent beyond what even this can hold
        if "e-" in text.lower():
            raise ValueError(text) from None
        return None
    if number and number.adjusted() >= _INT64_DIGITS:
        if number != number.to_integral_value():
            raise ValueError(text)
        return None
    value = int(number)
    if value != number:
        raise ValueError(text)
    return value if -(2**63) <= value < 2**63 else None


def _read_floats(raws: Raws, note: _Note) -> Any:  # pyarrow ships no types
    try:
        return pa.array([None if r is None else _decode_float(r) for r in raws], pa.float64())
    except _REFUSED:
        values = [_float(raw, i, note) for i, raw in enumerate(_present(raws))]
        return pa.array(values, pa.float64())


def _float(raw: bytes, index: int, note: _Note) -> float | None:
    text = _plain(raw, index)
    if text is None:
        return None
    if text in ("true", "false") and not raw.startswith(b'"'):
        note("boolean_as_number")
        return float(text == "true")
    if raw.startswith(b'"') and not text.strip():
        note("empty_text_as_null")
        return None
    if _NUMBER.fullmatch(text.strip()) is None and text.strip().lower() not in _NOT_FINITE:
        raise MisfitError(index, "is not a number")
    if raw.startswith(b'"'):
        note("text_as_value")
    value = 0.0 if raw == b"-0" else float(text)  # a whole number, which knows no sign of zero
    if value - value != 0.0:  # NaN or an infinity
        note("not_finite_as_null")
        return None
    return value


_NOT_FINITE = frozenset(
    sign + word for sign in ("", "+", "-") for word in ("nan", "inf", "infinity")
)
_TRUE = frozenset({"true", "t", "yes", "y", "1", "1.0"})
_FALSE = frozenset({"false", "f", "no", "n", "0", "0.0"})


def _read_booleans(raws: Raws, note: _Note) -> Any:  # pyarrow ships no types
    try:
        return pa.array([None if r is None else _decode_boolean(r) for r in raws], pa.bool_())
    except _REFUSED:
        values = [_boolean(raw, i, note) for i, raw in enumerate(_present(raws))]
        return pa.array(values, pa.bool_())


def _boolean(raw: bytes, index: int, note: _Note) -> bool | None:
    text = _plain(raw, index)
    if text is None:
        return None
    word = text.strip().lower()
    if raw.startswith(b'"') and not word:
        note("empty_text_as_null")
        return None
    if word not in _TRUE and word not in _FALSE:
        raise MisfitError(index, "is not true or false")
    if raw.startswith(b'"'):
        note("text_as_value")
    elif word in ("0", "1", "0.0", "1.0"):
        note("number_as_boolean")
    return word in _TRUE


def _plain(raw: bytes, index: int) -> str | None:
    """Return a value's text: of a text what it says, of a number or boolean its JSON."""
    if raw == _NULL:
        return None
    try:
        return str(_decode_any(raw)) if raw.startswith(b'"') else raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MisfitError(index, "is not valid UTF-8") from None


def _read_texts(raws: Raws, note: _Note) -> Any:  # pyarrow ships no types
    try:
        return pa.array([None if r is None else _decode_text(r) for r in raws], pa.string())
    except _REFUSED:
        values = []
        for index, raw in enumerate(_present(raws)):
            values.append(_plain(raw, index))
            if raw != _NULL and not raw.startswith(b'"'):
                note("value_as_text")
        return pa.array(values, pa.string())


def _read_json(raws: Raws, _note: _Note) -> Any:  # one form for all readers
    texts = []
    for index, raw in enumerate(_present(raws)):
        try:
            texts.append(None if raw == _NULL else raw.decode())
        except UnicodeDecodeError:
            raise MisfitError(index, "is not valid UTF-8") from None
    return pa.array(texts, pa.string())


_UTC_MICROSECONDS = pa.timestamp("us", "UTC")
_FIRST_ENGINE_MOMENT = pa.scalar(
    dt.datetime(limits.ENGINE_FIRST_YEAR, 1, 1, tzinfo=dt.UTC), _UTC_MICROSECONDS
)
_FIRST_ENGINE_MICROSECOND = _FIRST_ENGINE_MOMENT.cast(pa.int64()).as_py()


def _read_datetimes(raws: Raws, note: _Note) -> Any:  # pyarrow ships no types
    try:
        texts = pa.array([None if r is None else _decode_text(r) for r in raws], pa.string())
        array = cast_datetimes(texts, note)
    except _REFUSED:
        array = None
    if array is None:
        values = [_datetime(raw, i, note) for i, raw in enumerate(_present(raws))]
        array = pa.array(values, _UTC_MICROSECONDS)
        _note_early(array, _FIRST_ENGINE_MOMENT, note)
    return array


def cast_datetimes(texts: Any, note: _Note) -> Any | None:  # pyarrow ships no types
    """Cast a column of texts at once; None, and nothing noted, when one needs a closer look."""
    for unzoned in (False, True):  # Arrow takes a column with zones or one without, not a mixture
        try:
            array = texts.cast(pa.timestamp("us") if unzoned else _UTC_MICROSECONDS)
        except pa.ArrowInvalid:
            continue
        array = array.cast(_UTC_MICROSECONDS) if unzoned else array
        ends = pc.min_max(array.view(pa.int64()))
        earliest, latest = ends["min"].as_py(), ends["max"].as_py()
        if earliest is None:
            return array
        if earliest < _FIRST_MICROSECOND or latest > _LAST_MICROSECOND:
            return None
        if earliest < _FIRST_ENGINE_MICROSECOND:
            _note_early(array, _FIRST_ENGINE_MOMENT, note)
        return array
    return None


_FIRST_MICROSECOND, _LAST_MICROSECOND = (
    pa.scalar(end.replace(tzinfo=dt.UTC), _UTC_MICROSECONDS).cast(pa.int64()).as_py()
    for end in (dt.datetime.min, dt.datetime.max)  # noqa: DTZ901  # given their zone above
)
_DATETIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ]\s?(\d\d(?::\d\d(?::\d\d(?:[.,]\d+)?)?)?))?"
    r"\s*(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?(?:\+00:00|Z)?"
)


def _datetime(raw: bytes, index: int, note: _Note) -> dt.datetime | None:
    text = _plain(raw, index)
    if text is None:
        return None
    if raw.startswith(b'"') and not text.strip():
        note("empty_text_as_null")
        return None
    match = _DATETIME.fullmatch(text.strip()) if raw.startswith(b'"') else None
    if match is None:
        raise MisfitError(index, "is not a date-time as in 2024-05-31T12:34:56Z")
    day, time, zone = match.groups()
    time, _, fraction = (time or "00").replace(",", ".").partition(".")
    fraction = f".{fraction[:6]:0<6}" if fraction else ""
    zone = "+00:00" if zone is None or zone[0] not in "+-" else zone
    time += ":00:00"[len(time) - len("12") :]
    try:
        local = dt.datetime.fromisoformat(f"{day}T{time}{fraction}{zone}")
    except ValueError:
        raise MisfitError(index, "is not a date-time of the years 1 to 9999") from None
    try:
        return local.astimezone(dt.UTC)
    except OverflowError:  # as of 9999-12-31T23:59:59-05:00, the end of time in New York
        note("kept_within_years_1_to_9999")
        ends = dt.datetime.max if local.year > 1 else dt.datetime.min  # noqa: DTZ901  # given below
        return ends.replace(tzinfo=dt.UTC)


_DATE_FIRST_ENGINE_YEAR = pa.scalar(dt.date(limits.ENGINE_FIRST_YEAR, 1, 1), pa.date32())
_DAYS_OF_YEAR_1 = (dt.date(1, 1, 1) - dt.date(1970, 1, 1)).days
_DAYS_OF_FIRST_ENGINE_YEAR = _DATE_FIRST_ENGINE_YEAR.cast(pa.int32()).as_py()


def _read_dates(raws: Raws, note: _Note) -> Any:  # pyarrow ships no types
    try:
        texts = pa.array([None if r is None else _decode_text(r) for r in raws], pa.string())
        array = cast_dates(texts, note)
    except _REFUSED:
        array = None
    if array is None:
        values = [_date(raw, i, note) for i, raw in enumerate(_present(raws))]
        array = pa.array(values, pa.date32())
        _note_early(array, _DATE_FIRST_ENGINE_YEAR, note)
    return array


def cast_dates(texts: Any, note: _Note) -> Any | None:  # pyarrow ships no types
    """Cast a column of texts at once; None, and nothing noted, when one needs a closer look."""
    try:
        array = texts.cast(pa.date32())
    except pa.ArrowInvalid:
        return None
    earliest = pc.min(array.view(pa.int32())).as_py()
    if earliest is None:
        return array
    if earliest < _DAYS_OF_YEAR_1:
        return None
    if earliest < _DAYS_OF_FIRST_ENGINE_YEAR:
        _note_early(array, _DATE_FIRST_ENGINE_YEAR, note)
    return array


def _date(raw: bytes, index: int, note: _Note) -> dt.date | None:
    text = _plain(raw, index)
    if text is None:
        return None
    text = text.strip()
    if raw.startswith(b'"') and not text:
        note("empty_text_as_null")
        return None
    try:
        if _DATETIME.fullmatch(text) is None:
            raise ValueError
        value = dt.date.fromisoformat(text[:10])
    except ValueError:
        raise MisfitError(index, "is not a date as in 2024-05-31") from None
    if len(text) > len("2024-05-31"):
        note("date_time_as_date")
    return value


def _note_early(array: Any, first: Any, note: _Note) -> None:  # pyarrow
    early = pc.sum(pc.less(array, first)).as_py() or 0
    note("outside_data_model_years", early)


READERS: dict[Kind, Callable[[Raws, _Note], Any]] = {
    Kind.INTEGER: _read_integers,
    Kind.FLOAT: _read_floats,
    Kind.BOOLEAN: _read_booleans,
    Kind.TEXT: _read_texts,
    Kind.JSON: _read_json,
    Kind.DATETIME: _read_datetimes,
    Kind.DATE: _read_dates,
}

INEXACT_TIME = r"\.[0-9]{6}[0-9]*[1-9]"
"""What a time with more digits of a second than its column keeps looks like, as a pattern."""

_INEXACT_TIME = re.compile(INEXACT_TIME.encode())


def refuse_inexact_key(kind: Kind, raws: Raws) -> None:
    """Refuse values of a key that their column cannot tell from others.

    Raises:
        MisfitError: A number has more digits than a double keeps, or a time than six of a second.
    """
    for index, raw in enumerate(_present(raws)):
        if raw == _NULL:
            continue
        if kind is Kind.DATETIME and _INEXACT_TIME.search(raw):
            raise MisfitError(index, "has more digits of a second than the column of a key keeps")
        if kind is Kind.FLOAT:
            text = (_plain(raw, index) or "").strip()
            known = _NUMBER.fullmatch(text) and float(text) - float(text) == 0.0
            if known and Decimal(text) != Decimal(repr(float(text))):
                raise MisfitError(index, "has more digits than a number that is a key keeps")
