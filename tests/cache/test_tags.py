from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.tags import LONGEST_BYTES, MOST_BYTES, tags_of
from fileproxy.model import Headers


@pytest.mark.parametrize(
    ("headers", "tags"),
    [
        ((), ()),
        ((("X-Tag", "a"),), ()),
        ((("Cache-Tag", "a"),), ("a",)),
        ((("cache-tag", " a,b ,\tc d,, "),), ("a", "b", "c d")),
        ((("Surrogate-Key", " a  b\tc,d "),), ("a", "b", "c,d")),
        ((("Cache-Tag", "a, b"), ("Surrogate-Key", "b c"), ("CACHE-TAG", "a,e")), ("a", "b", "c", "e")),
        ((("Cache-Tag", "A, a"),), ("A", "a")),
        ((("Cache-Tag", f"{'x' * LONGEST_BYTES}, {'y' * (LONGEST_BYTES + 1)}, z"),), ("x" * LONGEST_BYTES, "z")),
        ((("Cache-Tag", "\udcff, é"),), ("\udcff", "é")),
    ],
)
def test_tags(headers: Headers, tags: tuple[str, ...]) -> None:
    assert tags_of(headers) == tags


def test_a_flood_of_tags_is_bounded() -> None:
    tags = tags_of((("Cache-Tag", ",".join(f"tag-{number:06}" for number in range(100_000))),))
    assert len(tags) == MOST_BYTES // 11
    assert tags[0] == "tag-000000"


@given(st.lists(st.tuples(st.sampled_from(["Cache-Tag", "Surrogate-Key", "Via"]), st.text("ab ,\tcü", max_size=40))))
def test_tags_are_clean_distinct_and_bounded(lines: list[tuple[str, str]]) -> None:
    tags = tags_of(tuple(lines))
    assert len(set(tags)) == len(tags)
    assert all(tag and tag == tag.strip(" \t") for tag in tags)
    assert sum(len(tag.encode()) + 1 for tag in tags) <= MOST_BYTES
