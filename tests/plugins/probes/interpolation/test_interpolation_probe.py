from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from anarch_core import project, relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_core.training.evaluation import evaluate
from anarch_plugins.probes.interpolation.options import InterpolationOptions
from anarch_plugins.probes.interpolation.probe import InterpolationProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(60, 1, 8), torch.randint(3, (60,))
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20], classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


@pytest.fixture
def efcn(cnn, data) -> nn.Module:
    model = relax(cnn, "efcn", example_input=data.x_train[:1]).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def measure(model: nn.Module, data: TensorData, *, parent: nn.Module | None = None, **options):
    return InterpolationProbe(InterpolationOptions(points=5, steps=3, **options)).measure(
        ProbeContext(model=model, data=data, parent=parent)
    )


def test_from_the_networks_own_projection(efcn, data) -> None:
    result = measure(efcn, data, methods=("linear", "string", "logits"))
    table = result.tensors["linear"]
    assert table.shape == (5, 5)
    assert float(table[0, 1]) == pytest.approx(evaluate(project(efcn), data.x_train, data.y_train).loss, rel=1e-4)
    assert float(table[-1, 1]) == pytest.approx(evaluate(efcn, data.x_train, data.y_train).loss, rel=1e-4)
    assert result.scalars["linear_barrier"] >= 0
    assert result.scalars["logits_barrier"] <= 1e-9
    assert set(result.details["methods"]) == {"linear", "string", "logits"}
    json.dumps(dict(result.details), allow_nan=False)


def test_from_the_parent(cnn, efcn, data) -> None:
    table = measure(efcn, data, parent=cnn, origin="parent").tensors["linear"]
    assert float(table[0, 1]) == pytest.approx(evaluate(cnn, data.x_train, data.y_train).loss, rel=1e-4)
    with pytest.raises(ProbeError, match="there is no parent to begin the path at"):
        measure(efcn, data, origin="parent")


def test_a_network_that_was_never_relaxed_is_refused(cnn, data) -> None:
    with pytest.raises(ProbeError, match="needs a relaxed network, and this Sequential is none"):
        measure(cnn, data)


def test_a_path_that_is_not_finite_has_no_barrier(cnn, efcn, data) -> None:
    with torch.no_grad():
        cnn[3].bias.fill_(torch.nan)
    result = measure(efcn, data, parent=cnn, origin="parent", methods=("linear", "string", "probabilities"))
    for method in ("linear", "string", "probabilities"):
        assert result.scalars[f"{method}_barrier"] is result.scalars[f"{method}_chord_barrier"] is None
        assert "the loss is not finite at 4 of 5 points" in result.details["methods"][method]["barriers"]["train"]["not_measured"]
    json.dumps(dict(result.details), allow_nan=False)


def test_curves_of_one_bend_are_trained(efcn, data) -> None:
    result = measure(efcn, data, methods=("bezier", "polygon"), curve_steps=3)
    assert {"bezier_barrier", "polygon_chord_barrier", "bezier_best_accuracy"} <= result.scalars.keys()
    assert result.tensors["polygon"].shape == (5, 5)


@pytest.mark.parametrize(("rest", "at"), [("origin", 0), ("network", -1)])
def test_a_path_for_each_layer(efcn, data, rest, at) -> None:
    result = measure(efcn, data, layer_wise=True, rest=rest)
    assert result.tensors["layers"].shape == (2, 5, 5)
    whole = result.tensors["linear"]
    assert torch.equal(result.tensors["layers"][:, at], whole[at].expand(2, 5))
    found = result.details["layer_wise"]
    assert [layer["layer"] for layer in found["layers"]] == ["0", "3"]
    averaged = [float(table[2, 1] - (whole[0, 1] + whole[-1, 1]) / 2) for table in result.tensors["layers"]]
    assert [layer["averaged"]["train"] for layer in found["layers"]] == pytest.approx(averaged)
    assert result.scalars["layers_averaged"] == pytest.approx(max(averaged))
    assert result.units["layers_averaged"] == "nats"
    assert "less the mean loss of the two networks" in found["definition"]
    json.dumps(dict(result.details), allow_nan=False)


def test_layers_that_move_alone_are_named(efcn, data) -> None:
    """A projection differs from its network in the relaxed layers alone, so that these make the whole path."""
    whole = measure(efcn, data, methods=("linear",))
    alone = measure(efcn, data, layers=("0",), layer_wise=True)
    assert [layer["layer"] for layer in alone.details["layer_wise"]["layers"]] == ["0"]
    assert alone.details["layers"] == ["0"]
    torch.testing.assert_close(alone.tensors["linear"], whole.tensors["linear"])
    with pytest.raises(ProbeError, match="layer pattern 'features' matches none of 0, 3"):
        measure(efcn, data, layers=("features",))


def test_a_layer_is_averaged_at_a_point_of_its_path() -> None:
    with pytest.raises(ValueError, match="take an odd number of 'points', not 4"):
        InterpolationOptions(points=4, layer_wise=True)


def test_a_layer_whose_loss_is_not_finite_leaves_nothing_to_tell(cnn, efcn, data) -> None:
    with torch.no_grad():
        cnn[3].bias.fill_(torch.nan)
    result = measure(efcn, data, parent=cnn, origin="parent", layer_wise=True)
    assert result.scalars["layers_averaged"] is result.scalars["layers_chord_barrier"] is None
    json.dumps(dict(result.details), allow_nan=False)


def test_from_the_control(cnn, efcn, data) -> None:
    probe = InterpolationProbe(InterpolationOptions(points=5, origin="control"))
    assert probe.needs == {"data", "relaxed", "control"}
    assert InterpolationProbe.needs == {"data", "relaxed"}
    table = probe.measure(ProbeContext(model=efcn, data=data, control=cnn)).tensors["linear"]
    assert float(table[0, 1]) == pytest.approx(evaluate(cnn, data.x_train, data.y_train).loss, rel=1e-4)
    with pytest.raises(ProbeError, match="there is no control to begin the path at"):
        probe.measure(ProbeContext(model=efcn, data=data))
