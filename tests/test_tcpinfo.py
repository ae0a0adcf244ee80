"""TCP_INFO: the kernel's bytes read at the right places, and from sockets of both event loops."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy import tcpinfo
from tests.house import settled


def test_fields_stand_where_the_kernel_puts_them() -> None:
    raw = bytearray(256)
    for offset, form, value in (
        (52, "=I", 1500), (68, "=I", 150_000), (72, "=I", 2_000), (100, "=I", 7), (120, "=Q", 2**40), (136, "=I", 900),
        (144, "=I", 4096), (148, "=I", 149_000), (152, "=I", 600), (160, "=Q", 10**9), (168, "=Q", 3_000_000),
        (176, "=Q", 2_000_000), (184, "=Q", 1_000_000), (208, "=Q", 10_000), (216, "=I", 7), (224, "=I", 33),
    ):  # fmt: skip
        struct.pack_into(form, raw, offset, value)
    info = tcpinfo.parse(bytes(raw))
    assert info is not None
    assert (info.silent_s, info.rtt_s, info.rttvar_s, info.retransmitted) == (1.5, 0.15, 0.002, 7)
    assert (info.bytes_acked, info.segs_out, info.notsent, info.min_rtt_s) == (2**40, 900, 4096, 0.149)
    assert (info.data_segs_in, info.delivery_rate, info.busy_s) == (600, 10**9, 3.0)
    assert (info.rwnd_limited_s, info.sndbuf_limited_s) == (2.0, 1.0)
    assert (info.bytes_retransmitted, info.duplicates, info.out_of_order) == (10_000, 7, 33)


def test_a_round_trip_that_was_never_measured_is_not_an_hour() -> None:
    raw = bytearray(232)
    struct.pack_into("=I", raw, 148, 0xFFFFFFFF)
    info = tcpinfo.parse(bytes(raw))
    assert info is not None
    assert info.min_rtt_s == 0.0


@pytest.mark.parametrize(
    ("rtt_s", "shortest_s", "sent", "taken"),
    [
        (1.04, 0.14, 1, 0.14),  # the first packet was lost: it took a second to send it again
        (1.04, 0.0, 1, 1.04),
        (0.18, 0.14, 1, 0.18),
        (1.04, 0.14, tcpinfo.NEW + 1, 1.04),  # it is what many packets took: there is a queue
        (0.0, 0.0, 1, 0.0),
    ],
)
def test_a_lost_handshake_is_no_round_trip(rtt_s: float, shortest_s: float, sent: int, taken: float) -> None:
    nothing = tcpinfo.TcpInfo(*[0] * len(tcpinfo.TcpInfo._fields))
    info = nothing._replace(rtt_s=rtt_s, min_rtt_s=shortest_s, data_segs_out=sent)
    assert tcpinfo.first_round_trip_s(info) == taken


@given(st.binary(max_size=300))
def test_any_length_reads_or_is_nothing(raw: bytes) -> None:
    assert (tcpinfo.parse(raw) is None) == (len(raw) < 104)


def test_what_is_no_tcp_or_closed_has_no_reading() -> None:
    assert tcpinfo.read(None) is None
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert tcpinfo.read(one) is None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        pass
    assert tcpinfo.read(sock) is None


@pytest.mark.loops("asyncio", "uvloop")
async def test_a_transport_tells_until_it_is_closed() -> None:
    got = asyncio.Event()

    class Sink(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.set()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    transport.write(b"x" * 1000)
    await asyncio.wait_for(got.wait(), 5)
    path = tcpinfo.NetPath("files/a", transport, connect_s=9.0)
    info = path.tcp()
    assert info is not None
    assert info.bytes_sent == 1000
    assert path.rtt_s is not None
    assert 0 < path.rtt_s < 9
    transport.close()
    await settled(lambda: not transport.is_closing())
    assert path.tcp() is None
    server.close()
    await server.wait_closed()


@pytest.mark.loops("asyncio", "uvloop")
async def test_a_sender_can_be_held_to_so_many_bytes_on_their_way() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    path = tcpinfo.NetPath("files/a", transport)
    sock = transport.get_extra_info("socket")
    for most in (16 * 1024, 2**20):
        path.narrow(most)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP) == most
    transport.close()
    path.narrow(1)  # of a connection that is gone: nothing happens
    server.close()
    await server.wait_closed()


def test_without_a_connection_the_time_to_open_it_stands_in() -> None:
    assert tcpinfo.NetPath("files/a", None, connect_s=0.2).rtt_s == 0.2
    assert tcpinfo.NetPath("files/a").rtt_s is None
