"""What a machine measured before: a file for each, by what makes figures comparable."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def fingerprint() -> dict[str, str]:
    """What figures depend on beside our code."""
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return {
        "cpu": found[1].strip() if found else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": f"{platform.python_version()} {platform.python_compiler()}",
    }


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where baselines lie when nobody says: ``$XDG_STATE_HOME/fileproxy/baselines``."""
    state = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".local/state"
    return Path(state) / "fileproxy" / "baselines"


def place(home: Path, machine: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:12]
    return home / f"{digest}.json"


def save(home: Path, machine: Mapping[str, str], baseline: Mapping[str, Any]) -> Path:
    """Whole or not at all."""
    home.mkdir(parents=True, exist_ok=True)
    path = place(home, machine)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"machine": dict(machine), **baseline}, indent=1) + "\n")
    fresh.replace(path)
    return path


def load(home: Path, machine: Mapping[str, str]) -> dict[str, Any] | None:
    """This machine's baseline; None where there is none. ValueError: the file is none of ours."""
    path = place(home, machine)
    if not path.exists():
        return None
    said = json.loads(path.read_text())
    if not isinstance(said, dict) or said.get("machine") != dict(machine) or not isinstance(said.get("rounds"), dict):
        raise ValueError(f"{path} is no baseline of this machine")
    return said
