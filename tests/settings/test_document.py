"""YAML 1.2's core rules, lines, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.settings.document import BadDocument, read_document, read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("10:80", "10:80"),
        ("010", 10),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("+5", 5),
        ("-5", -5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("2026-11-22", "2026-11-22"),
        ("'5'", "5"),
        ("64KiB", "64KiB"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("=", "="),
        ("::1", "::1"),
        ("[a, 1]", ["a", 1]),
        ("{a: 1}", {"a": 1}),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
    ],
)
def test_scalars(text: str, value: object) -> None:
    read = read_value(text)
    assert (read, type(read)) == (value, type(value))


def test_lines_of_everything() -> None:
    document = read_document("# comment\na:\n  b: 1\n  c:\n    - x\n    - y: 2\n\nd: |\n  text\n")
    assert document.value == {"a": {"b": 1, "c": ["x", {"y": 2}]}, "d": "text\n"}
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "y"): 6,
        ("d",): 8,
    }
    assert document.problems == []


def test_aliases_are_what_they_name() -> None:
    document = read_document("a: &x {b: 1}\nc: *x\n")
    assert document.value == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.lines["c",] == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", (3, ("a",), "given twice; the first is on line 1")),
        (
            "a: !!python/object:os.system x",
            (1, ("a",), "the tag tag:yaml.org,2002:python/object:os.system is not supported"),
        ),
        ("a: !mine x", (1, ("a",), "the tag !mine is not supported")),
        ("a: !!set {x}", (1, ("a",), "the tag tag:yaml.org,2002:set is not supported")),
        ("a: !!int abc", (1, ("a",), "the value does not fit its tag")),
        ("\n? [a]\n: 1", (2, (), "a key must be plain text")),
        ("a: &x\n  b: *x", (2, ("a", "b"), "an alias cannot stand inside what it names")),
    ],
)
def test_problems_name_line_and_place(text: str, problem: tuple[int, tuple[str, ...], str]) -> None:
    assert read_document(text).problems == [problem]


def test_merge_keys_are_plain_text() -> None:
    """1.1's `<<` merges silently; 1.2 knows none, so it is a key, which no option is called."""
    assert read_document("a: &x {b: 1}\nc:\n  <<: *x\n").value == {"a": {"b": 1}, "c": {"<<": {"b": 1}}}


def test_one_number_too_long_to_read() -> None:
    assert read_document("a: " + "1" * 5000).problems == [(1, ("a",), "the value does not fit its tag")]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [1", 1), ("a: 1\n\tb: 2", 2), ("a: 1\n b: 2", 2), ("a: *nobody", 1), ("a\n---\nb", 2), ("ok: 1\nx: \x00", 2)],
)
def test_what_is_no_yaml(text: str, line: int) -> None:
    with pytest.raises(BadDocument) as caught:
        read_document(text)
    assert caught.value.line == line
    assert caught.value.sentence


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    with pytest.raises(BadDocument, match="nested too deeply"):
        read_document("[" * 5000 + "]" * 5000)


@pytest.mark.parametrize("text", ["[a", "*x", "a: b: c", "!mine x", "{a: 1, a: 2}"])
def test_on_a_command_line_what_is_no_yaml_is_text(text: str) -> None:
    assert read_value(text) == text


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = read_document(text)
    except BadDocument as bad:
        lines = [bad.line]
    else:
        lines = list(document.lines.values())
    assert all(1 <= line <= sum(map(text.count, "\n\r\x85\u2028\u2029")) + 2 for line in lines)
