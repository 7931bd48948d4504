from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_plugins.probes.stability.options import StabilityOptions
from anarch_plugins.probes.stability.probe import StabilityProbe


@pytest.fixture
def data() -> TensorData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20], classes=2)


def network() -> nn.Module:
    """Tells the sign of the first input by two hidden units."""
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    first, last = torch.zeros(2, 4).double(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
    first[0, 0], first[1, 0] = 1, -1
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (first, torch.zeros(2), last, torch.zeros(2)), strict=True):
            parameter.copy_(value)
    return model


def swapped(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.copy_(model[0].weight.flip(0))
        other[2].weight.copy_(model[2].weight.flip(1))
    return other


def measure(model: nn.Module, twin: nn.Module | None, data: TensorData, **options):
    return StabilityProbe(StabilityOptions(**options)).measure(ProbeContext(model=model, data=data, twin=twin))


def test_a_network_and_itself_have_no_barrier(data):
    found = measure(network(), network(), data)
    assert found.scalars == dict.fromkeys(("accuracy_barrier_train", "loss_barrier_train", "accuracy_barrier_test", "loss_barrier_test"), 0)


def test_where_units_changed_places_the_middle_knows_nothing(data):
    found = measure(network(), swapped(network()), data, points=3)
    # In the middle both hidden units are dead, so every answer is the first class.
    rate = 100 * float((data.y_test == 0).double().mean())
    assert found.scalars["accuracy_barrier_test"] == pytest.approx(100 - rate, abs=1e-9)
    ends = nn.functional.cross_entropy(network()(data.x_test), data.y_test).item()
    middle = math.log(2)
    assert found.scalars["loss_barrier_test"] == pytest.approx(middle - ends, abs=1e-12)
    assert found.units["accuracy_barrier_test"] == "%"
    assert found.tensors["line"].shape == (3, 5)


def test_a_barrier_that_is_not_finite_is_none_and_said(data):
    broken = network()
    with torch.no_grad():
        broken[2].bias.fill_(torch.nan)
    found = measure(network(), broken, data, points=3)
    assert found.scalars["loss_barrier_test"] is None
    assert "the loss is not finite at 2 of 3 points" in found.details["not_measured"]


def test_without_a_twin_it_says_what_to_do(data):
    with pytest.raises(ProbeError, match="there is none; add --noise-seeds 0,1"):
        measure(network(), None, data)
