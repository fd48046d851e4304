"""A copy of the project's Meltano files, and runs of Meltano in it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).resolve().parents[2]
MELTANO = ROOT / ".venv-meltano" / "bin" / "meltano"
TAP = ROOT / ".venv-tap" / "bin" / "tap-spreadsheets"
GENERATOR = ROOT / "examples" / "order_to_cash" / "generate.py"

FILES = Path("build", "demo", "files")
DATABASE = Path("build", "meltano", "celonis.duckdb")
PATIENCE_SECONDS = 120.0

_PROGRAMS = Path(sys.executable).parent
_CONSTANT_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "COVERAGE_PROCESS_")


def replace_once(text: str, old: str, new: str) -> str:
    return replace_each(text, old, new, times=1)


def replace_each(text: str, old: str, new: str, *, times: int) -> str:
    assert text.count(old) == times, f"{text.count(old)} times in meltano.yml: {old}"
    return text.replace(old, new)


@dataclass
class Ended:
    """How a command of Meltano ended.

    Attributes:
        code: Meltano's exit code.
        output: What it printed on standard output.
        log: What it wrote on standard error.
    """

    code: int
    output: str
    log: str

    def events(self) -> list[dict[str, Any]]:
        """Return the lines of the log; Meltano was asked to write JSON."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def messages(self) -> str:
        return "\n".join(str(event.get("event")) for event in self.events())

    def loader_code(self) -> int | None:
        """Return the exit code of the loader that Meltano reports; None where none failed."""
        codes = [event["exit_codes"] for event in self.events() if "exit_codes" in event]
        return codes[-1].get("loaders") if codes else None


class Project:
    """The project's meltano.yml in a directory of its own, with programs that are there already.

    Nothing else in the file is changed: where it lets Meltano install a plugin, the copy names the
    program that is installed, so that the tests need no package index.

    Args:
        directory: Where to lay it.
        proxy: Where everything that wants to leave this machine is sent.
    """

    def __init__(self, directory: Path, proxy: str) -> None:
        self.directory = directory
        self.database = directory / DATABASE
        self.file = directory / "meltano.yml"
        self._environment = {
            **{k: v for k, v in os.environ.items() if k.startswith(_CONSTANT_ENVIRONMENT)},
            **dict.fromkeys(
                ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), proxy
            ),
            "NO_COLOR": "1",
            "PYTHONUTF8": "1",
            # Where Meltano remembers between runs what does not belong to a project.
            "XDG_CACHE_HOME": str(directory / "cache"),
        }
        text = (ROOT / "meltano.yml").read_text(encoding="utf-8")
        # The loader, and the utility that publishes.
        text = replace_each(text, "      pip_url: -e .[emulator]\n", "", times=2)
        program = f"executable: {_PROGRAMS / 'target-celonis'}\n"
        text = replace_each(text, "executable: target-celonis\n", program, times=2)
        text = replace_once(text, "      pip_url: tap-spreadsheets>=1.1.2,<1.2\n", "")
        text = replace_once(text, "executable: tap-spreadsheets\n", f"executable: {TAP}\n")
        self.write(text)

    def write(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")

    def add_tap(self, code: str) -> None:
        """Declare an extractor ``tap-script``, or give it other code.

        Args:
            code: Python that prints what a tap prints.
        """
        script = self.directory / "tap_script.py"
        script.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        script.chmod(0o755)
        declared = (
            "    - name: tap-script\n"
            "      namespace: tap_script\n"
            "      executable: ./tap_script.py\n"
            "      capabilities: [state]\n"
        )
        text = self.file.read_text(encoding="utf-8")
        if declared not in text:
            self.write(replace_once(text, "\n  extractors:\n", f"\n  extractors:\n{declared}"))

    def configure(self, **settings: Any) -> None:
        """Put settings of the loader into the environment `dev`."""
        self._configure("target-celonis", settings)

    def configure_utility(self, **settings: Any) -> None:
        """Put settings of the utility that publishes into the environment `dev`."""
        self._configure("celonis-publish", settings)

    def _configure(self, plugin: str, settings: Mapping[str, Any]) -> None:
        place = (
            f"          - name: {plugin}\n            config:\n              base_url: embedded\n"
        )
        lines = [f"              {name}: {json.dumps(value)}\n" for name, value in settings.items()]
        text = self.file.read_text(encoding="utf-8")
        self.write(replace_once(text, place, place + "".join(lines)))

    def meltano(self, *arguments: str, **variables: str) -> Ended:
        """Run a command of Meltano to its end, and to the end of all that holds its output."""
        prefix = "TARGET_CELONIS_"
        evidence.secrets_of({k.removeprefix(prefix).lower(): v for k, v in variables.items()})
        done = subprocess.run(
            [str(MELTANO), "--log-format=json", *arguments],
            cwd=self.directory,
            env=self._environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, tap: str, *options: str, **variables: str) -> Ended:
        return self.meltano("run", *options, tap, "target-celonis", **variables)

    # --- what is in the emulator's file

    def _emulator(self, *arguments: str) -> str:
        """Ask the file; it can only be opened when no emulator holds it any more."""
        return subprocess.run(
            [str(_PROGRAMS / "celonis-emulator"), *arguments],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            check=True,
        ).stdout

    def query(self, sql: str) -> list[tuple[str, ...]]:
        text = self._emulator("query", "--csv", "--database", str(DATABASE), sql)
        return [tuple(row) for row in csv.reader(io.StringIO(text))][1:]

    def counts(self, *tables: str) -> dict[str, int]:
        sql = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM local.{name}" for name in tables)
        return {name: int(count) for name, count in self.query(sql)}

    def push_jobs(self) -> Counter[tuple[str, str, int]]:
        """Count the push jobs there ever were, by table, type and rows."""
        listed = self._emulator("tables", "--database", str(DATABASE))
        _, _, jobs = listed.partition("PUSH JOB ON")
        rows = [line.removeprefix("local / ").split() for line in jobs.splitlines()[1:]]
        return Counter((table, kind, int(count)) for table, kind, _, _, count, *_ in rows)


def write_csv(path: Path, rows: Iterable[dict[str, str]], seconds: int) -> None:
    """Write a file and date it; the tap reads no fractions of a second."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.utime(path, (seconds, seconds))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
