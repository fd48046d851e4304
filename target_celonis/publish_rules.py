"""What the configuration says of data jobs and data models.

Hides the form of `data_jobs` and `data_models` in a configuration. Guarantees: a rule that leaves
here is checked; every fault is one ``SettingsError`` that names its place. Must not know: other
settings, Celonis, when something is published.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from target_celonis.browser_ids import DATA_JOB, DATA_MODEL, Page, id_of, pool_of
from target_celonis.errors import SettingsError
from target_celonis.rule_keys import NAMES, TEXT, Key, checked, one_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class JobMode(StrEnum):
    """What the extractions of a data job read: all, or what changed."""

    FULL = "FULL"
    DELTA = "DELTA"


class Reload(StrEnum):
    """How a data model is reloaded."""

    AUTO = "auto"
    PARTIAL = "partial"
    COMPLETE = "complete"


@dataclass(frozen=True)
class DataJobRule:
    """A data job to be executed."""

    id: str
    mode: JobMode = JobMode.DELTA


@dataclass(frozen=True)
class DataModelRule:
    """A data model to be reloaded.

    Attributes:
        id: Its id.
        reload: How.
        tables: With a partial reload, the tables to reload; none: those that changed.
    """

    id: str
    reload: Reload = Reload.AUTO
    tables: tuple[str, ...] = ()


_JOB_KEYS: dict[str, Key] = {
    "id": TEXT,
    "mode": Key(one_of(tuple(JobMode)), lambda value: value in tuple(JobMode), JobMode),
}
_MODEL_KEYS: dict[str, Key] = {
    "id": TEXT,
    "reload": Key(one_of(tuple(Reload)), lambda value: value in tuple(Reload), Reload),
    "tables": NAMES,
}


def data_job_rules(entries: Sequence[Any], pool_id: str) -> tuple[DataJobRule, ...]:
    """Check the objects of `data_jobs`.

    Args:
        entries: The objects.
        pool_id: The data pool that they must be of.

    Raises:
        SettingsError: One is no rule.
    """
    return tuple(
        DataJobRule(**_given(entry, _JOB_KEYS, f"`data_jobs[{index}]`", DATA_JOB, pool_id))
        for index, entry in enumerate(entries)
    )


def data_model_rules(entries: Sequence[Any], pool_id: str) -> tuple[DataModelRule, ...]:
    """Check the objects of `data_models`.

    Args:
        entries: The objects.
        pool_id: The data pool that they must be of.

    Raises:
        SettingsError: One is no rule, or two are of one data model.
    """
    rules: list[DataModelRule] = []
    for index, entry in enumerate(entries):
        where = f"`data_models[{index}]`"
        rule = DataModelRule(**_given(entry, _MODEL_KEYS, where, DATA_MODEL, pool_id))
        if rule.tables and rule.reload is not Reload.PARTIAL:
            raise SettingsError(
                "TC-SETTINGS-03",
                f"{where} has `tables`, which are for a partial reload.",
                "Set `reload` to `partial` there, or leave `tables` out.",
            )
        if rule.id in [other.id for other in rules]:
            raise SettingsError(
                "TC-SETTINGS-03", f"{where} is the data model {rule.id}, which is named already."
            )
        rules.append(rule)
    return tuple(rules)


def _given(
    entry: Any, keys: dict[str, Key], where: str, page: Page, pool_id: str
) -> dict[str, Any]:
    """Return an object's values, the id out of its address."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise SettingsError("TC-SETTINGS-03", f"{where} must be an object with an `id`.")
    given = checked(entry, keys, where)
    of_pool = pool_of(given["id"])
    if of_pool not in (None, pool_id):
        raise SettingsError(
            "TC-SETTINGS-03",
            f"{where} is of the data pool {of_pool}, and `data_pool_id` is {pool_id}.",
            "One run publishes in one data pool.",
        )
    given["id"] = id_of(given["id"], page, f"`id` in {where}")
    return given
