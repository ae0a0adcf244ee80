"""A server chooses a name, never a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.client.names import DEFAULT, MOST_BYTES, file_name, safe_name


@pytest.mark.parametrize(
    ("disposition", "url", "name"),
    [
        (None, "http://a/x/f.iso?sig=1", "f.iso"),
        (None, "http://a/x/caf%C3%A9.txt", "café.txt"),
        (None, "http://a/", DEFAULT),
        (None, "http://a", DEFAULT),
        (None, "http://a/x%2F..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("attachment", "http://a/f", "f"),
        ('attachment; filename="g.iso"', "http://a/f", "g.iso"),
        ("attachment; filename=g.iso", "http://a/f", "g.iso"),
        ('attachment; filename="a\\"b"', "http://a/f", 'a"b'),
        ("attachment; filename=\"plain\"; filename*=UTF-8''%e2%82%ac.txt", "http://a/f", "€.txt"),
        ("attachment; filename*=latin-9''x; filename=y", "http://a/f", "y"),
        ('attachment; filename="../../etc/cron.d/job"', "http://a/f", "job"),
        ('attachment; filename="C:\\\\Windows\\\\x.dll"', "http://a/f", "x.dll"),
        ('attachment; filename="..\\\\..\\\\x"', "http://a/f", "x"),
        ('attachment; filename=".bashrc"', "http://a/f", "bashrc"),
        ('attachment; filename=".."', "http://a/f", "f"),
        ('attachment; filename="a\x00b\nc\u202egpj.exe"', "http://a/f", "abcgpj.exe"),
        ('attachment; filename=""', "http://a/f", "f"),
    ],
)
def test_names(disposition: str | None, url: str, name: str) -> None:
    assert file_name(disposition, url) == name


@given(st.text())
def test_no_text_becomes_a_place(text: str) -> None:
    name = safe_name(text)
    assert "/" not in name
    assert "\\" not in name
    assert "\x00" not in name
    assert not name.startswith(".")
    assert len(name.encode()) <= MOST_BYTES


@given(st.text(), st.text())
def test_there_is_always_a_name(disposition: str, path: str) -> None:
    assert file_name(disposition, f"http://a/{path.replace('[', '').replace(']', '')}")
