"""What came of a load, for people: text, Markdown, HTML. The JSON is the report itself.

A report is ``{"kind": "load" | "stress", "title", "when", "plan": {…}, "figures": {…}, "steps": […], "notes": […],
"service": {…} | None}``; ``figures`` are those of ``Result.figures``, a stress has one of them in each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Report = Mapping[str, Any]
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, columns, rows

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "th,td{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
    "th:first-child,td:first-child{text-align:left}.note{background:#fff4d6;padding:.4rem .8rem}"
)


def tables(report: Report) -> list[Table]:
    """The report as tables of text."""
    found: list[Table] = []
    if steps := report.get("steps"):
        rows = [
            [
                f"{step['clients']:,}",
                f"{step['figures']['good_per_s']:,.1f}",
                f"{step['figures']['megabytes_per_s']:,.2f}",
                *(_ms(step["figures"]["whole_ms"][name]) for name in ("p50", "p95", "p99")),
                f"{step['figures']['error_share']:.2%}",
                f"{step['figures']['generator_cpu']:.0%}",
                step["what"],
            ]
            for step in steps
        ]
        columns = ("clients", "good/s", "MB/s", "p50 ms", "p95 ms", "p99 ms", "errors", "generator", "")
        found.append(("Steps", columns, rows))
    if figures := report.get("figures"):
        found += _of_figures(figures)
    if service := report.get("service"):
        rows = [[name, f"{value:,}"] for name, value in _flat(service)]
        found.append(("The service counted", ("counter", "grew by"), rows))
    return found


def _of_figures(figures: Mapping[str, Any]) -> list[Table]:
    rows = [
        ["requests", f"{figures['requests']:,}"],
        ["requests/s", f"{figures['requests_per_s']:,.1f}"],
        ["MB/s", f"{figures['megabytes_per_s']:,.2f}"],
        ["errors", f"{figures['errors']:,} ({figures['error_share']:.2%})"],
        ["connections opened", f"{figures['connections_opened']:,}"],
        ["time", f"{figures['seconds']:.1f} s"],
        ["generator's processor", f"{figures['generator_cpu']:.0%}"],
    ]
    for name, text in (
        ("unfinished", "under way at the end"),
        ("unsent", "due, not sent before the end"),
        ("changed_while_loaded", "files that changed meanwhile"),
    ):
        if figures[name]:
            rows.append([text, f"{figures[name]:,}"])
    times = [
        [name, *(_ms(figures[key][column]) for column in ("p50", "p95", "p99", "max"))]
        for name, key in (("first byte", "first_byte_ms"), ("whole", "whole_ms"))
    ]
    found: list[Table] = [("Figures", ("", ""), rows), ("Times, ms", ("", "p50", "p95", "p99", "max"), times)]
    if figures["statuses"]:
        found.append(("Statuses", ("status", "answers"), [[k, f"{v:,}"] for k, v in figures["statuses"].items()]))
    if figures["errors_by_kind"]:
        found.append(("Errors", ("kind", "requests"), [[k, f"{v:,}"] for k, v in figures["errors_by_kind"].items()]))
    return found


def text(report: Report) -> str:
    """For a terminal."""
    lines = [report["title"], ""]
    for title, columns, rows in tables(report):
        cells = [list(columns), *map(list, rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
        lines.append(title)
        for row in cells if any(columns) else cells[1:]:
            shown = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            lines.append(f"  {'  '.join(shown)}".rstrip())
        lines.append("")
    lines += [f"! {note}" for note in report["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def markdown(report: Report) -> str:
    """For a repository."""
    lines = [f"# {report['title']}", "", f"{report['when']}; {_plan(report)}.", ""]
    for title, columns, rows in tables(report):
        lines += [f"## {title}", "", f"| {' | '.join(map(_bar, columns))} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(map(_bar, row))} |" for row in rows]
        lines.append("")
    lines += [f"**Note:** {_bar(note)}\n" for note in report["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def html(report: Report) -> str:
    """One page that needs nothing else."""
    parts = [f"<h1>{escape(report['title'])}</h1>", f"<p>{escape(report['when'])}; {escape(_plan(report))}.</p>"]
    parts += [f'<p class="note">{escape(note)}</p>' for note in report["notes"]]
    for title, columns, rows in tables(report):
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{''.join(f'<th>{escape(c)}</th>' for c in columns)}</tr>")
        parts += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
        parts.append("</table>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(report["title"])}</title>'
        f"<style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def _plan(report: Report) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report["plan"].items() if value is not None)


def _flat(counters: Mapping[str, Any], above: str = "") -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for name, value in counters.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{above}{name}.")
        else:
            found.append((f"{above}{name}", value))
    return found


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def _bar(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
