"""A bar chart of rates as SVG: by kind of input and program, on a logarithmic scale.

Hides the drawing. Guarantees: no fonts, scripts or colours from elsewhere; readable on light and
dark pages, by whichever the reader has chosen. Must not know: where rates come from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.figures import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABELS = 190
_PLOT = 520
_VALUES = 70
_WIDTH = _LABELS + _PLOT + _VALUES
_TOP = 64
_BAR = 14
_GAP = 4
_PANEL_HEAD = 26
_PANEL_GAP = 16
_BOTTOM = 30

_STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .kind { font-weight: 600; }
  .quiet { fill: #57606a; }
  .page { fill: #ffffff; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .bar { fill: #8c959f; }
  .ours { fill: #0969da; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .page { fill: #0d1117; }
    .grid { stroke: #30363d; }
    .bar { fill: #6e7681; }
    .ours { fill: #58a6ff; }
  }
"""


def decades(values: list[float]) -> tuple[int, int]:
    """Return the powers of ten that enclose all values, at least one decade."""
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def picture(rates: Mapping[str, Mapping[str, float]], ours: str) -> str:
    """Draw the chart.

    Args:
        rates: Records a second, by kind and program.
        ours: Programs whose names begin so are highlighted.

    Raises:
        ValueError: There is nothing to draw.
    """
    thousands = {
        kind: {name: rate / 1000 for name, rate in by_program.items() if rate > 0}
        for kind, by_program in rates.items()
    }
    thousands = {kind: found for kind, found in thousands.items() if found}
    if not thousands:
        raise ValueError("There is no rate to draw.")
    low, high = decades([value for found in thousands.values() for value in found.values()])

    def x(value: float) -> float:
        return _LABELS + (math.log10(value) - low) / (high - low) * _PLOT

    panels: list[str] = []
    y = _TOP
    for kind, found in thousands.items():
        panels.append(_text(_LABELS, y + 14, kind, "kind"))
        y += _PANEL_HEAD
        for name, value in found.items():
            middle = y + _BAR - 3
            style = "ours" if name.startswith(ours) else "bar"
            panels += [
                _text(_LABELS - 8, middle, name, "quiet", anchor="end"),
                _bar(style, y, x(value) - _LABELS),
                _text(x(value) + 6, middle, shown(value)),
            ]
            y += _BAR + _GAP
        y += _PANEL_GAP
    grid = []
    for power in range(low, high + 1):
        at = x(10.0**power)
        label = f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
        grid += [
            f'<line class="grid" x1="{at:.1f}" y1="{_TOP - 6}" x2="{at:.1f}" y2="{y}"/>',
            _text(at, y + 18, label, "quiet", anchor="middle"),
        ]
    height = y + _BOTTOM
    title = "Thousand records a second, net of start-up"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
        f' width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        _text(16, 26, title, "title"),
        _text(16, 46, "Logarithmic scale: each line is ten times the one before it.", "quiet"),
    ]
    return "\n".join([*head, *grid, *panels, "</svg>\n"])


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _bar(style: str, y: float, width: float) -> str:
    shape = f'y="{y}" width="{max(1.0, width):.1f}" height="{_BAR}" rx="2"'
    return f'<rect class="{style}" x="{_LABELS}" {shape}/>'
