"""What is written in several places is the same in all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from target_celonis import errors
from target_celonis.config import parse
from target_celonis.errors import CATALOGUE, TargetCelonisError
from target_celonis.settings import SETTINGS, json_schema

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {setting.name: setting for setting in SETTINGS}
KINDS = {"string", "integer", "boolean", "array", "password", "options", "decimal"}


def table_rows(path: Path, first_heading: str) -> list[list[str]]:
    """Return the cells of the Markdown table whose first column has this heading."""
    rows: list[list[str]] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and cells[0].lower() == first_heading:
            inside = True
        elif inside and not line.startswith("|"):
            break
        elif inside and not set(cells[0]) <= {"-", ":", " "}:
            rows.append(cells)
    return rows


def code(cell: str) -> str:
    return cell.strip("`")


def written(default: Any) -> str:
    if default is None:
        return ""
    return str(default) if isinstance(default, str) else json.dumps(default)


def test_the_settings_of_the_readme() -> None:
    rows = table_rows(ROOT / "README.md", "setting")
    assert [code(row[0]) for row in rows] == [setting.name for setting in SETTINGS]
    for row in rows:
        assert code(row[1]) == written(BY_NAME[code(row[0])].default), row[0]
        assert len(row[2]) > 10


def loader() -> dict[str, Any]:
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    (found,) = project["plugins"]["loaders"]
    assert found["executable"] == "target-celonis"
    return dict(found)


def test_the_settings_of_meltano() -> None:
    listed = {setting["name"]: setting for setting in loader()["settings"]}
    assert list(listed) == [setting.name for setting in SETTINGS]
    for name, setting in listed.items():
        ours = BY_NAME[name]
        assert bool(setting.get("sensitive", setting.get("kind") == "password")) == ours.secret
        assert setting.get("value") == ours.default, name
        if ours.options:
            assert [option["value"] for option in setting["options"]] == list(ours.options)
        assert setting["description"].strip()


def test_meltano_can_hand_over_what_it_exports() -> None:
    """Meltano writes every setting that has a value into the configuration and environment."""
    listed = loader()["settings"]
    values = {s["name"]: s["value"] for s in listed if s.get("value") is not None}
    environment = {
        f"TARGET_CELONIS_{name.upper()}": v if isinstance(v, str) else json.dumps(v)
        for name, v in values.items()
    }
    from_file = parse(values | {"base_url": "embedded"}, {})
    from_environment = parse({}, environment | {"TARGET_CELONIS_BASE_URL": "embedded"})
    assert from_file == from_environment == parse({"base_url": "embedded"}, {})


def test_the_settings_of_about() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "target_celonis", "--about", "--format=json"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    properties = json.loads(shown.stdout)["settings"]["properties"]
    assert properties == json_schema()["properties"]
    assert list(properties) == list(BY_NAME)
    assert {name for name, p in properties.items() if p.get("secret")} == {
        setting.name for setting in SETTINGS if setting.secret
    }


def exit_code(code: str) -> int:
    """Return the exit code of the class of errors that a code's middle names."""
    classes = {
        "SETTINGS": errors.SettingsError,
        "ACCESS": errors.AccessError,
        "INPUT": errors.InputError,
        "CONTRACT": errors.ContractError,
        "REMOTE": errors.RemoteError,
        "LIMIT": errors.LimitError,
        "INTERNAL": errors.InternalError,
    }
    return classes[code.split("-")[1]].exit_code


def test_the_errors_of_the_documents() -> None:
    rows = table_rows(ROOT / "docs" / "errors.md", "code")
    assert {code(row[0]): row[2] for row in rows} == CATALOGUE
    for name, codes, *_ in rows:
        if code(name) == "TC-SIGNAL-01":
            assert set(re.findall(r"\d+", codes)) == {"130", "143"}
        else:
            assert codes == str(exit_code(code(name)))


def test_codes_and_classes_of_errors_agree_in_the_source() -> None:
    """Every code is raised somewhere, and only by the class that its name says."""
    raised: set[str] = set()
    for path in (ROOT / "target_celonis").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.name == "errors.py":
            source = source.split("\nclass ", 1)[1]  # behind the catalogue
        for kind, found in re.findall(r'(\w+Error)\(\s*"(TC-[A-Z]+-\d\d)"', source):
            raised.add(found)
            assert getattr(errors, kind).exit_code == exit_code(found), (path.name, found)
        raised |= set(re.findall(r'"(TC-[A-Z]+-\d\d)"', source))
    assert raised | {"TC-SIGNAL-01"} == set(CATALOGUE)


def test_every_error_is_one_line() -> None:
    error = TargetCelonisError("TC-INPUT-01", "Line 3 is not JSON.", "Look at it.")
    assert str(error) == "[TC-INPUT-01] Line 3 is not JSON. Look at it."
    with pytest.raises(AssertionError):
        TargetCelonisError("TC-NOTHING-01", "")
    for sentence in CATALOGUE.values():
        assert sentence.endswith(".")
        assert "\n" not in sentence


def test_meltano_names_exit_nothing_that_is_not_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (ROOT / target).exists(), target
