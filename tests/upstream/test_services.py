"""Services: the mirrors their SRV records stand for (pure)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fileproxy.settings import schema
from fileproxy.upstream.services import expanded
from fileproxy.upstream.srv import Record

NAME = "_http._tcp.example.org"
records = st.lists(
    st.builds(
        Record,
        st.integers(0, 65535),
        st.sampled_from(["a.example.org", "b.example.org", "c.example.org"]),
        st.integers(1, 65535),
        st.integers(0, 65535),
    ),
    min_size=1,
    max_size=9,
    unique_by=lambda one: (one.target, one.port),
)


def upstream(*servers: object) -> schema.Upstream:
    return schema.Upstream.model_validate({"servers": list(servers)})


def mirrors(one: schema.Upstream) -> list[tuple[str, int, int]]:
    return [(mirror.url, mirror.weight, mirror.priority) for mirror in one.servers]


def test_a_mirror_for_each_record_with_its_weight_and_priority() -> None:
    known = {NAME: [Record(0, "a.example.org", 8080, 10), Record(5, "b.example.org", 80, 0)]}
    some = upstream({"url": f"srv+http://{NAME}/pub", "priority": 1}, "http://other.example")
    assert mirrors(expanded(some, known)) == [
        ("http://a.example.org:8080/pub", 10, 1),
        ("http://b.example.org:80/pub", 1, 6),
        ("http://other.example", 1, 0),
    ]


@pytest.mark.parametrize("known", [{}, {NAME: []}])
def test_without_records_the_name_behind_the_service(known: dict[str, list[Record]]) -> None:
    some = upstream(f"srv+https://{NAME}/pub", "srv+http://plain.example.org")
    assert mirrors(expanded(some, known)) == [("https://example.org/pub", 1, 0), ("http://plain.example.org", 1, 0)]


def test_what_names_no_service_stays_as_it_is() -> None:
    some = upstream("http://a.example")
    assert expanded(some, {}) is some


@given(records)
def test_whatever_the_records_say_the_mirrors_are_valid(found: list[Record]) -> None:
    some = upstream(f"srv+http://{NAME}")
    result = expanded(some, {NAME: sorted(found)})
    assert schema.Upstream.model_validate(result.model_dump()) == result
    assert [one.priority for one in result.servers] == sorted(one.priority for one in found)
    by_url = {f"http://{one.target}:{one.port}": one.weight for one in found}
    heaviest = max(by_url.values())
    for one in result.servers:
        assert one.weight == pytest.approx(max(1.0, by_url[one.url] * min(1.0, 1000 / max(1, heaviest))), abs=0.51)


@pytest.mark.parametrize(
    "url", [f"srv+http://{NAME}:80", "srv+http://", "srv+http://10.0.0.1", "srv+ftp://a", f"srv+http://u@{NAME}"]
)
def test_what_names_no_service_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        upstream(url)
