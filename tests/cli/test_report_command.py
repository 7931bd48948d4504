"""``anarch report``, and the report that ``anarch run`` ends with, on real runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from anarch_core import cli
from anarch_core.experiment.results import Results
from anarch_core.report import writer
from anarch_core.report.catalogue import figures
from anarch_core.running.runner import run

PROBES = (
    "delta,hessian,gradient,ablation,filters,weights,equivariance,interpolation,soft-projection,plane,cka,alignment,ntk,sharpness,stability"
)
OPTIONS = {
    "alignment": {"points": 3, "restarts": 0},
    "interpolation": {"layer_wise": True, "points": 3},
    "plane": {"points": 3},
    "sharpness": {"pairs": 2, "starts": 1, "steps": 1},
    "stability": {"points": 3},
}


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory) -> Results:
    out = tmp_path_factory.mktemp("run") / "tiny"
    compared = {"seeds": "0,1", "noise_seeds": "0,1", "control": "continued", "probe_at": "1"}
    return run(small(probe=PROBES, switch="at:1", epochs=2, options=OPTIONS, **compared), out=out, progress="silent")


@pytest.fixture
def anarch(capsys):
    def call(*args: object, code: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        assert caught.value.code == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out if code == 0 else captured.err

    return call


@pytest.fixture(scope="module")
def reported(finished) -> subprocess.CompletedProcess[str]:
    """``anarch report`` in an interpreter of its own, without a display; its errors are the names of all modules it imported."""
    code = "import sys; from anarch_core.cli import main\ntry: main()\nfinally: print(*sys.modules, sep='\\n', file=sys.stderr)"
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    command = [sys.executable, "-c", code, "report", finished.path]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_a_run_with_all_probes_has_all_figures(reported, finished):
    out = reported.stdout
    assert "left out" not in out
    assert out.splitlines()[-1] == f"report:  {finished.path / 'report.html'}"
    assert len(list((finished.path / "figures").iterdir())) == 2 * len(figures())
    page = (finished.path / "report.html").read_text()
    assert "What went wrong" not in page
    assert "equivariance: at the start of the segment" in page


def test_a_report_needs_neither_torch_nor_a_display(reported):
    imported = set(reported.stderr.splitlines())
    assert "matplotlib.figure" in imported
    assert not imported & {"torch", "matplotlib.pyplot"}


def test_what_is_no_run_is_told_in_one_line(anarch, tmp_path):
    err = anarch("report", tmp_path, code=1)
    assert err == f"Error: {tmp_path} holds no results: there is no results.json in it; give the directory that 'anarch run' wrote\n"
    assert "Missing argument" in anarch("report", code=2)


def test_a_run_ends_with_its_report(anarch, signals, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "figures", lambda: figures()[:1])
    command = ["run", "--data", f"tensors:{signals}", "--model", "cnn1d", "--relax", "efcn", "--switch", "at:1", "--epochs", 1]
    command += ["--branch-epochs", 1, "--jobs", 1, "--device", "cpu", "--control", "none", "--out", tmp_path / "run"]
    assert anarch(*command).rstrip().endswith(f"report:  {tmp_path / 'run' / 'report.html'}")
    assert (tmp_path / "run/figures/training-curves.svg").exists()

    monkeypatch.setattr(writer, "page", lambda *_: 1 / 0)
    out = anarch(*command)
    assert "no report was written: ZeroDivisionError" in out
    assert "efcn" in out
