from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.fields import parse_parameters, split_list
from fileproxy.http.forwarded import (
    FORWARDING,
    UNKNOWN,
    ClientView,
    Networks,
    client_view,
    forwarding_headers,
    parse_node,
    request_id,
)
from fileproxy.model import Ask, Headers, Target, header, header_values

TRUSTED = Networks(["127.0.0.0/8", "::1/128", "10.0.0.0/8"])
PROXY = "127.0.0.1"


def view(headers: Headers, peer: str = PROXY) -> ClientView:
    return client_view(peer, headers, "http", "here", TRUSTED)


def xff(*values: str) -> Headers:
    return tuple(("X-Forwarded-For", value) for value in values)


@pytest.mark.option("server.trusted_proxies")
@pytest.mark.parametrize(
    ("values", "client"),
    [
        ((), PROXY),
        (("203.0.113.7",), "203.0.113.7"),
        (("6.6.6.6, 203.0.113.7",), "203.0.113.7"),  # what the client wrote itself is not believed
        (("6.6.6.6", "203.0.113.7, 10.1.2.3"), "203.0.113.7"),  # lines are one list; trusted hops are skipped
        (("203.0.113.7:4711",), "203.0.113.7"),
        (("2001:db8::1",), "2001:db8::1"),
        (("[2001:DB8::1]:443",), "2001:db8::1"),
        (("[2001:db8::1]",), "2001:db8::1"),
        (("::ffff:203.0.113.7",), "203.0.113.7"),
        (("10.0.0.9, 10.1.2.3",), "10.0.0.9"),  # all trusted: the leftmost
        ((" , 203.0.113.7,, ",), "203.0.113.7"),
        (("203.0.113.7, unknown",), UNKNOWN),
        (("_hidden",), UNKNOWN),
        (("203.0.113.7, garbage, 10.1.2.3",), UNKNOWN),
        (("garbage, 203.0.113.7",), "203.0.113.7"),
        (("1.2.3.4.5",), UNKNOWN),
        (("01.2.3.4",), UNKNOWN),
        (('"203.0.113.7"',), UNKNOWN),
        (("",), PROXY),
    ],
)
def test_the_walk_from_the_right(values: tuple[str, ...], client: str) -> None:
    assert view(xff(*values)).client == client


@pytest.mark.option("server.trusted_proxies")
def test_an_untrusted_peer_says_nothing() -> None:
    headers = (
        *xff("127.0.0.1"), ("Forwarded", "for=127.0.0.1;proto=https;host=evil"), ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil"),
    )  # fmt: skip
    assert view(headers, "203.0.113.7") == ClientView("203.0.113.7", "http", "here", False)
    assert view(headers, "::ffff:203.0.113.7").client == "203.0.113.7"
    assert view(headers, "::ffff:127.0.0.1").trusted_peer


@pytest.mark.parametrize(
    ("values", "client", "scheme", "authority"),
    [
        (("for=203.0.113.7;proto=https;host=files.example.org",), "203.0.113.7", "https", "files.example.org"),
        (('For="[2001:db8::1]:4711";Proto=HTTPS',), "2001:db8::1", "https", "here"),
        (("for=6.6.6.6;proto=https, for=203.0.113.7",), "203.0.113.7", "http", "here"),
        (("for=203.0.113.7;host=a, for=10.0.0.2;host=b;proto=https",), "203.0.113.7", "https", "a"),
        (("for=203.0.113.7", "for=10.0.0.2"), "203.0.113.7", "http", "here"),
        (("for=_secret;proto=https",), UNKNOWN, "https", "here"),
        (("proto=https",), UNKNOWN, "https", "here"),
        (("for=6.6.6.6;x=\", for=203.0.113.7",), UNKNOWN, "http", "here"),  # a quote left open by the client
        (("for=6.6.6.6;x=\", for=\"[2001:db8::1]\"",), UNKNOWN, "http", "here"),
        (("for=6.6.6.6;x=\"", "for=203.0.113.7"), "203.0.113.7", "http", "here"),
        (("for=203.0.113.7;proto=gopher;host=\"a b\"",), "203.0.113.7", "http", "here"),
    ],
)  # fmt: skip
def test_forwarded(values: tuple[str, ...], client: str, scheme: str, authority: str) -> None:
    headers = tuple(("Forwarded", value) for value in values)
    assert view(headers) == ClientView(client, scheme, authority, True)


def test_x_forwarded_for_counts_before_forwarded() -> None:
    """A proxy that knows only X-Forwarded-For passes a client's Forwarded on untouched."""
    headers = (*xff("203.0.113.7"), ("Forwarded", "for=10.9.9.9;proto=https;host=evil"))
    assert view(headers) == ClientView("203.0.113.7", "http", "here", True)


def test_forwarded_alone_does_not_let_a_clients_x_fields_through() -> None:
    headers = (("Forwarded", "for=203.0.113.7"), ("X-Forwarded-Host", "evil"), ("X-Forwarded-Proto", "https"))
    assert view(headers) == ClientView("203.0.113.7", "http", "here", True)


@pytest.mark.parametrize(
    ("addresses", "protos", "scheme"),
    [
        ("203.0.113.7", "https", "https"),
        ("203.0.113.7, 10.0.0.2", "https, http", "https"),  # as many as hops: the client's own
        ("203.0.113.7, 10.0.0.2", "https", "https"),
        ("6.6.6.6, 203.0.113.7", "https, http", "http"),
        ("203.0.113.7, 10.0.0.2", "http, http, https", "https"),  # not as many: the nearest proxy's word
        ("203.0.113.7", "wss", "http"),
    ],
)
def test_schemes_along_the_chain(addresses: str, protos: str, scheme: str) -> None:
    assert view((*xff(addresses), ("X-Forwarded-Proto", protos))).scheme == scheme


@pytest.mark.parametrize("host", ["a/b", "u@evil", "a b", "", "é"])
def test_a_host_that_is_none_is_not_taken_over(host: str) -> None:
    assert view((*xff("203.0.113.7"), ("X-Forwarded-Host", host))).authority == "here"
    assert view((("X-Forwarded-Host", "files.example.org:81"),)).authority == "files.example.org:81"


@pytest.mark.parametrize(
    "text", ["", "a", "1.2.3", "1.2.3.4:", "1.2.3.4:999999", "[1::2", "[a]:1", "1.2.3.4]", "1::2]:3"]
)
def test_no_addresses(text: str) -> None:
    assert parse_node(text) is None
    assert text not in TRUSTED


def test_zones_do_not_count() -> None:
    assert str(parse_node("fe80::1%eth0")) == "fe80::1"


def test_networks_refuse_what_is_none() -> None:
    with pytest.raises(ValueError, match="appear"):
        Networks(["localhost"])


@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=5), st.integers(0, 32), st.ip_addresses(v=4))
def test_membership_agrees_with_ipaddress(
    bases: list[ipaddress.IPv4Address], bits: int, address: ipaddress.IPv4Address
) -> None:
    networks = [ipaddress.ip_network(f"{base}/{bits}", strict=False) for base in bases]
    compiled = Networks(str(network) for network in networks)
    assert (str(address) in compiled) == any(address in network for network in networks)
    assert (f"::ffff:{address}" in compiled) == (str(address) in compiled)


def ask(headers: Headers, *, peer: str = PROXY, trusted: bool = True) -> Ask:
    return Ask("id-1", "GET", Target("/"), "files.example.org:81", "https", "9.9.9.9", peer, trusted, headers)


def test_upstreams_hear_of_an_untrusted_peer_only() -> None:
    headers = (*xff("1.1.1.1"), ("Forwarded", "for=1.1.1.1"), ("X-Real-IP", "1.1.1.1"), ("X-Request-Id", "forged"))
    assert forwarding_headers(ask(headers, peer="203.0.113.7", trusted=False)) == (
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "files.example.org:81"),
        ("Forwarded", 'for=203.0.113.7;host="files.example.org:81";proto=https'),
        ("X-Request-Id", "id-1"),
    )


def test_a_trusted_chain_is_continued_in_both_fields() -> None:
    sent = forwarding_headers(
        ask((*xff("203.0.113.7:4711, 2001:db8::1"), ("Forwarded", "for=evil"), ("X-Real-IP", "1.1.1.1")))
    )
    assert header_values(sent, "X-Forwarded-For") == ["203.0.113.7:4711, 2001:db8::1, 127.0.0.1"]
    assert header_values(sent, "Forwarded") == [
        'for=203.0.113.7, for="[2001:db8::1]", for=127.0.0.1;host="files.example.org:81";proto=https'
    ]
    assert header_values(sent, "X-Real-IP") == ["1.1.1.1"]


def test_a_trusted_forwarded_is_continued_in_both_fields() -> None:
    sent = forwarding_headers(ask((("Forwarded", 'for="[2001:db8::1]:1";by=_x'), ("Forwarded", "for=unknown"))))
    assert header_values(sent, "X-Forwarded-For") == ["[2001:db8::1]:1, unknown, 127.0.0.1"]
    forwarded = header(sent, "Forwarded") or ""
    assert forwarded.startswith('for="[2001:db8::1]:1";by=_x, for=unknown, for=127.0.0.1;')


def test_a_broken_forwarded_is_written_anew() -> None:
    forwarded = header(forwarding_headers(ask((("Forwarded", 'for="open'),))), "Forwarded") or ""
    assert forwarded.startswith("for=unknown, for=127.0.0.1;")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(FORWARDING)),
            st.text(st.characters(codec="ascii", categories=["P", "N", "S"]), max_size=20),
        )
    ),
    st.booleans(),
)
def test_what_is_sent_is_well_formed_and_ends_with_the_peer(headers: list[tuple[str, str]], trusted: bool) -> None:
    sent = forwarding_headers(ask(tuple(headers), trusted=trusted))
    assert {name.lower() for name, _ in sent} <= FORWARDING
    (chain,), (forwarded,) = header_values(sent, "X-Forwarded-For"), header_values(sent, "Forwarded")
    assert chain.split(", ")[-1] == PROXY
    elements = [parse_parameters(element) for element in split_list(forwarded)]
    assert elements[-1] == (("for", PROXY), ("host", "files.example.org:81"), ("proto", "https"))
    assert None not in elements


@pytest.mark.option("server.trusted_proxies")
@pytest.mark.parametrize(
    ("headers", "trusted", "taken"),
    [
        ((("X-Request-Id", "abc-123:/+=@._"),), True, "abc-123:/+=@._"),
        ((("x-request-id", "a" * 128),), True, "a" * 128),
        ((("X-Request-Id", "abc"),), False, "new"),
        ((("X-Request-Id", "a" * 129),), True, "new"),
        ((("X-Request-Id", 'a"} {"forged'),), True, "new"),
        ((("X-Request-Id", "a\n"),), True, "new"),
        ((("X-Request-Id", ""),), True, "new"),
        ((("X-Request-Id", "a"), ("X-Request-Id", "b")), True, "new"),
        ((), True, "new"),
    ],
)
def test_request_ids(headers: Headers, trusted: bool, taken: str) -> None:
    assert request_id(headers, trusted, lambda: "new") == taken
