"""The built-in probes on networks whose relaxed layers are no convolutions."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from anarch_core.data import TensorData
from anarch_core.errors import ProbeError, SurgeryError
from anarch_core.layers import relaxed_layers
from anarch_core.plugin import get_registry
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry
from anarch_core.probe import Measurement, ProbeContext
from anarch_core.probe.measuring import measured
from anarch_core.relaxation import relax


@pytest.fixture
def data() -> TensorData:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 1, 16, generator=generator), torch.arange(40) % 3
    return TensorData(name="signals", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:], classes=3)


class Tokens(nn.Module):
    """Inputs as words, looked up by hashing, and a cell that is called three times."""

    def __init__(self, strange: ModuleType) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.cell, self.head = strange.Hashed(8, 3, 4), strange.Cell(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.words((x[:, 0] * 4).long() % 8, scale=torch.ones(4))["words"].mean(1)
        state = found
        for _ in range(3):
            state, out = self.cell(state, found)
        return self.head(out)


def relaxed(monkeypatch: pytest.MonkeyPatch, network: nn.Module, *relaxations: type) -> nn.Module:
    """The network, relaxed by one after the other and moved off the constrained ones."""
    for relaxation in relaxations:
        module = ModuleType("foreign")
        module.target = relaxation  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "foreign", module)
        info = RelaxationInfo(name="wrong", summary="Of somebody else.", target="foreign:target")
        added = PluginRecord(name="wrong", module="foreign", distribution="x", version="1", status=Status.LOADED, components=(info,))
        registry = Registry((*get_registry().plugins, added))
        network = relax(network, "wrong", example_input=torch.randn(2, 1, 16), registry=registry).model
        monkeypatch.setattr("anarch_core.relaxation.verbs.get_registry", lambda registry=registry: registry)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return network


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, circulant: ModuleType) -> nn.Module:
    return relaxed(monkeypatch, circulant.network(), circulant.CirculantRelaxation)


@pytest.fixture
def by_links(monkeypatch: pytest.MonkeyPatch, strange: ModuleType) -> nn.Module:
    return relaxed(monkeypatch, Tokens(strange), strange.FreeWords)


@pytest.fixture
def untied(monkeypatch: pytest.MonkeyPatch, strange: ModuleType) -> nn.Module:
    return relaxed(monkeypatch, Tokens(strange), strange.Untied)


def test_what_needs_parts_is_left_out_where_a_layer_says_that_it_has_none(
    by_hand: nn.Module, data: TensorData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as products of sparse factors, of which the nearest is not known."""

    def unknown(*arguments: object, **named: object) -> None:
        raise SurgeryError("the nearest is not known")

    paths = list(relaxed_layers(by_hand))
    for name in ("split", "drift"):
        monkeypatch.setattr(type(relaxed_layers(by_hand)[paths[0]]), name, unknown)
    context = ProbeContext(model=by_hand, data=data)
    reason = f"parameters of {paths[0]}, relaxed by wrong, have no parts: the nearest is not known"
    hessian = get_registry().create("probe", "hessian", {}).measure(context)
    assert hessian.scalars["lambda_max"] is not None
    assert hessian.scalars["lambda_max_shared"] is None
    assert hessian.details["lambda_max_shared"] == {"not_measured": reason}
    gradient = get_registry().create("probe", "gradient", {}).measure(context)
    assert gradient.scalars["norm"] is not None
    assert gradient.scalars["norm_unshared"] is None
    assert gradient.details["parts_not_measured"] == reason
    for probe in ("ablation", "soft-projection", "weights"):
        with pytest.raises(ProbeError, match=f"^{re.escape(reason)}$"):
            get_registry().create("probe", probe).measure(context)
    with pytest.raises(SurgeryError, match=f"{paths[0]}, relaxed by wrong, has no drift: the nearest is not known"):
        get_registry().create("probe", "delta").measure(context)


@pytest.fixture(params=["by_hand", "by_links", "untied"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    found: nn.Module = request.getfixturevalue(request.param)
    return found


def measure(name: str, network: nn.Module, data: TensorData, **options: Any) -> Measurement:
    return measured(get_registry().create("probe", name, options), ProbeContext(model=network, data=data))


def test_filters_are_left_out_in_one_sentence(network: nn.Module, data: TensorData) -> None:
    found = measure("filters", network, data)
    assert set(found.scalars.values()) == {None}
    assert found.note == "measured nothing: no layer is or was a convolution, so there are no filters"


def test_the_network_is_shifted_and_its_layers_are_left_out(network: nn.Module, data: TensorData) -> None:
    found = measure("equivariance", network, data)
    assert found.scalars["output_change"] is not None
    assert found.scalars["equivariance_error"] is None
    assert found.note.startswith("measured in part: ")
    assert found.note.endswith("cannot be shifted: no convolution, or called several times")


def test_weights_are_counted_whatever_they_are_called(by_hand: nn.Module, data: TensorData) -> None:
    found = measure("weights", by_hand, data)
    assert {path: layer["local"]["weights"] for path, layer in found.details["layers"].items()} == {"1": 16 * 4, "3": 16 * 16}
    assert found.details["layers"]["1"]["off_local"]["weights"] == 16 * 12
    assert found.details["layer"] == "1"
    torch.testing.assert_close(found.tensors["block"], by_hand[1].matrix.detach())
    assert not found.note


def test_weights_without_links_are_not_counted(by_links: nn.Module, data: TensorData) -> None:
    found = measure("weights", by_links, data)
    assert found.details["layers"]["words"]["local"]["weights"] == 8 * 4
    assert found.scalars["rms_off_local"] is None


def test_copies_are_counted_together(untied: nn.Module, data: TensorData) -> None:
    found = measure("weights", untied, data)
    assert found.details["layers"]["cell"]["local"]["weights"] == 3 * 16
    assert sum(found.tensors["cell.local"]) == 3 * 16


def test_parts_are_ablated(network: nn.Module, data: TensorData) -> None:
    found = measure("ablation", network, data)
    assert all(value is not None for value in found.scalars.values())
    assert found.scalars["loss_shared"] != found.scalars["loss_full"]


def test_what_is_shared_alone_is_the_projection(network: nn.Module, data: TensorData) -> None:
    from anarch_core.relaxation import project
    from anarch_core.training import evaluate

    found = measure("ablation", network, data)
    projected = evaluate(project(network), data.x_test, data.y_test, objective=data.objective)
    assert found.scalars["loss_shared"] == pytest.approx(projected.loss, rel=1e-5)


def test_norms_of_the_gradient_add_up(network: nn.Module, data: TensorData) -> None:
    scalars = measure("gradient", network, data).scalars
    parts = [scalars[f"norm_{part}"] for part in ("shared", "unshared", "off_local")]
    assert None not in parts
    assert sum(part**2 for part in parts) == pytest.approx(scalars["norm"] ** 2, rel=1e-5)


def test_curvature_along_the_parts_is_measured(network: nn.Module, data: TensorData) -> None:
    found = measure("hessian", network, data, subspaces=("shared", "unshared"), max_products=30)
    assert found.scalars["lambda_max"] is not None
    assert found.scalars["lambda_max_shared"] is not None


@pytest.mark.parametrize("method", ["linear", "bezier"])
def test_the_path_from_the_projection_is_followed(network: nn.Module, data: TensorData, method: str) -> None:
    found = measure("interpolation", network, data, methods=(method,), points=3, curve_steps=2)
    assert found.scalars[f"{method}_barrier"] is not None


def test_delta_knows_the_parts(network: nn.Module, data: TensorData) -> None:
    scalars = measure("delta", network, data).scalars
    assert sum(scalars[part] ** 2 for part in ("shared", "unshared", "off_local")) == pytest.approx(1)
    assert scalars["unshared"] > 0.01
