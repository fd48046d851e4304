"""What was published, for the log and the report of a run.

Hides how it is worded. Guarantees: what is not known is left out, never guessed. Must not know: how
anything is published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from target_celonis.publish_plan import Extent, named

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class JobReceipt:
    """A data job that was executed.

    Attributes:
        id: Its id.
        name: Its name.
        status: How it ended; None when that was not waited for.
        seconds: How long it took, the wait for an earlier run included.
    """

    id: str
    name: str
    status: str | None
    seconds: float


@dataclass(frozen=True)
class ModelReceipt:
    """A data model that was looked at, and reloaded if need be.

    Attributes:
        id: Its id.
        name: Its name.
        extent: How much of it was reloaded.
        tables: The tables that were.
        rows: Their rows; None where Celonis does not say.
        status: How the load ended; None without one, or when its end was not waited for.
        seconds: How long it took, the wait for an earlier load included.
        fresh_as_of: When the newest record of this run was extracted, where the tap says so.
    """

    id: str
    name: str
    extent: Extent
    tables: tuple[str, ...] = ()
    rows: int | None = None
    status: str | None = None
    seconds: float = 0.0
    fresh_as_of: datetime | None = None


@dataclass(frozen=True)
class PublishReceipt:
    """What was published.

    Attributes:
        reason: Why; None when nothing was due.
        jobs: The data jobs, in their order.
        models: The data models, in their order.
    """

    reason: str | None
    jobs: tuple[JobReceipt, ...] = ()
    models: tuple[ModelReceipt, ...] = ()

    def shown(self) -> tuple[dict[str, Any], ...]:
        """Return it as the run report has it, in the order of what was done."""
        jobs = (
            {
                "kind": "data job",
                "id": job.id,
                "name": job.name,
                "status": job.status,
                "seconds": round(job.seconds, 3),
            }
            for job in self.jobs
        )
        models = (
            {
                "kind": "data model",
                "id": model.id,
                "name": model.name,
                "status": model.status,
                "seconds": round(model.seconds, 3),
                "reloaded": model.extent.value,
                "tables": list(model.tables),
                "rows": model.rows,
                "fresh_as_of": None if model.fresh_as_of is None else model.fresh_as_of.isoformat(),
            }
            for model in self.models
        )
        return (*jobs, *models)


def closing_line(receipt: ModelReceipt) -> str:
    """Return one line that says how fresh a data model now is."""
    part = "completely" if receipt.extent is Extent.ALL else "in part"
    rows = "" if receipt.rows is None else f", {receipt.rows} rows"
    fresh = ""
    if receipt.fresh_as_of is not None:
        fresh = f"; fresh as of {receipt.fresh_as_of.isoformat(timespec='seconds')}"
    return (
        f"Data model {receipt.name}: reloaded {part} ({named(receipt.tables) or 'no table'})"
        f"{rows}, in {receipt.seconds:.1f} s{fresh}."
    )
