"""The commands of docs/scaling.md that need neither cards nor a cluster."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.mark.slow
def test_one_box(python, tmp_path):
    section = PAGE.read_text().split("## One box")[1].split("\n## ")[0]
    [command] = re.findall("^    (anarch .*)$", section, re.MULTILINE)
    done = python.anarch(*shlex.split(command)[1:], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "swept" / "results.json").exists()
