from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.models import build_model
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


@pytest.fixture
def images() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(20, 2, 8, 8), torch.randint(3, (20,))
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


def test_layers_over_rotations_commute_with_them_until_they_are_relaxed_and_trained(images) -> None:
    network = build_model("p4-cnn", input_shape=(2, 8, 8), classes=3, options={"channels": 2})
    relaxed = relax(network, "p4", example_input=images.x_train[:1]).model
    for model in (network, relaxed):
        result = measure(model, images)
        assert 0 <= result.scalars["rotation_error"] < 1e-6
        assert 0 <= result.scalars["rotation_change"] < 1e-5
        assert set(result.details["symmetries"]) == {"features.0", "features.3", "features.6"}
    with torch.no_grad():
        relaxed.get_submodule("features.3").free.weight.add_(torch.randn(8, 8, 3, 3))
    moved = measure(relaxed, images)
    assert moved.details["symmetries"]["features.3"]["rotation"] > 0.1
    assert moved.details["symmetries"]["features.0"]["rotation"] < 1e-6
    assert moved.scalars["rotation_error"] > 0.1
    assert moved.scalars["rotation_change"] > 1e-3


def test_other_networks_tell_how_rotations_change_their_output_alone(cnn, images, data) -> None:
    square, oblong = measure(cnn, images), measure(cnn, data)
    assert square.scalars["rotation_change"] > 0
    assert oblong.scalars["rotation_change"] is None
    for result in (square, oblong):
        assert result.scalars["rotation_error"] is None
        assert "symmetries" not in result.details


class Turning(nn.Module):
    """Every other feature, of flat inputs, whatever they are rolled by."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.roll(2, -1)

    def symmetries(self) -> dict[str, Any]:
        return {"cycle": (lambda x: x.roll(1, -1), lambda y: y.roll(1, -1))}


def test_flat_inputs_have_no_shifts_and_yet_symmetries_of_layers() -> None:
    x = torch.randn(6, 4)
    flat = TensorData(name="flat", x_train=x, y_train=torch.zeros(6).long(), x_test=x, y_test=torch.zeros(6).long(), classes=2)
    result = measure(nn.Sequential(Turning(), nn.Linear(4, 2)), flat)
    assert result.scalars["cycle_error"] == 0
    assert result.scalars["output_change"] is None
    assert "no axis to shift along" in result.omitted
