"""A disk that is full, read-only or forbidden, under a running service. Needs root: it mounts a small tmpfs."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cache_client import Get, one
from benchmarks.cache_lab import Figures, counters, goal, lab, settled, until
from benchmarks.cache_origin import MIB, OriginProcess
from tests.service import Service

FILE = 3 * MIB
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # permission bits bind root, too


@contextlib.contextmanager
def tmpfs(size: int) -> Iterator[Path]:
    """A small file system in memory."""
    folder = Path(tempfile.mkdtemp(prefix="fpt"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def disk_part(service: Service) -> dict[str, object]:
    found: dict[str, object] = service.json("/health")["parts"]["cache_disk"]
    return found


class Trial:
    """One trouble: downloads while it lasts, what /health says, and whether the cache keeps files after it."""

    def __init__(self, service: Service, origin: OriginProcess, name: str) -> None:
        self.service, self.origin, self.name = service, origin, name
        self.wrong: list[str] = []
        self._number = 0

    def download(self) -> str:
        self._number += 1
        path = f"/{FILE}/{self.name}{self._number}"
        get = one(self.service.port, Get(path))
        if not get.right:
            self.wrong.append(get.error)
        return path

    def degraded(self) -> str:
        """Download until it is noticed; the sentence that says so."""

        def noticed() -> object:
            self.download()
            part = disk_part(self.service)
            return part["status"] == "degraded" and part

        part = until(noticed, f"degraded: {self.name}", 30)
        assert self.service.json("/health")["status"] == "degraded"
        for _ in range(3):
            self.download()
        return str(part.get("detail", ""))

    def well(self) -> bool:
        """Whether, without a restart, it is well again and keeps a new file: asked again, nothing is fetched."""
        until(lambda: disk_part(self.service)["status"] == "ok", f"well again: {self.name}", 40)
        path = self.download()
        settled(self.service)
        before = self.origin.sent(path), counters(self.service)["cache.disk_reads"]
        get = one(self.service.port, Get(path))
        return get.right and (self.origin.sent(path), counters(self.service)["cache.disk_reads"] > before[1]) == (
            before[0],
            True,
        )

    def goals(self, sentence: str, well: bool) -> Figures:
        return {
            f"{self.name}: downloads go on": goal(f"{len(self.wrong)} of {self._number} wrong", met=not self.wrong),
            f"{self.name}: /health degraded with a sentence": goal(sentence, met=len(sentence) > 10),
            f"{self.name}: recovers without restart": goal("yes" if well else "no", met=well),
        }


def run(*, only: tuple[str, ...] = ("full", "read-only", "forbidden")) -> Figures:
    goals: Figures = {}
    for name in only:
        with tmpfs(24 * MIB) as folder:
            cache = folder / "cache"
            cache.mkdir(mode=0o700)
            settings = {"cache": {"memory": 0, "disk": {"path": str(cache)}}, "server": {"workers": 1}}
            with lab(settings, prefix=POWERLESS) as (service, origin):
                goals |= _trial(Trial(service, origin, name), folder, cache)
    return {"goals": goals}


def _trial(trial: Trial, folder: Path, cache: Path) -> Figures:
    if trial.name == "full":
        with (folder / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:  # somebody else fills the file system: evicting all of ours does not help
                ballast.write(bytes(MIB))
    elif trial.name == "forbidden":
        cache.chmod(0)
    else:  # a read-only view of it is laid over it: the mount itself is busy with files open for writing
        _run("mount", "--bind", cache, cache)
        _run("mount", "-o", "remount,bind,ro", cache)
    sentence = trial.degraded().replace(str(cache), "FOLDER")
    if trial.name == "full":
        (folder / "ballast").unlink()
    elif trial.name == "forbidden":
        cache.chmod(0o700)
    else:
        _run("umount", "-l", cache)
    return trial.goals(sentence, trial.well())


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)
