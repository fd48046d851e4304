"""What a push and the table in the pool owe each other: types, columns, lengths, number of rows.

Hides the rules by which a stream may go into a table that is there. Guarantees: pure; what cannot
be loaded whole is refused before anything is uploaded, by a ``ContractError`` that names table,
column and ways out; lengths are always declared. Must not know: how the table is listed, chunks,
jobs.

Assumed until a tenant says otherwise: a DELTA push neither widens nor retypes a column.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.errors import ContractError
from target_celonis.kinds import Kind
from target_celonis.table import KEYS_AS_TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_celonis.config import Config
    from target_celonis.table import Column, TablePlan

logger = logging.getLogger("target-celonis")

# The listing knows four types only and does not tell BOOLEAN, DATE and DATETIME apart (observed).
_LISTED: dict[Kind, frozenset[str]] = {
    Kind.INTEGER: frozenset({"INTEGER"}),
    Kind.FLOAT: frozenset({"FLOAT"}),
    Kind.TEXT: frozenset({"STRING"}),
    Kind.JSON: frozenset({"STRING"}),
    Kind.DATE: frozenset({"DATE", "DATETIME"}),
    Kind.DATETIME: frozenset({"DATE", "DATETIME"}),
    Kind.BOOLEAN: frozenset({"BOOLEAN", "INTEGER"}),
}
_KNOWN_TYPES = frozenset[str]().union(*_LISTED.values())
_WIDER: dict[str, tuple[Kind, frozenset[Kind]]] = {
    "FLOAT": (Kind.FLOAT, frozenset({Kind.INTEGER})),
    "STRING": (Kind.TEXT, frozenset(Kind)),
}
"""Listed types that hold the values of other kinds as well, and as what these are sent."""


@dataclass(frozen=True)
class ListedColumn:
    """A column as the pool lists it.

    Attributes:
        name: Its name.
        type: STRING, DATE, FLOAT or INTEGER.
        length: Characters that a text may have, where known.
    """

    name: str
    type: str
    length: int | None


@dataclass(frozen=True)
class Terms:
    """What a push job declares of its columns.

    Attributes:
        lengths: Of every text column, in characters, by name.
        new: Names of columns that the table in the pool lacks.
        differs: Whether one of the two has a column that the other lacks.
        widened: Columns that the push must make wider, with the characters needed.
    """

    lengths: dict[str, int]
    new: tuple[str, ...] = ()
    differs: bool = False
    widened: tuple[tuple[str, int], ...] = ()


def declared_length(longest: int, max_length: int | None) -> int:
    """Return the length to make a STRING column with.

    Args:
        longest: Characters of the longest text measured; at most ``limits.LONGEST_STRING``.
        max_length: The schema's ``maxLength``, if any.

    Returns:
        The smallest length offered that is twice the longest text and not below ``max_length``;
        the largest where twice is more than that.
    """
    wanted = max(2 * longest, max_length or 0)
    return next((n for n in limits.STRING_LENGTHS if n >= wanted), limits.LONGEST_STRING)


def fitted(plan: TablePlan, listed: Sequence[ListedColumn], config: Config) -> TablePlan:
    """Return the plan with the types that the table in the pool has.

    A whole number goes into a FLOAT column as a number, and anything into a STRING column as text;
    a key only where its values stay what they are.

    Args:
        plan: The stream's table.
        listed: The columns of the table in the pool.
        config: Whether the table may differ at all.

    Raises:
        ContractError: A type cannot be stored, or nothing may differ and something does.
    """
    if config.schema_change == "freeze":
        _refuse_any_difference(plan, listed)
    present = _by_name(listed)
    columns = []
    for column in plan.columns:
        there = present.get(column.name.casefold())
        kind = column.kind if there is None else _stored_as(plan, column, there)
        columns.append(column if kind is column.kind else replace(column, kind=kind))
    adapted = [(old, new) for old, new in zip(plan.columns, columns, strict=True) if old is not new]
    if adapted:
        pairs = ", ".join(f"{new.name} ({old.kind} -> {new.kind})" for old, new in adapted[:10])
        logger.info("Table %s: sent with the types that it has: %s.", plan.table, pairs)
        return replace(plan, columns=tuple(columns))
    return plan


def _is_listed_as(column: Column, there: ListedColumn) -> bool:
    """Return whether a column in the pool can be of the plan's type."""
    if column.kind is Kind.BOOLEAN and there.type == "STRING" and not there.length:
        return True  # how BOOLEAN is listed is not known; a text has a length
    return there.type in _LISTED[column.kind] or there.type not in _KNOWN_TYPES


def _stored_as(plan: TablePlan, column: Column, there: ListedColumn) -> Kind:
    if _is_listed_as(column, there):
        return column.kind
    kind, holds = _WIDER.get(there.type, (column.kind, frozenset[Kind]()))
    if column.is_key:
        holds &= KEYS_AS_TEXT if kind is Kind.TEXT else frozenset()
    if column.kind in holds:
        return kind
    raise ContractError(
        "TC-CONTRACT-04",
        f"Column `{column.name}` of table `{plan.table}` is {there.type} in Celonis and "
        f"{column.celonis_type} in stream `{plan.stream}`.",
        "Load the stream once with the load method `overwrite`, which makes the table anew, or "
        "give the property the table's `type` or another `name` in the `columns` of `streams`.",
    )


def _refuse_any_difference(plan: TablePlan, listed: Sequence[ListedColumn]) -> None:
    present = _by_name(listed)
    ours = {column.name.casefold(): column for column in plan.columns}
    gone = [c.name for name, c in present.items() if name not in ours]
    new = [c.name for name, c in ours.items() if name not in present]
    retyped = [
        column.name
        for name, column in ours.items()
        if name in present and not _is_listed_as(column, present[name])
    ]
    for names, how in (
        (new, "is new"),
        (gone, "is not in the stream"),
        (retyped, "has another type"),
    ):
        if names:
            raise ContractError(
                "TC-CONTRACT-09",
                f"Column `{names[0]}` of table `{plan.table}` {how}, and `schema_change` is "
                "`freeze`.",
                "Set `schema_change` to `evolve`, or load the stream once with the load method "
                "`overwrite` and `evolve`.",
            )


def _by_name(listed: Sequence[ListedColumn]) -> dict[str, ListedColumn]:
    """Return listed columns by folded name, but for that of Celonis itself."""
    found = {column.name.casefold(): column for column in listed}
    found.pop(limits.RESERVED_COLUMN.casefold(), None)
    return found


def cut_lengths(plan: TablePlan, listed: Sequence[ListedColumn], config: Config) -> dict[str, int]:
    """Return the characters at which texts are to be cut, by column name; none under `fail`.

    A key is never cut: two rows could become one.
    """
    if config.oversize_string != "truncate":
        return {}
    present = {} if config.widen_columns else _by_name(listed)
    cuts = {}
    for column in plan.columns:
        if column.is_text and not column.is_key:
            there = present.get(column.name.casefold())
            known = there.length if there is not None else None
            cuts[column.name] = min(
                known or column.longest, column.length or limits.LONGEST_DECLARED_STRING
            )
    return cuts


def terms(
    plan: TablePlan,
    longest: Mapping[str, int],
    listed: Sequence[ListedColumn] | None,
    config: Config,
) -> Terms:
    """Return what a push job has to declare.

    Args:
        plan: The stream's table, fitted.
        longest: Characters of the longest text that will be uploaded, by column name.
        listed: The columns of the table in the pool; None where it is made by the push, or is not
            known.
        config: Whether columns may be widened.

    Raises:
        ContractError: A text is longer than its column.
    """
    present = _by_name(listed or ())
    lengths: dict[str, int] = {}
    new: list[str] = []
    widened: list[tuple[str, int]] = []
    for column in plan.columns:
        there = present.get(column.name.casefold())
        if listed is not None and there is None:
            new.append(column.name)
        if not column.is_text:
            continue
        measured = longest.get(column.name, 0)
        known = there.length if there is not None else None
        if measured > (column.length or max(known or 0, column.longest)):
            raise _too_long(plan, column, measured)
        lengths[column.name] = column.length or declared_length(measured, column.max_length)
        if known is None:
            continue
        if measured <= known:
            lengths[column.name] = known
        elif config.widen_columns:
            lengths[column.name] = max(lengths[column.name], known)
            widened.append((column.name, measured))
        else:
            raise _too_narrow(plan, column, measured, known)
    differs = bool(new) or not set(present) <= {c.name.casefold() for c in plan.columns}
    return Terms(lengths, tuple(new), differs, tuple(widened))


def _too_long(plan: TablePlan, column: Column, measured: int) -> ContractError:
    return ContractError(
        "TC-CONTRACT-05",
        f"Stream `{plan.stream}`, column `{column.name}`: a text of {measured} characters; the "
        f"column is to hold {column.longest}.",
        "Give the property a greater `length` in the `columns` of `streams`, or shorten it by a "
        "stream map.",
    )


def _too_narrow(plan: TablePlan, column: Column, measured: int, length: int) -> ContractError:
    return ContractError(
        "TC-CONTRACT-03",
        f"Column `{column.name}` of table `{plan.table}` holds {length} characters in Celonis; "
        f"stream `{plan.stream}` has a text of {measured}, which Celonis would cut.",
        "Load the stream once with the load method `overwrite`, or widen the column in a "
        "transformation; or set `oversize_string` to `truncate`, or `widen_columns` to true where "
        "a push is known to widen columns.",
    )


def check_outcome(plan: TablePlan, agreed: Terms, listed: Sequence[ListedColumn] | None) -> None:
    """Make sure that a push which is DONE made the columns that it asked for.

    Args:
        plan: The stream's table.
        agreed: What the push declared.
        listed: The columns of the table now; None where they may not be listed.

    Raises:
        ContractError: A column is missing, or not as wide as it must be.
    """
    if listed is None:
        return
    present = _by_name(listed)
    missing = [name for name in agreed.new if name.casefold() not in present]
    if missing:
        raise ContractError(
            "TC-CONTRACT-06",
            f"Table `{plan.table}` did not get the new column `{missing[0]}`.",
            "Load the stream once with the load method `overwrite`.",
        )
    for name, needed in agreed.widened:
        there = present.get(name.casefold())
        if there is None or (there.length or 0) < needed:
            raise ContractError(
                "TC-CONTRACT-08",
                f"Column `{name}` of table `{plan.table}` was not widened to the {needed} "
                "characters that it needs, so Celonis has cut texts in it.",
                "Set `widen_columns` to false, and load the stream once with the load method "
                "`overwrite`.",
            )


def refuse_shrinking(table: str, rows: int, rows_before: int | None, config: Config) -> None:
    """Refuse to replace a table by one with far fewer rows.

    Args:
        table: The table.
        rows: Rows that it would have.
        rows_before: Rows that it has; None when that is not known.
        config: How many may go.

    Raises:
        ContractError: Too few rows would be left.
    """
    if rows_before is None:
        logger.info(
            "Table %s: how many rows it holds is not known, so its %d new ones are not compared "
            "with them.",
            table,
            rows,
        )
        return
    allowed = table.casefold() in {name.casefold() for name in config.allow_shrink}
    if rows < rows_before * config.min_row_ratio and not allowed:
        raise ContractError(
            "TC-CONTRACT-07",
            f"Table `{table}` would go from {rows_before} rows to {rows}, which is less than "
            f"`min_row_ratio` allows.",
            "If that is right, name the table in `allow_shrink` for this run.",
        )
