"""The lattice is exact: against PyTorch's own convolutions, against dense matrices, in both directions along every edge."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anarch_core.constraint.parts import PARTS
from anarch_core.lattice.families import CONV, AbstractFamily, share_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.lattice.maps import project_labels
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation.base import Site
from anarch_core.testing.convolutions import Case, cases

FAMILIES = [("efcn", {}), ("lcn", {}), ("shared", {}), ("tiled", {"period": 2}), ("tiled", {"period": 3})]
EDGES = [
    (("lcn", {}), ("efcn", {})),
    (("shared", {}), ("efcn", {})),
    (("tiled", {"period": 2}), ("lcn", {})),
    (("tiled", {"period": 2}), ("tiled", {"period": 4})),
    (("tiled", {"period": 3}), ("efcn", {})),
]
pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
every_family = pytest.mark.parametrize("family", FAMILIES, ids=str)


def relaxation(family):
    name, options = family
    return get_registry().create("relaxation", name, options)


def site(module: nn.Module, x: torch.Tensor) -> Site:
    with torch.no_grad():
        y = module(x)
    return Site(path="conv", module=module, input_shape=tuple(x.shape[1:]), output_shape=tuple(y.shape[1:]))


def lift(family, module: nn.Module, x: torch.Tensor) -> LatticeLayer:
    return relaxation(family).lift(site(module, x))


def dense_matrix(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The matrix from inputs to outputs, by differentiating the module: knows nothing of index maps."""
    matrix = torch.autograd.functional.jacobian(lambda one: module(one[None])[0].flatten(), x[0])
    return matrix.reshape(matrix.shape[0], -1)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max().clamp(min=1e-300))


@every_family
@given(case=cases())
def test_lift_equals_the_convolution(family, case: Case):
    layer = lift(family, case.module, case.x)
    assert relative(layer(case.x), case.module(case.x)) < 1e-10


@every_family
@given(case=cases())
def test_projection_is_a_left_inverse_of_the_lift(family, case: Case):
    back = lift(family, case.module, case.x).project()
    assert type(back) is type(case.module)
    assert repr(back) == repr(case.module)
    for name, parameter in case.module.named_parameters():
        assert relative(back.get_parameter(name), parameter) < 1e-10


@given(case=cases())
def test_the_weight_of_the_efcn_is_the_matrix_of_the_convolution(case: Case):
    assert relative(lift(("efcn", {}), case.module, case.x).weight, dense_matrix(case.module, case.x)) < 1e-12


@every_family
@given(case=cases())
def test_drift_parts_add_up_to_the_norm_of_the_dense_matrix(family, case: Case):
    layer = lift(family, case.module, case.x)
    fresh = layer.drift()
    assert fresh.unshared <= 1e-24 * max(fresh.total, 1e-300)
    assert fresh.off_local <= 1e-24 * max(fresh.total, 1e-300)
    layer.reset_parameters()
    assert layer.drift().total == pytest.approx(float(dense_matrix(layer, case.x).square().sum()), rel=1e-9)


@every_family
def test_a_layer_none_of_whose_positions_reads_a_pixel(family):
    conv = nn.Conv2d(2, 2, 1, stride=2, padding=1).double()
    x = torch.randn(3, 2, 1, 1, dtype=torch.float64)
    layer = lift(family, conv, x)
    assert torch.equal(layer(x), conv(x))
    layer.reset_parameters()
    assert layer.drift().total == pytest.approx(float(dense_matrix(layer, x).square().sum()))


@given(case=cases())
def test_drift_parts_of_an_efcn_are_the_orthogonal_projections_of_its_matrix(case: Case):
    """Pythagoras against explicit projectors made from the matrices of one-hot convolutions."""
    layer = lift(("efcn", {}), case.module, case.x)
    basis = []
    probe = site(case.module, case.x).module
    saved = probe.weight.detach().clone()
    for index in range(saved.numel()):
        with torch.no_grad():
            probe.weight.zero_().view(-1)[index] = 1.0
        basis.append(dense_matrix(probe, case.x).flatten())
    with torch.no_grad():
        probe.weight.copy_(saved)
    columns = torch.stack(basis, 1)
    layer.reset_parameters()
    matrix = layer.weight.detach().flatten()
    local = torch.where((columns != 0).any(1), matrix, 0)
    shared = columns @ torch.linalg.lstsq(columns, matrix[:, None], driver="gelsd").solution[:, 0]
    drift = layer.drift()
    for actual, expected in [
        (drift.shared, shared),
        (drift.unshared, local - shared),
        (drift.off_local, matrix - local),
    ]:
        assert actual == pytest.approx(float(expected.square().sum()), rel=1e-7, abs=1e-9 * drift.total)
    parts = layer.split(layer.weight.detach())
    for actual, expected in zip(parts, (shared, local - shared, matrix - local), strict=True):
        torch.testing.assert_close(actual.flatten(), expected, atol=1e-8, rtol=1e-7)


@every_family
@given(case=cases())
def test_kept_parts_are_sums_of_the_parts(family, case: Case):
    layer = lift(family, case.module, case.x)
    layer.reset_parameters()
    for name, parameter in layer.named_parameters():
        tensor = parameter.detach()
        parts = torch.stack(layer.split(tensor, name))
        torch.testing.assert_close(parts.sum(0), tensor)
        for kept in (chosen for count in range(4) for chosen in itertools.combinations(PARTS, count)):
            expected = (parts * torch.tensor([part in kept for part in PARTS]).view(-1, *[1] * tensor.ndim)).sum(0)
            torch.testing.assert_close(layer.keep(tensor, kept, name), expected, atol=1e-10, rtol=1e-8)


class Allocations(TorchDispatchMode):
    """Counts results as large as a weight that lie in memory of their own."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.numel() >= self.weight.numel():
                self.count += tensor.untyped_storage().data_ptr() not in given
        return result


def test_drift_of_a_fully_connected_layer_makes_nothing_of_its_size_and_kept_parts_one_thing():
    conv, x = nn.Conv2d(3, 5, 3, padding=1), torch.randn(1, 3, 12, 12)
    layer = lift(("efcn", {}), conv, x)
    layer.reset_parameters()
    for work, most in ((layer.drift, 0), (lambda: layer.keep(layer.weight, ("shared", "unshared")), 1), (layer.project, 0)):
        with Allocations(layer.weight) as seen:
            work()
        assert seen.count == most
    with Allocations(layer.weight) as seen:
        layer.split(layer.weight)
    assert seen.count >= 3


def test_drift_in_single_precision_is_that_in_double():
    conv, x = nn.Conv2d(3, 70, 3, padding=1, stride=2), torch.randn(1, 3, 8, 8)
    layer = lift(("efcn", {}), conv, x)
    fresh = layer.drift()
    assert fresh.unshared == fresh.off_local == 0
    with torch.no_grad():
        layer.weight.add_(torch.randn_like(layer.weight), alpha=1e-5)
    single, double = layer.drift(), copy.deepcopy(layer).double().drift()
    assert single.shared == pytest.approx(double.shared, rel=1e-9)
    assert single.unshared == pytest.approx(double.unshared, rel=1e-4)
    assert single.off_local == pytest.approx(double.off_local, rel=1e-6)


@pytest.mark.parametrize("edge", EDGES, ids=str)
@given(case=cases(dims=(1, 2)))
def test_every_edge_lifts_exactly_and_projects_back(edge, case: Case):
    lower, upper = edge
    small = lift(lower, case.module, case.x)
    small.reset_parameters()
    large = lift(upper, small, case.x)
    assert relative(large(case.x), small(case.x)) < 1e-10
    back = projected(large, small.family, type(small))
    assert relative(back(case.x), small(case.x)) < 1e-10


@torch.no_grad()
def projected(layer: LatticeLayer, family: AbstractFamily, layer_class: type[LatticeLayer]) -> LatticeLayer:
    """The layer of a smaller family nearest to a layer."""
    smaller = layer_class(family, layer.geometry, layer.weight.detach())
    view = smaller.weight_view(smaller.weight)
    view.copy_(project_labels(family, layer.family, layer.geometry, layer.weight_view(layer.weight)).view(view.shape))
    if smaller.bias is not None and layer.bias is not None:
        smaller.bias.copy_(smaller.collect_bias(layer.position_bias(layer.bias), mean=True))
    return smaller


@given(case=cases(dims=(1, 2), modes=("zeros",)), rate=st.floats(0.01, 1.0))
def test_a_projected_sgd_step_is_the_cnns_step_divided_by_the_share_count(case: Case, rate: float):
    """Φ⁺(W − η ∂L/∂W) = w − (η/n) ∂L/∂w for every tap that is seen; the bias likewise with the number of positions.

    With padding other than zeros several taps meet in one entry, and n is a matrix.
    """
    geometry = ConvGeometry.of(case.module, case.x.shape[2:])
    counts = share_counts(CONV, geometry)
    layer = lift(("efcn", {}), case.module, case.x)
    for module in (case.module, layer):
        module.zero_grad()
        module(case.x).square().sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= rate * parameter.grad
    stepped = layer.project()
    n = torch.from_numpy(counts)
    with torch.no_grad():
        before = case.module.weight + rate * case.module.weight.grad
        expected = torch.where(n > 0, before - rate * case.module.weight.grad / n.clamp(min=1), before)
    assert relative(stepped.weight, expected) < 1e-9
    if case.module.bias is not None:
        bias = case.module.bias + rate * case.module.bias.grad * (1 - 1 / geometry.positions)
        assert relative(stepped.bias, bias) < 1e-9


@given(case=cases())
def test_cost_is_what_is_allocated(case: Case):
    for family in FAMILIES:
        there = site(case.module, case.x)
        layer = relaxation(family).lift(there)
        assert relaxation(family).cost(there).parameters == sum(p.numel() for p in layer.parameters())


def test_no_weight_meets_a_padded_zero():
    """Columns of the VanillaCNN's first layer: 3 x 32 x 32, not 3 x 36 x 36; and its locally connected layer has in-bounds pairs only."""
    conv = nn.Conv2d(3, 64, 4, stride=2, padding=2)
    x = torch.randn(1, 3, 32, 32)
    assert lift(("efcn", {}), conv, x).weight.shape == (64 * 17 * 17, 3 * 32 * 32)
    assert lift(("lcn", {}), conv, x).weight.numel() == 64 * 64 * 64 * 3


def test_taps_that_only_read_padding_survive_the_round_trip():
    conv = nn.Conv2d(2, 2, 3, padding=1).double()
    x = torch.randn(1, 2, 1, 1, dtype=torch.float64)
    for family in FAMILIES:
        assert torch.equal(lift(family, conv, x).project().weight, conv.weight)


def test_a_lift_out_of_the_lattice_is_refused_with_the_reason():
    conv, x = nn.Conv1d(1, 1, 3, padding=1), torch.randn(1, 1, 8)
    lcn = lift(("lcn", {}), conv, x)
    assert "does not lie inside shared" in relaxation(("shared", {})).refusal(site(lcn, x))


@every_family
def test_unbatched_input_float16_free_dtypes_and_wrong_sizes(family):
    conv = nn.Conv2d(2, 3, 3, padding=1)
    x = torch.randn(2, 2, 5, 4)
    layer = lift(family, conv, x)
    torch.testing.assert_close(layer(x[0]), layer(x)[0], atol=1e-6, rtol=1e-5)
    assert layer.weight.dtype == torch.float32
    assert lift(family, conv.bfloat16(), x.bfloat16())(x.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"made for inputs of shape \[2, 5, 4\], got \[2, 2, 6, 4\]"):
        layer(torch.randn(2, 2, 6, 4))


@every_family
def test_second_derivatives(family):
    conv = nn.Conv1d(2, 2, 3, padding=1, stride=2).double()
    x = torch.randn(2, 2, 6, dtype=torch.float64)
    layer = lift(family, conv, x)
    names, values = zip(*layer.named_parameters(), strict=True)
    values = tuple(value.detach().requires_grad_() for value in values)

    def loss(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,)).pow(3).sum()

    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), *values))
    assert torch.autograd.gradgradcheck(loss, (x, *values))
