"""An origin that breaks every rule it can, from a seed: three answers of four may be broken, every fourth is honest.

What is played follows from (seed, path, number of the answer), not from who asks when. ``Torturer`` is a scripted
origin whose script is thrown by dice; ``Path`` is one file of it, with every representation it ever held.

Some lies no receiver can see, so they are played only where something contradicts them: a Content-Length or total
below the truth, another file under the same validator, or a page of a captive portal instead of the file, all are
told only in answer to a request that names a validator (If-Range, If-None-Match).
"""

from __future__ import annotations

import gzip
import itertools
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.origin import KIB, MIB, Content, Origin, Reply, Request, fin, reset, stall
from tests.origin.play import LAST_MODIFIED

Kind = Literal["etag", "modified", "revalidated", "moving", "weak", "bare"]
KINDS: dict[Kind, int] = {"etag": 50, "modified": 14, "revalidated": 12, "moving": 8, "weak": 8, "bare": 8}
HONEST_EVERY = 4
OTHER_MODIFIED = "Mon, 02 Nov 2026 12:00:00 GMT"
MORE = 1000  # bytes that a lie promises beyond the truth; no two kinds of lies may agree with one another
PORTAL = b"<html>please pay for the network</html>" * 40


@dataclass
class Path:
    """One file. ``held``: what it has held so far, by (validator as it was sent, coding)."""

    name: str
    kind: Kind
    content: Content
    moves_at: int | None = None  # from this answer on it is another file for good
    held: dict[tuple[str, str], list[Content | bytes]] = field(default_factory=dict)

    def version(self, number: int) -> Content:
        """What the file is at its ``number``-th answer."""
        if self.moves_at is None or number < self.moves_at:
            return self.content
        return Content(self.content.seed + 7, self.content.size - 4321)

    @property
    def lasting(self) -> bool:
        """Whether it has a strong validator that stays: then every download can be completed."""
        return self.kind in ("etag", "modified", "revalidated")


def paths(seed: int, count: int, smallest: int, largest: int) -> dict[str, Path]:
    """``count`` files, their sizes spread evenly over the orders of magnitude."""
    dice = random.Random(f"{seed} paths")
    kinds = dice.choices(list(KINDS), list(KINDS.values()), k=count)
    made = {}
    for number, kind in enumerate(kinds):
        size = int(smallest * (largest / smallest) ** dice.random())
        moves_at = dice.randrange(2, 9) if kind == "moving" else None
        name = f"/{kind}/{number}"
        made[name] = Path(name, kind, Content(seed * 100_000 + number, size), moves_at)
    return made


# --- what is played ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What a fault may look at."""

    dice: random.Random
    path: Path
    honest: Reply
    request: Request

    @property
    def size(self) -> int:
        return self.honest.size

    @property
    def name(self) -> str | None:
        """The ETag of the honest answer."""
        assert isinstance(self.honest.content, Content)
        return self.honest.content.etag if self.honest.etag == "auto" else self.honest.etag

    @property
    def ranged(self) -> bool:
        return self.request.get("range") is not None

    @property
    def conditional(self) -> bool:
        """The request names what it has: whoever lies now can be seen to."""
        return self.request.get("if-range") is not None

    @property
    def somewhere(self) -> int:
        """A place in the body that is sent; often near its beginning."""
        first, last = self.asked
        return self.dice.choice(
            [0, 1, 5000, self.dice.randrange(last - first + 1), self.dice.randrange(last - first + 1)]
        )

    @property
    def asked(self) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.request.get("range") or "")
        if match is None or match[1] == "":
            return 0, self.size - 1
        return min(int(match[1]), self.size - 1), min(int(match[2] or self.size), self.size - 1)


Fault = Callable[[Scene], Reply | None]


def _lying_range(scene: Scene) -> Reply | None:
    if not scene.ranged:
        return None
    first, last = scene.asked
    lies = [
        f"bytes {first + 1}-{last + 1}/{scene.size + 1}",
        "nonsense",
        f"bytes {first}-{last}/{scene.size + MORE + 2}",
    ]
    lies += [f"bytes {first + 65536}-{last + 65536}/{scene.size}", f"bytes {last}-{first}/{scene.size}", "bytes 0-0/1"]
    if scene.conditional:
        lies += [
            f"bytes {first}-{last}/{max(1, scene.size - MORE)}",
            f"bytes {first}-{max(first, last - 1)}/{scene.size}",
        ]
    return replace(scene.honest, content_range=scene.dice.choice(lies))


def _short_part(scene: Scene) -> Reply | None:
    """A 206 whose Content-Length contradicts its Content-Range."""
    first, last = scene.asked
    if not scene.ranged or last - first < 2:
        return None
    return replace(scene.honest, length=scene.dice.randrange(1, last - first), after="fin")


def _too_long(scene: Scene) -> Reply | None:
    return replace(scene.honest, length=scene.size + MORE, after="fin")


def _other_version(scene: Scene) -> Reply:
    size = scene.dice.choice([scene.size, scene.size + 1, scene.size // 2 + 1])
    other = Content(scene.path.content.seed + 3, size)
    if scene.path.kind == "modified":
        # Where only a date tells, it answers a Range by another version's date, whatever If-Range said.
        return replace(scene.honest, content=other, headers=(("Last-Modified", OTHER_MODIFIED),))
    if scene.path.kind == "bare":
        return replace(scene.honest, content=other)
    named = other.etag if scene.path.kind != "weak" else f"W/{other.etag}"
    if scene.dice.random() < 0.5 and scene.path.kind != "weak":
        # A part although If-Range says no: it matches the old name, and answers with the new one.
        return replace(scene.honest, content=other, etag=scene.name, headers=(*scene.honest.headers, ("ETag", named)))
    return replace(scene.honest, content=other, etag=named)


def _flapping(scene: Scene) -> Reply | None:
    """The same bytes under another ETag, as of a second machine with other inode numbers."""
    if scene.path.kind not in ("etag", "revalidated"):
        return None
    return replace(scene.honest, etag=f'"flap-{scene.path.content.seed:x}"')


def _weakened(scene: Scene) -> Reply | None:
    if scene.path.kind not in ("etag", "revalidated"):
        return None
    return replace(scene.honest, headers=(*scene.honest.headers, ("ETag", f"W/{scene.name}")))


def _same_name(scene: Scene) -> Reply | None:
    """Another size under the same validator."""
    return (
        replace(scene.honest, content=Content(9, scene.size + MORE + 1), etag=scene.name) if scene.conditional else None
    )


def _nameless(scene: Scene) -> Reply | None:
    if not scene.conditional:
        return None
    return replace(scene.honest, etag=None, last_modified=None)


def _portal(scene: Scene) -> Reply | None:
    return Reply(PORTAL, etag=None, last_modified=None) if scene.conditional else None


def _gzipped(scene: Scene) -> Reply:
    """Compressed although nobody asked for it, under a name of its own or (as broken servers do) under the same."""
    own = scene.dice.random() < 0.5 and scene.honest.etag is not None
    return replace(
        scene.honest,
        content=gzip.compress(scene.honest.bytes_at(0, 90 * KIB), 1, mtime=0),
        etag=f'"gz-{scene.path.content.seed:x}"' if own else scene.name,
        headers=(*scene.honest.headers, ("Content-Encoding", "gzip")),
    )


def _status(*codes: int, conditional: bool = False) -> Fault:
    def play(scene: Scene) -> Reply | None:
        if conditional and not scene.conditional:
            return None
        headers: tuple[tuple[str, str], ...] = ()
        code = scene.dice.choice(codes)
        if code == 429 or scene.dice.random() < 0.3:
            headers = (("Retry-After", "0"),)
        return Reply(b"not now\n", status=code, headers=headers, etag=None, last_modified=None)

    return play


FAULTS: dict[str, tuple[int, Fault]] = {
    "reset before the head": (5, lambda scene: replace(scene.honest, breaks=reset())),
    "closed before the head": (3, lambda scene: replace(scene.honest, breaks=fin())),
    "no head": (2, lambda scene: replace(scene.honest, breaks=stall())),
    "reset": (12, lambda scene: replace(scene.honest, breaks=reset(scene.somewhere))),
    "cut": (12, lambda scene: replace(scene.honest, breaks=fin(scene.somewhere))),
    "stalls": (3, lambda scene: replace(scene.honest, breaks=stall(scene.somewhere))),
    "slow": (2, lambda scene: replace(scene.honest, rate=8.0 * MIB)),
    "pushes back": (6, _status(503, 429)),
    "fails": (5, _status(500, 502, 504)),
    "refuses what is asked": (4, _status(412, 416, 404, conditional=True)),
    "ignores the range": (6, lambda scene: replace(scene.honest, ranges="ignore")),
    "ignores the range and resets": (
        3,
        lambda scene: replace(scene.honest, ranges="ignore", breaks=reset(scene.dice.randrange(scene.size))),
    ),
    "lies in Content-Range": (7, _lying_range),
    "a part that is too short": (3, _short_part),
    "longer than it is": (3, _too_long),
    "another version": (4, _other_version),
    "another ETag": (4, _flapping),
    "a weakened ETag": (3, _weakened),
    "another size, the same validator": (3, _same_name),
    "no validator": (3, _nameless),
    "a portal's page": (3, _portal),
    "gzip": (3, _gzipped),
    "chunked": (2, lambda scene: replace(scene.honest, framing="chunked")),
    "chunked, no end": (2, lambda scene: replace(scene.honest, framing="chunked", chunk_fault="truncated")),
    "chunked, bad size": (2, lambda scene: replace(scene.honest, framing="chunked", chunk_fault="bad_size")),
    "chunked, cut": (2, lambda scene: replace(scene.honest, framing="chunked", breaks=fin(scene.somewhere))),
    "ended by the close": (1, lambda scene: replace(scene.honest, framing="close")),
    "closes after it": (2, lambda scene: replace(scene.honest, after="fin")),
    "resets after it": (2, lambda scene: replace(scene.honest, after="reset")),
    "early hints": (1, lambda scene: replace(scene.honest, interim=(b"HTTP/1.1 103 Early Hints\r\n\r\n",))),
}


def honest(path: Path, number: int) -> Reply:
    """What a good server would say."""
    content = path.version(number)
    if path.kind == "modified":
        return Reply(content, etag=None)
    if path.kind == "weak":
        return Reply(content, etag=f"W/{content.etag}", last_modified=None)
    if path.kind == "bare":
        return Reply(content, etag=None, last_modified=None)
    return Reply(content, headers=(("Cache-Control", "no-cache"),) if path.kind == "revalidated" else ())


def play(seed: int, path: Path, number: int, request: Request) -> tuple[str, Reply]:
    """The answer with this number (from 0), and what it is called."""
    good = honest(path, number)
    if number % HONEST_EVERY == HONEST_EVERY - 1:
        return "honest", good
    dice = random.Random(f"{seed} {path.name} {number}")
    scene = Scene(dice, path, good, request)
    names, weights = list(FAULTS), [weight for weight, _ in FAULTS.values()]
    while True:
        (name,) = dice.choices(names, weights)
        reply = FAULTS[name][1](scene)
        if reply is not None:
            return name, reply


class Torturer(Origin):
    """A mirror that holds ``files`` and answers as the dice fall. ``told[path]``: what was played, in order."""

    def __init__(self, files: dict[str, Path], seed: int) -> None:
        super().__init__()
        self.files = files
        self.seed = seed
        self.told: dict[str, list[str]] = defaultdict(list)
        self._numbers: dict[str, itertools.count[int]] = defaultdict(itertools.count)

    def received(self, request: Request) -> Reply:
        super().received(request)
        path = self.files.get(request.path)
        if path is None:
            return Reply(b"nothing is here\n", status=404)
        if request.method != "GET":  # probes are answered as is, and use no answer up
            return honest(path, 0)
        name, reply = play(self.seed, path, next(self._numbers[request.path]), request)
        self.told[request.path].append(f"{name} ({request.get('range') or 'all'})")
        if request.get("if-range") is None:  # else it must match what is known, and founds nothing new
            remember(path, reply)
        return reply


def remember(path: Path, reply: Reply) -> None:
    """Note what the origin held, under the validator it named."""
    if reply.status != 200:
        return
    sent = {name.lower(): str(value) for name, value in reply.headers}
    etag = reply.etag
    if etag == "auto":
        assert isinstance(reply.content, Content)
        etag = reply.content.etag
    validator = sent.get("etag") or etag or sent.get("last-modified") or reply.last_modified or ""
    held = path.held.setdefault((validator, sent.get("content-encoding", "")), [])
    if not any(_same(reply.content, one) for one in held):
        held.append(reply.content)


def _same(one: Content | bytes, other: Content | bytes) -> bool:
    if isinstance(one, Content) and isinstance(other, Content):
        return (one.seed, one.size) == (other.seed, other.size)
    return one == other


def lasting_validator(path: Path) -> str:
    """What names the file as it is and stays."""
    return LAST_MODIFIED if path.kind == "modified" else path.content.etag
