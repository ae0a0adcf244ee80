"""FileProxy that counts nothing, to see what counting costs: ``python -m benchmarks.race.bare serve …``.

Not a way to run it: limits and reports go by the counts.
"""

from __future__ import annotations

import runpy
from typing import Any

from fileproxy.observe.page import Page


def _nothing(*_: Any, **__: Any) -> None: ...


def main() -> None:
    """Workers are forked from this process, so they count nothing either."""
    for verb in ("add", "observe", "traffic"):
        if not hasattr(Page, verb):
            raise RuntimeError(f"the counter page has no {verb} any more")
        setattr(Page, verb, _nothing)
    runpy.run_module("fileproxy", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
