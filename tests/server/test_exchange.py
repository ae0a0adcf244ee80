"""The ask as the upstream gets it, the answer as the client does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fileproxy.errors import BadAnswer
from fileproxy.http.cache_status import CacheStatus
from fileproxy.model import Answer, Ask, BytesBody, Headers, Target, header, header_values
from fileproxy.server.exchange import downstream, select, want_of
from fileproxy.server.ranged import SKIP_LIMIT

NOW = 1_800_000_000.0
TARGET = Target("/f", "q=1")
ASK = Ask(
    id="id1",
    method="GET",
    target=TARGET,
    authority="files.test",
    scheme="http",
    client="192.0.2.7",
    peer="192.0.2.7",
    trusted_peer=False,
    headers=(("Host", "files.test"), ("Accept", "*/*")),
)
VALIDATORS: Headers = (("ETag", '"v1"'), ("Last-Modified", "Sun, 01 Nov 2026 12:00:00 GMT"))


def ask(*headers: tuple[str, str], method: str = "GET") -> Ask:
    return replace(ASK, method=method, headers=(*ASK.headers, *headers))


class Sized(BytesBody):
    """As long as it says; never read here."""

    def __init__(self, size: int | None) -> None:
        super().__init__(b"")
        self._size = size

    @property
    def length(self) -> int:
        return self._size  # type: ignore[return-value]  # a chunked body has none


def answer(status: int = 200, *headers: tuple[str, str], size: int | None = 1000) -> Answer:
    lengths = () if size is None else (("Content-Length", str(size)),)
    return Answer(status, "OK", (*lengths, *headers), Sized(size))


def partial(content_range: str, *headers: tuple[str, str], size: int = 10) -> Answer:
    return answer(206, ("Content-Range", content_range), *headers, size=size)


# --- up ---------------------------------------------------------------------------------------------------------------


def sent(*headers: tuple[str, str], method: str = "GET") -> Headers:
    return want_of(ask(*headers, method=method), TARGET, "fp", "cdn1").headers


def test_hop_by_hop_fields_and_those_connection_names_stay_here() -> None:
    got = sent(
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "5"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("Proxy-Authorization", "Basic x"),
        ("X-End", "2"),
    )
    assert {name.lower() for name, _ in got} == {
        "accept", "x-end", "via", "cdn-loop", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded",
        "x-request-id",
    }  # fmt: skip


def test_via_and_cdn_loop_come_after_those_of_others() -> None:
    got = sent(("Via", "1.0 other"), ("CDN-Loop", "other"))
    assert header_values(got, "via") == ["1.0 other", "1.1 fp"]
    assert header_values(got, "cdn-loop") == ["other", "cdn1"]
    old = want_of(replace(ask(), http10=True), TARGET, "fp", "cdn1").headers
    assert header_values(old, "via") == ["1.0 fp"]


def test_a_range_is_sent_as_it_was_understood() -> None:
    got = sent(("Range", "bytes=0-9,5-19"), ("If-Range", '"v1"'))
    assert (header(got, "range"), header(got, "if-range")) == ("bytes=0-19", '"v1"')


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        ([("Range", "bytes=9-0")], "GET"),
        ([("Range", "lines=0-9")], "GET"),
        ([("Range", "bytes=0-9"), ("Range", "bytes=20-29")], "GET"),
        ([("Range", "bytes=0-9")], "HEAD"),
        ([("Range", "bytes=0-9")], "PUT"),
        ([], "GET"),
    ],
)
def test_a_range_to_be_ignored_is_not_sent_and_neither_is_its_if_range(
    headers: list[tuple[str, str]], method: str
) -> None:
    got = sent(*headers, ("If-Range", '"v1"'), method=method)
    assert header(got, "range") is None
    assert header(got, "if-range") is None


def test_conditions_travel() -> None:
    got = sent(("If-None-Match", '"v1"'), ("If-Modified-Since", "x"))
    assert (header(got, "if-none-match"), header(got, "if-modified-since")) == ('"v1"', "x")


def test_what_is_settled_on_this_hop_is_not_sent() -> None:
    got = sent(("Expect", "100-continue"), ("Content-Length", "5"), ("X-Real-IP", "1.2.3.4"), method="POST")
    assert not {name.lower() for name, _ in got} & {"expect", "content-length", "host", "x-real-ip"}


# --- down -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, None])
@pytest.mark.parametrize("status", [200, 206])
def test_conditions_an_upstream_ignored_are_judged_by_its_validators(status: int, size: int | None) -> None:
    extra = VALIDATORS if status == 200 else (("Content-Range", "bytes 0-9/1000"), *VALIDATORS)
    ranged = [("Range", "bytes=0-9")] if status == 206 else []
    size = 10 if status == 206 and size else size
    known = select(ask(("If-None-Match", '"v1"'), *ranged), answer(status, *extra, size=size), NOW)
    assert (known.status, known.length, header(known.headers, "etag")) == (304, None, '"v1"')
    assert header(known.headers, "content-length") is None
    assert header(known.headers, "content-range") is None
    changed = select(ask(("If-Match", '"v0"'), *ranged), answer(status, *extra, size=size), NOW)
    assert (changed.status, changed.length) == (412, 0)


def test_without_validators_the_upstreams_word_counts() -> None:
    assert select(ask(("If-Match", '"v0"')), answer(), NOW).status == 200
    assert select(ask(("If-None-Match", "*")), answer(), NOW).status == 200


def test_answers_of_other_methods_and_other_statuses_are_not_judged() -> None:
    assert select(ask(("If-None-Match", '"v1"'), method="PUT"), answer(200, *VALIDATORS), NOW).status == 200
    assert select(ask(("If-None-Match", '"v1"')), answer(404, *VALIDATORS), NOW).status == 404


def test_a_range_is_cut_out_of_a_200_that_starts_near_enough() -> None:
    near = select(ask(("Range", f"bytes={SKIP_LIMIT}-")), answer(size=SKIP_LIMIT + 10), NOW)
    assert (near.status, near.length) == (206, 10)
    assert header(near.headers, "content-range") == f"bytes {SKIP_LIMIT}-{SKIP_LIMIT + 9}/{SKIP_LIMIT + 10}"
    far = select(ask(("Range", f"bytes={SKIP_LIMIT + 1}-")), answer(size=SKIP_LIMIT + 10), NOW)
    assert (far.status, far.length) == (200, SKIP_LIMIT + 10)


def test_a_range_outside_is_416_with_the_size() -> None:
    got = select(ask(("Range", "bytes=1000-")), answer(), NOW)
    assert (got.status, got.length, header(got.headers, "content-range")) == (416, 0, "bytes */1000")


def test_several_ranges_are_a_multipart_of_exact_length() -> None:
    got = select(ask(("Range", "bytes=0-9,500-509")), answer(200, ("Content-Type", "text/x")), NOW)
    assert got.status == 206
    assert (header(got.headers, "content-type") or "").startswith("multipart/byteranges; boundary=")
    assert header(got.headers, "content-range") is None
    assert got.length == got.body.length


def test_a_body_of_unknown_length_is_not_cut() -> None:
    assert select(ask(("Range", "bytes=0-9")), answer(size=None), NOW).status == 200


def test_head_announces_what_the_upstream_did() -> None:
    head = Answer(200, "OK", (("Content-Length", "77"),), BytesBody())
    assert select(ask(method="HEAD"), head, NOW).length == 77


GOOD = [
    ("bytes=0-9", "bytes 0-9/1000"),
    ("bytes=0-9", "bytes 0-9/*"),
    ("bytes=0-99", "bytes 0-9/10"),
    ("bytes=-10", "bytes 990-999/1000"),
    ("bytes=990-", "bytes 990-999/1000"),
]
LIES = [
    ("bytes=0-9", "bytes 1-10/1000"),
    ("bytes=10-19", "bytes 0-9/1000"),
    ("bytes=0-9", "bytes 0-8/1000"),  # contradicts Content-Length
    ("bytes=0-8", "bytes 0-9/1000"),  # more than was asked
    ("bytes=-10", "bytes 0-9/1000"),
    ("bytes=0-9", "bytes */1000"),
    ("bytes=0-9", "0-9/1000"),
    ("bytes=0-9", "bytes 0-9/5"),
]


@pytest.mark.parametrize(("asked", "content_range"), GOOD)
def test_a_206_of_what_was_asked_passes(asked: str, content_range: str) -> None:
    assert select(ask(("Range", asked)), partial(content_range), NOW).status == 206


@pytest.mark.parametrize(("asked", "content_range"), LIES)
def test_a_206_of_anything_else_is_a_bad_answer(asked: str, content_range: str) -> None:
    with pytest.raises(BadAnswer):
        select(ask(("Range", asked)), partial(content_range), NOW)


def test_a_206_nobody_asked_for_or_that_says_not_of_what_is_a_bad_answer() -> None:
    with pytest.raises(BadAnswer):
        select(ask(), partial("bytes 0-9/1000"), NOW)
    with pytest.raises(BadAnswer):
        select(ask(("Range", "bytes=0-9")), answer(206, size=10), NOW)


def test_a_206_of_another_version_than_if_range_says_is_a_bad_answer() -> None:
    wanted = ask(("Range", "bytes=0-9"), ("If-Range", '"v0"'))
    with pytest.raises(BadAnswer):
        select(wanted, partial("bytes 0-9/1000", *VALIDATORS), NOW)


def test_what_is_added_for_the_client() -> None:
    before = (("Server", "x"), ("Access-Control-Allow-Origin", "*"), ("X-Cache", "HIT"), ("X-Request-Id", "theirs"))
    got = Answer(200, "OK", before, BytesBody(b"x"))
    got.timings = {"connect": 0.0123, "first_byte": 1.0}
    chosen = select(ask(), got, NOW)
    miss = CacheStatus(forward="bypass")
    plain = downstream(chosen, ask(), got, "fp", how="BYPASS", status=miss, cors=False)
    assert header(plain, "server") == "x"
    assert header(plain, "via") == "1.1 fp"
    assert [value for name, value in plain if name == "X-Cache"] == ["BYPASS"]
    assert [value for name, value in plain if name == "X-Request-Id"] == ["id1"]
    assert header(plain, "cache-status") == "fp; fwd=bypass"
    assert header(plain, "server-timing") == "connect;dur=12.3, first_byte;dur=1000.0"
    assert header(plain, "access-control-allow-origin") == "*"
    ruled = downstream(chosen, ask(), got, "fp", how="BYPASS", status=miss, cors=True)
    assert header(ruled, "access-control-allow-origin") is None  # the route's rules say it
    assert header_values(ruled, "vary") == ["Origin"]
