"""A number for every pair of positions: which labels pairs had, what has nothing to relax, and what cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from anarch_core import drift, project, relax
from anarch_core.relaxation import Site, plan
from anarch_core.testing.cases import Case
from anarch_plugins.models.vit.attention import GroupedQueryAttention
from anarch_plugins.models.vit.resmlp import ToeplitzLinear
from anarch_plugins.relaxations.positions.relaxation import PositionsRelaxation
from tests.plugins.relaxations.explicit import check_generated, matrix

GRIDS = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)


def positions() -> PositionsRelaxation:
    return PositionsRelaxation(None)


def site(module: nn.Module) -> Site:
    return Site(path="layer", module=module, input_shape=(), output_shape=())


@st.composite
def attention(draw: st.DrawFn) -> Case:
    grid, heads = draw(GRIDS), draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = GroupedQueryAttention(2 * heads, heads, 1, grid).double()
    nn.init.normal_(layer.relative_position_bias_table)
    return Case(layer, torch.randn(2, int(np.prod(grid)), 2 * heads, dtype=torch.float64))


@st.composite
def diagonals(draw: st.DrawFn) -> Case:
    layer = ToeplitzLinear(draw(GRIDS), circulant=draw(st.booleans())).double()
    return Case(layer, torch.randn(2, layer.in_features, dtype=torch.float64))


def test_bias_is_exact_and_projects_as_least_squares_does() -> None:
    def reference(layer: Any) -> dict[str, np.ndarray]:
        table = tuple(layer.relative_position_bias_table.shape)
        index = layer.relative_position_index.numpy()
        return {"relative_position_bias_table": matrix(lambda theta: theta[index], table)}

    check_generated(attention(), positions(), reference)


def test_matrices_are_exact_and_project_as_least_squares_does() -> None:
    def reference(layer: Any) -> np.ndarray:
        size = layer.in_features

        def written_out(theta: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(theta))
                return (layer(torch.eye(size, dtype=torch.float64)) - layer.bias).T.numpy()

        kept = layer.weight.detach().clone()
        found = matrix(written_out, tuple(layer.weight.shape))
        layer.weight.data.copy_(kept)
        return found.round(12)

    check_generated(diagonals(), positions(), reference)


@pytest.mark.parametrize("shift", [[0, 0], [1, 1]])
def test_windows_of_torchvision(shift: list[int]) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(ShiftedWindowAttention(8, [2, 3], shift, 4)).double(), torch.randn(2, 4, 6, 8).double()
    model = relax(network, "positions", example_input=x).model
    assert torch.equal(model(x), network(x))
    assert model[0].free.relative_position_bias_table.shape == (36, 4)
    with torch.no_grad():
        model[0].free.relative_position_bias_table.normal_()
    back = project(model)
    assert torch.equal(back[0].relative_position_index, network[0].relative_position_index)
    for offset in range(15):
        mean = model[0].free.relative_position_bias_table[network[0].relative_position_index == offset].mean(0)
        assert torch.allclose(back[0].relative_position_bias_table[offset], mean)
    assert drift(model).total.unshared > 0
    before = model[0].free.relative_position_bias_table.clone()
    model[0].reset_parameters()
    assert 0 < model[0].free.relative_position_bias_table.std() < 0.1 < before.std()
    assert (model(x) - back(x)).abs().max() > 0


class MadeAnew(GroupedQueryAttention):
    """Its index is made anew together with its parameters, as timm does."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "offsets"):
            self.relative_position_index.copy_(self.offsets)
        else:
            self.offsets = self.relative_position_index.clone()


def test_default_initialisation_leaves_every_pair_its_own_number() -> None:
    layer = positions().lift(site(MadeAnew(4, 2, 1, (3,))))
    layer.reset_parameters()
    assert torch.equal(layer.relative_position_index, torch.arange(9).view(3, 3))


def test_rows_that_no_pair_uses_come_back() -> None:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(4, 2, 1, (3,))
    attention.relative_position_index.clamp_(max=3)
    attention.relative_position_index[0, 0] = -1
    layer = positions().lift(site(attention))
    x = torch.randn(2, 3, 4)
    assert torch.equal(layer(x), attention(x))
    assert torch.equal(layer.project().relative_position_bias_table, attention.relative_position_bias_table)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int64])
@pytest.mark.parametrize("held", ["buffer", "attribute", "expanded"])
def test_the_index_is_of_any_type_and_held_anyhow(dtype: torch.dtype, held: str) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relative_position_bias_table = nn.Parameter(torch.randn(33, 2))
            index = torch.arange(17) + torch.arange(17)[:, None]
            index = (torch.arange(17).expand(17, 17) if held == "expanded" else index).to(dtype)
            if held == "attribute":
                self.relative_position_index = index
            else:
                self.register_buffer("relative_position_index", index)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.relative_position_bias_table[self.relative_position_index.long()].sum(-1)

    torch.manual_seed(0)
    network, x = nn.Sequential(Rows()), torch.randn(2, 17)
    relaxed = relax(network, "positions", example_input=x)
    assert relaxed.report.exact
    assert torch.equal(relaxed.model(x), network(x))
    back = project(relaxed.model)[0]
    assert torch.allclose(back.relative_position_bias_table, network[0].relative_position_bias_table)
    assert torch.equal(back.relative_position_index, network[0].relative_position_index)


def without_index() -> nn.Module:
    module = nn.Module()
    module.relative_position_bias_table = nn.Parameter(torch.zeros(3, 2))
    module.relative_position_index = None
    return module


def without_both() -> nn.Module:
    module = nn.Module()
    module.relative_position_bias_table = module.relative_position_index = None
    return module


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (GroupedQueryAttention(4, 2, 1), "it has no relative position bias"),
        (without_both(), "it has no relative position bias"),
        (GroupedQueryAttention(4, 2, 1, (1,)), "every pair of positions has a number of its own"),
    ],
)
def test_what_has_nothing_to_relax(module: nn.Module, told: str) -> None:
    assert positions().idle(site(module)) == told


def with_index(dtype: torch.dtype) -> nn.Module:
    module = nn.Module()
    module.relative_position_bias_table = nn.Parameter(torch.zeros(3, 2))
    module.relative_position_index = torch.zeros(4, 4, dtype=dtype)
    return module


def with_kernel() -> nn.Module:
    module = nn.Linear(2, 2)
    module.register_buffer("weight_index", torch.zeros(2, 2, dtype=torch.int64))
    return module


def with_buffer() -> nn.Module:
    module = nn.Module()
    module.register_buffer("weight", torch.zeros(3))
    module.register_buffer("weight_index", torch.zeros(2, 2, dtype=torch.int64))
    return module


@pytest.mark.parametrize("compute", [parametrizations.weight_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)])
def test_numbers_by_diagonal_that_are_computed_are_refused(compute: Any) -> None:
    network = nn.Sequential(compute(ToeplitzLinear((3,))))
    assert set(plan(network, "positions", example_input=torch.randn(2, 3)).refused) == {"0"}


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (with_buffer(), "its weight, which is looked up by weight_index, is no parameter"),
        (ShiftedWindowAttentionV2(8, [2, 2], [0, 0], 2), "its relative position bias is no parameter: it is computed anew"),
        (without_index(), "it has a relative_position_bias_table and no buffer relative_position_index"),
        (with_index(torch.float32), "its relative_position_index is float32, expected whole numbers"),
        (with_index(torch.bool), "its relative_position_index is bool, expected whole numbers"),
        (with_kernel(), "its weight has 2 axes and its weight_index 2, expected one and two"),
    ],
)
def test_what_is_refused(module: nn.Module, told: str) -> None:
    assert positions().idle(site(module)) is None
    assert (positions().refusal(site(module)) or "").startswith(told)
