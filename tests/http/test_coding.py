"""Which coding a client gets, and what the head says of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.key import accepted_codings
from fileproxy.http import coding
from fileproxy.http.coding import BIG, BUSIEST, CODINGS, Coding
from fileproxy.http.etags import ETag, parse_etag
from fileproxy.model import Headers, header, header_values

NAMES = st.sampled_from([*CODINGS, "identity", "deflate", "*"])
WEIGHTS = st.sampled_from(["", ";q=0", ";q=0.001", ";q=0.5", "; Q=1.000", ";q=0.000"])
ACCEPTS = st.lists(st.tuples(NAMES, WEIGHTS), max_size=6).map(lambda pairs: ", ".join(map("".join, pairs)))
TAGS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"'), max_size=12)


def asked(*lines: str) -> Headers:
    return tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))


def chosen(value: str | None, *offered: Coding) -> Coding | None:
    return coding.choose(() if value is None else (("Accept-Encoding", value),), offered or CODINGS)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZip , Br", "br"),
        ("x-gzip", "gzip"),
        ("*", "zstd"),
        ("*;q=0", None),
        ("gzip;q=0.1, *;q=0", "gzip"),
        ("zstd;q=0, *", "br"),
        ("gzip;q=0.9, br;q=0.8, zstd;q=0.7", "gzip"),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("gzip;q=0.5, identity;q=0.6", None),
        ("gzip;q=0.5, identity", None),
        ("identity;q=0", None),
        ("gzip, gzip;q=0", None),
        ("gzip;q=2", None),
        ("gzip;q=0.1234", None),
        ("gzip;level=9", None),
        ("gzip;", None),
        ("gzip br", None),
        ("gzip,,br;q=0.1,", "gzip"),
    ],
)
def test_choice(value: str | None, result: str | None) -> None:
    assert chosen(value) == result


def test_several_lines_are_one_list() -> None:
    assert coding.choose(asked("Accept-Encoding: gzip", "accept-encoding: br;q=0.5"), CODINGS) == "gzip"


@given(ACCEPTS, st.permutations(CODINGS))
def test_what_is_chosen_is_offered_and_accepted(value: str, offered: list[Coding]) -> None:
    best = chosen(value, *offered)
    weights = coding.weights((("Accept-Encoding", value),))
    assert weights is not None
    if best is None:
        return
    weight = weights.get(best, weights.get("*", 0.0))
    assert weight > 0.0
    assert all(weights.get(one, weights.get("*", 0.0)) <= weight for one in offered)
    assert weights.get("identity", 0.0) <= weight
    # Caches that know only which codings are accepted hold the same to be acceptable.
    assert best in accepted_codings(value) or "*" in accepted_codings(value)
    assert f"!{best}" not in accepted_codings(value)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(value: str) -> None:
    assert chosen(value) in (None, *CODINGS)


@pytest.mark.parametrize(
    ("kind", "types", "yes"),
    [
        ("text/html; charset=utf-8", ("text/*",), True),
        ("TEXT/Plain", ("text/*",), True),
        ("text/html", ("text/plain",), False),
        ("application/problem+json", ("*+json",), True),
        ("application/json", ("*+json",), False),
        ("text/event-stream", ("text/*", "text/event-stream"), False),
        ("", ("text/*",), False),
        (None, ("text/*",), False),
        ("image/svg+xml", ("*+xml",), True),
    ],
)
def test_types(kind: str | None, types: tuple[str, ...], yes: bool) -> None:
    assert coding.is_compressible(kind, types) is yes


@pytest.mark.parametrize(
    ("request_line", "response_line", "yes"),
    [
        ("X: y", "X: y", True),
        ("X: y", "Content-Encoding: identity", True),
        ("X: y", "Content-Encoding: gzip", False),
        ("X: y", "Content-Encoding: identity, br", False),
        ("X: y", "Cache-Control: max-age=1, No-Transform", False),
        ("Cache-Control: no-transform", "X: y", False),
        ("Cache-Control: no-cache", "Cache-Control: public, no-cache", True),
        ("X: y", "Cache-Control: private", False),
        ("X: y", 'Cache-Control: private="set-cookie"', True),
        ("X: y", "Set-Cookie: a=b", False),
        ("Authorization: x", "X: y", False),
    ],
)
def test_what_may_be_coded(request_line: str, response_line: str, yes: bool) -> None:
    response = asked("Content-Type: text/plain", response_line)
    assert coding.may_be_coded(asked(request_line), response, ("text/*",)) is yes


@pytest.mark.parametrize(
    ("lines", "vary"),
    [
        ((), ["Accept-Encoding"]),
        (("Vary: Origin",), ["Origin", "Accept-Encoding"]),
        (("Vary: origin, accept-ENCODING",), ["origin, accept-ENCODING"]),
        (("Vary: *",), ["*"]),
    ],
)
def test_vary(lines: tuple[str, ...], vary: list[str]) -> None:
    assert header_values(coding.varied(asked(*lines)), "Vary") == vary


def test_the_head_of_coded_bytes() -> None:
    before = asked(
        'ETag: "x"', "Content-Length: 9", "Accept-Ranges: bytes", "Content-MD5: y", "Repr-Digest: z", "Digest: z",
        "Content-Digest: z", "Content-Encoding: identity", "Last-Modified: then", "X: kept",
    )  # fmt: skip
    assert coding.coded_head(before, "br", 5) == asked(
        "Last-Modified: then", "X: kept", "Content-Encoding: br", "Accept-Ranges: none", 'ETag: "x+fp.br.5"',
        "Vary: Accept-Encoding",
    )  # fmt: skip
    assert header(coding.coded_head(before, "br", 5, exact=False), "ETag") == 'W/"x"'
    assert header(coding.coded_head(asked("ETag: none"), "br", 5), "ETag") is None


# --- tags -------------------------------------------------------------------------------------------------------------


@given(TAGS, st.sampled_from(CODINGS), st.integers(1, 9))
def test_a_tag_leads_back_to_the_origins(tag: str, one: Coding, level: int) -> None:
    coded = coding.coded_tag(ETag(tag), one, level)
    assert coding.origin_tag(coded) == (ETag(tag), one)
    assert parse_etag(str(coded)) == coded
    assert coded != ETag(tag)
    request = (("Accept-Encoding", one), ("If-None-Match", str(coded)))
    assert header(coding.with_origin_tags(request), "If-None-Match") == f"{coded}, {ETag(tag)}"
    assert coding.known_tag(request, ETag(tag)) == coded
    assert coding.known_tag(request, ETag(f"{tag}x")) is None


def test_a_weak_tag_is_the_same_for_both() -> None:
    assert coding.coded_tag(ETag("x", weak=True), "br", 5) == ETag("x", weak=True)


@given(TAGS)
def test_two_codings_or_levels_never_share_a_strong_tag(tag: str) -> None:
    tags = [coding.coded_tag(ETag(tag), one, level) for one in CODINGS for level in range(1, 10)]
    assert len({ETag(tag), *tags}) == 28


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (("Accept-Encoding: br", 'If-None-Match: "x+fp.gzip.6"'), '"x+fp.gzip.6"'),
        (("Accept-Encoding: *", 'If-None-Match: "x+fp.gzip.6"'), '"x+fp.gzip.6", "x"'),
        (("Accept-Encoding: gzip", 'If-None-Match: W/"x+fp.gzip.6"'), 'W/"x+fp.gzip.6", W/"x"'),
        (("Accept-Encoding: gzip", 'If-None-Match: "x+fp.gzip.6", "x"'), '"x+fp.gzip.6", "x"'),
        (("Accept-Encoding: gzip", 'If-None-Match: "x+fp.gzip.6"', "Range: bytes=0-"), '"x+fp.gzip.6"'),
        (("Accept-Encoding: gzip", "If-None-Match: *"), "*"),
        (("Accept-Encoding: gzip", "If-None-Match: nonsense"), "nonsense"),
        (('If-None-Match: "x+fp.gzip.6"',), '"x+fp.gzip.6"'),
    ],
)
def test_conditions_as_the_origin_knows_them(lines: tuple[str, ...], value: str) -> None:
    assert header(coding.with_origin_tags(asked(*lines)), "If-None-Match") == value


def test_who_changes_a_file_may_name_what_it_saw() -> None:
    request = asked('If-Match: "x+fp.gzip.6"')
    assert coding.with_origin_tags(request) is request
    assert header(coding.with_origin_tags(request, taken_only=False), "If-Match") == '"x+fp.gzip.6", "x"'


def test_if_range_is_never_led_back() -> None:
    request = asked("Accept-Encoding: gzip", "Range: bytes=1-", 'If-Range: "x+fp.gzip.6"', 'If-Match: "x+fp.gzip.6"')
    assert coding.with_origin_tags(request) is request


@pytest.mark.parametrize(
    ("lines", "apart"),
    [((), True), (("Last-Modified: x",), False), (("Last-Modified: x", "ETag: y"), True), (("ETag: y",), True)],
)
def test_a_date_alone_does_not_tell_apart(lines: tuple[str, ...], apart: bool) -> None:
    assert coding.tells_apart(asked(*lines)) is apart


# --- levels -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(CODINGS), st.floats(0, 1), st.floats(0, 1), st.none() | st.integers(0, 10**12))
def test_never_harder_with_less_cpu_left(one: Coding, share: float, more: float, size: int | None) -> None:
    calm, busy = sorted((share, more))
    first, second = coding.level(one, calm, size), coding.level(one, busy, size)
    assert (first is None) == (calm >= BUSIEST)
    if second is not None:
        assert first is not None
        assert 1 <= second <= first <= 9


@pytest.mark.parametrize("one", CODINGS)
def test_big_files_are_coded_quickly(one: Coding) -> None:
    small, big, unknown = (coding.level(one, 0.0, size) for size in (BIG, BIG + 1, None))
    assert small is not None
    assert big == unknown == 1 < small
