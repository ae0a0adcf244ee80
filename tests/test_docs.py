"""The documents are true where a machine can tell: links lead somewhere, commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fileproxy.cli.main import COMMANDS, load_command
from fileproxy.settings import Settings
from tests.service import ROOT

DOCUMENTS = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "benchmarks") for path in folder.glob("*.md"))
README = (ROOT / "README.md").read_text()
ROWS = re.findall(r"^\| `fileproxy (\w+)` \| (.*) \|$", README, re.MULTILINE)


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README that say they are of this language."""
    every = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for said, text in every if said == language]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    local = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "README.md", "benchmarks/README.md"])
def test_files_that_are_named_exist(name: str) -> None:
    """`server/front.py` in the text is a file of the package, `tests/…` and `benchmarks/…` of the repository."""
    text = (ROOT / name).read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|yaml|sh|svg|json)|(?:[a-z_]+/)+)`", text))
    homes = (ROOT, ROOT / "fileproxy", (ROOT / name).parent)
    made_by_running = {"files/"}
    assert sorted(one for one in named - made_by_running if not any((home / one).exists() for home in homes)) == []


def test_the_table_of_commands_is_the_command_line() -> None:
    assert {name for name, _ in ROWS} == set(COMMANDS)


@pytest.mark.parametrize(("name", "text"), ROWS, ids=[name for name, _ in ROWS])
def test_options_of_the_table_exist(name: str, text: str) -> None:
    assert set(re.findall(r"--[a-z-]+", text)) <= options(name)


def options(name: str) -> set[str]:
    return {
        option for parameter in load_command(name).params for option in (*parameter.opts, *parameter.secondary_opts)
    }


def test_options_of_the_examples_exist() -> None:
    typed = re.findall(r"fileproxy (\w+)((?: [^\s`|]+)*)", "\n".join(blocks("")))
    used = [(name, option) for name, rest in typed for option in re.findall(r"(?<= )--[a-z-]+", rest)]
    assert used
    assert [(name, option) for name, option in used if option not in options(name)] == []


def test_the_example_configuration_is_right() -> None:
    examples = blocks("yaml")
    assert examples
    for example in examples:
        Settings.model_validate(yaml.safe_load(example))


def test_the_table_of_the_race_is_the_last_result() -> None:
    results = (ROOT / "benchmarks/results/race.md").read_text()
    glance = results.partition("## At a glance")[2].partition("\n## ")[0]
    rows = [line for line in glance.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    assert "\n".join(rows) in README


def test_the_benchmark_table_is_the_last_result() -> None:
    """Its rows are those of benchmarks/results/relay.md."""
    results = (ROOT / "benchmarks/results/relay.md").read_text()
    quoted = re.findall(r"^\| (fileproxy / \S+) \| (.*) \|$", README, re.MULTILINE)
    assert quoted
    for name, figures in quoted:
        rows = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", results, re.MULTILINE)
        assert figures == " | ".join(rows)
