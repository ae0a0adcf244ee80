"""Connections as descriptors, on real sockets: what stays with the acceptor, what moves to the loop and comes back."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fileproxy.server import acceptor, connections
from fileproxy.server.acceptor import FIRST, Acceptor
from fileproxy.server.bare import READ, Bare
from fileproxy.server.ends import ASKS_S, REST_S, Phase
from fileproxy.server.front import Asker, Front
from fileproxy.server.heads import HeadLimits
from fileproxy.server.known import LONGEST_HEAD
from tests.house import descriptors
from tests.server.test_front import POLICY, Place, until

pytestmark = pytest.mark.loops("asyncio", "uvloop")

KNOWN = b"GET /known HTTP/1.1\r\nHost: a\r\n\r\n"
OTHER = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"
SAID = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nknown"


class Door(Place):
    """A place whose connections come through an acceptor. ``KNOWN`` and ``LAST`` (which closes) it answers itself."""

    def __init__(self, **policy: Any) -> None:
        super().__init__(replace(POLICY, **policy))
        self.said = SAID
        self.known = {KNOWN, LAST}
        self.bug: Exception | None = None
        self.turns: list[bool] = []
        self.connections.answer = self._answer
        self.acceptor = Acceptor(self.connections, self.turns.append)
        self.connections.acceptor = self.acceptor
        self.listener = socket.create_server(("127.0.0.1", 0))  # blocks, as an inherited one may
        self.address: Any = self.listener.getsockname()
        self.listening = self.acceptor.listen(self.listener)

    def _answer(self, raw: bytes, asker: Asker) -> float | None:
        if self.bug is not None and raw:
            raise self.bug
        if raw not in self.known:
            return None
        asker.write(self.said)
        if raw == LAST:
            asker.leave()
        return self.clock.now()

    @property
    def bare(self) -> list[Bare]:
        return list(self.connections.bare.values())

    @property
    def fronts(self) -> list[Front]:
        return list(self.connections._open)

    def client(self, receive_buffer: int | None = None) -> Client:
        return Client(self, receive_buffer)


class Client:
    """A client that does not wait."""

    def __init__(self, door: Door, receive_buffer: int | None) -> None:
        self.sock = socket.socket(door.listener.family)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.sock.connect(door.address)
        except OSError:
            self.sock.close()
            raise
        self.sock.setblocking(False)
        self.got = b""
        self.ended = False

    def send(self, data: bytes) -> None:
        assert self.sock.send(data) == len(data)

    def take(self) -> bytes:
        with suppress(BlockingIOError):
            while not self.ended:
                data = self.sock.recv(1 << 16)
                self.got += data
                self.ended = not data
        return self.got

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    one = Door()
    yield one
    await closed(one)


async def closed(one: Door) -> None:
    await one.connections.close()
    await one.acceptor.close()
    assert (len(one.connections), one.counts["connections.open"]) == (0, 0)
    assert not one.acceptor._moves


@pytest.fixture
def client(door: Door) -> Iterator[Client]:
    one = door.client()
    yield one
    one.sock.close()


async def test_what_is_known_is_answered_without_the_loop(door: Door, client: Client) -> None:
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    client.send(KNOWN)
    await until(lambda: client.take() == SAID * 2)
    (one,) = door.bare
    assert (door.fronts, one.peer, len(door.connections)) == ([], "127.0.0.1", 1)
    assert door.turns[-2:] == [True, False]
    assert one.as_socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert door.counts["connections.accepted"] == 1


async def test_a_connection_moves_with_all_that_it_sent(door: Door, client: Client) -> None:
    client.send(KNOWN + OTHER + KNOWN + OTHER + KNOWN)
    await until(lambda: client.take().count(b"HTTP/1.1 200") == 5)
    assert [part[-2:] for part in client.got.split(b"HTTP/1.1 200 OK")[1:]] == [b"wn", b"ok", b"wn", b"ok", b"wn"]
    assert (len(door.fronts), door.bare) == (1, [])
    assert [target for target, _ in door.seen] == ["/other", "/other"]


async def test_a_body_follows_its_head_to_the_loop(door: Door, client: Client) -> None:
    body = os.urandom(200_000)
    head = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client.sock, head + body + KNOWN)
    await until(lambda: client.take().count(b"HTTP/1.1 200") == 2)
    assert door.seen == [("/upload", body)]
    assert client.got.endswith(SAID)


@pytest.mark.parametrize("size", [FIRST - 1, FIRST, FIRST + 1, FIRST + READ - 1, FIRST + READ, READ + READ // 2])
async def test_heads_of_every_size_arrive_whole(door: Door, client: Client, size: int) -> None:
    start = b"GET /long HTTP/1.1\r\nHost: a\r\nX: "
    client.send(start + b"x" * (size - len(start) - 4) + b"\r\n\r\n")
    await until(lambda: door.seen == [("/long", b"")])
    await until(lambda: client.take().endswith(b"ok"))


async def test_a_head_may_come_byte_by_byte(door: Door, client: Client) -> None:
    for at in range(len(OTHER) - 1):
        client.send(OTHER[at : at + 1])
        await asyncio.sleep(0)
    await until(lambda: door.fronts and door.fronts[0].phase is Phase.HEAD)
    assert door.seen == []
    client.send(OTHER[-1:])
    await until(lambda: client.take().endswith(b"ok"))


async def test_a_client_that_ends_its_side_with_its_request_is_answered(door: Door, client: Client) -> None:
    client.send(KNOWN)
    client.sock.shutdown(socket.SHUT_WR)
    await until(lambda: client.take() and client.ended)
    assert client.got == SAID
    other = door.client()
    other.send(OTHER)
    other.sock.shutdown(socket.SHUT_WR)
    await until(lambda: other.take() and other.ended)
    assert other.got.endswith(b"ok")
    other.sock.close()
    await until(lambda: len(door.connections) == 0)
    assert door.endings == {}


async def test_who_asks_for_the_last_time_is_closed_behind_the_answer(door: Door, client: Client) -> None:
    client.send(LAST)
    await until(lambda: client.take() and client.ended)
    assert client.got == SAID
    await until(lambda: len(door.connections) == 0)


async def test_those_of_a_moment_are_counted_together(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "COUNT_S", 3600)
    told: list[tuple[str, int]] = []
    add = door.counts.add

    def tell(name: str, amount: int = 1) -> None:
        told.append((name, amount))
        add(name, amount)

    monkeypatch.setattr(door.counts, "add", tell)
    clients = [door.client() for _ in range(5)]
    for one in clients:
        one.send(LAST)
    await until(lambda: all(one.take() == SAID and one.ended for one in clients))
    assert told == []
    door.connections.count()
    door.connections.count()
    assert told == [("connections.accepted", 5), ("connections.open", 0)]
    for one in clients:
        one.sock.close()


async def test_who_came_is_counted_even_if_nobody_asks(door: Door, client: Client) -> None:
    door.counts.settle = lambda: None
    await until(lambda: door.counts["connections.open"] == 1)
    client.sock.close()
    await until(lambda: door.counts["connections.open"] == 0)


async def test_who_does_not_take_its_answer_gets_all_of_it_later(door: Door) -> None:
    door.said = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + os.urandom(4_000_000)
    client = door.client(receive_buffer=4096)
    client.send(LAST)
    await until(lambda: door.fronts and door.fronts[0].phase is Phase.LINGERING)
    assert door.fronts[0].busy
    await until(lambda: client.take() and client.ended)
    assert client.got == door.said
    client.sock.close()


async def test_nothing_is_answered_to_who_does_not_read(door: Door) -> None:
    door.said = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + os.urandom(1_000_000)
    client = door.client(receive_buffer=65536)
    client.send(KNOWN * 8)
    await until(lambda: door.seen)  # a handler, which waits until it may write
    assert door.fronts[0].transport.get_write_buffer_size() < 3 * len(door.said)
    await until(lambda: client.take().count(b"HTTP/1.1 200 OK") == 8)
    assert 0 < client.got.count(door.said) < 8
    client.sock.close()


async def test_a_connection_that_rests_comes_back(door: Door, client: Client) -> None:
    client.send(OTHER)
    await until(lambda: client.take().endswith(b"ok"))
    (front,) = door.fronts
    await until(lambda: front.phase is Phase.IDLE)
    await door.clock.advance(REST_S)
    door.connections.sweep()
    pace = door.connections._paces[front]
    had = len(descriptors())
    await until(lambda: door.bare)
    await until(lambda: len(descriptors()) == had)  # the transport's is closed
    assert pace.transport is not front.transport
    assert (door.fronts, door.bare[0].pace, door.connections._paces) == ([], pace, {})
    client.send(KNOWN + OTHER + KNOWN)
    await until(lambda: client.take().count(b"HTTP/1.1 200") == 4)
    assert client.got.endswith(SAID)
    (front,) = door.fronts
    assert door.connections._paces == {front: pace}
    assert pace.transport is front.transport
    assert door.counts["connections.accepted"] == 1


async def test_one_that_is_asked_just_then_does_not_come_back(door: Door, client: Client) -> None:
    client.send(OTHER)
    await until(lambda: client.take().endswith(b"ok"))
    (front,) = door.fronts
    await until(lambda: front.phase is Phase.IDLE)
    await door.clock.advance(REST_S)
    door.connections.sweep()
    front.data_received(OTHER)  # before the turn in which it would
    await until(lambda: client.take().count(b"ok") == 2)
    assert door.fronts == [front]


async def test_a_client_that_leaves_in_the_move_is_forgotten(door: Door, client: Client) -> None:
    client.send(OTHER)
    await until(lambda: door.fronts and door.fronts[0].phase is Phase.MOVING)
    client.reset()
    await until(lambda: len(door.connections) == 0)


async def test_a_connection_is_cut_in_the_move(door: Door, client: Client) -> None:
    client.send(OTHER)
    await until(lambda: door.fronts and door.fronts[0].phase is Phase.MOVING)
    door.fronts[0].abort()
    await until(lambda: len(door.connections) == 0)
    with pytest.raises(ConnectionResetError):
        client.take()


async def test_who_is_too_many_is_told(door: Door, client: Client) -> None:
    door.connections.policy = replace(POLICY, connections=1)
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    other = door.client()
    await until(lambda: other.take() and other.ended)
    assert b"503 Service Unavailable" in other.got
    other.sock.close()


async def test_a_bug_ends_one_connection_and_is_told(door: Door, client: Client) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    door.bug = RuntimeError("ours")
    client.send(KNOWN)
    await until(lambda: told)
    assert told[0]["exception"] is door.bug
    await until(lambda: len(door.connections) == 0)
    with pytest.raises(ConnectionResetError):
        client.take()
    door.bug = None
    other = door.client()
    other.send(KNOWN)
    await until(lambda: other.take() == SAID)
    other.sock.close()


class Poor:
    """A listening socket for which the kernel has no descriptor, once, after so many."""

    def __init__(self, sock: socket.socket, after: int = 0) -> None:
        self._sock = sock
        self.after = after
        self.refusals = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def _accept(self) -> Any:
        self.after -= 1
        if self.after < 0 and self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock._accept()  # type: ignore[attr-defined]


async def test_without_descriptors_it_tries_again_later(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    monkeypatch.setattr(acceptor, "ACCEPT_PAUSE_S", 0.01)
    poor: Any = Poor(door.listener)
    door.acceptor._listeners[door.listener.fileno()] = poor
    client = door.client()
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    assert [context["message"] for context in told] == ["a connection could not be accepted"]
    client.sock.close()


async def test_who_was_accepted_before_that_is_served(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    poor: Any = Poor(door.listener, after=1)
    door.acceptor._listeners[door.listener.fileno()] = poor
    clients = [door.client() for _ in range(2)]
    clients[0].send(KNOWN)
    await until(lambda: clients[0].take() == SAID)  # the pause is a second
    assert not poor.refusals
    for one in clients:
        one.sock.close()


async def test_near_the_last_descriptor_who_comes_is_told(door: Door, client: Client) -> None:
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    door.connections.policy = replace(POLICY, last_descriptor=door.bare[0].descriptor + 1)
    other = door.client()
    await until(lambda: other.take() and other.ended)
    assert b"503 Service Unavailable" in other.got
    assert b"file descriptors" in other.got
    other.sock.close()


async def test_who_is_one_too_many_beyond_those_who_are_told_is_reset(
    door: Door, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TOLD", 0)
    door.connections.policy = replace(POLICY, connections=0)
    with pytest.raises(ConnectionResetError):
        await until(lambda: client.take() or client.ended)
    await until(lambda: door.counts["connections.accepted"] == 1)
    assert (len(door.connections), door.counts["connections.open"]) == (0, 0)


async def test_a_known_head_of_one_read_with_another_behind_it(door: Door, client: Client) -> None:
    start = b"GET /known HTTP/1.1\r\nHost: a\r\nX: "
    long = start + b"x" * (FIRST - len(start) - 4) + b"\r\n\r\n"
    assert len(long) == FIRST
    door.known.add(long)
    for times in (2, 4):  # with the connection, and on one that waits
        client.send(long + KNOWN)
        await until(lambda times=times: client.take() == SAID * times)  # type: ignore[misc]
        await door.clock.advance(REST_S)
        door.connections.sweep()
        await until(lambda: door.bare)


async def test_who_leaves_drops_those_that_rest_and_waits_for_those_who_are_about_to_ask(door: Door) -> None:
    clients = [door.client() for _ in range(3)]
    served, back, fresh = clients
    served.send(KNOWN)
    await until(lambda: served.take() == SAID)
    back.send(KNOWN + KNOWN)
    await until(lambda: back.take() == SAID * 2)
    await door.clock.advance(REST_S)
    door.connections.sweep()
    await until(lambda: len(door.bare) == 3)
    fresh.sock.close()
    await until(lambda: len(door.bare) == 2)
    clients.append(fresh := door.client())
    await until(lambda: len(door.bare) == 3)
    served.send(KNOWN)
    await until(lambda: served.take() == SAID * 2)
    door.connections.drain()
    await until(lambda: served.take() and served.ended and back.take() and back.ended)
    assert (len(door.connections), door.connections.busy) == (1, 1)
    await door.clock.advance(ASKS_S - 0.01)
    door.connections.sweep()
    fresh.send(KNOWN)
    await until(lambda: fresh.take() == SAID)
    door.connections.sweep()
    await until(lambda: fresh.take() and fresh.ended)
    assert (fresh.got, door.connections.busy) == (SAID, 0)
    for one in clients:
        one.sock.close()


async def test_who_does_not_ask_although_we_leave_is_closed(door: Door, client: Client) -> None:
    await until(lambda: door.bare)
    door.connections.drain()
    await door.clock.advance(ASKS_S)
    assert door.connections.busy == 0
    door.connections.sweep()
    await until(lambda: client.take() == b"" and client.ended)


async def test_what_is_cut_with_a_rest_is_reset(door: Door) -> None:
    def cut(raw: bytes, asker: Asker) -> float | None:
        asker.write(bytes(4_000_000))
        asker.abort()
        return door.clock.now()

    door.connections.answer = cut
    client = door.client(receive_buffer=4096)
    client.send(KNOWN)
    await until(lambda: door.counts["connections.accepted"] == 1 and not len(door.connections))
    with pytest.raises(ConnectionResetError):
        await until(lambda: client.take() is None)
    client.sock.close()


async def test_the_end_resets_those_that_wait(door: Door, client: Client) -> None:
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    await door.connections.close()
    with pytest.raises(ConnectionResetError):
        client.take()


def test_nothing_overtakes_what_was_not_taken() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one = Bare(os.dup(ours.fileno()), int(ours.family), "", 0.0)
    one.write(bytes(4_000_000))
    theirs.recv(1 << 22)
    one.write(b"a")
    one.writelines([b"b", b"", b"c"])
    assert one.over
    assert [bytes(part)[-1:] for part in one.rest] == [b"\0", b"a", b"b", b"c"]
    one.close()
    ours.close()
    theirs.close()


async def test_what_is_closed_accepts_no_more_and_serves_on(door: Door, client: Client) -> None:
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    door.listening.close()
    door.listening.close()
    with pytest.raises(ConnectionRefusedError):
        door.client()
    client.send(KNOWN + OTHER)
    await until(lambda: client.take().endswith(b"ok"))


async def test_a_unix_socket_has_no_peer(short_path: Path) -> None:
    one = Door()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short_path / "s"))
    listener.listen()
    listener.setblocking(False)
    one.listener, one.address = listener, str(short_path / "s")
    one.acceptor.listen(listener)
    client = one.client()
    client.send(KNOWN + OTHER)
    await until(lambda: client.take().endswith(b"ok"))
    assert [front.peer for front in one.fronts] == [""]
    client.sock.close()
    await closed(one)


def test_what_two_reads_did_not_exhaust_is_no_known_head() -> None:
    assert LONGEST_HEAD < FIRST + READ  # so that whoever is answered has been read to the end


async def test_who_ends_its_side_behind_two_requests_gets_two_answers(door: Door, client: Client) -> None:
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    left = [KNOWN]

    def more_follows(raw: bytes, asker: Asker) -> float | None:
        if left and raw == KNOWN:  # between the first read and the next
            client.send(left.pop())
            client.sock.shutdown(socket.SHUT_WR)
        return door._answer(raw, asker)

    door.connections.answer = more_follows
    client.send(KNOWN)
    await until(lambda: client.take() and client.ended)
    assert client.got == SAID * 3
    assert len(door.connections) == 0


async def test_a_proof_is_older_than_nothing_it_answers(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    read = Bare.read

    def reading(one: Bare, size: int) -> bytes | None:
        data = read(one, size)
        steps.append("read" if data else "nothing")
        return data

    def noting(raw: bytes, asker: Asker) -> float | None:
        steps.append("answer")
        return door._answer(raw, asker)

    monkeypatch.setattr(Bare, "read", reading)
    monkeypatch.setattr(door.acceptor, "_turn", lambda begins: steps.append("turn") if begins else None)
    door.connections.answer = noting
    clients = [door.client() for _ in range(3)]
    for one in clients:
        one.send(KNOWN)
    await until(lambda: all(one.take() == SAID for one in clients))
    assert (steps.count("read"), steps.count("answer")) == (3, 3)
    for at in (number for number, step in enumerate(steps) if step == "read"):
        assert steps.index("turn", at) < steps.index("answer", at)
    for one in clients:
        one.sock.close()


class Full:
    """An epoll that takes no more, while ``full``."""

    def __init__(self, poll: Any) -> None:
        self._poll = poll
        self.full = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    def register(self, *args: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._poll.register(*args)


async def test_a_full_epoll_ends_one_connection_and_no_other(door: Door, client: Client) -> None:
    client.send(KNOWN)
    await until(lambda: client.take() == SAID)
    full: Any = Full(door.acceptor._poll)
    door.acceptor._poll = full
    other = door.client()
    client.send(KNOWN)
    await until(lambda: client.take() == SAID * 2)
    await until(lambda: other.take() == b"" and other.ended)
    full.full = False
    assert len(door.bare) == 1
    other.sock.close()


async def answered(one: Client, times: int) -> None:
    one.send(OTHER)
    await until(lambda: one.take().count(b"ok") == times)


async def rested(door: Door, *clients: Client) -> None:
    """Connections whose handler is about to be let go."""
    for one in clients:
        await answered(one, 1)
    await until(lambda: all(front.phase is Phase.IDLE for front in door.fronts))
    await door.clock.advance(REST_S)


async def test_without_descriptors_it_stays_with_the_loop(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "RESTS", 1)  # in a turn: what fails must not keep those that come behind
    clients = [door.client() for _ in range(2)]
    await rested(door, *clients)
    with monkeypatch.context() as patch:

        def none_left(_: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        patch.setattr(os, "dup", none_left)
        door.connections.sweep()
        await until(lambda: not door.connections._resting)
    for one in clients:
        await answered(one, 2)
    await until(lambda: all(front.phase is Phase.IDLE for front in door.fronts))
    await door.clock.advance(REST_S)
    door.connections.sweep()
    await until(lambda: len(door.bare) == 2)
    for one in clients:
        one.sock.close()


async def test_a_full_epoll_leaves_it_with_the_loop(door: Door, client: Client) -> None:
    await rested(door, client)
    full: Any = Full(door.acceptor._poll)
    door.acceptor._poll = full
    before = descriptors()
    door.connections.sweep()
    await until(lambda: not door.connections._resting)
    assert descriptors() == before
    client.send(OTHER)
    await until(lambda: client.take().count(b"ok") == 2)
    full.full = False


async def test_who_waits_twice_comes_back_once(door: Door, client: Client) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    await rested(door, client)
    door.connections.sweep()
    (front,) = door.fronts
    door.connections.rests(front)
    await until(lambda: door.bare and not door.connections._resting)
    client.send(KNOWN)
    await until(lambda: client.take().endswith(SAID))
    assert len(door.bare) == 1
    assert told == []


async def test_a_bug_behind_the_move_ends_the_connection(
    door: Door, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def bug(*_: object) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(door.connections, "handler", bug)
    client.send(OTHER)
    await until(lambda: told and len(door.connections) == 0)
    with pytest.raises(ConnectionResetError):
        client.take()


async def test_a_loop_that_cannot_take_it_ends_the_connection(
    door: Door, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

        async def connect_accepted_socket(self, *_: object) -> Any:
            raise RuntimeError("cannot")

    monkeypatch.setattr(door.acceptor, "_loop", Broken())
    client.send(OTHER)
    await until(lambda: told and len(door.connections) == 0)
    assert [str(context["exception"]) for context in told] == ["cannot"]
    with suppress(ConnectionResetError):
        await until(lambda: client.take() == b"" and client.ended)


async def test_a_head_may_be_as_long_as_is_allowed() -> None:
    one = Door(head=HeadLimits(head=262_144, header_line=262_144))
    client = one.client()
    start = b"GET /long HTTP/1.1\r\nHost: a\r\nX: "
    head = start + b"x" * (200_000 - len(start) - 4) + b"\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client.sock, head)
    await until(lambda: client.take().endswith(b"ok"))
    client.sock.close()
    await closed(one)


async def test_what_is_written_is_flushed_although_it_is_closed_in_the_move(door: Door) -> None:
    door.said = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + os.urandom(4_000_000)
    client = door.client(receive_buffer=4096)
    client.send(KNOWN)
    await until(lambda: door.fronts and door.fronts[0].phase is Phase.MOVING)
    door.connections.drain()
    await until(lambda: client.take() and client.ended)
    assert client.got == door.said
    client.sock.close()


async def test_the_sweep_looks_at_those_that_are_descriptors(door: Door, client: Client) -> None:
    idle = door.client()
    client.send(OTHER[:10])
    idle.send(KNOWN)
    await until(lambda: idle.take() == SAID and any(front.phase is Phase.HEAD for front in door.fronts))
    await door.clock.advance(POLICY.head_timeout)
    door.connections.sweep()
    await until(lambda: client.take() and client.ended)
    assert client.got.startswith(b"HTTP/1.1 408 ")
    await door.clock.advance(POLICY.keepalive_idle)
    door.connections.sweep()
    await until(lambda: idle.take() and idle.ended)
    assert idle.got == SAID
    assert door.endings == {"head_timeout": 1}
    idle.sock.close()


async def test_what_has_moved_wakes_the_acceptor_no_more(door: Door, client: Client) -> None:
    client.send(KNOWN)  # so that it waits there before it moves
    await until(lambda: client.take() == SAID)
    await answered(client, 1)
    turns = len(door.turns)
    await answered(client, 2)
    assert len(door.turns) == turns


async def test_parts_are_written_once_each(door: Door) -> None:
    parts = [b"HTTP/1.1 200 OK\r\nContent-Length: 4000003\r\n\r\n", os.urandom(4_000_000), b"", b"end"]

    def answer(raw: bytes, asker: Asker) -> float | None:
        asker.writelines(parts)
        return door.clock.now()

    door.connections.answer = answer
    client = door.client(receive_buffer=4096)
    client.send(KNOWN)
    await until(lambda: client.take().endswith(b"end"))
    assert client.got == b"".join(parts)
    client.sock.close()


async def test_who_takes_little_more_may_ask_again(door: Door, client: Client) -> None:
    def slow(raw: bytes, asker: Asker) -> float | None:
        answered_at = door._answer(raw, asker)
        if isinstance(asker, Bare) and answered_at is not None:
            asker.rest, asker.over = (b"late",), True  # less than what makes a transport object
        return answered_at

    door.connections.answer = slow
    client.send(KNOWN)
    await until(lambda: client.take() == SAID + b"late")
    client.send(KNOWN)
    await until(lambda: client.take() == SAID + b"late" + SAID)
    assert door.seen == []


async def test_a_moved_connection_comes_back_although_it_never_had_a_handler(door: Door, client: Client) -> None:
    client.send(KNOWN + KNOWN)
    await until(lambda: client.take() == SAID * 2)
    assert len(door.fronts) == 1
    door.connections.sweep()
    await until(lambda: not door.connections._resting)
    assert len(door.fronts) == 1  # it has just come
    await door.clock.advance(REST_S)
    door.connections.sweep()
    await until(lambda: door.bare)
    client.send(KNOWN)
    await until(lambda: client.take() == SAID * 3)
    assert (door.fronts, door.seen) == ([], [])


async def test_an_answer_that_cannot_go_on_is_cut(door: Door, client: Client) -> None:
    def cut(raw: bytes, asker: Asker) -> float | None:
        answered_at = door._answer(raw, asker)
        if answered_at is not None:
            asker.abort()
        return answered_at

    door.connections.answer = cut
    client.send(KNOWN)
    await until(lambda: door.counts["connections.accepted"] == 1 and not len(door.connections))
    with pytest.raises(ConnectionResetError):
        client.take()


async def test_what_closes_in_its_pause_stays_closed(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    monkeypatch.setattr(acceptor, "ACCEPT_PAUSE_S", 0.0)
    poor: Any = Poor(door.listener)
    door.acceptor._listeners[door.listener.fileno()] = poor
    again = loop.create_future()
    resume = door.acceptor._resume

    def resumes(descriptor: int) -> None:
        door.listening.close()
        resume(descriptor)
        again.set_result(None)

    monkeypatch.setattr(door.acceptor, "_resume", resumes)
    client = door.client()
    await again
    assert [context["message"] for context in told] == ["a connection could not be accepted"]
    client.sock.close()


async def test_it_closes_in_the_midst_of_a_move() -> None:
    one = Door()
    client = one.client()
    client.send(OTHER)
    await until(lambda: one.fronts and one.fronts[0].phase is Phase.MOVING)
    one.listening.close()
    await closed(one)
    client.sock.close()
