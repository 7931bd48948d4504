"""``docs/data.md`` says what is true: its modules are written, and its commands run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from anarch_core.cli import main

TEXT = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
MODULES = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
SCRIPTS = re.findall(r"^```python\n(import numpy.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ anarch (run .*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[2])
def test_the_commands_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in MODULES:
        (tmp_path / name).write_text(text)
    for script in SCRIPTS:
        exec(compile(script, "docs/data.md", "exec"), {})
    with pytest.raises(SystemExit) as left:
        main([*shlex.split(command), "--jobs", "1", "--device", "cpu", "--out", "run", "--quiet"])
    assert left.value.code == 0, capsys.readouterr()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {segment["kind"] for segment in results["segments"]} == {"trunk", "branch", "continued", "scratch"}
