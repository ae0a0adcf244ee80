"""The traffic of a download site, as a list of accesses to blocks. Pure: a seed in, the same accesses out.

Files of log-normal size with a heavy tail, asked for by a Zipf law that knows nothing of their size. Large files are
asked for in blocks of 1 MiB, and some of their asks are for a part only, as of a video or a resumed download. Through
it run scans: single passes over a file of 10 GiB that nobody asks for again, and a crawler that takes every file once.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MIB = 1024**2
BLOCK = MIB


@dataclass(frozen=True)
class Site:
    """What is asked of the download site.

    ``releases``: in a thousand requests, so many unpopular files rise among the most wanted twentieth.
    """

    files: int = 5000
    requests: int = 50_000
    zipf: float = 1.1
    median_bytes: int = 256 * 1024
    sigma: float = 1.8
    tail_share: float = 0.05
    tail_from: int = 8 * MIB
    tail_shape: float = 1.2
    largest: int = 1024 * MIB
    releases: float = 0.0
    big_scans: int = 2
    big_scan_bytes: int = 10 * 1024 * MIB
    crawls: int = 1


class Access(NamedTuple):
    key: bytes
    weight: int
    scan: bool


def sizes(site: Site, rng: random.Random) -> list[int]:
    """Bytes of every file, the most wanted first."""
    return [
        min(site.largest, int(site.tail_from * rng.paretovariate(site.tail_shape)))
        if rng.random() < site.tail_share
        else max(200, int(site.median_bytes * rng.lognormvariate(0, site.sigma)))
        for _ in range(site.files)
    ]


def hot_fifth(site: Site, seed: int) -> int:
    """Bytes of the most wanted fifth of the files."""
    return sum(sizes(site, random.Random(seed))[: site.files // 5])


def blocks(name: bytes, size: int, first: int = 0, last: int | None = None) -> Iterator[tuple[bytes, int]]:
    """(key, bytes) of the blocks ``first`` to ``last`` of a file."""
    end = -(-size // BLOCK) - 1 if last is None else last
    for index in range(first, end + 1):
        yield name + index.to_bytes(4, "big"), min(BLOCK, size - index * BLOCK)


def traffic(site: Site, seed: int) -> list[Access]:
    """Everything that is asked, in order."""
    rng = random.Random(seed)
    size = sizes(site, rng)
    names = [rng.randbytes(16) for _ in size]
    wanted = list(range(site.files))  # by rank
    weights = list(itertools.accumulate((rank + 1) ** -site.zipf for rank in range(site.files)))
    ranks = rng.choices(range(site.files), cum_weights=weights, k=site.requests)
    scans = _scans(site, rng, names, size)
    seen: list[Access] = []
    for at, rank in enumerate(ranks):
        if rng.random() < site.releases / 1000:
            newest = wanted.pop(rng.randrange(site.files // 5, site.files))
            wanted.insert(int(rng.random() ** 2 * site.files / 20), newest)
        file = wanted[rank]
        first, last = 0, -(-size[file] // BLOCK) - 1
        if last > 8 and rng.random() < 0.3:
            first = rng.randint(0, last)
            last = rng.randint(first, last)
        seen.extend(Access(key, weight, False) for key, weight in blocks(names[file], size[file], first, last))
        for begin, speed, scan in scans:
            if at >= begin * site.requests:
                seen.extend(Access(key, weight, True) for key, weight in itertools.islice(scan, speed))
    return seen


def _scans(
    site: Site, rng: random.Random, names: list[bytes], size: list[int]
) -> list[tuple[float, int, Iterator[tuple[bytes, int]]]]:
    """(when it begins, blocks a request, its blocks) of each scan."""
    begins = iter((0.3, 0.6, 0.45, 0.75, 0.5, 0.35))
    scans: list[tuple[float, int, Iterator[tuple[bytes, int]]]] = [
        (next(begins), 10, blocks(rng.randbytes(16), site.big_scan_bytes)) for _ in range(site.big_scans)
    ]
    for _ in range(site.crawls):
        order = sorted(range(site.files), key=names.__getitem__)
        every = itertools.chain.from_iterable(blocks(names[file], size[file]) for file in order)
        scans.append((next(begins), 4, every))
    return scans
