"""The quick reader of ``get``'s options: the same options, or it leaves them to the other one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from fileproxy.cli.getting import Options
from fileproxy.cli.main import load_command
from fileproxy.cli.quick import FLAGS, VALUES, parse
from tests.origin import OriginThread
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
