"""Layers of the lattice over a convolution that was relaxed before: what is shared, unshared and off-local is said of the first module."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.errors import SurgeryError
from anarch_core.layers import ConstrainedLayer, Link
from anarch_core.layers.rooted import RootedLayer
from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site, relax


def plain(conv: nn.Conv2d, *, kernel: int, groups: int) -> nn.Conv2d:
    """An uninitialised convolution that differs from ``conv`` in kernel and groups, at the same positions."""
    settings = {"stride": conv.stride, "padding": conv.padding[0] + (kernel - conv.kernel_size[0]) // 2, "groups": groups}
    kept = {"bias": conv.bias is not None, "padding_mode": conv.padding_mode, "dtype": conv.weight.dtype, "device": conv.weight.device}
    free: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, conv.in_channels, conv.out_channels, kernel, **settings, **kept)
    if conv.bias is not None:
        free.bias = nn.Parameter(conv.bias.detach().clone())
    return free


class Ungroup(AbstractConstraintRelaxation):
    """groups -> one."""

    name = "whole"
    targets = (nn.Conv2d,)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        free = plain(module, kernel=module.kernel_size[0], groups=1)
        outputs, inputs = module.out_channels // module.groups, module.in_channels // module.groups
        label = np.full((module.out_channels, module.in_channels), -1)
        for o, i in itertools.product(range(module.out_channels), range(inputs)):
            label[o, o // outputs * inputs + i] = o * inputs + i
        taps = Incidence.identity(module.kernel_size[0] ** 2)
        channels = Incidence.of(label, module.out_channels * inputs)
        constraint = Constraint(free.weight.shape, module.weight.shape, [channels, taps])
        return Loosened(free=free, links=[Link(parent="weight", constraint=constraint)])


class Grow(AbstractConstraintRelaxation):
    """3 x 3 -> 5 x 5."""

    name = "large"
    targets = (nn.Conv2d,)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        free = plain(module, kernel=5, groups=module.groups)
        tap = Incidence.of(np.array([-1, 0, 1, 2, -1]), 3)
        channels = Incidence.identity(module.weight.shape[0] * module.weight.shape[1])
        constraint = Constraint(free.weight.shape, module.weight.shape, [channels, tap, tap])
        return Loosened(free=free, links=[Link(parent="weight", constraint=constraint)])


FIRST = {"whole": Ungroup, "large": Grow}


def conv(mode: str = "zeros", stride: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 2, 3, padding=1, groups=2, stride=stride, padding_mode=mode, dtype=torch.float64)


def site(module: nn.Module) -> Site:
    return Site(path="layer", module=module, input_shape=(4, 5, 4), output_shape=(2, 5, 4))


def lifted(module: nn.Module, first: str, *families: str) -> RootedLayer:
    layer = FIRST[first](None).lift(site(module))
    for family in families:
        relaxation = get_registry().create("relaxation", family, {})
        assert relaxation.refusal(site(layer)) is None
        layer = relaxation.lift(site(layer))
    assert isinstance(layer, RootedLayer)
    return layer


def matrix(layer: nn.Module) -> np.ndarray:
    """The dense matrix from inputs to outputs."""
    constant = layer(torch.zeros(1, 4, 5, 4, dtype=torch.float64))
    return (layer(torch.eye(80, dtype=torch.float64).view(80, 4, 5, 4)) - constant).flatten(1).t().detach().numpy()


def basis(module: nn.Conv2d) -> np.ndarray:
    """The dense matrices of all modules of the first kind, one for each of its weights, as columns."""
    columns = []
    with torch.no_grad():
        module.bias.zero_()
        for place in range(module.weight.numel()):
            module.weight.zero_().view(-1)[place] = 1
            columns.append(matrix(module).ravel())
    return np.stack(columns, axis=1)


CASES = [("whole", ("lcn",)), ("whole", ("shared",)), ("whole", ("lcn", "efcn")), ("large", ("lcn",)), ("large", ("shared", "efcn"))]


@pytest.mark.parametrize(("first", "families"), CASES)
@pytest.mark.parametrize("stride", [1, 2])
def test_parts_are_those_of_the_first_module(first: str, families: tuple[str, ...], stride: int) -> None:
    module = conv(stride=stride)
    layer = lifted(module, first, *families)
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64)
    assert (layer(x) - module(x)).abs().max() < 1e-14
    assert torch.allclose(layer.project().weight, module.weight, atol=1e-14)
    fresh = layer.drift(layer)
    assert fresh.unshared + fresh.off_local < 1e-28 * fresh.total
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    whole, a = matrix(layer).ravel(), basis(conv(stride=stride))
    theta, *_ = np.linalg.lstsq(a, whole, rcond=None)
    inside = whole * (np.abs(a).sum(1) > 0)
    parts = a @ theta, inside - a @ theta, whole - inside
    assert np.allclose(layer.project().weight.detach().numpy().ravel(), theta)
    drift = layer.drift(lifted(module, first, *families))
    assert (drift.shared, drift.unshared, drift.off_local) == pytest.approx([float(np.square(part).sum()) for part in parts])
    start = a @ module.weight.detach().numpy().ravel()
    assert drift.moved == pytest.approx(float(np.square(parts[0] - start).sum()))
    weight = layer.layer.weight.detach().clone()
    for part, kept in zip(parts, layer.split(weight), strict=True):
        with torch.no_grad():
            layer.layer.weight.copy_(kept)
        assert np.allclose(matrix(layer).ravel(), part)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("families", [("lcn",), ("shared",), ("shared", "efcn")])
def test_weights_that_meet_in_a_pixel_are_parts_together(mode: str, families: tuple[str, ...]) -> None:
    layer = lifted(conv(mode), "whole", *families)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    whole, a = matrix(layer).ravel(), basis(conv(mode))
    theta, *_ = np.linalg.lstsq(a, whole, rcond=None)
    inside = whole * (np.abs(a).sum(1) > 0)
    parts = [float(np.square(part).sum()) for part in (a @ theta, inside - a @ theta, whole - inside)]
    drift = layer.drift()
    assert (drift.shared, drift.unshared, drift.off_local) == pytest.approx(parts)
    assert np.allclose(layer.project().weight.detach().numpy().ravel(), theta)
    with torch.no_grad():
        layer.layer.weight.copy_(layer.split(layer.layer.weight)[0])
    assert np.allclose(matrix(layer).ravel(), a @ theta)


def test_expected_drift_of_an_ungrouped_layer_is_that_of_its_dimensions() -> None:
    layer = lifted(conv(), "whole", "efcn")
    drift = layer.drift()
    a = basis(conv())
    support = int((np.abs(a).sum(1) > 0).sum())
    variance = float(layer.layer.weight_bound()) ** 2 / 3
    dimensions = a.shape[1], support - a.shape[1], a.shape[0] - support
    assert drift.initial == pytest.approx([variance * dimension for dimension in dimensions])


def test_optimizer_state_is_carried_to_the_layer_of_the_lattice() -> None:
    module = FIRST["whole"](None).lift(site(conv()))
    relaxation = get_registry().create("relaxation", "lcn", {})
    layer = relaxation.lift(site(module))
    state = relaxation.transport(site(module), layer, "free.weight", module.free.weight.detach(), "weight")
    assert torch.equal(state["layer.weight"], layer.layer.weight)


@pytest.mark.parametrize(("first", "expected"), [("whole", None), ("large", "padding mode 'reflect'")])
def test_where_taps_meet_in_a_pixel_only_channels_may_have_been_zero(first: str, expected: str | None) -> None:
    layer = FIRST[first](None).lift(site(conv("reflect")))
    reason = get_registry().create("relaxation", "lcn", {}).refusal(site(layer))
    assert (reason is None) if expected is None else (expected in reason)


def test_weights_of_a_family_that_meet_in_a_pixel_with_zeros_among_them_are_refused() -> None:
    class Taps(Grow):
        def loosen(self, module: nn.Module, site: Site) -> Loosened:
            tap = Incidence.of(np.array([-1, 0]), 1)
            factors = [Incidence.identity(4), tap, Incidence.identity(2)]
            free = nn.utils.skip_init(nn.Conv2d, 2, 2, 2, bias=False, padding_mode="reflect", dtype=torch.float64)
            return Loosened(free=free, links=[Link(parent="weight", constraint=Constraint((2, 2, 2, 2), (2, 2, 1, 2), factors))])

    module = nn.Conv2d(2, 2, (1, 2), bias=False, dtype=torch.float64)
    layer = Taps(None).lift(Site(path="layer", module=module, input_shape=(2, 5, 5), output_shape=(2, 4, 4)))
    place = Site(path="layer", module=layer, input_shape=(2, 5, 5), output_shape=(2, 4, 4))
    tiled, shared = (get_registry().create("relaxation", name, options) for name, options in (("tiled", {"period": 1}), ("shared", {})))
    assert "weights of shared meet those of large in one pixel" in shared.refusal(place)
    assert tiled.refusal(place) is None
    assert "weights of shared meet" in shared.refusal(attrs.evolve(place, module=tiled.lift(place)))


def test_a_network_is_relaxed_in_two_steps_and_projected_in_one() -> None:
    class Head(nn.Sequential):
        pass

    module = conv()
    network = Head(OrderedDict(layer=FIRST["whole"](None).lift(site(module)), flat=nn.Flatten(), out=nn.Linear(40, 3).double()))
    relaxed = relax(network, "efcn", example_input=torch.randn(2, 4, 5, 4, dtype=torch.float64))
    assert relaxed.report.exact
    assert isinstance(relaxed.model.layer, RootedLayer)
    assert isinstance(relaxed.model.layer.project(), nn.Conv2d)
    assert relaxed.model.layer.project().groups == 2


def test_a_layer_with_equal_weights_is_not_taken() -> None:
    class Equal(Grow):
        def loosen(self, module: nn.Module, site: Site) -> Loosened:
            free = plain(module, kernel=3, groups=2)
            one = Incidence.of(np.zeros(9), 1)
            link = Link(parent="weight", constraint=Constraint(free.weight.shape, (2, 2, 1, 1), [Incidence.identity(4), one]))
            return Loosened(free=free, links=[link])

    module = nn.Conv2d(4, 2, 1, groups=2, dtype=torch.float64)
    layer = Equal(None).lift(site(module))
    assert isinstance(layer, ConstrainedLayer)
    with pytest.raises(SurgeryError, match="weights of the convolution are equal; project it first"):
        relax(nn.Sequential(layer), "lcn", example_input=torch.randn(1, 4, 5, 4, dtype=torch.float64))
