"""What an answer tells about the path to its mirror, and what follows from it."""

from __future__ import annotations

import pytest

from fileproxy.clock import SystemClock
from fileproxy.control.quality import PathQuality, Quality, Sample
from fileproxy.errors import UpstreamError
from fileproxy.tcpinfo import NetPath, TcpInfo
from fileproxy.upstream.watch import LOOK_BYTES, LOOK_MOST, Watch, next_look
from tests.control.test_quality import NONE
from tests.house import Watched
from tests.origin import MIB, Content, Origin, Reply, reset
from tests.upstream.conftest import MakeTransport, read, want

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def test_each_answer_tells_of_the_path(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(Content(1, 5 * MIB)))
    path = PathQuality()
    made, _ = transport(origin, quality=path)
    assert path.report()["quality"] is None
    await read(await made.fetch(want("/f")))
    assert path.rtt_s is not None
    assert 0 < path.rtt_s < 5
    assert path.first_byte_s is not None
    assert path.quality is not None
    assert path.errors == 0


async def test_a_break_and_a_refusal_are_failures(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(Content(1, 2 * MIB), breaks=reset(MIB)))
    path = PathQuality()
    made, _ = transport(origin, quality=path)
    with pytest.raises(UpstreamError):
        await read(await made.fetch(want("/f")))
    assert path.errors > 0
    unheard = PathQuality()
    made, _ = transport("http://127.0.0.1:1", quality=unheard)
    with pytest.raises(UpstreamError):
        await made.fetch(want("/f"))
    assert unheard.errors > 0


@pytest.mark.option("upstreams.timeouts.idle")
async def test_auto_follows_the_quality_and_a_number_does_not(origin: Origin, transport: MakeTransport) -> None:
    path = PathQuality()
    made, _ = transport(origin, quality=path, idle_by_quality=True)
    assert made.idle_s == made.patience.idle_s == 60.0
    path.take(Sample(rtt_s=0.4), 0.0)
    assert made.idle_s == made.patience.idle_s == 120.0
    fixed, _ = transport(origin, timeouts={"idle": "7s"}, quality=path)
    assert fixed.idle_s == 7.0


class Readings(NetPath):
    """A path whose readings are scripted."""

    def __init__(self, *readings: TcpInfo) -> None:
        self._readings = list(readings)
        super().__init__("files/a")

    def tcp(self) -> TcpInfo | None:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]


async def test_loss_in_mid_body_changes_what_a_running_body_is_allowed(
    origin: Origin, transport: MakeTransport, counts: Watched
) -> None:
    """The round trip is 10 ms in every reading; from the second on, segments come behind gaps."""
    start = NONE._replace(rtt_s=0.01, mss=1448)
    path = PathQuality()
    watch = Watch(
        path,
        Readings(start, start._replace(data_segs_in=6000, out_of_order=900)),
        SystemClock(),
        first_byte_s=0.01,
        fresh=True,
    )
    assert path.quality is Quality.GOOD
    assert watch.next_at == LOOK_BYTES
    assert watch.look(LOOK_BYTES, 0.0) is Quality.VERY_POOR
    assert watch.next_at == 3 * LOOK_BYTES  # they came at once: twice as many until it looks again
    assert path.rtt_s == pytest.approx(0.01)


def test_a_fast_path_is_looked_at_by_time() -> None:
    """Ten times a second at most, and never more than twice as far as it was looked before."""
    assert next_look(0, 0.0) == next_look(LOOK_BYTES, 10.0) == LOOK_BYTES
    assert next_look(2 * LOOK_BYTES, 0.05) == 4 * LOOK_BYTES
    assert next_look(2 * LOOK_BYTES, 0.1) == 2 * LOOK_BYTES
    assert next_look(2 * LOOK_BYTES, 0.2) == LOOK_BYTES
    assert next_look(2 * LOOK_BYTES, 0.001) == 4 * LOOK_BYTES
    assert next_look(8 * LOOK_BYTES, 0.001) == LOOK_MOST == 8 * LOOK_BYTES
