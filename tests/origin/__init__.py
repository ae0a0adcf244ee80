"""A scripted HTTP origin on real sockets that can misbehave in every way a real one does.

A test reads like a play: what the origin will do is a list of :class:`Reply`, one consumed per request of a path, the
last one repeated. ::

    async with Origin() as origin:
        file = Content(seed=1, size=10 * MIB)
        origin.script("/f", Reply(status=503), Reply(file, breaks=reset(at=100_000)), Reply(file))
        ...                                     # ask through the proxy
        await origin.wait_for(lambda: origin.requests_of("/f") == 3)

* ``content.py``: deterministic bytes by offset; 10 GiB need no memory.
* ``play.py``: what one answer looks like, as frozen values (pure).
* ``wire.py``: one connection: reading requests, writing answers, breaking on command.
* ``server.py``: :class:`Origin` (in this event loop), :class:`OriginThread` (in a thread), :func:`blackhole`.
"""

from tests.origin.content import KIB, MIB, Content
from tests.origin.play import Break, Gate, Reply, fin, reset, stall
from tests.origin.server import Origin, OriginThread, blackhole
from tests.origin.wire import Request

__all__ = [
    "KIB",
    "MIB",
    "Break",
    "Content",
    "Gate",
    "Origin",
    "OriginThread",
    "Reply",
    "Request",
    "blackhole",
    "fin",
    "reset",
    "stall",
]
