"""In which order the mirrors are asked. Pure: what is known of them and chance come in, an order goes out.

* ``round_robin``, ``weighted_round_robin``: smooth weighted round robin (the scheme nginx uses): each pick adds every
  mirror its weight, takes the highest and charges it the sum of all weights. Over ``sum(weights)`` picks each mirror is
  taken exactly ``weight`` times, and the picks of a heavy mirror are spread out rather than bunched.
* ``least_connections``: fewest requests in flight for its weight.
* ``fastest_response``: of two chosen by chance the one whose answers, and the first MiB of them, come sooner, times
  what it has to do already (the power of two choices: M. Mitzenmacher, 2001; over the peak EWMAs of ``gauge.py``). One
  that is not known is tried.
* ``resource_based``: turns in proportion to weight × what each has left. A mirror's load is what it reports; of those
  that report nothing, its part of the bytes that are on their way.
* ``consistent_hash``: each file has its mirror while it is well, so that mirrors which cache keep different files
  (weighted rendezvous hashing: C. Schindelhauer and G. Schomaker, 2005). A changed weight, and a mirror more or less,
  move only what they must, wherever in the list it stands: a mirror is known by its URL.

Equals take turns by the first scheme. Mirrors of a lower ``priority`` number come before all others, whatever the way.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

LEAST_LEFT = 0.02  # of the turns: however loaded it says it is, it is asked now and then, or it could not say better
UNKNOWN_S = 1.0  # taken for the response time of a mirror that has been asked but has not answered yet


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a mirror when it is picked."""

    weight: float = 1.0
    ramp: float = 1.0  # up to 1: how much of its weight counts while it starts slowly
    in_flight: int = 0
    bytes_in_flight: int = 0
    response_s: float | None = None  # to the first byte; None: not known
    load: float | None = None  # 0 to 1, as it reported; None: it does not
    name: str = ""  # tells mirrors apart, over restarts, too; empty: its place among them does
    mib_s: float = 0.0  # a MiB takes so long where the mirror is what is waited for; 0: not known, or at once
    priority: int = 0  # the others are asked when none with a lower number is left

    @property
    def share(self) -> float:
        return self.weight * self.ramp


class Balance(Protocol):
    def order(self, mirrors: Sequence[Seen], key: str) -> list[int]:
        """The mirrors for one request for ``key``, each once: whose turn it is first, then who would come next."""
        ...


class RoundRobin:
    """Whose turn it is. ``weighted``: by the mirrors' weights; else all alike (but for a slow start)."""

    def __init__(self, *, weighted: bool) -> None:
        self._weighted = weighted
        self._credit: list[float] = []

    def order(self, mirrors: Sequence[Seen], key: str = "") -> list[int]:
        return self.turn([one.share if self._weighted else one.ramp for one in mirrors])

    def turn(self, weights: Sequence[float]) -> list[int]:
        """The order by these weights, of which each is above 0."""
        if len(self._credit) != len(weights):
            self._credit = [0.0] * len(weights)
        credit = self._credit
        for index, weight in enumerate(weights):
            credit[index] += weight
        first = max(range(len(credit)), key=credit.__getitem__)
        credit[first] -= sum(weights)
        rest = [index for index in range(len(credit)) if index != first]
        # As if the next turn had come: what each would have then.
        rest.sort(key=lambda index: credit[index] + weights[index], reverse=True)
        return [first, *rest]


class LeastConnections:
    def __init__(self) -> None:
        self._turns = RoundRobin(weighted=True)

    def order(self, mirrors: Sequence[Seen], key: str = "") -> list[int]:
        order = self._turns.order(mirrors)
        return sorted(order, key=lambda index: (mirrors[index].in_flight + 1) / mirrors[index].share)


class FastestResponse:
    """``random`` gives a number in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._turns = RoundRobin(weighted=True)
        self._random = random

    def order(self, mirrors: Sequence[Seen], key: str = "") -> list[int]:
        order = sorted(self._turns.order(mirrors), key=lambda index: _cost(mirrors[index]))
        if len(order) < 3:
            return order
        one = int(self._random() * len(order))
        other = int(self._random() * (len(order) - 1))
        first = order[min(one, other + (other >= one))]  # they stand in the order of their costs
        return [first, *(index for index in order if index != first)]


def _cost(mirror: Seen) -> float:
    """Seconds until it would have sent a MiB, as far as one can tell: quick heads do not hide a trickle."""
    if mirror.response_s is None:
        return UNKNOWN_S * mirror.in_flight / mirror.share
    return (mirror.response_s + mirror.mib_s) * (mirror.in_flight + 1) / mirror.share


class ResourceBased:
    def __init__(self) -> None:
        self._turns = RoundRobin(weighted=True)

    def order(self, mirrors: Sequence[Seen], key: str = "") -> list[int]:
        silent = sum(one.bytes_in_flight for one in mirrors if one.load is None)
        return self._turns.turn(
            [
                one.share
                * max(LEAST_LEFT, 1.0 - (one.bytes_in_flight / (silent + 1) if one.load is None else one.load))
                for one in mirrors
            ]
        )


class ConsistentHash:
    def order(self, mirrors: Sequence[Seen], key: str) -> list[int]:
        def score(index: int) -> float:
            name = mirrors[index].name or str(index)
            digest = hashlib.blake2b(f"{name} {key}".encode("utf-8", "surrogateescape"), digest_size=7).digest()
            return -mirrors[index].share / math.log((int.from_bytes(digest, "big") + 1) / (2**56 + 1))

        return sorted(range(len(mirrors)), key=score, reverse=True)


class Tiers:
    """One balance for each priority, so that turns which backups do not take are not missed by the others."""

    def __init__(self, make: Callable[[], Balance]) -> None:
        self._make = make
        self._tiers: dict[int, Balance] = {}

    def order(self, mirrors: Sequence[Seen], key: str) -> list[int]:
        order: list[int] = []
        for priority in sorted({one.priority for one in mirrors}):
            if priority not in self._tiers:
                self._tiers[priority] = self._make()
            tier = [index for index, one in enumerate(mirrors) if one.priority == priority]
            order += [tier[index] for index in self._tiers[priority].order([mirrors[one] for one in tier], key)]
        return order


def balancer(policy: str, random: Callable[[], float]) -> Balance:
    """The way of this name (``upstreams.NAME.balance``)."""
    makers: dict[str, Callable[[], Balance]] = {
        "round_robin": lambda: RoundRobin(weighted=False),
        "weighted_round_robin": lambda: RoundRobin(weighted=True),
        "least_connections": LeastConnections,
        "fastest_response": lambda: FastestResponse(random),
        "resource_based": ResourceBased,
        "consistent_hash": ConsistentHash,
    }
    if policy not in makers:
        raise ValueError(f"{policy!r} is not a way to balance")
    return Tiers(makers[policy])
