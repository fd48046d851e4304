"""From rows to a fresh process model: data jobs in order, then reloads of data models.

Hides the order of these effects, what is noted between runs, and which sentences people read.
Guarantees: a data job is executed and a data model reloaded only when something is due; what is
owed stays noted until all of it was published; a failure names what failed and leaves the rest
owed. Must not know: streams, records, states, how tables are pushed.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from target_celonis.changes import Changes, WatchedRoute
from target_celonis.errors import RemoteError, TargetCelonisError
from target_celonis.publish_notes import PublishNotes
from target_celonis.publish_plan import (
    Choice,
    Extent,
    Knowledge,
    TableKey,
    choose,
    due,
    key_of,
    named,
)
from target_celonis.publishing_api import (
    ENDED_EXECUTIONS,
    ENDED_LOADS,
    GOOD_LOADS,
    LoadInfo,
    Publishing,
)
from target_celonis.remote_run import Conductor, Runnable, Sight

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from target_celonis.celonis import Celonis
    from target_celonis.clock import Clock
    from target_celonis.config import Config
    from target_celonis.publish_notes import Left
    from target_celonis.publish_rules import DataJobRule
    from target_celonis.publishing_api import DataJob, DataModel
    from target_celonis.route import PushRoute

logger = logging.getLogger("target-celonis")


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


class Publisher:
    """Publishes what one run changed, and what earlier runs left to be published.

    Args:
        celonis: The pool.
        config: What to publish, and when.
        clock: For waits.
        notes: What earlier runs left.

    Attributes:
        changes: What this run changed.
    """

    def __init__(self, celonis: Celonis, config: Config, clock: Clock, notes: PublishNotes) -> None:
        self._celonis = celonis
        self._api = Publishing(celonis.http, celonis.pool_id)
        self._config = config
        self._clock = clock
        self._notes = notes
        self._conductor = Conductor(clock, config.wait_timeout_seconds)
        # The embedded Celonis ends with the run, and what it is at work at with it.
        self._waits = config.wait_for_publish or config.embedded
        self._left: Left = {}
        self.changes = Changes()

    def watch(self, route: PushRoute) -> PushRoute:
        """Return the route by which a run is to push, so that it is seen what changes."""
        if not self._config.publishes:
            return route
        return WatchedRoute(route, self._celonis.connection_id, self._notes, self.changes)

    def publish(
        self, tables: Collection[str] = (), *, is_asked_for: bool = False
    ) -> PublishReceipt:
        """Execute the data jobs and reload the data models, if that is due.

        Args:
            tables: More tables that changed, of the data connection that is configured.
            is_asked_for: Whether to publish in any case.

        Returns:
            What was done.

        Raises:
            AccessError: The key may not do it.
            RemoteError: A data job or a load failed, or Celonis refused.
            LimitError: One did not end in time.
            StoppedError: The run is to stop; what runs is left running.
        """
        if not self._config.publishes:
            return PublishReceipt(None)
        knowledge = self._knowledge(tables, is_asked_for=is_asked_for)
        loads = {rule.id: self._api.load_info(rule.id) for rule in self._config.data_models}
        statuses = {model_id: info.status for model_id, info in loads.items()}
        reason = due(knowledge, statuses, GOOD_LOADS)
        if reason is None:
            self._notes.settle({})
            logger.info("Nothing is to be published: no table changed since the last publish.")
            return PublishReceipt(None)
        logger.info("Publishing, since %s.", reason)
        jobs = tuple(self._run_jobs())
        models = tuple(self._reload_models(knowledge, loads))
        self._notes.settle(self._left)
        return PublishReceipt(reason, jobs, models)

    def _knowledge(self, tables: Collection[str], *, is_asked_for: bool) -> Knowledge:
        """Gather what is known before anything is done."""
        earlier = self._notes.earlier()
        named_now = {TableKey.of(self._celonis.connection_id, name) for name in tables}
        changed = frozenset(earlier.owed | self.changes.tables | named_now)
        wants = is_asked_for or self._config.publish_on == "always"
        return Knowledge(
            changed=changed,
            is_certain=earlier.is_known and self._went_well(earlier.left),
            after_jobs=bool(self._config.data_jobs),
            is_asked_for=wants,
            kinds=self._kinds(),
        )

    def _kinds(self) -> Mapping[TableKey, str | None] | None:
        """Return which tables of the pool are views; needed where a reload may be partial."""
        if self._config.data_jobs or not self._config.data_models:
            return None
        listed = self._celonis.tables()
        if listed is None:
            return None
        return {TableKey.of(table.connection_id, table.name): table.kind for table in listed}

    def _went_well(self, left: Mapping[str, tuple[str | None, ...]]) -> bool:
        """Return whether what an earlier publish did not wait for ended well."""
        for name, before in left.items():
            kind, _, identity = name.partition(":")
            if kind == "job":
                job = self._api.get_data_job(identity)
                status, marker, good = job.status, job.marker, {"SUCCESS"}
            else:
                info = self._api.load_info(identity)
                status, marker, good = info.status, info.marker, set(GOOD_LOADS)
            if marker == tuple(before) or status not in good:
                return False
        return True

    # --- data jobs

    def _run_jobs(self) -> list[JobReceipt]:
        rules = self._config.data_jobs
        receipts = []
        for index, rule in enumerate(rules):
            # What comes after it needs what it makes; only the last step can be left.
            is_last = index == len(rules) - 1 and not self._config.data_models
            receipts.append(self._run_job(rule, waits=self._waits or not is_last))
        return receipts

    def _run_job(self, rule: DataJobRule, *, waits: bool) -> JobReceipt:
        name = self._api.get_data_job(rule.id).name
        began = self._clock.monotonic()
        thing = Runnable(
            f"Data job {name} ({rule.id})",
            lambda: self._sight_of_job(rule.id),
            lambda: self._api.execute_data_job(rule.id, rule.mode),
        )
        before, is_unknown = self._conductor.start(thing)
        logger.info("Data job %s: executed, mode %s.", name, rule.mode)
        if not waits:
            self._left[f"job:{rule.id}"] = before.marker
            return JobReceipt(rule.id, name, None, self._clock.monotonic() - began)
        ended = self._conductor.finish(thing, before, is_unknown=is_unknown)
        seconds = self._clock.monotonic() - began
        if ended.status != "SUCCESS":
            said = "; ".join(self._api.reasons(ended.found))
            raise RemoteError(
                "TC-REMOTE-08",
                f"Data job {name} ({rule.id}) ended as {ended.status}. Celonis says: "
                f"{said or 'nothing'}",
                "All rows are loaded and stay so. Mend the data job; the next run publishes, "
                "or: target-celonis publish.",
            )
        logger.info("Data job %s: done in %.1f s.", name, seconds)
        return JobReceipt(rule.id, name, ended.status, seconds)

    def _sight_of_job(self, job_id: str) -> Sight[DataJob]:
        job = self._api.get_data_job(job_id)
        return Sight(
            job.status,
            job.marker,
            job.status is not None and job.status not in ENDED_EXECUTIONS,
            job,
        )

    # --- data models

    def _reload_models(
        self, knowledge: Knowledge, loads: Mapping[str, LoadInfo]
    ) -> list[ModelReceipt]:
        """Reload each data model; a failure of one does not keep the others from it."""
        receipts = []
        failure: TargetCelonisError | None = None
        for rule in self._config.data_models:
            try:
                model = self._api.get_model(rule.id)
                is_loaded = loads[rule.id].was_loaded and loads[rule.id].status in GOOD_LOADS
                choice = choose(rule, model, knowledge, is_loaded=is_loaded)
                receipts.append(self._reload(model, choice))
            except TargetCelonisError as error:
                if failure is not None:
                    logger.warning("%s", error)
                failure = failure or error
        if failure is not None:
            raise failure
        return receipts

    def _reload(self, model: DataModel, choice: Choice) -> ModelReceipt:
        if choice.extent is Extent.NOTHING:
            logger.info("Data model %s: not reloaded, since %s.", model.name, choice.reason)
            return ModelReceipt(model.id, model.name, Extent.NOTHING)
        tables = tuple(table.alias or table.name for table in choice.tables)
        is_partial = choice.extent is Extent.PART
        kind = "partial" if is_partial else "complete"
        shown = f" ({named(tables)})" if is_partial else ""
        logger.info(
            "Data model %s: a %s reload%s, since %s.", model.name, kind, shown, choice.reason
        )
        ids = tuple(table.id for table in choice.tables) if is_partial else None
        began = self._clock.monotonic()
        thing = Runnable(
            f"The load of data model {model.name} ({model.id})",
            lambda: self._sight_of_load(model.id),
            lambda: self._api.load_model(model.id, ids),
        )
        before, is_unknown = self._conductor.start(thing)
        if not self._waits:
            self._left[f"model:{model.id}"] = before.marker
            logger.info("Data model %s: reload triggered, and not waited for.", model.name)
            return ModelReceipt(model.id, model.name, choice.extent, tables)
        info = self._conductor.finish(thing, before, is_unknown=is_unknown).found
        seconds = self._clock.monotonic() - began
        if info.status not in GOOD_LOADS:
            raise RemoteError(
                "TC-REMOTE-09",
                f"The load of data model {model.name} ({model.id}) ended as {info.status}. Celonis "
                f"says: {info.message or 'nothing'}",
                "All rows are loaded into the data pool and stay so; the data model shows what it "
                "showed before. The next run reloads it, or: target-celonis publish.",
            )
        if info.status == "WARNING":
            logger.warning("Data model %s: Celonis says: %s", model.name, info.message)
        self._compare(model, choice, info)
        receipt = ModelReceipt(
            id=model.id,
            name=model.name,
            extent=choice.extent,
            tables=tables,
            rows=_rows(choice, info),
            status=info.status,
            seconds=seconds,
            fresh_as_of=self.changes.fresh_as_of,
        )
        logger.info("%s", closing_line(receipt))
        return receipt

    def _sight_of_load(self, model_id: str) -> Sight[LoadInfo]:
        info = self._api.load_info(model_id)
        return Sight(
            info.status,
            info.marker,
            info.status is not None and info.status not in ENDED_LOADS,
            info,
        )

    def _compare(self, model: DataModel, choice: Choice, info: LoadInfo) -> None:
        """Compare rows where they are known: of tables that this run replaced, and no job since."""
        if self._config.data_jobs:
            return
        for table in choice.tables:
            pushed, shown = self.changes.rows.get(key_of(table)), info.rows.get(table.id)
            if pushed is not None and shown is not None and pushed != shown:
                logger.warning(
                    "Data model %s: table %s was replaced by %d rows, and the data model shows %d.",
                    model.name,
                    table.name,
                    pushed,
                    shown,
                )


def _rows(choice: Choice, info: LoadInfo) -> int | None:
    """Return the rows of the tables that were reloaded, where all of them are known."""
    known = [info.rows.get(table.id) for table in choice.tables]
    counts = [rows for rows in known if rows is not None]
    return sum(counts) if len(counts) == len(known) else None


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


@contextmanager
def publisher(
    celonis: Celonis, config: Config, clock: Clock, spool_dir: Path, pool_place: Sequence[str]
) -> Iterator[Publisher]:
    """Open a publisher.

    Args:
        celonis: The pool.
        config: What to publish, and when.
        clock: For waits.
        spool_dir: Directory that outlives runs.
        pool_place: What tells the data pool and connection from all others.
    """
    published = (
        [[rule.id, rule.mode] for rule in config.data_jobs],
        sorted(rule.id for rule in config.data_models),
    )
    notes = PublishNotes(spool_dir, [*pool_place, *published])
    try:
        yield Publisher(celonis, config, clock, notes)
    finally:
        notes.close()
