"""Who is next: one of each client in turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.line import FairLine

CLIENTS = st.sampled_from("abcd")


def filled(clients: str) -> FairLine[tuple[str, int]]:
    line: FairLine[tuple[str, int]] = FairLine()
    for number, client in enumerate(clients):
        line.add(client, (client, number))
    return line


def drained(line: FairLine[tuple[str, int]]) -> list[tuple[str, int]]:
    order = []
    while (item := line.take()) is not None:
        order.append(item)
    return order


def test_clients_take_turns() -> None:
    order = drained(filled("aaaaabbc"))
    assert "".join(client for client, _ in order) == "abcabaaa"
    assert [number for client, number in order if client == "a"] == [0, 1, 2, 3, 4]


def test_one_greedy_client_holds_up_nobody_by_more_than_one() -> None:
    line = filled("a" * 1000)
    line.add("b", ("b", 0))
    assert (line.take(), line.take()) == (("a", 0), ("b", 0))


def test_who_had_its_turn_and_comes_again_stands_behind() -> None:
    line = filled("abc")
    assert line.take() == ("a", 0)
    line.add("a", ("a", 9))
    assert [client for client, _ in drained(line)] == ["b", "c", "a"]


@given(st.text("abcd", max_size=40), st.integers(0, 10), CLIENTS)
def test_how_many_are_ahead_is_what_then_happens(clients: str, taken: int, client: str) -> None:
    line = filled(clients)
    for _ in range(taken):
        line.take()
    ahead = line.ahead(client)
    line.add(client, (client, -1))
    assert drained(line).index((client, -1)) == ahead


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "take", "crowd"]), CLIENTS), max_size=60))
def test_nobody_is_lost_and_nobody_comes_twice(steps: list[tuple[str, str]]) -> None:
    line: FairLine[tuple[str, int]] = FairLine()
    waiting: list[tuple[str, int]] = []
    for number, (step, client) in enumerate(steps):
        if step == "add":
            line.add(client, (client, number))
            waiting.append((client, number))
        elif step == "remove":
            gone = next((one for one in waiting if one[0] == client), (client, -1))
            line.remove(*gone[:1], gone)
            if gone in waiting:
                waiting.remove(gone)
        elif step == "take":
            first = line.first()
            assert line.take() == first
            if first is not None:
                waiting.remove(first)
        else:
            counts = {one: sum(item[0] == one for item in waiting) for one in "abcd"}
            last = line.crowd_out(client)
            if last is None:
                assert max(counts.values()) <= counts[client] + 1
            else:
                assert counts[last[0]] == max(counts.values()) > counts[client] + 1
                assert last == [item for item in waiting if item[0] == last[0]][-1]
                waiting.remove(last)
        assert len(line) == len(waiting)
    assert sorted(drained(line)) == sorted(waiting)
