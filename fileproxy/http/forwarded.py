"""Who the client is behind trusted proxies, and what upstreams are told of it (RFC 7239 and X-Forwarded-*).

* Only a peer inside ``server.trusted_proxies`` is believed. From any other, all these fields are ignored and dropped.
* The chain of addresses is walked from the right, the end our trusted peer wrote, past trusted proxies; the first
  address that is not trusted is the client (when all are trusted, the leftmost). Nothing left of it is believed.
* A node that is no address (``unknown``, ``_hidden``, garbage) stops the walk, and the client is :data:`UNKNOWN`:
  whoever is meant is not the proxy that named it so, and must not get the rights of that proxy's address
  (``server.operators``).
* When X-Forwarded-For and Forwarded are both there, X-Forwarded-For counts. It is what deployed proxies append to; one
  that does not know Forwarded passes a client's forged one on untouched. Only one family is read, and both are written
  anew from the chain that was believed, so that an upstream reads the same story in either.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from fileproxy.http.fields import parse_parameters, split_list, token_or_quoted
from fileproxy.http.targets import is_authority
from fileproxy.model import Ask, Headers, header, header_list, header_values, names_any

UNKNOWN = "unknown"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Take these from a request before adding forwarding_headers(ask).
FORWARDING = frozenset(
    {
        "client-ip", "forwarded", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "x-forwarded",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto",
        "x-forwarded-protocol", "x-forwarded-scheme", "x-forwarded-server", "x-forwarded-ssl", "x-original-host",
        "x-original-url", "x-real-ip", "x-request-id", "x-rewrite-url",
    }
)  # fmt: skip
_READ = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_WRITTEN_ANEW = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"})

_LONGEST_NODE = 64  # a longer one is not worth remembering: it is none
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_BRACKETED = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?")
_IPV4_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")


class Networks:
    """A compiled list of IP networks: ``"10.1.2.3" in networks``.

    Takes networks as text (ValueError when one is none). Text that is no address is in none of them. An IPv4 address
    written as IPv6 (``::ffff:10.1.2.3``) is taken as the IPv4 address.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self, networks: Iterable[str]) -> None:
        v4: set[tuple[int, int]] = set()
        v6: set[tuple[int, int]] = set()
        for text in networks:
            network = ipaddress.ip_network(text, strict=False)
            kind = v4 if network.version == 4 else v6
            kind.add((int(network.network_address), int(network.netmask)))
        self._v4 = tuple(sorted(v4))
        self._v6 = tuple(sorted(v6))

    def __contains__(self, address: object) -> bool:
        parsed = parse_node(address) if isinstance(address, str) else None
        if parsed is None:
            return False
        number = int(parsed)
        for base, mask in self._v4 if parsed.version == 4 else self._v6:  # noqa: SIM110 (a generator costs more)
            if number & mask == base:
                return True
        return False


@dataclass(frozen=True, slots=True)
class ClientView:
    """The client as it looked to the outermost trusted proxy."""

    client: str  # an address without port or brackets, or UNKNOWN
    scheme: str
    authority: str
    trusted_peer: bool


@dataclass(frozen=True, slots=True)
class _Hop:
    """One entry of the chain: who came in, and what it asked for, as far as the entry says."""

    node: str
    proto: str | None = None
    host: str | None = None


def client_view(peer: str, headers: Headers, scheme: str, authority: str, trusted: Networks) -> ClientView:
    """Who asks, and for which scheme and authority, after trusted proxies.

    ``peer`` is the TCP peer's address, ``scheme`` and ``authority`` what this connection and its Host say.
    """
    own = _spelled(peer) or peer
    if peer not in trusted:
        return ClientView(own, scheme, authority, False)
    if not names_any(headers, _READ):
        return ClientView(own, scheme, authority, True)
    client, proto, host = own, None, None
    if _speaks_x(headers):
        proto, host = _last(headers, "X-Forwarded-Proto"), _last(headers, "X-Forwarded-Host")
    for hop in reversed(_chain(headers)):
        client = _spelled(hop.node) or UNKNOWN
        proto, host = hop.proto or proto, hop.host or host
        if client not in trusted:
            break
    if proto is not None and proto.lower() in ("http", "https"):
        scheme = proto.lower()
    if host is not None and is_authority(host):
        authority = host
    return ClientView(client, scheme, authority, True)


def _speaks_x(headers: Headers) -> bool:
    """Whether the X-Forwarded-* family is the one to read."""
    return header(headers, "X-Forwarded-For") is not None or header(headers, "Forwarded") is None


def _chain(headers: Headers) -> list[_Hop]:
    """The believed chain, client first. X-Forwarded-Proto and -Host belong to hops only when they are as many."""
    if not _speaks_x(headers):
        return _forwarded_chain(headers)
    addresses = _elements(headers, "X-Forwarded-For")
    protos, hosts = _elements(headers, "X-Forwarded-Proto"), _elements(headers, "X-Forwarded-Host")
    return [
        _Hop(
            node,
            protos[at] if len(protos) == len(addresses) else None,
            hosts[at] if len(hosts) == len(addresses) else None,
        )
        for at, node in enumerate(addresses)
    ]


def _forwarded_chain(headers: Headers) -> list[_Hop]:
    """The elements of Forwarded; one that is malformed or names nobody is a hop of an unknown node."""
    hops = []
    for element in _forwarded_elements(headers):
        pairs = dict(parse_parameters(element) or ())
        hops.append(_Hop(pairs.get("for", UNKNOWN), pairs.get("proto"), pairs.get("host")))
    return hops


def _forwarded_elements(headers: Headers) -> list[str]:
    """Each line by itself: a quote left open in one must not swallow the next."""
    return [element for value in header_values(headers, "Forwarded") for element in split_list(value)]


def _elements(headers: Headers, name: str) -> list[str]:
    value = header_list(headers, name) or ""
    return [element for part in value.split(",") if (element := part.strip(" \t"))]


def _last(headers: Headers, name: str) -> str | None:
    elements = _elements(headers, name)
    return elements[-1] if elements else None


def parse_node(text: str) -> Address | None:
    """The address of ``192.0.2.1``, ``192.0.2.1:443``, ``2001:db8::1`` or ``[2001:db8::1]:443``; None for all else."""
    return _known_node(text) if len(text) <= _LONGEST_NODE else _node_in(text)


def _node_in(text: str) -> Address | None:
    match = _BRACKETED.fullmatch(text) or _IPV4_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address(match[1] if match else text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            return ipaddress.IPv6Address(int(address))
    return address


_known_node = lru_cache(maxsize=1024)(_node_in)  # each request names its peer's several times


def _spelled(text: str) -> str | None:
    """The address of a node as it is usually written; None when it is none."""
    return _known_spelling(text) if len(text) <= _LONGEST_NODE else _spelling_of(text)


def _spelling_of(text: str) -> str | None:
    address = parse_node(text)
    return None if address is None else str(address)


_known_spelling = lru_cache(maxsize=1024)(_spelling_of)


def forwarding_headers(ask: Ask) -> Headers:
    """What upstreams are told: put these in the place of the request's own :data:`FORWARDING` fields.

    X-Forwarded-For and Forwarded are the trusted peer's chain (if it is one) and then the peer; X-Forwarded-Proto,
    X-Forwarded-Host and the last Forwarded element say what the client asked for; X-Request-Id is the ask's. Other
    fields of this kind (X-Real-IP, X-Forwarded-Port …) stay when a trusted peer sent them.
    """
    kept: Headers = ()
    chain: list[str] = []
    earlier: list[str] = []
    if ask.trusted_peer and names_any(ask.headers, FORWARDING):
        kept = tuple(
            pair for pair in ask.headers if (name := pair[0].lower()) in FORWARDING and name not in _WRITTEN_ANEW
        )
        chain = [hop.node for hop in _chain(ask.headers)]
        earlier = _earlier_elements(ask.headers, chain)
    element = ";".join(
        (f"for={_node(ask.peer)}", f"host={token_or_quoted(ask.authority)}", f"proto={token_or_quoted(ask.scheme)}")
    )
    return (
        *kept,
        ("X-Forwarded-For", ", ".join((*chain, _spelled(ask.peer) or ask.peer))),
        ("X-Forwarded-Proto", ask.scheme),
        ("X-Forwarded-Host", ask.authority),
        ("Forwarded", ", ".join((*earlier, element))),
        ("X-Request-Id", ask.id),
    )


def _earlier_elements(headers: Headers, chain: list[str]) -> list[str]:
    """The Forwarded elements before ours: the peer's own when its Forwarded was believed, else its chain written so."""
    if not _speaks_x(headers):
        elements = _forwarded_elements(headers)
        if all(parse_parameters(element) is not None for element in elements):
            return elements
    return [f"for={_node(node)}" for node in chain]


def _node(text: str) -> str:
    """An address as the ``for`` of Forwarded has it (RFC 7239 §6): IPv6 in brackets and quotes."""
    address = _spelled(text)
    if address is None:
        return UNKNOWN
    return f'"[{address}]"' if ":" in address else address


def request_id(headers: Headers, trusted_peer: bool, make: Callable[[], str]) -> str:
    """The id of a request: X-Request-Id of a trusted peer when it is harmless in a log, else a new one."""
    given = header_values(headers, "X-Request-Id") if trusted_peer else []
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else make()
