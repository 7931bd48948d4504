from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.probe.base import ProbeContext
from anarch_plugins.probes.equivariance.options import EquivarianceOptions
from anarch_plugins.probes.equivariance.probe import EquivarianceProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(30, 2, 8, 7), torch.randint(3, (30,))
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(1)
    features = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, (3, 2), stride=(2, 1), padding=(1, 0)), nn.ReLU()]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))


def measure(model: nn.Module, data: TensorData, **options):
    return EquivarianceProbe(EquivarianceOptions(**options)).measure(ProbeContext(model=model, data=data))


@pytest.mark.parametrize("shift", [1, 2])
@pytest.mark.parametrize("relaxation", [None, "efcn", "lcn", "shared"])
def test_convolutions_and_fresh_relaxations_are_equivariant(cnn, data, relaxation, shift: int) -> None:
    model = cnn if relaxation is None else relax(cnn, relaxation, example_input=data.x_train[:1]).model
    result = measure(model, data, shift=shift)
    assert result.scalars["equivariance_error"] < 1e-5
    assert set(result.details["layers"]) == {"0", "2"}
    assert 0 < result.scalars["output_change"] < 1
    assert 0 <= result.scalars["agreement"] <= 100


def test_moving_off_the_convolutions_shows(cnn, data) -> None:
    model = relax(cnn, "lcn", example_input=data.x_train[:1]).model
    fresh = measure(model, data)
    with torch.no_grad():
        model[2].weight.add_(torch.randn_like(model[2].weight))
    moved = measure(model, data)
    assert moved.details["layers"]["0"]["equivariance_error"] < 1e-5
    assert moved.details["layers"]["2"]["equivariance_error"] > 0.1
    assert moved.scalars["equivariance_error"] > fresh.scalars["equivariance_error"]


def test_off_local_weights_lie_farther_from_the_centre(cnn, data) -> None:
    model = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    fresh = measure(model, data).scalars
    assert fresh["distance"] == pytest.approx(measure(cnn, data).scalars["distance"], rel=1e-5)
    with torch.no_grad():
        model[0].weight.add_(torch.randn_like(model[0].weight), alpha=0.1)
    moved = measure(model, data).scalars
    assert moved["distance"] > fresh["distance"]
    assert moved["effective_weights"] > fresh["effective_weights"]


def test_a_shift_larger_than_a_map_leaves_nothing_to_compare(cnn, data) -> None:
    result = measure(cnn, data, shift=30)
    assert result.scalars["equivariance_error"] is None


def test_data_without_axes_to_shift_are_left_out(cnn) -> None:
    flat = TensorData(
        name="flat", x_train=torch.zeros(2, 4), y_train=torch.zeros(2), x_test=torch.zeros(2, 4), y_test=torch.zeros(2), classes=2
    )
    found = measure(cnn, flat)
    assert set(found.scalars.values()) == {None}
    assert found.note == "measured nothing: inputs of [4] have no axis to shift along, as [channels, *spatial] have"


def test_what_is_not_finite_agrees_with_nothing(cnn, data) -> None:
    with torch.no_grad():
        cnn[2].weight[0, 0, 0, 0] = torch.nan
    result = measure(cnn, data)
    assert set(result.scalars.values()) == {None}
    assert result.details["layers"]["0"]["equivariance_error"] < 1e-5
    assert set(result.details["layers"]["2"].values()) == {None}


def test_a_layer_that_says_nothing_is_left_out_of_the_means(cnn, data) -> None:
    with torch.no_grad():
        cnn[2].weight.zero_()
        cnn[2].bias.zero_()
    result = measure(cnn, data)
    assert result.scalars["distance"] == result.details["layers"]["0"]["distance"]
    assert set(result.details["layers"]["2"].values()) == {None}
