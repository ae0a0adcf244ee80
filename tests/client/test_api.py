"""The Python API: results, progress, statistics, and what it does not import."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import fileproxy
from fileproxy.client import Client, DownloadFailed, Progress
from tests.client.conftest import Get, sha256
from tests.origin import MIB, Content, Gate, Origin, OriginThread, Reply, stall
from tests.service import ROOT

BIG = Content(seed=51, size=3 * MIB + 7)


def test_a_download_without_an_event_loop(out: Path) -> None:
    with OriginThread() as origin:
        origin.serve("/f", BIG)
        result = fileproxy.download(f"{origin.url}/f", out, checksum=f"sha256={BIG.sha256()}", connections=2)
    assert (result.path, result.size, result.skipped) == (out, BIG.size, False)
    assert sha256(out) == BIG.sha256()


def test_progress_tells_the_whole_story(out: Path) -> None:
    seen: list[Progress] = []
    with OriginThread() as origin:
        origin.script("/f", Reply(BIG, rate=2 * MIB))  # slow enough to be looked at on the way
        fileproxy.download(
            [f"{origin.url}/f"], out, connections=1, checksum=f"sha256={BIG.sha256()}", progress=seen.append
        )
    assert list(dict.fromkeys(one.state for one in seen)) == ["connecting", "fetching", "verifying", "done"]
    received = [one.received for one in seen]
    assert received == sorted(received)
    assert (seen[-1].received, seen[-1].size, seen[-1].path) == (BIG.size, BIG.size, out)
    fetching = [one for one in seen if one.state == "fetching"]
    assert any(one.rate > 0 and one.left_s is not None and one.connections > 0 for one in fetching)
    assert seen[0].left_s is None


async def test_in_a_running_loop_it_says_what_to_use(out: Path) -> None:
    with pytest.raises(RuntimeError, match="download_async"):
        fileproxy.download("http://127.0.0.1:1/f", out)


async def test_statistics(origin: Origin, get: Get) -> None:
    origin.script("/f", Reply(BIG), Reply(b"busy", status=503, headers=(("Retry-After", "0"),)), Reply(BIG))
    client = Client(connections=1)
    assert client.statistics().downloads == 0
    await get(origin, content=BIG, client=client)
    await get(origin, content=BIG, client=client, resume=True)
    origin.script("/f", Reply(b"", status=404))
    with pytest.raises(DownloadFailed):
        await get(origin, client=client, force=True)
    found = client.statistics()
    assert (found.downloads, found.completed, found.skipped, found.failed) == (3, 1, 1, 1)
    assert found.received >= BIG.size
    assert found.segments == len(origin.requests) - 2  # the look at what is there, and the 404
    assert found.failures == 2
    assert found.connections_opened >= 1
    assert found.running == ()
    mirror = found.mirrors[f"{origin.url}/f"]
    assert (mirror.bytes, mirror.failures) == (BIG.size, 2)
    assert mirror.last_error is not None
    assert "404" in mirror.last_error
    with pytest.raises(AttributeError):
        found.downloads = 1  # type: ignore[misc]


async def test_statistics_show_running_downloads(origin: Origin, get: Get) -> None:
    gate = Gate()
    origin.script("/f", Reply(BIG, breaks=stall(100_000, lasts=gate)), Reply(BIG))
    client = Client(connections=1)
    running = asyncio.create_task(get(origin, content=BIG, client=client))
    await origin.wait_for(lambda: origin.sent["/f"] >= 100_000)
    while not client.statistics().received:
        await asyncio.sleep(0)
    (one,) = client.statistics().running
    assert (one.size, one.state, one.url) == (BIG.size, "fetching", f"{origin.url}/f")
    gate.open()
    await running


async def test_a_limit_is_kept(origin: Origin, get: Get) -> None:
    origin.serve("/f", BIG)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await get(origin, content=BIG, limit_rate="4MiB")
    assert loop.time() - began >= BIG.size / (4 * MIB) - 0.2  # a lower bound: however slow the machine


async def test_one_limit_for_all_downloads_of_a_client(origin: Origin, out: Path) -> None:
    origin.serve("/f", BIG)
    client = Client(limit_rate=8 * MIB)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(client.download_async(f"{origin.url}/f", out.parent / str(one)) for one in range(2)))
    assert loop.time() - began >= 2 * BIG.size / (8 * MIB) - 0.2


@pytest.mark.parametrize(
    "options",
    [
        {"connections": 0},
        {"connections": 65},
        {"limit_rate": 0},
        {"limit_rate": "fast"},
        {"timeout": 0},
        {"stall": "soon"},
        {"mirrors_match": "name"},
        {"headers": {"Range": "bytes=0-"}},
        {"headers": {"Host": "a"}},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X Y": "a"}},
    ],
)
def test_wrong_options(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Client(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["", "/f", "ftp://a/f", "file:///etc/passwd", "http://", "http://u:p@a/f", "http://a:x/"]
)
async def test_wrong_urls(url: str, out: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        await Client().download_async(url, out)
    assert list(out.parent.iterdir()) == []


async def test_no_url(out: Path) -> None:
    with pytest.raises(ValueError, match="needs a URL"):
        await Client().download_async([], out)


async def test_urls_are_sent_as_they_are_meant(origin: Origin, out: Path) -> None:
    origin.otherwise(Reply(b"x"))
    await Client().download_async(f"{origin.url}/a%2Fb c/ü?q=%41&r=ö#part", out)
    assert origin.last.target == "/a%2Fb%20c/%C3%BC?q=%41&r=%C3%B6"
    await Client().download_async(f"{origin.url}?q", out, force=True)
    assert origin.last.target == "/?q"


def test_what_it_imports() -> None:
    """``import fileproxy`` is light, and the client needs neither server, gunicorn nor Redis."""
    script = (
        "import sys, fileproxy\n"
        "assert not [name for name in sys.modules if name.startswith(('fileproxy.', 'aiohttp', 'pydantic'))]\n"
        "fileproxy.Client\n"
        "import fileproxy.client.progress\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    modules = done.stdout.split()
    assert "fileproxy.client.engine" in modules
    heavy = ("gunicorn", "redis", "valkey", "aiohttp.web", "aiohttp_cors", "fileproxy.server", "fileproxy.app")
    assert [name for name in modules if name.startswith(heavy)] == []


def test_every_name_is_there() -> None:
    for name in fileproxy.__all__:
        assert getattr(fileproxy, name) is not None
    with pytest.raises(AttributeError):
        fileproxy.nothing  # noqa: B018
