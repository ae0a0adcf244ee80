"""The listening sockets. The master opens them, all workers accept from them: none is lost when workers change."""

from __future__ import annotations

import socket


def listen(host: str, port: int, backlog: int, beside: list[socket.socket] | None = None) -> list[socket.socket]:
    """Listen on every address of ``host`` (a name may have several; one that cannot be had is left out).

    ``beside``: sockets of ours that may hold the same port on another address (0.0.0.0 → 127.0.0.1); without this
    the kernel would refuse it. Port 0 takes one free port for all addresses. Raises OSError with a sentence.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    _share(beside or [], True)
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            chosen = (address[0], sockets[0].getsockname()[1], *address[2:]) if sockets and not port else address
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _share([sock], bool(beside))
                sock.bind(chosen)
                _share([sock], False)
                sock.listen(backlog)
                sock.setblocking(False)
            except OSError as error:
                sock.close()
                failure = error
            else:
                sockets.append(sock)
    finally:
        _share(beside or [], False)
    if not sockets:
        reason = failure.strerror if failure else "the name has no address"
        raise OSError(failure.errno if failure else None, f"cannot listen on {host} port {port}: {reason}")
    return sockets


def url_of(host: str, sockets: list[socket.socket]) -> str:
    """A URL under which this machine reaches the sockets."""
    name = sockets[0].getsockname()
    if isinstance(name, str):  # plain gunicorn's `-b unix:…`
        return f"unix:{name}"
    port = name[1]
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 (all interfaces is what the operator asked for)
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _share(sockets: list[socket.socket], on: bool) -> None:
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, on)
