"""HTTP caching on real sockets: what the pure rules decide is what clients and origins see (RFC 9111).

docs/caching-rules.md names these tests. The origin's Date is fixed, so the clock of the house starts there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from fileproxy.http.dates import format_date, parse_date
from tests.clients import Got
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import KIB, MIB, Content, Gate, Origin, Reply, fin
from tests.origin.play import DATE, LAST_MODIFIED
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("uvloop")

START = parse_date(DATE, 0.0) or 0
FILE = Content(7, 100 * KIB)
NEWER = Content(8, 90 * KIB)
HOUR = ("Cache-Control", "max-age=3600")
MINUTE = ("Cache-Control", "max-age=60")


def at(seconds: float) -> tuple[str, str]:
    """A Date this long after the house has opened."""
    return "Date", format_date(START + seconds)


class Play:
    """A house with a cache in memory over the origin, and a clock that only ``tick`` moves."""

    def __init__(self, running: Running, clock: ManualClock, origin: Origin) -> None:
        self.running = running
        self.clock = clock
        self.origin = origin

    async def get(self, *lines: str, path: str = "/f", method: str = "GET", body: bytes = b"") -> Got:
        got = await self.running.fetch(path, *lines, method=method, body=body)
        await self.running.quiet()
        return got

    @property
    def asked(self) -> int:
        return len(self.origin.requests)


@pytest.fixture
def play(house: OpenHouse, origin: Origin) -> Any:
    """``await play(reply, …)``: what the origin answers for /f, one reply for each request."""

    async def start(*replies: Reply, route: Mapping[str, Any] | None = None, servers: int = 1, **rest: Any) -> Play:
        clock = ManualClock(epoch=START)
        origin.script("/f", *replies)
        retry = {"attempts": 1}
        values = settings(origin, upstream={"retry": retry, **rest}, route=route, cache={"disk": "off", "redis": "off"})
        return Play(await house({**values, "redis": {"url": "off"}}, clock), clock, origin)

    return start


def seen(*gots: Got) -> list[str | None]:
    """What X-Cache said."""
    for got in gots:
        assert got.complete
    return [got.get("x-cache") for got in gots]


# --- reuse (§4) ------------------------------------------------------------------------------------------------------


async def test_a_fresh_response_is_reused(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    one, two = await trip.get(), await trip.get()
    assert seen(one, two) == ["MISS", "HIT"]
    assert one.sha256 == two.sha256 == FILE.sha256()
    assert trip.asked == 1


async def test_other_targets_and_hosts_are_other_files(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    trip.origin.script("/g", Reply(NEWER, headers=(HOUR,)))
    await trip.get()
    assert (await trip.get(path="/g")).sha256 == NEWER.sha256()
    assert seen(await trip.get(path="/f?x")) == ["MISS"]


async def test_a_hit_has_its_age(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR, ("Age", "100"))))
    await trip.get()
    trip.clock.tick(7)
    got = await trip.get()
    assert (seen(got), got.all("age")) == (["HIT"], ["107"])


async def test_what_is_stored_keeps_its_fields(play: Any) -> None:
    fields = (HOUR, ("X-Unknown", "1"), ("X-Unknown", "2"), ("Content-Disposition", "attachment"))
    trip = await play(Reply(FILE, headers=fields))
    first, second = await trip.get(), await trip.get()
    for name in ("x-unknown", "content-disposition", "date", "etag", "last-modified", "content-type", "cache-control"):
        assert first.all(name) == second.all(name) != []


async def test_hop_by_hop_and_proxy_fields_are_not_stored(play: Any) -> None:
    fields = (HOUR, ("Proxy-Authenticate", "Basic"), ("Connection", "X-Hop"), ("X-Hop", "1"))
    trip = await play(Reply(FILE, headers=fields))
    await trip.get()
    assert not {"proxy-authenticate", "x-hop"} & (await trip.get()).names


async def test_concurrent_asks_share_one_fetch(play: Any) -> None:
    gate = Gate()
    trip = await play(Reply(FILE, headers=(HOUR,), before_head=gate))
    asks = [asyncio.create_task(trip.running.fetch("/f")) for _ in range(5)]
    await trip.origin.wait_for(lambda: trip.asked == 1)
    gate.open()
    assert {got.sha256 for got in await asyncio.gather(*asks)} == {FILE.sha256()}
    assert trip.asked == 1


async def test_cache_directives_pass_in_both_directions(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", "max-age=60, foo=bar"), ("CDN-Cache-Control", "x"))))
    got = await trip.get("Cache-Control: no-transform, ext=1")
    assert trip.origin.last.all("cache-control") == ["no-transform, ext=1"]
    assert (got.all("cache-control"), got.all("cdn-cache-control")) == (["max-age=60, foo=bar"], ["x"])


# --- not stored (§3) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["no-store", "private", "no-store, max-age=60", "private, s-maxage=60"])
async def test_what_may_not_be_stored_is_asked_for_each_time(play: Any, control: str) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", control),)))
    for asked in (1, 2, 3):
        got = await trip.get()
        assert got.sha256 == FILE.sha256()
        assert got.get("x-cache") != "HIT"
        assert trip.asked == asked


async def test_no_cache_is_validated_each_time(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", "no-cache, max-age=60"),)))
    assert seen(await trip.get(), await trip.get(), await trip.get()) == ["MISS", "REVALIDATED", "REVALIDATED"]
    assert trip.asked == 3
    assert trip.origin.sent["/f"] == FILE.size


async def test_answers_to_authorization_are_not_shared(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), Reply(NEWER, headers=(HOUR,)))
    assert (await trip.get("Authorization: Basic YQ==")).sha256 == FILE.sha256()
    assert (await trip.get()).sha256 == NEWER.sha256()
    assert trip.asked == 2


async def test_public_answers_to_authorization_are_shared(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", "public, max-age=60"),)))
    assert seen(await trip.get("Authorization: Basic YQ=="), await trip.get()) == ["MISS", "HIT"]


async def test_cookies_are_not_shared(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR, ("Set-Cookie", "a=b"))))
    await trip.get()
    await trip.get()
    assert trip.asked == 2


async def test_request_no_store_is_not_stored(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    await trip.get("Cache-Control: no-store")
    assert seen(await trip.get()) == ["MISS"]


async def test_a_broken_response_is_not_served_as_a_whole_one(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,), breaks=fin(at=50_000)), Reply(FILE, headers=(HOUR,)))
    await trip.running.fetch("/f")
    await trip.running.quiet()
    got = await trip.get()
    assert (got.status, got.sha256) == (200, FILE.sha256())


# --- Vary (§4.1) -----------------------------------------------------------------------------------------------------


async def test_vary_selects_among_what_is_stored(play: Any) -> None:
    fields = (HOUR, ("Vary", "Accept-Language"))
    trip = await play(Reply(FILE, headers=fields), Reply(NEWER, headers=fields))
    assert (await trip.get("Accept-Language: de")).sha256 == FILE.sha256()
    assert (await trip.get("Accept-Language: en")).sha256 == NEWER.sha256()
    one, two = await trip.get("Accept-Language: de"), await trip.get("Accept-Language: en")
    assert seen(one, two) == ["HIT", "HIT"]
    assert (one.sha256, two.sha256) == (FILE.sha256(), NEWER.sha256())


async def test_an_answer_without_vary_does_not_replace_one_with(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR, ("Vary", "Accept-Language"))), Reply(NEWER, headers=(HOUR,)))
    await trip.get("Accept-Language: de")
    await trip.get("Accept-Language: en")
    await trip.get("Accept-Language: fr")
    assert trip.asked == 3
    assert (await trip.get("Accept-Language: de")).sha256 == FILE.sha256()
    assert trip.asked == 3


async def test_vary_star_is_never_reused(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR, ("Vary", "*"))))
    await trip.get()
    await trip.get()
    assert trip.asked == 2


async def test_accept_encodings_that_take_the_same_share(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR, ("Vary", "Accept-Encoding"))))
    await trip.get("Accept-Encoding: gzip, br")
    assert seen(await trip.get("Accept-Encoding: br;q=0.5,gzip")) == ["HIT"]
    assert seen(await trip.get("Accept-Encoding: gzip")) == ["MISS"]


# --- validation (§4.3) -----------------------------------------------------------------------------------------------


async def test_a_stale_response_is_revalidated_with_both_validators(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)), Reply(FILE, headers=(MINUTE, at(61))))
    await trip.get()
    trip.clock.tick(61)
    got = await trip.get()
    assert (seen(got), got.status, got.sha256) == (["REVALIDATED"], 200, FILE.sha256())
    assert trip.origin.last.status == 304
    assert trip.origin.last.get("if-none-match") == FILE.etag
    assert trip.origin.last.get("if-modified-since") == LAST_MODIFIED
    assert seen(await trip.get()) == ["HIT"]  # it is fresh again


async def test_a_mirror_with_an_etag_of_its_own_may_confirm_by_size_and_time(play: Any) -> None:
    trip = await play(
        Reply(FILE, headers=(MINUTE,)),
        Reply(FILE, etag='"own"', headers=(MINUTE, at(61))),
        Reply(FILE, etag='"own"', last_modified="Sun, 01 Nov 2026 12:00:01 GMT", headers=(MINUTE, at(122))),
        mirrors_match="size+mtime",
    )
    await trip.get()
    trip.clock.tick(61)
    got = await trip.get()
    assert (seen(got), got.sha256, got.get("etag")) == (["REVALIDATED"], FILE.sha256(), FILE.etag)
    trip.clock.tick(61)
    got = await trip.get()
    assert (seen(got), got.get("etag")) == (["MISS"], '"own"')


async def test_one_revalidation_serves_all_who_wait(play: Any) -> None:
    gate = Gate()
    trip = await play(Reply(FILE, headers=(MINUTE,)), Reply(FILE, headers=(MINUTE, at(61)), before_head=gate))
    await trip.get()
    trip.clock.tick(61)
    asks = [asyncio.create_task(trip.running.fetch("/f")) for _ in range(5)]
    await trip.origin.wait_for(lambda: trip.asked == 2)
    gate.open()
    assert {got.sha256 for got in await asyncio.gather(*asks)} == {FILE.sha256()}
    assert trip.asked == 2


async def test_a_304_updates_stored_fields(play: Any) -> None:
    trip = await play(
        Reply(FILE, headers=(MINUTE, ("X-A", "old"), ("X-B", "stays"))),
        Reply(FILE, headers=(HOUR, at(61), ("X-A", "new"), ("X-C", "added"), ("Content-Length", "7"))),
    )
    await trip.get()
    trip.clock.tick(61)
    for got in (await trip.get(), await trip.get()):
        assert [got.all(name) for name in ("x-a", "x-b", "x-c")] == [["new"], ["stays"], ["added"]]
        assert got.all("content-length") == [str(FILE.size)]
        assert got.all("cache-control") == ["max-age=3600"]
        assert got.sha256 == FILE.sha256()


async def test_a_full_answer_replaces_what_was_stored(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)), Reply(NEWER, headers=(HOUR, at(61))))
    await trip.get()
    trip.clock.tick(61)
    one, two = await trip.get(), await trip.get()
    assert one.sha256 == two.sha256 == NEWER.sha256()
    assert seen(two) == ["HIT"]
    assert trip.asked == 2


async def test_a_304_of_another_version_is_not_used(play: Any) -> None:
    trip = await play(
        Reply(FILE, headers=(MINUTE,)), Reply(status=304, etag='"other"'), Reply(NEWER, headers=(HOUR, at(61)))
    )
    await trip.get()
    trip.clock.tick(61)
    got = await trip.get()
    assert (got.status, got.sha256) == (200, NEWER.sha256())
    assert trip.origin.last.get("if-none-match") is None


async def test_a_304_may_end_the_sharing(play: Any) -> None:
    private = ("Cache-Control", "private")
    trip = await play(Reply(FILE, headers=(MINUTE,)), Reply(FILE, headers=(private, at(61))))
    await trip.get()
    trip.clock.tick(61)
    await trip.get()
    assert (await trip.get()).get("x-cache") != "HIT"
    assert trip.asked == 3


async def test_an_error_instead_of_a_validation_reaches_the_client(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)), Reply(b"sorry", status=503))
    await trip.get()
    trip.clock.tick(61)
    assert (await trip.get()).status == 503


async def test_conditions_of_clients_are_evaluated_on_what_is_stored(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    await trip.get()
    for line in (f"If-None-Match: {FILE.etag}", "If-None-Match: *", f"If-Modified-Since: {LAST_MODIFIED}"):
        got = await trip.get(line)
        assert (got.status, got.get("etag")) == (304, FILE.etag)
    assert (await trip.get('If-None-Match: "other"')).status == 200
    assert trip.asked == 1


async def test_a_revalidation_answers_the_client_s_own_condition(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)), Reply(FILE, headers=(MINUTE, at(61))))
    await trip.get()
    trip.clock.tick(61)
    got = await trip.get('If-None-Match: "mine"')
    assert (got.status, got.sha256) == (200, FILE.sha256())
    assert trip.origin.last.status == 304


async def test_if_modified_since_counts_from_date_without_last_modified(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,), last_modified=None))
    await trip.get()
    assert (await trip.get(f"If-Modified-Since: {DATE}")).status == 304
    assert (await trip.get(f"If-Modified-Since: {LAST_MODIFIED}")).status == 200


@pytest.mark.parametrize("line", ['If-Match: "other"', "If-Unmodified-Since: Sat, 31 Oct 2026 12:00:00 GMT"])
async def test_conditions_for_the_origin_are_not_decided_by_the_cache(play: Any, line: str) -> None:
    """If-Match and If-Unmodified-Since: either the origin decides, or they are ignored."""
    trip = await play(Reply(FILE, headers=(HOUR,)))
    await trip.get()
    got = await trip.get(line)
    assert trip.asked == 2 or got.status == 200


async def test_conditional_asks_on_a_miss_are_forwarded(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    got = await trip.get(f"If-None-Match: {FILE.etag}")
    assert got.status == 304
    assert trip.origin.last.get("if-none-match") == FILE.etag
    assert trip.origin.sent["/f"] == 0


# --- HEAD (§4.3.5) ---------------------------------------------------------------------------------------------------


async def test_head_is_answered_from_a_stored_get(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    await trip.get()
    got = await trip.get(method="HEAD")
    assert (seen(got), got.get("content-length")) == (["HIT"], str(FILE.size))
    assert trip.asked == 1


async def test_head_on_a_miss_starts_no_fill(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    await trip.get(method="HEAD")
    assert [request.method for request in trip.origin.requests] == ["HEAD"]
    assert seen(await trip.get()) == ["MISS"]


async def test_head_that_disagrees_makes_what_is_stored_stale(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), Reply(NEWER, headers=(HOUR,)))
    await trip.get()
    await trip.get("Cache-Control: no-cache", method="HEAD")
    assert (await trip.get()).sha256 == NEWER.sha256()


# --- requests' directives (§5.2.1) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0"])
async def test_a_reload_is_validated(play: Any, line: str) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)))
    await trip.get()
    trip.clock.tick(1)
    got = await trip.get(line)
    assert (seen(got), got.sha256) == (["REVALIDATED"], FILE.sha256())
    assert trip.origin.last.status == 304


async def test_request_max_age_and_min_fresh(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)), Reply(FILE, headers=(MINUTE, at(50))))
    await trip.get()
    trip.clock.tick(50)
    assert seen(await trip.get("Cache-Control: max-age=50"), await trip.get("Cache-Control: min-fresh=10")) == [
        "HIT",
        "HIT",
    ]
    assert seen(await trip.get("Cache-Control: max-age=49")) == ["REVALIDATED"]


async def test_max_stale_accepts_what_is_stale(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)))
    await trip.get()
    trip.clock.tick(70)
    assert seen(await trip.get("Cache-Control: max-stale=10")) == ["STALE"]
    assert trip.asked == 1


async def test_only_if_cached_is_answered_from_the_cache_or_504(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)))
    assert (await trip.get("Cache-Control: only-if-cached")).status == 504
    assert trip.asked == 0
    await trip.get()
    assert seen(await trip.get("Cache-Control: only-if-cached")) == ["HIT"]
    trip.clock.tick(61)
    assert (await trip.get("Cache-Control: only-if-cached")).status == 504
    assert trip.asked == 1


async def test_immutable_is_not_reloaded(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", "max-age=60, immutable"),)))
    await trip.get()
    trip.clock.tick(10)
    assert seen(await trip.get("Cache-Control: max-age=0")) == ["HIT"]
    assert seen(await trip.get("Cache-Control: no-cache")) == ["REVALIDATED"]


# --- stale (§4.2.4, RFC 5861) ----------------------------------------------------------------------------------------


async def test_stale_while_revalidate_answers_at_once_and_refreshes(play: Any) -> None:
    control = ("Cache-Control", "max-age=60, stale-while-revalidate=60")
    gate = Gate()
    trip = await play(Reply(FILE, headers=(control,)), Reply(NEWER, headers=(control, at(61)), before_head=gate))
    await trip.get()
    trip.clock.tick(61)
    got = await trip.running.fetch("/f")  # answered although the origin has not spoken
    assert (seen(got), got.sha256) == (["STALE"], FILE.sha256())
    await trip.origin.wait_for(lambda: trip.asked == 2)
    gate.open()
    async with asyncio.timeout(10):
        while (got := await trip.get()).get("x-cache") == "STALE":
            pass
    assert got.sha256 == NEWER.sha256()


async def test_stale_if_error(play: Any) -> None:
    control = ("Cache-Control", "max-age=60, stale-if-error=60")
    trip = await play(Reply(FILE, headers=(control,)), Reply(b"sorry", status=500))
    await trip.get()
    trip.clock.tick(61)
    got = await trip.get()
    assert (seen(got), got.status, got.sha256) == (["STALE"], 200, FILE.sha256())
    trip.clock.tick(60)
    assert (await trip.get()).status == 500


async def test_a_stale_file_serves_while_the_origin_is_away(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(MINUTE,)))
    await trip.get()
    trip.clock.tick(61)
    await trip.origin.refuse()
    trip.origin.close_idle()
    got = await trip.get()
    assert (seen(got), got.sha256, got.get("age")) == (["STALE"], FILE.sha256(), "61")


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
async def test_what_must_be_revalidated_is_an_error_while_the_origin_is_away(play: Any, directive: str) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", f"max-age=60, {directive}"),)))
    await trip.get()
    trip.clock.tick(61)
    await trip.origin.refuse()
    trip.origin.close_idle()
    got = await trip.get()
    assert got.status >= 500
    assert got.sha256 != FILE.sha256()


async def test_must_revalidate_without_an_origin_is_a_504(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", "max-age=60, must-revalidate"),)))
    await trip.get()
    trip.clock.tick(61)
    await trip.origin.refuse()
    trip.origin.close_idle()
    assert (await trip.get()).status == 504


# --- unsafe methods (§4, §4.4) ---------------------------------------------------------------------------------------


async def test_unsafe_methods_are_written_through_and_invalidate(play: Any) -> None:
    trip = await play(
        Reply(FILE, headers=(HOUR,)), Reply(b"", status=204), Reply(NEWER, headers=(HOUR,)), route=WRITABLE
    )
    await trip.get()
    assert (await trip.get(method="PUT", body=b"new")).status == 204
    assert trip.origin.last.method == "PUT"
    assert (await trip.get()).sha256 == NEWER.sha256()


async def test_an_unsafe_method_that_fails_invalidates_nothing(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), Reply(b"", status=403), route=WRITABLE)
    await trip.get()
    await trip.get(method="DELETE")
    assert seen(await trip.get()) == ["HIT"]


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
async def test_locations_of_the_same_origin_are_invalidated(play: Any, name: str) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), Reply(NEWER, headers=(HOUR,)), route=WRITABLE)
    trip.origin.script("/post", Reply(b"", status=201, headers=((name, "/f"),)))
    await trip.get()
    await trip.get(path="/post", method="POST", body=b"x")
    assert (await trip.get()).sha256 == NEWER.sha256()


async def test_locations_elsewhere_are_not_invalidated(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), route=WRITABLE)
    trip.origin.script("/post", Reply(b"", status=201, headers=(("Location", "http://other.test/f"),)))
    await trip.get()
    await trip.get(path="/post", method="POST", body=b"x")
    assert seen(await trip.get()) == ["HIT"]


# --- parts (§3.3, §3.4) ----------------------------------------------------------------------------------------------

BIG = Content(9, 5 * MIB + 77)


async def test_a_range_is_answered_from_a_stored_file(play: Any) -> None:
    trip = await play(Reply(BIG, headers=(HOUR,)))
    await trip.get()
    got = await trip.get("Range: bytes=1000000-3000000")
    assert (seen(got), got.status, got.get("content-range")) == (["HIT"], 206, f"bytes 1000000-3000000/{BIG.size}")
    assert got.body == BIG.read(1_000_000, 2_000_001)
    assert trip.asked == 1


async def test_parts_are_combined_into_the_whole(play: Any) -> None:
    trip = await play(Reply(BIG, headers=(HOUR,)))
    assert (await trip.get("Range: bytes=2000000-2000009")).body == BIG.read(2_000_000, 10)
    got = await trip.get("Range: bytes=2000100-2000109")
    assert (seen(got), got.body) == (["HIT"], BIG.read(2_000_100, 10))
    whole = await trip.get()
    assert (whole.status, whole.sha256) == (200, BIG.sha256())
    assert trip.origin.sent["/f"] == BIG.size
    assert [request.get("if-range") for request in trip.origin.requests[1:]] == [BIG.etag] * (trip.asked - 1)


async def test_a_stored_part_is_never_sent_as_the_whole(play: Any) -> None:
    trip = await play(Reply(BIG, headers=(HOUR,)))
    got = await trip.get("Range: bytes=0-9")
    assert (got.status, got.size) == (206, 10)
    got = await trip.get()
    assert (got.status, got.size) == (200, BIG.size)


async def test_parts_of_two_versions_are_not_combined(play: Any) -> None:
    changed = Content(10, BIG.size)
    trip = await play(Reply(BIG, headers=(HOUR,)), Reply(changed, headers=(HOUR,)))
    assert (await trip.get("Range: bytes=0-9")).body == BIG.read(0, 10)
    fetching = asyncio.create_task(trip.running.fetch("/f"))
    while not fetching.done():
        await trip.clock.advance(0.1)  # that the file changed is believed when several answers say so
        await asyncio.sleep(0.01)
    got = await fetching
    await trip.running.quiet()
    if got.complete:
        assert got.sha256 in (BIG.sha256(), changed.sha256())
    got = await trip.get()
    assert got.sha256 == changed.sha256()


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
async def test_parts_without_a_strong_validator_are_not_combined(play: Any, etag: str | None) -> None:
    trip = await play(Reply(BIG, headers=(HOUR,), etag=etag, last_modified=None))
    assert (await trip.get("Range: bytes=0-9")).body == BIG.read(0, 10)
    assert (await trip.get()).sha256 == BIG.sha256()
    assert all(request.get("if-range") is None for request in trip.origin.requests)


async def test_if_range_is_evaluated_on_what_is_stored(play: Any) -> None:
    trip = await play(Reply(BIG, headers=(HOUR,)))
    await trip.get()
    assert (await trip.get("Range: bytes=0-9", f"If-Range: {BIG.etag}")).status == 206
    assert (await trip.get("Range: bytes=0-9", 'If-Range: "other"')).status == 200
    assert (await trip.get("Range: bytes=0-9", f"If-Range: W/{BIG.etag}")).status == 200
    assert trip.asked == 1


async def test_a_range_beyond_the_end_of_a_stored_file_is_a_416(play: Any) -> None:
    trip = await play(Reply(BIG, headers=(HOUR,)))
    await trip.get()
    got = await trip.get(f"Range: bytes={BIG.size}-")
    assert (got.status, got.get("content-range")) == (416, f"bytes */{BIG.size}")


# --- targeted fields, Cache-Status -----------------------------------------------------------------------------------


async def test_cdn_cache_control_decides_and_passes_through(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-store"))))
    await trip.get()
    got = await trip.get()
    assert (seen(got), got.get("cdn-cache-control"), got.get("cache-control")) == (["HIT"], "max-age=60", "no-store")


async def test_cache_status_says_how_it_was(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR, ("Cache-Status", "Origin; hit"))))
    first, second = await trip.get(), await trip.get()
    assert first.all("cache-status")[0] == second.all("cache-status")[0] == "Origin; hit"
    assert "fwd=uri-miss" in first.all("cache-status")[-1]
    assert "; hit" in second.all("cache-status")[-1]
    assert "ttl=3600" in second.all("cache-status")[-1]


# --- what routes say -------------------------------------------------------------------------------------------------


@pytest.mark.option("routes.cache")
@pytest.mark.parametrize(("value", "hits"), [("auto", False), ("off", False), ("10m", True)])
async def test_a_route_may_set_or_forbid_caching(play: Any, value: str, hits: bool) -> None:
    trip = await play(Reply(FILE, headers=(("Cache-Control", "no-store"),)), route={"cache": value})
    await trip.get()
    assert ((await trip.get()).get("x-cache") == "HIT") is hits


@pytest.mark.option("routes.cache")
async def test_a_route_without_caching_asks_each_time(play: Any) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), route={"cache": "off"})
    assert seen(await trip.get(), await trip.get()) == ["BYPASS", "BYPASS"]


@pytest.mark.option("routes.ignore_request")
@pytest.mark.parametrize("ignore", [False, True])
async def test_a_route_may_ignore_reloads(play: Any, ignore: bool) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), route={"ignore_request": ignore})
    await trip.get()
    assert seen(await trip.get("Cache-Control: no-cache")) == ["HIT" if ignore else "REVALIDATED"]


@pytest.mark.option("routes.negative")
@pytest.mark.parametrize(("ttl", "asked"), [("0s", 2), ("10s", 1)])
async def test_a_route_may_keep_what_is_missing(play: Any, ttl: str, asked: int) -> None:
    trip = await play(Reply(b"no", status=404), route={"negative": ttl})
    for _ in range(2):
        assert (await trip.get()).status == 404
    assert trip.asked == asked


@pytest.mark.option("routes.max_object")
@pytest.mark.parametrize(("most", "asked"), [("off", 1), ("50KiB", 2)])
async def test_a_route_may_leave_large_files_alone(play: Any, most: str, asked: int) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), route={"max_object": most})
    for _ in range(2):
        assert (await trip.get()).sha256 == FILE.sha256()
    assert trip.asked == asked


@pytest.mark.option("routes.key.ignore_query")
@pytest.mark.parametrize(("names", "asked"), [([], 2), (["utm_*"], 1)])
async def test_a_route_may_ignore_query_parameters(play: Any, names: list[str], asked: int) -> None:
    trip = await play(Reply(FILE, headers=(HOUR,)), route={"key": {"ignore_query": names}})
    await trip.get(path="/f?a=1&utm_source=x")
    await trip.get(path="/f?a=1&utm_source=y")
    assert trip.asked == asked


@pytest.mark.option("routes.key.per_user")
async def test_a_route_may_keep_users_apart(play: Any) -> None:
    replies = [Reply(content, headers=(("Cache-Control", "private, max-age=60"),)) for content in (FILE, NEWER)]
    trip = await play(*replies, route={"key": {"per_user": "Authorization"}})
    for _ in range(2):
        assert (await trip.get("Authorization: a")).sha256 == FILE.sha256()
        assert (await trip.get("Authorization: b")).sha256 == NEWER.sha256()
    assert trip.asked == 2
