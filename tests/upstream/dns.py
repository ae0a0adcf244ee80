"""A name server on loopback for tests: answers SRV questions over UDP and TCP as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence

Records = Sequence[tuple[int, int, int, str]]  # priority, weight, port, target


def coded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def record(owner: bytes, kind: int, data: bytes, ttl: int = 60) -> bytes:
    return owner + struct.pack("!2HIH", kind, 1, ttl, len(data)) + data


def srv_record(one: tuple[int, int, int, str], ttl: int = 60, owner: bytes = b"\xc0\x0c") -> bytes:
    return record(owner, 33, struct.pack("!3H", *one[:3]) + coded(one[3]), ttl)


def answer(question: bytes, *records: bytes, flags: int = 0x8180) -> bytes:
    """To a question with one name: it is echoed."""
    end = question.index(b"\0", 12) + 5
    return question[:2] + struct.pack("!5H", flags, 1, len(records), 0, 0) + question[12:end] + b"".join(records)


def asked_name(question: bytes) -> str:
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += question[at] + 1
    return ".".join(labels)


class NameServer:
    """``known``: records by name; other names do not exist. ``twist`` makes of an answer the datagrams to send."""

    def __init__(self) -> None:
        self.known: dict[str, Records] = {}
        self.ttl = 60
        self.asked: list[tuple[str, str]] = []  # (udp or tcp, name)
        self.cut = False  # UDP answers do not fit
        self.twist: Callable[[bytes], list[bytes]] = lambda message: [message]
        self.port = 0

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def reply(self, question: bytes, how: str) -> bytes:
        name = asked_name(question)
        self.asked.append((how, name))
        if self.cut and how == "udp":
            return answer(question, flags=0x8380)
        if name not in self.known:
            return answer(question, flags=0x8183)
        return answer(question, *(srv_record(one, self.ttl) for one in self.known[name]))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            message = self.reply(await reader.readexactly(size), "tcp")
            writer.write(struct.pack("!H", len(message)) + message)
            await reader.read()
        writer.close()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[NameServer]:
        server = self

        class Datagrams(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                for message in server.twist(server.reply(data, "udp")):
                    self.transport.sendto(message, addr)  # type: ignore[attr-defined]

        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=self.address)
        try:
            yield self
        finally:
            transport.close()
            listener.close()
            await listener.wait_closed()
