"""The commands of docs/scaling.md that need neither cards nor a cluster."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import attrs
import pytest

from anarch_core import cli
from anarch_core.experiment.machines import Machine
from anarch_core.planning import plan

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.mark.slow
def test_one_box(python, tmp_path):
    section = PAGE.read_text().split("## One box")[1].split("\n## ")[0]
    [command] = re.findall("^    (anarch .*)$", section, re.MULTILINE)
    done = python.anarch(*shlex.split(command)[1:], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "swept" / "results.json").exists()


def test_the_plan_shows_what_more_segments_at_once_bring(tmp_path, monkeypatch, mnist1d, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "TIMED_SECONDS", 0.01)
    section = PAGE.read_text().partition("\n## How many are worth it\n")[2]
    command, shown = re.search(r"^\$ anarch (plan .*)\n([^`]*)^```", section, re.MULTILINE).groups()
    with pytest.raises(SystemExit) as caught:
        cli.main(shlex.split(command))
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for line in shown.splitlines():
        assert line.split("  ")[0].split(" than ")[0] in out


def test_what_is_recorded_of_a_machine_is_in_the_reference():
    row = next(line for line in PAGE.with_name("results.md").read_text().splitlines() if line.startswith("| `machines` |"))
    assert {field.name for field in attrs.fields(Machine)} <= set(re.findall(r"`(\w+)`", row))
