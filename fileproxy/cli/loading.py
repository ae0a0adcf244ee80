"""What ``fileproxy bench load`` and ``bench stress`` do: read the wish, run it, show how far it is, report."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from fileproxy.cli import Failed

if TYPE_CHECKING:
    from fileproxy.bench.hosts import Target
    from fileproxy.bench.ladder import Limits, Step
    from fileproxy.bench.plan import Plan
    from fileproxy.bench.run import Result, Watch

FORMATS = (".json", ".md", ".html")
_SPARE_DESCRIPTORS = 64
_OTHER_BYTES = "other bytes than before"
_TELL = ("requests", "errors", "bytes", "endings")  # of /stats


@dataclass(frozen=True)
class Wish:
    """What was typed; ``bench.py`` explains the options."""

    urls: list[str] | None
    url_list: str | None
    zipf: float | None
    ranges: float
    range_size: str
    keep_alive: bool
    slow: float
    slow_rate: str
    timeout: str
    headers: list[str] | None
    ca: str | None
    insecure: bool
    verify: bool
    max_errors: float
    seed: int
    output: Path | None
    mine: bool
    quiet: bool
    seconds: str
    clients: int = 16
    rate: float | None = None


def load(wish: Wish) -> None:
    """One load. Raises typer.Exit(1) when it went badly, BadParameter for what was typed wrong."""
    plan, targets = _understood(wish, wish.clients)
    tls = _tls(wish, targets)
    before = _service(targets)
    from fileproxy.cli.load_display import display

    with display(quiet=wish.quiet) as shown:
        result = _run(lambda stop: _one(wish, plan, targets, tls, stop, shown.watch(f"{plan.clients:,} clients")))
    figures = result.figures
    said = notes(figures)
    bad = result.interrupted or not figures["requests"] or figures["error_share"] > wish.max_errors
    different = result.tally.errors[_OTHER_BYTES]
    report = {
        **_header("load", f"Load: {plan.clients:,} clients, {_where(targets)}", plan, targets),
        "figures": figures,
        "service": _difference(before, _service(targets)),
        "notes": said,
    }
    _tell(report, wish.output)
    if bad or different:
        raise typer.Exit(1)


def stress(wish: Wish, *, first: int, most: int, max_p99: str, growth: float, recover: str) -> None:
    """Steps up to a limit, then back. Raises as ``load`` does."""
    from fileproxy.bench import ladder
    from fileproxy.cli.load_display import display
    from fileproxy.settings.units import parse_duration

    plan, targets = _understood(wish, most)
    try:
        limits = ladder.Limits(wish.max_errors, parse_duration(max_p99) * 1e3, growth, first, most)
        patience = parse_duration(recover)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    tls = _tls(wish, targets)
    before = _service(targets)

    with display(quiet=wish.quiet) as shown:

        async def one(clients: int, what: str, stop: asyncio.Event) -> Result:
            watch = shown.watch(f"{what} {clients:,} clients")
            return await _one(wish, replace(plan, clients=clients), targets, tls, stop, watch)

        climbed = _run(lambda stop: _climb(one, limits, patience, plan.seconds, stop))
    knee = ladder.knee([step for step, _ in climbed.steps], limits)
    notes = climbed.notes(knee)
    report = {
        **_header("stress", f"Stress: {first:,} to {most:,} clients, {_where(targets)}", plan, targets),
        "steps": climbed.told,
        "knee": None if knee is None else {"clients": knee.clients, "good_per_s": knee.per_s, "p99_ms": knee.p99_ms},
        "stopped": climbed.reason,
        "recovered": climbed.recovered,
        "interrupted": climbed.interrupted,
        "limits": asdict(limits),
        "service": _difference(before, _service(targets)),
        "notes": notes,
    }
    _tell(report, wish.output)
    if climbed.interrupted or knee is None or not climbed.recovered or climbed.different:
        raise typer.Exit(1)


# --- running ----------------------------------------------------------------------------------------------------------


@dataclass
class Climb:
    """What a stress came to."""

    steps: list[tuple[Step, Result]]
    back: list[tuple[Step, Result]]
    reason: str | None = None
    recovered: bool | None = None
    interrupted: bool = False

    @property
    def different(self) -> int:
        return sum(result.tally.errors[_OTHER_BYTES] for _, result in (*self.steps, *self.back))

    @property
    def told(self) -> list[dict[str, Any]]:
        rows = [(step, result, "") for step, result in self.steps] + [(*one, "again") for one in self.back]
        return [{"clients": step.clients, "what": what, "figures": result.figures} for step, result, what in rows]

    def notes(self, knee: Step | None) -> list[str]:
        from fileproxy.bench.ladder import SENTENCES

        said = []
        if self.reason is not None:
            said.append(f"Stopped at {self.steps[-1][0].clients:,} clients: {SENTENCES[self.reason]}.")  # type: ignore[index]
        if knee is not None:
            said.append(
                f"The knee: {knee.clients:,} clients, {knee.per_s:,.0f} good answers/s, p99 {knee.p99_ms:,.1f} ms."
            )
        elif not self.interrupted:
            said.append("No step went well.")
        if self.recovered is not None:
            said.append(
                "It recovered." if self.recovered else "It did not recover: the first load goes worse than before."
            )
        if self.different:
            said.append(f"{self.different:,} answers had other bytes than before for the same URL and validator.")
        if self.interrupted:
            said.append("Interrupted: the figures are of what was done until then.")
        return said


async def _climb(
    one: Callable[[int, str, asyncio.Event], Any], limits: Limits, patience: float, step_s: float, stop: asyncio.Event
) -> Climb:
    from fileproxy.bench import ladder

    climb = Climb([], [])
    while (then := ladder.following([step for step, _ in climb.steps], limits)).clients is not None:
        result = await one(then.clients, "up:", stop)
        climb.steps.append((_step(then.clients, result), result))
        if result.interrupted:
            climb.interrupted = True
            return climb
    climb.reason = then.reason
    for _ in range(max(1, round(patience / step_s))):
        result = await one(limits.first, "again:", stop)
        climb.back.append((_step(limits.first, result), result))
        if result.interrupted:
            climb.interrupted = True
            return climb
        climb.recovered = ladder.recovered(climb.steps[0][0], climb.back[-1][0], limits)
        if climb.recovered:
            break
    return climb


def _step(clients: int, result: Result) -> Step:
    from fileproxy.bench.ladder import Step

    figures = result.figures
    return Step(
        clients, figures["good_per_s"], figures["error_share"], figures["whole_ms"]["p99"], figures["generator_cpu"]
    )


async def _one(
    wish: Wish, plan: Plan, targets: list[Target], tls: ssl.SSLContext | None, stop: asyncio.Event, watch: Watch
) -> Result:
    from fileproxy.bench.run import run

    return await run(plan, targets, headers=wish.headers, tls=tls, stop=stop, watch=watch)


def _run(work: Callable[[asyncio.Event], Any]) -> Any:
    """In an event loop of its own. The first INT or TERM ends it with a report, the second at once."""
    from fileproxy.client.api import run as in_a_loop

    async def until_stopped() -> Any:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            stop.set()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            signal.signal(signal.SIGINT, signal.default_int_handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        return await work(stop)

    try:
        return in_a_loop(until_stopped())
    except KeyboardInterrupt:
        raise Failed("interrupted twice: no report") from None


# --- what was typed ---------------------------------------------------------------------------------------------------


def _understood(wish: Wish, most_clients: int) -> tuple[Plan, list[Target]]:
    from fileproxy.bench.hosts import Refused, targets
    from fileproxy.bench.plan import MOST_URLS, Plan
    from fileproxy.settings.units import parse_duration, parse_size

    if bool(wish.urls) == (wish.url_list is not None):
        raise typer.BadParameter("give URLs, or a list of them with --urls", param_hint="URL")
    if wish.output is not None and wish.output.suffix not in FORMATS:
        raise typer.BadParameter(f"{wish.output} must end in {', '.join(FORMATS)}", param_hint="--output")
    if wish.output is not None and not wish.output.absolute().parent.is_dir():
        raise typer.BadParameter(f"{wish.output.parent} is no folder", param_hint="--output")
    for line in wish.headers or []:
        name, mark, _ = line.partition(":")
        if not mark or not name.strip() or not line.isascii() or not line.isprintable():
            raise typer.BadParameter(f"{line!r} is not 'NAME: VALUE'", param_hint="-H")
        if name.strip().lower() in ("host", "connection", "range", "content-length", "transfer-encoding", "expect"):
            raise typer.BadParameter(f"{name.strip()} is set by the load itself", param_hint="-H")
    urls = wish.urls or _read(wish.url_list or "-")
    if len(urls) > MOST_URLS:
        raise typer.BadParameter(f"more than {MOST_URLS:,} URLs", param_hint="--urls")
    try:
        plan = Plan(
            clients=most_clients,
            seconds=parse_duration(wish.seconds),
            rate=wish.rate,
            zipf=wish.zipf,
            ranges=wish.ranges / 100,
            range_size=parse_size(wish.range_size),
            keep_alive=wish.keep_alive,
            slow=wish.slow / 100,
            slow_rate=parse_size(wish.slow_rate),
            timeout=parse_duration(wish.timeout),
            verify=wish.verify,
            seed=wish.seed,
        )
        found = targets(urls, vouched=wish.mine)
    except Refused as error:
        raise typer.BadParameter(str(error), param_hint="URL") from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        raise Failed(f"a host of the URLs is not known: {error.strerror or error}") from None
    _descriptors(most_clients + _SPARE_DESCRIPTORS)
    return plan, found


def _read(name: str) -> list[str]:
    text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _descriptors(wanted: int) -> None:
    """Have so many descriptors, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise typer.BadParameter(f"so many clients need {wanted:,} descriptors; ulimit -Hn is {hard:,}")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else hard, hard))


def _tls(wish: Wish, targets: list[Target]) -> ssl.SSLContext | None:
    if not any(one.tls for one in targets):
        return None
    context = ssl.create_default_context(cafile=wish.ca)
    if wish.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


# --- what is told -----------------------------------------------------------------------------------------------------


def _service(targets: list[Target]) -> dict[str, Any] | None:
    """The counters of the service, where it lets us see them."""
    from fileproxy.cli.client import get

    parts = urlsplit(targets[0].url)
    try:
        status, report = get(f"{parts.scheme}://{parts.netloc}", "/-/stats")
    except Failed:
        return None
    if status != 200 or "endings" not in report:
        return None
    told = {name: report.get(name) for name in _TELL}
    told["connections"] = {name: report.get("connections", {}).get(name, 0) for name in ("accepted", "shed")}
    told["cache"] = (report.get("cache") or {}).get("answers", {})
    return told


def _difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, Any] | None:
    from fileproxy.bench.tally import difference

    return None if before is None or after is None else difference(before, after)


def _header(kind: str, title: str, plan: Plan, targets: list[Target]) -> dict[str, Any]:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"kind": kind, "title": title, "when": when, "plan": {**asdict(plan), "urls": len(targets)}}


def _where(targets: list[Target]) -> str:
    hosts = sorted({one.host for one in targets})
    what = targets[0].path if len(targets) == 1 else f"{len(targets):,} URLs"
    return f"{what} at {', '.join(hosts[:3])}{' …' if len(hosts) > 3 else ''}"


def notes(figures: dict[str, Any]) -> list[str]:
    said = []
    if figures["generator_was_the_limit"]:
        share = figures["generator_cpu"]
        said.append(
            f"The generator used {share:.0%} of its processor: the figures say what it can do, not the service. "
            "Start several, or use wrk for requests a second."
        )
    if different := figures["errors_by_kind"].get(_OTHER_BYTES):
        said.append(f"{different:,} answers had other bytes than before for the same URL and validator.")
    if figures["unsent"]:
        said.append(
            f"{figures['unsent']:,} requests were due and not sent: all clients were waiting. Their times count."
        )
    if figures["interrupted"]:
        said.append("Interrupted: the figures are of what was done until then.")
    return said


def _tell(report: dict[str, Any], output: Path | None) -> None:
    from fileproxy.bench import report as form

    typer.echo(form.text(report), nl=False)
    if output is not None:
        make: dict[str, Callable[[dict[str, Any]], str]] = {
            ".json": lambda one: json.dumps(one, indent=2) + "\n",
            ".md": form.markdown,
            ".html": form.html,
        }
        output.write_text(make[output.suffix](report), "utf-8")
