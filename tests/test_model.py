"""Headers with an index say the same as plain ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.model import Fields, Headers, header, header_list, header_values, names_any, without

NAMES = st.sampled_from(["Host", "host", "ETag", "etag", "Via", "VIA", "X-A"])
HEADERS = st.lists(st.tuples(NAMES, st.text("ab", max_size=2)), max_size=6).map(tuple)


@given(HEADERS, NAMES)
def test_fields_answer_as_plain_headers_do(plain: Headers, name: str) -> None:
    fields, names = Fields(plain), frozenset({name.lower(), "other"})
    assert fields == plain
    assert hash(fields) == hash(plain)
    assert header(fields, name) == header(plain, name)
    assert header_values(fields, name) == header_values(plain, name)
    assert header_list(fields, name) == header_list(plain, name)
    assert without(fields, names) == without(plain, names)
    assert names_any(fields, names) == names_any(plain, names) == (header(plain, name) is not None)


def test_what_was_looked_up_may_be_changed_by_who_has_it() -> None:
    fields = Fields((("Via", "a"),))
    header_values(fields, "via").append("b")
    assert header_values(fields, "via") == ["a"]
