"""The Singer program: command line, signals, exit codes, and the SDK as its shell.

Hides click, the SDK's plugin classes and its ways with configuration and errors. Guarantees: stdout
carries states only; every end has its exit code and every failure one plain sentence on stderr; a
signal stops reading, deletes what was not executed and cancels nothing. Must not know: how records
are converted, or what Celonis is asked.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, ClassVar

import click
from singer_sdk import Target
from singer_sdk.exceptions import MissingKeyPropertiesError, RecordsWithoutSchemaException
from singer_sdk.helpers.capabilities import PluginCapabilities, TargetCapabilities
from singer_sdk.singerlib.encoding.base import GenericSingerReader
from singer_sdk.sinks import Sink

from target_celonis.batchfiles import with_batch_files
from target_celonis.changes import Changes
from target_celonis.clock import StoppedError, SystemClock
from target_celonis.config import Config, parse, read_files
from target_celonis.dry_run import DryRun, plan_lines
from target_celonis.embedded import EmbeddedCelonis
from target_celonis.errors import (
    InputError,
    InternalError,
    LimitError,
    SettingsError,
    SignalError,
    TargetCelonisError,
)
from target_celonis.http import Http
from target_celonis.lines import Source
from target_celonis.loader import Loader, rules_applied
from target_celonis.mapping import StreamMapper, mapped
from target_celonis.messages import (
    ActivateVersionMessage,
    BatchMessage,
    Idle,
    RecordRun,
    SchemaMessage,
    StateMessage,
    read_messages,
)
from target_celonis.preflight import Check, preflight, preflight_to_publish
from target_celonis.publish import Publisher, publisher
from target_celonis.publish_command import NAME as PUBLISH
from target_celonis.publish_command import publish_command
from target_celonis.push import DataPush
from target_celonis.pusher import Pusher
from target_celonis.report import closing_table
from target_celonis.settings import json_schema
from target_celonis.signals import Signals
from target_celonis.spool import RunDirectory
from target_celonis.table_notes import TableNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from target_celonis.celonis import Celonis
    from target_celonis.route import PushRoute

logger = logging.getLogger("target-celonis")

_LINE_SHARE = 4
"""A line may take a quarter of the memory limit."""

_LONGEST_LINE_BYTES = 500_000_000


class _Run:
    """One run: everything that is opened, and closed whatever happens.

    Args:
        config: Settings.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = SystemClock()
        self._signals = Signals(self._clock)
        self._changes = Changes()

    def check(self) -> None:
        """Only look whether a load could begin; print what was looked at."""
        checks: list[Check] = []
        try:
            with self._signals.installed(), self._opened(checks):
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
        with self._signals.installed(), self._opened([]) as (directory, celonis):
            notes = TableNotes(directory.path.parent, self._place())
            route: PushRoute = DataPush(celonis, self._config, self._clock, notes)
            with self._publisher(directory, celonis) as publishes:
                self._changes = publishes.changes
                route = publishes.watch(route)
                seen = self._load_through(route, directory, file, _print_state)
                with self._heard():
                    publishes.publish()
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
            self._signals.installed(),
            self._opened([], preflight_to_publish) as (directory, celonis),
            self._publisher(directory, celonis) as publishes,
            self._heard(),
        ):
            publishes.publish(tables, is_asked_for=True)

    def _publisher(
        self, directory: RunDirectory, celonis: Celonis
    ) -> AbstractContextManager[Publisher]:
        spool_dir = directory.path.parent
        return publisher(celonis, self._config, self._clock, spool_dir, self._place())

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Turn a wait that was cut short into the end that the signal asks for."""
        try:
            yield
        except StoppedError:
            raise self._signal_error() from None

    def plan(self, file: IO[Any] | None) -> None:
        """Do everything but speak to Celonis, and print what would be pushed.

        Raises:
            TargetCelonisError: A load would fail.
        """
        directory = RunDirectory(self._config.spool_dir)
        keep = self._config.spool_dir
        if keep is not None:
            keep = keep / directory.path.name.replace("run-", "dry-run-", 1)
        route = DryRun(self._config, keep)
        try:
            with self._signals.installed():
                self._load_through(route, directory, file, lambda _: None)
        finally:
            directory.close()
        for line in plan_lines(route.planned):
            click.echo(line)
        if keep is not None:
            click.echo(f"The chunks are in {keep}")

    def _load_through(
        self,
        route: PushRoute,
        directory: RunDirectory,
        file: IO[Any] | None,
        release: Callable[[bytes], None],
    ) -> Counter[str]:
        """Read to the end, push by ``route``, and settle whatever happens."""
        mapper = StreamMapper(self._config, self._clock)
        source = Source(file or sys.stdin, self._signals.wake_fd)
        pusher = Pusher(route, self._config.parallel_uploads)
        loader = Loader(self._config, directory, pusher, self._clock, release)
        try:
            seen = self._read(source, mapper, loader)
            loader.finish()
            if self._signals.number is not None:
                raise StoppedError  # all is loaded, but who sent it is to know that it was heard
        except BaseException as error:
            loader.settle_after_failure()
            with suppress(InternalError):
                _print_table(loader)
            if isinstance(error, StoppedError) or self._signals.number is not None:
                raise self._signal_error() from None
            raise
        pusher.close()
        _print_table(loader)
        return seen

    def _place(self) -> tuple[str, str, str]:
        """Return what tells the tables that this run loads from all others."""
        host = self._config.base_url
        if self._config.embedded:
            host = str(self._config.embedded_database.resolve())
        return host, self._config.data_pool_id, self._config.connection_id or ""

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
        directory = RunDirectory(self._config.spool_dir)
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
            ) as http:
                with self._heard():
                    celonis = enter(http, self._config, key, self._clock, checks)
                yield directory, celonis
        finally:
            if embedded is not None:
                embedded.close()
            directory.close()

    def _read(self, source: Source, mapper: StreamMapper, loader: Loader) -> Counter[str]:
        """Read to the end, or to a signal."""
        seen: Counter[str] = Counter()
        line_limit = min(self._config.memory_limit_bytes // _LINE_SHARE, _LONGEST_LINE_BYTES)
        take: Mapping[type, tuple[str, Callable[[Any], None]]] = {
            RecordRun: ("RECORD", loader.records),
            SchemaMessage: ("SCHEMA", loader.schema),
            StateMessage: ("STATE", loader.state),
            ActivateVersionMessage: ("ACTIVATE_VERSION", loader.activate_version),
        }
        messages = read_messages(
            source, line_limit, keep_time_extracted=self._config.add_record_metadata
        )
        for message in with_batch_files(messages, line_limit):
            if self._signals.number is not None:
                raise StoppedError
            if isinstance(message, BatchMessage):
                seen["BATCH"] += 1  # its records come behind it
            elif not isinstance(message, Idle):
                name, method = take[type(message)]
                seen[name] += len(message.records) if isinstance(message, RecordRun) else 1
                if isinstance(message, RecordRun) and message.last_extracted:
                    self._changes.note_extraction(message.last_extracted)
                for changed in mapped(message, mapper):
                    method(changed)
            loader.tick()
        if self._signals.number is not None:
            raise StoppedError  # the tap may have been sent the signal, too, and closed the pipe
        return seen

    def _signal_error(self) -> SignalError:
        number = int(self._signals.number or signal.SIGTERM)
        name = signal.Signals(number).name
        return SignalError(
            number,
            f"Stopped by {name}. What was not executed is deleted; run again with the last state.",
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


def _print_table(loader: Loader) -> None:
    reports = loader.reports()
    for report in reports:
        for level, line in rules_applied(report):
            logger.log(level, "%s", line)
    if reports:
        for line in closing_table(reports):
            logger.info("%s", line)


class _Reader(GenericSingerReader[bytes]):
    """Stands where the SDK expects its own input loop, and runs ours.

    Args:
        load: Loads what a file holds.
    """

    default_input = None  # type: ignore[assignment]  # decided by the run

    def __init__(self, load: Callable[[IO[Any] | None], Counter[str]]) -> None:
        super().__init__()
        self._load = load

    def deserialize_json(self, line: bytes) -> dict[str, Any]:
        """Not used: lines are read by our own parser."""
        raise NotImplementedError

    def process_lines(self, file_input: IO[Any] | None, callbacks: Any) -> Counter[str]:  # noqa: ARG002  # the SDK's form
        """Load everything; the SDK's callbacks are not called."""
        try:
            return self._load(file_input)
        except InputError as error:
            if error.code not in _AS_THE_SDK_RAISES:
                raise
            raise _AS_THE_SDK_RAISES[error.code](*error.args) from None


class _RecordBeforeSchemaError(InputError, RecordsWithoutSchemaException):
    """Ours and the SDK's at once."""


class _NullKeyError(InputError, MissingKeyPropertiesError):
    """Ours and the SDK's at once."""


_AS_THE_SDK_RAISES: dict[str, type[InputError]] = {
    "TC-INPUT-05": _RecordBeforeSchemaError,
    "TC-INPUT-07": _NullKeyError,
}
"""The SDK's target tests, and users who embed the class, expect the SDK's own exceptions."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the program's log lines below a warning."""
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class TargetCelonis(Target):
    """Singer target that loads record streams into a Celonis data pool."""

    name = "target-celonis"
    config_jsonschema: ClassVar[dict[str, Any]] = json_schema()
    capabilities: ClassVar[list[Any]] = [
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
        TargetCapabilities.HARD_DELETE,
    ]
    default_sink_class = Sink

    def __init__(
        self,
        *,
        config: Any = None,  # dict, path or list of paths, as the SDK has it
        parse_env_config: bool = False,  # noqa: ARG002  # the environment is always read
        validate_config: bool = True,
        **_: Any,  # the SDK's other arguments do not apply
    ) -> None:
        values = config or {}
        if isinstance(values, (str, os.PathLike)):
            values = [values]
        if isinstance(values, list):
            values = read_files([os.fspath(path) for path in values])
        self.settings: Config | None = None
        if validate_config or values:
            self.settings = parse(values, os.environ)
        with _quiet():  # what the SDK says here of the environment is not true of us
            super().__init__(
                config=dict(values),
                validate_config=False,  # done above, with sentences of our own
                setup_mapper=False,
                message_reader=_Reader(self._load),
            )

    def _setup_signal_handlers(self) -> None:
        """Leave signals to the run."""

    @classmethod
    def append_builtin_config(cls, config_jsonschema: dict[str, Any]) -> None:
        """Add none of the SDK's settings: those that work here are declared, the others not."""

    def _load(self, file: IO[Any] | None) -> Counter[str]:
        if self.settings is None:
            self.settings = parse({}, os.environ)
        return _Run(self.settings).load(file)

    @classmethod
    def cb_config(cls, _ctx: click.Context, _param: click.Option, value: tuple[str, ...]) -> Any:
        """Keep the paths; they are read when they are needed, so that ``--about`` needs none."""
        return value

    @classmethod
    def invoke(  # type: ignore[override]  # the SDK's own signature differs from its base, too
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: tuple[str, ...] = (),
        file_input: IO[Any] | None = None,
        check: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Run the program."""
        if about:
            cls.print_about(about_format)
            return
        values = read_files(config)
        if check:
            _Run(parse(values, os.environ)).check()
            return
        cls.print_version(print_fn=cls.logger.info)
        if dry_run:
            _Run(parse(values, os.environ, needs_celonis=False)).plan(file_input)
            return
        cls(config=values).listen(file_input)

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Return the SDK's command with our options."""
        command = super().get_singer_command()
        command.help = "Load Singer streams from standard input into a Celonis data pool."
        command.epilog = "target-celonis publish executes data jobs and reloads data models alone."
        for param in command.params:
            if param.name == "file_input":
                param.type = click.File("rb")
        command.params.append(
            click.Option(
                ["--check"],
                is_flag=True,
                help="Only check that the key, the data pool and the connection can be used.",
            )
        )
        command.params.append(
            click.Option(
                ["--dry-run"],
                is_flag=True,
                help="Do everything but speak to Celonis, and print what would be pushed.",
            )
        )
        return command


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        command, name = TargetCelonis.cli, None  # which also sets up the log
        if given[:1] == [PUBLISH]:
            command = publish_command(lambda config, tables: _Run(config).publish(tables))
            given, name = given[1:], f"target-celonis {PUBLISH}"
        command.main(given, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as ended:
        return int(ended.exit_code)
    except click.ClickException as error:
        failure: TargetCelonisError = SettingsError(
            "TC-SETTINGS-05", error.format_message(), "See --help."
        )
    except click.Abort:
        return 128 + signal.SIGINT
    except TargetCelonisError as error:
        failure = error
    except Exception as error:
        logger.debug("Unexpected.", exc_info=True)
        place = _place_of(error)
        failure = InternalError(
            "TC-INTERNAL-02",
            f"An unexpected {type(error).__name__} at {place}.",
            "Please report this as a bug; LOGLEVEL=DEBUG shows more.",
        )
    else:
        return 0
    click.echo(f"target-celonis: {failure}", err=True)
    return failure.exit_code


def _place_of(error: BaseException) -> str:
    """Return the innermost module and line of ours that an error came through."""
    place = "an unknown place"
    traceback = error.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if module.startswith("target_celonis"):
            place = f"{module}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
