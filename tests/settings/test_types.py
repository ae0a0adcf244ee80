"""What single options accept, and how what they do not accept is called by its name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fileproxy.errors import ConfigurationError
from fileproxy.settings import Settings
from fileproxy.settings.load import load
from fileproxy.settings.options import options
from fileproxy.settings.show import flat

FILES = "upstreams.files.servers=http://a"


def value(*sets: str) -> Any:
    """What the option of the last ``KEY=VALUE`` comes to."""
    key = sets[-1].partition("=")[0]
    return flat(load(sets=[FILES, *sets]).settings)[key][1]


def refused(*sets: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(sets=[FILES, *sets])
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "on"), [("on", True), ("Yes", True), ("true", True), ("off", False), ("no", False), ("FALSE", False)]
)
def test_switches(text: str, on: bool) -> None:
    assert value(f"server.short_names={text}") is on


@pytest.mark.parametrize("text", ["1", "0", "maybe", "null", "[]"])
def test_no_switches(text: str) -> None:
    assert "is not on or off" in refused(f"server.short_names={text}")


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.1.2.3", ["10.1.2.3/32"]),
        ("::1,10.1.2.3/8", ["::1/128", "10.0.0.0/8"]),
        ("", []),
    ],
)
def test_networks(text: str, networks: list[str]) -> None:
    assert value(f"server.operators={text}") == networks


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("server.operators=everybody", "'everybody' is not an IP address or network like 10.0.0.0/8"),
        ("server.port=65536", "65536 is not a whole number from 0 to 65535"),
        ("server.port=8.0", "8.0 is not a whole number from 0 to 65535"),
        ("server.port=null", "nothing (null) is not a whole number"),
        ("server.port=eighty", "'eighty' is not a whole number"),
        ("server.workers=0", "0 is not a whole number from 1 to 256, or auto"),
        ("server.workers=all", "'all' is not a whole number from 1 to 256, or auto"),
        ("server.uvloop=on", "is not auto, or off"),
        ("server.name=two words", "'two words' is not 1 to 64 letters, digits, ., _ or -"),
        ("server.host=http://x", "is not a host name or an IP address"),
        ("server.drain_timeout=soon", "a time"),
        ("server.sockets.keepalive=maybe", "is not a group of options (idle, interval, count), or off"),
        ("server.sockets.keepalive.idle=1.5s", "a time of whole seconds like 60s from 1s to 32767s"),
        ("server.sockets.send_buffer=1", "1 is not a size like 64KiB from 1KiB to 1GiB, or auto"),
        ("server.sockets.congestion=BBR!", "is not a kernel's name like bbr, or auto"),
        ("limits.head=1", "1 is not a size like 64KiB from 128 to 256KiB"),
        ("limits.head_timeout=0", "0 is not a time like 90s, more than 0s"),
        ("limits.connections=0", "0 is not a whole number, at least 1, or auto"),
        ("limits.loop_lag=never", "is not a time like 90s, more than 0s, or off"),
        ("logs.level=loud", "'loud' is not one of debug, info, warning, error, critical"),
        ("profile=fast", "'fast' is not one of optimized, baseline"),
        ("upstreams.files.balance=fair", "'fair' is not one of round_robin, weighted_round_robin"),
        ("upstreams.files.servers=ftp://a", "'ftp://a' must start with http://, https:// or file:///"),
        ("upstreams.files.servers=http://", "names no host that can be asked"),
        ("upstreams.files.servers=http://a:0", "names no host that can be asked"),
        ("upstreams.files.servers=http://a:x", "the host or port of the URL is not valid"),
        ("upstreams.files.servers=http://a/?b", "must not carry a query or fragment"),
        ("upstreams.files.servers=http://a/ä", "must be plain ASCII; write other characters as %XX"),
        ("upstreams.files.servers=file://srv/files", "must be an absolute folder: file:///srv/files"),
        ("upstreams.files.servers=", "must not be empty"),
        ("upstreams.files.retry.statuses=200", "200 is not a whole number from 400 to 599"),
        ("upstreams.files.retry.budget=2", "is not a number from 0 to 1"),
        ("upstreams.files.headers.Host=a", "host is set by FileProxy itself; use `host`"),
        ("upstreams.files.headers.Range=bytes=0-", "range is set by FileProxy itself"),
        ("upstreams.files.tls.ca=", "is not text that is not empty"),
        ("upstreams.files.host=a b", "is not upstream, preserve or a host name, with :port where needed"),
        ("routes.0.path=/a", "'/a' must begin and end with a /"),
        ("routes.0.path=/-/", "/-/ is reserved for FileProxy itself"),
        ("routes.0.path=/%41/", "must be plain ASCII without %"),
        ("routes.0.path=/../", "must not hold dot segments"),
        ("routes.0.methods=TRACE", "'TRACE' is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        ("routes.0.methods=", "must not be empty"),
        ("routes.0.hosts=a:80", "'a:80' is not a host name without port, or *.example.org"),
        ("routes.0.cors.origins=example.org", "is not a web origin like https://example.org, or *"),
        ("redis.url=http://a", "must be embedded, off, or start with redis://, rediss:// or unix://"),
        ("redis.url=redis://", "the URL must name a host, or with unix:// the path of a socket"),
        ("redis.url=unix://", "the URL must name a host, or with unix:// the path of a socket"),
        ("redis.pool=0", "0 is not a whole number, at least 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(setting: str, sentence: str) -> None:
    more = ["routes.0.upstream=files"] if setting.startswith("routes") else []
    assert sentence in refused(*more, setting)


@pytest.mark.parametrize(
    ("setting", "comes_to"),
    [
        ("server.workers=auto", "auto"),
        ("server.workers=3", 3),
        ("server.host=::", "::"),
        ("server.drain_timeout=null", None),
        ("server.drain_timeout=5m", "300s"),
        ("server.sockets.keepalive=off", "off"),
        ("limits.connections_per_client=off", "off"),
        ("limits.connections_per_client=8", 8),
        ("upstreams.files.tls.ca=null", None),
        ("upstreams.files.tls.ca=123", "123"),
        ("upstreams.files.host=a:80", "a:80"),
        ("upstreams.files.follow_redirects.hosts=A.example", ["a.example"]),
        ("redis.url=unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis.url=off", "off"),
    ],
)
def test_what_is_right_is_taken(setting: str, comes_to: object) -> None:
    assert value(setting) == comes_to


@pytest.mark.parametrize(
    ("url", "comes_to"),
    [
        ("http://a/", "http://a"),
        ("http://a/b/", "http://a/b/"),
        ("HTTP://A:8080", "http://A:8080"),
        ("file:/srv", "file:///srv"),
    ],
)
def test_urls_are_tidied(url: str, comes_to: str) -> None:
    assert load(sets=[f"upstreams.files.servers={url}"]).settings.upstreams["files"].servers[0].url == comes_to


def test_a_password_in_an_upstreams_url_is_refused_and_not_repeated() -> None:
    said = refused("upstreams.files.servers=http://me:geheim@a")
    assert "must not carry a password; use upstreams.NAME.headers" in said
    assert "geheim" not in said


def test_a_header_given_twice() -> None:
    assert "x-a is given twice" in refused("upstreams.files.headers={X-A: a, x-a: b}")


def test_credentials_for_everybody() -> None:
    route = ["routes.0.upstream=files", "routes.0.cors.origins=*", "routes.0.cors.credentials=on"]
    assert "credentials cannot be allowed to every origin; name the origins" in refused(*route)


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.server.port = 1  # type: ignore[misc]


def test_short_forms_of_an_upstream() -> None:
    whole = {"servers": [{"url": "http://a"}]}
    short: list[Any] = ["http://a", ["http://a"], {"servers": ["http://a"]}, whole]
    seen = {Settings.model_validate({"upstreams": {"files": one}}).model_dump_json() for one in short}
    assert len(seen) == 1


def test_every_default_is_a_value_of_its_option() -> None:
    """``validate_default`` is on: making the whole is the proof. Every option also says what it is in a sentence."""
    Settings()

    def walk(option: Any) -> None:
        for one in option.fields.values():
            assert one.description.endswith((".", "…")) or one.description, one.key
            walk(one)
        if option.item is not None:
            walk(option.item)

    walk(options())
