"""From rows to a fresh process model: data jobs in order, then reloads of data models.

Hides the order of these effects, what is noted between runs, and which sentences people read.
Guarantees: a data job is executed and a data model reloaded only when something is due; what is
owed stays noted until all of it was published; a failure names what failed and leaves the rest
owed. Must not know: streams, records, states, how tables are pushed.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from target_celonis.publish_receipts import (
    JobReceipt,
    ModelReceipt,
    PublishReceipt,
    closing_line,
)
from target_celonis.publishing_api import (
    ENDED_EXECUTIONS,
    ENDED_LOADS,
    GOOD_LOADS,
    LoadInfo,
    Publishing,
)
from target_celonis.remote_run import Conductor, Runnable, Sight, is_another

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from target_celonis.answers import Answer
    from target_celonis.celonis import Celonis
    from target_celonis.clock import Clock
    from target_celonis.config import Config
    from target_celonis.publish_notes import Earlier, Left
    from target_celonis.publish_rules import DataJobRule, DataModelRule
    from target_celonis.publishing_api import DataJob, DataModel
    from target_celonis.route import PushRoute

logger = logging.getLogger("target-celonis")

_BAD_LOADS = ENDED_LOADS - GOOD_LOADS


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
        self._jobs_done: list[JobReceipt] = []
        self._models_done: list[ModelReceipt] = []
        self.changes = Changes()

    def watch(self, route: PushRoute) -> PushRoute:
        """Return the route by which a run is to push, so that it is seen what changes."""
        # Whoever publishes from this pool by other settings is to know it, too.
        return WatchedRoute(route, self._celonis.connection_id, self._notes, self.changes)

    def done(self) -> PublishReceipt:
        """Return what was done so far, what ended badly included."""
        return PublishReceipt(None, tuple(self._jobs_done), tuple(self._models_done))

    def owed(self, tables: Collection[str] = ()) -> frozenset[TableKey]:
        """Return the tables that are to be published; names are those of more that changed."""
        return self._changed(self._notes.earlier(), tables)

    def _changed(self, earlier: Earlier, tables: Collection[str]) -> frozenset[TableKey]:
        """Return what changed: owed by earlier runs, pushed by this one, or named."""
        named_now = {TableKey.of(self._celonis.connection_id, name) for name in tables}
        return earlier.owed | self.changes.tables | named_now

    def owe(self, tables: Collection[TableKey]) -> None:
        """Note that tables are owed, after a publish that may have come too early for them."""
        for table in sorted(tables, key=lambda table: table.folded):
            self._notes.owe(table)

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
        earlier = self._notes.earlier()
        fates = [self._fate(name, before) for name, before in earlier.left.items()]
        knowledge = self._knowledge(tables, earlier, fates, is_asked_for=is_asked_for)
        statuses = {
            rule.id: self._api.load_info(rule.id).status for rule in self._config.data_models
        }
        reason = due(knowledge, statuses, _BAD_LOADS)
        if reason is None:
            self._settle_nothing(fates)
            return PublishReceipt(None)
        logger.info("Publishing, since %s.", reason)
        # Neither what is asked for nor what a data job makes shows in what tables are owed.
        self._notes.begin(for_this=knowledge.is_asked_for, for_others=bool(self._config.data_jobs))
        knowledge = replace(knowledge, kinds=self._kinds())
        jobs = tuple(self._run_jobs())
        models = tuple(self._reload_models(knowledge))
        self._notes.settle(self._left)
        return PublishReceipt(reason, jobs, models)

    def _settle_nothing(self, fates: Sequence[_Fate]) -> None:
        """Leave the notes as they are; but what was left and ended well needs no more looks."""
        for fate in fates:
            if fate.is_running:
                logger.info("Still running, and not waited for: %s.", fate.name)
        if fates and not any(fate.is_running for fate in fates):
            self._notes.settle({})
        else:
            self._notes.drop()
        logger.info("Nothing is to be published: no table changed since the last publish.")

    def _knowledge(
        self,
        tables: Collection[str],
        earlier: Earlier,
        fates: Sequence[_Fate],
        *,
        is_asked_for: bool,
    ) -> Knowledge:
        """Gather what is known before anything is done."""
        doubts = [fate.fault for fate in fates if fate.fault is not None]
        if earlier.is_begun:
            doubts.insert(0, "another publish was begun since the one that is noted")
        if not earlier.is_known:
            doubts.insert(0, "no earlier publish is noted")
        return Knowledge(
            changed=self._changed(earlier, tables),
            doubt=doubts[0] if doubts else None,
            after_jobs=bool(self._config.data_jobs),
            is_asked_for=is_asked_for or self._config.publish_on == "always",
            is_open=is_asked_for and not tables,
        )

    def _kinds(self) -> Mapping[TableKey, str | None] | None:
        """Return which tables of the pool are views; needed where a reload may be partial."""
        if self._config.data_jobs or not self._config.data_models:
            return None
        listed = self._celonis.tables()
        if listed is None:
            return None
        return {TableKey.of(table.connection_id, table.name): table.kind for table in listed}

    def _fate(self, name: str, before: tuple[str | None, ...]) -> _Fate:
        """Return what became of something that an earlier publish did not wait for."""
        kind, _, identity = name.partition(":")
        if kind == "job":
            job = self._sight_of_job(identity)
            shown, status, marker = f"data job {identity}", job.status, job.marker
            is_running, is_good = job.is_running, status == "SUCCESS"
        else:
            load = self._sight_of_load(identity)
            shown, status, marker = f"the load of data model {identity}", load.status, load.marker
            is_running, is_good = load.is_running, status in GOOD_LOADS
        if is_running:
            return _Fate(shown, is_running=True)
        if marker == tuple(before) or is_another(marker, tuple(before)) is False:
            return _Fate(shown, fault=f"{shown}, which was not waited for, is not seen")
        if not is_good:
            return _Fate(shown, fault=f"{shown}, which was not waited for, did not end well")
        return _Fate(shown)

    # --- data jobs

    def _run_jobs(self) -> list[JobReceipt]:
        rules = self._config.data_jobs
        receipts = self._jobs_done
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
            self._jobs_done.append(JobReceipt(rule.id, name, ended.status, seconds))
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

    def _reload_models(self, knowledge: Knowledge) -> list[ModelReceipt]:
        """Reload each data model; a failure of one does not keep the others from it."""
        receipts = self._models_done
        failure: TargetCelonisError | None = None
        rules = self._config.data_models
        for rule in rules:
            try:
                receipts.append(self._reload(rule, knowledge))
            except TargetCelonisError as error:
                if failure is not None or rule is not rules[-1]:
                    logger.warning("%s", error)  # the others may take long
                failure = failure or error
        if failure is not None:
            raise failure
        return receipts

    def _reload(self, rule: DataModelRule, knowledge: Knowledge) -> ModelReceipt:
        model = self._api.get_model(rule.id)
        info = self._api.load_info(rule.id)
        is_loaded = info.was_loaded and info.status not in _BAD_LOADS
        choice = choose(rule, model, knowledge, is_loaded=is_loaded)
        if choice.extent is Extent.NOTHING:
            logger.info("Data model %s: not reloaded, since %s.", model.name, choice.reason)
            return ModelReceipt(model.id, model.name, Extent.NOTHING)
        began = self._clock.monotonic()
        load = _Load(self._api, rule, model, knowledge, choice)
        thing = Runnable(f"The load of data model {model.name} ({model.id})", load.look, load.start)
        before, is_unknown = self._conductor.start(thing)
        choice = load.choice
        tables = tuple(table.alias or table.name for table in choice.tables)
        if not self._waits:
            self._left[f"model:{model.id}"] = before.marker
            logger.info("Data model %s: reload triggered, and not waited for.", model.name)
            return ModelReceipt(model.id, model.name, choice.extent, tables)
        info = self._conductor.finish(thing, before, is_unknown=is_unknown).found
        seconds = self._clock.monotonic() - began
        if info.status not in GOOD_LOADS:
            self._models_done.append(
                ModelReceipt(
                    model.id, model.name, choice.extent, tables, None, info.status, seconds
                )
            )
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
            fresh_as_of=self.changes.fresh_as_of(
                # What a data job makes may be of any table that was pushed.
                None if self._config.data_jobs else {key_of(table) for table in choice.tables}
            ),
        )
        logger.info("%s", closing_line(receipt))
        return receipt

    def _sight_of_load(self, model_id: str) -> Sight[LoadInfo]:
        return _sight(self._api.load_info(model_id))

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


@dataclass(frozen=True)
class _Fate:
    """What became of something that an earlier publish started and did not wait for.

    Attributes:
        name: What it is.
        is_running: Whether it has not ended.
        fault: What is wrong with it, to follow "since"; None where nothing is.
    """

    name: str
    is_running: bool = False
    fault: str | None = None


class _Load:
    """A load of a data model whose extent is chosen when the data model is idle.

    Args:
        api: Celonis.
        rule: What the configuration says of the data model.
        model: The data model.
        knowledge: What is known.
        choice: What was chosen before that.

    Attributes:
        choice: What was chosen last.
    """

    def __init__(
        self,
        api: Publishing,
        rule: DataModelRule,
        model: DataModel,
        knowledge: Knowledge,
        choice: Choice,
    ) -> None:
        self._api = api
        self._rule = rule
        self._model = model
        self._knowledge = knowledge
        self._said: Choice | None = None
        self._is_loaded = False
        self.choice = choice

    def look(self) -> Sight[LoadInfo]:
        """Read how the newest load stands."""
        info = self._api.load_info(self._model.id)
        self._is_loaded = info.was_loaded and info.status in GOOD_LOADS
        return _sight(info)

    def start(self) -> Answer:
        """Choose by what was seen last, say so, and have it loaded."""
        choice = choose(self._rule, self._model, self._knowledge, is_loaded=self._is_loaded)
        if choice.extent is not Extent.NOTHING:  # another load may have done it meanwhile
            self.choice = choice
        is_partial = self.choice.extent is Extent.PART
        if self.choice != self._said:
            self._say(is_partial=is_partial)
        ids = tuple(table.id for table in self.choice.tables) if is_partial else None
        return self._api.load_model(self._model.id, ids)

    def _say(self, *, is_partial: bool) -> None:
        tables = named(table.alias or table.name for table in self.choice.tables)
        logger.info(
            "Data model %s: a %s reload%s, since %s.",
            self._model.name,
            "partial" if is_partial else "complete",
            f" ({tables})" if is_partial else "",
            self.choice.reason,
        )
        self._said = self.choice


def _sight(info: LoadInfo) -> Sight[LoadInfo]:
    is_running = info.status is not None and info.status not in ENDED_LOADS
    return Sight(info.status, info.marker, is_running, info)


def _rows(choice: Choice, info: LoadInfo) -> int | None:
    """Return the rows of the tables that were reloaded, where all of them are known."""
    known = [info.rows.get(table.id) for table in choice.tables]
    counts = [rows for rows in known if rows is not None]
    return sum(counts) if len(counts) == len(known) else None


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
    # By other rules other tables are left out, so that other ones stay owed.
    published = (
        [[rule.id, rule.mode] for rule in config.data_jobs],
        sorted([rule.id, rule.reload, *sorted(rule.tables)] for rule in config.data_models),
    )
    host, pool_id, *_ = pool_place
    notes = PublishNotes(spool_dir, (host, pool_id), published if config.publishes else None)
    try:
        yield Publisher(celonis, config, clock, notes)
    finally:
        notes.close()
