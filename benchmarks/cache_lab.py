"""What the benchmarks of the cache share: a service in a folder of its own beside an origin, and where results go."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cache_origin import OriginProcess
from fileproxy.fill.owners import LOOK_EVERY_S
from fileproxy.observe.slots import Slots
from tests.service import Service, merged

RESULTS = Path(__file__).parent / "results"
Figures = dict[str, Any]


@contextlib.contextmanager
def lab(settings: Mapping[str, Any], **options: Any) -> Iterator[tuple[Service, OriginProcess]]:
    """A running service whose only upstream is a counting origin; both are ended, the folder is removed."""
    folder = Path(tempfile.mkdtemp(prefix="fpc"))
    with OriginProcess() as origin:
        one = Service(merged({"upstreams": {"files": origin.url}}, settings), folder, **options)
        try:
            one.start()
            know_each_other(one)
            yield one, origin
        finally:
            one.stop()
            shutil.rmtree(folder, ignore_errors=True)


def know_each_other(service: Service) -> None:
    """Wait until every worker knows all owners: until then two may take themselves for the owner of a key."""
    wanted = service.settings["server"]["workers"]
    if wanted > 1 and service.settings["cache"]["disk"] != "off":
        slots = Slots(service.folder / "run" / "owners")
        until(lambda: len(slots.held()) == wanted, "all workers")
        time.sleep(LOOK_EVERY_S)


def until(condition: Callable[[], Any], what: str, within_s: float = 15.0) -> Any:
    """The first true value of ``condition``. AssertionError naming ``what`` when it does not come."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)
    return found


def counters(service: Service) -> dict[str, int]:
    """The sums over all workers."""
    found: dict[str, int] = service.json("/stats")["counters"]
    return found


def settled(service: Service) -> None:
    """Wait until this worker has written what it was given, and nothing is being fetched."""

    def quiet() -> bool:
        parts = service.json("/stats")
        return not parts["cache"]["pending_bytes"] and not parts["counters"]["flight.running"]

    until(quiet, "a quiet store")


def write(name: str, figures: Figures) -> None:
    """Note what one subcommand measured, and lay the table out anew."""
    path = RESULTS / "cache.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    everything[name] = {"measured": when, "cores": os.cpu_count(), "python": platform.python_version(), **figures}
    path.write_text(json.dumps(everything, indent=1) + "\n")
    (RESULTS / "cache.md").write_text(table(everything))
    print(json.dumps(everything[name], indent=1))


def table(everything: Mapping[str, Mapping[str, Any]]) -> str:
    """All that was measured as Markdown."""
    lines = [
        "# The block cache: what it shows",
        "",
        "Made by `python -m benchmarks.cache`; every figure is of the last run of its subcommand, in `cache.json`.",
        "The machine is shared and noisy: counts and ratios of one run mean something, seconds little.",
        "",
    ]
    for name, figures in everything.items():
        goals = figures.get("goals", {})
        lines += [f"## {name} ({figures['measured']}, {figures['cores']} cores)", ""]
        lines += ["| goal | figure | met |", "|---|---|---|"]
        lines += [f"| {goal} | {one['figure']} | {'yes' if one['met'] else '**no**'} |" for goal, one in goals.items()]
        lines += ["", "| also measured | |", "|---|---|"]
        hidden = ("goals", "measured", "cores", "python")
        lines += [f"| {key} | {value} |" for key, value in figures.items() if key not in hidden]
        lines.append("")
    return "\n".join(lines)


def goal(figure: object, *, met: bool) -> dict[str, object]:
    """One line of what must be shown."""
    return {"figure": figure, "met": met}
