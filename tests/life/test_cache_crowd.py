"""Many clients of one cold file over two workers: the origin sends it once. Full size: ``benchmarks/cache.py``."""

from __future__ import annotations

import threading

from benchmarks import cache_crowd
from benchmarks.cache_client import Get, one
from benchmarks.cache_lab import Figures, counters, lab, settled, until
from benchmarks.cache_origin import MIB


def met(figures: Figures) -> None:
    """Every goal is."""
    missed = {name: one["figure"] for name, one in figures["goals"].items() if not one["met"]}
    assert not missed, figures


def test_many_clients_one_file_one_fetch() -> None:
    figures = cache_crowd.run(clients=40, size=6 * MIB, ranges=False)
    del figures["goals"]["slowest first byte at most 1 s after a lone client's (origin thinks 1 s)"]  # a time
    met(figures)
    assert figures["requests at the origin"] == 1


def test_random_ranges_of_one_file() -> None:
    """8 MiB: whoever comes is near a flight, so nothing may be asked for twice."""
    figures = cache_crowd.run(clients=30, size=8 * MIB, ranges=True)
    del figures["goals"]["slowest first byte at most 1 s after a lone client's (origin thinks 1 s)"]
    met(figures)


def test_a_flight_ends_where_it_meets_another() -> None:
    """Its bytes come in pieces that do not end where blocks do; still it stops at the block that another one brings."""
    size = 24 * MIB
    path = f"/{size}/f?rate={12 * MIB}"
    with lab({"server": {"workers": 1}}) as (service, origin):
        front, back = Get(path), Get(path, (12 * MIB, 12 * MIB))
        first = threading.Thread(target=one, args=(service.port, front))
        first.start()
        until(lambda: origin.sent(f"/{size}/f"), "the whole file to begin")
        one(service.port, back)
        first.join()
        settled(service)
        assert front.right
        assert back.right
        assert counters(service)["bytes.from_upstreams"] < size + MIB


def test_what_is_held_is_not_asked_for_again() -> None:
    """Of the reader that comes along from the front; the part in the middle is here already."""
    size = 16 * MIB
    path = f"/{size}/f"
    with lab({"server": {"workers": 2}}) as (service, origin):
        assert one(service.port, Get(path, (6 * MIB, 3 * MIB))).right
        settled(service)
        assert one(service.port, Get(path)).right
        settled(service)
        assert origin.asked(path) == [
            f"{6 * MIB}-{9 * MIB - 1}",
            f"0-{6 * MIB - 1}",
            f"{9 * MIB}-{size - 1}",
        ]
        assert origin.sent(path) == size
