"""Whole downloads from scripted origins: what breaks is continued, what may not be joined never is."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from fileproxy.client import ChecksumMismatch, Client, DownloadFailed, PartFileError, Progress
from fileproxy.client.contact import FIRST
from fileproxy.client.partfile import journal_of, part_of, read_journal
from tests.client.conftest import Get, left_overs, sha256
from tests.origin import MIB, Content, Gate, Origin, Reply, fin, reset, stall

pytestmark = pytest.mark.loops("asyncio", "uvloop")

BIG = Content(seed=41, size=5 * MIB + 12_345)
OTHER = Content(seed=42, size=BIG.size)
SMALL = Content(seed=43, size=1000)


# --- honest origins --------------------------------------------------------------------------------------------------


async def test_a_large_file_comes_over_several_connections(origin: Origin, get: Get, out: Path) -> None:
    origin.serve("/f", BIG)
    result = await get(origin, content=BIG)
    assert result.parallel
    assert origin.accepted > 1
    assert left_overs(out) == []
    assert all(request.get("accept-encoding") == "identity" for request in origin.requests)
    # Whatever was asked for after the first answer was asked for under its validator.
    assert all(request.get("if-range") == BIG.etag for request in origin.requests[1:])


async def test_a_small_file_is_one_request(origin: Origin, get: Get) -> None:
    origin.serve("/f", SMALL)
    await get(origin, content=SMALL)
    assert len(origin.requests) == 1


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
async def test_an_empty_file(origin: Origin, get: Get, ranges: str) -> None:
    origin.script("/f", Reply(b"", ranges=ranges))  # type: ignore[arg-type]
    result = await get(origin)
    assert result.size == 0
    assert result.path.read_bytes() == b""


async def test_one_connection_asks_for_every_byte_once(origin: Origin, get: Get) -> None:
    origin.serve("/f", BIG)
    result = await get(origin, content=BIG, connections=1)
    assert origin.sent["/f"] == BIG.size == result.fetched
    assert origin.accepted == 1


async def test_the_number_of_connections_is_a_limit(origin: Origin, get: Get) -> None:
    most = 0

    def watch(progress: Progress) -> None:
        nonlocal most
        most = max(most, origin.open)

    origin.script("/f", Reply(BIG, rate=20 * MIB))
    await get(origin, content=BIG, connections=3, progress=watch)
    assert 2 <= most <= 3


async def test_last_modified_is_a_validator_where_it_is_strong(origin: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG, etag=None))
    assert (await get(origin, content=BIG)).parallel
    assert origin.requests[-1].get("if-range") == "Sun, 01 Nov 2026 12:00:00 GMT"


# --- origins that break ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("break_", [reset(100_000), fin(100_000), reset(), fin()], ids=["reset", "fin", "0", "0fin"])
async def test_breaks_are_continued_at_the_next_missing_byte(origin: Origin, get: Get, break_: object) -> None:
    bad = Reply(BIG, breaks=break_)  # type: ignore[arg-type]
    origin.script("/f", bad, bad, Reply(BIG), bad, bad, Reply(BIG), bad, Reply(BIG))
    client = Client(connections=2)
    result = await get(origin, content=BIG, client=client)
    assert client.statistics().failures >= 3
    assert result.fetched < BIG.size + 2 * MIB


async def test_a_refusal_with_retry_after_is_waited_for(origin: Origin, get: Get) -> None:
    busy = Reply(b"busy", status=503, headers=(("Retry-After", "1"),))
    origin.script("/f", busy, Reply(BIG), busy, Reply(BIG))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await get(origin, content=BIG, connections=1)
    assert loop.time() - began >= 2.0  # a lower bound: it did wait, twice


async def test_a_retry_after_beyond_our_patience_ends_it_at_once(origin: Origin, get: Get) -> None:
    origin.script("/f", Reply(b"busy", status=503, headers=(("Retry-After", "3600"),)))
    with pytest.raises(DownloadFailed, match="answered 503"):
        await get(origin, timeout=30.0)
    assert len(origin.requests) == 1


async def test_a_stalled_connection_is_replaced(origin: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG), Reply(BIG, breaks=stall(50_000)), Reply(BIG))
    client = Client(connections=1, stall=0.3)
    await get(origin, content=BIG, client=client)
    assert client.statistics().stalls == 1


async def test_a_silent_segment_is_asked_for_again_by_a_free_connection(origin: Origin, get: Get) -> None:
    """Long before it counts as stalled."""
    origin.script("/f", Reply(BIG), Reply(BIG, breaks=stall(1000)), Reply(BIG))
    client = Client(connections=4, stall=30.0)
    await get(origin, content=BIG, client=client)
    statistics = client.statistics()
    assert statistics.stalls == 0
    assert statistics.hedges + statistics.splits > 0


async def test_an_origin_that_goes_away_for_good_is_given_up_and_nothing_is_lost(
    origin: Origin, get: Get, out: Path
) -> None:
    origin.script("/f", Reply(BIG), Reply(BIG, breaks=stall(100_000)), Reply(breaks=stall()))
    with pytest.raises(DownloadFailed, match=r"no new byte came for 0\.5 s.*what is here was kept"):
        await get(origin, connections=1, timeout=0.5, stall=0.2)
    assert not out.exists()
    journal = read_journal(out)
    assert journal is not None
    kept = sum(end - first for first, end in journal.done)
    assert kept >= FIRST + 100_000
    origin.serve("/f", BIG)
    result = await get(origin, content=BIG, resume=True)
    assert result.resumed == kept


async def test_a_refused_connection_is_tried_again(origin: Origin, get: Get) -> None:
    origin.serve("/f", SMALL)
    await origin.refuse()

    client = Client()
    running = asyncio.create_task(get(origin, content=SMALL, client=client))
    async with asyncio.timeout(10):
        while client.statistics().failures < 2:
            await asyncio.sleep(0)
    await origin.listen()
    await running


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_an_answer_that_does_not_mend_is_told_at_once(origin: Origin, get: Get, out: Path, status: int) -> None:
    origin.script("/f", Reply(b"no", status=status))
    with pytest.raises(DownloadFailed, match=f"answered {status}"):
        await get(origin)
    assert len(origin.requests) == 1
    assert list(out.parent.iterdir()) == []


async def test_nobody_there(get: Get, free_port: int) -> None:
    with pytest.raises(DownloadFailed, match="no connection"):
        await get(f"http://127.0.0.1:{free_port}/f", timeout=0.3)


# --- origins that lie ------------------------------------------------------------------------------------------------


async def test_a_lying_content_range_is_never_joined(origin: Origin, get: Get) -> None:
    lie = Reply(BIG, content_range=f"bytes 77-{77 + MIB}/{BIG.size}")
    other_size = Reply(BIG, content_range="bytes 0-262143/262144")
    origin.script("/f", lie, Reply(BIG), lie, other_size, Reply(BIG), lie, Reply(BIG))
    await get(origin, content=BIG)


async def test_a_flipping_etag_is_never_joined(origin: Origin, get: Get) -> None:
    flip = Reply(OTHER)
    origin.script("/f", Reply(BIG), flip, flip, Reply(BIG), flip, Reply(BIG))
    await get(origin, content=BIG)


async def test_a_file_that_changed_ends_visibly(origin: Origin, get: Get, out: Path) -> None:
    origin.script("/f", Reply(BIG), Reply(OTHER))
    with pytest.raises(DownloadFailed, match="another version of the file"):
        await get(origin, timeout=10.0)
    assert not out.exists()
    assert part_of(out).read_bytes()[:FIRST] == BIG.read(0, FIRST)


async def test_whole_files_instead_of_parts_are_not_spliced(origin: Origin, get: Get) -> None:
    whole = Reply(BIG, ranges="ignore")
    origin.script("/f", Reply(BIG), whole, whole, Reply(BIG))
    await get(origin, content=BIG)


async def test_an_origin_without_ranges_is_read_forward_after_a_break(origin: Origin, get: Get) -> None:
    whole = Reply(BIG, ranges="ignore")
    origin.script("/f", Reply(BIG, ranges="ignore", breaks=reset(3 * MIB)), whole)
    client = Client()
    await get(origin, content=BIG, client=client)
    assert len(origin.requests) == 2
    assert origin.requests[1].get("if-range") == BIG.etag


async def test_an_origin_that_goes_back_to_whole_files_is_read_forward(origin: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG), Reply(BIG, ranges="ignore"))
    await get(origin, content=BIG)


async def test_a_part_that_is_too_short_is_completed(origin: Origin, get: Get) -> None:
    """206 with less than was asked (RFC 9110 §15.3.7 allows it) is progress; a body shorter than its head is not."""
    short = Reply(BIG, length=FIRST - 7, breaks=fin(FIRST - 7))
    origin.script("/f", short, Reply(BIG))
    await get(origin, content=BIG)


async def test_parts_that_say_much_and_hold_nothing_are_no_progress(origin: Origin, get: Get) -> None:
    """Framed and ended as it should be, but empty: asked for again after a pause each time, and given up."""
    empty = (
        f"HTTP/1.1 206 Partial Content\r\nETag: {BIG.etag}\r\n"
        f"Content-Range: bytes {FIRST}-{FIRST + 9}/{BIG.size}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    origin.script("/f", Reply(BIG), Reply(raw=empty.encode()))
    with pytest.raises(DownloadFailed, match="no new byte"):
        await get(origin, connections=1, timeout=1.0)
    assert len(origin.requests) < 50


@pytest.mark.parametrize("seed", range(6))
async def test_a_mean_origin(origin: Origin, get: Get, seed: int) -> None:
    """Every fault in turn, at random; every fourth answer is honest."""
    faults = [
        Reply(BIG, breaks=reset(70_000)),
        Reply(BIG, breaks=fin(10)),
        Reply(BIG, breaks=stall(90_000)),
        Reply(BIG, breaks=reset()),
        Reply(b"busy", status=503),
        Reply(BIG, ranges="ignore"),
        Reply(OTHER),
        Reply(BIG, etag=None, last_modified=None),
        Reply(BIG, content_range="bytes 5-9/100"),
        Reply(BIG, framing="chunked", chunk_fault="truncated"),
    ]
    dice = random.Random(seed)
    script = [Reply(BIG)]
    for _ in range(60):
        script += [*(dice.choice(faults) for _ in range(3)), Reply(BIG)]
    origin.script("/f", *script)
    await get(origin, content=BIG, stall=0.3, connections=dice.choice([1, 3, 8]))


# --- one answer only -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(BIG, etag=None, last_modified=None),
        Reply(BIG, etag='W/"1"'),
        Reply(BIG, framing="chunked", ranges="ignore"),
        Reply(BIG, etag=None, last_modified=None, framing="chunked", ranges="ignore"),
    ],
    ids=["no-validator", "weak", "no-size", "nothing"],
)
async def test_what_cannot_be_joined_is_one_stream(origin: Origin, get: Get, out: Path, reply: Reply) -> None:
    origin.script("/f", reply)
    result = await get(origin, content=BIG)
    assert not result.parallel
    assert left_overs(out) == []


@pytest.mark.parametrize("break_", [reset(2 * MIB), fin(2 * MIB), stall(2 * MIB)], ids=["reset", "fin", "stall"])
async def test_a_stream_that_breaks_fails_visibly_and_leaves_nothing(
    origin: Origin, get: Get, out: Path, break_: object
) -> None:
    origin.script("/f", Reply(BIG, etag=None, last_modified=None, ranges="ignore", breaks=break_))  # type: ignore[arg-type]
    with pytest.raises(DownloadFailed, match="cannot be continued"):
        await get(origin, timeout=0.5)
    assert list(out.parent.iterdir()) == []


async def test_the_close_of_a_connection_proves_no_end(origin: Origin, get: Get, out: Path) -> None:
    origin.script("/f", Reply(BIG, framing="close", ranges="ignore"))
    with pytest.raises(DownloadFailed, match="proves nothing"):
        await get(origin)
    assert list(out.parent.iterdir()) == []
    await get(origin, content=BIG, accept_unframed=True)
    out.unlink()
    await get(origin, content=BIG, checksum=f"sha256={BIG.sha256()}")
    out.unlink()
    origin.script("/f", Reply(BIG, framing="close", ranges="ignore", breaks=fin(MIB)))
    with pytest.raises(ChecksumMismatch):
        await get(origin, checksum=f"sha256={BIG.sha256()}")
    assert not out.exists()


# --- mirrors ---------------------------------------------------------------------------------------------------------


async def test_mirrors_share_the_work(origin: Origin, mirror: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG, rate=8 * MIB))
    mirror.script("/f", Reply(BIG, rate=8 * MIB))
    await get(origin, mirror, content=BIG)
    assert min(origin.sent["/f"], mirror.sent["/f"]) > 0


async def test_a_dead_mirror_costs_nothing_but_its_tries(origin: Origin, get: Get, free_port: int) -> None:
    origin.serve("/f", BIG)
    await get(f"http://127.0.0.1:{free_port}/f", origin, content=BIG)


async def test_a_mirror_that_dies_in_the_middle_is_replaced(origin: Origin, mirror: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG), Reply(BIG, breaks=reset(20_000)), Reply(b"gone", status=404))
    mirror.serve("/f", BIG)
    await get(origin, mirror, content=BIG)


async def test_a_slow_mirror_does_not_hold_up_the_end(origin: Origin, mirror: Origin, get: Get) -> None:
    """It would need a minute for what it was given; others take that over."""
    mirror.script("/f", Reply(BIG, rate=4096.0))
    origin.script("/f", Reply(BIG, rate=4 * MIB))
    client = Client(stall=60.0)
    async with asyncio.timeout(15):
        await get(origin, mirror, content=BIG, client=client)
    assert mirror.requests
    counted = client.statistics()
    assert counted.hedges + counted.splits + counted.replaced > 0


@pytest.mark.parametrize("connections", [1, 4])
async def test_slow_flights_give_way_when_they_hold_all_connections(
    origin: Origin, mirror: Origin, get: Get, connections: int
) -> None:
    """The fast mirror is away for a moment, so the slow one gets every connection, for more than a minute's work."""
    refused = [Reply(b"", status=503)] * connections
    origin.script("/f", Reply(BIG, rate=4 * MIB), *refused, Reply(BIG, rate=4 * MIB))
    mirror.script("/f", Reply(BIG, rate=4096.0))
    client = Client(stall=60.0, connections=connections)
    async with asyncio.timeout(15):
        await get(origin, mirror, content=BIG, client=client)
    assert mirror.requests
    assert client.statistics().replaced > 0
    assert client.statistics().mirrors[f"{origin.url}/f"].bytes > BIG.size * 0.9


async def test_a_slow_mirror_is_left_only_for_one_that_delivers(origin: Origin, mirror: Origin, get: Get) -> None:
    """What was fast has gone for good: whoever still sends is kept, however slow."""
    origin.script("/f", Reply(BIG, rate=16 * MIB), Reply(b"", status=503))
    mirror.script("/f", Reply(BIG, rate=1.5 * MIB))
    client = Client(stall=60.0, connections=1)
    async with asyncio.timeout(15):
        await get(origin, mirror, content=BIG, client=client)
    assert len(origin.requests) > 2  # it was tried now and then
    assert client.statistics().replaced == 0
    assert mirror.accepted == 1  # nothing of it was broken off


async def test_mirrors_of_another_version_are_not_joined(origin: Origin, mirror: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG, rate=16 * MIB))
    mirror.serve("/f", OTHER)
    client = Client()
    await get(origin, mirror, content=BIG, client=client)
    assert client.statistics().mirrors[f"{mirror.url}/f"].bytes == 0


async def test_equal_size_and_time_join_only_where_the_user_says_so(origin: Origin, mirror: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG, rate=8 * MIB))
    mirror.script("/f", Reply(BIG, etag='"another"', rate=8 * MIB))
    client = Client()
    await get(origin, mirror, content=BIG, client=client)
    assert client.statistics().mirrors[f"{mirror.url}/f"].bytes == 0
    client = Client(mirrors_match="size+mtime")
    await get(origin, mirror, content=BIG, client=client, force=True)
    assert client.statistics().mirrors[f"{mirror.url}/f"].bytes > 0


@pytest.mark.parametrize(
    "other",
    [
        Reply(BIG, etag='"another"', last_modified="Sun, 01 Nov 2026 12:00:01 GMT"),
        Reply(BIG, etag='"another"', headers=(("Content-Encoding", "gzip"),)),
        Reply(Content(seed=41, size=BIG.size - 1), etag='"another"'),
        Reply(BIG, etag='W/"weak"'),
    ],
    ids=["time", "coding", "size", "weak"],
)
async def test_and_only_when_they_are_equal(origin: Origin, mirror: Origin, get: Get, other: Reply) -> None:
    origin.script("/f", Reply(BIG, rate=8 * MIB))
    mirror.script("/f", other)
    client = Client(mirrors_match="size+mtime")
    await get(origin, mirror, content=BIG, client=client)
    assert mirror.requests
    assert client.statistics().mirrors[f"{mirror.url}/f"].bytes == 0


async def test_a_checksum_lets_mirrors_of_equal_size_join(origin: Origin, mirror: Origin, get: Get, out: Path) -> None:
    origin.script("/f", Reply(BIG, rate=8 * MIB))
    mirror.script("/f", Reply(BIG, etag='"another"', last_modified=None, rate=8 * MIB))
    client = Client()
    await get(origin, mirror, content=BIG, client=client, checksum=f"sha256={BIG.sha256()}")
    assert client.statistics().mirrors[f"{mirror.url}/f"].bytes > 0
    # And when the mirror held other bytes, it shows.
    out.unlink()
    mirror.script("/f", Reply(OTHER, rate=8 * MIB))
    with pytest.raises(ChecksumMismatch):
        await get(origin, mirror, checksum=f"sha256={BIG.sha256()}")
    assert not out.exists()


# --- redirects -------------------------------------------------------------------------------------------------------


def to(url: str, status: int = 302) -> Reply:
    return Reply(b"", status=status, headers=(("Location", url),))


async def test_redirects_are_followed_and_remembered(origin: Origin, mirror: Origin, get: Get) -> None:
    origin.script("/f", to(f"{mirror.url}/real?sig=1"))
    mirror.serve("/real", BIG)
    client = Client(headers={"Authorization": "secret"})
    await get(origin, content=BIG, client=client)
    assert len(origin.requests) == 1  # segments go straight to where it led
    assert origin.requests[0].get("authorization") == "secret"
    assert all(request.get("authorization") is None for request in mirror.requests)
    assert client.statistics().redirects == 1


async def test_a_signed_link_that_expired_is_refreshed(origin: Origin, mirror: Origin, get: Get) -> None:
    origin.script("/f", to(f"{mirror.url}/one"), to(f"{mirror.url}/two"))
    mirror.script("/one", Reply(BIG), Reply(b"expired", status=403))
    mirror.serve("/two", BIG)
    await get(origin, content=BIG)
    assert mirror.requests_of("/two")


async def test_redirects_without_end(origin: Origin, get: Get) -> None:
    origin.script("/f", to("/f"))
    with pytest.raises(DownloadFailed, match="one redirect too many"):
        await get(origin)


@pytest.mark.parametrize("location", ["ftp://a/f", "http://u:p@127.0.0.1/f", "http://[", "file:///etc/passwd"])
async def test_redirects_to_what_is_no_origin(origin: Origin, get: Get, location: str) -> None:
    origin.script("/f", to(location))
    with pytest.raises(DownloadFailed, match="redirected to"):
        await get(origin)


async def test_tls(secure_origin: Origin, origin: Origin, get: Get, authority: object) -> None:
    secure_origin.script("/f", Reply(BIG), to(f"{origin.url}/f"))
    origin.serve("/f", BIG)
    with pytest.raises(DownloadFailed, match="certificate"):
        await get(secure_origin)
    with pytest.raises(DownloadFailed, match="https to http"):
        await get(secure_origin, ca=str(authority.pem), timeout=1.0)  # type: ignore[attr-defined]
    assert not origin.requests


# --- resuming --------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """What the progress callback raises to break off."""


async def interrupted(origin: Origin, get: Get, out: Path, after: int = 2 * MIB) -> int:
    """Break off a download of ``BIG``; how many bytes its journal names."""

    def stop(progress: Progress) -> None:
        if progress.received >= after:
            raise Stop

    gate = Gate()
    origin.script("/f", Reply(BIG), Reply(BIG, breaks=stall(after, lasts=gate)))
    with pytest.raises(Stop):
        await get(origin, connections=1, progress=stop)
    gate.open()
    journal = read_journal(out)
    assert journal is not None
    return sum(end - first for first, end in journal.done)


async def test_an_interrupted_download_is_continued(origin: Origin, get: Get, out: Path) -> None:
    kept = await interrupted(origin, get, out)
    assert kept >= 2 * MIB
    origin.serve("/f", BIG)
    asked = len(origin.requests)
    result = await get(origin, content=BIG, resume=True, connections=1)
    assert result.resumed == kept
    assert sum(request.sent for request in origin.requests[asked:]) == BIG.size - kept


async def test_with_a_name_of_the_servers_choice_too(origin: Origin, get: Get, out: Path) -> None:
    kept = await interrupted(origin, get, out)
    origin.serve("/f", BIG)
    assert (await get(origin, content=BIG, resume=True, path=out.parent)).resumed == kept


@pytest.mark.parametrize("by_folder", [False, True])
@pytest.mark.parametrize(
    "now",
    [
        Reply(OTHER),
        Reply(Content(seed=41, size=BIG.size - 1), etag=BIG.etag),
        Reply(Content(seed=41, size=1000), etag=BIG.etag),
        Reply(BIG, etag=None),
        Reply(BIG, etag=None, last_modified=None),
        Reply(BIG, headers=(("Content-Encoding", "gzip"),)),
    ],
    ids=["etag", "size", "short", "no-etag", "no-validator", "coding"],
)
async def test_another_version_is_not_continued(
    origin: Origin, get: Get, out: Path, now: Reply, by_folder: bool
) -> None:
    kept = await interrupted(origin, get, out)
    origin.script("/f", now)
    path = out.parent if by_folder else out
    with pytest.raises(PartFileError, match=r"the file has changed.*--restart"):
        await get(origin, resume=True, path=path)
    assert (await get(origin, resume=True, restart=True, path=path)).resumed == 0
    assert isinstance(now.content, Content)
    assert sha256(out) == now.content.sha256()
    assert kept


async def test_what_is_complete_but_for_its_name_needs_no_origin(origin: Origin, get: Get, out: Path) -> None:
    origin.serve("/f", BIG)
    with pytest.raises(ChecksumMismatch):
        await get(origin, checksum="sha256=" + "0" * 64)
    asked = len(origin.requests)
    result = await get(origin, content=BIG, resume=True)
    assert (result.resumed, len(origin.requests)) == (BIG.size, asked)


async def test_existing_files_are_not_touched(origin: Origin, get: Get, out: Path) -> None:
    origin.serve("/f", BIG)
    out.write_bytes(b"mine")
    with pytest.raises(PartFileError, match="exists; --force replaces it"):
        await get(origin)
    with pytest.raises(PartFileError, match="not the size"):
        await get(origin, resume=True)
    assert out.read_bytes() == b"mine"
    assert left_overs(out) == []
    await get(origin, content=BIG, force=True)
    assert (await get(origin, content=BIG, resume=True)).skipped
    with pytest.raises(ChecksumMismatch):
        await get(origin, resume=True, checksum="md5=" + "0" * 32)
    assert sha256(out) == BIG.sha256()


async def test_a_cancelled_download_is_continued(origin: Origin, get: Get, out: Path) -> None:
    origin.script("/f", Reply(BIG), Reply(BIG, breaks=stall(300_000)))
    running = asyncio.create_task(get(origin, connections=1))
    await origin.wait_for(lambda: origin.sent["/f"] >= FIRST + 300_000)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert journal_of(out).exists()
    origin.serve("/f", BIG)
    assert (await get(origin, content=BIG, resume=True)).resumed >= FIRST


# --- checksums -------------------------------------------------------------------------------------------------------


async def test_a_wrong_checksum_deletes_nothing_and_gives_no_name(origin: Origin, get: Get, out: Path) -> None:
    origin.serve("/f", BIG)
    with pytest.raises(ChecksumMismatch, match=rf"f\.part: sha256 is {BIG.sha256()}, but 0+ was promised; it was kept"):
        await get(origin, checksum="sha256=" + "0" * 64)
    assert not out.exists()
    assert sha256(part_of(out)) == BIG.sha256()


async def test_a_right_checksum_is_said(origin: Origin, get: Get) -> None:
    origin.serve("/f", BIG)
    assert (await get(origin, checksum=f"sha256={BIG.sha256()}")).checksum == f"sha256={BIG.sha256()}"


async def test_what_the_origin_promises_is_checked(origin: Origin, get: Get, out: Path) -> None:
    """Repr-Digest, RFC 9530."""
    import base64

    right = base64.b64encode(bytes.fromhex(SMALL.sha256())).decode()
    origin.script("/f", Reply(SMALL, headers=(("Repr-Digest", f"sha-256=:{right}:"),)))
    assert (await get(origin, content=SMALL)).checksum == f"sha256={SMALL.sha256()}"
    wrong = base64.b64encode(bytes(32)).decode()
    origin.script("/f", Reply(SMALL, headers=(("Repr-Digest", f"sha-256=:{wrong}:"),)))
    with pytest.raises(ChecksumMismatch, match="the server promised"):
        await get(origin, force=True)
    assert sha256(out) == SMALL.sha256()  # the file that was there


# --- names -----------------------------------------------------------------------------------------------------------


async def test_the_server_names_the_file_but_not_its_place(origin: Origin, get: Get, out: Path) -> None:
    origin.script("/f", Reply(SMALL, headers=(("Content-Disposition", 'attachment; filename="../../evil.sh"'),)))
    result = await get(origin, content=SMALL, path=out.parent)
    assert result.path == out.parent / "evil.sh"


async def test_folders_are_made(origin: Origin, get: Get, out: Path) -> None:
    origin.serve("/f", SMALL)
    assert (await get(origin, path=out.parent / "a" / "b")).path.is_file()
    assert (await get(origin, path=f"{out.parent}/c/d/")).path == out.parent / "c" / "d" / "f"


async def test_a_folder_is_no_file(origin: Origin, get: Get, out: Path) -> None:
    origin.serve("/f", SMALL)
    (out.parent / "f").mkdir()
    with pytest.raises(PartFileError, match="is a folder"):
        await get(origin, path=out.parent)
