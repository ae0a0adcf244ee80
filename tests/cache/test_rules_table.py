"""docs/caching-rules.md keeps its promise: every MUST and SHOULD has a test, and every test it names exists."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "caching-rules.md"
LEVELS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"}
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


@dataclass(frozen=True)
class Row:
    line: int
    section: str
    level: str
    requirement: str
    here: str
    tests: tuple[tuple[str, str], ...]

    @property
    def bound(self) -> bool:
        """Whether it needs a proof."""
        return self.level.startswith(("MUST", "SHOULD"))


def rows(text: str) -> list[Row]:
    """The rows of all tables with a level. AssertionError for a row that cannot be read."""
    found: list[Row] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[:2] == ["§", "level"]:
            inside = True
        elif inside and set(line) - set("|- "):
            assert len(cells) == 5, f"line {number}: {len(cells)} cells"
            assert cells[1] in LEVELS, f"line {number}: level {cells[1]!r}"
            tests = tuple((match[1], match[2]) for match in TEST.finditer(cells[4]))
            assert cells[4].count("`") == 2 * len(tests), f"line {number}: not only names of tests"
            found.append(Row(number, cells[0], cells[1], cells[2], cells[3], tests))
    return found


@functools.cache
def functions(path: str) -> frozenset[str]:
    """The top-level functions of a test file; none when there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def complaints(table: list[Row]) -> list[str]:
    """What is wrong with it."""
    wrong = [
        f"line {row.line}: {row.level} without a test: {row.requirement}"
        for row in table
        if row.bound and not row.tests
    ]
    wrong += [
        f"line {row.line}: {path}::{name} does not exist"
        for row in table
        for path, name in row.tests
        if name not in functions(path)
    ]
    return wrong


def test_every_must_and_should_has_a_test_that_exists() -> None:
    assert complaints(rows(TABLE.read_text(encoding="utf-8"))) == []


def test_tests_named_outside_the_tables_exist_too() -> None:
    named = TEST.findall(TABLE.read_text(encoding="utf-8"))
    assert [f"{path}::{name}" for path, name in named if name not in functions(path)] == []


def test_no_requirement_stands_there_twice_or_says_nothing() -> None:
    table = rows(TABLE.read_text(encoding="utf-8"))
    assert all(row.section and row.requirement and row.here for row in table)
    keys = [(row.section, row.level, row.requirement) for row in table]
    assert len(keys) == len(set(keys))
    assert len(table) > 100


SECTIONS = "3 3.1 3.2 3.3 3.4 4 4.1 4.2 4.2.1 4.2.2 4.2.3 4.2.4 4.3.1 4.3.2 4.3.3 4.3.4 4.3.5 4.4 5.1 5.2 5.3 5.4"


@pytest.mark.parametrize("section", SECTIONS.split())
def test_no_section_of_rfc_9111_is_missing(section: str) -> None:
    assert any(f"§{section}" in re.split(r"[,\s]+", row.section) for row in rows(TABLE.read_text(encoding="utf-8")))


HEAD = "| § | level | requirement | here | tests |\n|---|---|---|---|---|\n"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("| §1 | MUST | a | b |  |", "without a test"),
        ("| §1 | SHOULD NOT | a | b |  |", "without a test"),
        ("| §1 | MAY | a | b | `tests/cache/test_rules_table.py::test_nothing` |", "does not exist"),
        ("| §1 | MUST | a | b | `tests/cache/test_no_file.py::test_a` |", "does not exist"),
    ],
)
def test_the_check_itself_finds_what_is_missing(row: str, complaint: str) -> None:
    assert [complaint in line for line in complaints(rows(HEAD + row))] == [True]


@pytest.mark.parametrize("row", ["| §1 | OUGHT | a | b | |", "| §1 | MUST | a |", "| §1 | MUST | a | b | `tests/x` |"])
def test_rows_that_cannot_be_read_are_errors(row: str) -> None:
    with pytest.raises(AssertionError):
        rows(HEAD + row)
