"""Processor seconds of a process and everything below it, what others took, and on which processor a command runs."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _fields(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the third on (the second, the name, may hold anything); [] when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def tree(root: int) -> list[int]:
    """``root`` and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _fields(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(children.get(pid, []))
    return found


def cpu_seconds(root: int) -> float:
    """User and system seconds the tree has used so far, its ended and awaited children included (proc(5): 14 to 17)."""
    ticks = 0
    for pid in tree(root):
        if fields := _fields(pid):
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / TICKS


def stolen_seconds() -> float:
    """Seconds that the machine's host gave to others while our processors had work, all together (proc(5): steal)."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / TICKS


def pinned(core: int, command: list[str]) -> list[str]:
    """The command, bound to one processor together with everything it starts."""
    return ["taskset", "--cpu-list", str(core), *command]
