"""What the observer ``mlflow`` logs to a database in the run directory, read back by MLflow's client."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import anarch_core
from anarch_core.errors import MissingDependencyError
from anarch_core.plugin import get_registry

SMALL = {
    "relax": "efcn",
    "switch": "at:1",
    "epochs": 2,
    "branch_epochs": 1,
    "train_limit": 100,
    "jobs": 1,
    "probe": "delta",
    "control": "none",
}


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setattr("anarch_core.running.audience.PATIENCE", 100.0)  # a machine may be busy
    return pytest.importorskip("mlflow")


def logged(mlflow: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    """A client, and the runs in a run directory by segment."""
    client = mlflow.MlflowClient(f"sqlite:///{path}/mlflow.db")
    experiment = client.get_experiment_by_name("trees")
    return client, {run.data.tags["anarch.segment"]: run for run in client.search_runs([experiment.experiment_id])}


def test_a_tree_is_nested_runs_on_the_clock_of_the_network(mlflow: Any, tmp_path: Path) -> None:
    results = anarch_core.run(**SMALL, observe="mlflow:trees", out=tmp_path / "run", progress="silent")
    trunk, branch = results.segments
    client, runs = logged(mlflow, tmp_path / "run")
    assert runs.keys() == {"all", trunk.id, branch.id}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert (runs["all"].info.run_name, runs["all"].data.params["run.epochs"]) == ("run", "2")
    assert runs[trunk.id].data.tags["mlflow.parentRunId"] == runs["all"].info.run_id
    assert runs[branch.id].data.tags["mlflow.parentRunId"] == runs[trunk.id].info.run_id
    assert (runs[branch.id].data.params["relaxation"], runs[branch.id].data.params["switch_epoch"]) == ("efcn", "1.0")

    def history(key: str) -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in client.get_metric_history(runs[branch.id].info.run_id, key)]

    unit = branch.iterations_per_epoch
    assert history("train_loss") == [(branch.switch_iteration + row["epoch"] * unit, row["train_loss"]) for row in branch.history]
    assert history("delta.end.off_local") == [(branch.switch_iteration + unit, branch.scalars("delta", "end")["off_local"])]

    before = {identity: run.data.metrics for identity, run in runs.items()}
    anarch_core.resume(tmp_path / "run", progress="silent")
    _, again = logged(mlflow, tmp_path / "run")
    assert {identity: run.data.metrics for identity, run in again.items()} == before
    assert len(history("train_loss")) == len(branch.history)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"needs the package mlflow .*; pip install mlflow"):
        get_registry().create("observer", "mlflow")
