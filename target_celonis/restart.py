"""What is done about runs that were killed: their unexecuted jobs go, what they appended is told.

Guarantees: nothing of a dead run is executed; only jobs that its journal names are touched; a job
that is under way is left to end. Must not know: where journals are, or what this run will load.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from target_celonis.celonis import TERMINAL, Celonis, JobStatus
from target_celonis.errors import TargetCelonisError
from target_celonis.journal import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target_celonis.journal import Account, Journal, JournalJob
    from target_celonis.run_directory import DeadRun

logger = logging.getLogger("target-celonis")

_NAMED = (JobStatus.NEW, JobStatus.DONE)
"""Not the others: the log of a run that goes well has no line with the word ERROR."""


@dataclass(frozen=True)
class Inheritance:
    """What dead runs left.

    Attributes:
        running_job_ids: Push jobs of theirs that have not ended yet.
        notices: Sentences for people: what stands, or may stand, twice.
    """

    running_job_ids: frozenset[str] = frozenset()
    notices: tuple[str, ...] = ()


def settle_dead_runs(runs: Sequence[DeadRun], celonis: Celonis, journal: Journal) -> Inheritance:
    """Delete what dead runs left unexecuted, and remove their directories.

    Args:
        runs: Runs on this data pool and connection that were killed.
        celonis: The pool.
        journal: Of this run; takes the jobs that have not ended, so that they are not forgotten.
    """
    running: set[str] = set()
    notices: list[str] = []
    for run in runs:
        account = run.account
        logger.info(
            "The run of %s (process %d) was ended in its midst; its push jobs are looked after.",
            account.started_at,
            account.process_id,
        )
        try:
            for job in account.unsettled:
                if _is_left_running(job, celonis):
                    running.add(job.id)
                    _take_over(job, journal)
        except TargetCelonisError as error:
            logger.warning("What that run left is for a later run to settle: %s", error)
            run.leave()
            continue
        told = doubled(account, f"the run of {account.started_at}, which was cut off,")
        for notice in told:
            logger.warning("%s", notice)
        notices += told
        run.drop()  # last: whoever is killed before has the next run tell it again
    return Inheritance(frozenset(running), tuple(notices))


def _is_left_running(job: JournalJob, celonis: Celonis) -> bool:
    """Delete a job, unless it is under way."""
    found = celonis.find_job(job.id)
    if found is None:
        return False
    if found.status == JobStatus.NEW:
        job.executed = False  # it was meant to be, and was not
    elif found.status not in TERMINAL:
        return True
    job.done = job.done or found.status == JobStatus.DONE
    celonis.delete_job(job.id)
    status = found.status if found.status in _NAMED else "not DONE"
    logger.info("Table %s: push job %s, which was left %s, deleted.", job.table, job.id, status)
    return False


def _take_over(job: JournalJob, journal: Journal) -> None:
    """Note a job of a dead run as one of this run, which is to see to its deletion."""
    journal.record(
        Step.JOB_CREATED,
        job=job.id,
        table=job.table,
        type="inherited",
        rows=job.rows,
        appends=False,  # what stands twice of it is told by the dead run's journal
        last_line=0,
    )
    journal.record(Step.EXECUTE_MEANT, job=job.id)


def doubled(account: Account, who: str) -> list[str]:
    """Return sentences about rows that were appended and will be sent again by the tap.

    Args:
        account: Of a run that did not come to its end.
        who: What the sentences call that run.
    """
    return [
        f"Table {job.table}: {who} appended {job.rows} rows (push job {job.id}) behind its last "
        f"state; {'they stand' if job.done else 'they may stand'} there twice once the tap has "
        "sent them again."
        for job in account.appended_beyond_state
    ]
