from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.problem import problem, proxy_status
from fileproxy.http.structured import sf_string, sf_token_or_string

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def test_problem_has_the_members_of_rfc_9457() -> None:
    body = problem(502, "Bad gateway", "The upstream hung up.", "id-1", "/a?b")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Bad gateway",
        "status": 502,
        "detail": "The upstream hung up.",
        "instance": "/a?b",
        "request_id": "id-1",
    }


@given(ANY_TEXT)
def test_problem_is_json_whatever_came_in(text: str) -> None:
    read = json.loads(problem(400, text, text, text, text))
    assert read["detail"] == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("line", "given_"),
    [
        ("fp", ("fp", None, "", None)),
        ('fp; error=dns_error; details="no \\"x\\""', ("fp", "dns_error", 'no "x"', None)),
        ("fp; error=http_request_error; received-status=503", ("fp", "http_request_error", "", 503)),
        ('"1st"; received-status=200; details="a b"', ("1st", None, "a\r\nb", 200)),
    ],
)
def test_proxy_status(line: str, given_: tuple[str, str | None, str, int | None]) -> None:
    assert proxy_status(*given_) == line


@given(ANY_TEXT)
def test_details_cannot_forge_a_line_or_leave_their_quotes(text: str) -> None:
    quoted = sf_string(text)
    assert all(" " <= c <= "~" for c in quoted)
    inner = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
    assert '"' not in inner
    assert "\\" not in inner
    assert quoted[0] == quoted[-1] == '"'


def test_details_stay_short() -> None:
    assert len(proxy_status("fp", "dns_error", "x" * 100_000)) < 600


@pytest.mark.parametrize(
    ("text", "written"),
    [("abc", "abc"), ("*a/b:c", "*a/b:c"), ("1a", '"1a"'), ("", '""'), ("a b", '"a b"'), ("é", '"\\\\xe9"')],
)
def test_tokens_where_they_can_be(text: str, written: str) -> None:
    assert sf_token_or_string(text) == written
