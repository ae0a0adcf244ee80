"""Frozen values of the client: what is wanted, how it goes, how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fileproxy.client.checksum import Checksum
from fileproxy.model import Headers

MOST_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Options:
    """How a client downloads. Times in seconds, sizes in bytes.

    Attributes:
        connections: exactly so many at once; None = 4 to 16, found by measuring.
        limit_rate: bytes a second over all downloads of the client; None = no limit.
        timeout_s: give up after this long without a new byte. There is no total timeout.
        stall_s: a connection that is silent for this long is replaced.
        headers: sent to the hosts of the URLs, never to where redirects lead.
        mirrors_match: when two mirrors are taken to hold the same bytes (besides: when a checksum proves it).
    """

    connections: int | None = None
    limit_rate: int | None = None
    timeout_s: float = 60.0
    stall_s: float = 10.0
    headers: Headers = ()
    ca: str | None = None
    verify: bool = True
    mirrors_match: Literal["etag", "size+mtime"] = "etag"

    def __post_init__(self) -> None:
        if self.connections is not None and not 1 <= self.connections <= MOST_CONNECTIONS:
            raise ValueError(f"connections must be between 1 and {MOST_CONNECTIONS}")
        if self.limit_rate is not None and self.limit_rate < 1:
            raise ValueError("limit_rate must be at least 1 byte a second")
        if self.mirrors_match not in ("etag", "size+mtime"):
            raise ValueError("mirrors_match must be etag or size+mtime")
        if self.timeout_s <= 0 or self.stall_s <= 0:
            raise ValueError("timeouts must be positive")


@dataclass(frozen=True, slots=True)
class Job:
    """One file: the URLs that all hold it, and what is to become of it.

    Attributes:
        path: the file, a folder (ends with a slash or exists) for a name of the server's choice, or None = here.
        resume: continue an interrupted download.
        restart: start over when there is a part file that cannot be continued (or that ``resume`` does not ask for).
        force: replace an existing file.
        accept_unframed: take the close of a connection for the end of a file, where a server says no other end.
    """

    urls: tuple[str, ...]
    path: Path | None = None
    resume: bool = False
    restart: bool = False
    force: bool = False
    checksum: Checksum | None = None
    accept_unframed: bool = False


State = Literal["connecting", "fetching", "verifying", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is. ``received`` counts what is here, ``resumed`` of it from earlier; None = not known yet."""

    url: str
    path: Path | None
    state: State
    size: int | None
    received: int
    resumed: int
    rate: float  # bytes a second, lately
    connections: int
    elapsed_s: float

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at this rate; None when nobody can know."""
        if self.size is None or self.rate <= 0:
            return None
        return (self.size - self.received) / self.rate


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A file that is complete and has its final name."""

    path: Path
    size: int
    url: str  # the first of its mirrors that answered
    fetched: int  # bytes that came over the network for it, those asked twice included
    resumed: int  # bytes that were here before
    elapsed_s: float
    parallel: bool  # its parts could be joined; False: it was one answer
    checksum: str | None = None  # ``sha256=…`` when it was verified
    skipped: bool = False  # it was there already


@dataclass(frozen=True, slots=True)
class MirrorStatistics:
    """What one URL did."""

    tries: int = 0
    failures: int = 0
    bytes: int = 0
    bytes_per_s: float = 0.0  # of one connection, lately
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a client has done since it was made. Sizes in bytes.

    Attributes:
        received: bytes of bodies that came.
        wasted: of these, the ones that were here already (asked twice, or read forward).
        failures: tries that failed, for whatever reason; what they left undone was asked for again.
        hedges: segments asked a second time because the first was late; splits: late ones shared out.
        replaced: connections of a slow mirror given to a faster one.
        stalls: connections given up because nothing came.
        running: progress of the downloads that run now.
    """

    downloads: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    received: int = 0
    resumed: int = 0
    wasted: int = 0
    segments: int = 0
    failures: int = 0
    hedges: int = 0
    splits: int = 0
    replaced: int = 0
    stalls: int = 0
    redirects: int = 0
    connections_opened: int = 0
    mirrors: Mapping[str, MirrorStatistics] = field(default_factory=dict)
    running: tuple[Progress, ...] = ()
