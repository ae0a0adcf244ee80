"""Names with several addresses: all are used, dead ones last; what the resolver said is kept as long as it may be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp.abc import ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.upstream.names import AGAIN_S, LAME_S, STALE_S, Names, arranged
from tests.origin import Origin, Reply, blackhole
from tests.upstream.conftest import Known, MakeTransport, read, want

pytestmark = pytest.mark.loops("asyncio", "uvloop")
NAME = "files.example"
ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"


def result(address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=NAME, host=address, port=80, family=family, proto=0, flags=0)


def hosts(found: list[ResolveResult]) -> list[str]:
    return [one["host"] for one in found]


# --- the order (pure) -------------------------------------------------------------------------------------------------

addresses = st.lists(st.integers(1, 9).map(lambda n: f"10.0.0.{n}") | st.integers(1, 9).map("::{}".format), unique=True)


@given(addresses, st.integers(0, 1000), st.sets(st.integers(0, 17)))
def test_every_address_is_tried_once_and_the_lame_ones_last(found: list[str], turn: int, lame: set[int]) -> None:
    bad = {found[index] for index in lame if index < len(found)}
    order = hosts(arranged([result(one) for one in found], turn, bad.__contains__))
    assert sorted(order) == sorted(found)
    assert [one in bad for one in order] == sorted(one in bad for one in order)


@given(addresses.filter(bool))
def test_each_address_of_the_first_family_is_first_as_often(found: list[str]) -> None:
    family = [one for one in found if (":" in one) == (":" in found[0])]
    firsts = Counter(
        hosts(arranged([result(one) for one in found], turn, lambda _: False))[0] for turn in range(3 * len(family))
    )
    assert firsts == dict.fromkeys(family, 3)


# --- what is kept -----------------------------------------------------------------------------------------------------


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_name_is_resolved_again_when_its_time_is_over(names: tuple[Known, list[str]]) -> None:
    known, asked = names
    time = Time()
    some = Names(timeout_s=1, keep_s=60, now=time)
    known[NAME] = [ONE]
    assert hosts(await some.resolve(NAME)) == [ONE]
    known[NAME] = [TWO]
    time.now += 59
    assert hosts(await some.resolve(NAME)) == [ONE]
    time.now += 1
    assert hosts(await some.resolve(NAME)) == [TWO]
    assert len(asked) == 2


async def test_many_wait_for_one_look_up(names: tuple[Known, list[str]]) -> None:
    known, asked = names
    known[NAME] = [ONE]
    some = Names(timeout_s=1, keep_s=60)
    assert await asyncio.gather(*(some.resolve(NAME) for _ in range(5))) == [await some.resolve(NAME)] * 5
    assert len(asked) == 1


async def test_while_the_resolver_does_not_answer_the_old_addresses_serve(
    names: tuple[Known, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    names[0][NAME] = [ONE]
    some = Names(timeout_s=1, keep_s=60, now=time)
    await some.resolve(NAME)
    asks = 0

    async def silent(*_: object, **__: object) -> list[ResolveResult]:
        nonlocal asks
        asks += 1
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", silent)
    time.now += 60
    for _ in range(3):
        assert hosts(await some.resolve(NAME)) == [ONE]
    assert asks == 1
    time.now += AGAIN_S
    assert hosts(await some.resolve(NAME)) == [ONE]
    assert asks == 2
    time.now += STALE_S
    with pytest.raises(OSError, match="try again"):
        await some.resolve(NAME)


async def test_a_name_that_is_gone_is_gone_at_once(names: tuple[Known, list[str]]) -> None:
    time = Time()
    names[0][NAME] = [ONE]
    some = Names(timeout_s=1, keep_s=60, now=time)
    await some.resolve(NAME)
    del names[0][NAME]
    time.now += 60
    with pytest.raises(socket.gaierror):
        await some.resolve(NAME)
    assert some.describe() == {NAME: {}}


async def test_one_that_was_overtaken_is_last_for_a_while(names: tuple[Known, list[str]]) -> None:
    time = Time()
    names[0][NAME] = [ONE, TWO, THREE]
    some = Names(timeout_s=1, keep_s=600, now=time)

    async def connect(*tried: str, to: str) -> list[str]:
        order = hosts(await some.resolve(NAME))
        for one in tried:
            some.trying(one)
        some.connected(to)
        return order

    assert await connect(ONE, TWO, to=TWO) == [ONE, TWO, THREE]
    assert some.describe() == {NAME: {ONE: "failing", TWO: "ok", THREE: "ok"}}
    assert [(await connect(TWO, to=TWO))[-1] for _ in range(4)] == [ONE] * 4
    time.now += LAME_S
    assert {(await connect(TWO, to=TWO))[0] for _ in range(3)} == {ONE, TWO, THREE}
    await connect(TWO, ONE, to=ONE)
    await connect(ONE, TWO, to=TWO)  # well again
    assert some.describe()[NAME] == {ONE: "failing", TWO: "ok", THREE: "ok"}


# --- on real sockets --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def sibling(origin: Origin | int, host: str = TWO) -> AsyncIterator[Origin]:
    """An origin on the same port of another address."""
    async with Origin(host=host) as other:
        await other.refuse()
        other.port = origin if isinstance(origin, int) else origin.port
        await other.listen()
        yield other


async def test_connections_take_turns_over_all_addresses(
    origin: Origin, transport: MakeTransport, names: tuple[Known, list[str]]
) -> None:
    names[0][NAME] = [ONE, TWO]
    async with sibling(origin) as other:
        for one in (origin, other):
            one.script("/f", Reply(b"x", after="close"))
        made, _ = transport(f"http://{NAME}:{origin.port}")
        for _ in range(6):
            assert await read(await made.fetch(want())) == b"x"
        assert (origin.accepted, other.accepted) == (3, 3)


@pytest.mark.parametrize("how", ["refuses", "silent"])
async def test_a_dead_address_is_tried_once_and_then_last(
    transport: MakeTransport, names: tuple[Known, list[str]], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    names[0][NAME] = [ONE, TWO]
    tried: list[str] = []
    real = Names.trying

    def trying(self: Names, address: str) -> None:
        tried.append(address)
        real(self, address)

    monkeypatch.setattr(Names, "trying", trying)
    with blackhole() as silent:
        port = int(silent.rpartition(":")[2])
        if how == "refuses":
            names[0][NAME] = ["127.0.0.9", TWO]
        dead = names[0][NAME][0]
        async with sibling(port) as other:
            other.script("/f", Reply(b"x", after="close"))
            made, connections = transport(f"http://{NAME}:{port}", pool={"happy_eyeballs": "10ms"})
            for _ in range(4):
                assert await read(await made.fetch(want())) == b"x"
            assert connections.describe()["names"] == {NAME: {dead: "failing", TWO: "ok"}}
            await connections.close()
    assert tried == [dead, TWO, TWO, TWO, TWO]
