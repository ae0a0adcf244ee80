from __future__ import annotations

import gzip
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.admin.sitemap import BadSitemap, parse

NS = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def urlset(*urls: str) -> bytes:
    rows = "".join(f"<url><loc>\n  {escape(url)}\n</loc><lastmod>2026-01-01</lastmod></url>" for url in urls)
    return f'<?xml version="1.0" encoding="UTF-8"?><urlset {NS}>{rows}</urlset>'.encode()


@given(st.lists(st.from_regex(r"\Ahttps://a\.test/[a-z&<>é]{0,20}\Z"), max_size=20), st.booleans())
def test_addresses_in_order(urls: list[str], packed: bool) -> None:
    data = urlset(*urls)
    assert parse(gzip.compress(data) if packed else data, 1000).urls == urls


def test_an_index_and_what_is_not_an_address_of_a_file() -> None:
    index = f"<sitemapindex {NS}><sitemap><loc>https://a.test/1.xml</loc></sitemap></sitemapindex>".encode()
    assert parse(index, 10) == ([], ["https://a.test/1.xml"])
    image = f'<urlset {NS} xmlns:i="x"><url><loc>/a</loc><i:image><i:loc>/b</i:loc></i:image></url></urlset>'.encode()
    assert parse(image, 10).urls == ["/a"]


def test_no_more_than_asked_for() -> None:
    assert parse(urlset("/1", "/2", "/3")[:-30] + b"<broken", 2).urls == ["/1", "/2"]
    assert parse(urlset("/" + "a" * 5000, "/ok"), 10).urls == ["/ok"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not well-formed"),
        (b"<html/>", "neither"),
        (b"<urlset><url>", "not well-formed"),
        (
            b'<!DOCTYPE u [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>',
            "document",
        ),
        (b'<!DOCTYPE u SYSTEM "file:///etc/passwd"><urlset/>', "document type"),
        (b"<urlset>" + b"<a>" * 100, "too deeply"),
        (gzip.compress(b"<urlset/>", mtime=0)[:-9], "cut short"),
        (b"\x1f\x8bnonsense", "broken gzip"),
        (gzip.compress(b" " * (51 * 1024 * 1024), mtime=0), "longer than"),
    ],
)
def test_what_is_not_taken(data: bytes, why: str) -> None:
    with pytest.raises(BadSitemap, match=why):
        parse(data, 10)


@given(st.binary(max_size=300))
def test_nothing_else_is_raised(data: bytes) -> None:
    try:
        parse(data, 10)
    except BadSitemap:
        return
