"""The programs people download with, on real files through a real service: every byte is the origin's.

Each one downloads over the cached route (where later downloads are hits) and over the one that keeps nothing.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import re
import subprocess
import time
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.clients import program
from tests.lab.sites import CACHED, RELAYED, SIZES, Site, digest

pytestmark = pytest.mark.lab
big, small = "64MiB", "1MiB"


@pytest.fixture(params=[CACHED, RELAYED], ids=["cached", "relayed"])
def url(request: pytest.FixtureRequest, site: Site) -> str:
    return f"{site.url}{request.param}"


def run(*command: str, cwd: Path | None = None, within: float = 60) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [program(command[0]), *command[1:]], cwd=cwd, capture_output=True, text=True, timeout=within, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def requests_for(site: Site, url: str) -> list[dict[str, object]]:
    """The access lines of this very URL so far."""
    path = urlsplit(url).path
    return [line for line in site.service.lines("access.log") if str(line["target"]).startswith(path)]


@pytest.mark.parametrize("name", SIZES)
def test_curl(site: Site, url: str, name: str, tmp_path: Path) -> None:
    for attempt in range(2):
        run("curl", "-sSf", "-o", f"{tmp_path}/{attempt}", f"{url}{name}")
        assert digest(tmp_path / str(attempt)) == site.sha256(name)


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("0-0", 0, 1),
        ("0-1048575", 0, 1 << 20),
        ("33554431-33554432", (1 << 25) - 1, (1 << 25) + 1),
        ("5000000-6999999", 5_000_000, 7_000_000),
        ("67108863-", (1 << 26) - 1, 1 << 26),
        ("67108863-99999999999", (1 << 26) - 1, 1 << 26),
        ("-1", (1 << 26) - 1, 1 << 26),
        ("-1500000", (1 << 26) - 1_500_000, 1 << 26),
    ],
)
def test_curl_asks_for_a_range(site: Site, url: str, wanted: str, start: int, end: int, tmp_path: Path) -> None:
    done = run("curl", "-sSf", "-r", wanted, "-o", f"{tmp_path}/part", "-w", "%{http_code}", f"{url}{big}")
    assert done.stdout == "206"
    assert (tmp_path / "part").read_bytes() == site.read(big)[start:end]


def test_curl_asks_for_several_ranges(site: Site, url: str, tmp_path: Path) -> None:
    command = ("curl", "-sSf", "-r", "0-9,2000000-3999999,-5", "-D", f"{tmp_path}/head", "-o", f"{tmp_path}/body")
    run(*command, f"{url}{big}")
    _, _, head = (tmp_path / "head").read_bytes().partition(b"\r\n")
    kind = next(line for line in head.splitlines() if line.lower().startswith(b"content-type:"))
    message = email.message_from_bytes(kind + b"\r\n\r\n" + (tmp_path / "body").read_bytes(), policy=email.policy.HTTP)
    file = site.read(big)
    spans = [(0, 10), (2000000, 4000000), (len(file) - 5, len(file))]
    assert message.get_content_type() == "multipart/byteranges"
    parts = [part for part in message.iter_parts() if isinstance(part, Message)]
    assert [part["Content-Range"] for part in parts] == [f"bytes {at}-{end - 1}/{len(file)}" for at, end in spans]
    assert split(tmp_path / "body") == [file[at:end] for at, end in spans]


def split(body: Path) -> list[bytes]:
    """The parts of a multipart body as bytes (the email package would decode them as text)."""
    data = body.read_bytes()
    boundary = data[: data.index(b"\r\n", 2)].strip()
    pieces = (b"\r\n" + data.lstrip(b"\r\n")).split(b"\r\n" + boundary)
    assert pieces[-1].strip() == b"--"
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]


def test_wget_is_interrupted_and_goes_on(site: Site, url: str, tmp_path: Path) -> None:
    partial = tmp_path / big
    wget = subprocess.Popen(
        [program("wget"), "-q", "--limit-rate=8m", f"{url}{big}"], cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size > 1_000_000):
        assert wget.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    wget.terminate()
    wget.wait(10)
    had = partial.stat().st_size
    assert 0 < had < SIZES[big]
    done = run("wget", "-c", "-S", f"{url}{big}", cwd=tmp_path)
    assert "206 Partial Content" in done.stderr
    assert digest(partial) == site.sha256(big)


def test_aria2c_with_eight_connections(site: Site, url: str, tmp_path: Path) -> None:
    before = len(requests_for(site, f"{url}{big}"))
    run("aria2c", "-x8", "-s8", "-k1M", "--no-conf", "--file-allocation=none", "-d", str(tmp_path), f"{url}{big}")
    assert digest(tmp_path / big) == site.sha256(big)
    deadline = time.monotonic() + 10
    while len(requests_for(site, f"{url}{big}")) - before < 8:
        assert time.monotonic() < deadline, "aria2c asked for fewer than eight parts"
        time.sleep(0.05)


@pytest.mark.parametrize("name", SIZES)
def test_python_requests(site: Site, url: str, name: str) -> None:
    seen = hashlib.sha256()
    with requests.Session() as session, session.get(f"{url}{name}", stream=True, timeout=20) as answer:
        assert int(answer.headers["Content-Length"]) == SIZES[name]
        assert re.fullmatch(r'"[^"]+"', answer.headers["ETag"])
        for piece in answer.iter_content(1 << 18):
            seen.update(piece)
        again = session.get(f"{url}{name}", headers={"If-None-Match": answer.headers["ETag"]}, timeout=20)
    assert seen.hexdigest() == site.sha256(name)
    assert (again.status_code, again.content) == (304, b"")


def test_requests_resumes_what_is_still_the_same_file(site: Site, url: str) -> None:
    file = site.read(small)
    first = requests.get(f"{url}{small}", headers={"Range": "bytes=0-99999"}, timeout=20)
    wanted = {"Range": "bytes=100000-", "If-Range": first.headers["ETag"]}
    rest = requests.get(f"{url}{small}", headers=wanted, timeout=20)
    assert (first.status_code, rest.status_code) == (206, 206)
    assert first.content + rest.content == file
    other = requests.get(f"{url}{small}", headers={**wanted, "If-Range": '"another version"'}, timeout=20)
    assert (other.status_code, other.content) == (200, file)
