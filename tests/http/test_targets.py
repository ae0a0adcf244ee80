from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.errors import BadTarget
from fileproxy.http.targets import decode_path, is_authority, parse_target
from fileproxy.model import Target


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/", "/", None),
        ("/?", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/@scope%2fname", "/@scope%2fname", None),
        ("/@scope%2Fname", "/@scope%2Fname", None),
        ("//evil.example/x", "//evil.example/x", None),
        ("/a//b///", "/a//b///", None),
        ("/%E4%FF", "/%E4%FF", None),
        ("/a%20b%41", "/a%20b%41", None),
        ("/...", "/...", None),
        ("/.hidden/a..b/c.", "/.hidden/a..b/c.", None),
        ("/%252e%252e/x", "/%252e%252e/x", None),  # decoded once, these are no dots
        ("/a;b=c", "/a;b=c", None),
        ("/x?../..\\&a=%00%5c%zz", "/x", "../..\\&a=%00%5c%zz"),
        ('/"<>{}|^`', '/"<>{}|^`', None),
        ("/http://a/b", "/http://a/b", None),
    ],
)
def test_kept_byte_for_byte(raw: str, path: str, query: str | None) -> None:
    assert parse_target(raw, "GET") == (Target(path, query), None)
    assert str(Target(path, query)) == raw


@pytest.mark.parametrize(
    "raw",
    [
        "", "a", "?x", "*", "*/", "example.org:443", "ftp://a/b", "http:/a", "http:///a", "http://u:p@a/b",
        "http://a:x/", "http://a:65536/", "http://[::1/", "http://a b/", "/a b", "/a\tb", "/a\x00", "/a\x7f", "/a#b",
        "/#", "/é", "/\udcff", "/.", "/..", "/./a", "/../a", "/a/.", "/a/..", "/a/../b", "/%2e", "/%2E%2e/a",
        "/.%2e/a", "/a/%2e%2e", "/a%2f..", "/a%2f%2e%2e%2fb", "/..%2fa", "/..%5ca", "/a%5c..", "/a\\..\\b", "/a\\b",
        "/a%5cb", "/a%5Cb", "/%00", "/a%00b", "/%", "/%z", "/%zz", "/%2", "/a%2", "/..;/a", "/a/..;x=y/b", "/.;/a",
        "/%2e%2e;/a",
    ],
)  # fmt: skip
def test_refused(raw: str) -> None:
    with pytest.raises(BadTarget):
        parse_target(raw, "GET")


@pytest.mark.parametrize(
    ("raw", "target", "authority"),
    [
        ("http://example.org/a?b", Target("/a", "b"), "example.org"),
        ("HTTPS://Example.org:8443", Target("/"), "Example.org:8443"),
        ("http://[::1]:80?x", Target("/", "x"), "[::1]:80"),
        ("http://a//b", Target("//b"), "a"),
    ],
)
def test_absolute_form(raw: str, target: Target, authority: str) -> None:
    assert parse_target(raw, "GET") == (target, authority)


def test_asterisk_is_for_options() -> None:
    assert parse_target("*", "OPTIONS") == (Target("*"), None)
    assert parse_target("http://a", "OPTIONS") == (Target("*"), "a")
    assert parse_target("http://a/", "OPTIONS") == (Target("/"), "a")


@pytest.mark.parametrize("text", ["a", "a.b:80", "a:", "127.0.0.1", "[::1]", "[::ffff:1.2.3.4]:1", "a_b", "a:65535"])
def test_authorities(text: str) -> None:
    assert is_authority(text)


@pytest.mark.parametrize(
    "text", ["", ":80", "a:b", "a:65536", "a/b", "a,b", "a b", "u@a", "::1", "[::1", "[]", "a\n", "é"]
)
def test_no_authorities(text: str) -> None:
    assert not is_authority(text)


PIECES = st.sampled_from(
    ["/", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", "a", "%41", "%", ";", "%00", "%252e", "~", "é", "?"]
)


@given(st.lists(PIECES, max_size=12).map(lambda parts: "/" + "".join(parts)))
def test_what_is_accepted_cannot_climb(raw: str) -> None:
    try:
        target, _ = parse_target(raw, "GET")
    except BadTarget:
        return
    assert str(target) == raw
    decoded = decode_path(target.path)
    assert not {".", ".."} & set(decoded.replace("\\", "/").split("/"))
    assert "\\" not in decoded
    assert "\0" not in decoded


@given(st.binary(max_size=20))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    raw = "/" + data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(BadTarget):
        assert str(parse_target(raw, "GET")[0]) == raw


@given(st.binary(min_size=1, max_size=20))
def test_decoding_gives_back_the_bytes(data: bytes) -> None:
    encoded = "/" + "".join(f"%{byte:02x}" for byte in data)
    assert decode_path(encoded).encode("utf-8", "surrogateescape") == b"/" + data
