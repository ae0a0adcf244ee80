"""The quick reader of ``get``'s options: the same options, or it leaves them to the other one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from fileproxy.cli.getting import Options
from fileproxy.cli.main import load_command
from fileproxy.cli.quick import EARLY, FLAGS, HEX_DIGITS, VALUES, begin, parse, read
from fileproxy.client.checksum import _DIGITS
from fileproxy.client.early import FAR_BYTES, NEAR_BYTES
from tests.origin import MIB, Content, OriginThread
from tests.service import ROOT


def test_it_knows_every_option_and_default() -> None:
    params = {str(param.name): param for param in load_command("get").params if param.name != "help"}
    assert set(params) == {field.name for field in dataclasses.fields(Options)}
    spelled = {name: param.name for param in params.values() for name in param.opts if name.startswith("-")}
    assert spelled == FLAGS | VALUES
    defaults = dataclasses.asdict(Options())
    assert {name: param.default for name, param in params.items()} == defaults


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("http://a/f", Options(urls=["http://a/f"])),
        ("-x 16 -o f -c http://a http://b", Options(["http://a", "http://b"], "f", connections=16, resume=True)),
        ("--connections=4 -H A:b --header=C:d http://a", Options(["http://a"], connections=4, header=["A:b", "C:d"])),
        ("-i list -j 3", Options(urls=[], input_list="list", jobs=3)),
        ("-h", None),
        ("http://a/f -o", None),
        ("http://a/f --outputs x", None),
        ("http://a/f -x many", None),
        ("http://a/f -x 65", None),
        ("http://a/f --quiet=yes", None),
        ("-- -f", None),
        ("-cf http://a/f", None),
    ],
)  # fmt: skip
def test_what_it_reads(line: str, options: Options | None) -> None:
    assert parse(line.split()) == options


def test_get_imports_nothing_heavy(tmp_path: Path) -> None:
    """No wall clock: what takes long to import is not imported, for a whole download."""
    script = (
        "import sys; from fileproxy.cli.quick import quick\n"
        "code = quick(sys.argv[2:])\nprint(*sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    with OriginThread() as origin:
        origin.serve("/f", b"x" * 5000)
        done = subprocess.run(
            [sys.executable, "-c", script, "get", "-q", "-o", str(tmp_path / "f"), f"{origin.url}/f"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f").read_bytes() == b"x" * 5000
    heavy = {"aiohttp", "pydantic", "typer", "rich", "yaml", "gunicorn", "redis", "structlog", "psutil"}
    assert not heavy & set(done.stderr.split())


SHA = "sha256=" + "a" * 64


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        ("{url} -o f", True),
        ("{url}", True),
        ("-c {url}", True),
        ("-q --checksum {sha} {url}", True),
        ("{url} {url}", True),
        ("-f -o there {url}", True),
        ("-o there {url}", False),
        ("-o begun {url}", False),
        ("-o folder {url}", False),
        ("-o - {url}", False),
        ("-i list", False),
        ("-H A:b {url}", False),
        ("--limit-rate 1MiB {url}", False),
        ("--timeout never {url}", False),
        ("--mirrors-match age {url}", False),
        ("--checksum sha256=1 {url}", False),
        ("{url} ftp://a/f", False),
        ("http://a:b@127.0.0.1/f", False),
    ],
)
def test_what_is_asked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, begins: bool) -> None:
    """Nothing goes out where the engine would not ask, or would ask otherwise, or the command line is wrong."""
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    Path("begun.part").touch()
    (tmp_path / "folder").mkdir()
    Path("folder/f").touch()
    interval = sys.getswitchinterval()
    with OriginThread() as origin:
        origin.serve("/f", b"x")
        found = read(line.format(url=f"{origin.url}/f", sha=SHA).split())
        assert found is not None
        early = begin(found)
        sys.setswitchinterval(interval)
        assert (early is not None) is begins
        if early is not None:
            early.settle()
            origin.wait_for(lambda: bool(origin.requests), what="the request")
            early.drop()
        else:
            assert origin.play.accepted == 0


def test_how_much_is_asked_for(tmp_path: Path) -> None:
    with OriginThread() as origin:
        origin.serve("/f", b"x")
        for more, length in (([], NEAR_BYTES), (["-x", "1"], NEAR_BYTES), (["-x", "8"], FAR_BYTES)):
            found = read([f"{origin.url}/f", "-o", str(tmp_path / "f"), *more])
            assert found is not None
            early = begin(found)
            assert early is not None
            early.settle()
            assert early.length == length
            early.drop()


def test_it_knows_what_it_does_not_import() -> None:
    assert HEX_DIGITS == _DIGITS
    assert {field.name for field in dataclasses.fields(Options)} > EARLY


def test_a_download_from_a_near_server_is_one_request(tmp_path: Path) -> None:
    content = Content(seed=71, size=6 * MIB)
    with OriginThread() as origin:
        origin.serve("/f", content)
        done = subprocess.run(
            [sys.executable, "-m", "fileproxy", "get", "-q", "-o", str(tmp_path / "f"), f"{origin.url}/f"],
            cwd=ROOT,
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        first = origin.requests[0]
        assert first.get("range") == f"bytes=0-{NEAR_BYTES - 1}"
        assert first.sent == content.size
    assert (tmp_path / "f").read_bytes() == content.read(0, content.size)
