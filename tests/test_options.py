"""Every option has a test that fails when the option is ignored.

Such a test says so by ``@pytest.mark.option("limits.head_timeout")``: the dotted key, without the numbers of lists and
the names of upstreams. The markers are read from the source of all tests, so that a test that is not selected counts
too. What is claimed is not checked here; whoever writes the marker has seen the test fail without the option.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fileproxy.settings.options import leaves

TESTS = Path(__file__).resolve().parent


def short(key: str) -> str:
    """``upstreams.*.servers.*.url`` → ``upstreams.servers.url``."""
    return ".".join(step for step in key.split(".") if step != "*")


def markers(source: str) -> Iterator[tuple[int, str | None]]:
    """(line, key) of every ``pytest.mark.option(…)``; None where an argument is not plain text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.option"):
            for one in node.args:
                text = one.value if isinstance(one, ast.Constant) and isinstance(one.value, str) else None
                yield one.lineno, text


def claims() -> tuple[dict[str, list[str]], list[str]]:
    """Claimed key → where, and the markers that name nothing."""
    found: dict[str, list[str]] = defaultdict(list)
    wrong: list[str] = []
    known = {short(one.key) for one in leaves()}
    for path in sorted(TESTS.rglob("test_*.py")):
        for line, key in markers(path.read_text()):
            where = f"{path.relative_to(TESTS)}:{line}"
            if key is None or short(key) not in known:
                wrong.append(f"{where}: there is no option {key}" if key else f"{where}: must be plain text")
            else:
                found[short(key)].append(where)
    return found, wrong


def test_every_option_is_claimed_by_a_test() -> None:
    found, _ = claims()
    assert [key for one in leaves() if (key := short(one.key)) not in found] == []


def test_every_marker_names_an_option() -> None:
    assert claims()[1] == []


def test_markers_are_found_wherever_they_stand() -> None:
    source = """
import pytest
pytestmark = [pytest.mark.option("a.b")]
class Tests:
    @pytest.mark.option("c.*.d", "e")
    @pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.option("f"))])
    async def test(self, x): ...
    @pytest.mark.option(NAME)
    def test_2(self): ...
"""
    assert sorted(markers(source), key=str) == [(3, "a.b"), (5, "c.*.d"), (5, "e"), (6, "f"), (8, None)]
