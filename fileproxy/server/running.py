"""The downloads this worker serves now, and what holds each back: origin, network, client, or a limit of ours.

``deliver`` notes only whether the client is waited for. Ten times a second all running downloads are looked at;
over the last looks that gives the share of time each side had to be waited for, at no cost to the bytes.

* the client's side, and its window was shut most of the time: ``client``; else ``network`` (its path);
* the source's side: a file that is stored, or a request in the line before an upstream: ``limit``; a far or lossy path
  to the mirror: ``network``; else ``origin``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from fileproxy.server.pace import ClientPace
    from fileproxy.server.trip import Trip

HeldBy = Literal["origin", "network", "client", "limit"]
NEW = 0.05  # weight of a look: about two seconds are remembered
SHOWN = 100  # the oldest ones are listed
BAD = ("poor", "very poor")  # qualities at which the path to the mirror is to blame


class Held:
    """Of one download: who is waited for now, and how often it was the client."""

    __slots__ = ("by_client", "share")

    def __init__(self) -> None:
        self.by_client = False
        self.share: float | None = None  # of the looks that found the client waited for, newer ones more

    def look(self) -> None:
        found = float(self.by_client)
        self.share = found if self.share is None else self.share + NEW * (found - self.share)

    @property
    def clients(self) -> bool:
        """It is the client's side that holds the download back."""
        return self.by_client if self.share is None else self.share >= 0.5


class Source(Protocol):
    """An upstream, as far as its running downloads are explained."""

    def holds(self, ask: str) -> bool: ...

    def qualities(self) -> Mapping[str, str | None]: ...


def held_by(
    *, clients: bool, window_shut: bool, stored: bool, lined_up: bool, mirrors: Mapping[str, str | None]
) -> tuple[HeldBy, str]:
    """Who holds a download back, and on which side (pure).

    Args:
        clients: the client's side is waited for.
        window_shut: its receive window was.
        stored: what is read lies in a cache of ours.
        lined_up: the request waits before an upstream, for its rate or concurrency limit.
        mirrors: quality of the mirrors that may be read from, by label.
    """
    if clients:
        return ("client" if window_shut else "network"), "client"
    if stored or lined_up:
        return "limit", "cache" if stored else "upstream"
    if mirrors and all(quality in BAD for quality in mirrors.values()):
        return "network", "origin"
    return "origin", "origin"


class Downloads:
    """The running ones."""

    def __init__(self) -> None:
        self._trips: dict[Trip, ClientPace | None] = {}

    def enter(self, trip: Trip, pace: ClientPace | None) -> None:
        self._trips[trip] = pace

    def leave(self, trip: Trip) -> None:
        del self._trips[trip]

    def look(self) -> None:
        """Ten times a second."""
        for trip in self._trips:
            trip.held.look()

    def report(self, now: float, sources: Mapping[str, Source]) -> list[dict[str, Any]]:
        """The oldest of them, for ``/stats``. ``sources``: the upstreams by name."""
        return [
            _row(trip, pace, now, sources)
            for trip, pace in sorted(self._trips.items(), key=lambda one: one[0].started)[:SHOWN]
            if trip.ask is not None and trip.route is not None
        ]


def _row(trip: Trip, pace: ClientPace | None, now: float, sources: Mapping[str, Source]) -> dict[str, Any]:
    assert trip.ask is not None
    assert trip.route is not None
    answer = trip.answer
    source = sources.get(trip.route.upstream)
    found = {} if source is None else source.qualities()
    if answer is not None and answer.mirror in found:
        found = {answer.mirror: found[answer.mirror]}
    by, side = held_by(
        clients=trip.started_sending and trip.held.clients,
        window_shut=pace is not None and pace.shut,
        stored=answer is not None and trip.how in ("HIT", "STALE", "REVALIDATED"),
        lined_up=source is not None and source.holds(trip.id),
        mirrors=found,
    )
    return {
        "id": trip.id,
        "client": trip.ask.client,
        "target": trip.target,
        "route": trip.route.path,
        "cache": trip.how or None,
        "mirror": answer.mirror or None if answer is not None else None,
        "seconds": round(now - trip.started, 3),
        "bytes": trip.delivered,
        "length": None if trip.reply is None else trip.reply.declared,
        "held_back_by": by,
        "side": side,
        "client_path": None if pace is None else pace.report(),
    }
