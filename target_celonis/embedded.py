"""A Celonis of one's own: the emulator as a child process for the time of one run.

Hides the child's command line, its key, how it says that it is ready, and how it is told to go.
Guarantees: the child listens on loopback only, under a random key; it has none of our standard
streams and a session of its own, so that neither Ctrl-C nor a closed pipe reaches it; it holds one
end of a pipe and ends when this process does, however that ends. Must not know: what is said to it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from target_celonis.clock import Clock, Deadline
from target_celonis.config import Config, Secret
from target_celonis.errors import SettingsError
from target_celonis.owner_only import owner_only

if TYPE_CHECKING:
    from pathlib import Path

_START_SECONDS = 60.0
_END_SECONDS = 30.0
_POLL_SECONDS = 0.02
_DATABASE_HELD = 4
"""Exit code of ``celonis-emulator serve`` when another process holds the database."""

_EMULATOR = "celonis_emulator"
_KEY_VARIABLE = "CELONIS_EMULATOR_API_KEY"


class EmbeddedCelonis:
    """The emulator as a child process.

    Args:
        config: Names the database, the pool and the connection.
        directory: For the ready file and the log.
        clock: For waiting.

    Attributes:
        base_url: Where it listens.
        key: What it accepts.

    Raises:
        SettingsError: The extra is missing, the database is held, or it does not start.
    """

    def __init__(self, config: Config, directory: Path, clock: Clock) -> None:
        if importlib.util.find_spec(_EMULATOR) is None or not _extra_is_installed():
            raise SettingsError(
                "TC-SETTINGS-06",
                "`base_url: embedded` needs the emulator, which is not installed.",
                "Run: pip install 'target-celonis[emulator]'",
            )
        self.key = Secret(secrets.token_urlsafe(32))
        self._log = directory / "emulator.log"
        ready = directory / "emulator.json"
        command = [
            *(sys.executable, "-m", _EMULATOR, "serve", "--host", "127.0.0.1", "--port", "0"),
            *("--database", str(config.embedded_database), "--pool", config.data_pool_id),
            *("--ready-file", str(ready), "--until-stdin-closes"),
        ]
        if config.embedded_config is not None:
            command += ["--config", str(config.embedded_config)]
        if config.connection_id is not None:
            command += ["--connection", f"{config.data_pool_id}:{config.connection_id}"]
        self._child = self._spawn(command)
        try:
            self.base_url = self._wait_until_ready(ready, config, clock)
        except BaseException:
            self.close()
            raise

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start the child; its standard input is the pipe that ties its life to ours."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith("TARGET_CELONIS_")}
        with open(self._log, "wb", opener=owner_only) as log:
            return subprocess.Popen(  # noqa: S603  # our own program, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=variables | {_KEY_VARIABLE: self.key.reveal()},
                start_new_session=True,
            )

    def _wait_until_ready(self, ready: Path, config: Config, clock: Clock) -> str:
        deadline = Deadline(clock, _START_SECONDS)
        while not ready.exists():
            code = self._child.poll()
            if code == _DATABASE_HELD:
                raise SettingsError(
                    "TC-SETTINGS-07",
                    self._last_words() or f"{config.embedded_database} is held by another process.",
                    "Or name another file as `embedded_database`.",
                )
            if code is not None or deadline.passed():
                state = "did not answer in time" if code is None else f"ended with code {code}"
                raise SettingsError(
                    "TC-SETTINGS-06",
                    f"The embedded emulator {state}. It says: {self._last_words() or 'nothing'}",
                )
            clock.sleep(_POLL_SECONDS)
        said = json.loads(ready.read_text(encoding="utf-8"))
        return f"http://{said['host']}:{said['port']}"

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def close(self) -> None:
        """Let the child write its database out and end."""
        if self._child.stdin is not None:
            with suppress(OSError):
                self._child.stdin.close()
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _extra_is_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("duckdb", "fastapi", "yaml"))
