"""``anarch runs``: what lies in a folder, whoever left it there."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anarch_core.experiment.listing import look_at, runs_below
from anarch_core.experiment.runs import spans

BEFORE = Path(__file__).parents[1] / "running" / "written_before" / "run"


def a_run(path: Path, *, seeds: str = "[0, 1, 2, 5]", status: str | None = "finished", **more: Any) -> Path:
    """A directory as a run leaves it."""
    (path / "segments").mkdir(parents=True)
    (path / "config.toml").write_text(
        f'[run]\ndata = "signals"\nmodel = "net"\nrelax = ["lcn"]\npath = ["lcn@1,efcn@2"]\nseeds = {seeds}\n'
    )
    scores = [("trunk", None, None, 70.0), ("branch", "efcn", 2.0, 81.25), ("scratch", "efcn", None, 60.0)]
    segments = [
        {"kind": kind, "relaxation": relaxation, "switch_epoch": epoch, "seed": 1, "final": {"test_accuracy": score, "test_mse": score}}
        for kind, relaxation, epoch, score in scores
    ]
    if status is not None:
        content = {"schema": "1.1", "status": status, "segments": segments, "failed": {}, "skipped": {}, **more}
        (path / "results.json").write_text(json.dumps(content))
        os.utime(path / "results.json", (1e9, 1e9))
    return path


def test_a_run_at_a_glance(tmp_path):
    found = look_at(a_run(tmp_path / "run", planned=7))
    assert (found.data, found.model, found.relaxations, found.seeds) == ("signals", "net", ("lcn", "lcn@1,efcn@2"), (0, 1, 2, 5))
    assert (found.state, found.finished, found.planned, found.problem) == ("finished", 3, 7, None)
    assert (found.best.score, str(found.best), found.best.segment) == ("accuracy", "81.2 %", "efcn at 2ep, seed 1")
    assert found.written.timestamp() == 1e9
    assert found.bytes == sum(file.stat().st_size for file in found.path.rglob("*") if file.is_file())


def test_the_best_score_is_of_the_name_and_direction_that_results_tell(tmp_path):
    score = {"name": "mse", "label": "error", "unit": "", "higher_is_better": False, "digits": 3}
    best = look_at(a_run(tmp_path / "run", objective={"scores": [score]})).best
    assert (best.score, str(best), best.segment) == ("mse", "60.000", "scratch efcn, seed 1")


def test_a_run_of_an_earlier_version():
    found = look_at(BEFORE)
    assert (found.state, found.finished, found.planned) == ("stopped", 4, None)
    assert found.best.segment == "trunk, seed 0"


@pytest.mark.parametrize(
    ("status", "process", "host", "state"),
    [
        ("running", "this", "here", "running"),
        ("running", "none", "here", "stopped"),
        ("running", "1", "elsewhere", "running"),
        ("running", "who", "here", "stopped"),
        (None, "this", "here", "running"),
        (None, "none", "here", "stopped"),
        ("stopped", "this", "here", "stopped"),
        ("failed", "this", "here", "failed"),
    ],
)
def test_a_run_is_running_while_its_process_is_alive(tmp_path, status, process, host, state):
    path = a_run(tmp_path / "run", status=status)
    number = {"this": os.getpid(), "none": 2**22 + 1}.get(process, process)
    (path / ".lock").write_text(f"{number}\n")
    (path / "run.json").write_text(json.dumps({"host": {"here": platform.node()}.get(host, host)}))
    assert look_at(path).state == state


def test_runs_are_found_wherever_they_lie_and_nothing_else_is(tmp_path):
    a_run(tmp_path / "mine" / "deep" / "one")
    a_run(tmp_path / "two")
    a_run(tmp_path / "two" / "inside")
    a_run(tmp_path / ".hidden")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.toml").write_text("[tool]\n")
    (tmp_path / "project" / "results.json").write_text("[1, 2]")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [str(run.path.relative_to(tmp_path)) for run in runs_below(tmp_path)]
    assert sorted(found) == ["mine/deep/one", "two"]
    assert [run.path for run in runs_below(tmp_path / "two")] == [tmp_path / "two"]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.toml", "[run", "config.toml is no TOML"),
        ("config.toml", None, "cannot read"),
        ("results.json", '{"status": "fin', "cannot read"),
        ("results.json", '{"status": 3}', "holds no results of a run"),
        ("results.json", "[" * 100_000, "cannot read"),
        ("config.toml", "[run]\nseeds = 3\nrelax = 7\n", None),
        ("results.json", '{"status": [], "segments": {"final": null}, "failed": 3, "objective": {"scores": [[]]}}', None),
        ("results.json", '{"status": "finished", "segments": [null, {"final": 1}, {"final": {"test_accuracy": "a"}}]}', None),
    ],
)
def test_what_is_damaged_is_listed_and_said(anarch, tmp_path, file, content, problem):
    path = a_run(tmp_path / "runs" / "it")
    (path / file).write_text(content) if content is not None else (path / file).unlink()
    code, out, err = anarch("runs")
    assert code == 0
    assert "runs/it" in out
    assert ("damaged" in out) == (problem is not None)
    assert (problem or "") in err


def test_the_table(anarch, tmp_path):
    a_run(tmp_path / "runs" / "b")
    shutil.copytree(BEFORE, tmp_path / "runs" / "a")
    code, out, err = anarch("runs")
    assert (code, err) == (0, "")
    head, first, second = out.splitlines()
    assert head.split()[:6] == ["run", "data", "model", "relaxations", "seeds", "state"]
    assert first.split()[:6] == ["runs/b", "signals", "net", "lcn,", "lcn@1,efcn@2", "0-2,5"]
    assert "finished  3         accuracy 81.2 %  efcn at 2ep, seed 1" in first
    assert second.startswith("runs/a")


def test_a_narrow_terminal(anarch, tmp_path, monkeypatch):
    a_run(tmp_path / "runs" / "a", seeds="[3]", failed={"x": {}}, planned=5)
    from rich.console import Console

    monkeypatch.setattr("anarch_core.cli.tables.console", lambda: Console(width=40, force_terminal=True, color_system=None))
    _, out, _ = anarch("runs")
    lines = [line.rstrip() for line in out.splitlines()]
    assert all(len(line) <= 40 for line in lines)
    assert lines[:4] == ["runs/a", "  signals, net, lcn, lcn@1,efcn@2, seed", "  3", "  finished, segments: 3 of 5, 1 failed"]


def test_for_programs(anarch, tmp_path):
    a_run(tmp_path / "runs" / "a")
    _, out, _ = anarch("runs", "--json")
    [run] = json.loads(out)["runs"]
    assert run["path"] == "runs/a"
    assert run["seeds"] == [0, 1, 2, 5]
    assert run["best"] == {"score": "accuracy", "value": 81.25, "unit": "%", "digits": 1, "segment": "efcn at 2ep, seed 1"}
    assert run["written"] == "2001-09-09T01:46:40+00:00"


def test_where_there_are_none(anarch, tmp_path):
    assert anarch("runs") == (1, "", "Error: there is no folder runs; name the one that runs are in, or start one by anarch run\n")
    assert anarch("runs", str(tmp_path)) == (0, f"no runs in {tmp_path}\n", "")


def test_it_imports_nothing_that_takes_seconds(tmp_path):
    a_run(tmp_path / "a")
    program = "import sys, anarch_core.cli as cli\ntry: cli.main(['runs', sys.argv[1]])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(("numbers", "text"), [((), ""), ((4,), "4"), ((1, 2), "1,2"), ((3, 1, 2, 7), "1-3,7")])
def test_seeds_are_told_in_short(numbers, text):
    assert spans(numbers) == text
