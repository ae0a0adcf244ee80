"""Plots of the network report: SVG in text, without a library, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = {
    "direct": "#8a8f98",
    "nginx": "#3b82c4",
    "nginx-slice": "#7db3dd",
    "fileproxy-baseline": "#d9a441",
    "fileproxy": "#2f9e6b",
}
OTHER = "#888888"
WIDTH, LEFT, RIGHT, ROW = 760, 150, 90, 30


def bars(title: str, unit: str, values: Mapping[str, Sequence[float]], line: float | None = None) -> str:
    """A bar from 0 to the median of each name's values, a dot for each value. ``line``: a limit to draw."""
    kept = {name: [v for v in some if math.isfinite(v)] for name, some in values.items()}
    kept = {name: some for name, some in kept.items() if some}
    if not kept:
        return ""
    top = max(*(max(some) for some in kept.values()), line or 0.0) or 1.0
    span = WIDTH - LEFT - RIGHT
    height = ROW * len(kept) + 40
    parts = [_head(title, height)]
    if line is not None:
        x = LEFT + span * line / top
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="26" y2="{height - 12}" class="limit"/>')
    for number, (name, some) in enumerate(kept.items()):
        y = 30 + ROW * number
        middle = sorted(some)[len(some) // 2]
        colour = COLOURS.get(name, OTHER)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        width = span * middle / top
        parts.append(f'<rect x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="{ROW - 12}" fill="{colour}"/>')
        parts += [f'<circle cx="{LEFT + span * v / top:.1f}" cy="{y + 12}" r="3" class="dot"/>' for v in some]
        at = LEFT + span * max(some) / top + 8
        parts.append(f'<text x="{at:.1f}" y="{y + 16}">{middle:.3g} {escape(unit)}</text>')
    return "".join([*parts, "</svg>"])


def curves(title: str, unit: str, values: Mapping[str, Mapping[str, float]]) -> str:
    """For each name the value at each percentile, on a logarithmic axis."""
    points = {
        name: [(float(percent), value) for percent, value in some.items() if value > 0 and math.isfinite(value)]
        for name, some in values.items()
    }
    every = [value for some in points.values() for _, value in some]
    if not every:
        return ""
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)
    span, tall, height = WIDTH - LEFT - RIGHT, 240, 320
    parts = [_head(title, height)]

    def at(percent: float, value: float) -> str:
        return f"{LEFT + span * percent / 100:.1f},{30 + tall * (1 - (math.log10(value) - low) / (high - low)):.1f}"

    for power in range(low, high + 1):
        y = 30 + tall * (1 - (power - low) / (high - low))
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + span}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} {escape(unit)}</text>')
    for percent in (0, 25, 50, 75, 95, 100):
        x = LEFT + span * percent / 100
        parts.append(f'<text x="{x:.1f}" y="{tall + 48}" text-anchor="middle">p{percent}</text>')
    for number, (name, some) in enumerate(points.items()):
        colour = COLOURS.get(name, OTHER)
        line = " ".join(at(percent, value) for percent, value in some)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x = LEFT + 125 * number
        parts.append(f'<rect x="{x}" y="{tall + 60}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{tall + 69}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def _head(title: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><text x="0" y="16" class="title">{escape(title)}</text>'
    )
