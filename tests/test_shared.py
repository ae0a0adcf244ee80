"""The shared store's client: no caller waits for it, none sees it fail, and it comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from fileproxy.clock import Clock, ManualClock, SystemClock
from fileproxy.shared import FIRST_PAUSE_S, LONGEST_PAUSE_S, PREFIX, VERSION, SharedStore, State, decode, encode
from fileproxy.tasks import Tasks
from tests.house import Watched, settled
from tests.valkey import Valkey, valkey

pytestmark = [pytest.mark.loops("asyncio", "uvloop"), pytest.mark.usefixtures("tidy")]
KEY = f"{PREFIX}test"


class Opened:
    """A store, and what it told."""

    def __init__(self, url: str, *, pool: int = 10, timeout_s: float = 5.0, clock: Clock | None = None) -> None:
        self.counts = Watched()
        self.turns: list[tuple[State, str]] = []
        self.failed: list[tuple[str, BaseException]] = []
        self.tasks = Tasks(lambda name, error: self.failed.append((name, error)))
        self.store = SharedStore(
            url,
            pool=pool,
            timeout_s=timeout_s,
            counters=self.counts,
            clock=clock or SystemClock(),
            tasks=self.tasks,
            on_change=lambda state, why: self.turns.append((state, why)),
        )

    async def becomes(self, state: State) -> None:
        await settled(lambda: self.store.state != state, within=10.0)
        assert self.store.state == state, self.store.describe()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Opened]:
    """Open; afterwards closed, with no task left or failed."""
    one = Opened(url, **options)
    await one.store.open()
    try:
        yield one
    finally:
        await one.store.close()
        await one.store.close()
        assert len(one.tasks) == 0
        assert not one.failed


@pytest.fixture
def server(short_path: Path) -> Iterator[Valkey]:
    with valkey(short_path) as running:
        yield running


async def put(redis: Redis) -> bool:
    return bool(await redis.set(KEY, b"value"))


async def get(redis: Redis) -> object:
    return await redis.get(KEY)


async def never(redis: Redis) -> object:
    raise AssertionError("was asked")


# --- while it is there -----------------------------------------------------------------------------------------------


async def test_it_answers(server: Valkey) -> None:
    async with opened(server.url) as one:
        assert one.store.state == "ok"
        assert await one.store.call(put) is True
        assert await one.store.call(get) == b"value"
        assert one.store.describe() == {"state": "ok", "url": server.url, "error": None}
        assert one.turns == [("ok", "")]
        assert one.counts["shared.failures"] == 0


async def test_off_is_never_asked() -> None:
    async with opened("off") as one:
        assert one.store.state == "off"
        assert await one.store.call(never) is None
        assert one.turns == []
        assert one.store.describe()["error"] is None
        assert one.counts["shared.failures"] == 0


async def test_a_refused_command_says_nothing_about_the_next(server: Valkey) -> None:
    async with opened(server.url) as one:
        await one.store.call(put)
        assert await one.store.call(lambda redis: redis.lpush(KEY, b"x")) is None  # it holds no list
        assert one.store.state == "ok"
        assert one.counts["shared.failures"] == 1
        assert await one.store.call(get) == b"value"


@pytest.mark.option("redis.pool")
async def test_a_pool_in_use_says_nothing_either(server: Valkey) -> None:
    async with opened(server.url, pool=1) as one:
        begun = asyncio.Event()

        async def hold(redis: Redis) -> object:
            begun.set()
            return await redis.blpop([f"{PREFIX}list"])  # until somebody pushes

        holding = asyncio.create_task(one.store.call(hold))
        await begun.wait()
        await asyncio.sleep(0)
        assert await one.store.call(get) is None
        assert one.store.state == "ok"
        assert one.counts["shared.failures"] == 1
        async with opened(server.url, pool=2) as other:
            await other.store.call(lambda redis: redis.rpush(f"{PREFIX}list", b"x"))
        assert await holding == [f"{PREFIX}list".encode(), b"x"] or await holding == (f"{PREFIX}list".encode(), b"x")
        assert await one.store.call(put) is True


async def test_our_own_mistakes_are_not_hidden(server: Valkey) -> None:
    async with opened(server.url) as one:
        with pytest.raises(AssertionError, match="was asked"):
            await one.store.call(never)
        assert one.store.state == "ok"


async def test_who_is_cancelled_leaves_no_half_answer_behind(server: Valkey) -> None:
    async with opened(server.url, pool=1) as one:
        await one.store.call(put)
        for _ in range(20):
            asking = asyncio.create_task(one.store.call(lambda redis: redis.echo(b"other")))
            for _ in range(3):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            assert await one.store.call(get) == b"value"


# --- while it is not -------------------------------------------------------------------------------------------------


async def test_nobody_there_at_the_start(short_path: Path) -> None:
    server = Valkey(short_path)
    clock = ManualClock()
    async with opened(server.url, clock=clock) as one:
        assert one.store.state == "down"
        assert await one.store.call(never) is None  # down: nobody is even asked
        assert one.store.describe()["error"]
        assert one.turns == []  # it never was up
        try:
            server.start()
            await clock.advance(FIRST_PAUSE_S)
            await one.becomes("ok")
            assert await one.store.call(put) is True
            assert one.turns == [("ok", "")]
        finally:
            server.kill()


async def test_it_dies_and_comes_back(server: Valkey) -> None:
    clock = ManualClock()
    async with opened(server.url, clock=clock) as one:
        await one.store.call(put)
        server.kill()
        assert await one.store.call(get) is None
        assert one.store.state == "down"
        assert one.counts["shared.failures"] == 1
        assert await one.store.call(never) is None
        assert one.counts["shared.failures"] == 1  # what was not asked did not fail
        server.start()
        await clock.advance(FIRST_PAUSE_S)
        await one.becomes("ok")
        assert await one.store.call(put) is True
        states = [state for state, _ in one.turns]
        assert states == ["ok", "down", "ok"]
        assert one.turns[1][1]  # why


@pytest.mark.option("redis.timeout")
async def test_it_hangs_and_comes_back(server: Valkey) -> None:
    """A stopped process accepts everything and answers nothing: only the clock tells."""
    async with opened(server.url, timeout_s=0.05) as one:
        assert await one.store.call(put) is True
        server.freeze()
        try:
            assert await one.store.call(get) is None
            assert one.store.state == "down"
            assert await one.store.call(never) is None
        finally:
            server.thaw()
        await one.becomes("ok")
        assert await one.store.call(get) == b"value"  # and not what was meant for somebody else


async def test_it_hangs_at_the_start(server: Valkey) -> None:
    server.freeze()
    try:
        async with opened(server.url, timeout_s=0.05) as one:
            assert one.store.state == "down"
            assert await one.store.call(never) is None
            server.thaw()
            await one.becomes("ok")
    finally:
        server.thaw()


async def test_many_callers_in_one_failure(server: Valkey) -> None:
    """They all get nothing, it goes down once, and one task looks after it."""
    async with opened(server.url, timeout_s=0.05) as one:
        server.freeze()
        try:
            assert await asyncio.gather(*(one.store.call(get) for _ in range(10))) == [None] * 10
            assert [state for state, _ in one.turns] == ["ok", "down"]
            assert len(one.tasks) == 1
        finally:
            server.thaw()
        await one.becomes("ok")


async def test_it_is_asked_less_and_less(short_path: Path) -> None:
    class Recording(ManualClock):
        def __init__(self) -> None:
            super().__init__()
            self.pauses: list[float] = []

        async def sleep(self, seconds: float) -> None:
            self.pauses.append(seconds)
            await (asyncio.sleep(0) if len(self.pauses) < 10 else super().sleep(seconds))

    clock = Recording()
    async with opened(Valkey(short_path).url, clock=clock):
        await settled(lambda: len(clock.pauses) < 10)
        assert clock.pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
        assert clock.pauses[-1] == LONGEST_PAUSE_S


async def test_a_connection_that_cannot_even_be_closed(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    async with opened(server.url, clock=clock) as one:
        server.kill()
        assert await one.store.call(get) is None

        async def refuse(*_: object) -> None:
            monkeypatch.undo()
            raise TimeoutError("closing took too long")

        monkeypatch.setattr("redis.asyncio.ConnectionPool.disconnect", refuse)
        server.start()
        await clock.advance(FIRST_PAUSE_S)
        await one.becomes("ok")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\xff" * 1000, b"$9999999999\r\n", b""])
async def test_something_else_listens_there(short_path: Path, answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    path = short_path / "other.sock"
    listener = await asyncio.start_unix_server(handle, str(path))
    async with listener, opened(f"unix://{path}", timeout_s=0.5, clock=ManualClock()) as one:
        assert one.store.state == "down"
        assert await one.store.call(never) is None


async def test_a_wrong_password(short_path: Path) -> None:
    with valkey(short_path, "--requirepass", "right") as server:
        url = server.url.replace("unix://", "unix://:wrong@")
        async with opened(url, clock=ManualClock()) as one:
            assert one.store.state == "down"
            assert "wrong" not in str(one.store.describe())
        async with opened(server.url.replace("unix://", "unix://:right@")) as one:
            assert await one.store.call(put) is True
            assert "right" not in str(one.store.describe())


# --- what is stored --------------------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True):
    name: str
    data: bytes
    number: float


@given(st.text(), st.binary(), st.floats(allow_nan=False))
def test_what_was_stored_comes_back(name: str, data: bytes, number: float) -> None:
    record = Record(name, data, number)
    assert decode(encode(record), Record) == record
    assert encode(record)[:1] == VERSION


@given(st.binary())
def test_anything_else_is_nothing(data: bytes) -> None:
    for value in (data, VERSION + data):
        found = decode(value, Record)
        assert found is None or encode(found)  # never raises; a record only where the bytes are one


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        7,
        b"",
        VERSION,
        b"\x02" + encode(Record("a", b"", 0.0))[1:],
        encode({"name": 1, "data": b"", "number": 0.0}),
        encode(["a", b"", 0.0]),
        encode(Record("a", b"", 0.0))[:-1],
        VERSION + b"\x91" * 100_000,
        VERSION + b"\xdb\xff\xff\xff\xff",
        VERSION + b"\xa1\xff",
    ],
)
def test_damaged_values(value: object) -> None:
    assert decode(value, Record) is None


def test_no_value_is_read_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    value = encode(Record("a", b"x" * 100, 0.0))
    monkeypatch.setattr("fileproxy.shared.LARGEST_VALUE_BYTES", 99)
    assert decode(value, Record) is None
