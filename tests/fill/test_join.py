"""Law 1, rule by rule: which bytes may be joined to which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.fill.join import Differs, Joins, if_range, is_pinned, judge, same_representation
from fileproxy.model import Headers, Meta

NOW = 1_795_348_800.0
DATE = ("Date", "Sun, 22 Nov 2026 12:00:00 GMT")
MODIFIED = ("Last-Modified", "Sun, 01 Nov 2026 12:00:00 GMT")
LATER = ("Last-Modified", "Mon, 02 Nov 2026 12:00:00 GMT")
ETAG = ("ETag", '"one"')
SIZE = 1000


def meta(*headers: tuple[str, str], pinned: bool = True, size: int = SIZE) -> Meta:
    return Meta(
        key=b"k" * 16,
        rid=b"r" * 16,
        url="files//f",
        status=200,
        reason="OK",
        headers=headers,
        size=size,
        block=64,
        pinned=pinned,
        requested_at=NOW,
        received_at=NOW,
        age_s=0.0,
    )


def part(first: int, last: int, *headers: tuple[str, str], size: int | str = SIZE) -> Headers:
    return (("Content-Range", f"bytes {first}-{last}/{size}"), *headers)


ONE = meta(ETAG, DATE)
DATED = meta(MODIFIED, DATE)


def test_the_exact_part_joins() -> None:
    assert judge(ONE, 206, part(100, 199, ETAG), 100, 100, 199, NOW) == Joins(0, 200)


def test_a_shorter_part_joins_as_far_as_it_goes() -> None:
    assert judge(ONE, 206, part(100, 149, ETAG), None, 100, 199, NOW) == Joins(0, 150)


@pytest.mark.parametrize(
    ("headers", "length", "changed"),
    [
        (part(100, 199, ETAG, size=999), 100, True),  # another size
        (part(100, 199, ETAG, size="*"), 100, False),  # no size: nothing is shown
        (part(100, 199, ("ETag", '"two"')), 100, True),
        (part(100, 199, ("ETag", 'W/"two"')), 100, True),
        (part(100, 199, ("ETag", 'W/"one"')), 100, False),  # weakened: proves nothing, denies nothing
        (part(100, 199), 100, False),  # no ETag
        (part(100, 199, MODIFIED), 100, True),  # a date instead of our ETag
        (part(100, 199, ("ETag", "one")), 100, False),  # malformed
        (part(100, 199, ETAG, ("Content-Encoding", "gzip")), 100, False),
        (part(101, 199, ETAG), 99, False),  # other bytes
        (part(99, 199, ETAG), 101, False),
        (part(100, 200, ETAG), 101, False),
        (part(100, 199, ETAG), 99, False),  # contradicts Content-Length
        ((ETAG,), 100, False),  # no Content-Range
        ((("Content-Range", "bytes */1000"), ETAG), 100, False),
        ((("Content-Range", "bytes 199-100/1000"), ETAG), 100, False),
        ((("Content-Range", "items 100-199/1000"), ETAG), 100, False),
    ],
)
def test_other_parts_do_not_join(headers: Headers, length: int, changed: bool) -> None:
    found = judge(ONE, 206, headers, length, 100, 199, NOW)
    assert isinstance(found, Differs)
    assert found.changed is changed


def test_the_whole_file_is_read_forward() -> None:
    assert judge(ONE, 200, (ETAG,), SIZE, 100, 199, NOW) == Joins(100, SIZE)


@pytest.mark.parametrize(
    ("headers", "length", "changed"),
    [
        ((ETAG,), 999, True),
        ((ETAG,), None, True),
        ((("ETag", '"two"'),), SIZE, True),
        ((("ETag", 'W/"one"'),), SIZE, False),
        ((), SIZE, False),
        ((ETAG, ("Content-Encoding", "gzip")), SIZE, False),
    ],
)
def test_another_whole_file_does_not_join(headers: Headers, length: int | None, changed: bool) -> None:
    found = judge(ONE, 200, headers, length, 100, 199, NOW)
    assert isinstance(found, Differs)
    assert found.changed is changed


@pytest.mark.parametrize("status", [404, 410, 412, 416])
def test_a_file_that_is_not_there_any_more_has_changed(status: int) -> None:
    found = judge(ONE, status, (), 0, 100, 199, NOW)
    assert isinstance(found, Differs)
    assert found.changed


@pytest.mark.parametrize("status", [204, 301, 304, 403, 429, 500, 503])
def test_other_statuses_say_nothing_of_the_file(status: int) -> None:
    found = judge(ONE, status, (ETAG,), 0, 100, 199, NOW)
    assert isinstance(found, Differs)
    assert not found.changed


def test_the_encoding_must_be_that_of_the_entry() -> None:
    zipped = meta(ETAG, ("Content-Encoding", "gzip, br"))
    assert same_representation(zipped, (ETAG, ("content-encoding", "GZIP,br")), SIZE, NOW)
    assert not same_representation(zipped, (ETAG,), SIZE, NOW)
    assert not same_representation(zipped, (ETAG, ("Content-Encoding", "br, gzip")), SIZE, NOW)


def test_last_modified_pins_where_there_is_no_etag() -> None:
    assert judge(DATED, 206, part(0, 9, MODIFIED), 10, 0, 9, NOW) == Joins(0, 10)
    for other in (LATER, ("Last-Modified", "yesterday")):
        assert judge(DATED, 206, part(0, 9, other), 10, 0, 9, NOW) == Differs(
            "a part of another version of the file", changed=True
        )
    missing = judge(DATED, 206, part(0, 9), 10, 0, 9, NOW)
    assert isinstance(missing, Differs)
    assert not missing.changed


def test_an_etag_that_came_later_does_not_unpin_a_date() -> None:
    assert isinstance(judge(DATED, 206, part(0, 9, MODIFIED, ETAG), 10, 0, 9, NOW), Joins)


def test_what_is_not_pinned_joins_nothing() -> None:
    loose = meta(ETAG, pinned=False)
    assert isinstance(judge(loose, 206, part(0, 9, ETAG), 10, 0, 9, NOW), Differs)
    assert if_range(loose) is None


@pytest.mark.parametrize(
    ("headers", "pinned"),
    [
        ((ETAG,), True),
        ((("ETag", 'W/"one"'),), False),
        ((("ETag", 'W/"one"'), MODIFIED, DATE), False),
        ((MODIFIED, DATE), True),
        ((("Last-Modified", DATE[1]), DATE), False),  # not a second older than Date: weak (RFC 9110 §8.8.2.2)
        ((MODIFIED,), True),  # Date is then the time of receipt
        ((), False),
    ],
)
def test_strong_validators_pin(headers: Headers, pinned: bool) -> None:
    assert is_pinned(headers, NOW) is pinned


def test_if_range_carries_the_validator() -> None:
    assert if_range(ONE) == '"one"'
    assert if_range(DATED) == MODIFIED[1]
    assert if_range(meta(ETAG, MODIFIED)) == '"one"'
    assert if_range(meta()) is None


@given(
    first=st.integers(0, 999),
    length=st.integers(1, 1000),
    at=st.integers(0, 1200),
    size=st.integers(1, 1200),
    sent=st.integers(0, 1200),
)
def test_what_joins_begins_at_the_wanted_byte_and_ends_within_it(
    first: int, length: int, at: int, size: int, sent: int
) -> None:
    last = min(999, first + length - 1)
    found = judge(ONE, 206, part(first, last, ETAG, size=size), sent, at, 999, NOW)
    if isinstance(found, Joins):
        assert (first, size, sent, found.skip) == (at, SIZE, last - first + 1, 0)
        assert found.end == last + 1


# --- mirrors whose ETags differ (mirrors_match: size+mtime) -----------------------------------------------------------

BOTH = meta(ETAG, MODIFIED, DATE)
TWO = ("ETag", '"two"')
FRESH = ("Date", MODIFIED[1])  # of the same second as Last-Modified, which then tells nothing


def test_by_size_and_time_a_part_with_another_etag_joins() -> None:
    assert judge(BOTH, 206, part(0, 9, TWO, MODIFIED), 10, 0, 9, NOW, size_and_time=True) == Joins(0, 10)
    assert judge(BOTH, 200, (TWO, MODIFIED), SIZE, 100, 199, NOW, size_and_time=True) == Joins(100, SIZE)
    assert isinstance(judge(BOTH, 206, part(0, 9, TWO, MODIFIED), 10, 0, 9, NOW), Differs)


@pytest.mark.parametrize(
    ("headers", "changed"),
    [
        (part(0, 9, TWO, LATER), True),
        (part(0, 9, TWO, MODIFIED, size=999), True),
        (part(0, 9, TWO), True),
        (part(0, 9, TWO, MODIFIED, ("Content-Encoding", "gzip")), False),
        (part(0, 9, TWO, MODIFIED, FRESH), False),
        (part(1, 9, TWO, MODIFIED), False),
    ],
)
def test_by_size_and_time_nothing_else_joins(headers: Headers, changed: bool) -> None:
    found = judge(BOTH, 206, headers, 10, 0, 9, NOW, size_and_time=True)
    assert isinstance(found, Differs)
    assert found.changed is changed


@pytest.mark.parametrize("entry", [ONE, meta(ETAG, MODIFIED, FRESH)])
def test_an_entry_without_a_strong_date_still_needs_its_etag(entry: Meta) -> None:
    assert isinstance(judge(entry, 206, part(0, 9, TWO, MODIFIED), 10, 0, 9, NOW, size_and_time=True), Differs)
    assert judge(entry, 206, part(0, 9, ETAG, MODIFIED), 10, 0, 9, NOW, size_and_time=True) == Joins(0, 10)
    assert if_range(entry, size_and_time=True) == '"one"'


def test_by_size_and_time_no_mirror_is_asked_by_the_etag_of_another() -> None:
    assert if_range(BOTH) == '"one"'
    assert if_range(BOTH, size_and_time=True) == MODIFIED[1]
    assert if_range(meta(ETAG, MODIFIED, DATE, pinned=False), size_and_time=True) is None
