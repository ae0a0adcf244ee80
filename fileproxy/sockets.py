"""TCP options: what is asked, setting it, and what the kernel really granted.

Both sides of the proxy use this. Every option is set on its own and as well as it goes: a kernel that lacks one (or a
congestion control that is not loaded) must not cost the connection. ``apply`` returns why something was refused,
``granted`` reads back what holds, so that ``/health`` never shows a wish as a fact.

On Linux an accepted socket inherits the options of the listening one, except TCP_QUICKACK (see ``tune_connected``).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from fileproxy.settings.schema import Sockets

# Linux names; None where the platform has no such option.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_IDLE: int | None = getattr(socket, "TCP_KEEPIDLE", None)
_INTERVAL: int | None = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT: int | None = getattr(socket, "TCP_KEEPCNT", None)
_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_CONGESTION: int | None = getattr(socket, "TCP_CONGESTION", None)
SYSTEM = ("auto", "system")  # values of ``congestion`` that leave the choice to the kernel, to begin with
_CONGESTION_NAME_BYTES = 16  # TCP_CA_NAME_MAX of linux/tcp.h
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST
_UNLIMITED = 0xFFFFFFFF  # what TCP_NOTSENT_LOWAT says when it is not limited


def asked(options: Sockets) -> dict[str, Any]:
    """The options as configured, in the form in which ``granted`` reports them."""
    keepalive = options.keepalive
    return {
        "nodelay": options.nodelay,
        "quickack": options.quickack,
        "keepalive": "off"
        if keepalive == "off"
        else {"idle": round(keepalive.idle), "interval": round(keepalive.interval), "count": keepalive.count},
        "send_buffer": options.send_buffer,
        "receive_buffer": options.receive_buffer,
        "notsent_lowat": options.notsent_lowat,
        "congestion": options.congestion,
    }


def apply(sock: socket.socket, options: Sockets) -> dict[str, str]:
    """Set the options on a TCP socket (before connect or listen, so that buffers shape the window scale).

    Returns:
        Option name → reason, for each one that the kernel refused. Empty when all were taken. Never raises.
    """
    refused: dict[str, str] = {}
    for name, level, option, value in _rows(options):
        if option is None:
            refused[name] = "not known on this system"
            continue
        try:
            sock.setsockopt(level, option, value)
        except OSError as error:
            refused[name] = error.strerror or str(error)
    return refused


def tune_connected(sock: socket.socket, options: Sockets) -> None:
    """What a connection does not keep from the time before it was one: QUICKACK is neither inherited from a listening
    socket nor survives the handshake (tcp(7): "not permanent"), and event loops switch NODELAY on whatever was set.
    """
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, int(options.quickack))
    if not options.nodelay:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)


def granted(sock: socket.socket) -> dict[str, Any]:
    """What holds for this socket, read back from the kernel. Linux reports buffers doubled (socket(7))."""
    tcp = socket.IPPROTO_TCP
    values: dict[str, Any] = {
        "nodelay": _read(lambda: bool(sock.getsockopt(tcp, socket.TCP_NODELAY))),
        "quickack": _option(sock, _QUICKACK, bool),
        "send_buffer": _read(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)),
        "receive_buffer": _read(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)),
        "notsent_lowat": _option(sock, _NOTSENT_LOWAT, lambda value: value & _UNLIMITED),
        "congestion": None,
    }
    if values["notsent_lowat"] in (0, _UNLIMITED):
        values["notsent_lowat"] = "unlimited"
    values["congestion"] = congestion(sock)
    if _read(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)):
        values["keepalive"] = {
            "idle": _option(sock, _IDLE, int),
            "interval": _option(sock, _INTERVAL, int),
            "count": _option(sock, _COUNT, int),
        }
    else:
        values["keepalive"] = "off"
    return values


def congestion(sock: socket.socket) -> str | None:
    """The congestion control of a socket by the kernel's name."""
    if _CONGESTION is None:
        return None
    option = _CONGESTION
    name = _read(lambda: sock.getsockopt(socket.IPPROTO_TCP, option, _CONGESTION_NAME_BYTES))
    return name.partition(b"\0")[0].decode("ascii", "replace") if isinstance(name, bytes) else None


def set_congestion(sock: socket.socket, name: str) -> str | None:
    """Change it, at any time of a connection's life. Returns why the kernel refused, None when it did not."""
    return _set(sock, _CONGESTION, name.encode("ascii", "replace"))


def set_notsent_lowat(sock: socket.socket, size: int) -> str | None:
    """Limit what the kernel holds unsent; 0 = no limit. Returns why the kernel refused, None when it did not."""
    return _set(sock, _NOTSENT_LOWAT, size)


def _set(sock: socket.socket, option: int | None, value: int | bytes) -> str | None:
    if option is None:
        return "not known on this system"
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _rows(options: Sockets) -> list[tuple[str, int, int | None, int | bytes]]:
    tcp = socket.IPPROTO_TCP
    rows: list[tuple[str, int, int | None, int | bytes]] = [
        ("nodelay", tcp, socket.TCP_NODELAY, int(options.nodelay)),
        ("quickack", tcp, _QUICKACK, int(options.quickack)),
    ]
    keepalive = options.keepalive
    if keepalive == "off":
        rows.append(("keepalive", socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0))
    else:
        rows += [
            ("keepalive", socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            ("keepalive.idle", tcp, _IDLE, max(1, round(keepalive.idle))),
            ("keepalive.interval", tcp, _INTERVAL, max(1, round(keepalive.interval))),
            ("keepalive.count", tcp, _COUNT, keepalive.count),
        ]
    if options.send_buffer != "auto":
        rows.append(("send_buffer", socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer))
    if options.receive_buffer != "auto":
        rows.append(("receive_buffer", socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_buffer))
    if options.notsent_lowat != "auto":
        rows.append(("notsent_lowat", tcp, _NOTSENT_LOWAT, options.notsent_lowat))
    if options.congestion not in SYSTEM:
        rows.append(("congestion", tcp, _CONGESTION, options.congestion.encode("ascii", "replace")))
    return rows


def address_of(peername: object) -> str:
    """The address of a socket's peer, an IPv4 one as such; "" for a Unix socket."""
    address = str(peername[0]) if isinstance(peername, tuple) and peername else ""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def reset_on_close(sock: Any) -> None:
    """Let closing reset a TCP connection, so that the other side sees that it is cut. ``sock``: None does nothing."""
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _option(sock: socket.socket, option: int | None, kind: Callable[[int], Any]) -> Any:
    if option is None:
        return None
    number = option
    value = _read(lambda: sock.getsockopt(socket.IPPROTO_TCP, number))
    return None if value is None else kind(value)


def _read(call: Callable[[], Any]) -> Any:
    """One value, or None where the kernel has none to give (a closed socket, an option of another system)."""
    try:
        return call()
    except OSError:
        return None
