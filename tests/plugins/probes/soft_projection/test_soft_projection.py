"""The probe ``soft-projection`` against networks made by hand, and against its relatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core import project, relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import Measurement, ProbeContext
from anarch_core.training.evaluation import evaluate
from anarch_plugins.probes.ablation.options import AblationOptions
from anarch_plugins.probes.ablation.probe import AblationProbe
from anarch_plugins.probes.soft_projection.options import SoftProjectionOptions
from anarch_plugins.probes.soft_projection.probe import SoftProjectionProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(200, 1, 8), torch.randint(3, (200,))
    return TensorData(name="toy", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:], classes=3)


def network(data: TensorData, relaxation: str = "efcn") -> nn.Module:
    """A network that has moved off the convolutions in every direction."""
    torch.manual_seed(1)
    cnn = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    model = relax(cnn, relaxation, example_input=data.x_train[:1]).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def measure(model: nn.Module, data: TensorData, **options: object) -> Measurement:
    return SoftProjectionProbe(SoftProjectionOptions(**options)).measure(ProbeContext(model=model, data=data))


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_the_ends_are_the_network_and_its_projection(data, relaxation) -> None:
    model = network(data, relaxation)
    found = measure(model, data, points=3)
    table = found.tensors["both"]
    assert table[:, 0].tolist() == [0.0, 0.5, 1.0]
    assert table[0, 1].item() == pytest.approx(evaluate(project(model), data.x_test, data.y_test).loss, rel=1e-5)
    assert table[2, 1].item() == evaluate(model, data.x_test, data.y_test).loss, "to the last bit"
    assert found.scalars["loss_full"] == table[2, 1].item()
    assert abs(found.details["projection"]["difference"]) < 1e-5


def test_without_a_part_it_is_what_ablation_says(data) -> None:
    model = network(data)
    ablated = AblationProbe(AblationOptions(random_masks=0)).measure(ProbeContext(model=model, data=data)).scalars
    found = measure(model, data, points=2).scalars
    for scaled, kept in (("both", "shared"), ("unshared", "not_unshared"), ("off_local", "local")):
        assert found[f"loss_{scaled}"] == pytest.approx(ablated[f"loss_{kept}"], rel=1e-5)
        assert found[f"accuracy_{scaled}"] == pytest.approx(ablated[f"accuracy_{kept}"])


@pytest.mark.parametrize(("scaled", "factors"), [("both", (1, 0.25, 0.25)), ("unshared", (1, 0.25, 1)), ("off-local", (1, 1, 0.25))])
def test_in_between_the_parts_are_scaled(data, scaled, factors) -> None:
    model = network(data)
    loss = measure(model, data, points=5, scaled=(scaled,)).tensors[scaled.replace("-", "_")][1, 1].item()
    for index in (0, 2):
        layer, numbers = model[index], dict(zip(("shared", "unshared", "off-local"), factors, strict=True))
        with torch.no_grad():
            for name, tensor in layer.weighted(dict(layer.named_parameters()), numbers).items():
                layer.get_parameter(name).copy_(tensor)
    assert loss == pytest.approx(evaluate(model, data.x_test, data.y_test).loss, rel=1e-5)


def test_the_best_score_says_where_it_is(data) -> None:
    found = measure(network(data), data)
    for name, table in found.tensors.items():
        best = found.scalars[f"best_accuracy_{name}"]
        assert best == table[:, 2].max().item()
        assert table[table[:, 0] == found.scalars[f"best_at_{name}"], 2].item() == best
    assert found.units["best_accuracy_both"] == found.units["accuracy_full"] == "%"
    assert found.units["best_at_both"] == "1"


def test_what_cannot_be_measured_is_said(data) -> None:
    with pytest.raises(ProbeError, match="needs relaxed layers, and this Linear has none"):
        measure(nn.Linear(8, 3), data)
    with pytest.raises(ProbeError, match="needs validation data, and the data set 'toy' has none"):
        measure(network(data), data, part="validation")
