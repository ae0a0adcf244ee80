"""The lines of the list of bans, and what a reader has of it (pure).

A line is its length, its CRC-32 and JSON: a header, then bans, and marks that say which place in the stream between
machines a ban got. A whole line that cannot be read counts as a hard ban of everything.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from fileproxy.cache.ban import KINDS, NOT_FED, Ban, FeedId

FORMAT = "fileproxy bans 1"
HIGHEST = 2**62  # no number is above it
READ = "read"  # in the place of a ban's identity: how far the stream between machines was read
_LINE_HEAD = 18  # "llllllll cccccccc "


class Unreadable(Exception):
    """The file has no header of ours: it is begun anew."""


@dataclass(slots=True)
class BanList:
    """What a reader has of the list.

    ``floor`` is the number before the oldest ban here; ``floor_feed`` the highest place in the stream between machines
    of those that are no longer here; ``read`` how far this machine has read that stream.
    """

    machine: str = ""
    generation: int = 0
    floor: int = 0
    floor_feed: FeedId = NOT_FED
    read: FeedId = NOT_FED
    end: int = 0  # bytes of the file that were read
    lines: int = 0
    newest: int = 0
    bans: list[Ban] = field(default_factory=list)  # by number
    places: dict[str, int] = field(default_factory=dict)  # uid → place in ``bans``

    def take(self, data: bytes) -> None:
        """Read whole lines that follow what was read; a torn one at the end is left."""
        *lines, _torn = data.split(b"\n")
        for line in lines:
            self._take_line(_payload(line))
            self.end += len(line) + 1
            self.lines += 1

    def _take_line(self, entry: dict[str, Any] | None) -> None:
        if self.generation == 0:
            self._take_header(entry)
            return
        if entry is not None and "mark" in entry:
            self._mark(str(entry["mark"]), entry)
            return
        ban = None if entry is None else _ban(entry)
        if ban is None or ban.seq <= self.newest:  # damaged: it may have said anything
            ban = Ban(self.newest + 1, "all", "", False, 0.0, f"damaged {self.newest + 1}", own=False)
        self.newest = ban.seq
        if ban.uid in self.places:  # two workers received the same one
            self._mark(ban.uid, {"feed": list(ban.feed)})
            return
        self.places[ban.uid] = len(self.bans)
        self.bans.append(ban)

    def _take_header(self, entry: dict[str, Any] | None) -> None:
        try:
            if entry is None or entry["format"] != FORMAT:
                raise ValueError
            self.machine, self.generation = str(entry["machine"]), int(entry["generation"])
            self.floor = self.newest = int(entry["floor"])
            self.floor_feed, self.read = _feed(entry["floor_feed"]), _feed(entry["read"])
        except (KeyError, ValueError, TypeError):
            raise Unreadable from None
        if self.generation < 1:
            raise Unreadable

    def _mark(self, uid: str, entry: dict[str, Any]) -> None:
        place = self.places.get(uid)
        try:
            feed = _feed(entry["feed"])
        except (KeyError, ValueError, TypeError):
            return
        if uid == READ:
            self.read = feed
        elif place is not None and feed != NOT_FED:
            self.bans[place] = replace(self.bans[place], feed=feed)


def encode_line(entry: dict[str, Any]) -> bytes:
    payload = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode()
    return b"%08x %08x %s\n" % (len(payload), zlib.crc32(payload), payload)


def _payload(line: bytes) -> dict[str, Any] | None:
    """What a whole line (without its newline) says, or None when it is damaged."""
    payload = line[_LINE_HEAD:]
    if line[:_LINE_HEAD] != b"%08x %08x " % (len(payload), zlib.crc32(payload)):
        return None
    try:
        entry = json.loads(payload)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def head_of(data: bytes) -> BanList:
    """The header alone. Raises Unreadable."""
    now = BanList()
    now.take(data[: data.find(b"\n") + 1])
    return now


def ban_entry(ban: Ban) -> dict[str, Any]:
    entry = {name: getattr(ban, name) for name in ("seq", "kind", "value", "soft", "at", "uid", "own")}
    return {**entry, "feed": list(ban.feed)}


def _ban(entry: dict[str, Any]) -> Ban | None:
    try:
        ban = Ban(
            int(entry["seq"]), entry["kind"], str(entry["value"]), bool(entry["soft"]), float(entry["at"]),
            str(entry["uid"]), bool(entry["own"]), _feed(entry["feed"]),
        )  # fmt: skip
    except (KeyError, ValueError, TypeError):
        return None
    return ban if ban.kind in KINDS and 0 < ban.seq < HIGHEST else None


def _feed(value: Any) -> FeedId:
    first, second = value
    return int(first), int(second)
