"""Bits flipped at random: on disk while the service is stopped, on disk while it runs, in the shared store."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from redis import Redis

from benchmarks.cache_client import Get, crowd
from benchmarks.cache_folder import flip, stored_files
from benchmarks.cache_lab import Figures, counters, goal, lab, settled, until
from benchmarks.cache_origin import MIB
from benchmarks.cache_store import StoreProcess
from fileproxy.cache.redis import OBJECT
from tests.service import Service

BLOCK = 64 * 1024
SCRUB_STARTS_S = 60  # disk_care.SCRUB_PAUSE_S


def run(*, files: int = 40, flips: int = 200) -> Figures:
    with tempfile.TemporaryDirectory(prefix="fpr") as folder, StoreProcess(Path(folder)) as store:
        return merged(stopped(files, flips), shared(store, files), running(files))


def merged(*parts: Figures) -> Figures:
    """Several figures as one, goals together."""
    goals = {name: one for part in parts for name, one in part["goals"].items()}
    return {**{name: one for part in parts for name, one in part.items()}, "goals": goals}


def read_all(service: Service, paths: Sequence[str]) -> int:
    """How many of these files came wrong."""
    gets = [Get(path) for path in paths]
    crowd(service.port, gets, 60)
    settled(service)
    return sum(not get.right for get in gets)


def stopped(files: int, flips: int) -> Figures:
    """Flip while it is stopped: each bit lies in the data of a block, in a slot, or in a record."""
    rng = random.Random(11)
    paths = [f"/{rng.choice((1000, 60_000, 200_000, 900_000))}/f{n}" for n in range(files)]
    settings = {"cache": {"block": BLOCK, "memory": 0, "disk": {"scrub": 0}}, "server": {"workers": 2}}
    with lab(settings) as (service, origin):
        wrong = read_all(service, paths)
        first = origin.sent()
        service.stop()
        for _ in range(flips):
            flip(rng.choice(stored_files(service.folder / "cache")), rng)
        service.start()
        before = counters(service)["cache.damaged"]
        wrong += read_all(service, paths)
        damaged = counters(service)["cache.damaged"] - before
        repaired = origin.sent() - first
        service.stop()
        service.start()
        before = origin.sent()
        wrong += read_all(service, paths)
        again = origin.sent() - before
        left = counters(service)["cache.damaged"]
    return {
        "goals": {
            f"stopped, {flips} bits flipped on disk: never served": goal(f"{wrong} wrong files", met=wrong == 0),
            "counted (cache.damaged)": goal(f"{damaged}", met=damaged > 0),
            "repaired: read again after a restart, nothing is damaged or fetched": goal(
                f"{left} damaged, {again} bytes", met=left == 0 and again == 0
            ),
        },
        "fetched to repair": f"{repaired} of {first} bytes",
    }


def shared(store: StoreProcess, files: int) -> Figures:
    """Flip in the store: every object in it gets one other bit."""
    rng = random.Random(12)
    paths = [f"/{rng.choice((100, 3000, 60_000))}/r{n}" for n in range(files)]
    settings = {"cache": {"block": BLOCK, "memory": 0, "disk": "off"}, "redis": {"url": store.url, "timeout": 2}}
    with lab(settings) as (service, origin), Redis.from_url(store.url) as redis:
        until(lambda: service.json("/health")["parts"]["shared_store"]["state"] == "ok", "the store")

        def keys_of_all() -> list[bytes] | None:
            keys: list[bytes] = sorted(redis.scan_iter(f"{OBJECT}*"))
            return keys if len(keys) == files else None

        wrong = read_all(service, paths)
        keys = until(keys_of_all, "all files in the store")
        for key in keys:
            value = redis.get(key)
            assert isinstance(value, bytes)
            at = rng.randrange(len(value))
            redis.set(key, value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :], keepttl=True)
        before = counters(service)["cache.redis_damaged"]
        wrong += read_all(service, paths)
        damaged = counters(service)["cache.redis_damaged"] - before
        until(keys_of_all, "all files in the store again")
        sent = origin.sent()
        wrong += read_all(service, paths)
        again = origin.sent() - sent
    return {
        "goals": {
            f"{len(keys)} objects in Redis with a flipped bit: never served": goal(
                f"{wrong} wrong files", met=wrong == 0 and len(keys) == files
            ),
            "all counted (cache.redis_damaged)": goal(f"{damaged} of {len(keys)}", met=damaged == len(keys)),
            "repaired: asked again, nothing is fetched": goal(f"{again} bytes", met=again == 0),
        },
    }


def running(files: int) -> Figures:
    """Flip one bit of the data in each extent while it runs: the scrubber must find all of them."""
    rng = random.Random(13)
    paths = [f"/{rng.randrange(100_000, 900_000)}/s{n}" for n in range(files)]
    settings = {"cache": {"block": BLOCK, "memory": 0, "disk": {"scrub": 64 * MIB}}, "server": {"workers": 2}}
    with lab(settings) as (service, origin):
        wrong = read_all(service, paths)
        started = time.monotonic()
        extents = [path for path in stored_files(service.folder / "cache") if path.stat().st_size > 2 * BLOCK]
        for path in extents:
            flip(path, rng, 4096)
        until(lambda: counters(service)["cache.scrub_damaged"] >= len(extents), "all found", SCRUB_STARTS_S + 60)
        seconds = time.monotonic() - started
        found = counters(service)["cache.scrub_damaged"]
        before = counters(service)["cache.damaged"]
        wrong += read_all(service, paths)
        met = counters(service)["cache.damaged"] - before
        sent = origin.sent()
        wrong += read_all(service, paths)
        again = origin.sent() - sent
    return {
        "goals": {
            f"running, a bit flipped in {len(extents)} files: found within one scrub": goal(
                f"{found} found", met=found == len(extents)
            ),
            "what the scrubber marked is not served": goal(f"{wrong} wrong files, {met} more damaged", met=wrong == 0),
            "what it marked is repaired": goal(f"{again} bytes fetched at the second reading", met=again == 0),
        },
        "seconds until found (the first scrub begins after 60)": round(seconds),
    }
