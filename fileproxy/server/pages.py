"""Bodies that the kernel sends without copying them: files in memory (memfd_create(2), Linux) of those asked for most.

Copying 64 KiB into the kernel costs a fifth of answering with them. So the fast front keeps the larger bodies that were
asked for often in this form as well, and sends them by sendfile(2) behind their heads. What the client does not take at
once goes to the transport as always.

It writes past the transport: only when that one has nothing waiting, and in one go, so that nobody can come between.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fileproxy.server.bounded import Bounded
from fileproxy.server.sendfile import descriptor_of

if TYPE_CHECKING:
    from fileproxy.server.front import Front

MOST = 64  # bodies, of which each has a descriptor
sendfile = os.sendfile
_MORE = getattr(socket, "MSG_MORE", 0)  # the head shares the body's first packet


@dataclass(slots=True, eq=False)
class Pages:
    """One body."""

    descriptor: int
    weight: int

    def gone(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)

    def send(self, front: Front, head: bytes, body: bytes) -> bool:
        """Send ``head`` and ``body`` (what the pages hold). False: nothing was done, it does not work here or now."""
        transport, target = front.transport, socket_of(front)
        if self.descriptor < 0 or target < 0 or transport.get_write_buffer_size():
            return False
        borrowed = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, target)  # any family: it only sends
        try:
            sent = borrowed.send(head, _MORE)
        except OSError:
            return False
        finally:
            borrowed.detach()
        if sent < len(head):
            transport.writelines((head[sent:], body))
            return True
        try:
            sent = sendfile(target, self.descriptor, 0, len(body))
        except OSError:  # it takes no more; or it is broken, which the transport will find out
            sent = 0
        if sent < len(body):
            transport.write(memoryview(body)[sent:])
        return True


class Shelf:
    """The pages of one worker, by the representation they are of."""

    def __init__(self) -> None:
        self._bodies: Bounded[bytes, Pages] = Bounded(0)

    def put(self, rid: bytes, body: bytes, most_bytes: int) -> Pages | None:
        """``body`` in pages, at the cost of those put here first. None: the kernel has none to give."""
        if (pages := self._bodies.get(rid)) is not None:
            self._bodies.refresh(rid)
            return pages
        if not hasattr(os, "memfd_create"):
            return None
        try:
            descriptor = os.memfd_create("body", os.MFD_CLOEXEC)
        except OSError:
            return None
        pages = Pages(descriptor, max(len(body), most_bytes // MOST))
        try:
            whole = os.write(descriptor, body) == len(body)
        except OSError:
            whole = False
        if not whole:
            pages.gone()
            return None
        self._bodies.most_bytes = most_bytes
        self._bodies.add(rid, pages)
        return pages

    def clear(self) -> None:
        """Give all of them back."""
        self._bodies.clear()

    @property
    def bytes(self) -> int:
        return self._bodies.bytes

    def __len__(self) -> int:
        return len(self._bodies)


def socket_of(front: Front) -> int:
    """The descriptor of a connection whose bytes go out as they are; -1: it has none."""
    if front.socket is None:
        descriptor = descriptor_of(front.transport)
        front.socket = -1 if descriptor is None else descriptor
    return front.socket
