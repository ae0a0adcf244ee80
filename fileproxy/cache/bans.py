"""Purges: an ordered list of bans that nobody misses.

A record carries the number of the newest ban it was tested against. While that is the newest there is, it may be used
as it is: one comparison with a number in shared memory. Else it is tested against the newer ones (``judge``). A worker
that was away, or is started later, meets the same list: nothing has to be delivered to anybody.

Numbers are one machine's own. What comes from another machine (a record in the shared store) says instead how far its
writer had read the stream of bans between machines (``position``, ``judge_foreign``; ``banfeed.py``).
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fileproxy.cache.ban import GONE, KINDS, NOT_FED, Ban, FeedId, Judged, Kind, judge
from fileproxy.cache.banfile import KEEP, BanFile
from fileproxy.cache.banlist import BanList
from fileproxy.clock import Clock
from fileproxy.model import Record

__all__ = ["GONE", "KEEP", "KINDS", "Ban", "Bans", "Judged", "Kind"]

RETRY_S = 1.0


class Bans:
    """The bans of one machine, as one worker sees them.

    ``folder`` is the disk tier's (so that the list lives as long as what it speaks of), or without one the run folder.
    A folder that cannot be written to is read once and tried again each second; until then nothing can be added, and
    ``problem`` says why. ``add``, ``add_all``, ``receive`` and ``mark`` wait for the disk and may be called in any
    thread; all else belongs to the event loop's.
    """

    def __init__(self, folder: Path, clock: Clock, *, keep: int = KEEP) -> None:
        self._file = BanFile(folder, clock, keep)
        self._clock = clock
        self._list = BanList()
        self._numbers: list[int] = []
        self._retry_at = 0.0
        self._closed = False
        self._open()

    @property
    def seq(self) -> int:
        """The newest ban's number, whoever added it. Cheap: asked for each request."""
        file = self._file
        if file.problem is not None and not self._closed and self._clock.now() >= self._retry_at:
            self._open()
        return file.newest[0]

    def by_heart(self) -> BanFile:
        """Whose ``newest`` is ``seq``: for the fast front. It looks for no list that was missing; ``seq`` does."""
        return self._file

    @property
    def problem(self) -> str | None:
        """Why nothing can be added, or None."""
        return self._file.problem

    @property
    def machine(self) -> str:
        """Whose numbers these are: changes when the list was lost and begun anew."""
        return self._list.machine

    def statistics(self) -> dict[str, Any]:
        """For ``/stats`` and ``/health``."""
        wrong = {"status": "degraded", "detail": self.problem} if self.problem else {}
        return {"newest": self.seq, "kept": len(self._list.bans), **wrong}

    def close(self) -> None:
        """Let go of the shared numbers. ``seq`` then stays what it was."""
        self._closed = True
        self._file.close()

    # --- adding -------------------------------------------------------------------------------------------------------

    def add(self, kind: Kind, value: str, soft: bool = False) -> Ban:
        """Add one ban. It is on disk, and holds in every worker, when this returns. Raises OSError: it was not added.

        Waits for the disk: call it in a thread, or use ``announce``.
        """
        return self.add_all([(kind, value, soft)])[0]

    def add_all(self, wanted: Sequence[tuple[Kind, str, bool]]) -> list[Ban]:
        """Add several, all or none, with one wait for the disk. Raises OSError."""
        at = self._clock.time()

        def make(newest: int) -> list[Ban]:
            return [
                Ban(newest + number, kind, value, soft, at, secrets.token_hex(8))
                for number, (kind, value, soft) in enumerate(wanted, 1)
            ]

        return self._file.append(make)

    async def announce(self, wanted: Sequence[tuple[Kind, str, bool]]) -> list[Ban]:
        """``add_all`` in a thread. Raises OSError."""
        bans = await asyncio.to_thread(self.add_all, wanted)
        self.catch_up()
        return bans

    def receive(self, foreign: Sequence[Ban]) -> list[Ban]:
        """Add bans that other machines made; their numbers become ours. Raises OSError. (In a thread.)"""

        def make(newest: int) -> list[Ban]:
            return [
                Ban(newest + number, one.kind, one.value, one.soft, one.at, one.uid, False, one.feed)
                for number, one in enumerate(foreign, 1)
            ]

        return self._file.append(make)

    def mark(self, places: Sequence[tuple[str, FeedId]]) -> None:
        """Note which place in the stream between machines bans have got (by uid; ``READ``: how far it was read).

        Raises OSError. (In a thread.)
        """
        self._file.mark(places)

    # --- testing ------------------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Read what other workers added. Costs two comparisons when there is nothing."""
        if self.problem is not None or not self._file.moved(self._list):
            return
        try:
            self._use(self._file.read(self._list))
        except OSError:
            self._open()  # says in ``problem`` what is wrong

    def judge(self, record: Record) -> Judged:
        """Test a record against the bans that are newer than the one it carries."""
        if record.ban == self.seq:
            return Judged("keep", record)
        self.catch_up()
        known = self._list
        if not known.floor <= record.ban <= known.newest:
            return GONE  # older than what is kept, or of a list that is lost
        return judge(record, known.bans[bisect_right(self._numbers, record.ban) :], known.newest)

    def position(self, seq: int) -> FeedId:
        """How far in the stream between machines somebody has tested who tested up to our ban ``seq``."""
        self.catch_up()
        known = self._list
        if seq >= known.newest:
            return known.read
        if seq < known.floor:
            return NOT_FED
        untested = [ban.feed for ban in known.bans[bisect_right(self._numbers, seq) :] if ban.feed != NOT_FED]
        return min([known.read, *map(_just_before, untested)])

    def judge_foreign(self, record: Record, position: FeedId) -> Judged:
        """Test a record whose writer, on another machine, had read the stream up to ``position``; then it is ours."""
        self.catch_up()
        known = self._list
        if position < known.floor_feed:
            return GONE
        # What the stream has not got yet, nobody else can have tested.
        newer = [ban for ban in known.bans if ban.feed == NOT_FED or ban.feed > position]
        return judge(record, newer, known.newest)

    # --- for the feed -------------------------------------------------------------------------------------------------

    @property
    def read(self) -> FeedId:
        """How far this machine has read the stream between machines."""
        return self._list.read

    @property
    def kept(self) -> list[Ban]:
        """All bans that are kept, by number."""
        return self._list.bans

    def known(self, uid: str) -> Ban | None:
        """The ban of this identity, whoever made it."""
        place = self._list.places.get(uid)
        return None if place is None else self._list.bans[place]

    # ------------------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._retry_at = self._clock.now() + RETRY_S
        try:
            if self._file.open():
                self._use(self._file.read(BanList()))
            else:
                self._use(self._file.read_only())
        except OSError as error:
            self._file.problem = self._file.problem or f"{error.filename or 'bans'}: {error.strerror or error}"

    def _use(self, now: BanList) -> None:
        self._list = now
        self._numbers = [ban.seq for ban in now.bans]


def _just_before(place: FeedId) -> FeedId:
    return (place[0], place[1] - 1) if place[1] else (place[0] - 1, 2**64 - 1)
