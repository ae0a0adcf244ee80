"""``fileproxy purge`` and ``fileproxy warm`` against a server that answers with the real Api."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from fileproxy.cli.main import app
from tests.admin.asks import World, ask

Cli = Callable[..., Awaitable[Result]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    yield one
    await one.tasks.close()


@pytest.fixture
async def cli(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cli]:
    async def serve(request: web.BaseRequest) -> web.Response:
        one = ask(request.method, request.path, *request.headers.items())
        status, headers, body = await world.api.answer(one, await request.read())
        return web.Response(status=status, headers=dict(headers), body=body)

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setattr("fileproxy.cli.admin.LOOK_S", 0.01)
    monkeypatch.delenv("FILEPROXY_ADMIN_TOKEN", raising=False)
    monkeypatch.chdir(world.folder)

    async def run(*arguments: str, token: bool = True) -> Result:
        given = ["--token-file", str(world.folder / "admin_token")] if token else []
        return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--url", base, *given])

    yield run
    await runner.cleanup()


async def test_purge(cli: Cli, world: World) -> None:
    done = await cli("purge", "/a", "https://b.test/b")
    assert (done.exit_code, done.stdout) == (0, "Purged: key /a, https://b.test/b\n")
    done = await cli("purge", "--prefix", "/d/", "--soft")
    assert done.stdout == "Expired: prefix /d/\n"
    done = await cli("purge", "--tag", "red", "--json")
    assert json.loads(done.stdout)["kind"] == "tag"
    done = await cli("purge", "--all")
    assert done.stdout == "Purged: everything\n"
    assert [(kind, soft) for kind, _, soft in world.banned] == [
        ("key", False), ("key", False), ("prefix", True), ("tag", False), ("all", False),
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("/a", "--all"), ("--tag", "a", "--prefix", "/b")])
async def test_an_unclear_purge_is_wrong_usage(cli: Cli, world: World, arguments: tuple[str, ...]) -> None:
    assert (await cli("purge", *arguments)).exit_code == 2
    assert not world.banned


async def test_what_the_service_refuses_is_said_in_a_sentence(cli: Cli) -> None:
    done = await cli("purge", "/nowhere")
    assert done.exit_code == 1
    assert "answered 404: No route serves /nowhere" in done.stderr


@pytest.mark.option("server.admin_token_file")
async def test_where_the_token_comes_from(cli: Cli, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    done = await cli("purge", "--all", token=False)
    assert done.exit_code == 1
    assert "the admin token cannot be read from var/admin_token: No such file" in done.stderr
    monkeypatch.setenv("FILEPROXY_SERVER__ADMIN_TOKEN_FILE", str(world.folder / "admin_token"))
    assert (await cli("purge", "--all", token=False)).exit_code == 0
    monkeypatch.setenv("FILEPROXY_ADMIN_TOKEN", "wrong")
    done = await cli("purge", "--all", token=False)
    assert done.exit_code == 1
    assert "answered 401" in done.stderr
    assert (await cli("purge", "--all")).exit_code == 0, "the option wins"
    (world.folder / "empty").write_text("\n")
    done = await cli("purge", "--all", "--token-file", str(world.folder / "empty"), token=False)
    assert "holds no admin token" in done.stderr


async def test_warm(cli: Cli, world: World) -> None:
    world.files = {"/a": b"aa", "/b": b"b" * 2000}
    done = await cli("warm", "/a", "/b")
    assert done.exit_code == 0
    assert done.stdout.startswith("Started job ")
    done = await cli("warm", "/a", "/b", "--wait")
    assert (done.exit_code, done.stdout) == (0, "done: 2 files, 2.0 KiB\n")
    done = await cli("warm", "/a", "/missing", "--wait", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failed"] == 1
    done = await cli("warm", "--sitemap", "/s.xml", "--wait")
    assert done.exit_code == 1
    assert done.stdout == "failed: 0 files, 0 B: No route serves /s.xml.\n"
    assert (await cli("warm")).exit_code == 2
    assert (await cli("warm", "/a", "--sitemap", "/s")).exit_code == 2
