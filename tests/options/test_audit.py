"""logs.audit: one line for each admin call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fileproxy.observe.logs import Logs
from fileproxy.settings import Settings


@pytest.mark.option("logs.audit")
def test_where_audit_lines_go(tmp_path: Path) -> None:
    def settings(audit: str) -> Settings:
        error = str(tmp_path / "error.log")
        return Settings.model_validate({"logs": {"access": "off", "error": error, "audit": audit}})

    logs = Logs(settings(str(tmp_path / "one.log")).logs)
    logs.audit(json.dumps({"action": "first"}).encode() + b"\n")
    assert logs.apply(settings(str(tmp_path / "two.log")).logs) == []
    logs.audit(json.dumps({"action": "second"}).encode() + b"\n")
    logs.apply(settings("off").logs)
    logs.audit(json.dumps({"action": "third"}).encode() + b"\n")
    logs.close()
    lines = [line for name in ("one", "two") for line in (tmp_path / f"{name}.log").read_text().splitlines()]
    found = [json.loads(line)["action"] for line in lines]
    assert found == ["first", "second"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error.log", "one.log", "two.log"]
