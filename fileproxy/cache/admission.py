"""What may stay in memory. Pure: keys and weights in, evicted keys out; it holds no bytes of files itself.

W-TinyLFU (Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017), weighed in bytes. A
newcomer passes through a small window; what falls out of it enters the main part only when it was asked for more often
than what it would push out. The main part is a segmented LRU: a second hit lifts an entry from probation into the
protected part.

Laws kept here:

* Never over the budget, not even between two lines: what goes is named before anything else may come.
* A single pass over any number of keys, however long, pushes out nothing that was asked for twice. The sketch
  therefore ages by *repeated* asks only; keys seen once are forgotten on their own, without touching the counts of
  others. (Caffeine ages by all asks: a pass ten times the cache's size halves the counts of everything that rests.)
* Bytes decide. A candidate is compared with the mean frequency of its victims, each weighed by its bytes; so a block
  of 1 MiB cannot push out a hundred small files for the sake of the first of them.
* Every step is O(1): at most :data:`LOOKED_AT` victims are looked at, and each eviction was paid for by an insertion.

Keys are hashed by Python's own keyed hash (SipHash), so nobody outside can aim at one counter. The figures below were
chosen with ``benchmarks/admission.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain, islice

WINDOW = 0.01  # share of the budget that newcomers pass through
PROTECTED = 0.8  # share of the main part for what was hit again
LOOKED_AT = 16  # victims that a candidate is compared with, at most
AGE_AFTER = 3  # repeated asks an entry kept, until all counts are halved
LEAST_ENTRIES = 256  # a cache of fewer entries ages as if it had these: some quick hits are no new age
COUNT_LIMIT = 15
BYTES_PER_COUNTER = 2048  # of budget: a small file each; the sketch then takes 0.2 to 0.4 % of the budget
WIDTH_BITS = (10, 22)

_HALVED = bytes(count // 2 for count in range(256))
_WITHOUT_ONES = bytes(0 if count == 1 else count for count in range(256))


class Sketch:
    """How often a key was asked for lately, 0 to 15: four rows of ``2**bits`` counters of a byte (a count-min sketch).

    Errors only ever say too much. Only the lowest of a key's counters grow, which keeps errors small.
    """

    __slots__ = ("_firsts", "_mask", "_rows", "repeats")

    def __init__(self, bits: int) -> None:
        self._mask = (1 << bits) - 1
        self._rows = [bytearray(1 << bits) for _ in range(4)]
        self._firsts = 0  # keys counted from 0 to 1 since ones were last forgotten
        self.repeats = 0  # other counts since the last halving

    @property
    def width(self) -> int:
        return self._mask + 1

    def estimate(self, key: bytes) -> int:
        """The count of ``key``."""
        value, mask = hash(key), self._mask
        step = (value >> 32) | 1
        a, b, c, d = self._rows
        return min(a[value & mask], b[value + step & mask], c[value + 2 * step & mask], d[value + 3 * step & mask])

    def add(self, key: bytes) -> None:
        """``key`` was asked for."""
        value, mask = hash(key), self._mask
        step = (value >> 32) | 1
        a, b, c, d = self._rows
        i, j, k, n = value & mask, value + step & mask, value + 2 * step & mask, value + 3 * step & mask
        count = min(a[i], b[j], c[k], d[n])
        if count >= COUNT_LIMIT:
            return  # and no step towards the next halving: one hammered file must not age all others
        if a[i] == count:
            a[i] += 1
        if b[j] == count:
            b[j] += 1
        if c[k] == count:
            c[k] += 1
        if d[n] == count:
            d[n] += 1
        if count:
            self.repeats += 1
            return
        self._firsts += 1
        if self._firsts > mask >> 1:  # half full of keys seen once: more would make newcomers look known
            self._rows = [row.translate(_WITHOUT_ONES) for row in self._rows]
            self._firsts = 0

    def halve(self) -> None:
        """Let the past count half."""
        self._rows = [row.translate(_HALVED) for row in self._rows]
        self._firsts = self.repeats = 0


class Admission:
    """Which keys are kept within ``budget`` bytes.

    The owner stores what is ``in`` it, and forgets whatever key a method hands back. Weights are bytes, 1 or more.
    """

    __slots__ = ("_budget", "_main_used", "_probation", "_protected", "_protected_used", "_sketch", "_window",
                 "_window_used")  # fmt: skip

    def __init__(self, budget: int) -> None:
        self._window: OrderedDict[bytes, int] = OrderedDict()  # key → weight, longest unused first; so are the others
        self._probation: OrderedDict[bytes, int] = OrderedDict()
        self._protected: OrderedDict[bytes, int] = OrderedDict()
        self._window_used = self._main_used = self._protected_used = 0
        self._budget = max(0, budget)
        self._sketch = Sketch(_bits(self._budget))

    @property
    def budget(self) -> int:
        return self._budget

    @property
    def used(self) -> int:
        """Bytes kept."""
        return self._window_used + self._main_used

    def __len__(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Every key and its weight."""
        return chain(self._window.items(), self._probation.items(), self._protected.items())

    def __contains__(self, key: bytes) -> bool:
        return key in self._protected or key in self._probation or key in self._window

    def access(self, key: bytes) -> bool:
        """``key`` is asked for. False when it is not kept: the ask then counts once it is inserted."""
        if key in self._protected:
            self._protected.move_to_end(key)
        elif (weight := self._probation.pop(key, None)) is not None:
            self._protected[key] = weight
            self._protected_used += weight
            self._demote()
        elif key in self._window:
            self._window.move_to_end(key)
        else:
            return False
        self._count(key)
        return True

    def insert(self, key: bytes, weight: int) -> list[bytes]:
        """``key`` was asked for, was not kept and could be now. The keys that go instead; ``key`` itself among them
        when it may not stay. A key that is kept gets the new weight.
        """
        if weight < 1:
            raise ValueError(f"a weight of {weight} bytes")
        if key in self:
            self.remove(key)
        else:
            self._count(key)
        if weight > self._budget - self._window_budget:  # larger than the main part: it would push out everything
            return [key]
        evicted: list[bytes] = []
        # Room first. Only then the newcomer, straight to the door of the main part when the window is too small for it.
        while self._window and self._window_used + weight > self._window_budget:
            self._admit(*self._leave_window(), evicted)
        if weight > self._window_budget:
            self._admit(key, weight, evicted)
        else:
            self._window[key] = weight
            self._window_used += weight
        return evicted

    def remove(self, key: bytes) -> bool:
        """Forget ``key``. False when it was not kept."""
        if (weight := self._window.pop(key, None)) is not None:
            self._window_used -= weight
        elif (weight := self._probation.pop(key, None)) is not None:
            self._main_used -= weight
        elif (weight := self._protected.pop(key, None)) is not None:
            self._main_used -= weight
            self._protected_used -= weight
        else:
            return False
        return True

    def resize(self, budget: int) -> list[bytes]:
        """Keep within ``budget`` bytes from now on; the keys that go, the least wanted first."""
        self._budget = max(0, budget)
        bits = _bits(self._budget)
        if (1 << bits) > 4 * self._sketch.width:  # grown far: counts too coarse for so many entries
            self._sketch = Sketch(bits)
        evicted: list[bytes] = []
        while self._main_used > self._main_budget:
            evicted.append(self._evict_one())
        self._demote()
        while self._window_used > self._window_budget:
            self._admit(*self._leave_window(), evicted)
        return evicted

    def clear(self) -> None:
        """Forget all keys, not how often they were asked for."""
        for part in (self._window, self._probation, self._protected):
            part.clear()
        self._window_used = self._main_used = self._protected_used = 0

    @property
    def _window_budget(self) -> int:
        return int(self._budget * WINDOW)

    @property
    def _main_budget(self) -> int:
        return self._budget - self._window_budget

    def _count(self, key: bytes) -> None:
        sketch = self._sketch
        sketch.add(key)
        if sketch.repeats >= AGE_AFTER * LEAST_ENTRIES and sketch.repeats >= AGE_AFTER * len(self):
            sketch.halve()

    def _leave_window(self) -> tuple[bytes, int]:
        key, weight = self._window.popitem(last=False)
        self._window_used -= weight
        return key, weight

    def _admit(self, key: bytes, weight: int, evicted: list[bytes]) -> None:
        """Into the main part, or not."""
        missing = self._main_used + weight - self._main_budget
        if missing > 0 and not self._worth(key, missing):
            evicted.append(key)
            return
        while self._main_used + weight > self._main_budget:
            evicted.append(self._evict_one())
        self._probation[key] = weight
        self._main_used += weight

    def _worth(self, key: bytes, missing: int) -> bool:
        """Whether ``key`` is asked for more often than those it would push out, byte for byte."""
        estimate = self._sketch.estimate
        asked = weighed = 0
        for victim, weight in islice(chain(self._probation.items(), self._protected.items()), LOOKED_AT):
            weighed += weight
            asked += estimate(victim) * weight
            if weighed >= missing:
                break
        return estimate(key) * weighed > asked

    def _evict_one(self) -> bytes:
        """The least wanted of a main part that is not empty."""
        if self._probation:
            key, weight = self._probation.popitem(last=False)
        else:
            key, weight = self._protected.popitem(last=False)
            self._protected_used -= weight
        self._main_used -= weight
        return key

    def _demote(self) -> None:
        """Back onto probation, the longest unused first, until the protected part keeps its share."""
        share = int(self._main_budget * PROTECTED)
        while self._protected_used > share:
            key, weight = self._protected.popitem(last=False)
            self._protected_used -= weight
            self._probation[key] = weight


def _bits(budget: int) -> int:
    """Bits of the sketch's width for a cache of ``budget`` bytes."""
    least, most = WIDTH_BITS
    return min(most, max(least, (max(1, budget // BYTES_PER_COUNTER) - 1).bit_length()))
