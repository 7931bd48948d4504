from __future__ import annotations

from pathlib import Path

import pytest

from anarch_core import cli

pytestmark = pytest.mark.usefixtures("mnist1d")


@pytest.fixture
def plan(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def plan(*args: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["plan", "--device", "cpu", *args])
        return caught.value.code, capsys.readouterr().out

    return plan


def test_a_plan_shows_layers_segments_and_time_and_writes_nothing(plan):
    code, out = plan("--relax", "efcn,lcn", "--switch", "at:0,3,5", "--epochs", "5", "--branch-epochs", "2", "--seeds", "0,1")
    assert code == 0
    assert "24 (2 trunk, 4 scratch, 6 continued, 12 branch), 54 epochs in all" in out
    assert "at:0,3,5: 0ep, 3ep, 5ep" in out
    assert "time " in out
    assert "at once are of no use: the longest way is trunk, seed " in out.replace("\n", " ")
    lines = [line.split() for line in out.splitlines()]
    assert ["features.2", "Conv1d", "1,900", "125,250", "501.0", "kB", "250,000"] in lines
    assert any(line[:2] == ["efcn", "178,385"] for line in lines)
    memory = {line[0]: line for line in lines if line[-1:] == ["samples"]}
    assert list(memory) == ["constrained", "efcn", "lcn"]
    assert all(line[-3:] == ["yes", "all", "samples"] for line in memory.values())
    assert list(Path().iterdir()) == []


def test_without_timing_no_step_is_taken(plan):
    code, out = plan("--no-time", "--relax", "efcn")
    assert code == 0
    assert "time " not in out


MODEL = """
from torch import nn

def build():
    convolution, transposed = nn.Conv1d(1, 2, 3), nn.ConvTranspose1d(2, 2, 3)
    return nn.Sequential(convolution, transposed, nn.Flatten(), nn.Linear(80, 10))
"""


def test_where_inputs_are_kept_and_how_they_are_augmented_is_said(plan):
    out = plan("--no-time", "--data-on", "host", "--augment", "crop:2,flip")[1]
    assert "inputs     kept in the host's memory and files, read a batch ahead" in out
    assert "augment    crop:2, flip" in out
    assert "augment" not in plan("--no-time")[1]


def test_a_run_that_would_not_start_says_why(plan):
    Path("network_of_mine.py").write_text(MODEL)
    code, out = plan("--no-time", "--relax", "efcn", "--model", "network_of_mine:build")
    assert code == 1
    assert "\n1 cannot be relaxed: " in out
    assert "\nThis run would not start: 1 cannot be relaxed: " in out
    assert plan("--no-time", "--relax", "efcn", "--model", "network_of_mine:build", "--layers", "*,!1")[0] == 0


def test_a_card_that_is_not_there_is_refused(plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        code, _ = plan("--device", "cuda:0,cuda:2")
    assert code == 1


def test_layers_that_match_nothing_are_refused(plan):
    assert plan("--no-time", "--relax", "efcn", "--layers", "nothing.*")[0] == 1


def test_a_schedule_that_finds_its_moments_later_says_so(plan):
    assert "plateau:3: found while the trunk trains" in plan("--no-time", "--relax", "efcn", "--switch", "plateau:3")[1]


def test_a_schedule_that_nothing_goes_by_is_not_told(plan):
    assert "switch" not in plan("--no-time", "--path", "lcn@1,efcn@2", "--epochs", "3")[1]
    assert "switch" not in plan("--no-time")[1]
    assert "switch" in plan("--no-time", "--control", "continued")[1]


def test_a_plan_of_several_processes_shows_what_each_has_and_sends_and_takes_no_step(plan):
    code, out = plan("--shards", "2", "--relax", "efcn", "--switch", "at:1", "--epochs", "2", "--branch-epochs", "1")
    assert code == 0
    facts = " ".join(out.split())
    assert "shards 2 processes train a segment together, each has a part of every relaxed layer" in facts
    assert "time not measured: a step takes several processes, and a plan starts none" in facts
    lines = [line.split() for line in out.splitlines()]
    # Of 25 channels the first process has 13 (of 177,125 weights), and the dense layer (1,260). In a step of 100 samples it gives its
    # outputs of 20, 10 and 5 positions, and sums the gradients by what the second and the third layer are given: 25 channels of 20 and 10.
    has, sends = 4 * (177_125 * 13 / 25 + 1_260), 4 * 100 * (13 * 35 + 25 * 30)
    assert (f"{has / 1e3:.1f}", f"{sends / 1e3:.1f}") == ("373.5", "482.0")
    assert any(line[:8] == ["efcn", "178,385", "713.5", "kB", "373.5", "kB", "482.0", "kB"] for line in lines)
    assert [line[0] for line in lines if line[-1:] == ["yes"] and line[0].isdigit()] == ["1", "2", "4", "8"]
