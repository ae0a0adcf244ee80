"""Many clients, one cold file: what does the origin send, and how long does the last client wait for its first byte?"""

from __future__ import annotations

import random

from benchmarks.cache_client import Get, crowd, one
from benchmarks.cache_lab import Figures, counters, goal, lab
from benchmarks.cache_origin import MIB, sha256

THINK_S = 1.0


def run(*, clients: int, size: int, ranges: bool, workers: int = 2, within_s: float = 400.0) -> Figures:
    """Two crowds: with an origin that answers at once, and with one that thinks a second before the head.

    ``ranges``: each client asks a random part of the file. In the thinking crowd each client leaves after a MiB where
    whole files are asked: there the first byte counts.
    """
    rng = random.Random(7)

    def gets(target: str, *, leave: bool) -> list[Get]:
        made = []
        for _ in range(clients):
            first = rng.randrange(size - 1)
            span = (first, rng.randrange(1, size - first)) if ranges else None
            stop = min(MIB, span[1] if span else size) - 1 if leave else None
            made.append(Get(target, span, hashing=not ranges and not leave, stop_after=stop))
        return made

    with lab({"server": {"workers": workers}, "logs": {"access": "off"}}) as (service, origin):
        one(service.port, Get("/1000/warm"))
        whole = gets(f"/{size}/cold", leave=False)
        seconds = crowd(service.port, whole, within_s)
        sent, read = origin.sent(f"/{size}/cold"), counters(service)["bytes.from_upstreams"]
        wanted = sum(get.length for get in whole)

        lone = one(service.port, Get(f"/{size}/lone?think={THINK_S}", stop_after=1))
        thinking = gets(f"/{size}/thinking?think={THINK_S}", leave=True)
        crowd(service.port, thinking, 60)
        firsts = sorted(get.first_byte_s or float("inf") for get in thinking)
        stats, requests = counters(service), len(origin.asked(f"/{size}/cold"))

    wrong = sorted({get.error for get in whole if not get.right})
    digest = "" if ranges else sha256("cold", size)
    right = sum(get.right and (ranges or get.digest == digest) for get in whole)
    assert lone.first_byte_s is not None
    later = firsts[-1] - lone.first_byte_s
    share = sent / (size if not ranges else covered(whole, size))
    what = "right bytes" if ranges else "right SHA-256"
    return {
        "goals": {
            "the origin sends at most 1.02 times the file": goal(f"{share:.4f}", met=share <= 1.02),
            f"{clients} clients get {what}": goal(f"{right} of {clients}", met=right == clients),
            "slowest first byte at most 1 s after a lone client's (origin thinks 1 s)": goal(
                f"{later * 1000:.0f} ms", met=later <= 1
            ),
        },
        "clients": clients,
        "workers": workers,
        "file": f"{size // MIB} MiB",
        "errors": "; ".join(wrong[:5]) or "none",
        "requests at the origin": requests,
        "flights": stats["flight.started"],
        "bytes the service read from the origin, to the file": f"{read / size:.4f}",
        "seconds": round(seconds, 1),
        "GiB/s to clients": round(wanted / 2**30 / seconds, 2),
        "lone client's first byte": f"{lone.first_byte_s * 1000:.0f} ms",
        "first byte of the crowd, median and last": f"{firsts[clients // 2] * 1000:.0f}, {firsts[-1] * 1000:.0f} ms",
    }


def covered(gets: list[Get], size: int) -> int:
    """Bytes of the blocks that any of them asks for."""
    blocks = {block for get in gets for block in range(get.offset // MIB, (get.offset + get.length - 1) // MIB + 1)}
    return sum(min(MIB, size - block * MIB) for block in blocks)
