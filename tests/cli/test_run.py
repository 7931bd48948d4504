from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from anarch_core.config.files import SETTINGS, to_toml
from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig

TINY = (
    "--relax",
    "efcn",
    "--switch",
    "at:0,1",
    "--epochs",
    "1",
    "--branch-epochs",
    "1",
    "--train-limit",
    "200",
    "--jobs",
    "1",
    "--device",
    "cpu",
)


pytestmark = pytest.mark.usefixtures("mnist1d", "one_figure")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--lr", "fast"], "Invalid value for '--lr': expected a number above 0 and up to 1,000,000, got 'fast'"),
        (["--epochs", "1.5"], "Invalid value for '--epochs': expected a whole number from 1 to 1,000,000, got 1.5"),
        (["--jobs", "many"], "Invalid value for '--jobs'"),
        (["--seeds", "3-1"], "Invalid value for '--seeds'"),
        (["--control", "both"], "Invalid value for '--control': expected 'none' or some of continued, scratch"),
        (["--precision", "float16"], "Invalid value for '--precision': expected one of float32, float64"),
        (["--lcn-foo", "3"], "--lcn-foo is an option of relaxation 'lcn', which is not chosen"),
        (["--sgd-momentum", "x"], "Invalid value for '--sgd-momentum'"),
        (["--epoch", "3"], "--epoch"),
        (["efcn"], "efcn"),
    ],
)
def test_wrong_usage_is_told_in_one_line_and_exits_with_2(anarch, args, message):
    code, _, err = anarch("run", *args)
    assert code == 2
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--relax", "efnc", "--probe", "dleta"], "unknown relaxation 'efnc'; did you mean 'efcn'?"),
        (["--relax", "efnc", "--probe", "dleta"], "unknown probe 'dleta'; did you mean 'delta'?"),
        (["--data", "mnst", "--relax", "efnc"], "unknown dataset 'mnst'; did you mean 'mnist'"),
        (["--data", "mnst", "--relax", "efnc"], "unknown relaxation 'efnc'"),
        (
            ["--data", "digits.npz"],
            "; give a file with the name of what reads it, NAME:FILE, and a function of your own as package.module:",
        ),
        (["--model", "mine.py"], "; give a function of your own as package.module:function"),
        (["--relax", "hessian"], "'hessian' names a probe, use --probe hessian"),
        (["--recipe", "paper"], "unknown recipe 'paper'; did you mean 'paper-cifar10'"),
        (["--control", "scratch"], "there is no relaxation"),
        (["--branch-lr", "0.1"], "--branch-lr changes nothing"),
        (["--relax", "efcn", "--switch", "soon"], "unknown schedule 'soon'"),
        (["--relax", "efcn", "--switch", "at:soon"], "'soon' is not a moment"),
        (["--config", "nowhere.toml"], "cannot read nowhere.toml: No such file or directory"),
        (["--config", "broken.toml"], "broken.toml is not valid TOML"),
        (["--sgd-momentum", "2"], "[sgd] 'momentum' must be from 0 to below 1: 2.0"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line_and_exits_with_1(anarch, args, message):
    Path("broken.toml").write_text("[run")
    code, _, err = anarch("run", *args)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert message in err


def test_mistakes_are_found_without_torch():
    script = (
        "import sys; from anarch_core.cli import main\ntry: main(['run', '--relax', 'efnc'])\nfinally: sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_a_moment_after_the_end_of_the_trunk_is_refused_before_anything_is_trained(anarch):
    code, _, err = anarch("run", *TINY, "--switch", "at:0,2", "--out", "out")
    assert code == 1
    assert "switch at 2 lies beyond the trunk, which ends after 1 epochs" in err.splitlines()[-1]
    assert not Path("out/segments").exists()


def test_every_setting_has_a_flag_and_a_section_of_help(anarch):
    code, out, _ = anarch("run", "--help")
    assert code == 0
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')}" in out


def test_flags_files_and_options_of_components_reach_the_run(anarch, monkeypatch):
    seen = []
    monkeypatch.setattr("anarch_core.running.runner.run", lambda config, out, progress: seen.append((config, out)))
    monkeypatch.setattr("anarch_core.cli.outcome.show", lambda results, saying: None)
    Path("mine.toml").write_text('[run]\nprobe = ["delta"]\nlr = 0.3\n[relax.tiled]\nperiod = 5\n')
    flags = ["--relax", "efcn,tiled", "--relax", "lcn", "--seeds", "0-2", "--lr", "0.2", "--sgd-momentum", "0.5", "--layers", "*,!*.0"]
    assert anarch("run", "--config", "mine.toml", *flags, "--validation", "0.1", "--out", "here")[0] == 0
    config, out = seen[0]
    assert out == Path("here")
    assert (config.relax, config.seeds, config.lr, config.probe) == (("efcn", "tiled", "lcn"), (0, 1, 2), 0.2, ("delta",))
    assert (config.layers, config.validation) == (("*", "!*.0"), 0.1)
    assert config.options["sgd"]["momentum"] == 0.5
    assert config.options["tiled"]["period"] == 5


def test_relaxations_on_a_path_bring_their_options_too(anarch, monkeypatch):
    seen = []
    monkeypatch.setattr("anarch_core.running.runner.run", lambda config, out, progress: seen.append(config))
    monkeypatch.setattr("anarch_core.cli.outcome.show", lambda results, saying: None)
    assert anarch("run", "--relax", "efcn", "--path", "tiled@1,lcn@2", "--tiled-period", "5")[0] == 0
    assert seen[0].options["tiled"]["period"] == 5


def test_the_same_experiment_has_the_same_directory():
    config = RunConfig(data="tensors:a/b.safetensors", model="my_package.models:build", relax="efcn")
    folder = config.directory
    assert folder.parent == Path("runs")
    assert folder.name.startswith("tensors-a-b.safetensors-my_package.models-build-")
    assert attrs.evolve(config, jobs=2).directory == folder
    assert attrs.evolve(config, seeds=1).directory != folder


def test_a_run_its_repetition_and_its_resumption(anarch):
    code, out, _ = anarch("run", *TINY)
    assert code == 0
    folder = resolve({"relax": "efcn", "switch": "at:0,1", "epochs": 1, "branch_epochs": 1, "train_limit": 200}).directory
    results = json.loads((folder / "results.json").read_text())
    assert [segment["kind"] for segment in results["segments"]].count("branch") == 2
    assert str(folder / "results.json") in out
    assert "scratch efcn" in out
    config = resolve({}, [folder / "config.toml"])
    assert to_toml(config) == (folder / "config.toml").read_text()
    times = [file.stat().st_mtime_ns for file in sorted(folder.glob("segments/*/result.json"))]
    assert anarch("run", *TINY)[:2] == (0, out)
    assert anarch("resume", str(folder))[:2] == (0, out)
    assert [file.stat().st_mtime_ns for file in sorted(folder.glob("segments/*/result.json"))] == times
    for command in ("run", "plan"):
        code, _, err = anarch(command, *TINY, "--lr", "0.05", "--out", str(folder))
        assert code == 1
        assert "holds another experiment, which differs in lr" in err.splitlines()[-1]
    code, out, _ = anarch("plan", *TINY, "--seeds", "0,1", "--out", str(folder), "--no-time")
    assert code == 0
    assert re.search(rf"{folder}, where {len(times)} of them are finished", out)


def test_a_run_is_gone_on_with_elsewhere(anarch, monkeypatch):
    """What is said of where and how fast is taken from then on; the segments that are there are the same."""
    code, out, _ = anarch("run", *TINY, "--out", "run", "--threads", "1")
    assert code == 0
    assert anarch("resume", "run", "--workers", "local", "--jobs", "2", "--threads", "2", "--device", "cpu")[:2] == (0, out)
    config = resolve({}, [Path("run/config.toml")])
    assert (config.workers, config.jobs, config.threads, config.device) == ("local", 2, 2, "cpu")
    assert anarch("resume", "run")[:2] == (0, out)
    assert resolve({}, [Path("run/config.toml")]) == config


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["--workers", "lokal"], 1, "unknown workers 'lokal'; did you mean 'local'?"),
        (["--workers", "hessian"], 1, "unknown workers 'hessian': 'hessian' names a probe, use --probe hessian"),
        (["--jobs", "0"], 2, "Invalid value for '--jobs': "),
        (["--device", "tpu"], 2, "Invalid value for '--device': "),
        (["--device", "cuda:77"], 1, "cuda:77"),
        (["--slurm-partition", "gpu"], 2, "is an option of workers 'slurm', which is not chosen; add '--workers slurm' or leave it out"),
        (["--epochs", "3"], 2, "No such option"),
    ],
)
def test_what_cannot_be_said_of_where_it_goes_on(anarch, tmp_path, given, code, message):
    config = resolve({"epochs": 1, "relax": "efcn", "switch": "at:0"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(to_toml(config))
    found, _, err = anarch("resume", "run", *given)
    assert found == code
    assert message in err.splitlines()[-1]


def test_resuming_what_is_no_run_is_refused(anarch):
    code, _, err = anarch("resume", "nowhere")
    assert code == 1
    assert err == "Error: nowhere holds no run: there is no config.toml in it\n"
