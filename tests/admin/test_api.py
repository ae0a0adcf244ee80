from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.admin.calls import ROUTES
from fileproxy.admin.token import Token, TokenUnusable
from tests.admin.asks import World, ask, header_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- the token --------------------------------------------------------------------------------------------------------


def test_the_token_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "var" / "admin_token"
    Token(path)
    made = path.read_text()
    assert len(made.strip()) >= 40
    assert path.stat().st_mode & 0o777 == 0o600
    Token(path)
    assert path.read_text() == made
    assert os.listdir(path.parent) == ["admin_token"]


@pytest.mark.parametrize(
    ("value", "standing"),
    [
        ("Bearer {}", "granted"),
        ("bearer   {} ", "granted"),
        ("Bearer {}x", "wrong"),
        ("Bearer", "wrong"),
        ("Basic {}", "wrong"),
        ("{}", "wrong"),
        ("Bearer \udcff\n", "wrong"),
    ],
)
def test_who_is_let_in(tmp_path: Path, value: str, standing: str) -> None:
    token = Token(tmp_path / "t")
    secret = (tmp_path / "t").read_text().strip()
    assert token.check((("AUTHORIZATION", value.format(secret)),)) == standing
    assert token.check(()) == "missing"
    right = ("Authorization", f"Bearer {secret}")
    assert token.check((right, right)) == "wrong", "two of them: which one counts?"


def test_a_changed_token_counts_at_once_and_an_unusable_one_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "t"
    token = Token(path)
    path.write_text("new-token\n")
    assert token.check((("Authorization", "Bearer new-token"),)) == "granted"
    path.write_text("  \n")
    with pytest.raises(TokenUnusable, match="cannot be used"):
        token.check((("Authorization", "Bearer "),))
    assert token.problem is not None
    path.unlink()
    path.mkdir()
    with pytest.raises(TokenUnusable, match="directory"):
        token.check(())


async def test_every_call_needs_the_token(world: World) -> None:
    for route in ROUTES:
        for headers, error in (((), ""), ((("Authorization", "Bearer guess"),), "invalid_token")):
            one = ask(route.method, f"/-/api/v1/{route.path}", *headers)
            answer = await world.api.answer(one, b'{"all": true}')
            assert answer[0] == 401
            assert error in (header_of(answer, "WWW-Authenticate") or "")
    assert not world.banned
    assert world.counts["admin.refused"] == len(world.lines) == 2 * len(ROUTES)
    assert {line["standing"] for line in world.lines} == {"missing", "wrong"}
    assert "guess" not in json.dumps(world.lines)


async def test_without_a_readable_token_every_call_is_503(world: World) -> None:
    headers = (world.bearer,)
    (world.folder / "admin_token").unlink()
    (world.folder / "admin_token").mkdir()
    status, _, body = await world.api.answer(ask("POST", "/-/api/v1/purge", *headers), b'{"all": true}')
    assert status == 503
    assert "token file" in json.loads(body)["detail"]
    assert (await world.api.purge(ask("PURGE", "/a", *headers)))[0] == 503
    assert not world.banned


# --- purge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "banned"),
    [
        ({"key": "/a"}, [("key", "files/*/a", False)]),
        ({"key": ["/a", "/b"], "soft": True}, [("key", "files/*/a", True), ("key", "files/*/b", True)]),
        ({"prefix": "/d"}, [("prefix", "files/*/d", False)]),
        ({"tag": ["red"]}, [("tag", "red", False)]),
        ({"all": True, "soft": True}, [("all", "", True)]),
    ],
)
async def test_purge(world: World, order: dict[str, Any], banned: list[Any]) -> None:
    status, answer = await world.call("POST", "purge", order)
    assert status == 200
    assert world.banned == banned
    assert answer["bans"] == len(banned)
    assert world.counts["bans.added"] == len(banned)
    assert world.counts["purge.requests"] == 1
    (line,) = world.lines
    assert (line["action"], line["client"], line["id"], line["kind"]) == ("purge", "192.0.2.1", "id-1", banned[0][0])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"\xff", b'{"key": "/a", "all": true}', b'{"keys": "/a"}', b'{"key": ""}', b'{"key": []}',
        b'{"all": "yes"}', b'{"soft": true}', b"[" * 100_000, b'{"tag": ["' + b'x","' * 1000 + b'y"]}',
    ],
)  # fmt: skip
async def test_an_unclear_purge_purges_nothing(world: World, body: bytes) -> None:
    status, said = await world.call("POST", "purge", body)
    assert status == 400
    assert said["status"] == 400
    assert not world.banned


async def test_one_address_nobody_serves_stops_the_whole_purge(world: World) -> None:
    status, said = await world.call("POST", "purge", {"key": ["/a", "/nowhere"]})
    assert (status, said["detail"]) == (404, "No route serves /nowhere")
    assert not world.banned


async def test_a_purge_that_cannot_be_kept_says_so(world: World) -> None:
    world.broken = OSError(28, "No space left on device")
    status, said = await world.call("POST", "purge", {"all": True})
    assert status == 503
    assert "No space left on device" in said["detail"]
    assert world.lines[-1]["status"] == 503
    assert world.counts["bans.added"] == 0


async def test_the_method_purge(world: World) -> None:
    world.stored.add("files/*/a.bin")
    assert (await world.api.purge(ask("PURGE", "/dir/a.bin", world.bearer)))[0] == 200
    assert (await world.api.purge(ask("PURGE", "/dir/b.bin", world.bearer)))[0] == 404
    assert world.banned == [("key", "files/*/a.bin", False), ("key", "files/*/b.bin", False)]
    for headers in ((), (("Authorization", "Bearer x"),)):
        answer = await world.api.purge(ask("PURGE", "/dir/a.bin", *headers))
        assert answer[0] == 403
        assert header_of(answer, "Content-Type") == "application/problem+json"
    assert len(world.banned) == 2
    assert (await world.api.purge(ask("PURGE", "/\udcff", world.bearer)))[0] == 404


# --- the table --------------------------------------------------------------------------------------------------------


async def test_unknown_calls_and_methods(world: World) -> None:
    assert (await world.call("GET", "nothing"))[0] == 404
    assert (await world.call("GET", "warm/a/b"))[0] == 404
    assert (await world.call("GET", "openapi.jsonx"))[0] == 404
    answer = await world.api.answer(ask("PUT", "/-/api/v1/warm/1", world.bearer), b"")
    assert answer[0] == 405
    assert header_of(answer, "Allow") == "GET, DELETE"
    assert (await world.call("HEAD", "openapi.json"))[0] == 200


async def test_the_description_names_every_call_and_all_its_references_lead_somewhere(world: World) -> None:
    status, document = await world.call("GET", "openapi.json")
    assert status == 200
    calls = {(method, path) for path, row in document["paths"].items() for method in row}
    assert calls == {(route.method.lower(), f"/-/api/v1/{route.path}") for route in ROUTES}
    assert document["info"]["version"] == "1.2.3"

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [one for value in node.values() for one in references(value)]
        return [one for value in node for one in references(value)] if isinstance(node, list) else []

    found = references(document)
    assert "#/components/schemas/Purge" in found
    for one in found:
        assert one.removeprefix("#/components/schemas/") in document["components"]["schemas"]


@given(st.binary(max_size=200))
def test_no_body_whatever_raises(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    world = World(tmp_path_factory.mktemp("w"))

    async def run() -> None:
        status, _ = await world.call("POST", "purge", body)
        assert status in (200, 400)
        await world.tasks.close()

    asyncio.run(run())
