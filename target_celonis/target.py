"""The Singer program: command line, exit codes, and the SDK as its shell.

Hides click, the SDK's plugin classes and its ways with configuration and errors. Guarantees: every
end has its exit code, and every failure one plain sentence on stderr. Must not know: what a run is
made of.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, ClassVar

import click
from singer_sdk import Target
from singer_sdk.exceptions import MissingKeyPropertiesError, RecordsWithoutSchemaException
from singer_sdk.helpers.capabilities import PluginCapabilities, TargetCapabilities
from singer_sdk.singerlib.encoding.base import GenericSingerReader
from singer_sdk.sinks import Sink

from target_celonis.config import Config, parse, read_files
from target_celonis.errors import InputError, SettingsError, TargetCelonisError, as_error
from target_celonis.publish_command import NAME as PUBLISH
from target_celonis.publish_command import publish_command
from target_celonis.redaction import SECRETS
from target_celonis.settings import json_schema

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from target_celonis.run import Run

logger = logging.getLogger("target-celonis")


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


def _run(config: Config) -> Run:
    """Return a run; what it is made of is imported here, since most options need none."""
    from target_celonis.run import Run

    return Run(config)


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
        return _run(self.settings).load(file)

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
            _run(parse(values, os.environ)).check()
            return
        cls.print_version(print_fn=cls.logger.info)
        if dry_run:
            _run(parse(values, os.environ, needs_celonis=False)).plan(file_input)
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
        command = TargetCelonis.cli  # which also sets up the log
        if given[:1] == [PUBLISH]:
            command = publish_command(lambda config, tables: _run(config).publish(tables))
            given = given[1:]
        command.main(given, standalone_mode=False)
    except click.exceptions.Exit as ended:
        return int(ended.exit_code)
    except click.ClickException as error:
        failure: TargetCelonisError = SettingsError(
            "TC-SETTINGS-05", error.format_message(), "See --help."
        )
    except click.Abort:
        return 128 + signal.SIGINT
    except Exception as error:
        failure = as_error(error)
        if failure is not error:
            with SECRETS.installed():
                logger.debug("Unexpected.", exc_info=True)
    else:
        return 0
    click.echo(f"target-celonis: {SECRETS.text(str(failure))}", err=True)
    return failure.exit_code
