from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core import drift, relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_plugins.probes.weights.options import WeightsOptions
from anarch_plugins.probes.weights.probe import WeightsProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(6, 2, 9), torch.randint(3, (6,))
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 3, 3, stride=2), nn.AdaptiveAvgPool1d(1), nn.Flatten())


def measure(model: nn.Module, data: TensorData | None, **options):
    return WeightsProbe(WeightsOptions(**options)).measure(ProbeContext(model=model, data=data))


@pytest.mark.parametrize("size", [5, 12, 200])
def test_the_block_is_the_corner_of_the_matrix_before_and_after_the_switch(cnn, data, size: int) -> None:
    efcn = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    corner = efcn[0].weight[:size, :size]
    for model in (cnn, efcn, relax(cnn, "lcn", example_input=data.x_train[:1]).model):
        torch.testing.assert_close(measure(model, data, size=size).tensors["block"], corner.detach())


def test_histograms_count_every_weight_once(cnn, data) -> None:
    efcn = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    fresh = measure(efcn, data)
    assert fresh.scalars["rms_off_local"] == 0
    assert fresh.details["layers"]["0"]["off_local"]["zeros"] == fresh.details["layers"]["0"]["off_local"]["weights"]
    with torch.no_grad():
        for index in (0, 2):
            efcn[index].weight.add_(torch.randn_like(efcn[index].weight), alpha=1e-4)
    moved = measure(efcn, data, bins=20)
    for index in (0, 2):
        counted = moved.tensors[f"{index}.local"].sum() + moved.tensors[f"{index}.off_local"].sum()
        assert counted == efcn[index].weight.numel()
    assert moved.scalars["rms_off_local"] == pytest.approx(1e-4, rel=0.1)
    assert moved.scalars["rms_local"] > 0.05
    assert moved.tensors["edges"].shape == (21,)


@pytest.mark.parametrize("family", ["lcn", "efcn", "shared"])
def test_off_local_is_what_the_first_module_had_no_weight_for(data, family: str) -> None:
    cnn = nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), nn.AdaptiveAvgPool1d(1), nn.Flatten()).double()
    x = data.x_train[:1].double()
    model = relax(relax(cnn, "ungroup", example_input=x).model, family, example_input=x).model
    with torch.no_grad():
        model[0].layer.weight.fill_(1)
    found = measure(model, data.to("cpu", torch.float64)).details["layers"]["0"]
    drifted, unit = drift(model).layers["0"], {"lcn": 1, "efcn": 1, "shared": 7}[family]
    assert found["local"]["weights"] * unit == pytest.approx(drifted.shared + drifted.unshared)
    total = found["local"]["weights"] + found["off_local"]["weights"]
    assert total == model[0].layer.weight.numel()
    if family != "shared":
        assert found["off_local"]["weights"] == pytest.approx(drifted.off_local)


def test_weights_that_are_not_finite_are_counted_apart(cnn, data) -> None:
    efcn = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    with torch.no_grad():
        efcn[0].weight[0, 0], efcn[0].weight[0, 1] = torch.nan, torch.inf
    result = measure(efcn, data)
    counts = result.details["layers"]["0"]
    assert sum(part["not_finite"] for part in counts.values()) == 2
    counted = sum(int(result.tensors[f"0.{part}"].sum()) for part in counts)
    assert counted == efcn[0].weight.numel() - 2 - sum(part["zeros"] for part in counts.values())
    assert result.scalars["rms_local"] is None


def test_a_network_without_relaxed_layers_has_its_block_only(cnn, data) -> None:
    result = measure(cnn, data)
    assert set(result.tensors) == {"block", "edges"}
    assert result.scalars["rms_local"] is None


def test_without_data_it_says_what_to_do(cnn) -> None:
    with pytest.raises(ProbeError, match="needs data, and there are none"):
        measure(cnn, None)
