"""The first request of ``fileproxy get``, sent while the rest of the program is still being imported.

Starting Python and the engine takes longer than ten round trips to a near server. So a thread looks the name up,
connects, asks and begins to read, while the main thread imports; then the engine takes the connection over, together
with what came. It decides nothing: the engine makes its first request as it always does, and takes the connection
only when exactly these octets were sent to exactly that server. Whatever goes wrong here is forgotten, and the engine
finds out for itself, with its own tries and its own words.

How much is asked for goes by the round trip that connecting took: from a near server much, since one connection
carries it; else little, because many connections will share the file.
"""

from __future__ import annotations

# Of the standard library the C modules only: ``socket`` itself takes as long to import as a near server to answer.
import _socket
import _thread
import errno
import os
import select
import struct
import time

from fileproxy.client.asking import BASE, first_range, get_request

NEAR_S = 0.05  # ``control.growth.LONG_S``
NEAR_BYTES = 1024 * 1024 * 1024
FAR_BYTES = 256 * 1024  # ``contact.FIRST``
ATTEMPT_S = 3.0  # then the engine connects anew: the packets may have been lost
SEVERAL_S = 0.25  # RFC 8305 §5: a name with several addresses is the engine's, if the first does not answer soon
LOOK_MS = 20  # how soon the engine's wish to take over is noticed
PIECE = 512 * 1024  # read at once
AHEAD_BYTES = 32 * 1024 * 1024  # not more of it before the engine is there

_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
_PATH = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/%?&=+,:;!$()*'@")
_LETTERS = _HOST.difference("0123456789.")
_PORTS = {"http": 80, "https": 443}


def read_url(url: str) -> tuple[str, str, int, str] | None:
    """Scheme, host, port, path and query of a URL that needs no second thought; None = leave it to the engine."""
    scheme, mark, rest = url.partition("://")
    server, slash, path = rest.partition("/")
    host, colon, digits = server.partition(":")
    if not mark or scheme not in _PORTS or not slash or not host or not _HOST.issuperset(host):
        return None
    if path.endswith("?") or not _PATH.issuperset(path):
        return None
    if colon and not (digits.isascii() and digits.isdecimal() and len(digits) < 6):
        return None
    port = int(digits) if colon else _PORTS[scheme]
    return (scheme, host, port, f"/{path}") if 0 < port < 65536 else None


class Early:
    """A connection that is being made, and its first answer. Started at once; used by one download at most.

    Args:
        alone: it may carry all of the file, if the server is near; else others are sure to share it.

    Attributes (to be looked at after :meth:`settle`):
        length: how many bytes were asked for.
        request: the octets that were sent; empty where TLS has to come first.
        pieces: what came so far, from the first octet of the answer on.
        sent_at, heard_at: by ``time.monotonic()``; None = not yet.
    """

    def __init__(self, scheme: str, host: str, port: int, path_query: str, *, alone: bool = True) -> None:
        self.scheme, self.host, self.port = scheme, host, port
        self.length = FAR_BYTES
        self.request = b""
        self.pieces: list[bytes] = []
        self.sent_at: float | None = None
        self.heard_at: float | None = None
        self._path_query = path_query
        self._most = NEAR_BYTES if alone and scheme == "http" else FAR_BYTES
        self._sock: _socket.socket | None = None
        self._began = time.monotonic()
        self._limit, self._dialled, self._code = self._began + ATTEMPT_S, 0.0, 0
        self._wanted = self._unwanted = False
        if not _LETTERS.intersection(host):
            try:  # noqa: SIM105 - contextlib is not imported yet
                self._dial()  # a thread of its own would first have to wait for its turn
            except OSError:
                pass  # the thread finds out, too
        self._over = _thread.allocate_lock()
        self._over.acquire()
        _thread.start_new_thread(self._work, ())

    # --- the engine's side -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until the connection is there and has sent its request, or has come to nothing. Blocks, not for long."""
        self._wanted = True
        if self._over.acquire(True, ATTEMPT_S + 1.0):
            self._over.release()
        else:  # the name is still being looked up
            self._unwanted = True

    @property
    def settled(self) -> bool:
        """Whether the thread has ended, so that nothing is to be waited for."""
        return not self._over.locked()

    @property
    def ready(self) -> bool:
        """Whether there is something to take over. Only after :meth:`settle`."""
        return self.settled and self._sock is not None

    def take(self) -> int:
        """The connection's descriptor, which is the caller's from now on."""
        sock, self._sock = self._sock, None
        assert sock is not None
        return sock.detach()

    def drop(self) -> None:
        """It is not wanted. What the thread still holds is closed by it."""
        self._wanted = self._unwanted = True
        if not self._over.locked():
            self._close()

    # --- the thread's side -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._connect()
            if self.scheme == "http":
                self._ask()
                self._read()
        except OSError:
            if not self.pieces:
                self._close()
        finally:
            if self._unwanted:
                self._close()
            self._over.release()

    def _dial(self) -> None:
        """Begin to connect. OSError is told when it is waited for."""
        # As bytes: for text Python loads the tables of internationalised names.
        found = _socket.getaddrinfo(self.host.encode(), self.port, 0, _socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        if len(found) > 1:
            self._limit = self._began + SEVERAL_S
        self._sock = _socket.socket(family, kind | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC, protocol)
        self._dialled = time.monotonic()
        self._code = self._sock.connect_ex(address)

    def _connect(self) -> None:
        if self._sock is None:
            self._dial()
        assert self._sock is not None
        if self._code == errno.EINPROGRESS:
            waiting = select.poll()
            waiting.register(self._sock.fileno(), select.POLLOUT)
            while not waiting.poll(LOOK_MS):
                if self._unwanted or time.monotonic() > self._limit:
                    raise OSError(errno.ETIMEDOUT, "not in time")
            self._code = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if self._code:
            raise OSError(self._code, os.strerror(self._code))
        if time.monotonic() - self._dialled < NEAR_S:
            self.length = self._most

    def _ask(self) -> None:
        assert self._sock is not None
        authority = self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"
        request = get_request(self._path_query, authority, (*BASE, first_range(0, self.length)))
        self._sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._sock.setblocking(True)
        self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, struct.pack("ll", 0, LOOK_MS * 1000))
        self._sock.sendall(request)
        self.request, self.sent_at = request, time.monotonic()

    def _read(self) -> None:
        assert self._sock is not None
        left = AHEAD_BYTES
        while left > 0 and not self._wanted:
            try:
                # In one call until it is all here, as far as there is time: the interpreter is not troubled meanwhile,
                # and the kernel lets the window grow.
                piece = self._sock.recv(min(PIECE, left), _socket.MSG_WAITALL if self.pieces else 0)
            except BlockingIOError:
                continue
            if not piece:
                return
            self.heard_at = self.heard_at or time.monotonic()
            self.pieces.append(piece)
            left -= len(piece)

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
