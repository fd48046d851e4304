"""Every secret that the tests use, and everything that the programs print: searched at the end.

A plugin of pytest, loaded by ``conftest.py``. Tests and harnesses hand in secrets by ``secret``;
what is printed is taken from subprocesses whose output is read by ``communicate``, from what pytest
captured of each test, from ``printed``, and from the log files, texts and JSON files under pytest's
directory for temporary files. All workers of xdist write into one directory; the process that
began them searches it. A secret that is found fails the run, whatever the tests said.

Hides how the search is done. Guarantees: a secret of ``SHORTEST_BYTES`` or more that was handed in
is found plain, quoted as in addresses, escaped as in JSON, and as a part of any Base64. Must not
know: the programs; above all not how they keep secrets to themselves.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SHORTEST_BYTES = 8
"""What is shorter, as the ``t1`` of a test of tokens, is found in harmless texts, too."""

SEARCHED = ("*.log", "*.txt", "*.json")
HOLDING_SECRETS = ("*config*.json",)
"""Files by which secrets are handed to the programs: settings."""

_STEP = 8
_SECRET_SETTINGS = ("api_key", "oauth_client_secret")


@dataclass(frozen=True)
class _Recording:
    """Where this process records, and whether another one searches."""

    directory: Path
    is_workers: bool


_recording: _Recording | None = None


# --- handing in


def secret(text: str) -> str:
    """Hand in a secret, and return it."""
    _write("secrets", text)
    return text


def secrets_of(settings: Mapping[str, Any]) -> None:
    """Hand in the secrets among settings of the target."""
    for name in _SECRET_SETTINGS:
        secret(str(settings.get(name) or ""))
    proxy = str(settings.get("proxy") or "")
    secret(unquote(urlsplit(proxy).password or ""))


def printed(*texts: str | bytes | None) -> None:
    """Hand in what a program printed."""
    for text in texts:
        if text:
            where = os.environ.get("PYTEST_CURRENT_TEST", "outside of tests")
            _write("printed", where.rpartition(" ")[0] or where, _decoded(text))


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")


def _write(kind: str, *words: str) -> None:
    if _recording is not None:
        with (_recording.directory / f"{kind}-{os.getpid()}").open("a", encoding="utf-8") as file:
            file.write(json.dumps(words) + "\n")


def _read(directory: Path, kind: str) -> Iterator[list[str]]:
    for path in sorted(directory.glob(f"{kind}-*")):
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


# --- the search


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def forms(text: str) -> set[bytes]:
    """Return what a secret may look like."""
    plain = {text, quote(text), quote(text, safe=""), quote_plus(text), json.dumps(text)[1:-1]}
    found = {_encoded(form) for form in plain}
    for shift in range(3):
        data = b"\0" * shift + _encoded(text)
        # Only the letters on which no neighbour of the secret has a say.
        piece = base64.b64encode(data)[-(-shift * 8 // 6) : len(data) * 8 // 6]
        found |= {piece, piece.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class Search:
    """Looks for many secrets in many texts, reading each text once.

    A form of fifteen bytes or more holds one of its own first eight grams of eight bytes at a place
    that is a multiple of eight, wherever it stands: so only these places are looked at.

    Args:
        secrets: What is looked for.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._short: set[bytes] = set()
        self._by_gram: defaultdict[bytes, set[bytes]] = defaultdict(set)
        for text in {text for text in secrets if len(_encoded(text)) >= SHORTEST_BYTES}:
            for form in forms(text):
                if len(form) < 2 * _STEP - 1:
                    self._short.add(form)
                else:
                    for at in range(_STEP):
                        self._by_gram[form[at : at + _STEP]].add(form)

    def holds(self, text: bytes) -> bool:
        """Return whether a secret is in a text."""
        if any(form in text for form in self._short):
            return True
        grams = {text[at : at + _STEP] for at in range(0, len(text), _STEP)}
        known = grams & self._by_gram.keys()
        return any(form in text for gram in known for form in self._by_gram[gram])


def leaks(recorded: Path, base: Path) -> list[str]:
    """Return where secrets were found: names of tests and files."""
    search = Search(text for (text,) in _read(recorded, "secrets"))
    found = {where for where, text in _read(recorded, "printed") if search.holds(_encoded(text))}
    for pattern in SEARCHED:
        for path in base.rglob(pattern):
            hands_over = any(fnmatch(path.name, name) for name in HOLDING_SECRETS)
            if path.is_file() and not hands_over and search.holds(path.read_bytes()):
                found.add(str(path))
    return sorted(found)


# --- the plugin


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record: into a directory of this run's own, which workers are told."""
    global _recording  # noqa: PLW0603  # one recording in a process
    if _is_worker(config):
        _recording = _Recording(Path(config.workerinput["evidence"]), is_workers=True)
    else:
        directory = Path(tempfile.mkdtemp(prefix="evidence-"))
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
        _recording = _Recording(directory, is_workers=False)
    patch = pytest.MonkeyPatch()
    patch.setattr(subprocess.Popen, "communicate", _recorded(subprocess.Popen.communicate))
    config.add_cleanup(patch.undo)


def _recorded(communicate: Any) -> Any:
    @wraps(communicate)
    def recorded(*arguments: Any, **options: Any) -> Any:
        shown = communicate(*arguments, **options)
        printed(*shown)
        return shown

    return recorded


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where to write."""
    assert _recording is not None
    node.workerinput["evidence"] = str(_recording.directory)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record what was captured of a test, where all reports come together."""
    if _recording is not None and not _recording.is_workers:
        for _, content in report.sections:
            _write("printed", report.nodeid, content)


_FOUND = pytest.StashKey[list[str]]()


@pytest.hookimpl(trylast=True)  # after session fixtures have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search all that was recorded, and fail the run for what is found."""
    if _recording is None or _recording.is_workers:
        return
    base = session.config._tmp_path_factory.getbasetemp()  # as pytest's own plugins ask for it
    found = leaks(_recording.directory, base)
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[_FOUND] = found


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say where secrets were found; which, is not said."""
    found = config.stash.get(_FOUND, [])
    if found:
        terminalreporter.section("secrets were printed", red=True)
        for where in found:
            terminalreporter.line(f"SECRET in {where}")
