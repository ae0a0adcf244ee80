"""Bodies that the kernel sends without copying them: those asked for most, in memory (memfd_create(2)) or on disk.

Copying 64 KiB into the kernel costs a fifth of answering with them. So the fast front keeps the larger bodies that were
asked for often in this form as well, and sends them by sendfile(2) behind their heads. Of stored files it keeps the
descriptor, for looking one up costs more than all else here. What the client does not take at once goes to the
transport as always; a large file is not begun unless the socket has room for all of it (``large.py``).

It writes past the transport: only when that one has nothing waiting, and in one go, so that nobody can come between.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fileproxy.errors import FileChanged
from fileproxy.server.bare import Bare
from fileproxy.server.bounded import Bounded
from fileproxy.server.sendfile import descriptor_of, room

if TYPE_CHECKING:
    from fileproxy.server.front import Asker

MOST = 64  # bodies, of which each has a descriptor
sendfile = os.sendfile
_INET, _STREAM = socket.AF_INET, socket.SOCK_STREAM  # of any family: it only sends
_MORE = getattr(socket, "MSG_MORE", 0)  # the head shares the body's first packet


@dataclass(slots=True, eq=False)
class Pages:
    """One body: ``length`` bytes of a file from ``offset``; ``stored``: on disk."""

    descriptor: int
    weight: int
    length: int
    offset: int = 0
    stored: bool = False

    def gone(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def send(self, asker: Asker, head: bytes) -> int | None:
        """Send ``head`` and the body. Returns how many bytes of this the kernel sent by itself.

        None: nothing was done, it does not work here or now. Raises FileChanged: a part was sent, and the rest cannot
        be had.
        """
        target = socket_of(asker)
        if self.descriptor < 0 or target < 0:
            return None
        own = asker.as_socket() if isinstance(asker, Bare) else None
        sock = own or socket.SocketType(_INET, _STREAM, 0, target)
        try:
            if self.length > asker.room and self.stored and room(sock, target) < len(head) + self.length:
                return None
            # Alone before a large file: what shares its packet shifts all pages behind it, which costs a third more.
            sent = sock.send(head, 0 if self.stored else _MORE)
        except OSError:
            return None
        finally:
            if own is None:  # the descriptor is the transport's
                sock.detach()
        if sent < len(head):
            asker.writelines((head[sent:], self._rest(0)))
            return 0
        try:
            sent = sendfile(target, self.descriptor, self.offset, self.length)
        except OSError:  # it takes no more; or it is broken, which the transport will find out
            sent = 0
        if sent < self.length:
            asker.room = 0
            asker.write(self._rest(sent))
        else:
            asker.room = sent  # who asks for more than it has taken (pipelining) has the rest copied
        return sent

    def _rest(self, sent: int) -> bytes:
        try:
            data = os.pread(self.descriptor, self.length - sent, self.offset + sent)
        except OSError as error:
            self.gone()
            raise FileChanged("The file cannot be read any more.") from error
        if len(data) < self.length - sent:
            self.gone()  # who asks next goes the way that looks at the file
            raise FileChanged("The file became shorter while it was being sent.")
        return data


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
        pages = Pages(descriptor, max(len(body), most_bytes // MOST), len(body))
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

    def keep(self, rid: bytes, pages: Pages, most_bytes: int) -> None:
        """A stored file's, at most so long as there is room."""
        pages.weight = max(1, most_bytes // MOST)
        self._bodies.most_bytes = most_bytes
        self._bodies.add(rid, pages)

    def clear(self) -> None:
        """Give all of them back."""
        self._bodies.clear()

    @property
    def bytes(self) -> int:
        return self._bodies.bytes

    def __len__(self) -> int:
        return len(self._bodies)


def socket_of(asker: Asker) -> int:
    """The descriptor of a connection whose bytes go out as they are, and at once; -1: it has none."""
    if isinstance(asker, Bare):
        return asker.descriptor
    if asker.socket is None:
        descriptor = descriptor_of(asker.transport)
        asker.socket = -1 if descriptor is None else descriptor
    return -1 if asker.transport.get_write_buffer_size() else asker.socket
