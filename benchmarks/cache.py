"""The block cache under everything that happens to it: many clients, kills, flipped bits, sick disks, a shared store
that leaves, slow clients. Each subcommand starts real services beside a counting origin, on loopback only, and is
bounded in time; results go to ``results/cache.json`` and ``results/cache.md``.

    .venv/bin/python -m benchmarks.cache crowd|ranges|kill|flips|disk|parts|redis|slow [--small]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import cache_crowd, cache_disk, cache_flips, cache_kill, cache_parts, cache_redis
from benchmarks.cache_lab import Figures, write
from benchmarks.cache_origin import MIB


def parts() -> Figures:
    return cache_flips.merged(cache_parts.small(), cache_parts.seek())


FULL: dict[str, Callable[[], Figures]] = {
    "crowd": lambda: cache_crowd.run(clients=500, size=100 * MIB, ranges=False, within_s=900),
    "ranges": lambda: cache_crowd.run(clients=500, size=100 * MIB, ranges=True, within_s=600),
    "kill": lambda: cache_kill.run(moments=200, minutes=30),
    "flips": cache_flips.run,
    "disk": cache_disk.run,
    "parts": parts,
    "redis": cache_redis.run,
    "slow": cache_parts.slow,
}
SMALL: dict[str, Callable[[], Figures]] = {
    "crowd": lambda: cache_crowd.run(clients=50, size=20 * MIB, ranges=False),
    "ranges": lambda: cache_crowd.run(clients=50, size=20 * MIB, ranges=True),
    "kill": lambda: cache_kill.run(moments=9),
    "redis": lambda: cache_redis.run(rounds=1, seconds=1),
    "slow": lambda: cache_parts.slow(rounds=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=FULL)
    parser.add_argument("--small", action="store_true", help="a quick look; nothing is written down")
    options = parser.parse_args()
    if options.small:
        print((SMALL | {name: run for name, run in FULL.items() if name not in SMALL})[options.what]())
    else:
        write(options.what, FULL[options.what]())


if __name__ == "__main__":
    main()
