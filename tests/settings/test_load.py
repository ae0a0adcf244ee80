"""Which file is read, what load() gives back, and that no error shows what it should not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fileproxy.errors import ConfigurationError
from fileproxy.settings import Settings
from fileproxy.settings.load import load
from fileproxy.settings.show import flat


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_the_defaults_hold() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert loaded.files == ()
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.sources.keys() == flat(loaded.settings).keys()


def test_the_file_is_config_then_environment_then_the_usual_place() -> None:
    Path("config").mkdir()
    for number, name in enumerate(("config/fileproxy.yaml", "env.yaml", "flag.yaml"), 1):
        Path(name).write_text(f"server: {{port: {number}}}")
    env = {"FILEPROXY_CONFIG": "env.yaml"}
    assert load().settings.server.port == 1
    assert load(env=env).settings.server.port == 2
    assert load(Path("flag.yaml"), env).settings.server.port == 3
    assert load(Path("flag.yaml"), env).files == (Path("flag.yaml"),)


def test_a_file_that_was_asked_for_must_be_there() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(Path("nowhere.yaml"))
    assert caught.value.problems == ["nowhere.yaml: cannot be read: No such file or directory"]
    with pytest.raises(ConfigurationError, match=r"nowhere.yaml"):
        load(env={"FILEPROXY_CONFIG": "nowhere.yaml"})


def test_a_file_that_is_not_utf8() -> None:
    Path("c.yaml").write_bytes(b"server: {name: \xff}")
    with pytest.raises(ConfigurationError) as caught:
        load(Path("c.yaml"))
    assert caught.value.problems == ["c.yaml: is not UTF-8 (byte 15)"]


def test_an_empty_file_and_empty_groups_change_nothing() -> None:
    for text in (
        "",
        "# nothing\n",
        "server:\nlimits:\nupstreams:\nroutes:\nredis:\nlogs:\n",
        "server:\n  sockets:\n    keepalive:\n",
    ):
        Path("c.yaml").write_text(text)
        assert load(Path("c.yaml")).settings == Settings()


def test_no_error_shows_a_secret() -> None:
    Path("c.yaml").write_text(
        'upstreams:\n  files:\n    servers: [http://a]\n    headers: {Authorization: [geheim], X: "geheim\\nx"}\n'
        "redis: {url: 'http://:geheim@a', secret: [geheim]}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load(Path("c.yaml"))
    assert len(caught.value.problems) == 4
    assert "geheim" not in "\n".join(caught.value.problems)


def test_a_long_wrong_value_is_repeated_in_part() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(sets=["server.workers=" + "x" * 5000])
    assert len(caught.value.problems[0]) < 200


def test_the_environment_given_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FILEPROXY_SERVER__PORT", "1")
    assert load(env={}).settings.server.port == 10080


def test_a_contradiction_is_found_beside_other_mistakes() -> None:
    Path("c.yaml").write_text("server: {port: x}\nupstreams: {a: http://a}\nroutes: [{upstream: b}]\n")
    with pytest.raises(ConfigurationError) as caught:
        load(Path("c.yaml"))
    assert len(caught.value.problems) == 2
