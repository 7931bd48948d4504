"""A layer whose parameters were under linear constraints: a circulant layer, made dense as a third party would."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.errors import PluginError, SurgeryError
from anarch_core.layers import ConstrainedLayer, Link
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site
from anarch_core.relaxation.base import AbstractRelaxation


class Circulant(nn.Module):
    """y_i = Σ_j c_{(i − j) mod n} x_j + b."""

    def __init__(self, size: int, **factory: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, **factory))
        self.bias = nn.Parameter(torch.randn(size, **factory))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight[labels(len(self.weight))].t() + self.bias


def labels(size: int) -> np.ndarray:
    return (np.arange(size)[:, None] - np.arange(size)[None, :]) % size


class Dense(AbstractConstraintRelaxation):
    """circulant -> dense."""

    name = "dense"
    targets = (Circulant,)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        size = len(module.weight)
        free = nn.utils.skip_init(nn.Linear, size, size, device=module.weight.device, dtype=module.weight.dtype)
        free.bias = nn.Parameter(module.bias.detach().clone())
        constraint = Constraint((size, size), (size,), [Incidence.of(labels(size), size)])
        return Loosened(free=free, links=[Link(parent="weight", constraint=constraint, variance=1 / (3 * size))])


def site(module: nn.Module, size: int = 5) -> Site:
    return Site(path="layer", module=module, input_shape=(size,), output_shape=(size,))


@pytest.fixture
def lifted() -> tuple[Circulant, ConstrainedLayer]:
    torch.manual_seed(0)
    module = Circulant(5, dtype=torch.float64)
    layer = Dense(None).lift(site(module))
    assert isinstance(layer, ConstrainedLayer)
    return module, layer


X = torch.linspace(-1, 2, 15, dtype=torch.float64).view(3, 5)


def test_is_its_parent_and_goes_back_to_it(lifted: tuple[Circulant, ConstrainedLayer]) -> None:
    module, layer = lifted
    assert (layer(X) - module(X)).abs().max() < 1e-14
    back = layer.project()
    assert isinstance(back, Circulant)
    assert torch.allclose(back.weight, module.weight, atol=1e-15)
    assert torch.equal(back.bias, module.bias)
    assert {name for name, _ in layer.named_parameters()} == {"free.weight", "free.bias"}


def test_projection_is_the_nearest_circulant(lifted: tuple[Circulant, ConstrainedLayer]) -> None:
    _, layer = lifted
    with torch.no_grad():
        layer.free.weight.normal_()
        layer.free.bias.normal_()
    basis = np.stack([(labels(5) == label).ravel() for label in range(5)], axis=1).astype(float)
    nearest, *_ = np.linalg.lstsq(basis, layer.free.weight.detach().numpy().ravel(), rcond=None)
    back = layer.project()
    assert np.allclose(back.weight.detach().numpy(), nearest)
    assert torch.equal(back.bias, layer.free.bias)
    drift = layer.drift(lifted[1])
    assert drift.total == pytest.approx(float(layer.free.weight.detach().square().sum()))
    assert drift.off_local == 0
    assert drift.initial == pytest.approx((5 / 15, 20 / 15, 0))


def test_the_gradient_of_the_parent_is_the_sum_over_copies(lifted: tuple[Circulant, ConstrainedLayer]) -> None:
    module, layer = lifted
    module(X).pow(3).sum().backward()
    layer(X).pow(3).sum().backward()
    (link,) = layer.links
    assert torch.allclose(link.constraint.total(layer.free.weight.grad), module.weight.grad)
    carried = layer.transport("weight", module.weight.grad, "gradient")
    assert torch.allclose(link.constraint.total(carried["free.weight"]), module.weight.grad)


def test_cost_is_what_is_held(lifted: tuple[Circulant, ConstrainedLayer]) -> None:
    module, layer = lifted
    cost = Dense(None).cost(site(module))
    assert cost.parameters == sum(parameter.numel() for parameter in layer.parameters())
    assert cost.itemsize == 8


def test_default_initialisation_is_that_of_the_free_module(lifted: tuple[Circulant, ConstrainedLayer]) -> None:
    _, layer = lifted
    torch.manual_seed(1)
    layer.reset_parameters()
    torch.manual_seed(1)
    assert torch.equal(layer.free.weight, nn.Linear(5, 5, dtype=torch.float64).weight)


def test_links_that_do_not_fit_are_told() -> None:
    module = Circulant(5)
    free = nn.Linear(5, 4)
    link = Link(parent="weight", constraint=Constraint((5, 5), (5,), [Incidence.of(labels(5), 5)]))
    with pytest.raises(PluginError, match=r"weight is \[4, 5\], its constraint says \[5, 5\]"):
        ConstrainedLayer("dense", free, [link], module)
    with pytest.raises(PluginError, match="'wight' is no parameter of the parent"):
        ConstrainedLayer("dense", free, [Link(parent="wight", free=("weight",), constraint=link.constraint)], module)


def test_a_name_alone_is_one_parameter_and_not_its_letters() -> None:
    assert Link(parent="codebook", free="weight", constraint=Constraint.unshared((5,))).free == ("weight",)


def test_a_parameter_without_a_default_initialisation_is_named() -> None:
    module = Circulant(5)
    layer = ConstrainedLayer("same", Circulant(5), [Link(parent="weight", constraint=Constraint.unshared((5,)))], module)
    with pytest.raises(SurgeryError, match="default initialisation of weight, bias is not known"):
        layer.reset_parameters()


class Masked(nn.Module):
    """A linear layer with a fixed mask."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
        self.register_buffer("mask", torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight * self.mask).t()


class Unmask(AbstractConstraintRelaxation):
    """masked -> dense, which restores what the mask hides."""

    name = "open"
    targets = (Masked,)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        free = nn.Linear(4, 3, bias=False, device=module.weight.device, dtype=torch.float64)
        label = np.where(module.mask.numpy() > 0, np.arange(12).reshape(3, 4), -1)
        return Loosened(free=free, links=[Link(parent="weight", constraint=Constraint((3, 4), (3, 4), [Incidence.of(label, 12)]))])


class Untie(AbstractConstraintRelaxation):
    """One linear layer -> two copies, one for each half of the batch."""

    name = "two"
    targets = (nn.Linear,)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        free = nn.Module()
        free.copies = nn.ModuleList([nn.Linear(4, 3, bias=False, device=module.weight.device, dtype=module.weight.dtype) for _ in range(2)])
        twice = Constraint((2, 3, 4), (3, 4), [Incidence.of(np.zeros(2), 1), Incidence.identity(12)])
        return Loosened(free=free, links=[Link(parent="weight", free=("copies.0.weight", "copies.1.weight"), constraint=twice)])


def test_what_no_entry_depends_on_is_kept() -> None:
    torch.manual_seed(0)
    module = Masked()
    layer = Unmask(None).lift(site(module))
    assert torch.equal(layer.project().weight, module.weight)


def test_copies_have_parts_together_and_a_second_relaxation_goes_back_to_the_first_parent() -> None:
    torch.manual_seed(0)
    module = Masked()
    once = Unmask(None).lift(site(module))
    relaxation: AbstractRelaxation = Untie(None)
    twice = relaxation.lift(site(once))
    assert isinstance(twice, ConstrainedLayer)
    assert torch.equal(twice.project().weight, module.weight)
    values = {name: torch.randn(3, 4, dtype=torch.float64) for name in ("free.copies.0.weight", "free.copies.1.weight")}
    first, second = values.values()
    shared = twice.weighted(values, {"shared": 1.0})
    assert torch.allclose(shared["free.copies.1.weight"], (first + second) / 2 * module.mask)
    halved = twice.weighted(values, {"shared": 1.0, "unshared": 0.5, "off-local": 0.25})
    expected = (first + second) / 2 * module.mask + (first - second) / 4 * module.mask + first * (1 - module.mask) / 4
    assert torch.allclose(halved["free.copies.0.weight"], expected)
    with pytest.raises(SurgeryError, match="one of 2 copies of weight"):
        twice.split(first, "free.copies.0.weight")
    state = relaxation.transport(site(once), twice, "free.weight", first, "gradient")
    assert torch.allclose(state["free.copies.0.weight"] + state["free.copies.1.weight"], first)
    assert relaxation.refusal(site(twice)) is not None


def test_a_network_that_reads_the_settings_of_the_layer_finds_them(lifted: tuple[Circulant, ConstrainedLayer]) -> None:
    _, layer = lifted
    assert layer.in_features == 5
    with pytest.raises(AttributeError, match="kernel_size"):
        layer.kernel_size  # noqa: B018
    network = nn.Sequential(OrderedDict(layer=layer))
    assert network.get_parameter("layer.free.weight").shape == (5, 5)


class Looked(nn.Module):
    """A table that is looked up by an index of offsets, with a count of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2, dtype=torch.float64))
        self.register_buffer("index", torch.tensor([0, 1, 1, 0]))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.table[self.index]


class LookedLayer(ConstrainedLayer):
    """Its index says what is constrained, and is none of the constrained module's."""

    def constrained_buffers(self) -> dict[str, torch.Tensor]:
        return {"calls": self.free.calls}


class OtherLayer(ConstrainedLayer):
    """A layer of a class of its own."""


def looked_up(module: nn.Module, layer_class: type[ConstrainedLayer]) -> ConstrainedLayer:
    free = Looked()
    free.table = nn.Parameter(module.table[module.index].detach())
    free.index = torch.arange(4)
    link = Link(parent="table", constraint=Constraint((4,), module.table.shape, [Incidence.of(module.index.numpy(), len(module.table))]))
    return layer_class("lookup", free, [link], module)


@pytest.mark.parametrize("outer", [ConstrainedLayer, LookedLayer])
def test_buffers_that_say_what_is_constrained_are_those_of_the_constrained_module(outer: type[ConstrainedLayer]) -> None:
    module = Looked()
    first = looked_up(module, LookedLayer)
    layer = looked_up(first.free, outer).rooted(first)
    layer.free.calls += 3
    back = layer.project()
    assert torch.equal(back.index, module.index)
    assert torch.equal(back.table, module.table)
    assert back.calls == 3


def test_two_layers_that_go_back_in_ways_of_their_own_are_not_one() -> None:
    first = looked_up(Looked(), LookedLayer)
    with pytest.raises(SurgeryError, match="a layer of lookup cannot be relaxed by lookup: both know how to go back"):
        looked_up(first.free, OtherLayer).rooted(first)


def test_what_no_entry_depends_on_is_kept_by_the_second_of_two_relaxations() -> None:
    torch.manual_seed(0)
    module = nn.Module()
    module.table, module.matrix = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))

    def freed(parent: nn.Module, name: str, label: list[int]) -> ConstrainedLayer:
        free = nn.Module()
        for other in ("table", "matrix"):
            setattr(free, other, nn.Parameter(parent.get_parameter(other).detach().clone()))
        setattr(free, name, nn.Parameter(torch.zeros(len(label))))
        constraint = Constraint(
            (len(label),), parent.get_parameter(name).shape, [Incidence.of(np.array(label), len(parent.get_parameter(name)))]
        )
        layer = ConstrainedLayer("step", free, [Link(parent=name, constraint=constraint)], parent)
        layer.take(parent)
        return layer

    for steps in (
        [("matrix", [0, 1, 0]), ("table", [2, 0])],
        [("table", [0, 1, 2, 1]), ("table", [3, 0, 3])],
        [("table", [0, 2]), ("table", [0, -1])],
    ):
        layer = freed(module, *steps[0])
        layer = freed(layer.free, *steps[1]).rooted(layer)
        back = layer.project()
        assert torch.equal(back.table, module.table)
        assert torch.equal(back.matrix, module.matrix)


@pytest.mark.parametrize("name", ["bias", "bias_hh_l0", "in_proj_bias"])
def test_drift_leaves_biases_out_whatever_they_are_called(name: str) -> None:
    module = nn.Module()
    module.weight, module.other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    free = nn.Module()
    free.weight = nn.Parameter(torch.ones(3))
    setattr(free, name, nn.Parameter(torch.full((3,), 5.0)))
    constraint = Constraint((3,), (2,), [Incidence.of(np.array([0, 1, -1]), 2)])
    links = [Link(parent="weight", constraint=constraint), Link(parent="other", free=name, constraint=constraint)]
    layer = ConstrainedLayer("open", free, links, module)
    assert layer.drift().total == 3
    assert layer.drifting() == ("free.weight",)
