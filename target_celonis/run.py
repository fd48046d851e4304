"""One run of the program: all that is opened for it, in order, and closed whatever happens.

Hides which parts a run needs and what they are told of each other. Guarantees: before the first
line is read, what can be known of Celonis is known, and what dead runs left is settled; stdout
carries states only; however a run ends, what was executed is counted, its state goes out and the
report is written. Must not know: the command line, how records are converted, what Celonis is
asked.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import click

from target_celonis.changes import Changes
from target_celonis.clock import StoppedError, SystemClock
from target_celonis.embedded import EmbeddedCelonis
from target_celonis.errors import (
    InternalError,
    LimitError,
    SignalError,
    TargetCelonisError,
    as_error,
)
from target_celonis.http import Http
from target_celonis.jobs import PushJobs
from target_celonis.journal import NoJournalError, read_account
from target_celonis.lines import Source
from target_celonis.mapping import StreamMapper
from target_celonis.preflight import Check, preflight, preflight_to_publish
from target_celonis.publish_gate import PublishGate
from target_celonis.redaction import SECRETS
from target_celonis.report import (
    RunReport,
    StreamReport,
    check_report_path,
    closing_lines,
    closing_table,
    write_report,
)
from target_celonis.restart import doubled, settle_dead_runs
from target_celonis.run_directory import RunDirectory
from target_celonis.signals import Signals
from target_celonis.submits import Submits
from target_celonis.table_notes import TableNotes
from target_celonis.waits import Waiter, Waits

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from target_celonis.budget import SubmitBudget
    from target_celonis.celonis import Celonis
    from target_celonis.config import Config
    from target_celonis.loader import Loader
    from target_celonis.publish import Publisher
    from target_celonis.publish_receipts import PublishReceipt
    from target_celonis.route import PushRoute

logger = logging.getLogger("target-celonis")

_LOADING = ". What was not executed is deleted; run again with the last state."
_PUBLISHING = " while publishing; publish again."
_PUBLISHING_OF_A_LOAD = (
    " while publishing. All rows are loaded and their state is out; what is not published is owed "
    "to the next run."
)
"""What a signal means, by when it came."""


class Run:
    """One run.

    Args:
        config: Settings.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = SystemClock()
        self._signals = Signals(self._clock)
        self._waits = Waits()
        self._waiter = Waiter(self._clock, self._waits)
        self._started_at = self._clock.now()
        self._run_id = ""
        self._loader: Loader | None = None
        self._submits: Submits | None = None
        self._notices: list[str] = []
        self._changes = Changes()
        self._published: PublishReceipt | None = None

    def check(self) -> None:
        """Only look whether a load could begin; print what was looked at."""
        checks: list[Check] = []
        try:
            with self._protected(), self._opened(checks):
                pass
        finally:
            for done in checks:
                click.echo(f"{click.style('ok', fg='green')}  {done.name}: {done.found}")

    def load(self, file: IO[Any] | None) -> Counter[str]:
        """Load everything that ``file`` holds; return the messages read, by type.

        Raises:
            TargetCelonisError: The load failed; what is in Celonis, and which state came out,
                follow the promises.
        """
        if sys.stdout is None:
            raise _no_stdout()
        with self._reported():
            return self._load(file)

    def _load(self, file: IO[Any] | None) -> Counter[str]:
        with self._opened([]) as (directory, celonis):
            with self._heard():
                inherited = settle_dead_runs(directory.dead_runs, celonis, directory.journal)
            self._notices += inherited.notices
            begun = self._begin(file)
            from target_celonis.push import DataPush  # with Arrow, which takes long

            budget = self._budget(directory)
            journal = directory.journal
            self._submits = Submits(celonis, self._config, journal, budget, self._waiter)
            jobs = PushJobs(
                celonis,
                self._config,
                journal,
                submits=self._submits,
                waiter=self._waiter,
                inherited=inherited.running_job_ids,
            )
            notes = TableNotes(directory.base, self._place())
            route: PushRoute = DataPush(celonis, self._config, jobs, budget, notes)
            with self._publisher(directory, celonis) as publishes:
                self._changes = publishes.changes
                route = publishes.watch(route)
                seen = self._load_through(route, directory, begun, _print_state)
                self._counted()  # nothing is published of a run whose counts do not add up
                self._publish(publishes, directory, celonis, _PUBLISHING_OF_A_LOAD)
            logger.info("%s", self._where_to_look(celonis))
            return seen

    def publish(self, tables: tuple[str, ...]) -> None:
        """Execute the data jobs and reload the data models, without a load before them.

        Args:
            tables: Tables that changed, besides those that are noted.

        Raises:
            TargetCelonisError: One of them failed.
        """
        with (
            self._reported(),
            self._opened([], preflight_to_publish) as (directory, celonis),
            self._publisher(directory, celonis) as publishes,
        ):
            self._run_id = directory.path.name
            self._publish(publishes, directory, celonis, _PUBLISHING, tables, is_asked_for=True)

    def _publish(
        self,
        publishes: Publisher,
        directory: RunDirectory,
        celonis: Celonis,
        when_stopped: str,
        tables: tuple[str, ...] = (),
        *,
        is_asked_for: bool = False,
    ) -> None:
        """Publish, when it is our turn and what is owed is in the tables."""
        if not self._config.publishes:
            return
        gate = PublishGate(
            celonis, self._clock, self._config.wait_timeout_seconds, directory.base, self._place()
        )
        with self._heard(when_stopped), self._waiter.timed("publishing"), gate.turn():
            owed = publishes.owed(tables)
            is_known = gate.await_pushes(owed)
            try:
                publishes.publish(tables, is_asked_for=is_asked_for)
            finally:
                self._published = publishes.done()
            if not is_known:
                publishes.owe(owed)

    def _publisher(
        self, directory: RunDirectory, celonis: Celonis
    ) -> AbstractContextManager[Publisher]:
        from target_celonis.publish import publisher  # not before a load has begun

        return publisher(celonis, self._config, self._clock, directory.base, self._place())

    @contextmanager
    def _heard(self, meaning: str = _LOADING) -> Iterator[None]:
        """Turn a wait that was cut short into the end that the signal asks for."""
        try:
            yield
        except StoppedError:
            raise self._signal_error(meaning) from None

    def plan(self, file: IO[Any] | None) -> None:
        """Do everything but speak to Celonis, and print what would be pushed.

        Raises:
            TargetCelonisError: A load would fail.
        """
        limit = self._config.spool_limit_bytes
        directory = RunDirectory(self._config.spool_dir, self._clock, limit_bytes=limit)
        keep = self._config.spool_dir
        if keep is not None:
            keep = keep / directory.path.name.replace("run-", "dry-run-", 1)
        try:
            with self._protected():
                begun = self._begin(file)
                from target_celonis.dry_run import DryRun, plan_lines  # with Arrow

                route = DryRun(self._config, keep)
                try:
                    self._load_through(route, directory, begun, lambda _: None)
                except BaseException:
                    with suppress(InternalError):
                        self._say_counts()
                    raise
                self._say_counts()
        finally:
            directory.close()
        for line in plan_lines(route.planned):
            click.echo(line)
        if keep is not None:
            click.echo(f"The chunks are in {keep}")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Run under protection, and write the report however that ends."""
        if self._config.report_path is not None:
            check_report_path(self._config.report_path)
        with self._protected():
            try:
                yield
            except Exception as error:
                self._report(as_error(error))
                raise
            self._report(None)

    @contextmanager
    def _protected(self) -> Iterator[None]:
        """Take signals, and keep secrets out of the log."""
        for address in getproxies().values():
            SECRETS.add_address(address)
        if self._config.proxy is not None:
            SECRETS.add_address(self._config.proxy.reveal())
        with SECRETS.installed(), self._signals.installed():
            yield

    def _begin(self, file: IO[Any] | None) -> tuple[Source, StreamMapper]:
        """Wait for the first bytes of the tap; what takes them in is made behind it."""
        mapper = StreamMapper(self._config, self._clock)
        source = Source(file or sys.stdin, self._signals.wake_fd)
        if not source.is_ready(0):  # the tap starts, too: what is needed then is imported meanwhile
            import target_celonis.feed  # noqa: F401  # for what it does to later imports
        while not source.begin() and self._signals.number is None:
            pass
        return source, mapper

    def _load_through(
        self,
        route: PushRoute,
        directory: RunDirectory,
        begun: tuple[Source, StreamMapper],
        release: Callable[[bytes], None],
    ) -> Counter[str]:
        """Read to the end, push by ``route``, and settle whatever happens."""
        from target_celonis.converters import Converters
        from target_celonis.feed import Feed, work_share  # with Arrow, which takes long
        from target_celonis.loader import Loader
        from target_celonis.pusher import Pusher

        source, mapper = begun
        pusher = Pusher(route, self._config.parallel_uploads)
        converters = Converters(work_share(self._config), directory)
        loader = Loader(
            self._config, directory, pusher, self._clock, release, converters=converters
        )
        self._loader, self._run_id = loader, directory.path.name
        try:
            feed = Feed(
                self._config,
                mapper,
                loader,
                converters=converters,
                changes=self._changes,
                clock=self._clock,
            )
            seen = feed.run(source, lambda: self._signals.number is not None)
            loader.finish()
            if self._signals.number is not None:
                raise StoppedError  # all is loaded, but who sent it is to know that it was heard
        except BaseException as error:
            loader.settle_after_failure()
            with suppress(OSError, NoJournalError):
                self._notices += doubled(read_account(directory.journal.path), "this run")
            if isinstance(error, StoppedError) or self._signals.number is not None:
                raise self._signal_error() from None
            raise
        finally:
            converters.close()
        pusher.close()
        return seen

    def _place(self) -> tuple[str, str, str]:
        """Return what tells the tables that this run loads from all others."""
        host = self._config.base_url
        if self._config.embedded:
            host = str(self._config.embedded_database.resolve())
        return host, self._config.data_pool_id, self._config.connection_id or ""

    def _budget(self, directory: RunDirectory) -> SubmitBudget | None:
        """Return the submits of this machine; the emulator of one's own has no limit."""
        if self._config.embedded:
            return None
        from target_celonis.budget import SubmitBudget  # not before a load has begun

        team = urlsplit(self._config.base_url).netloc
        return SubmitBudget(directory.base, team, self._config.submits_per_hour, self._clock)

    def _where_to_look(self, celonis: Celonis) -> str:
        if not self._config.embedded:
            return f"Data pool: {celonis.pool_link}"
        database = self._config.embedded_database
        return f"To see the tables: celonis-emulator tables --database {database}"

    @contextmanager
    def _opened(
        self, checks: list[Check], enter: Callable[..., Celonis] = preflight
    ) -> Iterator[tuple[RunDirectory, Celonis]]:
        """Open the run directory and the way to Celonis, and check what can be known early."""
        directory = RunDirectory(
            self._config.spool_dir, self._clock, self._place(), self._config.spool_limit_bytes
        )
        embedded: EmbeddedCelonis | None = None
        try:
            base_url, key = self._config.base_url, self._config.api_key
            if self._config.oauth is not None:
                key = None
            if self._config.embedded:
                embedded = EmbeddedCelonis(self._config, directory.path, self._clock)
                base_url, key = embedded.base_url, embedded.key
            with Http(
                base_url,
                self._clock,
                self._config.parallel_uploads,
                self._config.ca_bundle,
                None if self._config.embedded else self._config.proxy,
                waits=self._waits,
            ) as http:
                with self._heard():
                    celonis = enter(http, self._config, key, self._clock, checks)
                yield directory, celonis
        finally:
            if embedded is not None:
                embedded.close()
            directory.close()

    def _signal_error(self, meaning: str = _LOADING) -> SignalError:
        number = int(self._signals.number or signal.SIGTERM)
        name = signal.Signals(number).name
        return SignalError(number, f"Stopped by {name}{meaning}")

    # --- what is told at the end

    def _counted(self) -> list[StreamReport]:
        """Return the counts of the streams.

        Raises:
            InternalError: They do not add up.
        """
        return [] if self._loader is None else self._loader.reports()

    def _counts(self) -> list[StreamReport]:
        """Return the counts of the streams, and say which rules they met."""
        reports = self._counted()
        if not reports:
            return []
        from target_celonis.batch import rules_applied  # with Arrow, which is there by now

        for report in reports:
            for level, line in rules_applied(report.stream, report.rules):
                logger.log(level, "%s", line)
        return reports

    def _say_counts(self) -> None:
        """Say what a dry run came to."""
        reports = self._counts()
        for line in closing_table(reports) if reports else ():
            logger.info("%s", line)

    def _report(self, error: TargetCelonisError | None) -> None:
        """Say what the run came to, and write its report.

        Raises:
            InternalError: The counts of a run that went well do not add up.
        """
        counts: list[StreamReport] = []
        try:
            counts = self._counts()
        except InternalError:
            if error is None:
                raise
        dispatch = self._loader.dispatch if self._loader is not None else None
        report = RunReport(
            version=version("target-celonis"),
            run_id=self._run_id,
            started_at=self._started_at,
            ended_at=self._clock.now(),
            exit_code=0 if error is None else error.exit_code,
            error=None if error is None else (error.code, error.message, error.next_step),
            team="embedded" if self._config.embedded else urlsplit(self._config.base_url).netloc,
            data_pool_id=self._config.data_pool_id,
            connection_id=self._config.connection_id,
            streams=tuple(counts),
            waits=self._waits.by_cause(),
            submits_used=self._submits.count if self._submits is not None else 0,
            states_read=dispatch.states_read if dispatch is not None else 0,
            states_released=dispatch.states_released if dispatch is not None else 0,
            last_state_line=dispatch.last_state_line if dispatch is not None else None,
            notices=tuple(self._notices),
            publish=() if self._published is None else self._published.shown(),
        )
        for line in closing_lines(report):
            logger.info("%s", line)
        if self._config.report_path is None:
            return
        try:
            write_report(self._config.report_path, report, SECRETS.text)
        except OSError as failure:
            logger.warning(
                "The report could not be written to %s: %s.",
                self._config.report_path,
                failure.strerror,
            )


def _print_state(state: bytes) -> None:
    """Put a state on stdout, byte by byte as the tap wrote it."""
    binary = getattr(sys.stdout, "buffer", None)
    try:
        if binary is None:  # a test's text file
            sys.stdout.write(state.decode() + "\n")
        else:
            binary.write(state + b"\n")
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):  # or Python would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _no_stdout() from None


def _no_stdout() -> LimitError:
    return LimitError(
        "TC-LIMIT-03",
        "A state could not be written to standard output, which is closed.",
        "What was loaded stays loaded; run again with the last state that was written.",
    )
