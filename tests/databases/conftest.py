"""One server for all tests, and for each a schema, a tap and an emulator of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from .loading import Loading
from .postgres import Cluster, Source, why_not
from .story import Story
from .taps import TAPS, MeltanoLabsTap, Tap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A server with an empty cluster."""
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def source(postgres: Cluster) -> Source:
    """A schema that no other test uses."""
    return Source(postgres, f"demo_{next(_schemas)}")


@pytest.fixture
def tap(postgres: Cluster, source: Source, tmp_path: Path) -> Tap:
    """The tap of Meltano Labs on that schema."""
    return MeltanoLabsTap(postgres, tmp_path, source.schema)


@pytest.fixture(params=sorted(TAPS))
def either_tap(
    request: pytest.FixtureRequest, postgres: Cluster, source: Source, tmp_path: Path
) -> Tap:
    """Each of the taps on that schema."""
    return TAPS[request.param](postgres, tmp_path, source.schema)


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


@pytest.fixture(scope="session")
def stories(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Story]:
    """Tell each tap's story, the first time that it is asked for."""
    told: dict[str, Story | BaseException] = {}

    def tell(name: str) -> Story:
        if name not in told:
            try:
                told[name] = Story(name, TAPS[name], postgres, tmp_path_factory.mktemp(name))
            except (Exception, pytest.skip.Exception) as error:  # noqa: BLE001 - kept for all tests
                told[name] = error
        found = told[name]
        if isinstance(found, BaseException):
            raise found.with_traceback(None)
        return found

    return tell


@pytest.fixture(params=sorted(TAPS))
def story(request: pytest.FixtureRequest, stories: Callable[[str], Story]) -> Story:
    """Each tap's story."""
    return stories(request.param)
