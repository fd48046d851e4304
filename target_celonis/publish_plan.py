"""What is to be published, decided from what is known; pure.

Hides the rules: when a publish is due, and which tables of a data model are to be reloaded.
Guarantees: nothing is left out unless it surely shows what is in the pool already. Must not know:
HTTP, waiting, where the facts come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from target_celonis.errors import SettingsError
from target_celonis.publish_rules import DataModelRule, Reload

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from target_celonis.publishing_api import DataModel, ModelTable

_NAMED = 10
"""Tables that a sentence names."""


@dataclass(frozen=True)
class TableKey:
    """A table of the pool; names are the same whatever their case.

    Attributes:
        connection_id: Its data connection; None in the global schema.
        folded: Its name, case taken away.
        name: Its name, to be shown.
    """

    connection_id: str | None
    folded: str
    name: str = field(compare=False)

    @classmethod
    def of(cls, connection_id: str | None, name: str) -> Self:
        """Return the key of a table."""
        return cls(connection_id, name.casefold(), name)


class Extent(StrEnum):
    """How much of a data model is reloaded."""

    NOTHING = "nothing"
    PART = "part"
    ALL = "all"


@dataclass(frozen=True)
class Choice:
    """How a data model is to be reloaded.

    Attributes:
        extent: How much of it.
        tables: Which of its tables.
        reason: Why, to follow "since".
    """

    extent: Extent
    tables: tuple[ModelTable, ...]
    reason: str


@dataclass(frozen=True)
class Knowledge:
    """What is known when something is to be published.

    Attributes:
        changed: Tables that changed since the last publish.
        doubt: Why any other table may have, too; None: surely none did.
        after_jobs: Whether data jobs are executed before data models are reloaded.
        is_asked_for: Whether a reload is wanted even if nothing changed.
        is_open: Whether it is asked for without a word of what others may have changed.
        kinds: TABLE or VIEW by table of the pool, where Celonis says so; None where the tables may
            not be listed.
    """

    changed: frozenset[TableKey]
    doubt: str | None
    after_jobs: bool = False
    is_asked_for: bool = False
    is_open: bool = False
    kinds: Mapping[TableKey, str | None] | None = None


def due(
    knowledge: Knowledge, statuses: Mapping[str, str | None], bad: Collection[str]
) -> str | None:
    """Say why something is to be published; None when nothing is.

    Args:
        knowledge: What is known.
        statuses: How the last load of each data model ended, by its name; None: there was none.
        bad: The statuses of loads that ended, and not well; one that goes on is no reason.
    """
    if knowledge.is_asked_for:
        return "it is asked for"
    if knowledge.doubt is not None:
        return knowledge.doubt
    if knowledge.changed:
        return f"these tables changed: {named(key.name for key in knowledge.changed)}"
    for model, status in statuses.items():
        if status is None:
            return f"data model {model} was never loaded"
        if status in bad:
            return f"the last load of data model {model} did not end well"
    return None


def choose(
    rule: DataModelRule, model: DataModel, knowledge: Knowledge, *, is_loaded: bool
) -> Choice:
    """Choose how to reload a data model.

    Args:
        rule: What the configuration says of it.
        model: The model.
        knowledge: What is known.
        is_loaded: Whether its last load is good.

    Raises:
        SettingsError: The configuration names a table that the model has not.
    """
    affected = tuple(t for t in model.tables if key_of(t) in knowledge.changed)
    if rule.reload is Reload.PARTIAL:
        return _choose_part(rule, model, affected, knowledge, is_loaded=is_loaded)
    reason: str | None = "`reload` is `complete`"
    if rule.reload is Reload.AUTO:
        reason = _why_all(model, affected, knowledge, is_loaded=is_loaded)
    if reason is not None:
        return Choice(Extent.ALL, model.tables, reason)
    if not affected:
        return Choice(Extent.NOTHING, (), "none of its tables changed")
    return Choice(Extent.PART, affected, "no other table changed")


def _choose_part(
    rule: DataModelRule,
    model: DataModel,
    affected: tuple[ModelTable, ...],
    knowledge: Knowledge,
    *,
    is_loaded: bool,
) -> Choice:
    """Choose where the user knows which tables are enough."""
    if rule.tables:
        return Choice(Extent.PART, named_tables(rule, model), "`tables` names them")
    if knowledge.doubt is not None:
        return Choice(Extent.ALL, model.tables, knowledge.doubt)
    if affected:
        return Choice(Extent.PART, affected, "they changed")
    if not is_loaded:
        return Choice(Extent.ALL, model.tables, "its last load is not a good one")
    if knowledge.is_asked_for:
        return Choice(Extent.ALL, model.tables, "it is asked for, and none of its tables changed")
    return Choice(Extent.NOTHING, (), "none of its tables changed")


def _why_all(
    model: DataModel, affected: Sequence[ModelTable], knowledge: Knowledge, *, is_loaded: bool
) -> str | None:
    """Say why less than all would perhaps not be enough; None where it surely is."""
    reasons = {
        "data jobs may change any table": knowledge.after_jobs,
        knowledge.doubt or "": knowledge.doubt is not None,
        "its last load is not a good one": not is_loaded,
        "it is asked for": knowledge.is_open or (knowledge.is_asked_for and not affected),
        "all its tables changed": bool(affected) and len(affected) == len(model.tables),
    }
    for reason, holds in reasons.items():
        if holds:
            return reason
    # A view may show a table that is not in the data model.
    return _possible_view(model, affected, knowledge) if knowledge.changed else None


def _possible_view(
    model: DataModel, affected: Sequence[ModelTable], knowledge: Knowledge
) -> str | None:
    """Name a table that was not pushed and may show rows that were."""
    for table in model.tables:
        kind = (knowledge.kinds or {}).get(key_of(table))
        if table not in affected and kind != "TABLE":
            is_view = f"{table.name} is a view, which may show tables that changed"
            return (
                is_view if kind == "VIEW" else f"{table.name} may be a view for all that is known"
            )
    return None


def key_of(table: ModelTable) -> TableKey:
    """Return the pool's table behind a data model's."""
    return TableKey.of(table.connection_id, table.name)


def named_tables(rule: DataModelRule, model: DataModel) -> tuple[ModelTable, ...]:
    """Return the tables that a rule names, by their names in the pool or in the data model.

    Raises:
        SettingsError: The model has no such table.
    """
    found: list[ModelTable] = []
    for name in rule.tables:
        folded = name.casefold()
        fitting = [t for t in model.tables if folded in _names(t)]
        if not fitting:
            raise SettingsError(
                "TC-SETTINGS-03",
                f"`tables` of the data model {model.id} in `data_models` names `{name}`, which "
                "the data model does not have.",
                f"It has: {named(t.name for t in model.tables) or 'no table'}.",
            )
        found += [t for t in fitting if t not in found]
    return tuple(found)


def _names(table: ModelTable) -> set[str]:
    return {name.casefold() for name in (table.name, table.alias) if name}


def named(names: Iterable[str]) -> str:
    """Return names for a sentence, not too many of them."""
    listed = sorted(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
