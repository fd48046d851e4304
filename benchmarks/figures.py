"""From timed runs to tables: medians, ratios and how they are written.

Hides arithmetic and Markdown. Guarantees: start-up, the median of a program's runs on one record,
is taken off every time; two programs are compared within a round only, where the machine was in
the same mood. Must not know: how anything was run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_BEGIN, _END = "<!-- figures -->", "<!-- /figures -->"
_LEAST_SHARE = 0.2
"""What is left of a run without its start-up must be this share of it to say anything."""


@dataclass(frozen=True)
class Timed:
    """One run.

    Attributes:
        kind: Of the input.
        program: The program.
        round_number: From one on.
        records: In the input.
        input_bytes: Its size.
        is_startup: Whether it was on the input of one record.
        wall_seconds: From start to end.
        cpu_seconds: Of all its processes.
        peak_memory_bytes: Of all its processes; None where it is not known.
        memory_kind: How that was measured.
    """

    kind: str
    program: str
    round_number: int
    records: int
    input_bytes: int
    is_startup: bool
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    memory_kind: str


@dataclass(frozen=True)
class Spread:
    """A median, and what it is the median of."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The value in the middle."""
        return median(self.values)

    @property
    def least(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The greatest value."""
        return max(self.values)


Cell = tuple[str, str]
"""A kind and a program."""


class Figures:
    """What a number of timed runs say.

    Args:
        runs: All of them.
    """

    def __init__(self, runs: Iterable[Timed]) -> None:
        self.runs = tuple(runs)
        self.kinds = tuple(dict.fromkeys(run.kind for run in self.runs))
        self.programs = tuple(dict.fromkeys(run.program for run in self.runs))

    def _values(self, cell: Cell, take: Callable[[Timed], float], *, startup: bool) -> list[float]:
        return [
            take(run)
            for run in self.runs
            if (run.kind, run.program) == cell and run.is_startup == startup
        ]

    def startup_seconds(self, cell: Cell) -> float:
        """Return the median time of the runs on one record; 0 without any."""
        return median(self._values(cell, lambda run: run.wall_seconds, startup=True) or [0.0])

    def startup_cpu_seconds(self, cell: Cell) -> float:
        """Return the median CPU time of the runs on one record; 0 without any."""
        return median(self._values(cell, lambda run: run.cpu_seconds, startup=True) or [0.0])

    def rates(self, cell: Cell) -> dict[int, float]:
        """Return records a second, net of start-up, by round; none where little is left."""
        startup = self.startup_seconds(cell)
        return {
            run.round_number: run.records / (run.wall_seconds - startup)
            for run in self.runs
            if (run.kind, run.program) == cell
            and not run.is_startup
            and run.wall_seconds - startup > _LEAST_SHARE * run.wall_seconds
        }

    def rate(self, cell: Cell) -> float | None:
        """Return the median of the rates; None without any."""
        rates = self.rates(cell)
        return median(rates.values()) if rates else None

    def ratio(self, kind: str, program: str, base: str) -> Spread | None:
        """Return how many times as fast ``base`` is, round by round; None without common rounds."""
        ours, theirs = self.rates((kind, base)), self.rates((kind, program))
        ratios = tuple(ours[number] / theirs[number] for number in ours if number in theirs)
        return Spread(ratios) if ratios else None

    def seconds(self, cell: Cell) -> float | None:
        """Return the median time of the timed runs, start-up included."""
        values = self._values(cell, lambda run: run.wall_seconds, startup=False)
        return median(values) if values else None

    def cpu_microseconds(self, cell: Cell) -> float | None:
        """Return the median CPU time of a record, net of start-up; None where little is left."""
        startup = self.startup_cpu_seconds(cell)
        values = self._values(
            cell, lambda run: (run.cpu_seconds - startup) / run.records * 1e6, startup=False
        )
        # So little that the start-up's own variation is more: that says nothing.
        return found if values and (found := median(values)) > 0 else None

    def peak_megabytes(self, cell: Cell) -> float | None:
        """Return the greatest memory of the timed runs."""
        seen = self._values(cell, lambda run: (run.peak_memory_bytes or 0) / 1e6, startup=False)
        return max(seen, default=0.0) or None

    def memory_kinds(self) -> str:
        """Return how memory was measured."""
        return " and ".join(sorted({run.memory_kind for run in self.runs if run.memory_kind}))


# --- tables


def shown(value: float | None) -> str:
    """Return a number with the digits that mean something; a dash for none.

    >>> [shown(v) for v in (1234.5, 391.2, 45.13, 7.644, 0.0123, None)]
    ['1,234', '391', '45.1', '7.64', '0.01', '-']
    """
    if value is None:
        return "-"
    for least, digits in ((100.0, 0), (10.0, 1)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    rules = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rules, *rows))


def _by_kind(
    figures: Figures, head: str, programs: Iterable[str], cell: Callable[[str, str], str]
) -> str:
    return table(
        [head, *figures.kinds],
        [[name, *(cell(kind, name) for kind in figures.kinds)] for name in programs],
    )


def rate_table(figures: Figures) -> str:
    """Return thousand records a second."""

    def cell(kind: str, program: str) -> str:
        rate = figures.rate((kind, program))
        return shown(None if rate is None else rate / 1000)

    return _by_kind(figures, "thousand records a second", figures.programs, cell)


def ratio_table(figures: Figures, base: str) -> str:
    """Return how many times as fast one program is as the others, with the extremes."""

    def cell(kind: str, program: str) -> str:
        ratio = figures.ratio(kind, program, base)
        if ratio is None:
            return "-"
        if len(ratio.values) == 1:
            return shown(ratio.median)
        return f"{shown(ratio.median)} ({shown(ratio.least)} to {shown(ratio.most)})"

    others = [name for name in figures.programs if name != base]
    return _by_kind(figures, f"{base} / ...", others, cell)


def time_table(figures: Figures) -> str:
    """Return start-up and the rest of every run."""

    def cell(kind: str, program: str) -> str:
        seconds = figures.seconds((kind, program))
        if seconds is None:
            return "-"
        startup = figures.startup_seconds((kind, program))
        return f"{startup:.2f} + {max(0.0, seconds - startup):.2f}"

    return _by_kind(figures, "seconds: start-up + the rest", figures.programs, cell)


def cpu_table(figures: Figures) -> str:
    """Return the CPU time of a record."""
    return _by_kind(
        figures,
        "CPU microseconds a record",
        figures.programs,
        lambda kind, name: shown(figures.cpu_microseconds((kind, name))),
    )


def memory_table(figures: Figures) -> str:
    """Return the peak memory of every program."""
    how = figures.memory_kinds() or "not measured here"
    return _by_kind(
        figures,
        f"peak memory, MB ({how})",
        figures.programs,
        lambda kind, name: shown(figures.peak_megabytes((kind, name))),
    )


def input_table(figures: Figures, about: Mapping[str, str]) -> str:
    """Return what was read: records, of the slower programs too, and bytes of a record."""
    rows = []
    for kind in figures.kinds:
        sizes = {r.records: r.input_bytes for r in figures.runs if r.kind == kind}
        counts = sorted((count for count in sizes if count > 1), reverse=True)
        if not counts:
            continue
        rows.append(
            [
                kind,
                about.get(kind, ""),
                " or ".join(f"{count:,}" for count in counts),
                f"{sizes[counts[0]] / counts[0]:,.0f}",
            ]
        )
    head = ["input", "what is in it", "records", "bytes a record"]
    return table(head, rows).replace("| --- | ---: |", "| --- | --- |", 1)


def tables(figures: Figures, base: str, about: Mapping[str, str]) -> str:
    """Return all tables."""
    parts = [rate_table(figures)]
    if base in figures.programs and len(figures.programs) > 1:
        parts.append(ratio_table(figures, base))
    parts += [time_table(figures), cpu_table(figures), memory_table(figures)]
    parts.append(input_table(figures, about))
    return "\n\n".join(parts)


def with_section(document: str, section: str) -> str:
    """Return a document with what stands between its marks replaced.

    Raises:
        ValueError: It has no such marks.
    """
    pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if len(pattern.findall(document)) != 1:
        raise ValueError(f"The document needs one `{_BEGIN}` and one `{_END}` behind it.")
    return pattern.sub(lambda _: f"{_BEGIN}\n{section.strip()}\n{_END}", document)
