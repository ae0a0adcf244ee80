"""The input of ``-i``."""

from __future__ import annotations

import pytest

from fileproxy.client.checksum import Checksum
from fileproxy.client.lists import Line, parse_list

DIGEST = "0123456789abcdef" * 4


def test_one_url_or_several_mirrors_a_line() -> None:
    text = f"# the release\nhttp://a/1\n\nhttp://a/2\thttp://b/2\n  out=x/two.iso\n\tchecksum=sha256={DIGEST}\n"
    assert parse_list(text) == [
        Line(2, ("http://a/1",)),
        Line(4, ("http://a/2", "http://b/2"), "x/two.iso", Checksum("sha256", DIGEST)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  out=x", "line 1: an option without a URL"),
        ("http://a/1\n  dir=x", "line 2: 'dir=x' is not out=NAME"),
        ("http://a/1\n  out=", "line 2"),
        ("http://a/1\n  out=/etc/passwd", "line 2: out must stay inside"),
        ("http://a/1\n  out=a/../../b", "line 2: out must stay inside"),
        ("http://a/1\n  checksum=sha256=12", "line 2: a sha256 checksum has 64"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_list(text)
