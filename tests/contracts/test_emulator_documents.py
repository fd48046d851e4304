"""The emulator's pages say what the code does, and their commands and examples work."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import requests
import yaml
from pydantic import BaseModel

from celonis_emulator import faults, setupfile
from celonis_emulator.assumed import ASSUMED
from celonis_emulator.cli import _shown, main
from celonis_emulator.rights import SCOPES
from celonis_emulator.setup import DEFAULT_TEAM, Team
from celonis_emulator.switches import PROFILES, Switches, option
from celonis_emulator.testing import Emulator
from celonis_emulator.warehouse import model_schema_name, schema_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "emulator.md"
EXAMPLE = ROOT / "docs" / "emulator.example.yaml"
SUITE = ROOT / "examples" / "pytest"
SWITCHES = fields(Switches)
PATIENCE_SECONDS = 60.0
# What a caller must be given so that each cell of the table of permissions can be wrong.
CALLERS = ("nothing", "read", "edit", "push", "manage", "read manage")


@cache
def section(title: str) -> str:
    """Return what stands under a heading."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def tables(title: str) -> list[list[list[str]]]:
    """Return the cells of each table of a section, the head left out."""
    found = re.findall(r"(?:^\|.*\n)+", section(title), flags=re.MULTILINE)
    return [[_cells(line) for line in table.splitlines()[2:]] for table in found]


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
    return [cell.replace("\\|", "|").strip() for cell in cells]


def blocks(language: str, title: str | None = None) -> list[str]:
    """Return the blocks of code in a language."""
    text = PAGE.read_text(encoding="utf-8") if title is None else section(title)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def code(cell: str) -> str:
    assert cell.startswith("`")
    assert cell.endswith("`")
    return cell.strip("`")


# Tables of names


def test_the_profiles() -> None:
    (rows,) = tables("Profiles")
    assert {code(name): code(value) for name, _, value in rows} == {
        option(name): _shown(value) for name, value in PROFILES["harsh"].items()
    }
    defaults = {option(switch.name): _shown(switch.default) for switch in SWITCHES}
    assert {code(name): code(value) for name, value, _ in rows}.items() <= defaults.items()
    assert PROFILES["lenient"] == {}
    assert set(PROFILES) == {"lenient", "harsh"}


def test_the_switches() -> None:
    (rows,) = tables("Switches")
    harsh = PROFILES["harsh"]
    assert rows == [
        [
            f"`{option(switch.name)}`",
            f"`{_shown(switch.default)}`",
            f"`{_shown(harsh[switch.name])}`" if switch.name in harsh else "",
            switch.metadata["doc"],
            switch.metadata["fact"],
        ]
        for switch in SWITCHES
    ]


def test_what_is_assumed() -> None:
    (rows,) = tables("What is assumed")
    assert [(code(name), sentence) for name, sentence in rows] == list(ASSUMED.items())
    known = {option(switch.name) for switch in SWITCHES}
    named = re.findall(r"\(switch: ([\w-]+)\)", section("What is assumed"))
    assert named
    assert set(named) <= known


def test_the_names_of_faults() -> None:
    _, names, calls = tables("Faults")
    assert {(code(name), default.strip("`")) for name, default, _ in names} == set(
        fault_names(faults.Fault)
    )
    assert {code(name): set(re.findall(r"`([^`]+)`", shown)) for name, shown in calls} == {
        name: set(patterns) for name, patterns in faults.CALLS.items()
    }
    sentence = next(line for line in section("Faults").splitlines() if "one effect" in line)
    listed = sentence.partition(". ")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(faults._EFFECTS)


def fault_names(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names that a fault can have, those of inner objects too, and their defaults."""
    for name, about in model.model_fields.items():
        default = about.default
        shown = default if isinstance(default, int | float | str) else ""
        yield prefix + name, f"{shown:g}" if isinstance(shown, float) else str(shown)
        for kind in (about.annotation, *get_args(about.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fault_names(kind, f"{prefix}{name}.")


def test_what_there_is_by_default() -> None:
    (rows,) = tables("Start it")
    (pool,), (connection,) = DEFAULT_TEAM.pools, DEFAULT_TEAM.connections
    (model,), (job,) = DEFAULT_TEAM.data_models, DEFAULT_TEAM.data_jobs
    assert [code(cell) for _, cell in rows] == [pool.id, connection.id, model.id, job.id]
    assert model.tables == ()
    assert f"`{job.tasks[0].sql}`" in rows[3][0]


def test_where_tables_are() -> None:
    (rows,) = tables("Look at what arrived")
    assert [code(cell) for _, cell in rows] == [
        f'"{schema}"."TABLE"'
        for schema in (
            schema_name("POOL", None),
            schema_name("POOL", "CONNECTION"),
            model_schema_name("POOL", "MODEL"),
        )
    ]


def test_the_scopes() -> None:
    named = set(re.findall(r"`(integration\.[\w.:-]+)`", section("Calls and permissions")))
    assert named == set(SCOPES)


# Examples that are read


@pytest.mark.parametrize("whole", [False, True], ids=["as it stands", "with all that it can have"])
def test_the_example_file(tmp_path: Path, whole: bool) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    environment = {}
    if whole:
        text = re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)
        environment = {"LOADER_KEY": "k", "OTHER_SECRET": "s"}
        assert set(keys_of(yaml.safe_load(text))) >= {
            *setupfile._FILE,
            *setupfile._SERVER,
            *setupfile._POOL,
            *setupfile._CONNECTION,
            *setupfile._MODEL,
            *setupfile._TABLE,
            *setupfile._JOB,
            *setupfile._TASK,
            *setupfile._KEY,
            *setupfile._CLIENT,
        }
    path = tmp_path / "emulator.yaml"
    path.write_text(text, encoding="utf-8")
    found = setupfile.read_setup(path, environment, Team())
    assert [pool.id for pool in found.team.pools] == ["sales", "playground"]
    assert len(found.keys) == 3 + whole
    assert len(found.oauth_clients) == len(found.faults) == 1 + whole
    assert (found.server.tls_cert is not None) == whole


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from keys_of(inner)


def test_the_short_example_of_the_set_up_file(tmp_path: Path) -> None:
    (text,) = blocks("yaml", "The set-up file")
    path = tmp_path / "emulator.yaml"
    path.write_text(text, encoding="utf-8")
    found = setupfile.read_setup(path, {}, Team())
    assert found.switches == {"running_seconds": 0.5}
    assert [key.key for key in found.keys] == ["KEY", "PUSH-KEY"]
    assert [job.data_models for job in found.team.data_jobs] == [("orders-model",)]


def test_the_examples_for_pytest() -> None:
    """They are those of the suite that a test of the emulator runs."""
    shown = files_for_pytest()
    assert blocks("python") == [shown["conftest.py"], shown["test_orders.py"]]
    assert set(shown) == {path.name for path in SUITE.iterdir() if path.is_file()}
    for name, block in shown.items():
        assert block.strip() in (SUITE / name).read_text(encoding="utf-8"), name


def files_for_pytest() -> dict[str, str]:
    """Return each block of the section by the file that is named last before it."""
    found = {}
    pattern = r"`(\w+\.\w+)`(?:(?!`\w+\.\w+`|^```).)*?^```(?:python|ini|yaml)\n(.*?)^```$"
    for name, block in re.findall(pattern, section("In pytest"), flags=re.MULTILINE | re.DOTALL):
        assert name not in found
        found[name] = block
    return found


def test_the_suite_for_pytest_runs_as_it_is_shown(tmp_path: Path) -> None:
    for name, block in files_for_pytest().items():
        (tmp_path / name).write_text(block, encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST"))}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_what_an_emulator_has() -> None:
    (rows,) = tables("In pytest")
    known = {*dir(Emulator), "url", "api_key", "data_pool_id", "directory"}
    own = {name for name in known if not name.startswith("_")} - {"database", "log"}
    assert set(re.findall(r"\bemulator\.(\w+)", str(rows))) == own


# Names of the command line, links


def test_every_option_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("serve", "tables", "query"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 15
    assert named <= known


def test_every_link_leads_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (PAGE.parent / target).exists(), target
    assert "(docs/emulator.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


# What is tried


@dataclass(frozen=True)
class Example:
    """A server that was started as the page says, from the example of a set-up file."""

    url: str
    directory: Path

    def ask(self, method: str, path: str, key: str | None = "KEY", **options: Any) -> Any:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method, self.url + path, headers=headers, timeout=PATIENCE_SECONDS, **options
            )

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run commands of the page where the server was started, with its address in them."""
        return run_shell(script.replace("http://127.0.0.1:4444", self.url), self.directory)


def run_shell(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    for program in ("bash", "curl", "timeout"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CELONIS_EMULATOR")}
    programs = str(Path(sys.executable).parent)
    environment |= {"PATH": programs + os.pathsep + environment["PATH"], "NO_PROXY": "*"}
    ended = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def steps() -> dict[str, str]:
    """Return the named steps of the workflow."""
    (text,) = blocks("yaml", "In GitHub Actions")
    return {step["name"]: step["run"] for step in yaml.safe_load(text)["steps"] if "name" in step}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    directory = tmp_path_factory.mktemp("example")
    text = EXAMPLE.read_text(encoding="utf-8")
    more = [
        {"key": caller.replace(" ", "-"), "permissions": {"sales": caller.split()}}
        for caller in CALLERS[1:]
    ]
    more.append({"key": CALLERS[0], "permissions": {}})
    listed = "\n".join(f"  - {json.dumps(key)}" for key in more)
    for old, new in (("port: 4444", "port: 0"), ("\nkeys:\n", f"\nkeys:\n{listed}\n")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (directory / "emulator.yaml").write_text(text, encoding="utf-8")
    run_shell(steps()["Start a local Celonis"], directory)
    about = json.loads((directory / "celonis.ready").read_text(encoding="utf-8"))
    example = Example(f"{about['scheme']}://{about['host']}:{about['port']}", directory)
    yield example
    os.kill(about["pid"], signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            example.ask("GET", "/docs")
        except requests.ConnectionError:
            break
        time.sleep(0.02)
    assert (directory / "celonis.log").read_text(encoding="utf-8") == ""


@pytest.fixture(scope="module")
def operations(example: Example) -> dict[str, list[str]]:
    """The tags of each operation of the OpenAPI document, by method and path."""
    paths = example.ask("GET", "/openapi.json", key=None).json()["paths"]
    return {
        f"{method.upper()} {path}": about["tags"]
        for path, methods in paths.items()
        for method, about in methods.items()
    }


def test_every_call_is_listed(operations: dict[str, list[str]]) -> None:
    (calls,), (own,) = tables("Calls and permissions"), tables("Calls of its own")
    assert {code(row[0]) for row in own} == {
        call for call, tags in operations.items() if tags == ["Emulator"]
    }
    assert {code(row[0]) for row in calls} | {"POST /oauth2/token"} == {
        call for call, tags in operations.items() if tags != ["Emulator"]
    }


def test_every_path_exists(example: Example, operations: dict[str, list[str]]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"http://127\.0\.0\.1:4444(/[^\s\"'`]+)", text))
    named |= set(re.findall(r"`(?:[A-Z]+ )?(/[^`*\s]+)`", text))
    assert len(named) > 40
    paths = {call.split()[1] for call in operations}
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in paths]
    for name in {name.rstrip("/") for name in named}:
        if not any(
            path.startswith(name) or pattern.fullmatch(name)
            for path, pattern in zip(paths, patterns, strict=True)
        ):
            assert example.ask("GET", name, key=None).status_code == 200, name


def test_the_permissions(example: Example) -> None:
    (rows,) = tables("Calls and permissions")
    wrong = []
    for call, _, permission in rows:
        method, path = code(call).split()
        path = path.replace("{pool_id}", "sales").replace("{version}", "v2")
        path = re.sub(r"\{\w+\}", "orders-model", path)
        assert example.ask(method, path, key=None).status_code == 401, call
        for caller in CALLERS:
            status = example.ask(method, path, caller.replace(" ", "-")).status_code
            assert status not in {401, 405, 500}, (call, caller)
            if (status != 403) != lets_in(permission, set(caller.split())):
                wrong.append((call, caller, status))
    assert wrong == []


def lets_in(permission: str, held: set[str]) -> bool:
    """Say whether the words of a cell let somebody in who holds these permissions."""
    if permission == "any key":
        return True
    if " and " in permission:
        return all(code(word) in held for word in permission.split(" and "))
    return any(code(word) in held for word in permission.split(" or "))


def test_the_faults(example: Example) -> None:
    recipes = [json.loads(code(cell)) for _, cell in tables("Faults")[0]]
    (text,) = blocks("yaml", "Faults")
    (listed,) = yaml.safe_load(text)["faults"]
    (option_value,) = re.findall(r"--fault '([^']+)'", section("Faults"))
    assert json.loads(option_value) == listed == recipes[0]
    for fault in recipes:
        answer = example.ask("POST", "/_emulator/faults", json=fault)
        assert answer.status_code == 200, (fault, answer.text)
        faults.parse(fault)
    effects = {name for fault in recipes for name in fault} & set(faults._EFFECTS)
    assert effects == set(faults._EFFECTS)
    assert example.ask("DELETE", "/_emulator/faults").status_code == 200
    (command,) = blocks("sh", "Faults")
    shown = json.loads(example.shell(command).stdout)
    assert [armed["fault"]["times"] for armed in shown] == [2]
    assert example.ask("DELETE", "/_emulator/faults").status_code == 200


def test_the_session_with_curl(example: Example) -> None:
    """Then the last step of the workflow finds what it looks for."""
    _, script = blocks("sh", "Point a pipeline at it")
    assert script.count("local") == 2
    job = example.shell(script.replace("local", "sales")).stdout.strip()
    jobs = f"/data-ingestion/api/v1/data-push/sales/jobs/{json.loads(job)['id']}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (status := example.ask("GET", jobs).json()["status"]) in {"QUEUED", "RUNNING"}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert status == "DONE"
    example.shell(steps()["Two orders arrived"])
    (script,) = blocks("sh", "Look at what arrived")
    shown = example.shell(script.replace("local", "sales")).stdout
    assert re.search(r"^sales +\(global\) +ORDERS +2$", shown, flags=re.MULTILINE)
    assert re.search(r"^1 +Ann +9.5$", shown, flags=re.MULTILINE)
