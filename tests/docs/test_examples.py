"""What is in ``examples/`` works: distributions are installed as any third party's and tested where they are installed; scripts run."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DISTRIBUTIONS = sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml"))
RUNS = {
    "anarch-lrlc": ["--relax", "lrlc", "--probe", "delta,sharing-rank"],
    "anarch-residual": ["--relax", "residual", "--optimizer", "residual-sgd", "--probe", "delta"],
    "anarch-beta-lasso": ["--relax", "efcn", "--optimizer", "beta-lasso", "--probe", "delta"],
    "anarch-gpsa": ["--relax", "gpsa", "--probe", "delta"],
    "anarch-monarch": ["--model", "monarch-mlp", "--relax", "monarch", "--probe", "delta"],
    "anarch-mlflow": ["--relax", "efcn", "--probe", "delta", "--observe", "mlflow"],
    "anarch-ssh": [
        *("--relax", "efcn", "--probe", "delta", "--workers", "ssh", "--ssh-hosts", "node1"),
        *("--ssh-by", "env --chdir=/ HOST={host}", "--ssh-python", sys.executable),
    ],
    "anarch-wandb": ["--relax", "efcn", "--probe", "delta", "--observe", "wandb"],
}
NEEDS = {"anarch-mlflow": "mlflow", "anarch-wandb": "wandb"}
"""Packages that a distribution passes on to, without which it is installed and looked at, but not run."""
every_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which all distributions are installed, in a folder of their own; built from copies, to leave nothing here."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("building the distributions needs setuptools; pip install 'anarch[test]'")
    folder = tmp_path_factory.mktemp("installed")
    copies = [str(shutil.copytree(EXAMPLES / name, folder / name)) for name in DISTRIBUTIONS]
    command = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder / "site"), *copies]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}


def well(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, once it is certain that it went well."""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_distribution_is_run_below() -> None:
    assert list(RUNS.keys() - set(DISTRIBUTIONS)) == list(set(DISTRIBUTIONS) - RUNS.keys()) == []


@every_distribution
def test_metadata_are_complete(name: str) -> None:
    project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text())["project"]
    own = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    assert project["name"] == name
    assert project["dependencies"][0] == "anarch>=0.1,<0.2"
    assert (len(project["dependencies"]) > 1) == (name in NEEDS)
    assert own["version"].startswith("0.1.")
    assert project["requires-python"] == own["requires-python"]
    assert list(project["entry-points"]["anarch.plugins"].values()) == [name.replace("-", "_")]
    readme = (EXAMPLES / name / project["readme"]).read_text()
    headings = ["## What it computes", "## Use", "## What was measured", "## Limits"]
    assert [heading for heading in headings if heading not in readme] == []


@pytest.mark.slow
@every_distribution
def test_doctor_finds_nothing_wrong(name: str, installed: dict[str, str], python: Any) -> None:
    text = well(python.anarch("plugins", "doctor", name.removeprefix("anarch-"), environment=installed))
    assert f"{name} 0.1.0): loaded" in text


@pytest.mark.slow
@every_distribution
def test_its_own_tests_pass_where_it_is_installed(name: str, installed: dict[str, str], python: Any) -> None:
    well(python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", environment=installed, folder=EXAMPLES / name))


@pytest.mark.slow
@every_distribution
def test_it_is_run_by_name(name: str, installed: dict[str, str], python: Any, signals: Path, tmp_path: Path) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    settings = ["--data", f"tensors:{signals}", "--batch-size", "10", "--device", "cpu"]
    settings += [] if "--model" in RUNS[name] else ["--model", "cnn1d", "--cnn1d-channels", "3"]
    times = ["--epochs", "2", "--branch-epochs", "1", "--switch", "at:1", "--jobs", "1"]
    well(python.anarch("run", *settings, *times, *RUNS[name], "--out", tmp_path / "run", environment=installed))
    segments = json.loads((tmp_path / "run" / "results.json").read_text())["segments"]
    (branch,) = [segment for segment in segments if segment["kind"] == "branch"]
    assert branch["exactness"]["exact"]
    assert branch["probe_notes"] == {}
    assert branch["probes"]["delta"]["end"]["shared"] > 0


@pytest.mark.slow
def test_torchvision_script(tmp_path: Path, python: Any) -> None:
    pytest.importorskip("torchvision", exc_type=Exception)
    text = well(python(EXAMPLES / "torchvision_resnet18.py", environment={**os.environ, "TMPDIR": str(tmp_path)}))
    assert "exact: True" in text
    assert "same outputs: True" in text
    assert "torchvision loads the projected network" in text


def test_timm_script(tmp_path: Path, python: Any) -> None:
    """Where timm is missing the script says so, and nothing else."""
    done = python(EXAMPLES / "timm_model.py", environment={**os.environ, "TMPDIR": str(tmp_path)})
    if importlib.util.find_spec("timm") is None:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "timm is not installed, so there is no model to relax; pip install timm\n"
    else:
        assert done.returncode == 0, done.stderr
        assert "same outputs: True" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("mnist1d")
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runpy.run_path(str(EXAMPLES / "notebook_api.py"), run_name="__main__")
    text = capsys.readouterr().out
    assert "exact: True" in text
    assert [line.split()[0] for line in text.splitlines()[-3:]] == ["trunk", "continued", "branch"]
