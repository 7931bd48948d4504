"""What users have on disk: a run that the first layout of the project wrote, stopped half-way through one branch and before another.

``written_before/run`` is that run's directory, ``written_before/expected.json`` the results of the two branches where it was not stopped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import pytest
import torch

import anarch_core
from anarch_core import load, resume
from anarch_core.config.resolution import recorded
from anarch_core.experiment.results import Results
from anarch_core.report.writer import write_report

pytestmark = pytest.mark.usefixtures("mnist1d")

BEFORE = Path(__file__).with_name("written_before")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE / "run", tmp_path / "run"))


def test_it_is_resumed_with_the_same_segments_and_the_same_results(run: Path) -> None:
    finished = {path.name for path in run.glob("segments/*")}
    results = resume(run, progress="silent")
    assert results.status == "finished"
    expected = json.loads((BEFORE / "expected.json").read_text())
    assert {path.name for path in run.glob("segments/*")} == finished | {segment["id"] for segment in expected}
    written = {segment["id"]: segment for segment in json.loads((run / "results.json").read_text())["segments"]}
    for before in expected:
        now = written[before["id"]]
        assert now.keys() == before.keys() | {"average", "ended", "machines", "noise"}
        assert (now["average"], now["ended"]) == (None, "epochs")
        assert [machine["did"] for machine in now["machines"]] == ["trained"]
        # Another processor rounds otherwise: equal numbers are asked for, not equal bits.
        for name in ("start", "final"):
            assert now[name] == pytest.approx(before[name], rel=1e-4)
        assert now["optimizer_state"] == before["optimizer_state"]
        for scalar, value in before["probes"]["delta"]["end"].items():
            assert now["probes"]["delta"]["end"][scalar] == (value if value is None else pytest.approx(value, rel=1e-3)), scalar
        assert now["probes"]["hessian"]["end"]["lambda_max"] == pytest.approx(before["probes"]["hessian"]["end"]["lambda_max"], rel=0.05)


def test_it_is_asked_for_more(run: Path) -> None:
    """The options of its probes stand nowhere but in its configuration, and are noted before that is replaced."""
    before = recorded(run / "config.toml")
    asked = attrs.evolve(before, relax=(), path=(), probe=("hessian", "gradient"), control=("continued",))
    results = anarch_core.run(asked, out=run, progress="silent")
    assert results.status == "finished"
    assert [segment.kind for segment in results.segments] == ["trunk", "continued"]
    written = json.loads((BEFORE / "run" / "results.json").read_text())["segments"]
    hessians = {segment["id"]: segment["probes"]["hessian"] for segment in written}
    assert {segment.id: segment.probes["hessian"] for segment in results.segments}.items() <= hessians.items()
    assert all(segment.probes["gradient"]["end"]["norm"] > 0 for segment in results.segments)


def test_it_is_reported(run: Path) -> None:
    assert "stopped" in write_report([run]).path.read_text()
    results = Results.read(run)
    assert len(results.segments) == 4


@pytest.mark.parametrize("file", ["29e889ba59d6/final", "29e889ba59d6/snapshots/4", "51a2313d12a8/final", "c9b12bff8c64/final"])
def test_its_checkpoints_are_loaded(run: Path, file: str) -> None:
    model = load(run / "segments" / f"{file}.safetensors")
    assert model(torch.zeros(2, 1, 40)).shape == (2, 10)
