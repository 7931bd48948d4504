"""The probe ``plane`` against the functions that it calls, and against networks made by hand."""

from __future__ import annotations

import copy
import json
import math

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from anarch_core import project, relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.paths import interpolate, random_plane
from anarch_core.probe.base import Measurement, ProbeContext
from anarch_core.training.evaluation import evaluate
from anarch_plugins.probes.plane.levels import MOST, Levels
from anarch_plugins.probes.plane.options import PlaneOptions
from anarch_plugins.probes.plane.probe import PlaneProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(80, 1, 8, dtype=torch.float64), torch.randint(3, (80,))
    return TensorData(name="toy", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:], classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()


def moved(network: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    found = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return found


@pytest.fixture
def context(cnn, data) -> ProbeContext:
    start = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    return ProbeContext(model=moved(start, 2), data=data, parent=cnn, control=moved(cnn, 3), reference=start, moment="end")


def measure(context: ProbeContext, **options: object) -> Measurement:
    return PlaneProbe(PlaneOptions(**{"points": 3, **options})).measure(context)


def test_what_it_needs_follows_from_the_planes() -> None:
    needs = {through: PlaneProbe(PlaneOptions(through=(through,))).needs for through in ("parent", "control", "random")}
    assert needs == {"parent": {"data", "relaxed", "parent"}, "control": {"data", "relaxed", "control"}, "random": {"data"}}
    assert PlaneProbe(PlaneOptions(through=("random", "control"))).needs == {"data", "relaxed", "control"}


@pytest.mark.parametrize("origin", ["parent", "control"])
def test_the_corners_are_the_networks(context, data, origin) -> None:
    found = measure(context, through=(origin,))
    networks = {origin: getattr(context, origin), "projection": project(context.model), "network": context.model}
    for name, network in networks.items():
        assert found.scalars[f"loss_{name}"] == pytest.approx(evaluate(network, data.x_train, data.y_train).loss, rel=1e-10)
    for one, other in ((origin, "projection"), ("projection", "network"), (origin, "network")):
        path = interpolate(networks[one], networks[other], data, points=3)
        assert found.scalars[f"barrier_{one}_{other}"] == pytest.approx(path.train_barrier.excess, abs=1e-10)
    corners = found.tensors[f"{origin}_corners"]
    assert corners[2, 0].item() == pytest.approx(corners[1, 0].item(), rel=1e-11), "there is a right angle at the projection"
    assert found.scalars[f"distance_{origin}_projection"] == corners[1, 0].item()
    assert found.scalars["distance_projection_network"] == pytest.approx(corners[2, 1].item(), rel=1e-10)
    assert found.tensors[f"{origin}_train_loss"].shape == (len(found.tensors[f"{origin}_y"]), len(found.tensors[f"{origin}_x"])) == (3, 3)
    assert found.units["loss_network"] == "nats"
    json.dumps(dict(found.details), allow_nan=False)


def test_the_way_begins_and_ends_in_the_plane(context) -> None:
    networks = [(2.0, moved(context.reference, 5)), (4.0, moved(context.reference, 6))]
    found = measure(attrs.evolve(context, trajectory=lambda: networks))
    way = found.tensors["parent_trajectory"]
    assert way[:3, 0].tolist() == [0, 2, 4]
    assert way[3, 0].isnan(), "when a segment ends, the probe does not know"
    torch.testing.assert_close(way[[0, 3], 1:3], found.tensors["parent_corners"][[0, 2]], rtol=1e-10, atol=1e-12)
    assert way[[0, 3], 3].abs().max() < 1e-10
    assert way[1:3, 3].min() > 0.1
    assert 0 < found.scalars["trajectory_share_parent"] < 1
    at_a_moment = measure(attrs.evolve(context, trajectory=lambda: [*networks, (6.0, context.model)], moment="6ep"))
    torch.testing.assert_close(at_a_moment.tensors["parent_trajectory"][:, 1:], way[:, 1:])
    assert measure(context).scalars["trajectory_share_parent"] is None


def test_at_the_switch_all_three_are_one(context) -> None:
    found = measure(attrs.evolve(context, model=context.reference, moment="start"), through=("parent", "random"))
    assert found.scalars["loss_parent"] is found.scalars["distance_parent_network"] is found.scalars["barrier_projection_network"] is None
    assert "coincide" in found.details["planes"]["parent"]["not_measured"]
    assert found.scalars["random_loss"] > 0
    assert found.scalars.keys() == measure(context, through=("parent", "random")).scalars.keys()


def test_the_random_plane_is_that_of_the_seed(context, cnn, data) -> None:
    found = measure(ProbeContext(model=cnn, data=data, seed=4), through=("random",), radius=0.5)
    wanted = random_plane(cnn, data, points=3, radius=0.5, seed=4)
    assert torch.equal(found.tensors["random_test_accuracy"], wanted.surface.table("test", "accuracy"))
    assert found.scalars == {
        "random_loss": wanted.train.loss,
        "random_lowest": found.tensors["random_train_loss"].min().item(),
        "random_highest": found.tensors["random_train_loss"].max().item(),
    }


@pytest.mark.parametrize("origin", ["parent", "control"])
def test_what_is_missing_is_said(context, cnn, data, origin) -> None:
    with pytest.raises(ProbeError, match=f"there is no {origin} for the plane to go through"):
        measure(ProbeContext(model=context.model, data=data), through=(origin,))
    with pytest.raises(ProbeError, match="needs relaxed layers, and this Sequential has none"):
        measure(ProbeContext(model=cnn, data=data, parent=cnn), through=(origin,))


def test_contours_are_logarithmic_where_the_loss_spans_a_decade() -> None:
    even = Levels.of([np.array([[1.0, 2.0], [np.nan, 9.0]])])
    assert not even.logarithmic
    assert np.allclose(np.diff(even.values), even.values[1] - even.values[0])
    for low in (0.05, 1e-3, 1e-7, 0.0999999):
        found = Levels.of([np.array([low, 1.0]), np.array([np.inf, 0.5])])
        assert found.logarithmic
        assert 2 <= len(found.values) <= MOST
        assert low <= found.values[0] < found.values[-1] <= 1
        steps = np.diff(np.log(found.values))
        assert steps.max() < 3 * steps.min()
    assert len(Levels.of([np.array([2.0, 2.0])]).values) >= 2
    assert Levels.of([np.array([0.0, 1.0])]).logarithmic is False
    assert math.isfinite(sum(Levels.of([np.array([1e-30, 1.0])]).values))
