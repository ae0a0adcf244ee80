"""The report of the network benchmark: one list of sections, written as Markdown and as HTML with plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from benchmarks import network_plots
from benchmarks.network_figures import case
from benchmarks.network_lab import Plan

Report = dict[str, Any]


@dataclass
class Section:
    """A heading, sentences, a table (its first row is the head) and plots."""

    title: str
    text: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)


def name(plan: Plan) -> str:
    """File name of the results, without its ending: one for each cell of the matrix."""
    return f"network-{plan.mode}-{plan.scenario}-{plan.direction}-{plan.congestion}"


def sections(report: Report, plan: Plan) -> list[Section]:
    first = Section(_title(plan), _about(report, plan))
    found = [first]
    for key, people in report["figures"].items():
        table = _single_table(people) if plan.mode == "single" else _crowd_table(people)
        found.append(Section(_case_title(plan, key), table=table, plots=_plots(report, plan, key)))
        pairs = report["ratios"].get(key, {})
        if pairs:
            head = ["speed", "times as fast", "95 % interval", "rounds"]
            lines = [[pair, _number(one["mean"]), _interval(one), str(one["rounds"])] for pair, one in pairs.items()]
            found.append(Section(f"{key}: paired rounds", table=[head, *lines]))
        if rows := report["expected"].get(key):
            head = ["fileproxy / fileproxy-baseline", "expected", "measured", "met"]
            lines = [
                [one["figure"], f"× {one['expected']:.2f}", f"× {one['measured']:.2f}", _met(one["met"])]
                for one in rows
            ]
            found.append(Section("Against the table that was expected", table=[head, *lines]))
    if report["goals"]:
        head = ["goal", "measured", "met"]
        lines = [[one["goal"], _number(one["measured"]), _met(one["met"])] for one in report["goals"]]
        found.insert(1, Section("What must be shown here", table=[head, *lines]))
    links = report["links"]
    text = (
        f"{links['packets']} packets; {links['lost']} lost by chance ({links['loss']:.2%}), {links['dropped']} at full "
        f"queues. The emulator carried them {links['late_ms']:.2f} ms later than due, "
        f"{links['worst_late_ms']:.2f} ms in the worst turn: what a busy machine adds."
    )
    pressed = (
        [
            f"{links['pressed']} of {len(report['rows'])} turns ran while the machine was short of memory for TCP "
            "(tcp_mem), which something beside this benchmark used: they are slower than their links."
        ]
        if links["pressed"]
        else []
    )
    found.append(Section("The links", [text, *pressed]))
    return found


def markdown(report: Report, plan: Plan) -> str:
    return as_markdown(sections(report, plan))


def html(report: Report, plan: Plan) -> str:
    return as_html(_title(plan), sections(report, plan))


def as_markdown(parts: Sequence[Section]) -> str:
    """Sections as Markdown; the first one's heading is the document's."""
    lines: list[str] = []
    for depth, section in enumerate(parts):
        lines += [f"{'##' if depth else '#'} {section.title}", "", *(f"{text}\n" for text in section.text)]
        if section.table:
            head, *rows = section.table
            lines += [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows), ""]
    return "\n".join(lines)


def as_html(title: str, found: Sequence[Section]) -> str:
    """Sections as a page, with their plots."""
    parts = []
    for depth, section in enumerate(found):
        tag = "h2" if depth else "h1"
        parts.append(f"<{tag}>{escape(section.title)}</{tag}>")
        parts += [f"<p>{escape(text)}</p>" for text in section.text]
        if section.table:
            head, *rows = section.table
            parts.append("<table><thead>" + _cells(head, "th") + "</thead><tbody>")
            parts += [_cells(row, "td") for row in rows]
            parts.append("</tbody></table>")
        parts += section.plots
    return _PAGE.format(title=escape(title), body="\n".join(parts))


def _title(plan: Plan) -> str:
    what = {
        "single": "One client alone",
        "crowd": f"{plan.clients} clients",
        "parallel": f"{plan.clients} downloads at once",
    }[plan.mode]
    side = "the origin" if plan.direction == "origin" else "the client"
    return f"{what}, {plan.network.name} network towards {side}, senders with {plan.congestion.upper()}"


def _about(report: Report, plan: Plan) -> list[str]:
    machine, shape = report["machine"], plan.network.shape
    how = {
        "single": "each contestant downloads the file at the same moment as the others, behind a link of its own"
        if plan.together
        else "one contestant after the other",
        "crowd": f"one contestant after the other, {plan.seconds:g} s each: {plan.clients} clients loop over "
        f"{plan.files} files of 16 KiB to 4 MiB, Zipf {plan.zipf:g}, from a cold start"
        + (f", behind {plan.groups} links" if plan.direction == "client" else ""),
        "parallel": f"one contestant after the other: {plan.clients} cold files at once",
    }[plan.mode]
    cached = " The file is in the proxies' caches." if plan.mode == "single" and plan.direction == "client" else ""
    known = " It had fetched one small file." if plan.known and plan.mode != "crowd" else ""
    if plan.mode == "single" and not plan.known:
        known = " The mirror is unknown to it."
    return [
        f"{report['date']}: {machine['processor']}, {machine['processors']} processors, Linux {machine['kernel']}, "
        f"Python {machine['python']}, nginx {machine['nginx']}, FileProxy {report['commit']}; load average "
        f"{machine['load_at_start']:.1f} at the start.",
        f"The link: {plan.network.sentence}; queue {shape.queue_kib} KiB, packets of {shape.mtu} bytes"
        f"{' (offloaded)' if shape.offload else ''}. {plan.rounds} rounds; {how}. Every proxy is started anew for its "
        f"turn, with an empty cache.{known}{cached}",
        "A share of the link is the file's bytes against the rate of whole packets: headers take 4 %. ≥: some "
        f"download was cut at {plan.limit_s:g} s. CPU and memory are the proxy's process tree; memory is the sum of "
        "each process's peak. Only ratios of one run mean something.",
    ]


def _case_title(plan: Plan, key: str) -> str:
    return {"single": key, "crowd": "The crowd", "parallel": f"{plan.clients} × {key}"}[plan.mode]


def _single_table(people: Report) -> list[list[str]]:
    head = ["", "seconds (median)", "fastest to slowest", "first byte s", "Mbit/s", "of the link", "complete"]
    lines = [[*head, "CPU s/GiB", "peak RSS MiB"]]
    for who, one in people.items():
        cut = "≥ " if one["complete"] < one["rounds"] else ""
        lines.append(
            [
                who,
                f"{cut}{one['seconds']:.2f}",
                f"{one['fastest_s']:.2f}–{one['slowest_s']:.2f}",
                f"{one['first_byte_s']:.2f}",
                f"{one['mbit_per_s']:.2f}",
                f"{one['share']:.0%}",
                f"{one['complete']} of {one['rounds']}" + "".join(f"; {why}" for why in one["errors"]),
                *_costs(one),
            ]
        )
    return lines


def _crowd_table(people: Report) -> list[list[str]]:
    head = ["", "requests/s", "p50 ms", "p95 ms", "p99 ms", "Mbit/s", "hits", "errors", "CPU s/GiB", "peak RSS MiB"]
    lines = [head]
    for who, one in people.items():
        errors = ", ".join(f"{why} {count}" for why, count in one["errors"].items()) or "none"
        figures = [f"{one['requests_per_s']:.2f}", *(f"{one[key]:.0f}" for key in ("p50_ms", "p95_ms", "p99_ms"))]
        lines.append([who, *figures, f"{one['mbit_per_s']:.1f}", f"{one['hit_ratio']:.0%}", errors, *_costs(one)])
    return lines


def _costs(one: Report) -> list[str]:
    if "cpu_s_per_gib" not in one:
        return ["–", "–"]
    return [f"{one['cpu_s_per_gib']:.2f}", f"{one['peak_rss_mib']:.0f}"]


def _plots(report: Report, plan: Plan, key: str) -> list[str]:
    rows = [row for row in report["rows"] if case(row) == key]

    def of(value: Callable[[Report], float]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in rows:
            found.setdefault(row["contestant"], []).append(value(row))
        return {who: found[who] for who in plan.contestants if who in found}

    people = report["figures"][key]
    plots = []
    if plan.mode == "single":
        plots.append(network_plots.bars("Seconds (less is better)", "s", of(lambda row: row["seconds"])))
    else:
        plots.append(
            network_plots.curves(
                "Time of a download", "ms", {who: one["percentiles_ms"] for who, one in people.items()}
            )
        )
    if plan.mode == "crowd":
        plots.append(network_plots.bars("Requests per second", "/s", of(lambda row: row["count"] / row["seconds"])))
    speed = of(lambda row: row["bytes"] * 8e-6 / row["seconds"])
    limit = None if plan.mode == "crowd" else plan.network.shape.mbit
    plots.append(network_plots.bars("Throughput; the line is the link's rate", "Mbit/s", speed, limit))
    for figure, title, unit in (
        ("cpu_s_per_gib", "Processor seconds for each GiB delivered", "s"),
        ("peak_rss_mib", "Peak memory", "MiB"),
    ):
        plots.append(
            network_plots.bars(title, unit, {who: [one[figure]] for who, one in people.items() if figure in one})
        )
    return [plot for plot in plots if plot]


def _number(value: float) -> str:
    return f"{value:.2f}"


def _interval(one: Report) -> str:
    return "–" if one["interval"] is None else f"{one['interval'][0]:.2f} to {one['interval'][1]:.2f}"


def _met(met: bool | None) -> str:
    return {True: "yes", False: "no", None: "too few rounds"}[met]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ border-bottom: 1px solid #8886; padding: .25rem .75rem; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
svg {{ max-width: 100%; height: auto; display: block; margin: 1rem 0; }}
svg text {{ font: 12px system-ui, sans-serif; fill: currentColor; }}
svg text.title {{ font-weight: 600; font-size: 14px; }}
.grid {{ stroke: #8884; }}
.limit {{ stroke: #c0392b; stroke-dasharray: 4 3; }}
.dot {{ fill: none; stroke: currentColor; stroke-width: 1.2; }}
</style>
{body}
</html>
"""
