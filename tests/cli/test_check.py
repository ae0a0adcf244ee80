"""``fileproxy check``: the effective configuration as YAML, or every problem on a line of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fileproxy.cli.main import app
from fileproxy.settings import Settings
from fileproxy.settings.document import read_document
from fileproxy.settings.load import effective, schema


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, ["check", *arguments], env=env)


def test_without_a_file_it_prints_the_defaults() -> None:
    result = check()
    assert (result.exit_code, result.stderr) == (0, "")
    assert Settings.model_validate(read_document(result.stdout).value) == Settings()


FULL = """\
upstreams:
  files:
    servers: [{url: "http://a", weight: 2}, "http://b"]
    headers: {Authorization: "Bearer geheim", "X: #y": "- a"}
    follow_redirects: {hosts: [cdn.example]}
routes:
  - {path: /a/, upstream: files, cors: {origins: ["*"]}}
  - {upstream: files, methods: [GET, PUT]}
redis: {url: "redis://:geheim@store"}
server: {drain_timeout: 5m, sockets: {keepalive: off}}
"""


def test_what_it_prints_is_the_effective_configuration() -> None:
    Path("c.yaml").write_text(FULL.replace('"X: #y": "- a"', '"X": "- a: #b"'))
    result = check("--config", "c.yaml", "--set", "server.port=8080", env={"FILEPROXY_LOGS__LEVEL": "debug"})
    assert result.exit_code == 0
    printed = read_document(result.stdout).value
    assert "geheim" not in result.stdout
    assert isinstance(printed, dict)
    again = Settings.model_validate({**printed, "redis": {"url": "redis://:x@store"}})
    assert (again.server.port, again.logs.level, again.server.drain_timeout) == (8080, "debug", 300.0)
    assert [one.methods for one in again.routes] == [["GET", "HEAD"], ["GET", "PUT"]]
    assert again.upstreams["files"].headers == {"Authorization": "***", "X": "***"}
    assert effective(again)["upstreams"] == printed["upstreams"]


def test_sources_stand_beside_each_value() -> None:
    Path("c.yaml").write_text("server:\n  name: a\n")
    lines = check("--config", "c.yaml", "--sources", "--set", "server.port=1").stdout.splitlines()
    assert "  name: a  # c.yaml:2" in lines
    assert "  port: 1  # --set server.port" in lines
    assert "  backlog: 2048  # default" in lines
    assert all("# " in line for line in lines if not line.endswith(":"))


def test_problems_are_lines_on_stderr_and_the_code_is_2() -> None:
    Path("c.yaml").write_text("server:\n  prot: 1\n  workers: many\n")
    result = check("--config", "c.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "c.yaml:2: server.prot: unknown option; did you mean server.port?",
        "c.yaml:3: server.workers: 'many' is not a whole number from 1 to 256, or auto",
    ]


def test_what_is_not_there_on_this_machine_is_a_problem_too() -> None:
    result = check("--set", "upstreams.files=file:///nowhere/at/all")
    assert result.exit_code == 2
    assert result.stderr == "--set upstreams.files: upstreams.files.servers.0.url: there is no folder /nowhere/at/all\n"
    assert "file:///nowhere/at/all" in result.stdout  # what it comes to is still said


def test_a_missing_file() -> None:
    result = check("--config", "gone.yaml")
    assert (result.exit_code, result.stderr) == (2, "gone.yaml: cannot be read: No such file or directory\n")


def test_the_file_of_the_environment() -> None:
    Path("c.yaml").write_text("server: {name: from-env}")
    assert "name: from-env" in check(env={"FILEPROXY_CONFIG": "c.yaml"}).stdout


def test_schema() -> None:
    result = check("--schema", "--config", "gone.yaml")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(json.dumps(schema()))
    assert result.stdout.endswith("}\n")
