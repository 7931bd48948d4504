"""The probe ``ntk`` against kernels made by hand, and at the switch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.models import build_model
from anarch_core.objective import AbstractObjective
from anarch_core.plugin import get_registry
from anarch_core.probe import Measurement, ProbeContext
from anarch_plugins.probes.ntk.options import NtkOptions
from anarch_plugins.probes.ntk.probe import SCALARS, NtkProbe

PARTS = ("shared", "unshared", "off_local")


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(30, 1, 8).double(), torch.arange(30) % 3
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)


def network(padding_mode: str = "zeros") -> nn.Module:
    torch.manual_seed(1)
    conv = nn.Conv1d(1, 2, 3, padding=1, padding_mode=padding_mode)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()


def measure(model: nn.Module, data: TensorData, samples: int = 30, **context: nn.Module) -> Measurement:
    return NtkProbe(NtkOptions(samples=samples)).measure(ProbeContext(model=model, data=data, **context))


def objective(name: str) -> AbstractObjective:
    return get_registry().create("objective", name)


def test_the_alignment_of_inputs_is_that_of_a_linear_network(data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False)).double()
    found = measure(model, data)
    x, labels = data.x_train.flatten(1), nn.functional.one_hot(data.y_train).double()
    x, labels = x - x.mean(0), labels - labels.mean(0)
    expected = (x.T @ labels).square().sum() / ((x.T @ x).norm() * (labels.T @ labels).norm())
    assert found.scalars["alignment"] == found.scalars["alignment_shared"] == pytest.approx(float(expected), rel=1e-10)
    assert found.scalars["trace"] == pytest.approx(3 * float(data.x_train.square().sum()) / 30, rel=1e-10)
    values = torch.linalg.svdvals(x).square()
    shares = values / values.sum()
    assert found.scalars["effective_rank"] == pytest.approx(math.exp(float(-(shares * shares.log()).sum())), rel=1e-8)
    assert torch.allclose(found.tensors["eigenvalues"][:8], 3 * values)


def test_inputs_that_are_their_labels_are_aligned(data) -> None:
    x = nn.functional.one_hot(data.y_train).double()
    told = TensorData(name="told", x_train=x, y_train=data.y_train, x_test=x, y_test=data.y_train, classes=3)
    assert measure(nn.Linear(3, 3).double(), told).scalars["alignment"] == pytest.approx(1, abs=1e-12)


def test_at_the_switch_the_shared_part_is_the_cnn(data) -> None:
    cnn = network()
    before = measure(cnn, data)
    found = measure(relax(cnn, "efcn", example_input=data.x_train[:1]).model, data, parent=cnn)
    assert found.scalars["alignment_shared"] == pytest.approx(before.scalars["alignment"], rel=1e-10)
    assert found.scalars["alignment_parent"] == pytest.approx(before.scalars["alignment"], rel=1e-12)
    torch.testing.assert_close(found.tensors["kernel_shared"], before.tensors["kernel"], rtol=1e-10, atol=1e-10)
    assert found.scalars["trace"] * found.scalars["trace_shared"] == pytest.approx(before.scalars["trace"], rel=1e-10)
    whole, parent = found.tensors["kernel"], before.tensors["kernel"]
    assert found.scalars["distance_from_parent"] == pytest.approx(float(1 - (whole * parent).sum() / (whole.norm() * parent.norm())))
    assert found.scalars["distance_from_start"] is None, "it is the start"
    assert before.scalars["alignment_off_local"] is before.scalars["distance_from_parent"] is None


def test_parts_and_layers_add_up(data) -> None:
    model = relax(network(), "efcn", example_input=data.x_train[:1]).model
    start = relax(network(), "efcn", example_input=data.x_train[:1]).model
    with torch.no_grad():
        model[0].weight.add_(torch.randn_like(model[0].weight), alpha=0.3)
    found = measure(model, data, reference=start)
    kernels = sum(found.tensors[f"kernel_{part}"] for part in PARTS)
    torch.testing.assert_close(kernels, found.tensors["kernel"], rtol=1e-12, atol=1e-12)
    assert sum(found.scalars[f"trace_{part}"] for part in PARTS) == pytest.approx(1, rel=1e-12)
    shares = [share for layer in found.details["layers"].values() for share in layer.values()]
    assert sum(shares) == pytest.approx(1, rel=1e-12)
    assert 0 < found.scalars["distance_from_start"] < 1
    assert measure(model, data, reference=model).scalars["distance_from_start"] == pytest.approx(0, abs=1e-12)


def test_scaling_the_targets_of_a_regression_changes_nothing(data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).double()
    y = torch.randn(30, 2).double()
    found = []
    for scale in (1.0, 1e3):
        numbers = TensorData(
            name="r", x_train=data.x_train, y_train=scale * y, x_test=data.x_test, y_test=y, classes=0, objective=objective("mse")
        )
        found.append(measure(model, numbers))
    assert found[0].details["labels"] == "targets as they are"
    assert found[0].scalars["alignment"] == pytest.approx(found[1].scalars["alignment"], rel=1e-10)


def test_targets_that_are_no_numbers_are_refused(data) -> None:
    x, y = torch.randn(6, 1, 8).double(), torch.randint(3, (6, 8))
    pixels = TensorData(name="p", x_train=x, y_train=y, x_test=x, y_test=y, classes=3, objective=objective("pixel-cross-entropy"))
    with pytest.raises(ProbeError, match="needs a class for each sample, or a number for each output, and the targets are"):
        measure(nn.Conv1d(1, 3, 3, padding=1).double(), pixels)


def test_without_orthonormal_coordinates_nothing_is_told_and_why(data) -> None:
    found = measure(network("reflect"), data)
    assert found.scalars == dict.fromkeys(SCALARS)
    assert "reflect" in found.details["not_measured"]


def test_a_parent_whose_coordinates_do_not_compare_is_left_out(data) -> None:
    x = torch.randn(12, 1, 8, 8).double()
    images = TensorData(name="i", x_train=x, y_train=data.y_train[:12], x_test=x, y_test=data.y_train[:12], classes=3)
    vit = build_model("vit", input_shape=(1, 8, 8), classes=3, options={"width": 8, "heads": 2, "depth": 1}).double()
    found = measure(relax(vit, "heads", example_input=x[:1]).model, images, samples=12, parent=vit)
    assert "were equal" in found.details["incomparable"]
    assert found.scalars["alignment_parent"] is found.scalars["distance_from_parent"] is None
    assert found.scalars["alignment"] > 0


def test_a_diverged_network_gives_none(data) -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(float("inf"))
    found = measure(model, data)
    assert set(found.scalars.values()) == {None}
    assert found.details["not_measured"] == "the loss is nan"
