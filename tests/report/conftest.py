"""Run directories written by hand, with every probe's results, so that what a figure must show is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from anarch_core.checkpoint.network import save_state
from anarch_core.experiment.results import MetricRecord, ObjectiveRecord, Results
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.store import RunStore
from anarch_core.files.replacing import write_text
from anarch_core.files.tables import write_json

SWITCHES = (0.0, 2.0, 10.0)
PROBES = (
    "delta",
    "hessian",
    "gradient",
    "ablation",
    "filters",
    "weights",
    "interpolation",
    "equivariance",
    "soft-projection",
    "ntk",
    "plane",
    "cka",
    "sharpness",
    "stability",
    "alignment",
)

CERTIFICATE = {"value": 20.0, "residual": 0.1, "error_bound": 1.5, "products": 6, "converged": True, "confidence": 0.99}


def scores(test: float, loss: float = 0.4) -> dict[str, float]:
    return {"train_loss": loss, "train_accuracy": 99.0, "test_loss": loss, "test_accuracy": test}


def entry(
    kind: str, test: float, relaxation: str | None = None, switch: float | None = None, seed: int = 0, noise: int = 0
) -> dict[str, Any]:
    epochs = 20.0 if kind == "trunk" else 10.0
    start = 10.0 + 2 * (switch or 0)
    rows = [{"epoch": 0, **scores(start, 2.3)}, {"epoch": 1, "train_loss": 1.5, "train_accuracy": 40.0}]
    return {
        "id": f"{kind}-{(relaxation or '').replace('>', '-')}-{switch}-{seed}-{noise}",
        "kind": kind,
        "seed": seed,
        "noise": noise,
        "relaxation": relaxation,
        "parent": None,
        "parent_iteration": None,
        "switch_epoch": switch,
        "switch_iteration": None if switch is None else int(4 * switch),
        "epochs": epochs,
        "iterations_per_epoch": 4,
        "parameters": 5210,
        "diverged_epoch": None,
        "start": scores(start, 2.3 - 0.2 * (switch or 0)),
        "final": scores(test),
        "exactness": {"error": 1e-7, "tolerance": 1e-4, "exact": True, "dtype": "float32", "layers": {"features.0": 1e-7}}
        if kind == "branch"
        else None,
        "probes": {},
        "probe_details": {},
        "probe_notes": {},
        "optimizer_state": None,
        "switches": [],
        "seconds": 1.5,
        "history": [*rows, {"epoch": epochs, **scores(test)}],
    }


def by_layer(layer: str, averaged: float) -> dict[str, Any]:
    """What was found on the path of a layer."""
    barriers = {"train": {"chord": averaged / 2}, "test": {"chord": averaged / 2}}
    return {"layer": layer, "averaged": {"train": averaged, "test": averaged + 0.1}, "barriers": barriers}


def measured(segment: dict[str, Any], folder: Path, probes: Sequence[str], dimensions: int) -> None:
    """Adds what the probes would have found: δ falls with the switch time, off-local weights are worth five points."""
    relaxed, switch, test = segment["relaxation"] is not None, segment["switch_epoch"] or 0.0, segment["final"]["test_accuracy"]
    delta = 0.9 if segment["kind"] == "scratch" else 0.4 / (1 + switch)
    found: dict[str, dict[str, float]] = {
        "hessian": {"lambda_max": 90.0, "lambda_max_shared": 20.0 + switch, "lambda_max_residual": 0.1, "products": 6.0},
        "gradient": {"norm": 9.0, "norm_shared": 0.5 + switch},
        "equivariance": {"equivariance_error": delta if relaxed else 0.0, "output_change": 0.2, "agreement": 90.0, "distance": 1 + delta},
    }
    found["ntk"] = {
        "alignment": 0.2 + delta / 10,
        "alignment_shared": 0.2,
        "trace": 9.0,
        "trace_shared": 1.0 - delta / 2 if relaxed else 1.0,
    }
    found["sharpness"] = {"loss": 0.4, "average_0.1_shared": 0.01, "worst_0.5_shared": 0.3 + switch, "adaptive_sam_0.5_shared": 0.2}
    if segment["noise"]:
        found["stability"] = {"accuracy_barrier_test": 4.0 / (1 + switch), "loss_barrier_test": 0.1}
    found["alignment"] = {"barrier_before": 1.0 + switch, "barrier_after": 0.5 + switch / 10, "distance_before": 9.0, "distance_after": 7.0}
    if relaxed:
        found["ntk"] |= {"alignment_parent": 0.2, "alignment_off_local": 0.3, "trace_off_local": delta / 2}
        found["delta"] = {"off_local": delta, "unshared": delta / 2, "moved": 0.1}
        found["ablation"] = {
            "accuracy_full": test,
            "accuracy_local": test - 5,
            "accuracy_off_local": 10.0,
            "accuracy_random": 10.0,
            "loss_full": 0.4,
            "loss_local": 0.5,
        }
        found["soft-projection"] = {"accuracy_full": test, "accuracy_both": test - 20}
        found["interpolation"] = {"linear_barrier": 0.25}
        found["plane"] = {"barrier_parent_network": 0.25, "trajectory_share_parent": 0.5}
        found["cka"] = {"cka_parent_mean": 1 - delta, "cka_parent_min": 1 - delta, "cka_parent_output": 1 - 2 * delta}
        found["filters"] = {"rms_inside": 0.3}
        found["weights"] = {"rms_local": 0.3}
    details: dict[str, Any] = {
        "delta": {"layers": {"features.0": {"off_local": delta, "unshared": delta / 2, "moved": 0.1}}},
        "hessian": {"lambda_max": CERTIFICATE},
        "interpolation": {
            "origin": "parent",
            "layer_wise": {"rest": "origin", "layers": [by_layer("features.0", 0.2), by_layer("classifier.1", delta)]},
        },
        "plane": {"samples": {"train": 1000}, "planes": {"parent": {"statistics_shift": 0.0}}},
        "equivariance": {"shift": 1},
        "alignment": {"paths": {"before": {"statistics_shift": 0.0}, "after": {"statistics_shift": 0.0}}},
        "cka": {
            "data": "test",
            "samples": 1000,
            "against": {"parent": {"layers": {"features.0": 1 - delta, "head": None}, "output": 1 - 2 * delta}},
        },
        "sharpness": {"samples": 1000, "average_0.1_shared": {"value": 0.01, "standard_error": 0.001}},
    }
    rng = np.random.default_rng(0)
    size = (12,) * dimensions
    inside = np.zeros(size, np.float32)
    inside[(slice(4, 7),) * dimensions] = 1
    filters = {"filters": rng.normal(size=(2, 1, *size)).astype(np.float32), "inside": inside}
    weights = {"block": rng.normal(size=(20, 12)).astype(np.float32), "edges": np.linspace(-30, 5, 11)}
    weights |= {"features.0.local": np.arange(10), "features.0.off_local": np.arange(10)[::-1].copy()}
    path = np.stack([np.linspace(0, 1, 5), *np.tile([0.5, 90.0, 0.6, test], (5, 1)).T], axis=1)
    scaled = np.stack([np.linspace(0, 1, 5), np.full(5, 0.5), np.linspace(test - 20, test, 5)], axis=1)
    soft = {"both": scaled, "off_local": scaled, "unshared": scaled}
    tensors = {"filters": filters, "weights": weights, "interpolation": {"linear": path, "logits": path}, "soft-projection": soft}
    across, up = np.linspace(-1, 3, 5), np.linspace(-1, 2, 4)
    bowl = 0.01 + (up[:, None] - 1) ** 2 + (across - 2) ** 2
    plane = {"parent_x": across, "parent_y": up, "parent_train_loss": bowl, "parent_corners": np.array([[0.0, 0], [2, 0], [2, 1]])}
    plane |= {"parent_trajectory": np.array([[0.0, 0, 0, 0, 0], [5, 1, 0.2, 0.3, 1.1], [np.nan, 2, 1, 0, 1.3]])}
    plane |= {"random_x": across.copy(), "random_y": up.copy(), "random_train_loss": bowl[::-1].copy()}
    tensors["plane"] = plane
    tensors["alignment"] = {"before": path, "after": path.copy()}
    for probe in probes:
        for moment in ("start", "end"):
            if probe in found:
                segment["probes"].setdefault(probe, {})[moment] = found[probe]
            if probe in ("hessian", "gradient") and moment == "start":
                segment["probes"][probe]["3ep"] = {name: value + 1 for name, value in found[probe].items()}
            if probe in details and probe in found:
                segment["probe_details"].setdefault(probe, {})[moment] = details[probe]
            if probe in tensors and relaxed:
                store = RunStore(folder).segment(segment["id"]).probe_tensors(probe, moment)
                store.parent.mkdir(parents=True, exist_ok=True)
                save_state(store, {name: torch.from_numpy(array) for name, array in tensors[probe].items()}, {})


TOML = """[run]
data = "signals"
model = "cnn1d"
relax = ["efcn"]
switch = "at:0,2,10"
epochs = 20
branch_epochs = 10
seeds = [0]
control = ["continued", "scratch"]
lr = 0.1
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a run directory: CNN at 80 %, from scratch 50 %, continued 79 %, branches at 60, 70 and 85 %; a point more for each seed."""

    def make(
        name: str = "run",
        *,
        seeds: int = 1,
        relaxations: Sequence[str] = ("efcn",),
        probes: Sequence[str] = PROBES,
        dimensions: int = 1,
        controls: bool = True,
        noises: int = 1,
        change: Callable[[list[dict[str, Any]]], None] = lambda segments: None,
        **results: Any,
    ) -> Path:
        folder = tmp_path_factory.mktemp("runs") / name
        segments = []
        for seed in range(seeds):
            segments.append(entry("trunk", 80.0 + seed, seed=seed))
            for noise in range(noises):
                for relaxation in relaxations:
                    if controls:
                        segments.append(entry("scratch", 50.0 + seed, relaxation.rpartition(">")[2], None, seed, noise))
                    for switch, test in zip(SWITCHES, (60.0, 70.0, 85.0), strict=True):
                        segments.append(entry("branch", test + seed, relaxation, switch, seed, noise))
                if controls:
                    segments += [entry("continued", 79.0 + seed, None, switch, seed, noise) for switch in SWITCHES]
        for segment in segments:
            measured(segment, folder, probes, dimensions)
        change(segments)
        fields = {"model": "cnn1d", "status": "finished", "headlines": {"delta": ["off_local"]}} | results
        found = tuple(SegmentResult.from_json(segment, folder) for segment in segments)
        Results(path=folder, data="signals", segments=found, **fields).write()
        write_text(RunStore(folder).config_file, TOML)
        environment = {
            "started": "2019-06-15T12:00:00+00:00",
            "host": "here",
            "platform": "Linux",
            "python": "3.11",
            "versions": {"torch": "2.6"},
        }
        environment |= {
            "device": "cpu",
            "device_name": "x86_64",
            "command": ["/usr/bin/anarch", "run", "--relax", "efcn"],
            "data_sha256": "ab",
            "samples": {"train": 4000, "test": 1000},
        }
        write_json(RunStore(folder).environment_file, environment)
        return folder

    return make


@attrs.frozen
class Judged:
    """How a run is judged by something else than accuracy.

    Attributes:
        record: what its objective says of itself.
        change: turns the segments of :func:`made` into such: an error of 1 − accuracy / 100.
    """

    record: ObjectiveRecord
    change: Callable[[list[dict[str, Any]]], None]


@pytest.fixture(scope="session")
def judged_by_error() -> Judged:
    """Lower is better, and there is no unit."""
    score = MetricRecord(name="rmse", label="root mean square error", unit="", higher_is_better=False, digits=4)

    def renamed(table: dict[str, Any]) -> None:
        for key in [key for key in table if "accuracy" in key]:
            value = table.pop(key)
            table[key.replace("accuracy", "rmse")] = 1 - value / 100

    def change(segments: list[dict[str, Any]]) -> None:
        for segment in segments:
            seen = []
            probed = [table for probe in ("ablation", "stability") for table in segment["probes"].get(probe, {}).values()]
            for table in (segment["start"], segment["final"], *segment["history"], *probed):
                if not any(table is other for other in seen):
                    seen.append(table)
                    renamed(table)

    return Judged(ObjectiveRecord(name="mse", loss_label="squared error", loss_unit="", scores=[score]), change)
