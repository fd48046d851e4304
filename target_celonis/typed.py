"""Records of one stream, decoded into typed structs, become columns in bulk.

Hides how a table's plan becomes a struct that proves each value while it is decoded, what is
learned of a tap's records on the way (properties that they lack, or that the SCHEMA lacks), and how
structs become Arrow columns. Guarantees: what comes out is what ``batch.convert`` makes of the same
records, value by value and note by note; what cannot be had so is refused, never bent. Must not
know: lines, blocks, other streams, files.

A struct is strict at first: all properties of the table, and no others. Where a record differs in
that only, ``adapt`` makes the struct as lenient as need be, for this property alone.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from target_celonis.batch import DELETED_AT, NOT_DELETED, SLICE_ROWS, may_be_too_long
from target_celonis.kinds import Kind
from target_celonis.metadata import METADATA_COLUMNS, values_of_all
from target_celonis.readers import (
    INEXACT_TIME,
    READERS,
    MisfitError,
    cast_dates,
    cast_datetimes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from target_celonis.batch import Notes
    from target_celonis.table import Column, TablePlan

_MOST_UNKNOWN = 100
"""Properties that the SCHEMA lacks, up to which their records stay on this path."""

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: dict[Kind, Any] = {
    Kind.INTEGER: _INT64,
    Kind.FLOAT: float,
    Kind.BOOLEAN: bool,
    Kind.TEXT: str,
    Kind.DATETIME: str,
    Kind.DATE: str,
}
_ARROW: dict[Kind, Any] = {
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TEXT: pa.string(),
    Kind.DATETIME: pa.string(),
    Kind.DATE: pa.string(),
}
_MISSING = re.compile(r"Object missing required field `(.*)` - at `\$\.record`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)` - at `\$\.record`", re.DOTALL)
_VERSION = re.compile(r"Expected `null`, got `int` - at `\$\.version`")
_NULL = b"null"
_PUT_BY_US = frozenset(METADATA_COLUMNS) - {DELETED_AT}


class UntypedError(Exception):
    """A stream's records cannot be decoded so."""


class RefusedError(Exception):
    """A value among the records needs the careful path."""


@dataclass(frozen=True)
class Intake:
    """What is to be known of a stream to convert its records.

    Attributes:
        stream: Its name.
        plan: Its table.
        deletes: Whether records with ``DELETED_AT`` are to delete rows.
        refuse_long: Whether a text that is longer than its column can be ends the run.
        adds_metadata: Whether the metadata columns are filled here.
        watches_time: Whether the newest ``time_extracted`` is to be known.
        started_at: When the run began, in milliseconds since 1970, for the metadata columns.
    """

    stream: str
    plan: TablePlan
    deletes: bool = False
    refuse_long: bool = True
    adds_metadata: bool = False
    watches_time: bool = False
    started_at: int = 0


@dataclass
class _Layout:
    """Where the struct of a record has what.

    Attributes:
        dense: Columns of the first fields, which every record has.
        loose: Columns of the next ones, whose values are looked at one by one.
        constants: Columns that no field is for, since we fill them.
        has_mark: Whether ``DELETED_AT``, which is no column, comes next.
        unknown: Properties that the SCHEMA lacks, which come next.
        sparse: Properties that a record may lack.
        struct: Arrow type of the first fields.
        may_miss: Names of columns whose fields may be unset.
    """

    dense: list[Column] = field(default_factory=list)
    loose: list[Column] = field(default_factory=list)
    constants: list[Column] = field(default_factory=list)
    has_mark: bool = False
    unknown: list[str] = field(default_factory=list)
    sparse: set[str] = field(default_factory=set)
    struct: Any = None
    may_miss: frozenset[str] = frozenset()

    @property
    def fields(self) -> list[Column]:
        """The columns that fields are for, in order."""
        return [*self.dense, *self.loose]


class TypedStream:
    """The struct of a stream's records.

    Args:
        intake: The stream.

    Attributes:
        message_type: Struct type of its RECORD messages, told from others by its ``stream``.
        lone_type: The same for a decoder that knows no other.
        is_versioned: Whether its messages may carry a version.

    Raises:
        UntypedError: Its records cannot be decoded into a struct.
    """

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.is_versioned = False
        self._layout = _Layout()
        columns = intake.plan.columns
        if any(column.is_key and column.kind is Kind.FLOAT for column in columns):
            raise UntypedError  # a key's digits are compared with those that the tap wrote
        constants = [c for c in columns if intake.adds_metadata and c.property_name in _PUT_BY_US]
        if any(column.is_key for column in constants):
            raise UntypedError
        self._layout.constants = constants
        self.lone_type: Any = None
        self.message_type = self._build()

    def _build(self) -> Any:  # a struct type made at run time
        """Make the struct types for what is known of the records by now."""
        layout, intake = self._layout, self.intake
        read = [column for column in intake.plan.columns if column not in layout.constants]
        dense = [c for c in read if c.kind is not Kind.JSON and not self._may_miss(c)]
        loose = [c for c in read if c not in dense]
        loose.sort(key=self._may_miss)  # fields with a default come last
        fields: list[Any] = []
        names: list[str] = []
        for column in (*dense, *loose):
            names.append(column.property_name)
            fields.append((f"f{len(fields)}", *self._type_of(column)))
        known = set(names)
        layout.has_mark = intake.deletes and DELETED_AT not in known
        names += [DELETED_AT] if layout.has_mark else []
        names += layout.unknown
        ignored = {column.property_name for column in layout.constants} | intake.plan.dropped
        names += sorted(ignored.difference(names))
        fields += [(f"f{i}", msgspec.Raw, _UNSET_RAW) for i in range(len(fields), len(names))]
        rename = {f"f{place}": name for place, name in enumerate(names)}
        envelope: list[Any] = [("type", Literal["RECORD"])]
        try:
            record = msgspec.defstruct(
                "Record", fields, rename=rename, gc=False, forbid_unknown_fields=True
            )
            envelope.append(("record", record))
            version: Any = int | None if self.is_versioned else None
            envelope.append(("version", version, None))
            if intake.adds_metadata or intake.watches_time:
                envelope.append(("time_extracted", msgspec.Raw, _UNSET_RAW))
            made = msgspec.defstruct(
                "RecordMessage", envelope, gc=False, tag_field="stream", tag=intake.stream
            )
            msgspec.json.Decoder(made)
            # Where there is no other type to tell it from, a decoder does not miss the tag.
            envelope.insert(1, ("stream", Literal[intake.stream]))
            self.lone_type = msgspec.defstruct("LoneRecordMessage", envelope, gc=False)
        except (TypeError, ValueError):  # a name that a struct cannot have
            raise UntypedError from None
        layout.dense, layout.loose = dense, loose
        layout.may_miss = frozenset(c.name for c in loose if self._may_miss(c))
        layout.struct = pa.struct([(str(i), _ARROW[c.kind]) for i, c in enumerate(dense)])
        return made

    def _may_miss(self, column: Column) -> bool:
        is_mark_of_ours = self.intake.adds_metadata and column.property_name == DELETED_AT
        return column.property_name in self._layout.sparse or is_mark_of_ours

    def _type_of(self, column: Column) -> tuple[Any, ...]:
        """Return the type of a column's field, and its default where a record may lack it."""
        if column.kind is Kind.JSON:
            return (msgspec.Raw, _UNSET_RAW) if self._may_miss(column) else (msgspec.Raw,)
        of_value = _TYPES[column.kind]
        if not column.is_key:
            of_value |= None
        if self._may_miss(column):
            return of_value | msgspec.UnsetType, msgspec.UNSET
        return (of_value,)

    def adapt(self, refusal: str) -> bool:
        """Become more lenient after a refusal; return whether that could help.

        Args:
            refusal: What the decoder said.
        """
        if found := _MISSING.fullmatch(refusal):
            keys = {column.property_name for column in self.intake.plan.keys}
            if found[1] in self._layout.sparse | keys:
                return False
            self._layout.sparse.add(found[1])
        elif found := _UNKNOWN.fullmatch(refusal):
            if len(self._layout.unknown) >= _MOST_UNKNOWN or found[1] in self._layout.unknown:
                return False
            self._layout.unknown.append(found[1])
        elif _VERSION.fullmatch(refusal) and not self.is_versioned:
            self.is_versioned = True
        else:
            return False
        try:
            self.message_type = self._build()
        except UntypedError:
            if found and found[1] in self._layout.unknown:
                self._layout.unknown.remove(found[1])
            return False
        return True

    def convert(
        self,
        messages: Sequence[Any],
        notes: Notes,
        version: int | None,
        now: float,
        *,
        longest_bytes: int,
    ) -> list[tuple[Any, Any | None]]:
        """Turn messages into record batches.

        Args:
            messages: Of ``message_type`` or ``lone_type``.
            notes: Takes the count of every rule applied; as it was, if they are refused.
            version: The version of all of them.
            now: When they were received, in seconds since 1970.
            longest_bytes: No line is longer, and so no text.

        Returns:
            As ``batch.convert``.

        Raises:
            RefusedError: The careful path is to have a look at them.
        """
        counts: Counter[tuple[str, str]] = Counter()
        made = []
        try:
            for start in range(0, len(messages), SLICE_ROWS):
                some = messages[start : start + SLICE_ROWS]
                slice_ = _Slice(
                    self.intake, self._layout, some, counts, longest_bytes=longest_bytes
                )
                made.append(slice_.convert(version, now))
        except (
            MisfitError,
            msgspec.MsgspecError,
            OverflowError,
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            UnicodeError,
        ):
            raise RefusedError from None
        for (name, rule), times in counts.items():
            notes.add(name, rule, times)
        return made


class _Slice:
    """Some messages on their way to a record batch.

    Args:
        intake: Their stream.
        layout: Where their structs have what.
        messages: The messages.
        counts: Takes the count of every rule applied, by property and rule.
        longest_bytes: No text is longer.
    """

    def __init__(
        self,
        intake: Intake,
        layout: _Layout,
        messages: Sequence[Any],
        counts: Counter[tuple[str, str]],
        *,
        longest_bytes: int,
    ) -> None:
        self._intake = intake
        self._layout = layout
        self._messages = messages
        self._counts = counts
        self._rows: list[tuple[Any, ...]] = [
            *map(msgspec.structs.astuple, map(_record_of, messages))
        ]
        self._longest_bytes = longest_bytes
        self._gone: list[bool] | None = None

    def convert(self, version: int | None, now: float) -> tuple[Any, Any | None]:
        """Return the record batch, and which rows are to be deleted."""
        layout = self._layout
        dense = len(layout.dense)
        width = len(layout.fields)
        self._note_unknown(width)
        if self._intake.deletes:
            self._find_gone()
        else:
            self._note_soft_deletes(width)
        rows = self._rows
        lean = rows if not rows or len(rows[0]) == dense else [row[:dense] for row in rows]
        arrays: dict[str, Any] = {}
        if dense:
            columns = pa.array(lean, layout.struct).flatten()
            for column, array in zip(layout.dense, columns, strict=True):
                arrays[column.name] = self._finished(column, array)
        for place, column in enumerate(layout.loose, dense):
            values = [row[place] for row in rows]
            arrays[column.name] = self._loose_column(column, values)
        for column in layout.constants:
            arrays[column.name] = self._constant(column, version, now)
        schema = self._intake.plan.arrow_schema
        batch = pa.RecordBatch.from_arrays([arrays[n] for n in schema.names], schema=schema)
        return batch, None if self._gone is None else pa.array(self._gone, pa.bool_())

    def _note(self, name: str, rule: str, times: int = 1) -> None:
        if times:
            self._counts[name, rule] += times

    def _noting(self, column: Column) -> Callable[..., None]:
        name = column.property_name
        return lambda rule, times=1: self._note(name, rule, times)

    def _note_unknown(self, width: int) -> None:
        """Note properties that no column takes."""
        first = width + self._layout.has_mark
        for place, name in enumerate(self._layout.unknown, first):
            self._note(name, "unknown_property", sum(bool(row[place]) for row in self._rows))

    # --- deletes

    def _marks(self, width: int) -> list[Any] | None:
        """Return what each record says of its deletion, as decoded; None if nothing can."""
        layout = self._layout
        for place, column in enumerate(layout.fields):
            if column.property_name == DELETED_AT:
                return [row[place] for row in self._rows]
        if layout.has_mark:
            return [row[width] for row in self._rows]
        if DELETED_AT in layout.unknown:
            return [row[width + layout.unknown.index(DELETED_AT)] for row in self._rows]
        return None

    def _find_gone(self) -> None:
        """Find rows to delete; of these, all but the key is nothing."""
        layout = self._layout
        marks = self._marks(len(layout.fields))
        gone = [_is_deleted(mark) for mark in marks or ()]
        if not any(gone):
            return
        keys = [column.is_key for column in layout.fields]
        if not any(keys):
            raise MisfitError(0, "is of a row to delete, without a key")
        self._gone = gone
        self._rows = [
            tuple(value if is_key else None for value, is_key in zip(row, keys, strict=False))
            if is_gone
            else row[: len(keys)]
            for row, is_gone in zip(self._rows, gone, strict=True)
        ]

    def _note_soft_deletes(self, width: int) -> None:
        """Note records that would keep of a deleted row little but its key."""
        layout = self._layout
        if not self._intake.plan.keys or not layout.sparse:
            return
        marks = self._marks(width)
        if marks is None:
            return
        sparse = [
            place
            for place, column in enumerate(layout.fields)
            if column.property_name in layout.sparse and column.property_name != DELETED_AT
        ]
        for row in compress(self._rows, map(_is_deleted, marks)):
            if any(_is_unset(row[place]) for place in sparse):
                self._note(DELETED_AT, "deleted_but_for_its_key")

    # --- columns

    def _loose_column(self, column: Column, values: list[Any]) -> Any:  # pyarrow ships no types
        if column.name in self._layout.may_miss:
            missing = sum(map(_is_unset, values))
            if column.property_name != DELETED_AT:  # most records have no need of it
                self._note(column.property_name, "missing_as_null", missing)
            lacking = _RAW_NULL if column.kind is Kind.JSON else None
            values = [lacking if _is_unset(value) else value for value in values]
        if column.kind is not Kind.JSON:
            return self._finished(column, pa.array(values, _ARROW[column.kind]))
        if self._gone is not None:
            values = [_RAW_NULL if value is None else value for value in values]
        texts = pa.array(list(map(bytes, values)), pa.binary()).cast(pa.string())
        nulls = pc.equal(texts, _NULL_TEXT)
        if nulls.true_count:
            texts = pc.if_else(nulls, _NO_TEXT, texts)
        return self._finished(column, texts)

    def _finished(self, column: Column, array: Any) -> Any:  # pyarrow ships no types
        """Return a column as its kind wants it, proven."""
        if column.kind in (Kind.DATETIME, Kind.DATE):
            if column.is_key and column.kind is Kind.DATETIME and _has_odd_digits(array):
                raise MisfitError(0, "has more digits than its column keeps")
            cast = cast_datetimes if column.kind is Kind.DATETIME else cast_dates
            done = cast(array, self._noting(column))
            if done is None:
                raws = [None if v is None else msgspec.Raw(_encode(v)) for v in array.to_pylist()]
                done = READERS[column.kind](raws, self._noting(column))
            array = done
        elif column.is_text and self._longest_bytes > column.longest:
            refuses = self._intake.refuse_long or column.is_key
            if refuses and may_be_too_long(column, array):
                raise MisfitError(0, "may be longer than its column")
        if column.is_key and array.null_count:
            raise MisfitError(0, "is null, and of a key")
        return array

    def _constant(self, column: Column, version: int | None, now: float) -> Any:  # pyarrow
        """Return a metadata column, in which rows to delete have nothing."""
        rows = len(self._messages)
        if column.property_name == "_sdc_extracted_at":
            raws = [message.time_extracted or msgspec.Raw(_NULL) for message in self._messages]
            if self._gone is not None:
                pairs = zip(raws, self._gone, strict=True)
                raws = [msgspec.Raw(_NULL) if is_gone else raw for raw, is_gone in pairs]
            array = READERS[column.kind](raws, self._noting(column))
        else:
            of_all = values_of_all(version, now, self._intake.started_at)
            one = READERS[column.kind](
                [msgspec.Raw(of_all[column.property_name])],
                lambda rule, times=1: self._note(
                    column.property_name, rule, times * (rows - sum(self._gone or ()))
                ),
            )
            array = pa.repeat(one[0], rows)
        if self._gone is not None:
            array = pc.if_else(pa.array(self._gone), pa.scalar(None, array.type), array)
        return array


_encode = msgspec.json.Encoder().encode
_record_of = attrgetter("record")
_UNSET_RAW = msgspec.Raw(b"")
_RAW_NULL = msgspec.Raw(b"null")
_NULL_TEXT = pa.scalar("null")
_NO_TEXT = pa.scalar(None, pa.string())


def _is_unset(value: Any) -> bool:  # of a struct
    return value is msgspec.UNSET or (type(value) is msgspec.Raw and not value)


def _is_deleted(mark: Any) -> bool:  # of a struct
    """Return whether a decoded ``DELETED_AT`` says that its row was deleted."""
    if type(mark) is msgspec.Raw:
        return bool(mark) and bytes(mark) not in NOT_DELETED
    return not (mark is None or mark is msgspec.UNSET or mark is False or mark == "")


def _has_odd_digits(texts: Any) -> bool:  # pyarrow ships no types
    """Return whether a time may have more digits of a second than its column keeps."""
    return bool(pc.any(pc.match_substring_regex(texts, INEXACT_TIME)).as_py())
