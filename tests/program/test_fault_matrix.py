"""What happens when the network or Celonis misbehaves, at each call: as docs/faults.md has it.

``WRITE_FAULTS=1`` together with ``-m slow`` writes the tables of the document.
"""

from __future__ import annotations

import hashlib
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import matrix
from .fault_rig import Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .fault_rig import Seen
    from .matrix import Cell

DOCUMENT = Path(__file__).parents[2] / "docs/faults.md"
LANES = 2


class Lanes:
    """Lanes side by side, started when they are first wanted.

    Args:
        directory: Empty.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Lane] = []

    def run(self, cells: Sequence[Cell]) -> dict[Cell, Seen]:
        """Run cells, each lane one after the other."""
        while len(self._started) < LANES:
            self._start()
        free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in self._started:
            free.put(lane)

        def run(cell: Cell) -> Seen:
            lane = free.get()
            try:
                return lane.run(cell, again=is_run_again(cell))
            finally:
                free.put(lane)

        with ThreadPoolExecutor(LANES) as threads:
            return dict(zip(cells, threads.map(run, cells), strict=True))

    def first(self) -> Lane:
        """Return a lane."""
        return self._started[0] if self._started else self._start()

    def _start(self) -> Lane:
        self._started.append(Lane(self._directory / f"lane-{len(self._started)}"))
        return self._started[-1]

    def stop(self) -> None:
        for lane in self._started:
            lane.stop()


def is_run_again(cell: Cell) -> bool:
    """Return whether a run that failed is followed by one without faults: each fourth is."""
    return hashlib.sha256(str(cell).encode()).digest()[0] % 4 == 0


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    started = Lanes(tmp_path_factory.mktemp("faults"))
    yield started
    started.stop()


def check(seen: dict[Cell, Seen]) -> None:
    """No promise is broken, and what happened is what the document says."""
    broken = {str(cell): (one.problems, one.log) for cell, one in seen.items() if one.problems}
    assert broken == {}
    written = matrix.read_document(DOCUMENT.read_text(encoding="utf-8"))
    said = {str(cell): written.get(matrix.place_of(cell)) for cell in seen}
    assert {str(cell): one.outcome for cell, one in seen.items()} == said


def test_each_fault_and_each_call_in_some_run(lanes: Lanes) -> None:
    check(lanes.run(matrix.sample()))


@pytest.mark.parametrize("method", matrix.METHODS)
def test_an_execute_that_comes_late(lanes: Lanes, method: str) -> None:
    """The job is still shown as NEW after it was executed; a second execute is refused."""
    cell = matrix.Cell("execute_job", "504", "after", "once", method, "lenient")
    stale = {"status": 200, "body": {"id": "late", "status": "NEW"}}
    late = {"match": "get_job", "times": 2, "answer": stale}
    seen = lanes.first().run(cell, again=False, also=[late])
    assert (seen.outcome, seen.problems) == ("loaded after asking", []), seen.log


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("situation", list(matrix.BY_NAME))
def test_all_faults_of_a_call(lanes: Lanes, situation: str) -> None:
    seen = lanes.run([cell for cell in matrix.all_cells() if cell.situation == situation])
    if os.environ.get("WRITE_FAULTS"):
        outcomes = {cell: one.outcome for cell, one in seen.items()}
        text = DOCUMENT.read_text(encoding="utf-8")
        text = matrix.with_results(text, matrix.BY_NAME[situation], outcomes)
        DOCUMENT.write_text(text, encoding="utf-8")
    check(seen)
