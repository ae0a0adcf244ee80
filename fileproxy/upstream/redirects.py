"""Whether a redirect is followed, where to, and with which headers. Pure; the address is checked at connect time.

An origin's redirect is not trusted: it may lead a proxy that stands inside a network to services that only it can
reach. So only GET and HEAD are followed (their method never changes), only to the upstream's own servers and the hosts
named in the configuration, never from https to http, and credentials meant for the upstream stay there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from fileproxy.errors import RedirectRefused
from fileproxy.model import Headers, without

STATUSES = frozenset({301, 302, 303, 307, 308})
METHODS = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
# Everything that may stand in a URI (RFC 3986 §2) stays as it is; the rest of Location is percent-encoded as UTF-8.
_URI = "%!#$&'()*+,/:;=?@[]~"
_ABSOLUTE = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class Place:
    """Scheme, lower-case host (IPv6 without brackets) and port of a server."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As a Host header wants it: IPv6 in brackets, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """``host:port`` for people and counters."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def place_of(url: str) -> Place:
    """The server of an http(s) URL. ValueError when it is none."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is not an http:// or https:// URL")
    return Place(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])


@dataclass(frozen=True, slots=True)
class Follow:
    """Where to go next."""

    place: Place
    path_query: str
    own: bool  # one of the upstream's servers: its headers go along, its address is not checked


def follow(
    location: str, *, place: Place, path_query: str, own: Sequence[Place], hosts: Sequence[str], hops_left: int
) -> Follow:
    """Judge one redirect.

    Args:
        location: the Location header as it came.
        place: the server that sent it.
        path_query: what was asked there.
        own: the upstream's servers.
        hosts: ``follow_redirects.hosts``: ``name`` (any port) or ``name:port``.
        hops_left: how many more redirects may be followed.

    Raises:
        RedirectRefused: with the reason.
    """
    if hops_left < 1:
        raise RedirectRefused(f"{place.address} sent one redirect too many (follow_redirects.hops)")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in location):
        raise RedirectRefused(f"{place.address} sent a Location with control characters")
    try:
        target = _resolved(quote(location, safe=_URI, errors="surrogateescape"), f"{place}{path_query}")
        parts = urlsplit(target)
        goal = place_of(target)
    except ValueError as error:
        raise RedirectRefused(f"{place.address} redirected to something that is not an http(s) URL") from error
    if parts.username is not None or parts.password is not None:
        raise RedirectRefused(f"{place.address} redirected to a URL with credentials in it")
    if place.scheme == "https" and goal.scheme == "http":
        raise RedirectRefused(f"{place.address} redirected from https to http")
    upgraded = goal == Place("https", goal.host, 443) and Place("http", goal.host, 80) in own
    is_own = goal in own or upgraded
    if not is_own and not {goal.host, goal.address} & {name.lower() for name in hosts}:
        raise RedirectRefused(f"{place.address} redirected to {goal.address}, which is not in follow_redirects.hosts")
    path = parts.path or "/"
    query = target.partition("#")[0].partition("?")
    return Follow(goal, path + query[1] + query[2], is_own)


def _resolved(reference: str, base: str) -> str:
    """RFC 3986 §5.2, but that a URL stays as it came: one that was signed must not change by a character."""
    if _ABSOLUTE.match(reference):
        return reference
    joined = urljoin(base, reference).partition("#")[0]
    return joined + "?" if reference.partition("#")[0].endswith("?") and "?" not in joined else joined


def headers_for(headers: Headers, configured: frozenset[str], own: bool) -> Headers:
    """The request headers for the next hop. Other hosts get no credentials and nothing that was configured.

    ``configured``: lower-cased names of ``upstreams.NAME.headers``.
    """
    return headers if own else without(headers, _SECRETS | configured)


def forbidden_address(address: str, private: bool) -> str | None:
    """Why a redirect may not lead to this IP address, or None when it may.

    ``private`` allows private and loopback addresses; link-local ones (cloud metadata), multicast and the unspecified
    address stay forbidden. An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) counts as that IPv4 address.
    """
    try:
        ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not an IP address"
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _embedded(ip) or ip
    if ip.is_link_local:
        return "link-local"
    if ip.is_multicast:
        return "multicast"
    if ip.is_unspecified or ip in ipaddress.ip_network("0.0.0.0/8"):
        return "unspecified"
    if not private and not ip.is_global:
        return "loopback" if ip.is_loopback else "private"
    return None


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip in ipaddress.ip_network("64:ff9b::/96"):  # RFC 6052
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None
