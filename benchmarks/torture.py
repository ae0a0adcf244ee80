"""Downloads through origins that lie, break, go away and grow slow, with real workers, on loopback.

    .venv/bin/python -m benchmarks.torture torture [--seed 1] [--downloads 2000]    # about two minutes
    .venv/bin/python -m benchmarks.torture outage | mirrors                         # two minutes each

Results go to ``results/torture.json`` and ``results/torture.md``. The plays are those of
``tests/trips/torture_plays.py``: what is answered follows from the seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import hashlib
import json
import os
import platform
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cache_lab import RESULTS, Figures, counters, goal, know_each_other
from benchmarks.cache_origin import OriginProcess, sha256
from fileproxy.server.control import RunDir
from fileproxy.tasks import Tasks
from tests.clients import Connection
from tests.origin import KIB, MIB, Content, Origin, Reply
from tests.service import Service, merged
from tests.trips.torture_crowd import Crowd, downloads, problems, report
from tests.trips.torture_plays import Torturer, paths

WORKERS = 2
CLIENTS = 24
BUSY: dict[str, Any] = {"server": {"workers": WORKERS}, "logs": {"access": "off"}, "cache": {"memory": 32 * MIB}}
TORTURED: dict[str, Any] = {
    # The budget of retries is there to spare an origin that fails; this one fails on purpose, three times of four.
    "timeouts": {"connect": "3s", "first_byte": "1500ms", "stall": "1s", "idle": "1s"},
    "retry": {"attempts": 12, "within": "60s", "base": "10ms", "cap": "500ms", "budget_floor": 100_000},
}


@contextlib.contextmanager
def serving(settings: Mapping[str, Any]) -> Iterator[Service]:
    """A service in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fpt"))
    one = Service(merged(BUSY, settings), folder)
    try:
        one.start()
        know_each_other(one)
        yield one
    finally:
        one.stop()
        shutil.rmtree(folder, ignore_errors=True)


def descriptors(service: Service) -> int:
    """Open sockets and files of the cache, of all workers."""
    status = RunDir(service.folder / "run").read_status()
    assert status is not None
    found = [target for pid in status.workers for target in _targets(pid)]
    return sum(target.startswith("socket:") or "/cache/" in target for target in found)


def _targets(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(folder / name))
    return found


async def quiet(service: Service, fewest: int) -> tuple[int, int]:
    """Downloads and flights that still run, and descriptors more than ``fewest``, once both are 0 or after 20 s."""
    until = time.monotonic() + 20
    while True:
        counts = await asyncio.to_thread(counters, service)
        running = counts["downloads.active"] - 1 + counts["flight.running"]  # the ask for the counts is one
        more = descriptors(service) - fewest
        if (running <= 0 and more <= 0) or time.monotonic() > until:
            return max(0, running), max(0, more)
        await asyncio.sleep(0.2)


# --- an origin that breaks every rule ---------------------------------------------------------------------------------


async def torture(seed: int, count: int) -> Figures:
    """``count`` downloads of files of 100 KiB to 4 MiB from two mirrors, where every fourth answer is honest."""
    files = paths(seed, max(20, count // 3), 100 * KIB, 4 * MIB)
    async with contextlib.AsyncExitStack() as stack:
        mirrors = [await stack.enter_async_context(Torturer(files, seed * 10 + number)) for number in range(2)]
        settings = {
            "upstreams": {"files": {"servers": [one.url for one in mirrors], **TORTURED}},
            "routes": [
                {"path": "/revalidated/", "upstream": "files", "cache": "auto"},
                {"path": "/", "upstream": "files", "cache": "3650d"},
            ],
            "cache": {"disk": {"size": 256 * MIB}},
        }
        service = stack.enter_context(serving(settings))
        fewest = descriptors(service)
        crowd = Crowd(service.port, 120.0, downloads(seed, files, count))
        started = time.monotonic()
        await crowd.run(CLIENTS)
        seconds = time.monotonic() - started
        answers = sum(len(told) for mirror in mirrors for told in mirror.told.values())
        for mirror in mirrors:
            await mirror.refuse()
            mirror.reset_all()
        running, more = await quiet(service, fewest)
        counts = await asyncio.to_thread(counters, service)
    ends = report(crowd.done)
    wrong = problems(crowd.done, *mirrors)
    print("\n".join(wrong))
    slowest = max(one.seconds for one in crowd.done)
    bad = {name: ends.get(name, 0) for name in ("corrupt", "wrong answer", "hang", "not completed")}
    return {
        "goals": {
            "what ended as complete is byte-exact": goal(
                f"{ends.get('complete', 0)} exact, {bad['corrupt'] + bad['wrong answer']} wrong",
                met=not bad["corrupt"] and not bad["wrong answer"],
            ),
            "what could be completed was": goal(f"{bad['not completed']} were not", met=not bad["not completed"]),
            "the rest was visibly aborted or refused": goal(
                f"{ends.get('cut', 0)} cut, {ends.get('refused', 0)} refused", met=len(crowd.done) == count
            ),
            "nothing hangs": goal(f"{bad['hang']}; the slowest took {slowest:.1f} s", met=not bad["hang"]),
            "nothing is left": goal(
                f"{running} downloads or flights, {more} descriptors", met=running == 0 and more == 0
            ),
        },
        "downloads": f"{count} of {len(files)} files, seed {seed}",
        "with": f"{CLIENTS} clients, {WORKERS} workers, {seconds:.0f} s",
        "clients that left by themselves": ends.get("left", 0),
        "answers of the mirrors": answers,
        "continued after a break": counts["flight.resumed"] + counts["relay.resumed"],
        "problems": wrong,
    }


# --- an origin that is away -------------------------------------------------------------------------------------------


class Watcher:
    """Clients that download, and when their bytes came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.came: list[tuple[float, int]] = []
        self.gaps: list[float] = []

    async def get(self, target: str, digest: str) -> str:
        """What is wrong with the download; empty: nothing."""
        async with await Connection.open(self.port) as connection:
            await connection.request("GET", target)
            got = await connection.head()
            last, longest, hashed = time.monotonic(), 0.0, hashlib.sha256()

            def take(piece: bytes) -> None:
                nonlocal last, longest
                now = time.monotonic()
                longest = max(longest, now - last)
                last = now
                self.came.append((now, len(piece)))
                hashed.update(piece)

            try:
                got.ending = await connection._read_body(got, "GET", take)  # noqa: SLF001
            except (EOFError, ConnectionError) as error:
                return f"cut: {error!r}"
            self.gaps.append(longest)
            if not got.complete or hashed.hexdigest() != digest:
                return f"{got.status} {got.ending}, other bytes"
            return ""

    def rate(self, since: float, until: float) -> float:
        """Bytes a second."""
        return sum(size for at, size in self.came if since <= at < until) / max(1e-9, until - since)

    def full_again(self, back: float, full: float) -> float:
        """Seconds from ``back`` until a second of at least nine tenths of ``full`` begins; inf: never."""
        for tenth in range(200):
            since = back + tenth / 10
            if self.rate(since, since + 1.0) >= 0.9 * full:
                return tenth / 10
        return float("inf")


@dataclass
class Line:
    """What an origin can send altogether, in bytes a second: its connections share it."""

    origin: Origin
    replies: Sequence[Reply]
    rate: float

    async def share(self) -> None:
        """Give each connection that is served its part, for ever."""
        while True:
            busy = max(1, self.origin.open - self.origin.idle)
            for reply in self.replies:
                object.__setattr__(reply, "rate", self.rate / busy)  # of what is being sent, too
            await asyncio.sleep(0.05)


def tasks_of(*lines: Line) -> Tasks:
    """What shares them out, until it is closed."""
    tasks = Tasks(print)
    for line in lines:
        tasks.start(line.share(), "line")
    return tasks


async def outage(*, away_s: float, profile: str, rate: float = 12.0 * MIB, crowd: int = 12) -> Figures:
    """Connections are reset and refused for so long. A dozen downloads run, as fast as the origin's line lets them."""
    size = int(rate * 16 / crowd)
    files = [Content(70 + number, size + number) for number in range(crowd)]
    async with Origin() as origin:
        replies = [Reply(file, rate=rate / crowd) for file in files]
        for number, reply in enumerate(replies):
            origin.script(f"/{number}", reply)
        sharing = tasks_of(Line(origin, replies, rate))
        with serving(
            {"profile": profile, "upstreams": {"files": origin.url}, "routes": [{"path": "/", "cache": "3650d"}]}
        ) as service:
            watcher = Watcher(service.port)
            asking = asyncio.gather(*(watcher.get(f"/{number}", file.sha256()) for number, file in enumerate(files)))
            started = time.monotonic()
            await asyncio.sleep(2)
            asked = len(origin.requests)
            await asyncio.sleep(3)
            full = watcher.rate(started + 2, started + 5)
            usual, held = len(origin.requests) - asked, origin.open
            await origin.refuse()
            origin.reset_all()
            await asyncio.sleep(away_s)
            asked, accepted = len(origin.requests), origin.accepted
            await origin.listen()
            back = time.monotonic()
            await asyncio.sleep(3.0)
            gets = sum(one.method == "GET" for one in origin.requests[asked:])
            others = len(origin.requests) - asked - gets
            opened = origin.accepted - accepted
            async with asyncio.timeout(90):
                wrong = [one for one in await asking if one]
            counts = await asyncio.to_thread(counters, service)
        await sharing.close()
    again = watcher.full_again(back, full)
    return {
        "goals": {
            f"refused for {away_s:g} s: every download went on": goal(
                f"{crowd - len(wrong)} of {crowd}", met=not wrong
            ),
            "full rate again within 3 s of its return": goal(f"{again:.1f} s", met=again <= 3.0),
            "no stampede: in its first 3 s not more than in the last 3 s before": goal(
                f"{gets} GET on {opened} connections and {others} probes; before {usual} on {held}",
                met=gets <= 1.5 * usual + 2 * crowd and opened <= 1.5 * held + 4 * WORKERS,
            ),
        },
        "rate before it, MiB/s": f"{full / MIB:.1f}",
        "tries while it was away": counts.get("upstream.retries", "-"),
        "wrong": wrong,
    }


async def hang(*, away_s: float, profile: str, rate: float = 1.0 * MIB, crowd: int = 12) -> Figures:
    """The same, but the origin is stopped: it accepts, and says nothing."""
    size = int(rate * 16)
    with OriginProcess() as origin:
        one_each = {"servers": [origin.url], "segments": {"parallel": "off"}}  # so that the rate is the downloads'
        with serving({"profile": profile, "upstreams": {"files": one_each}}) as service:
            watcher = Watcher(service.port)
            names = [f"/{size}/hang{number}?rate={rate}" for number in range(crowd)]
            digest = {name: sha256(name.partition("?")[0].rpartition("/")[2], size) for name in names}
            asking = asyncio.gather(*(watcher.get(name, digest[name]) for name in names))
            started = time.monotonic()
            await asyncio.sleep(5)
            full = watcher.rate(started + 2, started + 5)
            os.kill(origin._process.pid, signal.SIGSTOP)  # noqa: SLF001
            await asyncio.sleep(away_s)
            os.kill(origin._process.pid, signal.SIGCONT)  # noqa: SLF001
            back = time.monotonic()
            async with asyncio.timeout(90):
                wrong = [one for one in await asking if one]
            asked = sum(len(origin.asked(name.partition("?")[0])) for name in names)
    again = watcher.full_again(back, full)
    return {
        "goals": {
            f"silent for {away_s:g} s: every download went on": goal(f"{crowd - len(wrong)} of {crowd}", met=not wrong),
            "full rate within 3 s of its first word": goal(f"{again:.1f} s", met=again <= 3.0),
            "requests for a silent origin": goal(f"{asked} for {crowd} downloads", met=asked <= 3 * crowd),
        },
        "wrong when silent": wrong,
    }


# --- two mirrors ------------------------------------------------------------------------------------------------------


async def _mirrors(how: str, rate: float) -> tuple[str, float, float, list[int]]:
    """What is wrong, the longest pause at the client, seconds in all, bytes by mirror."""
    file = Content(90, int(rate * 16))
    async with contextlib.AsyncExitStack() as stack:
        mirrors = [await stack.enter_async_context(Origin()) for _ in range(2)]
        lines = [Line(mirror, [Reply(file, rate=rate)], rate) for mirror in mirrors]
        for line in lines:
            line.origin.script("/f", *line.replies)
        sharing = tasks_of(*lines)
        service = stack.enter_context(serving({"upstreams": {"files": {"servers": [one.url for one in mirrors]}}}))
        watcher = Watcher(service.port)
        asking = asyncio.gather(watcher.get("/f", file.sha256()))
        started = time.monotonic()
        await asyncio.sleep(3)
        assert not asking.done()
        first = max(lines, key=lambda line: line.origin.sent["/f"])
        if how == "dies":
            await first.origin.refuse()
            first.origin.reset_all()
        else:
            first.rate = rate / 20
        async with asyncio.timeout(300):
            (wrong,) = await asking
        seconds = time.monotonic() - started
        await sharing.close()
    return wrong, max(watcher.gaps, default=float("inf")), seconds, [one.sent["/f"] for one in mirrors]


async def mirrors(*, rate: float = 6.0 * MIB) -> Figures:
    """The mirror that serves most dies, or drops to 5 % of its speed, after three seconds."""
    goals = {}
    for how in ("dies", "drops to 5 %"):
        wrong, gap, seconds, sent = await _mirrors(how, rate)
        shares = " and ".join(f"{one / MIB:.0f}" for one in sent)
        goals[f"a mirror {how}: the client sees no error"] = goal(
            wrong or f"right, in {seconds:.0f} s ({shares} MiB from the two)", met=not wrong
        )
        goals[f"a mirror {how}: at most 2 s of pause"] = goal(f"{gap:.2f} s", met=gap <= 2.0)
    return {"goals": goals, "each mirror sends at most": f"{rate / MIB:g} MiB/s"}


# --- results ----------------------------------------------------------------------------------------------------------


def write(name: str, figures: Figures) -> None:
    """Note what one subcommand measured, and lay the table out anew."""
    path = RESULTS / "torture.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    everything[name] = {"measured": when, "cores": os.cpu_count(), "python": platform.python_version(), **figures}
    path.write_text(json.dumps(everything, indent=1) + "\n")
    lines = [
        "# Origins that lie, break and go away",
        "",
        "Made by `python -m benchmarks.torture`, in `torture.json`.",
        "",
    ]
    for what, one in everything.items():
        lines += [
            f"## {what} ({one['measured']}, {one['cores']} cores)",
            "",
            "| goal | figure | met |",
            "|---|---|---|",
        ]
        lines += [
            f"| {goal} | {row['figure']} | {'yes' if row['met'] else '**no**'} |" for goal, row in one["goals"].items()
        ]
        hidden = ("goals", "measured", "cores", "python")
        lines += ["", *(f"* {key}: {value}" for key, value in one.items() if key not in hidden and value != []), ""]
    (RESULTS / "torture.md").write_text("\n".join(lines))
    print(json.dumps(everything[name], indent=1))


async def _run(options: argparse.Namespace) -> Figures:
    if options.what == "torture":
        return await torture(options.seed, options.downloads)
    if options.what == "mirrors":
        return await mirrors()
    refused, silent = (
        await outage(away_s=options.away, profile=options.profile),
        await hang(away_s=options.away, profile=options.profile),
    )
    return {**refused, **silent, "goals": {**refused["goals"], **silent["goals"]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["torture", "outage", "mirrors"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--downloads", type=int, default=2000)
    parser.add_argument("--profile", choices=["optimized", "baseline"], default="optimized", help="of outage")
    parser.add_argument("--away", type=float, default=30.0, help="seconds without the origin")
    parser.add_argument("--look", action="store_true", help="print the figures, write nothing down")
    options = parser.parse_args()
    figures = asyncio.run(_run(options))
    if options.look:
        print(json.dumps(figures, indent=1))
    else:
        write(options.what, figures)


if __name__ == "__main__":
    main()
