from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_plugins.probes.gradient.options import GradientOptions
from anarch_plugins.probes.gradient.probe import GradientProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x = torch.randn(40, 1, 8)
    y = torch.randint(3, (40,))
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def measure(model: nn.Module, data: TensorData, **options):
    return GradientProbe(GradientOptions(**options)).measure(ProbeContext(model=model, data=data))


def test_total_and_layers_are_those_of_autograd(cnn, data) -> None:
    result = measure(cnn, data, batch_size=7)
    loss = nn.functional.cross_entropy(cnn(data.x_train), data.y_train)
    gradients = torch.autograd.grad(loss, list(cnn.parameters()))
    norms = [float(gradient.norm()) for gradient in gradients]
    assert result.scalars["norm"] == pytest.approx(math.hypot(*norms), rel=1e-5)
    assert result.details["layers"]["0"]["norm"] == pytest.approx(math.hypot(*norms[:2]), rel=1e-5)
    assert result.details["layers"]["3"]["norm"] == pytest.approx(math.hypot(*norms[2:]), rel=1e-5)
    assert result.scalars["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_parts_add_up_and_the_shared_one_is_the_cnns(cnn, data) -> None:
    before = measure(cnn, data).scalars
    after = measure(relax(cnn, "efcn", example_input=data.x_train[:1]).model, data).scalars
    assert math.hypot(after["norm_shared"], after["norm_unshared"], after["norm_off_local"]) == pytest.approx(after["norm"], rel=1e-5)
    assert after["norm_shared"] == pytest.approx(before["norm_shared"], rel=1e-5)
    assert before["norm_unshared"] == before["norm_off_local"] == 0
    assert after["norm_off_local"] > 0


def test_where_parts_cannot_be_told_the_total_still_is(data) -> None:
    cnn = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    result = measure(cnn, data)
    assert result.scalars["norm"] > 0
    assert result.scalars["norm_shared"] is None
    assert "reflect" in result.details["parts_not_measured"]


def test_a_diverged_network_gives_none(cnn, data) -> None:
    with torch.no_grad():
        cnn[0].weight.fill_(float("inf"))
    assert measure(cnn, data).scalars["norm"] is None


def test_without_data_it_says_what_to_do(cnn) -> None:
    with pytest.raises(ProbeError, match=r"needs data.*--data"):
        GradientProbe(GradientOptions()).measure(ProbeContext(model=cnn))
