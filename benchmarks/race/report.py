"""The race's report: Markdown for people who read text, HTML with plots for the others."""

from __future__ import annotations

from typing import Any

from benchmarks import network_plots
from benchmarks.network_report import Section, as_html, as_markdown
from benchmarks.race import figures as judged
from benchmarks.race.cases import BY_NAME as CASES
from benchmarks.race.cases import STOLEN, TRIES
from benchmarks.race.contestants import BY_NAME, OURS, PEERS

Report = dict[str, Any]
TITLE = "The race: cached files, one processor each"


def markdown(report: Report) -> str:
    return as_markdown(sections(report))


def html(report: Report) -> str:
    return as_html(TITLE, sections(report))


def sections(report: Report) -> list[Section]:
    found = [Section(TITLE, _about(report)), Section("Who ran", table=_who(report))]
    if report["goals"]:
        head = ["case", "goal", "against", "measured", "met"]
        lines = [
            [one["case"], one["goal"], one["against"], f"{one['measured']:.2f}", "yes" if one["met"] else "no"]
            for one in report["goals"]
        ]
        found.append(Section("What must be shown", table=[head, *lines]))
    if len(glance := _glance(report)) > 1:
        text = "µs of the server's processor for a request; 1m and 1g: seconds for a GiB. Each at its best."
        found.append(Section("At a glance", [text], glance))
    for case, people in report["medians"].items():
        found.append(Section(CASES[case].title, _notes(people), _table(report, case, people), _plots(report, case)))
    if instructions := report.get("instructions"):
        head = ["path", "instructions"]
        lines = [[path, f"{number:,}"] for path, number in instructions.items()]
        text = "User-space instructions of one walk, by callgrind (`python -m benchmarks.instructions`); no kernel."
        found.append(Section("Instructions", [text], [head, *lines]))
    return found


def _about(report: Report) -> list[str]:
    machine, run = report["machine"], report["run"]
    return [
        f"{report['date']}: {machine['processor']}, {machine['processors']} processors, Linux {machine['kernel']}, "
        f"Python {machine['python']}; load average {machine['load_at_start']:.1f} at the start, "
        f"{report['load_at_end']:.1f} at the end. {run['rounds']} interleaved rounds of {run['seconds']:g} s; medians. "
        f"The run took {report['took_s'] / 60:.0f} minutes.",
        "Every server on processor 0, one at a time; the load on processor 1. CPU is that of the whole process tree. "
        "The origin is asked only to fill the caches: it counts, and a turn in which it was asked more than "
        "once in 10,000 hits is no result. FileProxy runs with its defaults and an access log; its peers write none. "
        "Of nginx's ways the one with the least CPU counts. Only ratios of one run mean something.",
        f"* at a rate: the load generator used {judged.BUSY:.0%} of its processor or more, so the server may be able "
        "to do better. CPU does not depend on that.",
        f"The machine's host gives time to others: a turn of which that took more than {STOLEN:.0%} is tried again, "
        f"{TRIES} times at most, and the one it took the least of counts. {_stolen(report)}",
        "*Both ends*: the same cost with the load generator's. On loopback, what an acknowledgement lets go is sent at "
        "the client's cost, so of large bodies the server's share falls with the client's receive window."
        + (f" Here these begin at {run['window']} bytes for all." if run.get("window") else ""),
    ]


def _stolen(report: Report) -> str:
    rows = report["rows"]
    again, loud = sum(row["tries"] > 1 for row in rows), sum(row["stolen"] > STOLEN for row in rows)
    return f"Of {len(rows)} turns {again} were tried again, and {loud} stayed above that."


def _who(report: Report) -> list[list[str]]:
    lines = [["", "version", "how", "peak RSS MiB"]]
    for name, one in report["contestants"].items():
        memory = f"{one['peak_rss_mib']:.0f}" if "peak_rss_mib" in one else "–"
        lines.append([name, one.get("version", "–"), one.get("missing") or BY_NAME[name].how, memory])
    return lines


def _glance(report: Report) -> list[list[str]]:
    """For the README: a row for us and for each peer, a column for each case that several were in."""
    medians = {case: people for case, people in report["medians"].items() if judged.bests(people)}
    lines = [["", *medians]]
    for who in (OURS, *PEERS):
        cells = []
        for case, people in medians.items():
            figure = "cpu_s_per_gib" if CASES[case].per_byte else "cpu_us"
            told = {peer: judged.best(people, peer) for peer in PEERS} | {OURS: OURS if OURS in people else None}
            values = {peer: people[name][figure] for peer, name in told.items() if name is not None}
            cells.append(f"{values[who]:.{2 if CASES[case].per_byte else 1}f}" if who in values else "–")
        if any(cell != "–" for cell in cells):
            lines.append([who, *cells])
    return lines


def _notes(people: dict[str, Any]) -> list[str]:
    busy = [name for name, one in people.items() if one["client_busy"] >= judged.BUSY]
    return [f"The load generator was the limit, or near it, with {', '.join(busy)}."] if busy else []


def _table(report: Report, case: str, people: dict[str, Any]) -> list[list[str]]:
    per_byte = CASES[case].per_byte
    cost = "CPU s/GiB" if per_byte else "CPU µs"
    rate, digits = ("MiB/s", 3) if per_byte else ("requests/s", 2)
    lines = [["", cost, f"{OURS} / it (95 %)", "both ends", rate, "p50 ms", "p99 ms", "load generator"]]
    for name in sorted(people, key=lambda name: float(people[name]["cpu_us"])):
        one = people[name]
        mark = "*" if one["client_busy"] >= judged.BUSY else ""
        mine = one["cpu_s_per_gib"] if per_byte else one["cpu_us"]
        both = mine * (1 + one["client_busy"] / one["server_busy"])
        lines.append(
            [
                name,
                f"{mine:.{digits}f}",
                _against(report["rows"], case, name) if name != OURS and OURS in people else "",
                f"{both:.{digits}f}",
                f"{one['mib_per_s' if per_byte else 'requests_per_s']:,.0f}{mark}",
                *(f"{one[key]:.2f}" if one[key] is not None else "–" for key in ("p50_ms", "p99_ms")),
                f"{one['client_busy']:.0%}",
            ]
        )
    return lines


def _against(rows: list[Any], case: str, name: str) -> str:
    ratio = judged.paired(rows, case, OURS, name, "cpu_us")
    interval = ratio["interval"]
    spread = "" if interval is None else f" ({interval[0]:.2f}–{interval[1]:.2f})"
    return f"{ratio['mean']:.2f}{spread}"


def _plots(report: Report, case: str) -> list[str]:
    per_byte = CASES[case].per_byte

    def of(figure: str) -> dict[str, list[float]]:
        order = sorted(report["medians"][case], key=lambda name: float(report["medians"][case][name]["cpu_us"]))
        values: dict[str, list[float]] = {name: [] for name in order}
        for row in report["rows"]:
            if row["case"] == case and row[figure] is not None:
                values[row["contestant"]].append(row[figure])
        return values

    cost, unit = ("cpu_s_per_gib", "s/GiB") if per_byte else ("cpu_us", "µs")
    rate, times = ("mib_per_s", "MiB/s") if per_byte else ("requests_per_s", "/s")
    plots = [
        network_plots.bars("Processor time (less is better)", unit, of(cost)),
        network_plots.bars("Rate", times, of(rate)),
        network_plots.bars("p99", "ms", of("p99_ms")),
    ]
    return [plot for plot in plots if plot]
