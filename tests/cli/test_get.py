"""``fileproxy get`` as people type it."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fileproxy.client.partfile import journal_of, part_of, read_journal
from tests.life.tools import eventually, fileproxy
from tests.origin import MIB, Content, OriginThread, Reply, reset
from tests.service import ROOT

BIG = Content(seed=61, size=4 * MIB + 99)
SMALL = Content(seed=62, size=2000)
GIVEN = f"sha256={BIG.sha256()}"


@pytest.fixture
def origin() -> Iterator[OriginThread]:
    with OriginThread() as origin:
        origin.serve("/big", BIG)
        origin.serve("/small", SMALL)
        yield origin


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fileproxy", "get", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_file_gets_the_urls_name(origin: OriginThread, tmp_path: Path) -> None:
    done = fileproxy("get", f"{origin.url}/big?x=1", "--checksum", GIVEN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "big") == BIG.sha256()
    assert done.stdout.startswith("big: 4.0 MiB in ")
    assert done.stdout.endswith("sha256 verified\n")
    assert "big: " in done.stderr  # plain lines off a terminal
    assert "\x1b" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_quiet_says_nothing(origin: OriginThread, tmp_path: Path) -> None:
    done = fileproxy("get", "-q", "-o", "x", f"{origin.url}/small", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sha256(tmp_path / "x") == SMALL.sha256()


def test_further_urls_are_mirrors(origin: OriginThread, tmp_path: Path) -> None:
    done = fileproxy("get", f"{origin.url}/nowhere", f"{origin.url}/big", "-o", "x", "-x", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "x") == BIG.sha256()


def test_a_list(origin: OriginThread, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(
        f"# two files\n{origin.url}/nowhere\t{origin.url}/big\n  out=sub/one\n  checksum={GIVEN}\n{origin.url}/small\n"
    )
    done = fileproxy("get", "-i", "list", "-o", "got", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "got" / "sub" / "one") == BIG.sha256()
    assert sha256(tmp_path / "got" / "small") == SMALL.sha256()
    again = fileproxy("get", "-c", "-i", "list", "-o", "got", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("was there already") == 2


def test_a_list_goes_on_after_a_failure_and_says_so(origin: OriginThread, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{origin.url}/nowhere\n{origin.url}/small\n")
    done = fileproxy("get", "-q", "-i", "list", "-j", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"fileproxy: {origin.url}/nowhere: {origin.play.authority}: answered 404 Not Found\n"
    assert sha256(tmp_path / "small") == SMALL.sha256()


def test_headers_and_limits_are_passed_on(origin: OriginThread, tmp_path: Path) -> None:
    done = fileproxy(
        "get", "-H", "X-Key: 7", "--limit-rate", "100MiB", "--timeout", "5s", f"{origin.url}/small", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert origin.requests[0].get("x-key") == "7"


def test_a_wrong_checksum_keeps_what_came(origin: OriginThread, tmp_path: Path) -> None:
    done = fileproxy("get", "-q", f"{origin.url}/big", "--checksum", f"sha256={'0' * 64}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"fileproxy: big.part: sha256 is {BIG.sha256()}, but {'0' * 64} was promised; it was kept\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.part", "big.part.json"]
    done = fileproxy("get", "-c", f"{origin.url}/big", "-o", "big", "--checksum", GIVEN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4.0 MiB were here before" in done.stdout


def test_existing_files_are_replaced_only_by_force(origin: OriginThread, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("mine")
    done = fileproxy("get", "-q", f"{origin.url}/small", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "fileproxy: small exists; --force replaces it\n")
    assert (tmp_path / "small").read_text() == "mine"
    assert fileproxy("get", "-q", "--force", f"{origin.url}/small", cwd=tmp_path).returncode == 0
    assert sha256(tmp_path / "small") == SMALL.sha256()


def test_a_disk_that_refuses_is_a_sentence(origin: OriginThread, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = fileproxy("get", "-q", f"{origin.url}/small", "-o", "file/x", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("fileproxy: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ftp://a/f"],
        ["http://u:p@a/f"],
        ["http://a/f", "-x", "0"],
        ["http://a/f", "-x", "many"],
        ["http://a/f", "--checksum", "sha256=1"],
        ["http://a/f", "--checksum", "crc=1"],
        ["http://a/f", "--limit-rate", "fast"],
        ["http://a/f", "--timeout", "soon"],
        ["http://a/f", "-H", "nothing"],
        ["http://a/f", "-H", "Range: bytes=0-1"],
        ["http://a/f", "--mirrors-match", "name"],
        ["http://a/f", "-o", "-"],
        ["http://a/f", "-i", "list"],
        ["-i", "bad"],
        ["-i", "list", "--checksum", GIVEN],
    ],
)
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "list").write_text("http://a/f\n")
    (tmp_path / "bad").write_text("http://a/f\n  what=1\n")
    done = fileproxy("get", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "list"]


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    done = fileproxy("get", "-i", "missing", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "fileproxy: missing: No such file or directory\n")


# --- interruptions ---------------------------------------------------------------------------------------------------


def kept(out: Path) -> int:
    """Bytes that the journal names."""
    journal = read_journal(out) if part_of(out).exists() else None
    return 0 if journal is None else sum(end - first for first, end in journal.done)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_ctrl_c_leaves_what_can_be_continued(origin: OriginThread, tmp_path: Path, ending: signal.Signals) -> None:
    out = tmp_path / "big"
    origin.script("/big", Reply(BIG, rate=MIB // 4))  # seconds are left when it is interrupted
    running = start("-x", "2", f"{origin.url}/big", cwd=tmp_path)
    try:
        eventually(lambda: kept(out) > MIB // 2, "a first half megabyte")
        running.send_signal(ending)
        _, said = running.communicate(timeout=20)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 1
    assert said.decode().splitlines()[-1].startswith("fileproxy: interrupted")
    assert b"Traceback" not in said
    assert not out.exists()
    before = kept(out)
    assert before > MIB // 2
    origin.serve("/big", BIG)
    done = fileproxy("get", "-c", f"{origin.url}/big", "--checksum", GIVEN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "were here before" in done.stdout
    assert sha256(out) == BIG.sha256()


@pytest.mark.timeout(60)
def test_a_killed_download_is_continued(origin: OriginThread, tmp_path: Path) -> None:
    """kill -9 in the middle: the journal of the last two seconds holds, and every byte is right in the end."""
    out = tmp_path / "big"
    origin.script("/big", Reply(BIG, rate=MIB / 4))
    running = start("-x", "2", f"{origin.url}/big", cwd=tmp_path)
    try:
        eventually(lambda: kept(out) > 256 * 1024, "a journal with more than the first answer")
    finally:
        running.kill()
        running.communicate()
    before = kept(out)
    assert not out.exists()
    fresh = fileproxy("get", "-q", f"{origin.url}/big", "-o", "big", cwd=tmp_path)
    assert fresh.returncode == 1
    assert "-c continues it, --restart starts over" in fresh.stderr
    origin.serve("/big", BIG)
    asked = len(origin.requests)
    done = fileproxy("get", "-c", f"{origin.url}/big", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sha256(out) == BIG.sha256()
    assert not journal_of(out).exists()
    # What the journal named was not asked for again, but for the answer that told the server's name for the file.
    assert sum(request.sent for request in origin.requests[asked:]) <= BIG.size - before + 256 * 1024


def test_an_origin_that_breaks_and_refuses(origin: OriginThread, tmp_path: Path) -> None:
    busy = Reply(b"busy", status=503, headers=(("Retry-After", "1"),))
    origin.script("/big", busy, Reply(BIG, breaks=reset(100_000)), busy, Reply(BIG))
    done = fileproxy("get", f"{origin.url}/big", "--checksum", GIVEN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# --- a terminal ------------------------------------------------------------------------------------------------------


def test_a_bar_on_a_terminal(origin: OriginThread, tmp_path: Path) -> None:
    origin.script("/big", Reply(BIG, rate=8 * MIB))
    main, terminal = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while data := os.read(main, 4096):
                shown.extend(data)
        except OSError:
            pass  # the other side is closed

    reader = threading.Thread(target=read)
    running = subprocess.Popen(
        [sys.executable, "-m", "fileproxy", "get", f"{origin.url}/big"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    reader.start()
    try:
        out, _ = running.communicate(timeout=20)
    finally:
        running.kill()
        running.wait()
        reader.join(10)
        os.close(main)
    assert running.returncode == 0
    assert out.startswith(b"big: 4.0 MiB in ")
    assert b"big" in shown
    assert "━".encode() in shown
    assert b"4.2 MiB" not in shown  # binary units, like everywhere here
    assert sha256(tmp_path / "big") == BIG.sha256()


def test_every_option_is_in_the_documentation(tmp_path: Path) -> None:
    shown = fileproxy("get", "-h", cwd=tmp_path).stdout
    options = set(re.findall(r"(?:^  |, )(--?[A-Za-z][a-z-]*)", shown, re.M)) - {"--help", "-h"}
    assert {"--output", "-o", "--limit-rate"} <= options
    text = (ROOT / "docs" / "client.md").read_text()
    assert [option for option in sorted(options) if f"`{option}" not in text] == []
