"""``docs/own_work.md`` is true: its blocks run, one after another, in an empty folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from anarch_core import cli
from anarch_core.data import load_data
from anarch_core.plugin import get_registry

TEXT = (Path(__file__).parents[2] / "docs" / "own_work.md").read_text()
BLOCKS = re.findall(r"^```(python|console)(?: title=\"([\w.]+)\")?\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The working directory, where Python also looks for modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    threads = torch.get_num_threads()
    yield tmp_path
    sys.modules.pop("mine", None)
    sys.modules.pop("mine_again", None)
    torch.set_num_threads(threads)


def commands(block):
    return [shlex.split(line)[1:] for line in block.replace("\\\n", "").splitlines()]


@pytest.fixture
def modules(empty_folder):
    """Those of the page, in files."""
    for _, file, block in BLOCKS:
        if file:
            Path(file).write_text(block)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(("function", "package"), [("as_torch", "torch"), ("as_splits", "datasets")])
def test_data_of_other_kinds_are_the_same(function, package):
    pytest.importorskip(package)
    regression = get_registry().create("objective", "mse")
    expected, found = load_data("mine:signals", objective=regression), load_data(f"mine_again:{function}", objective=regression)
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(found, part), getattr(expected, part))


@pytest.mark.slow
@pytest.mark.usefixtures("modules", "one_figure")
def test_the_walk(capsys):
    names: dict[str, object] = {}
    shown: list[str] = []
    for number, (language, file, block) in enumerate(BLOCKS):
        if file:
            continue
        if language == "python":
            exec(compile(block, f"docs/own_work.md, block {number}", "exec"), names)
        else:
            shown += capsys.readouterr().out.splitlines()
            for command in commands(block):
                with pytest.raises(SystemExit) as caught:
                    cli.main(command)
                captured = capsys.readouterr()
                assert caught.value.code == 0, captured.err
                assert "[1/" not in captured.err, "the command is the call, whose run is finished"
    shown = [line for line in [*shown, *capsys.readouterr().out.splitlines()] if re.search(r" R2 [\d.]+$", line)]
    said = re.findall(r"^.* R2 [\d.]+$", TEXT, re.MULTILINE)
    assert [line.split("R2")[0] for line in shown] == [line.split("R2")[0] for line in said]
    assert [float(line.split("R2")[1]) for line in shown] == pytest.approx([float(line.split("R2")[1]) for line in said], abs=0.03)
    assert all(segment.average is not None for segment in names["settled"].segments)
    assert len(names["trunk"].switches) == 1
    assert list(names["norms"]) == list(range(11))
    assert names["chain"] == ["lcn[0]", "lcn[0]>efcn[2]"]
    assert names["moved"].off_local > 0
    assert "SegmentFinished: lcn at 1ep, seed 0" in names["diary"].entries
