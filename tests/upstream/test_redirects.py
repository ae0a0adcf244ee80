"""Whether a redirect is followed, where to, and with which headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.errors import RedirectRefused
from fileproxy.upstream.redirects import Follow, Place, follow, forbidden_address, headers_for, place_of

HTTP, HTTPS = Place("http", "a.example", 80), Place("https", "a.example", 443)
OTHER = Place("https", "b.example", 8443)


def go(
    location: str,
    place: Place = HTTPS,
    path_query: str = "/dir/file?x=1",
    own: tuple[Place, ...] = (HTTPS, OTHER),
    hosts: tuple[str, ...] = ("cdn.example", "store.example:9000"),
    hops_left: int = 5,
) -> Follow:
    return follow(location, place=place, path_query=path_query, own=own, hosts=hosts, hops_left=hops_left)


@pytest.mark.parametrize(
    ("location", "goal"),
    [
        ("/other", Follow(HTTPS, "/other", True)),
        ("other", Follow(HTTPS, "/dir/other", True)),
        ("../up", Follow(HTTPS, "/up", True)),
        ("?y=2", Follow(HTTPS, "/dir/file?y=2", True)),
        ("https://a.example", Follow(HTTPS, "/", True)),
        ("https://A.EXAMPLE:443/x", Follow(HTTPS, "/x", True)),
        ("//a.example/x", Follow(HTTPS, "/x", True)),
        ("https://b.example:8443/x?", Follow(OTHER, "/x?", True)),
        ("https://cdn.example/x", Follow(Place("https", "cdn.example", 443), "/x", False)),
        ("https://cdn.example:77/x", Follow(Place("https", "cdn.example", 77), "/x", False)),
        ("https://store.example:9000/x", Follow(Place("https", "store.example", 9000), "/x", False)),
        ("/x?", Follow(HTTPS, "/x?", True)),
        ("https://cdn.example/x;p;?a=%7e&b=~#f", Follow(Place("https", "cdn.example", 443), "/x;p;?a=%7e&b=~", False)),
        ("/x?a=b%20c&d=%C3%A4#part", Follow(HTTPS, "/x?a=b%20c&d=%C3%A4", True)),
        ("/ä b", Follow(HTTPS, "/%C3%A4%20b", True)),
        ("/\udce4", Follow(HTTPS, "/%E4", True)),  # a raw byte that is no UTF-8 stays that byte
    ],
)
def test_where_it_leads(location: str, goal: Follow) -> None:
    assert go(location) == goal


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("https://evil.example/x", "follow_redirects.hosts"),
        ("https://a.example.evil.example/x", "follow_redirects.hosts"),
        ("https://a.example:8443/x", "follow_redirects.hosts"),  # the own host, but another server
        ("https://store.example/x", "follow_redirects.hosts"),
        ("https://169.254.169.254/latest", "follow_redirects.hosts"),
        ("https://a.example@evil.example/", "credentials"),
        ("https://user:pass@a.example/", "credentials"),
        ("http://a.example/x", "from https to http"),
        ("file:///etc/passwd", "not an http"),
        ("ftp://a.example/x", "not an http"),
        ("javascript:alert(1)", "not an http"),
        ("https://", "not an http"),
        ("https:/x", "not an http"),
        ("/\u2028\n", "control characters"),
        ("https://[::1/x", "not an http"),
        ("https://a.example:port/", "not an http"),
        ("/x\r\nHost: evil", "control characters"),
        ("/x\0", "control characters"),
    ],
)
def test_what_is_refused(location: str, why: str) -> None:
    with pytest.raises(RedirectRefused, match=why):
        go(location)


def test_an_upgrade_to_https_of_an_own_server_is_its_own() -> None:
    goal = go("https://a.example/x", place=HTTP, own=(HTTP,), hosts=())
    assert goal == Follow(HTTPS, "/x", True)
    with pytest.raises(RedirectRefused):
        go("https://a.example:444/x", place=HTTP, own=(HTTP,), hosts=())


def test_the_last_hop() -> None:
    assert go("/x", hops_left=1).path_query == "/x"
    with pytest.raises(RedirectRefused, match="one redirect too many"):
        go("/x", hops_left=0)


@given(st.text())
def test_whatever_it_says_it_stays_among_the_allowed_hosts(location: str) -> None:
    try:
        goal = go(location)
    except RedirectRefused:
        return
    assert goal.place in (HTTPS, OTHER) or goal.place.host == "cdn.example" or goal.place.port == 9000
    assert goal.path_query.startswith("/")
    assert goal.path_query.isascii()
    assert not any(char.isspace() for char in goal.path_query)


def test_secrets_stay_at_home() -> None:
    headers = (("Authorization", "a"), ("Cookie", "b"), ("Range", "bytes=0-"), ("X-Api-Key", "c"))
    assert headers_for(headers, frozenset({"x-api-key"}), own=True) == headers
    assert headers_for(headers, frozenset({"x-api-key"}), own=False) == (("Range", "bytes=0-"),)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("192.168.0.1", "private"),
        ("172.16.0.1", "private"),
        ("100.64.0.1", "private"),  # shared address space (RFC 6598)
        ("fd00::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:7f00:1::", "loopback"),
        ("localhost", "not an IP address"),
    ],
)
def test_addresses(address: str, why: str | None) -> None:
    assert forbidden_address(address, private=False) == why


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "fd00::1"])
def test_private_addresses_can_be_allowed(address: str) -> None:
    assert forbidden_address(address, private=True) is None


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"])
def test_some_never_are(address: str) -> None:
    assert forbidden_address(address, private=True)


def test_places() -> None:
    assert place_of("http://Example.org") == Place("http", "example.org", 80)
    assert place_of("https://[::1]:8443/x") == Place("https", "::1", 8443)
    assert place_of("https://[::1]").authority == "[::1]"
    assert place_of("http://a:81").authority == "a:81"
    assert str(place_of("https://[::1]:8443")) == "https://[::1]:8443"
    with pytest.raises(ValueError, match="not an http"):
        place_of("ftp://a")
