"""``docs/python.md`` says what is true: its lines run, one after the other, in an empty folder."""

from __future__ import annotations

import pkgutil
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from anarch_core.cli import COMMANDS

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.usefixtures("mnist1d", "one_figure")
def test_every_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    main = types.ModuleType("__main__")  # as in a notebook, whose names are those of the main module
    monkeypatch.setitem(sys.modules, "__main__", main)
    names: dict[str, Any] = vars(main)
    said: dict[str, str] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
        said[block] = capsys.readouterr().out
    for block, out in said.items():
        promised = re.findall(r"print\(.*\)  # (.*)", block)
        assert promised == [line for line in promised if line in out.splitlines()]
    assert (names["results"].status, len({segment.seed for segment in names["results"].segments})) == ("finished", 3)
    assert names["own"].model == "__main__:Net"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "own", "performance.pdf", "relaxed.safetensors"}
    assert names["report"].path.is_file()


def test_every_command_has_a_function() -> None:
    rows = re.findall(r"^\| `anarch ([^|]*)\| (.*) \|$", TEXT, re.MULTILINE)
    named = {word for commands, _ in rows for word in re.findall(r"[a-z]+", commands)}
    assert named - {"list"} >= COMMANDS.keys()
    for _, functions in rows:
        for name in re.findall(r"`anarch_core\.([a-z_.]+)", functions):
            assert callable(pkgutil.resolve_name(f"anarch_core.{name}")), name
