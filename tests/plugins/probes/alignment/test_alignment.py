"""The probe ``alignment``: known answers, and what matching does to networks that were trained from different seeds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.paths import interpolate
from anarch_core.probe import Measurement, ProbeContext
from anarch_plugins.probes.alignment.options import AlignmentOptions
from anarch_plugins.probes.alignment.probe import AlignmentProbe
from tests.alignment.networks import permuted


@pytest.fixture(scope="module")
def data() -> TensorData:
    """Noisy waves of three frequencies and any phase."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    phase = 6.3 * torch.rand(240, 1, 1, generator=generator)
    x = torch.sin(phase + (y[:, None, None] + 1) * torch.linspace(0, 6.3, 12)) + 0.3 * torch.randn(240, 1, 12, generator=generator)
    x = x.double()
    return TensorData(name="toy", x_train=x[:180], y_train=y[:180], x_test=x[180:], y_test=y[180:], classes=3)


def trained(model: nn.Module, data: TensorData, steps: int = 80) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train), data.y_train).backward()
        optimizer.step()
    return model.eval()


def cnn(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv1d(1, 6, 5, padding=2), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 8, 3), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(40, 3)).double()


def mlp(seed: int, width: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 3)).double()


def measure(model: nn.Module, sibling: nn.Module | None, data: TensorData, **options: object) -> Measurement:
    context = ProbeContext(model=model, data=data, sibling=sibling, seed=0)
    return AlignmentProbe(AlignmentOptions(**{"points": 5, **options})).measure(context)


@pytest.mark.parametrize("relaxation", [None, "efcn", "lcn", "tiled"])
def test_a_permuted_copy_has_a_barrier_before_and_none_after(data: TensorData, relaxation: str | None) -> None:
    model = trained(cnn(0), data)
    if relaxation is not None:
        model = trained(anarch_core.relax(model, relaxation, example_input=data.x_train[:2]).model, data, 5)
    found = measure(permuted(model, data.x_train[:2]), model, data)
    losses = found.tensors["after"][:, 1]
    assert found.scalars["barrier_before"] > 0.05
    assert abs(found.scalars["barrier_after"]) < 1e-10
    assert float(losses.max() - losses.min()) < 1e-10
    assert found.scalars["accuracy_barrier_after"] == pytest.approx(0, abs=1e-10)
    assert found.scalars["distance_before"] > 1
    assert found.scalars["distance_after"] == 0


def test_a_network_beside_itself_is_left_as_it_is(data: TensorData) -> None:
    model = trained(cnn(0), data, 20)
    found = measure(model, model, data)
    assert found.scalars["moved"] == found.scalars["distance_before"] == found.scalars["distance_after"] == 0
    assert torch.equal(found.tensors["before"], found.tensors["after"])


def test_what_is_found_before_is_what_interpolating_finds(data: TensorData) -> None:
    a, b = trained(cnn(0), data), trained(cnn(1), data)
    found, profile = measure(a, b, data), interpolate(a, b, data, points=5)
    assert found.scalars["barrier_before"] == profile.train_barrier.chord
    assert found.scalars["test_barrier_before"] == profile.test_barrier.chord
    scores = [score.metrics["accuracy"] for score in profile.test]
    fallen = max(scores[0] * (1 - t) + scores[-1] * t - score for t, score in zip(profile.positions, scores, strict=True))
    assert found.scalars["accuracy_barrier_before"] == pytest.approx(fallen)


def test_matching_lowers_the_barrier_between_seeds_and_most_for_wide_networks(data: TensorData) -> None:
    """As Entezari et al. (2021) conjecture and Ainsworth et al. (2022) find."""
    left = {}
    for width in (4, 128):
        found = measure(trained(mlp(0, width), data), trained(mlp(1, width), data), data, points=11).scalars
        assert found["distance_after"] < found["distance_before"]
        left[width] = found["barrier_after"] / found["barrier_before"]
    assert left[128] < 0.6
    assert left[128] < left[4]


def test_details_say_what_was_measured_and_by_layer(data: TensorData) -> None:
    a, b = trained(cnn(0), data, 10), trained(cnn(1), data, 10)
    found = measure(a, b, data, samples=100)
    assert "chord" in found.details["definition"]
    assert found.details["samples"] == 100
    assert found.details["groups"] == {"0": 6, "3": 8}
    layers = found.details["layers"]
    assert list(layers) == ["0", "1", "3", "7"]
    assert sum(layer["after"] ** 2 for layer in layers.values()) == pytest.approx(found.scalars["distance_after"] ** 2)
    assert found.units["barrier_after"] == "nats"
    assert found.units["accuracy_barrier_after"] == found.units["moved"] == "%"


def test_without_another_seed_it_says_how_to_get_one(data: TensorData) -> None:
    with pytest.raises(ProbeError, match="run several seeds, with --seeds 0,1, or give one with --sibling FILE"):
        measure(cnn(0), None, data)


def test_a_network_of_another_architecture_is_refused(data: TensorData) -> None:
    with pytest.raises(ProbeError, match="not of one architecture"):
        measure(cnn(0), mlp(0, 4), data)
