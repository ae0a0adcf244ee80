"""Raw request heads: one meaning, or refused (RFC 9112)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.server.heads import BadHead, Head, HeadLimits, check_head, check_partial, head_end, without_upgrade

LIMITS = HeadLimits()


def head(*lines: str, request: str = "GET /f HTTP/1.1", host: bool = True) -> bytes:
    every = [request, *(["Host: files.test"] if host else []), *lines]
    return ("\r\n".join(every) + "\r\n\r\n").encode("latin-1")


def refusal(raw: bytes, limits: HeadLimits = LIMITS) -> BadHead:
    with pytest.raises(BadHead) as caught:
        check_head(raw, limits)
    assert caught.value.detail
    return caught.value


def test_a_plain_head() -> None:
    assert check_head(head("Accept: */*"), LIMITS, 5.0) == Head(
        method="GET",
        target="/f",
        http10=False,
        authority="files.test",
        length=None,
        chunked=False,
        keep_alive=True,
        expect=None,
        upgrade=False,
        received_at=5.0,
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (head("Content-Length: 0"), {"length": 0}),
        (head("Content-Length:5 \t"), {"length": 5}),
        (head("content-LENGTH: 9223372036854775807"), {"length": 2**63 - 1}),
        (head("Transfer-Encoding: chunked"), {"chunked": True}),
        (head("Transfer-Encoding:\tCHUNKED "), {"chunked": True}),
        (head("Connection: close"), {"keep_alive": False}),
        (head("Connection: foo, Close"), {"keep_alive": False}),
        (head("Connection: foo", "Connection: close"), {"keep_alive": False}),
        (head("Connection: closed"), {"keep_alive": True}),
        (head(request="GET / HTTP/1.0"), {"keep_alive": False, "http10": True}),
        (head("Connection: Keep-Alive", request="GET / HTTP/1.0"), {"keep_alive": True}),
        (head("Connection: keep-alive, close", request="GET / HTTP/1.0"), {"keep_alive": False}),
        (head(request="GET / HTTP/1.0", host=False), {"authority": ""}),
        (head("Host: [::1]:80", host=False), {"authority": "[::1]:80"}),
        (head("Expect: 100-Continue"), {"expect": "100-continue"}),
        (head("Expect: 100-continue", request="GET / HTTP/1.0"), {"expect": None}),
        (head("Upgrade: h2c"), {"upgrade": True}),  # not named by Connection: counts for nothing
        (head("Upgrade: websocket"), {"upgrade": True}),
        (head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), {"upgrade": True}),
        (head(request="OPTIONS * HTTP/1.1"), {"target": "*"}),
        (head(request="GET http://a/b HTTP/1.1"), {"target": "http://a/b"}),
        (head("X:"), {}),
        (head("X: \xe4\xff"), {}),
        (b"\r\n" + head(), {}),
    ],
)
def test_what_is_read_from_a_head(raw: bytes, expected: dict[str, object]) -> None:
    read = check_head(raw, LIMITS)._asdict()
    assert {name: read[name] for name in expected} == expected


def test_bytes_that_are_no_utf_8_survive() -> None:
    assert check_head(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", LIMITS).target == "/\udcff"


MALFORMED = {
    "CL and TE": head("Content-Length: 5", "Transfer-Encoding: chunked"),
    "TE and CL": head("Transfer-Encoding: chunked", "Content-Length: 5"),
    "two lengths": head("Content-Length: 5", "Content-Length: 5"),
    "two lengths, other case": head("Content-Length: 5", "content-length: 6"),
    "a list of lengths": head("Content-Length: 5, 5"),
    "plus": head("Content-Length: +5"),
    "minus": head("Content-Length: -5"),
    "hex": head("Content-Length: 0x5"),
    "underscore": head("Content-Length: 1_0"),
    "empty length": head("Content-Length:"),
    "spaced length": head("Content-Length: 1 0"),
    "superscript": head("Content-Length: \xb2"),
    "too long a length": head("Content-Length: 9223372036854775808"),
    "endless length": head("Content-Length: " + "9" * 5000),
    "two TE": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked twice": head("Transfer-Encoding: chunked, chunked"),
    "chunked not last": head("Transfer-Encoding: chunked, gzip"),
    "identity": head("Transfer-Encoding: identity"),
    "xchunked": head("Transfer-Encoding: xchunked"),
    "quoted": head('Transfer-Encoding: "chunked"'),
    "vertical tab": head("Transfer-Encoding: \x0bchunked"),
    "empty TE": head("Transfer-Encoding:"),
    "TE in 1.0": head("Transfer-Encoding: chunked", request="POST / HTTP/1.0"),
    "space before colon": head("Transfer-Encoding : chunked"),
    "tab before colon": head("X\t: y"),
    "obs-fold": head("X: a", " b"),
    "obs-fold tab": head("X: a", "\tb"),
    "first line folded": head(" X: a", host=False),
    "no colon": head("nonsense"),
    "no name": head(": x"),
    "name with a space": head("X Y: z"),
    "name not ASCII": head("X\xe4: z"),
    "NUL in a value": head("X: a\0b"),
    "NUL in a name": head("X\0: a"),
    "control in a value": head("X: a\x01b"),
    "DEL": head("X: a\x7fb"),
    "bare LF": head("X: a\nY: b"),
    "bare CR": head("X: a\rY: b"),
    "LF line ends": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "no Host": head(host=False),
    "two Hosts": head("Host: files.test"),
    "two different Hosts": head("host: other"),
    "empty Host": head("Host:", host=False),
    "Host with a path": head("Host: a/b", host=False),
    "Host with user": head("Host: u@a", host=False),
    "Host with a space": head("Host: a b", host=False),
    "Host list": head("Host: a, b", host=False),
    "Host port": head("Host: a:99999", host=False),
    "Host not ASCII": head("Host: \xe4", host=False),
    "HTTP/1.2": head(request="GET / HTTP/1.2"),
    "HTTP/2.0": head(request="GET / HTTP/2.0"),
    "HTTP/0.9": head(request="GET / HTTP/0.9"),
    "HTTP/1": head(request="GET / HTTP/1"),
    "HTTP/11": head(request="GET / HTTP/11"),
    "HTTP/1.10": head(request="GET / HTTP/1.10"),
    "http/1.1": head(request="GET / http/1.1"),
    "no version": head(request="GET /"),
    "two spaces": head(request="GET  / HTTP/1.1"),
    "space at the end": head(request="GET / HTTP/1.1 "),
    "space at the start": head(request=" GET / HTTP/1.1"),
    "tab": head(request="GET\t/\tHTTP/1.1"),
    "space in the target": head(request="GET /a b HTTP/1.1"),
    "no slash": head(request="GET f HTTP/1.1"),
    "other scheme": head(request="GET ftp://a/b HTTP/1.1"),
    "NUL in the target": head(request="GET /\0 HTTP/1.1"),
    "control in the target": head(request="GET /\x1f HTTP/1.1"),
    "method with a colon": head(request="G:T / HTTP/1.1"),
    "two empty lines first": b"\r\n\r\n" + head(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_head_with_two_meanings_is_400(name: str) -> None:
    error = refusal(MALFORMED[name])
    assert (error.status, error.ending) == (400, "malformed")


@pytest.mark.parametrize(
    "raw",
    [
        head(request="CONNECT example.org:443 HTTP/1.1"),
        head(request="BREW /f HTTP/1.1"),
        head(request="get /f HTTP/1.1"),
        head("Transfer-Encoding: gzip, chunked"),
        head("Connection: upgrade", "Upgrade: websocket"),
        head("Connection: upgrade", "Upgrade: h2c, websocket"),
        head("Connection: upgrade", "Upgrade: h2c", "Upgrade: websocket"),
    ],
)
def test_what_is_not_implemented_is_501(raw: bytes) -> None:
    error = refusal(raw)
    assert (error.status, error.ending) == (501, "unsupported")


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (head("X: a", " b"), "folded"),
        (head("X : a"), "white space"),
        (head("X: a\0"), "NUL"),
        (head("X: a\ny: b"), "bare CR or LF"),
        (head("X: \x01"), "control character"),
        (head("n(me: x"), "name is not valid"),
        (head(request="GET / HTTP/3.0"), "HTTP/1.0 and HTTP/1.1"),
        (head(request="hello"), "METHOD target"),
        (head(host=False), "Host header is missing"),
        (head("Host: b"), "more than one Host"),
    ],
)
def test_the_refusal_says_what_is_wrong(raw: bytes, detail: str) -> None:
    assert detail in refusal(raw).detail


SMALL = HeadLimits(request_line=64, headers=3, header_line=64, head=256)
LIMITED = [
    (head(request="GET /" + "x" * 50 + " HTTP/1.1"), None),  # 64 exactly
    (head(request="GET /" + "x" * 51 + " HTTP/1.1"), 414),
    (head("A: b", "C: d"), None),
    (head("A: b", "C: d", "E: f"), 431),
    (head("A: " + "x" * 61), None),
    (head("A: " + "x" * 62), 431),
    (head("A: " + "x" * 61, "B: " + "x" * 61), None),
    (head("A: " + "x" * 61, request="GET /" + "x" * 50 + " HTTP/1.1"), None),
]


def partial_refusal(raw: bytes) -> BadHead | None:
    try:
        check_partial(raw, SMALL)
    except BadHead as error:
        return error
    return None


@pytest.mark.parametrize(("raw", "status"), LIMITED)
def test_limits(raw: bytes, status: int | None) -> None:
    if status is None:
        check_head(raw, SMALL)
        for end in range(len(raw) - 3):
            check_partial(raw[:end], SMALL)
    else:
        assert refusal(raw, SMALL).status == status
        early = [error.status for end in range(1, len(raw)) if (error := partial_refusal(raw[:end])) is not None]
        assert early  # not only when it is complete
        assert set(early) == {status}


def test_the_whole_head_has_a_limit() -> None:
    limits = HeadLimits(request_line=64, headers=1000, header_line=64, head=256)
    raw = head(*(f"A{number}: b" for number in range(40)))
    assert refusal(raw, limits).status == 431
    exact = HeadLimits(head=len(raw))
    assert check_head(raw, exact)


@pytest.mark.parametrize("name", ["bare LF", "NUL in a value", "LF line ends", "HTTP/2.0", "TLS", "space at the start"])
def test_what_cannot_become_good_is_refused_before_it_is_complete(name: str) -> None:
    raw = MALFORMED[name]
    with pytest.raises(BadHead) as caught:
        check_partial(raw[:-2], LIMITS)
    assert caught.value.status == 400


@pytest.mark.parametrize("cut", range(len(head("A: b", "Cookie: c=d"))))
def test_a_good_head_is_never_refused_on_the_way(cut: int) -> None:
    check_partial(head("A: b", "Cookie: c=d")[:cut], LIMITS)


def test_where_a_head_ends() -> None:
    raw = head()
    assert head_end(raw) == len(raw)
    assert head_end(raw + b"body\r\n\r\n") == len(raw)
    assert head_end(b"\r\n" + raw) == len(raw) + 2
    assert head_end(raw[:-1]) == -1
    assert head_end(raw + raw, len(raw)) == 2 * len(raw)
    assert head_end(b"") == head_end(b"\r\n") == head_end(b"\r\n\r") == -1


def test_upgrade_lines_are_cut_out() -> None:
    raw = head("Upgrade: h2c", "X-Upgrade: y", "UPGRADE:websocket", "A: Upgrade: b")
    assert without_upgrade(raw) == head("X-Upgrade: y", "A: Upgrade: b")


tokens = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
values = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=20).map(
    lambda text: text.encode("latin-1")
)
SPECIAL = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"}


@given(st.lists(st.tuples(tokens.filter(lambda name: name.lower() not in SPECIAL), values), max_size=20))
def test_every_grammatical_head_is_accepted(fields: list[tuple[str, bytes]]) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(n.encode() + b":" + v + b"\r\n" for n, v in fields) + b"\r\n"
    assert check_head(raw, LIMITS).authority == "a"


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for raw in (data + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"):
        with contextlib.suppress(BadHead):
            check_head(raw[: head_end(raw)], LIMITS)
        with contextlib.suppress(BadHead):
            check_partial(data, LIMITS)


@given(st.integers(0, 120), st.sampled_from([b"\n", b"\r", b"\0", b"\x0b", b"\x7f"]))
def test_a_control_character_anywhere_is_never_accepted(at: int, control: bytes) -> None:
    raw = head("Content-Length: 5", "Accept: text/html", "Connection: keep-alive")
    at %= len(raw) - 4
    spoiled = raw[:at] + control + raw[at:]
    if spoiled.startswith(b"\r\n"):
        return
    refusal(spoiled)
