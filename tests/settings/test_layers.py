"""Which layer wins, where each value comes from, and how keys are found.

Flags > ``--set`` > environment > file > defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fileproxy.errors import ConfigurationError
from fileproxy.settings.load import Loaded, load
from fileproxy.settings.show import effective, flat


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that names in errors are short and no file of the checkout is found."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def laid(text: str = "", env: dict[str, str] | None = None, sets: tuple[str, ...] = (), **flags: object) -> Loaded:
    Path("c.yaml").write_text(text)
    return load(Path("c.yaml"), env, sets, {key.replace("__", "."): value for key, value in flags.items()})


def refused(
    text: str = "", env: dict[str, str] | None = None, sets: tuple[str, ...] = (), **flags: object
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        laid(text, env, sets, **flags)
    return list(caught.value.problems)


def value(loaded: Loaded, key: str) -> tuple[Any, str]:
    """Value and source of a dotted key."""
    return flat(loaded.settings)[key][1], loaded.sources[key]


FILE = "server:\n  port: 1\n"
ENV = {"FILEPROXY_SERVER__PORT": "2"}
SET = ("server.port=3",)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({}, (10080, "default")),
        ({"text": FILE}, (1, "c.yaml:2")),
        ({"text": FILE, "env": ENV}, (2, "environment FILEPROXY_SERVER__PORT")),
        ({"text": FILE, "env": ENV, "sets": SET}, (3, "--set server.port")),
        ({"text": FILE, "env": ENV, "sets": SET, "server__port": 4}, (4, "--port")),
        ({"text": FILE, "server__port": None}, (1, "c.yaml:2")),
        ({"env": ENV}, (2, "environment FILEPROXY_SERVER__PORT")),
        ({"sets": ("server.port=5", "server.port=6")}, (6, "--set server.port")),
        ({"text": FILE, "env": {"FILEPROXY_SERVER__PORT": " "}}, (1, "c.yaml:2")),
    ],
)
def test_the_higher_layer_wins(folder: Path, layers: dict[str, Any], expected: tuple[int, str]) -> None:
    assert value(laid(**layers), "server.port") == expected


def test_groups_merge_and_lists_are_replaced(folder: Path) -> None:
    text = "upstreams:\n  files:\n    servers: [http://a, http://b]\n    timeouts: {idle: 1s, connect: 2s}\n"
    loaded = laid(text, sets=("upstreams.files.timeouts.idle=4s", "upstreams.files.servers=http://c"))
    upstream = loaded.settings.upstreams["files"]
    assert (upstream.timeouts.idle, upstream.timeouts.connect) == (4.0, 2.0)
    assert [one.url for one in upstream.servers] == ["http://c"]
    assert value(loaded, "upstreams.files.timeouts.connect")[1] == "c.yaml:4"


def test_the_flag_upstream_is_the_list_of_servers(folder: Path) -> None:
    loaded = laid("upstreams: {files: http://old}", upstreams__files__servers=["http://a", "http://b"])
    assert [one.url for one in loaded.settings.upstreams["files"].servers] == ["http://a", "http://b"]
    assert loaded.sources["upstreams.files.servers.1.url"] == "--upstream"


# --- lists by number --------------------------------------------------------------------------------------------------

ROUTES = "upstreams: {files: http://a}\nroutes:\n  - {path: /a/, upstream: files}\n  - {path: /b/, upstream: files}\n"


def test_an_item_of_a_list_by_its_number(folder: Path) -> None:
    loaded = laid(ROUTES, env={"FILEPROXY_ROUTES__1__STRIP_PREFIX": "on"}, sets=("routes.0.methods=GET,POST",))
    first, second = loaded.settings.routes
    assert (first.path, first.methods, first.strip_prefix) == ("/a/", ["GET", "POST"], False)
    assert (second.path, second.strip_prefix) == ("/b/", True)


def test_the_next_number_appends(folder: Path) -> None:
    loaded = laid(ROUTES, sets=("routes.2.path=/c/", "routes.2.upstream=files"))
    assert [one.path for one in loaded.settings.routes] == ["/a/", "/b/", "/c/"]


def test_numbers_of_the_environment_are_in_order(folder: Path) -> None:
    env = {f"FILEPROXY_ROUTES__{number}__PATH": f"/{number}/" for number in range(11, -1, -1)}
    env |= {f"FILEPROXY_ROUTES__{number}__UPSTREAM": "files" for number in range(12)}
    assert [one.path for one in laid(env=env).settings.routes] == [f"/{number}/" for number in range(12)]


def test_an_item_of_a_default_list(folder: Path) -> None:
    loaded = laid(sets=("server.operators.0=192.0.2.0/24",))
    assert loaded.settings.server.operators == [
        "192.0.2.0/24",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
    ]
    assert loaded.sources["server.operators"] == "--set server.operators.0"
    assert laid().settings.server.operators[0] == "127.0.0.0/8"  # the default itself is untouched


def test_a_gap_is_refused(folder: Path) -> None:
    assert refused(ROUTES, sets=("routes.3.path=/d/",)) == [
        "--set routes.3.path: the list has 2 items; the next is number 2"
    ]
    assert "is named by its number, from 0" in refused(ROUTES, sets=("routes.first.path=/d/",))[0]


def test_lists_between_commas_or_as_yaml(folder: Path) -> None:
    assert laid(sets=("server.operators=10.0.0.0/8, ::1",)).settings.server.operators == ["10.0.0.0/8", "::1/128"]
    assert laid(sets=('server.operators=["10.0.0.0/8"]',)).settings.server.operators == ["10.0.0.0/8"]


# --- the environment --------------------------------------------------------------------------------------------------


def test_names_of_upstreams_match_without_case(folder: Path) -> None:
    text = "upstreams: {My-Files: http://a}"
    loaded = laid(text, env={"FILEPROXY_UPSTREAMS__MY_FILES__BALANCE": "round_robin"})
    assert list(loaded.settings.upstreams) == ["My-Files"]
    assert loaded.settings.upstreams["My-Files"].balance == "round_robin"


def test_an_upstream_from_the_environment_alone(folder: Path) -> None:
    loaded = laid(env={"FILEPROXY_UPSTREAMS__FILES": "http://a", "FILEPROXY_UPSTREAMS__FILES__HEADERS__X_A": "5"})
    assert loaded.settings.upstreams["files"].headers == {"x-a": "5"}
    assert loaded.settings.upstreams["files"].servers[0].url == "http://a"


def test_two_variables_for_the_same_option(folder: Path) -> None:
    env = {"FILEPROXY_SERVER__PORT": "1", "FILEPROXY_server__port": "2"}
    assert "is also given by" in refused(env=env)[0]


def test_unknown_variables_are_errors_with_the_nearest_key(folder: Path) -> None:
    assert refused(env={"FILEPROXY_SERVER__PROT": "1"}) == [
        "environment FILEPROXY_SERVER__PROT: server.prot: unknown option; did you mean server.port?"
    ]
    assert refused(env={"FILEPROXY_PORT": "1"}) == [
        "environment FILEPROXY_PORT: port: unknown option; did you mean server.port?"
    ]


def test_other_variables_are_not_ours(folder: Path) -> None:
    assert effective(
        laid(env={"PORT": "1", "FILEPROX_SERVER__PORT": "2", "FILEPROXY_CONFIG": "x"}).settings
    ) == effective(laid().settings)


# --- secrets from files -----------------------------------------------------------------------------------------------


def test_a_secret_from_a_file_in_every_layer(folder: Path) -> None:
    Path("token").write_text("redis://:geheim@a\n")
    for loaded, source in (
        (laid("redis: {url_file: token}"), "token (named by c.yaml:1)"),
        (laid(env={"FILEPROXY_REDIS__URL_FILE": "token"}), "token (named by environment FILEPROXY_REDIS__URL_FILE)"),
        (laid(sets=("redis.url_file=token",)), "token (named by --set redis.url_file)"),
    ):
        assert value(loaded, "redis.url") == ("redis://:geheim@a", source)
        assert [str(one) for one in loaded.files] == ["c.yaml", "token"]


def test_a_header_from_a_file(folder: Path) -> None:
    Path("token").write_text("Bearer geheim\r\n")
    loaded = laid("upstreams:\n  files:\n    servers: [http://a]\n    headers: {Authorization_file: token}\n")
    assert loaded.settings.upstreams["files"].headers == {"Authorization": "Bearer geheim"}


def test_any_option_from_a_file_in_the_environment(folder: Path) -> None:
    Path("port").write_text("8080\n")
    assert laid(env={"FILEPROXY_SERVER__PORT_FILE": "port"}).settings.server.port == 8080


def test_a_file_named_and_a_value_given(folder: Path) -> None:
    assert refused("redis: {url: 'off', url_file: x}") == ["c.yaml:1: redis.url_file: give url or url_file, not both"]


def test_a_named_file_that_is_not_there(folder: Path) -> None:
    assert refused("redis:\n  url_file: nowhere") == [
        "c.yaml:2: redis.url_file: cannot read nowhere: No such file or directory"
    ]
    Path("raw").write_bytes(b"\xff")
    assert refused("redis:\n  url_file: raw") == ["c.yaml:2: redis.url_file: cannot read raw: not UTF-8"]
    assert "the name of a file is expected" in refused("redis:\n  url_file: 5")[0]


def test_what_is_no_secret_has_no_file_in_a_file(folder: Path) -> None:
    assert refused("server:\n  port_file: x") == [
        "c.yaml:2: server.port_file: unknown option; did you mean server.port?"
    ]


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server:\n  prot: 1", "c.yaml:2: server.prot: unknown option; did you mean server.port?"),
        (
            "\nserver:\n  timeouts: {}",
            "c.yaml:3: server.timeouts: unknown option; did you mean upstreams.NAME.timeouts?",
        ),
        ("prot: 1", "c.yaml:1: prot: unknown option; did you mean server.port?"),
        (
            "upstreams:\n  a:\n    servers: http://a\n    timeout: {idle: 1s}",
            "c.yaml:4: upstreams.a.timeout: unknown option; did you mean upstreams.a.timeouts?",
        ),
        (
            "routes:\n  - strip_prefx: on",
            "c.yaml:2: routes.0.strip_prefx: unknown option; did you mean routes.0.strip_prefix?",
        ),
        ("xyzzy: 1", "c.yaml:1: xyzzy: unknown option"),
        ("server:\n  port:\n    http: 1", "c.yaml:2: server.port: a group is not a whole number from 0 to 65535"),
        ("server: 5", "c.yaml:1: server: 5 is not a group of options"),
        ("upstreams: [http://a]", "c.yaml:1: upstreams: a list is not a group of names with their values"),
        ("- a", "c.yaml:1: must hold options (`server:` …), not a bare value or list"),
        ("server: {port: 1", "c.yaml:1: not valid YAML: "),
        ("server: {port: 1}\nserver: {port: 2}", "c.yaml:2: server: given twice; the first is on line 1"),
        ("upstreams: {a b: http://a}", "c.yaml:1: upstreams.a b: the name must be 1 to 64 letters, digits, _ or -"),
        ("upstreams:\n  a: {}", "c.yaml:2: upstreams.a.servers: is missing"),
        (
            "upstreams: {a: http://a}\nroutes:\n  - {path: /}",
            "c.yaml:3: routes.0.upstream: there is no upstream 'files'; known: a",
        ),
        (
            "upstreams: {a: http://a}\nroutes:\n  - upstream: b",
            "c.yaml:3: routes.0.upstream: there is no upstream 'b'; known: a",
        ),
        (
            "upstreams: {a: http://a, b: http://b}",
            "routes: several upstreams, none named files: routes must say which serves what",
        ),
        (
            "upstreams: {a: http://a}\nroutes:\n  - upstream: a\n  - upstream: a",
            "c.yaml:4: routes.1: routes.0 already serves path /",
        ),
    ],
)
def test_errors_name_file_line_and_the_nearest_key(folder: Path, text: str, problem: str) -> None:
    found = refused(text)
    assert any(one.startswith(problem) for one in found), found


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("server.prot=1", "--set server.prot: unknown option; did you mean server.port?"),
        ("server.port.x=1", "--set server.port.x: unknown option; server.port is a single value"),
        ("server.port", "--set server.port: must be KEY=VALUE, for example --set server.port=8080"),
        ("=1", "--set : must be KEY=VALUE, for example --set server.port=8080"),
        ("server.port=x", "--set server.port: server.port: 'x' is not a whole number from 0 to 65535"),
        (
            "upstreams.files.timeouts.idel=1s",
            "--set upstreams.files.timeouts.idel: unknown option; did you mean upstreams.files.timeouts.idle?",
        ),
    ],
)
def test_errors_of_set(folder: Path, setting: str, problem: str) -> None:
    assert refused(sets=(setting,)) == [problem]


def test_all_problems_are_said_at_once(folder: Path) -> None:
    text = (
        "server:\n  prot: 1\n  workers: many\nlimits:\n  head: 1\nupstreams: {a: http://a}\nroutes: [{upstream: b}]\n"
    )
    found = refused(text, env={"FILEPROXY_LOGS__LEVEL": "loud"}, sets=("redis.pool=0",))
    places = [one.split(": ")[:2] for one in found]
    assert places == [
        ["c.yaml:2", "server.prot"],
        ["c.yaml:3", "server.workers"],
        ["c.yaml:5", "limits.head"],
        ["--set redis.pool", "redis.pool"],
        ["environment FILEPROXY_LOGS__LEVEL", "logs.level"],
        ["c.yaml:7", "routes.0.upstream"],
    ]


def test_a_misspelt_key_that_must_be_given_is_one_problem(folder: Path) -> None:
    assert len(refused("upstreams:\n  a:\n    server: [http://a]")) == 1
