"""What is asked of a socket arrives in the kernel, one option at a time; what cannot be had is said."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from fileproxy import sockets
from fileproxy.settings.schema import KeepAlive, Sockets


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        yield one


@pytest.mark.parametrize("nodelay", [True, False])
def test_nodelay(sock: socket.socket, nodelay: bool) -> None:
    assert sockets.apply(sock, Sockets(nodelay=nodelay)) == {}
    assert sockets.granted(sock)["nodelay"] is nodelay


@pytest.mark.parametrize("quickack", [True, False])
def test_quickack(sock: socket.socket, quickack: bool) -> None:
    assert sockets.apply(sock, Sockets(quickack=quickack)) == {}
    assert sockets.granted(sock)["quickack"] is quickack


def test_keepalive_with_its_times(sock: socket.socket) -> None:
    sockets.apply(sock, Sockets(keepalive=KeepAlive(idle=33, interval=7, count=3)))
    assert sockets.granted(sock)["keepalive"] == {"idle": 33, "interval": 7, "count": 3}
    sockets.apply(sock, Sockets(keepalive="off"))
    assert sockets.granted(sock)["keepalive"] == "off"


def test_buffers_are_left_to_the_kernel_unless_asked(sock: socket.socket) -> None:
    before = sockets.granted(sock)
    sockets.apply(sock, Sockets())
    assert sockets.granted(sock)["send_buffer"] == before["send_buffer"]
    assert sockets.granted(sock)["receive_buffer"] == before["receive_buffer"]
    sockets.apply(sock, Sockets(send_buffer=50_000, receive_buffer=60_000))
    # Linux doubles what it is asked for (socket(7)).
    assert sockets.granted(sock)["send_buffer"] == 100_000
    assert sockets.granted(sock)["receive_buffer"] == 120_000


def test_notsent_lowat(sock: socket.socket) -> None:
    sockets.apply(sock, Sockets(notsent_lowat=131072))
    assert sockets.granted(sock)["notsent_lowat"] == 131072


def test_congestion_control_that_is_there(sock: socket.socket) -> None:
    assert sockets.apply(sock, Sockets(congestion="reno")) == {}
    assert sockets.granted(sock)["congestion"] == "reno"


def test_an_unknown_congestion_control_is_said_and_the_rest_still_set(sock: socket.socket) -> None:
    before = sockets.granted(sock)["congestion"]
    refused = sockets.apply(sock, Sockets(congestion="nosuch", notsent_lowat=4096))
    assert list(refused) == ["congestion"]
    assert refused["congestion"]
    assert sockets.granted(sock)["congestion"] == before
    assert sockets.granted(sock)["notsent_lowat"] == 4096


def test_a_closed_socket_has_nothing_to_say(sock: socket.socket) -> None:
    sock.close()
    assert sockets.granted(sock)["nodelay"] is None


def test_asked_has_the_same_keys_as_granted(sock: socket.socket) -> None:
    assert set(sockets.asked(Sockets())) == set(sockets.granted(sock))
    assert sockets.asked(Sockets(keepalive="off"))["keepalive"] == "off"
