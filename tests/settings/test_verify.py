"""What no schema can see: files and folders that the settings name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fileproxy.settings.load import load
from fileproxy.settings.verify import verify
from tests.conftest import Authority


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(*sets: str) -> list[str]:
    loaded = load(sets=sets)
    return verify(loaded.settings, loaded.sources)


def test_the_defaults_are_fine_in_an_empty_folder(folder: Path) -> None:
    assert problems() == []
    assert list(folder.iterdir()) == []  # looked at, not made


def test_folders_of_files(folder: Path) -> None:
    Path("here").mkdir()
    Path("plain").write_text("")
    assert problems(f"upstreams.files=file://{folder}/here") == []
    assert problems(f"upstreams.files=file://{folder}/gone%20away") == [
        f"--set upstreams.files: upstreams.files.servers.0.url: there is no folder {folder}/gone away"
    ]
    assert f"{folder}/plain is not a folder" in problems(f"upstreams.files=file://{folder}/plain")[0]


def test_certificate_authorities(authority: Authority) -> None:
    files = "upstreams.files=https://a"
    assert problems(files, f"upstreams.files.tls.ca={authority.pem}") == []
    assert problems(files, "upstreams.files.tls.ca=gone.pem") == [
        "--set upstreams.files.tls.ca: upstreams.files.tls.ca: gone.pem cannot be read: No such file or directory"
    ]
    Path("empty.pem").write_text("nothing")
    assert "empty.pem holds no certificate in PEM form" in problems(files, "upstreams.files.tls.ca=empty.pem")[0]


def test_logs_and_the_run_folder() -> None:
    Path("file").write_text("")
    Path("folder").mkdir()
    assert problems("logs.access=off", "logs.error=stderr") == []
    assert "logs.access: folder is a folder, not a file" in problems("logs.access=folder")[0]
    assert "logs.error: file is not a folder" in problems("logs.error=file/error.log")[0]
    assert "server.run_dir: file is not a folder" in problems("server.run_dir=file")[0]


def test_the_admin_token_and_the_disk_tier(folder: Path) -> None:
    Path("file").write_text("")
    Path("read-only").touch(0o400)
    Path("folder").mkdir()
    assert problems("server.admin_token_file=read-only", "cache.disk.path=new/cache") == []
    assert "server.admin_token_file: folder is a folder" in problems("server.admin_token_file=folder")[0]
    assert problems("cache.disk.path=file") == []  # it degrades: a sick disk must not keep a machine from serving
    assert problems("cache.disk=off") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written(folder: Path) -> None:
    Path("closed").mkdir(0o000)
    Path("read-only.log").touch(0o400)
    try:
        assert "closed cannot be read" in problems(f"upstreams.files=file://{folder}/closed")[0]
        assert "closed cannot be written" in problems("server.run_dir=closed")[0]
        assert "read-only.log cannot be written" in problems("logs.access=read-only.log")[0]
    finally:
        Path("closed").chmod(0o700)


def test_without_sources_the_key_comes_first() -> None:
    settings = load(sets=["logs.access=/"]).settings
    assert verify(settings) == ["logs.access: / is a folder, not a file"]
