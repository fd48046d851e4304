"""Records become Arrow record batches, column by column.

Hides how a value's JSON text is read for each kind of column and what happens to values that do
not fit. Guarantees: every record of a run is in the batch, in order; each value either is what the
tap wrote, or followed one of ``RULES`` and is counted, or the run ends with an ``InputError`` that
names stream, line, column and rule but not the value. Must not know: files, jobs, the network.

Values are read from their own JSON text, so that numbers reach their column without a detour
through another type and objects keep the tap's spelling.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from target_celonis.errors import ContractError, InputError
from target_celonis.kinds import Kind
from target_celonis.readers import READERS, MisfitError, Raws, refuse_inexact_key
from target_celonis.table import DELETED_COLUMN, Column, TablePlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from target_celonis.messages import RecordRun

SLICE_ROWS = 1_000
"""Records converted at a time: more of them fall out of the processor's cache."""

RULES: dict[str, str] = {
    "missing_as_null": "The record lacks the property; the column is null.",
    "empty_text_as_null": "An empty text in a column of numbers, booleans or dates is null.",
    "overflow_as_null": "A whole number beyond 64 bits is null.",
    "not_finite_as_null": "NaN, an infinity, or a number beyond a double is null.",
    "text_as_value": "A text that spells a number or a boolean is read as one.",
    "number_as_boolean": "0 and 1 are read as false and true.",
    "boolean_as_number": "False and true in a column of numbers are 0 and 1.",
    "value_as_text": "A number, boolean, object or array in a text column is its JSON text.",
    "date_time_as_date": "Of a date-time in a date column, the date is kept.",
    "kept_within_years_1_to_9999": "A date-time whose zone takes it out of the years 1 to 9999 in "
    "UTC becomes the first or last moment of these.",
    "outside_data_model_years": "A date before the year 1400 is loaded; data models show null.",
    "surrogate_replaced": "Half of a surrogate pair, which is no character, is U+FFFD.",
    "text_cut": "A text longer than its column was cut (`oversize_string: truncate`).",
    "deleted_but_for_its_key": "A record of a deleted row lacks properties, which become null "
    "in the table; with `hard_delete` the row is deleted instead.",
    "unknown_property": "The record has a property that the SCHEMA lacks; it is not loaded.",
}

_NAMED = 10
"""Columns that a sentence names."""

HARMLESS_RULES = frozenset(
    {"empty_text_as_null", "text_as_value", "value_as_text", "number_as_boolean"}
)
"""Rules that lose nothing; every CSV tap has them applied."""


@dataclass
class Notes:
    """Which rules were applied how often.

    Attributes:
        counts: How often, by property name and rule (a key of ``RULES``).
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, property_name: str, rule: str, times: int = 1) -> None:
        """Count a rule; the names of records are theirs to choose, and only so many are kept."""
        if times:
            place = property_name, rule
            if place not in self.counts and len(self.counts) >= _MOST_COUNTS:
                place = "*", rule
            self.counts[place] += times


_decode_record = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MOST_COUNTS = 10_000
"""Properties and rules that are counted apart; the rest is counted under ``*``."""

DELETED_AT = "_sdc_deleted_at"
"""The property that says of a row that it was deleted, and when (Singer SDK)."""

NOT_DELETED = (b"null", b'""', b"false")
"""JSON texts of it that say that the row is there."""


def convert(
    run: RecordRun,
    plan: TablePlan,
    notes: Notes,
    *,
    deletes: bool = False,
    refuse_long: bool = True,
) -> Iterator[tuple[Any, Any | None]]:
    """Turn a run of records into record batches.

    Args:
        run: Records of the plan's stream.
        plan: Says which columns there are.
        notes: Takes the count of every rule applied.
        deletes: Whether records with ``DELETED_AT`` are to delete rows.
        refuse_long: Whether a text that is longer than its column can be ends the run.

    Yields:
        Record batches of ``plan.arrow_schema``, together one row for each record, in order; with
        each, where a row of it is to be deleted, which ones as a boolean array.

    Raises:
        InputError: A key is null, or a value fits no rule; it is the first record of which that
            is true.
        ContractError: A text is longer than any column, or a row that has no key is to be deleted.
    """
    notes.add("*", "not_finite_as_null", run.not_finite)
    notes.add("*", "surrogate_replaced", run.surrogates)
    for start in range(0, len(run.records), SLICE_ROWS):
        end = start + SLICE_ROWS
        try:
            converted = _Slice(run, start, end, plan, notes).convert(
                deletes=deletes, refuse_long=refuse_long
            )
        except (InputError, ContractError):  # columns are read one by one: is it the first?
            for index in range(start, min(end, len(run.records))):
                _Slice(run, index, index + 1, plan, Notes()).convert(
                    deletes=deletes, refuse_long=refuse_long
                )
            raise
        yield converted


def with_marks(batch: Any, deleted: Any | None) -> Any:  # pyarrow ships no types
    """Return a batch with a last column that tells which rows are to be deleted."""
    return pa.RecordBatch.from_arrays(
        [*batch.columns, marks_of(batch, deleted)], names=[*batch.schema.names, DELETED_COLUMN]
    )


def marks_of(batch: Any, deleted: Any | None) -> Any:  # pyarrow ships no types
    """Return which rows of a batch are to be deleted, where None means that none is."""
    return pa.repeat(pa.scalar(value=False), batch.num_rows) if deleted is None else deleted


class _Slice:
    """Some records of a run, decoded to the JSON text of each value.

    Args:
        run: The run.
        start: Index of the first of them.
        end: Index of the first behind them.
        plan: See ``convert``.
        notes: See ``convert``.
    """

    def __init__(self, run: RecordRun, start: int, end: int, plan: TablePlan, notes: Notes) -> None:
        self._run = run
        self._start = start
        self._plan = plan
        self._notes = notes
        self._rows = []
        for offset, record in enumerate(run.records[start:end]):
            try:
                self._rows.append(_decode_record(record))
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise InputError(
                    "TC-INPUT-01", f"{_sentence(self._place(offset))} is not JSON."
                ) from None

    def _place(self, offset: int) -> str:
        return self._run.place(self._start + offset)

    def convert(self, *, deletes: bool, refuse_long: bool) -> tuple[Any, Any | None]:
        """Return them as a record batch, and which are to be deleted; see ``convert``."""
        deleted = self._deleted() if deletes else None
        if not deletes:
            self._note_soft_deletes()
        arrays = []
        properties_read = 0
        for column in self._plan.columns:
            name = column.property_name
            raws = [row.get(name) for row in self._rows]
            missing = raws.count(None)
            properties_read += len(raws) - missing
            if deleted is not None:
                missing = sum(
                    raw is None and not gone for raw, gone in zip(raws, deleted, strict=True)
                )
                if not column.is_key:  # what else a deleted row holds does not matter
                    raws = [None if gone else raw for raw, gone in zip(raws, deleted, strict=True)]
            if name != DELETED_AT:  # most records have no need of it
                self._notes.add(name, "missing_as_null", missing)
            array = self._read(column, raws)
            if column.is_key and array.null_count:
                raise self._null_key(column, array)
            if column.is_text and (refuse_long or column.is_key):
                self._refuse_too_long(column, array)
            arrays.append(array)
        if sum(map(len, self._rows)) > properties_read:
            self._note_unknown(deletes=deletes)
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._plan.arrow_schema)
        return batch, None if deleted is None else pa.array(deleted, pa.bool_())

    def _read(self, column: Column, raws: Raws) -> Any:  # pyarrow ships no types
        name = column.property_name
        try:
            if column.is_key and column.kind in (Kind.FLOAT, Kind.DATETIME):
                refuse_inexact_key(column.kind, raws)
            return READERS[column.kind](
                raws, lambda rule, times=1: self._notes.add(name, rule, times)
            )
        except MisfitError as misfit:
            raise InputError(
                "TC-INPUT-08",
                f"Stream `{self._plan.stream}`, {self._place(misfit.index)}, column `{name}`: the "
                f"value {misfit.reason}, but the column is of the type {column.kind}.",
                "Correct the type in the tap's catalog or schema, or give the property another "
                "`type` in the `columns` of `streams`.",
            ) from None

    def _deleted(self) -> list[bool] | None:
        """Return which rows are to be deleted; None when none is."""
        deleted = [_is_deleted(row) for row in self._rows]
        if not any(deleted):
            return None
        if not self._plan.keys:
            raise ContractError(
                "TC-CONTRACT-11",
                f"Stream `{self._plan.stream}`, {self._place(deleted.index(True))}: a row is to be "
                "deleted, and the stream has no key to find it by.",
                "Give the stream `key_properties` under `streams`, or set `hard_delete` to false.",
            )
        return deleted

    def _note_soft_deletes(self) -> None:
        """Note records that would keep of a deleted row little but its key."""
        if not self._plan.keys:
            return
        for row in [row for row in self._rows if DELETED_AT in row]:
            if _is_deleted(row) and any(
                column.property_name not in row for column in self._plan.columns
            ):
                self._notes.add(DELETED_AT, "deleted_but_for_its_key")

    def _note_unknown(self, *, deletes: bool) -> None:
        """Note properties that no column takes."""
        known = {column.property_name for column in self._plan.columns} | self._plan.dropped
        if deletes:
            known.add(DELETED_AT)
        for row in self._rows:
            for name in row.keys() - known:
                self._notes.add(name, "unknown_property")

    def _null_key(self, column: Column, array: Any) -> InputError:
        first = pc.index(array.is_null(), True).as_py()  # the value looked for
        return InputError(
            "TC-INPUT-07",
            f"Stream `{self._plan.stream}`, {self._place(first)}: the key property "
            f"`{column.property_name}` is null or missing.",
            "A row without its key cannot be found again; name other `key_properties` under "
            "`streams`, or use the load method `append-only`.",
        )

    def _refuse_too_long(self, column: Column, array: Any) -> None:
        """Refuse a text that its column cannot hold, at once: it can only end in a failure."""
        if not may_be_too_long(column, array):
            return
        too_long = pc.greater(pc.utf8_length(array), column.longest)
        first = pc.index(too_long, True).as_py()  # the value looked for
        if first >= 0:
            length = pc.utf8_length(array[first]).as_py()
            raise ContractError(
                "TC-CONTRACT-05",
                f"Stream `{self._plan.stream}`, {self._place(first)}, column "
                f"`{column.property_name}`: a text of {length} characters; the column is to hold "
                f"{column.longest}.",
                "Shorten or deselect the property in the tap or by a stream map, or give it a "
                "greater `length` in the `columns` of `streams`"
                + ("." if column.is_key else "; or set `oversize_string` to `truncate`."),
            )


def may_be_too_long(column: Column, array: Any) -> bool:  # pyarrow ships no types
    """Return whether a text could have more characters than its column can be made to hold."""
    if array.nbytes <= column.longest:
        return False
    longest_octets = pc.max(pc.binary_length(array)).as_py()
    return longest_octets is not None and longest_octets > column.longest


def _is_deleted(row: dict[str, msgspec.Raw]) -> bool:
    """Return whether a record says that its row was deleted, however it spells the time."""
    return DELETED_AT in row and bytes(row[DELETED_AT]) not in NOT_DELETED


def _sentence(text: str) -> str:
    """Return a text as the beginning of a sentence."""
    return text[0].upper() + text[1:]


def rules_applied(stream: str, counts: Mapping[tuple[str, str], int]) -> list[tuple[int, str]]:
    """Return a sentence for each rule for odd values that a stream's records met.

    Args:
        stream: Its name.
        counts: How often, by property and rule.

    Returns:
        Log level and sentence: a warning where something of a value is lost.
    """
    by_rule: dict[str, list[tuple[str, int]]] = {}
    for (name, rule), count in sorted(counts.items()):
        by_rule.setdefault(rule, []).append((name, count))
    lines = []
    for rule, found in by_rule.items():
        where = ", ".join(f"{name} ({count})" for name, count in found[:_NAMED])
        where += f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        level = logging.INFO if rule in HARMLESS_RULES else logging.WARNING
        lines.append((level, f"Stream {stream}: {RULES[rule]} Columns: {where}."))
    return lines
