"""SRV records: what is asked, what is believed, and what happens when name servers cut, lie or are silent."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.upstream.srv import MOST, Found, NoAnswer, Record, look_up, name_servers, parse, question
from tests.house import free_port
from tests.upstream.dns import NameServer, answer, coded, record, srv_record

pytestmark = pytest.mark.loops("asyncio", "uvloop")
NAME = "_http._tcp.example.org"
ASKED = question(NAME, 7)
ONE, TWO = (0, 10, 8080, "a.example.org"), (1, 0, 80, "b.example.org")
RECORDS = (Record(0, "a.example.org", 8080, 10), Record(1, "b.example.org", 80, 0))


def found(*records: bytes, flags: int = 0x8180) -> Found:
    return parse(answer(ASKED, *records, flags=flags), NAME, 7)


# --- messages (pure) --------------------------------------------------------------------------------------------------


def test_records_are_sorted_and_hold_as_long_as_the_first_to_go() -> None:
    assert found(srv_record(TWO, 60), srv_record(ONE, 30)) == Found(RECORDS, 30)


def test_an_alias_is_followed_and_what_belongs_to_another_name_is_not_taken() -> None:
    alias = record(b"\xc0\x0c", 5, coded("other.example.org"), 20)
    mine, alien = srv_record(ONE, owner=coded("OTHER.example.org")), srv_record(TWO, 5, owner=coded("x.example.org"))
    assert found(alias, alien, mine) == Found(RECORDS[:1], 20)


def test_no_such_name_no_records_and_no_service() -> None:
    assert found(flags=0x8183) == found() == Found((), 0)
    assert found(srv_record((0, 0, 0, "."))) == Found((), 60)


def test_a_server_that_cannot_say_is_no_answer() -> None:
    for code in (1, 2, 4, 5):
        with pytest.raises(NoAnswer):
            found(flags=0x8180 | code)


def test_a_cut_answer_says_so() -> None:
    assert found(srv_record(ONE), flags=0x8380) == Found((), 0, cut=True)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        ASKED,  # a question
        answer(question(NAME, 8), srv_record(ONE)),  # another identifier
        answer(question("_http._tcp.example.com", 7), srv_record(ONE)),  # another question
        answer(ASKED, srv_record(ONE))[:-1],
        answer(ASKED, record(b"\xc0\x0c", 33, struct.pack("!3H", 0, 0, 80) + b"\xc0\xff")),  # points ahead
        answer(ASKED, srv_record(ONE, owner=b"\xc0" + bytes([len(ASKED) - 11]))),  # at itself
        answer(ASKED, record(b"\xc0\x0c", 33, struct.pack("!3H", 0, 0, 80) + coded("a") + b"x")),  # longer than it says
        answer(ASKED, srv_record(ONE, owner=b"\x80")),
        answer(ASKED, record(b"\xc0\x0c", 33, struct.pack("!3H", 0, 0, 80) + coded("a" * 60 + "." + "b" * 60) * 3)),
    ],
)
def test_what_is_no_answer_to_it(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(message, NAME, 7)


def test_targets_that_are_no_host_names_are_left_out() -> None:
    assert found(srv_record((0, 0, 80, "a b.example")), srv_record((0, 0, 80, "-a.example")), srv_record(ONE)) == Found(
        RECORDS[:1], 60
    )


@given(st.binary(max_size=600))
def test_whatever_comes_is_read_to_an_end(tail: bytes) -> None:
    for message in (tail, answer(ASKED, tail), answer(ASKED, srv_record(ONE), tail)[: 12 + len(tail)]):
        try:
            result = parse(message, NAME, 7)
        except (ValueError, NoAnswer):
            continue
        assert len(result.records) <= MOST


labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.integers(0, 65535),
            st.integers(1, 65535),
            st.lists(
                st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True), min_size=1, max_size=4
            ).map(".".join),
        ),
        max_size=12,
    ),
    st.data(),
)
def test_every_record_is_read_as_it_was_written_and_damage_is_noticed_or_harmless(
    records: list[tuple[int, int, int, str]], data: st.DataObject
) -> None:
    message = answer(ASKED, *(srv_record(one) for one in records))
    expected = {Record(priority, target, port, weight) for priority, weight, port, target in records}
    assert set(parse(message, NAME, 7).records) == expected
    at = data.draw(st.integers(0, len(message) - 1))
    damaged = message[:at] + bytes([data.draw(st.integers(0, 255))]) + message[at + 1 :]
    with contextlib.suppress(ValueError, NoAnswer):
        assert len(parse(damaged, NAME, 7).records) <= len(records)


@pytest.mark.parametrize("name", ["", "a..b", "a b", "x" * 64, "a." * 130, "ä.example", "-a"])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match="not a name that can"):
        question(name, 1)


def test_the_systems_name_servers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert name_servers(file) == [("127.0.0.1", 53)]
    file.write_text("# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver\n nameserver fe80::1%eth0 \n")
    assert name_servers(file) == [("10.0.0.1", 53), ("fe80::1%eth0", 53)]
    file.write_text("nameserver 10.0.0.1\n" * 5)
    assert len(name_servers(file)) == 3


# --- asking -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def server(tidy: None) -> AsyncIterator[NameServer]:
    async with NameServer().open() as one:
        one.known[NAME] = [ONE, TWO]
        yield one


async def test_over_udp(server: NameServer) -> None:
    assert await look_up(NAME, [server.address], timeout_s=5) == Found(RECORDS, 60)
    assert await look_up("_http._tcp.nowhere.example", [server.address], timeout_s=5) == Found((), 0)
    assert [how for how, _ in server.asked] == ["udp", "udp"]


async def test_what_does_not_fit_comes_over_tcp(server: NameServer) -> None:
    server.cut = True
    assert await look_up(NAME, [server.address], timeout_s=5) == Found(RECORDS, 60)
    assert [how for how, _ in server.asked] == ["udp", "tcp"]


async def test_forged_answers_do_not_count_and_the_true_one_does(server: NameServer) -> None:
    def forged(message: bytes) -> list[bytes]:
        other = struct.pack("!H", (struct.unpack_from("!H", message)[0] + 1) % 65536)
        return [other + message[2:], b"x", message[:2] + message[2:].replace(b"example", b"examplf"), message]

    server.twist = forged
    assert await look_up(NAME, [server.address], timeout_s=5) == Found(RECORDS, 60)


async def test_the_next_server_is_asked_when_one_refuses_fails_or_is_silent(server: NameServer) -> None:
    refusing = ("127.0.0.1", free_port())
    assert (await look_up(NAME, [refusing, server.address], timeout_s=5)).records == RECORDS
    async with NameServer().open() as bad:
        bad.twist = lambda message: []
        assert (await look_up(NAME, [bad.address, server.address], timeout_s=0.05)).records == RECORDS
        bad.twist = lambda message: [message[:2] + b"\x81\x82" + message[4:]]  # SERVFAIL
        assert (await look_up(NAME, [bad.address, server.address], timeout_s=5)).records == RECORDS
        before = len(bad.asked)
        with pytest.raises(NoAnswer, match="code 2"):
            await look_up(NAME, [bad.address], timeout_s=5)
        assert len(bad.asked) == before + 2
        bad.twist = lambda message: []
        with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
            await look_up(NAME, [bad.address], timeout_s=0.05)
