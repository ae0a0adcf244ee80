"""The report of ``growth.py``: how each figure grows, in words, a table and a plot with two logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.network_plots import LEFT, RIGHT, WIDTH, _head
from benchmarks.network_report import Section

COLOURS = ("#2f9e6b", "#3b82c4", "#d9a441", "#b4508c", "#8a8f98")
FLAT = 1.3  # times the least figure: what this machine's noise may do to one that does not grow
TALL = 220


def growth(figures: Mapping[str, float]) -> float:
    """The largest figure divided by the first."""
    values = list(figures.values())
    return max(values) / values[0] if values and values[0] > 0 else float("nan")


def exponent(figures: Mapping[str, float]) -> float:
    """The power of n by which a figure grows: the slope of a straight line through its logarithms (least squares)."""
    points = [(math.log(float(n)), math.log(value)) for n, value in figures.items() if value > 0]
    if len(points) < 2:
        return 0.0
    x, y = (sum(column) / len(points) for column in zip(*points, strict=True))
    below = sum((one - x) ** 2 for one, _ in points)
    return sum((one - x) * (other - y) for one, other in points) / below if below else 0.0


def verdicts(parts: Mapping[str, Any]) -> list[list[str]]:
    """A row for each figure: how it grows, and how it may."""
    rows = []
    for name, part in parts.items():
        for figure, values in part["figures"].items():
            flat = figure in part["flat"]
            met = growth(values) <= FLAT if flat else exponent(values) <= 1.1
            n = list(values)
            rows.append(
                [
                    f"{name}: {figure}",
                    f"{n[0]} to {n[-1]}",
                    f"× {growth(values):.2f}",
                    f"n^{exponent(values):.2f}",
                    f"flat (× {FLAT})" if flat else "linear at most",
                    "yes" if met else "**no**",
                ]
            )
    return rows


def sections(report: Mapping[str, Any]) -> list[Section]:
    machine = report["machine"]
    first = Section(
        "Cost as work grows",
        [
            f"{report['date']}: {machine['processor']}, {machine['processors']} processors, Linux {machine['kernel']}, "
            f"Python {machine['python']}; load average {machine['load']:.1f} at the start. One worker on one "
            "processor, the load on another, everything on loopback; the sizes of one kind are measured in turns, and "
            "each figure is the least of its rounds. Processor time is the service's process tree's.",
            f"Flat: the largest figure is at most {FLAT} times the first; nothing else may grow faster than linearly.",
        ],
    )
    head = ["what", "n", "largest / first", "grows like", "may be", "met"]
    found = [first, Section("How everything grows", table=[head, *verdicts(report["parts"])])]
    for name, part in report["parts"].items():
        figures = part["figures"]
        sizes = list(next(iter(figures.values())))
        table = [[part["n"], *figures]]
        table += [[size, *(f"{values[size]:.4g}" for values in figures.values())] for size in sizes]
        plots = [loglog(f"{name}: {figure}", {figure: values}, part["n"]) for figure, values in figures.items()]
        found.append(Section(name, [part["text"]], table, plots))
    return found


def loglog(title: str, values: Mapping[str, Mapping[str, float]], below: str) -> str:
    """A line for each name through its points (n as text → value)."""
    points = {name: [(float(n), v) for n, v in some.items() if v > 0] for name, some in values.items()}
    every = [point for some in points.values() for point in some]
    if not every:
        return ""
    x0, x1 = _powers([n for n, _ in every])
    y0, y1 = _powers([value for _, value in every])
    span, height = WIDTH - LEFT - RIGHT, TALL + 90

    def at(n: float, value: float) -> tuple[float, float]:
        x = LEFT + span * (math.log10(n) - x0) / (x1 - x0)
        return x, 30 + TALL * (1 - (math.log10(value) - y0) / (y1 - y0))

    parts = [_head(title, height)]
    for power in range(y0, y1 + 1):
        _, y = at(10.0**x0, 10.0**power)
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + span}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for power in range(x0, x1 + 1):
        x, _ = at(10.0**power, 10.0**y0)
        parts.append(f'<text x="{x:.1f}" y="{TALL + 48}" text-anchor="middle">{10.0**power:g}</text>')
    parts.append(f'<text x="{LEFT + span / 2:.0f}" y="{TALL + 68}" text-anchor="middle">{escape(below)}</text>')
    for number, some in enumerate(points.values()):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(n, value) for n, value in some]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot"/>' for x, y in places]
    return "".join([*parts, "</svg>"])


def _powers(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around the values, at least one apart."""
    low = math.floor(math.log10(min(values)))
    return low, max(low + 1, math.ceil(math.log10(max(values))))
