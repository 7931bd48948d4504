from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_plugins.probes.filters.options import FiltersOptions
from anarch_plugins.probes.filters.probe import FiltersProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(6, 2, 7, 6), torch.randint(3, (6,))
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def measure(model: nn.Module, data: TensorData | None, **options):
    return FiltersProbe(FiltersOptions(**options)).measure(ProbeContext(model=model, data=data))


@pytest.mark.parametrize("relaxation", [None, "efcn", "lcn"])
def test_a_filter_is_the_kernel_at_its_place(cnn, data, relaxation) -> None:
    model = cnn if relaxation is None else relax(cnn, relaxation, example_input=data.x_train[:1]).model
    result = measure(model, data, channels=3)
    filters, inside = result.tensors["filters"], result.tensors["inside"]
    assert filters.shape == (3, 2, 7, 6)
    assert result.details["position"] == [3, 3]
    assert torch.equal(filters[:, :, 2:5, 2:5], cnn[0].weight[:3])
    assert inside[2:5, 2:5].all()
    assert inside.sum() == 9
    assert result.scalars["rms_outside"] == 0
    assert result.scalars["rms_inside"] == pytest.approx(cnn[0].weight[:3].square().mean().sqrt().item(), rel=1e-5)


def test_in_the_corner_the_receptive_field_is_cut(cnn, data) -> None:
    result = measure(cnn, data, position="first")
    assert result.tensors["inside"].sum() == 4
    assert torch.equal(result.tensors["filters"][:, :, :2, :2], cnn[0].weight[:, :, 1:, 1:])


def test_another_layer_can_be_asked_for(cnn, data) -> None:
    assert measure(cnn, data, layer="2").tensors["filters"].shape == (3, 4, 7, 6)
    with pytest.raises(ProbeError, match="the network has 0, 2"):
        measure(cnn, data, layer="1")


def test_without_data_it_says_what_to_do(cnn) -> None:
    with pytest.raises(ProbeError, match="needs data, and there are none"):
        measure(cnn, None)
