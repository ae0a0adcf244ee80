"""Slices of files, straight from the page cache to a client's socket: ``sendfile``, past the transport.

A loop lets nobody watch a transport's own descriptor, and uvloop has no ``sendfile``. So the first try goes to that
descriptor at once, between two awaits; only when the socket is full a duplicate of it is made and watched.

* Only while the transport's write buffer is empty and nobody else writes (``deliver.py`` sees to that).
* The loop does not wait for a disk: what is not in the page cache is read by a thread first (``RWF_NOWAIT`` tells).
* One turn is some MiB at most (``turnstile.py``), or one write as long as the client's path deserves.
* A client that takes less than 1 KiB in an idle window is given up (law 3). What it took is what the kernel has no
  more to send of (``SIOCOUTQ``): the socket turns writable only each MiB or so, far too seldom for a slow one.
* Whatever happens, ``close`` ends the watch and the duplicate; the caller aborts the connection.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from fileproxy.errors import ClientGone, ClientStalled, FileChanged
from fileproxy.model import FileSlice
from fileproxy.server.running import Held
from fileproxy.server.turnstile import TURN

PROGRESS_FLOOR = 1024  # bytes in an idle window that count as progress
TOLD_S = 0.02  # what was handed over is told so much later at most: each time would cost as much as handing it over
_AHEAD = 2 * TURN  # bytes a thread brings into the page cache at once
_FOUND = 16 * TURN  # bytes that are looked for there at once
_FOUND_S = 1.0  # how long what was found there is taken to be there still
_READ = 256 * 1024
_UNABLE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})  # of a file system that cannot do it
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class State(enum.Enum):
    """What a turn came to."""

    DONE = "all of it is sent"
    TURN = "the socket would take more"
    FULL = "the socket takes no more now"
    COLD = "the next bytes are not in the page cache"
    UNABLE = "this file can only be copied"


class Outlet:
    """The socket of one client connection.

    ``readers``: threads that may wait for a disk. ``most()``: bytes of one turn now. ``went(n)`` is told of
    bytes of a file that were handed over, soon, and with 0 when (part of) what goes ahead was. ``turn()`` waits for the
    next turn.
    """

    __slots__ = (
        "_ahead",
        "_descriptor",
        "_duplicate",
        "_end",
        "_held",
        "_idle_s",
        "_loop",
        "_most",
        "_moved",
        "_offset",
        "_readers",
        "_settled",
        "_source",
        "_taken",
        "_telling",
        "_timer",
        "_transport",
        "_turn",
        "_untold",
        "_warm_at",
        "_warm_until",
        "_went",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        descriptor: int,
        readers: Executor,
        *,
        idle_s: float,
        most: Callable[[], int],
        went: Callable[[int], None],
        turn: Callable[[], Awaitable[None]],
        held: Held,
    ) -> None:
        self._transport = transport
        self._descriptor = descriptor
        self._readers = readers
        self._idle_s = idle_s
        self._most = most
        self._went = went
        self._turn = turn
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._duplicate: int | None = None
        self._ahead = b""
        self._source = -1  # the file, and what of it is still to be sent
        self._offset = self._end = 0
        self._warm_until = 0  # the file's bytes up to here were in the page cache
        self._warm_at = 0.0  # loop.time()
        self._untold = 0  # bytes that ``went`` has still to be told of
        self._telling: asyncio.TimerHandle | None = None
        self._moved = 0  # bytes written to the socket
        self._taken = 0  # of them, by the client, when last looked at
        self._settled: asyncio.Future[State] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, ahead: bytes, piece: FileSlice) -> tuple[bytes, int]:
        """Send ``ahead``, then the slice. Returns what of both is to be copied, since it cannot be sent so.

        Raises ClientGone, ClientStalled, FileChanged (it has become shorter, or cannot be read).
        """
        self._ahead, self._source = ahead, piece.descriptor
        self._offset, self._end = piece.offset, piece.offset + piece.length
        self._warm_until = 0
        try:
            state = self._push()
            while state is not State.DONE and state is not State.UNABLE:
                if state is State.FULL:
                    state = await self._watched()
                    continue
                if state is State.TURN:
                    await self._turn()
                else:
                    await self._warm()
                state = self._push()
        finally:
            self._tell()
        return self._ahead, self._end - self._offset

    def close(self) -> None:
        """Let go of the socket. The transport is as it was."""
        self._unwatch()
        if self._duplicate is not None:
            os.close(self._duplicate)
            self._duplicate = None

    def _push(self) -> State:
        """One turn, without waiting for anything."""
        if self._transport.is_closing():
            raise ClientGone("The connection was closed.")
        descriptor = self._descriptor if self._duplicate is None else self._duplicate
        offset = self._offset
        count = self._at_hand(min(self._end - offset, self._most()))
        if not count:
            return State.COLD
        try:
            if self._ahead and not self._send_ahead(descriptor):
                return State.FULL
            sent = os.sendfile(descriptor, self._source, offset, count)
        except BlockingIOError:
            return State.FULL
        except OSError as error:
            if error.errno in _UNABLE:
                return State.UNABLE
            if error.errno == errno.EIO:
                raise FileChanged("The file cannot be read any more.") from error
            raise ClientGone("The client closed its connection.") from error
        if sent == 0:
            raise FileChanged("The file became shorter while it was being sent.")
        self._offset += sent
        self._moved += sent
        self._untold += sent
        if self._telling is None:
            self._telling = self._loop.call_later(TOLD_S, self._tell)
        if self._offset == self._end:
            return State.DONE
        return State.TURN if sent == count else State.FULL

    def _at_hand(self, count: int) -> int:
        """How many of the next ``count`` bytes can be sent without waiting for a disk."""
        now, first = self._loop.time(), self._offset
        known = self._warm_until if now - self._warm_at < _FOUND_S else 0
        if known - first >= count:
            return count
        for upto in (min(self._end, first + _FOUND), first + count):
            if resident(self._source, max(first, known), upto):
                self._warm_until, self._warm_at = upto, now
                return count
        return max(0, known - first)

    def _tell(self) -> None:
        """Now."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
            untold, self._untold = self._untold, 0
            self._went(untold)

    def _send_ahead(self, descriptor: int) -> bool:
        """The head, in one segment with the file's first bytes. Whether all of it went."""
        sent = send_more(descriptor, self._ahead)
        self._moved += sent
        self._ahead = self._ahead[sent:]
        self._went(0)
        return not self._ahead

    # --- the socket is full -------------------------------------------------------------------------------------------

    async def _watched(self) -> State:
        """Send whenever the socket takes more; what then stands in the way."""
        if self._duplicate is None:
            try:
                self._duplicate = os.dup(self._descriptor)
            except OSError:  # none left
                return State.UNABLE
        self._settled = self._loop.create_future()
        self._held.by_client = True
        self._taken = self._moved - unsent(self._duplicate)
        self._timer = self._loop.call_later(self._idle_s, self._look)
        self._loop.add_writer(self._duplicate, self._ready)
        try:
            return await self._settled
        finally:
            self._unwatch()
            self._held.by_client = False

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._settled is not None:
            self._settled = None
            assert self._duplicate is not None
            self._loop.remove_writer(self._duplicate)

    def _ready(self) -> None:
        settled = self._settled
        if settled is None or settled.done():
            return
        try:
            state = self._push()
        except Exception as error:  # for whom waits
            settled.set_exception(error)
            return
        if state is State.FULL or state is State.TURN:
            self._held.by_client = state is State.FULL
        else:
            settled.set_result(state)

    def _look(self) -> None:
        """An idle window has passed."""
        settled = self._settled
        if settled is None or settled.done() or self._duplicate is None:
            return
        taken = self._moved - unsent(self._duplicate)
        if taken - self._taken < PROGRESS_FLOOR:
            settled.set_exception(
                ClientStalled(f"The client took less than {PROGRESS_FLOOR} bytes in {self._idle_s:g} s.")
            )
            return
        self._taken = taken
        self._timer = self._loop.call_later(self._idle_s, self._look)

    # --- the disk -----------------------------------------------------------------------------------------------------

    async def _warm(self) -> None:
        """Let a thread bring the next bytes into the page cache. The descriptor is duplicated: see ``_read``."""
        upto = min(self._end, self._offset + _AHEAD)
        duplicate = os.dup(self._source)
        job = self._readers.submit(_read_and_close, duplicate, self._offset, upto)
        try:
            await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if job.cancel():  # it never started, so nobody else will close it
                os.close(duplicate)
            raise
        except OSError as error:
            raise FileChanged("The file cannot be read any more.") from error
        self._warm_until, self._warm_at = upto, self._loop.time()


def descriptor_of(transport: asyncio.Transport | None) -> int | None:
    """The descriptor of a transport whose socket takes file bytes as they are; None for TLS, and off Linux."""
    if transport is None or sys.platform != "linux" or transport.is_closing():
        return None
    if transport.get_extra_info("sslcontext") is not None:
        return None
    sock = transport.get_extra_info("socket")
    return None if sock is None or sock.fileno() < 0 else int(sock.fileno())


def send_more(descriptor: int, data: bytes) -> int:
    """Send bytes that others will follow at once, so that they share a segment. Raises BlockingIOError, OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)  # nothing depends on the family
    try:
        return sock.send(data, socket.MSG_MORE | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    finally:
        sock.detach()


def room(sock: socket.SocketType, descriptor: int) -> int:
    """Bytes that a socket takes at once, about. Raises OSError."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 9 // 10 - unsent(descriptor)


_byte = bytearray(1)


def resident(descriptor: int, first: int, end: int) -> bool:
    """Whether the first of these bytes, the last, and one in each MiB can be had without waiting for a disk."""
    try:
        for at in (*range(first, end, TURN), end - 1):
            os.preadv(descriptor, [_byte], at, _NOWAIT)
    except OSError:  # EAGAIN: not there. EOPNOTSUPP: this file system cannot tell
        return False
    return True


def _read_and_close(descriptor: int, offset: int, upto: int) -> None:
    buffer = [bytearray(_READ)]
    try:
        while offset < upto and (read := os.preadv(descriptor, buffer, offset)):
            offset += read
    finally:
        os.close(descriptor)


def unsent(descriptor: int) -> int:
    """Bytes in the socket that the other side has not acknowledged."""
    answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
