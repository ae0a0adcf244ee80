"""Replays the Dockerfile without an engine: ``python -m tests.lab.replay`` (root, in namespaces of its own).

Each stage is an empty layer over this machine's root (overlayfs on a tmpfs), so every path is the image's own and
nothing of the machine changes. What stands for ``FROM python:…`` is this machine's Python, as ``python`` and ``pip``.

Every COPY, WORKDIR, ENV and RUN is done as the file says. The result is then run as its USER with a root that is
read-only, but for the volume and /tmp: the health check must succeed, a file must come through, TERM must end it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from tests.lab.dockerfile import Stage, parse

CHECKOUT = Path(__file__).resolve().parents[2]
BASE = Path("/mnt")  # a tmpfs in our own mount namespace
PYTHON = Path(sys.base_prefix) / "bin"
WITHIN_S = 30.0
CLONE_NEWNET = 0x40000000  # os.unshare came with Python 3.12


def call(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL)


class Image:
    """One stage while it is built: its root, its environment and working folder."""

    def __init__(self, stage: Stage, images: dict[str, Image]) -> None:
        self.stage = stage
        self.images = images
        self.root = BASE / stage.name / "root"
        here = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.env = {"PATH": "/replayed/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", **here}
        self.folder = "/"
        self._make_layer()

    def _make_layer(self) -> None:
        layer = BASE / self.stage.name
        for name in ("upper", "work", "root"):
            (layer / name).mkdir(parents=True)
        mounts = f"lowerdir=/,upperdir={layer / 'upper'},workdir={layer / 'work'}"
        call("mount", "-t", "overlay", "overlay", "-o", mounts, self.root)
        call("mount", "--bind", "/proc", self.root / "proc")
        call("mount", "--rbind", "/dev", self.root / "dev")
        # An image's Python lies where everybody may read it; this machine's may be somebody's own.
        binaries = self.root / "replayed" / "bin"
        binaries.mkdir(parents=True)
        (binaries / "python").symlink_to(PYTHON / "python3")
        (binaries / "pip").write_text('#!/bin/sh\nexec python -m pip "$@"\n')
        (binaries / "pip").chmod(0o755)
        for above in PYTHON.parents:
            inside = self.root / above.relative_to("/")
            inside.chmod(inside.stat().st_mode | 0o055)

    def build(self) -> None:
        for step in self.stage.steps:
            print(step.name, *step.words, flush=True)
            if step.name == "ENV":
                self.env |= {key: self._filled(value) for key, _, value in (word.partition("=") for word in step.words)}
            elif step.name == "WORKDIR":
                self.folder = step.words[0]
                self.inside(self.folder).mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                self._copy(step.words)
            elif step.name == "RUN":
                call(*self.entered(step.words))

    def _filled(self, value: str) -> str:
        return value.replace("$PATH", self.env["PATH"])

    def _copy(self, words: list[str]) -> None:
        source, left_out = CHECKOUT, ["__pycache__"]  # as .dockerignore says
        if words[0].startswith("--from="):
            source, left_out = self.images[words[0].removeprefix("--from=")].root, []
            words = words[1:]
        *names, target = words
        to = self.inside(target)
        for name in names:
            what = source / name.lstrip("/")
            if what.is_dir():
                shutil.copytree(what, to, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*left_out))
            else:
                shutil.copy2(what, to)

    def inside(self, path: str) -> Path:
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def entered(self, words: list[str], *, user: str | None = None) -> list[str]:
        """The command with this image as its root; ``user``: "UID:GID", without any privilege."""
        who = []
        if user is not None:
            uid, gid = user.split(":")
            who = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
            who.append("--bounding-set=-all")
        env = [f"{key}={value}" for key, value in self.env.items()]
        return ["chroot", str(self.root), *who, "env", "-i", f"--chdir={self.folder}", *env, *words]


def run(image: Image) -> None:
    """What ``docker run --read-only`` does: start it, ask the health check, download, end it."""
    user = image.stage.last("USER")[0]
    volume = image.stage.last("VOLUME")[0]
    kept = BASE / "volume"
    shutil.copytree(image.inside(volume), kept)
    call("chown", "--recursive", user, kept)
    call("mount", "-o", "remount,ro", image.root)
    call("mount", "--bind", kept, image.inside(volume))
    call("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", image.root / "tmp")
    for path in ("/", "/opt/fileproxy", "/opt/fileproxy/bin"):
        refused = subprocess.run(
            image.entered(["touch", f"{path}/x"], user=user), stderr=subprocess.DEVNULL, check=False
        )
        assert refused.returncode, f"{path} can be written to"

    command = [*image.stage.last("ENTRYPOINT"), *image.stage.last("CMD")]
    port = int(image.stage.last("EXPOSE")[0])
    service = subprocess.Popen(image.entered(command, user=user), stdin=subprocess.DEVNULL)
    try:
        check = [word for word in image.stage.last("HEALTHCHECK") if not word.startswith("--")]
        deadline = time.monotonic() + WITHIN_S
        while subprocess.run(image.entered(check, user=user), check=False).returncode:
            assert service.poll() is None, "the service ended"
            assert time.monotonic() < deadline, "the health check never succeeded"
            time.sleep(0.2)
        print("healthy", flush=True)
        # The files are the embedded origin's samples, in the working folder.
        for file in (image.inside(volume) / "files").iterdir():
            with urlopen(f"http://127.0.0.1:{port}/{file.name}", timeout=30) as answer:
                assert answer.read() == file.read_bytes()
            print("downloaded", file.name, file.stat().st_size, flush=True)
    finally:
        service.send_signal(getattr(signal, image.stage.last("STOPSIGNAL")[0]))
        code = service.wait(30)
    assert code == 0, f"it ended with {code}"
    gone = subprocess.run(image.entered(check, user=user), check=False, stderr=subprocess.DEVNULL)
    assert gone.returncode == 1, "the health check still succeeds"
    print("ended", flush=True)


def main() -> None:
    call("mount", "--make-rprivate", "/")
    call("mount", "-t", "tmpfs", "tmpfs", BASE)
    images: dict[str, Image] = {}
    for stage in parse((CHECKOUT / "Dockerfile").read_text()):
        images[stage.name] = image = Image(stage, images)
        image.build()
    # pip needed the network; the service gets one of its own, so that its port is free.
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    call("ip", "link", "set", "lo", "up")
    run(image)


if __name__ == "__main__":
    main()
