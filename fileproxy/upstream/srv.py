"""SRV records (RFC 2782): a question to the system's name servers, and the strict reading of its answer.

Only what a stub resolver needs: one question, UDP with EDNS (RFC 6891), TCP when the answer was cut (RFC 7766), the
next server when one is silent or fails. Identifiers are random, source ports the kernel's; what does not answer exactly
this question is not looked at (RFC 5452). Everything read is bounded: pointers only lead back.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PORT, SRV, CNAME, IN, OPT = 53, 33, 5, 1, 41
UDP_BYTES = 1232  # the size that is not fragmented (DNS flag day 2020)
MOST = 64  # records of one name that are used
ROUNDS = 2  # over the name servers
_NO_SUCH_NAME = 3
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
Server = tuple[str, int]


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """One server of a service. Lower priorities first; ``weight``: its share among those of the same."""

    priority: int
    target: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the name server said; no records: there is no such service. ``ttl_s``: how long that holds."""

    records: tuple[Record, ...]
    ttl_s: int
    cut: bool = False  # it did not fit; the records are not all


class NoAnswer(OSError):
    """No name server could say; nothing is known."""


# --- messages (pure) --------------------------------------------------------------------------------------------------


def question(name: str, ident: int) -> bytes:
    """Asks for the SRV records of ``name``. ValueError when it is no name."""
    labels = name.rstrip(".").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{name!r} is not a name that can be looked up")
    coded = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    head = struct.pack("!6H", ident, 0x0100, 1, 0, 0, 1)  # recursion desired
    return head + coded + struct.pack("!2H", SRV, IN) + struct.pack("!B2HIH", 0, OPT, UDP_BYTES, 0, 0)


def parse(message: bytes, name: str, ident: int) -> Found:
    """The answer to ``question(name, ident)``.

    Raises:
        ValueError: it is something else, or not well formed.
        NoAnswer: it is one, but the server could not say.
    """
    try:
        got, flags, questions, answers, _, _ = struct.unpack_from("!6H", message)
        if got != ident or not flags & 0x8000 or flags & 0x7800 or questions != 1:
            raise ValueError("not an answer to this question")
        asked, at = _name(message, 12)
        if (asked, *struct.unpack_from("!2H", message, at)) != (name.rstrip(".").lower(), SRV, IN):
            raise ValueError("an answer to another question")
        code, cut, at = flags & 0xF, bool(flags & 0x0200), at + 4
        if code not in (0, _NO_SUCH_NAME):
            raise NoAnswer(None, f"the name server could not say (code {code})")
        if cut:
            return Found((), 0, cut=True)
        return _records(message, at, answers, asked)
    except (struct.error, IndexError) as error:
        raise ValueError("a message that ends too early") from error


def _records(message: bytes, at: int, answers: int, asked: str) -> Found:
    owners, ttls, records = {asked}, [], []
    for _ in range(answers):
        owner, at = _name(message, at)
        kind, network, ttl, length = struct.unpack_from("!2HIH", message, at)
        at, end = at + 10, at + 10 + length
        if end > len(message):
            raise ValueError("a record that ends too early")
        if network == IN and owner in owners and kind in (CNAME, SRV):
            ttls.append(0 if ttl > 0x7FFFFFFF else ttl)
            fixed = struct.unpack_from("!3H", message, at) if kind == SRV else ()
            target, stop = _name(message, at + 2 * len(fixed))
            if stop != end:
                raise ValueError("a record of another length than it says")
            if kind == CNAME:
                owners.add(target)
            elif target and fixed[2] and all(_LABEL.fullmatch(label) for label in target.split(".")):
                records.append(Record(fixed[0], target, fixed[2], fixed[1]))
        at = end
    return Found(tuple(sorted(set(records))[:MOST]), min(ttls, default=0))


def _name(message: bytes, at: int) -> tuple[str, int]:
    """The name at an offset, in lower case without the last dot, and where it ends. IndexError, ValueError."""
    labels: list[str] = []
    end, limit, size = None, at, 0
    while (length := message[at]) != 0:
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | message[at + 1]
            if target >= limit:
                raise ValueError("a pointer that does not lead back")
            end, at, limit = (at + 2 if end is None else end), target, target
            continue
        size += length + 1
        label = message[at + 1 : at + 1 + length]
        if length > 63 or size > 254 or len(label) != length or b"." in label:
            raise ValueError("not a name")
        labels.append(label.decode("latin-1").lower())
        at += length + 1
    return ".".join(labels), at + 1 if end is None else end


# --- asking -----------------------------------------------------------------------------------------------------------


def name_servers(path: Path = Path("/etc/resolv.conf")) -> list[Server]:
    """The first three of the system; this machine when it names none."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    return [(word[1], PORT) for word in words if len(word) > 1 and word[0] == "nameserver"][:3] or [("127.0.0.1", PORT)]


async def look_up(name: str, servers: Sequence[Server], *, timeout_s: float) -> Found:
    """The records of a name; ``timeout_s`` for each try. Raises NoAnswer."""
    problem = "no name server"
    for server in [*servers] * ROUNDS:
        try:
            async with asyncio.timeout(timeout_s):
                found = await _by_udp(name, server)
                return await _by_tcp(name, server) if found.cut else found
        except TimeoutError:
            problem = f"{server[0]} did not answer within {timeout_s:g} s"
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            problem = f"{server[0]}: {getattr(error, 'strerror', None) or error}"
    raise NoAnswer(None, f"{name}: {problem}")


class _Datagrams(asyncio.DatagramProtocol):
    """The first datagram that answers the question."""

    def __init__(self, name: str, ident: int, answer: asyncio.Future[Found]) -> None:
        self._name, self._ident, self._answer = name, ident, answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._answer.done():
            return
        try:
            self._answer.set_result(parse(data, self._name, self._ident))
        except NoAnswer as error:
            self._answer.set_exception(error)
        except ValueError:
            return  # not ours, or forged: the true one may follow

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


async def _by_udp(name: str, server: Server) -> Found:
    loop, ident = asyncio.get_running_loop(), secrets.randbelow(65536)
    answer: asyncio.Future[Found] = loop.create_future()
    message = question(name, ident)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(name, ident, answer), remote_addr=server)
    try:
        transport.sendto(message)
        return await answer
    finally:
        transport.close()


async def _by_tcp(name: str, server: Server) -> Found:
    ident = secrets.randbelow(65536)
    message = question(name, ident)
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack("!H", len(message)) + message)
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        found = parse(await reader.readexactly(size), name, ident)
    finally:
        writer.transport.abort()
    if found.cut:
        raise ValueError("an answer that is cut over TCP, too")
    return found
