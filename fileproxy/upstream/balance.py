"""In which order the mirrors are asked. Pure: no time, no I/O; the only state is whose turn it is.

Smooth weighted round robin (the scheme nginx uses): each pick adds every mirror its weight, takes the highest and
charges it the sum of all weights. Over ``sum(weights)`` picks each mirror is taken exactly ``weight`` times, and the
picks of a heavy mirror are spread out rather than bunched.
"""

from __future__ import annotations

from collections.abc import Sequence


class RoundRobin:
    """Whose turn it is among ``len(weights)`` mirrors."""

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights or min(weights) < 1:
            raise ValueError("every mirror needs a weight of at least 1")
        self._weights = tuple(weights)
        self._credit = [0] * len(weights)

    def order(self) -> list[int]:
        """The mirrors for one request: whose turn it is first, then those that would come next, each once."""
        credit = self._credit
        for index, weight in enumerate(self._weights):
            credit[index] += weight
        first = max(range(len(credit)), key=credit.__getitem__)
        credit[first] -= sum(self._weights)
        rest = [index for index in range(len(credit)) if index != first]
        # As if the next turn had come: what each would have then.
        rest.sort(key=lambda index: credit[index] + self._weights[index], reverse=True)
        return [first, *rest]


def balancer(policy: str, weights: Sequence[int]) -> RoundRobin:
    """``round_robin`` treats all alike; ``weighted_round_robin`` gives each its weight."""
    if policy == "round_robin":
        return RoundRobin([1] * len(weights))
    if policy == "weighted_round_robin":
        return RoundRobin(weights)
    raise ValueError(f"{policy!r} is not a way to balance")
