"""The subcommand `publish`: data jobs and reloads alone, without a load before them.

Hides how its command line is spelled. Guarantees: it reads settings as the program itself does.
Must not know: what is done with them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from target_celonis.config import Config, parse, read_files
from target_celonis.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "publish"


def publish_command(publish: Callable[[Config, tuple[str, ...]], None]) -> click.Command:
    """Return the command.

    Args:
        publish: Publishes by settings; the names are those of tables that changed.
    """

    @click.command(
        NAME,
        help="Execute the data jobs and reload the data models that are configured, whether "
        "anything changed or not.",
    )
    @click.option(
        "--config",
        multiple=True,
        help="Configuration file, as of target-celonis itself; several may be given.",
    )
    @click.option(
        "--tables",
        default="",
        help="Tables that changed, separated by commas, besides those known to have changed.",
    )
    def command(config: tuple[str, ...], tables: str) -> None:
        settings = parse(read_files(config), os.environ)
        if not settings.publishes:
            raise SettingsError(
                "TC-SETTINGS-04",
                "The settings `data_jobs` and `data_models` are missing, so that there is nothing "
                "to publish.",
            )
        publish(settings, tuple(name.strip() for name in tables.split(",") if name.strip()))

    return command
