"""The catalogue of errors and the source agree, and errors read well."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from pathlib import Path

import pytest

import target_celonis
from target_celonis.errors import (
    CATALOGUE,
    AccessError,
    ContractError,
    InputError,
    InternalError,
    LimitError,
    OutcomeUnknownError,
    RemoteError,
    SettingsError,
    SignalError,
    TargetCelonisError,
)

SOURCES = sorted(Path(target_celonis.__file__).parent.rglob("*.py"))
CODE = re.compile(r"TC-[A-Z]+-\d\d")
USED = Counter(
    code
    for path in SOURCES
    if path.name != "errors.py"
    for code in CODE.findall(path.read_text(encoding="utf-8"))
)


def test_every_code_in_the_source_is_catalogued() -> None:
    assert set(USED) - set(CATALOGUE) == set()


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_catalogued_code_is_used(code: str) -> None:
    in_errors = (Path(target_celonis.__file__).parent / "errors.py").read_text(encoding="utf-8")
    assert USED[code] or in_errors.count(code) > 1
    assert CATALOGUE[code].endswith(".")


CLASSES: list[tuple[type[TargetCelonisError], str, int]] = [
    (SettingsError, "TC-SETTINGS-01", 2),
    (AccessError, "TC-ACCESS-01", 3),
    (InputError, "TC-INPUT-01", 4),
    (ContractError, "TC-CONTRACT-01", 5),
    (RemoteError, "TC-REMOTE-01", 6),
    (OutcomeUnknownError, "TC-REMOTE-03", 6),
    (LimitError, "TC-LIMIT-01", 7),
    (InternalError, "TC-INTERNAL-01", 1),
]


@pytest.mark.parametrize(("kind", "code", "exit_code"), CLASSES)
def test_exit_codes_and_lines(kind: type[TargetCelonisError], code: str, exit_code: int) -> None:
    error = kind(code, "It is so.", "Do that.")
    assert isinstance(error, TargetCelonisError)
    assert error.exit_code == exit_code
    assert str(error) == f"[{code}] It is so. Do that."
    assert str(kind(code, "It is so.")) == f"[{code}] It is so."
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # made one line above
    assert (type(again), str(again), again.exit_code) == (kind, str(error), exit_code)


def test_each_class_is_raised_with_codes_of_its_own() -> None:
    words = {kind.__name__: code.split("-")[1] for kind, code, _ in CLASSES}
    pattern = re.compile(r"(\w+Error)\(\s*\"TC-([A-Z]+)-\d\d\"")
    for path in SOURCES:
        for name, word in pattern.findall(path.read_text(encoding="utf-8")):
            assert words[name] == word, path


@pytest.mark.parametrize(("number", "exit_code"), [(15, 143), (2, 130)])
def test_a_signal_decides_the_exit_code(number: int, exit_code: int) -> None:
    error = SignalError(number, "Stopped.")
    assert (error.exit_code, error.signal_number) == (exit_code, number)
    assert str(error) == "[TC-SIGNAL-01] Stopped."
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # made three lines above
    assert (again.exit_code, str(again)) == (exit_code, str(error))


def test_a_code_that_is_not_catalogued_cannot_be_raised() -> None:
    with pytest.raises(AssertionError):
        InputError("TC-INPUT-99", "x")
