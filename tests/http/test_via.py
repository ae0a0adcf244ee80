from __future__ import annotations

import pytest

from fileproxy.http.via import loops, with_cdn_loop, with_via

US = "0123abcd"


def test_via_comes_after_earlier_hops() -> None:
    headers = (("Via", "1.0 fred"), ("A", "b"))
    assert with_via(headers, False, "fp") == (*headers, ("Via", "1.1 fp"))
    assert with_via((), True, "fp") == (("Via", "1.0 fp"),)


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([], 0),
        (["other"], 0),
        ([US], 1),
        ([f"other, {US}"], 1),
        ([US, f"{US} , {US}"], 3),
        ([f'{US}; v="1, 2" ;w=3'], 1),
        ([f"foo123.foocdn.example, barcdn.example; trace=\"abcdef\"; a=b, {US}"], 1),
        ([f"[::1]:80, a.example:81, {US}:80"], 0),
        ([f"x{US}", US.upper(), f"{US}x"], 0),
        ([f"{US} junk"], 0),
        ([f"{US};v"], 0),
        ([f'"{US}"'], 0),
        ([f'a;b="{US}, {US}"'], 0),
        (['broken="', US], 1),  # what others break on their line does not hide ours
        ([f'broken=", {US}'], 0),
        (["(", "", ",,"], 0),
    ],
)  # fmt: skip
def test_loops(values: list[str], times: int) -> None:
    assert loops(tuple(("cdn-loop", value) for value in values), US) == times


def test_each_passage_counts_once_and_nothing_is_lost() -> None:
    headers = (("CDN-Loop", 'garbage="'), ("A", "b"))
    once = with_cdn_loop(headers, US)
    assert once[:2] == headers
    assert loops(once, US) == 1
    assert loops(with_cdn_loop(once, US), US) == 2
    assert loops(with_cdn_loop(once, "other"), US) == 1
