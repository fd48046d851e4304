"""Emulators and targets for the tests of the program."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from .harness import Emulator, Target, start_emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run marked tests against both profiles: what is loaded is the same, however Celonis is."""
    marked = metafunc.definition.get_closest_marker("both_profiles")
    if marked and "emulator" in metafunc.fixturenames:
        metafunc.parametrize("emulator", ["lenient", "harsh"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def emulator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    """One emulator for all tests that need no switch of their own."""
    options = ("--pool", "local=Local", "--connection", "local:erp=ERP")
    profile = getattr(request, "param", "lenient")
    started = start_emulator(tmp_path_factory.mktemp("emulator"), *options, profile=profile)
    yield started
    started.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Emulator]]:
    """Start emulators with switches."""
    started: list[Emulator] = []

    def started_with(*options: str) -> Emulator:
        directory = tmp_path / f"emulator-{len(started)}"
        directory.mkdir()
        started.append(start_emulator(directory, *options))
        return started[-1]

    yield started_with
    for one in started:
        one.stop()


@pytest.fixture
def make_target(tmp_path: Path) -> Iterator[Callable[..., Target]]:
    """Make targets, each with a directory of its own."""
    made: list[Target] = []

    def make(**settings: object) -> Target:
        directory = tmp_path / f"target-{len(made)}"
        directory.mkdir()
        made.append(Target(directory, settings))
        return made[-1]

    yield make
    for target in made:
        target.stop()


@pytest.fixture
def target(emulator: Emulator, make_target: Callable[..., Target]) -> Iterator[Target]:
    """The program against the shared emulator, where no test leaves a job behind."""
    yield make_target(**emulator.settings)
    assert emulator.left_behind() == []


@pytest.fixture
def stream() -> str:
    """A stream, and table, that no other test uses."""
    return f"stream_{next(_numbers)}"
