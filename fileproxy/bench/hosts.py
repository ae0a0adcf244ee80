"""Where a load may go: to this machine, or to what the person who starts it says is theirs.

A name is looked up once; all connections go to that address. So nobody can have the load sent elsewhere afterwards.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote, urlsplit

VOUCH = "--yes-this-is-mine"
Resolve = Callable[[str, int], str]  # raises OSError


class Target(NamedTuple):
    """One URL. ``origin`` is what connections are shared by."""

    url: str
    tls: bool
    address: str
    port: int
    host: str  # as the Host field and TLS name it
    name: str  # without the port
    path: str

    @property
    def origin(self) -> tuple[str, int, bool, str]:
        return self.address, self.port, self.tls, self.host


class Refused(ValueError):
    """A URL that is wrong, or leads where the load may not go. The text is a sentence."""


def lookup(name: str, port: int) -> str:
    """The first address of a name."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def targets(urls: Iterable[str], *, vouched: bool, resolve: Resolve = lookup) -> list[Target]:
    """What the URLs lead to. Raises Refused, and OSError when a name is not known."""
    known: dict[tuple[str, int], str] = {}
    found = []
    for url in urls:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Refused(f"{url!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"{url!r} is no http:// or https:// URL")
        if parts.username is not None or parts.password is not None:
            raise Refused(f"{parts.hostname}: put credentials in a header (-H), not in the URL")
        tls = parts.scheme == "https"
        port = port or (443 if tls else 80)
        where = (parts.hostname, port)
        if where not in known:
            known[where] = resolve(*where)
            if not vouched and not is_loopback(known[where]):
                raise Refused(
                    f"{parts.hostname} is not this machine. A load test may look like an attack and cost its owner "
                    f"money: if the service is yours to load, say {VOUCH}"
                )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        shown = host if port == (443 if tls else 80) else f"{host}:{port}"
        path = _path(parts.path or "/", parts.query)
        found.append(Target(url, tls, known[where], port, shown, parts.hostname, path))
    if not found:
        raise Refused("no URL was given")
    return found


def is_loopback(address: str) -> bool:
    """127.0.0.0/8 and ::1, also written as IPv4 in IPv6."""
    one = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(one, "ipv4_mapped", None)
    return one.is_loopback or (mapped is not None and mapped.is_loopback)


def _path(path: str, query: str) -> str:
    """As it goes into the request line: what is no printable ASCII is escaped, what is escaped stays."""
    whole = f"{path}?{query}" if query else path
    return quote(whole, safe="!#$%&'()*+,/:;=?@[]~-._") if re.search(r"[^!-~]", whole) else whole
