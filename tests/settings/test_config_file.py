"""``config/fileproxy.yaml`` shows every option with its default, changes nothing, and its JSON Schema is up to date.

Its lines are read as its own head explains them: ``#option: value`` is a default, ``##option: value`` what a group that
is off by default starts from when it is on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fileproxy.settings import Settings
from fileproxy.settings.load import load, schema
from fileproxy.settings.options import Option, dotted, leaves, options
from fileproxy.settings.show import flat

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "config" / "fileproxy.yaml"
SCHEMA = ROOT / "config" / "fileproxy.schema.json"
LINE = re.compile(r"^( *)(#{0,2})((?:- )?(\w+):(?: .*)?)$")


def shown(text: str, *, groups_on: bool) -> str:
    """The text with its options in force; the line of each is kept. ``groups_on``: with ``##`` instead of ``off``."""
    lines = text.splitlines()
    on = {(match[1], match[4]) for line in lines if (match := LINE.match(line)) and match[2] == "##"}
    for number, line in enumerate(lines):
        match = LINE.match(line)
        if match is None or (match[2] == "##" and not groups_on):
            continue
        off_instead = match[2] == "#" and match[3].endswith(": off") and (match[1], match[4]) in on
        lines[number] = "" if groups_on and off_instead else match[1] + match[3]
    return "\n".join(lines)


def read(text: str, folder: Path) -> tuple[Settings, dict[str, str]]:
    file = folder / "shown.yaml"
    file.write_text(text)
    loaded = load(file)
    return loaded.settings, {key: source.removeprefix(f"{file}:") for key, source in loaded.sources.items()}


def defaults(like: Settings) -> Settings:
    """The defaults, with an upstream and route of no more than what must be given, as ``like`` gives it."""
    values: dict[str, Any] = {"upstreams": {}, "routes": []}
    for name, upstream in like.upstreams.items():
        values["upstreams"][name] = {"servers": [{"url": one.url} for one in upstream.servers]}
        if upstream.follow_redirects != "off":
            values["upstreams"][name]["follow_redirects"] = {}
        if upstream.health_check != "off":
            values["upstreams"][name]["health_check"] = {}
    for route in like.routes:
        values["routes"].append({"upstream": route.upstream})
        if route.cors != "off":
            values["routes"][-1]["cors"] = {"origins": route.cors.origins}
    return Settings.model_validate(values)


def key_of(option: Option) -> str:
    return option.key.replace("upstreams.*", "upstreams.files").replace("*", "0")


def missing(text: str, folder: Path) -> list[str]:
    """Options that the text does not show."""
    here: dict[str, str] = {}
    for groups_on in (False, True):
        _, sources = read(shown(text, groups_on=groups_on), folder)
        here |= {key: source for key, source in sources.items() if source != "default"}
    groups = {dotted(key.split(".")[:length]) for key in here for length in range(key.count(".") + 1)}
    return [
        one.key for one in leaves() if key_of(one) not in here and (one.default == "off" or key_of(one) not in groups)
    ]


def wrong(text: str, folder: Path) -> list[str]:
    """Options that the text shows with another value than the default."""
    found: dict[str, None] = {}
    for groups_on in (False, True):
        settings, _ = read(shown(text, groups_on=groups_on), folder)
        usual = flat(defaults(settings))
        for key, (_, value) in flat(settings).items():
            if key not in usual or usual[key][1] != value:
                found[f"{key}: {value} is shown, the default is {usual.get(key, [None, 'nothing'])[1]}"] = None
    return list(found)


def test_it_shows_every_option(tmp_path: Path) -> None:
    assert missing(FILE.read_text(), tmp_path) == []


def test_each_value_shown_is_the_default(tmp_path: Path) -> None:
    assert wrong(FILE.read_text(), tmp_path) == []


def test_a_line_less_is_noticed(tmp_path: Path) -> None:
    """The test above can fail: whichever line goes, something is missing."""
    lines = FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        match = LINE.match(line)
        if match is None or match[3].endswith(":") or "- " in match[3] or match[4] in ("upstream", "origins"):
            continue  # prose, the head of a group, or what a group cannot be without
        without = [*lines[:number], *lines[number + 1 :]]
        assert [key.rpartition(".")[2] for key in missing("\n".join(without), tmp_path)] == [match[4]], line


def test_another_value_is_noticed(tmp_path: Path) -> None:
    text = FILE.read_text()
    for old, new in (("#port: 10080", "#port: 8080"), ("##hops: 5", "##hops: 6"), ("#weight: 1", "#weight: 2")):
        assert old in text
        assert len(wrong(text.replace(old, new), tmp_path)) == 1


def test_as_it_stands_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    loaded = load()
    assert [str(one) for one in loaded.files] == ["config/fileproxy.yaml"]
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}


def test_every_option_has_a_comment_above() -> None:
    lines = FILE.read_text().splitlines()
    bare = []
    for number, line in enumerate(lines):
        match = LINE.match(line)
        if match is None or (match[3].endswith(":") and len(match[1]) < 4):
            continue
        above = next(one for one in reversed(lines[:number]) if one.strip())
        # The exceptions share a comment with the line before them.
        shares = match[4] in ("receive_buffer", "url", "cors", "follow_redirects", "health_check")
        if not above.strip().startswith("# ") and not shares:
            bare.append(line)
    assert bare == []


def test_the_schema_file_is_what_check_prints() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema())), (
        "run: fileproxy check --schema > config/fileproxy.schema.json"
    )
    first = FILE.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA.name}"


def test_the_schema_knows_every_option() -> None:
    """Walked from the root by ``$ref``: each option is a property there, and nothing else but secrets' files is."""
    root = json.loads(SCHEMA.read_text())

    def group(node: dict[str, Any]) -> dict[str, Any]:
        """The definition with properties that a field's schema leads to."""
        if "properties" in node:
            return node
        if "$ref" in node:
            return group(root["$defs"][node["$ref"].rpartition("/")[2]])
        for one in [*node.get("anyOf", []), *node.get("oneOf", [])]:
            if found := group(one):
                return found
        if isinstance(below := node.get("items") or node.get("additionalProperties"), dict):
            return group(below)
        patterns = list(node.get("patternProperties", {}).values())
        return group(patterns[0]) if patterns else {}

    def compare(option: Option, node: dict[str, Any]) -> None:
        if option.kind in ("list", "table"):
            assert option.item is not None
            if option.item.kind != "value":
                compare(option.item, node)
        elif option.kind == "row":
            properties = group(node)["properties"]
            secrets = {f"{name}_file" for name, one in option.fields.items() if one.secret and one.kind == "value"}
            assert set(properties) == {*option.fields, *secrets}
            for name, one in option.fields.items():
                assert properties[name].get("description", "").startswith(one.description)
                compare(one, properties[name])

    compare(options(), root)
