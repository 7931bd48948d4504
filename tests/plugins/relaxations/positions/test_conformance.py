from __future__ import annotations

import torch
from hypothesis import strategies as st

from anarch_core.testing import RelaxationConformance
from anarch_core.testing.cases import Case
from anarch_plugins.models.vit.attention import GroupedQueryAttention
from anarch_plugins.models.vit.resmlp import ToeplitzLinear

GRIDS = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)


@st.composite
def attention(draw: st.DrawFn) -> Case:
    grid, heads = draw(GRIDS), draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = GroupedQueryAttention(2 * heads, heads, 1, grid).double()
    torch.nn.init.normal_(layer.relative_position_bias_table)
    return Case(layer, torch.randn(2, int(torch.tensor(grid).prod()), 2 * heads, dtype=torch.float64))


@st.composite
def matrix(draw: st.DrawFn) -> Case:
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = ToeplitzLinear(draw(GRIDS), circulant=draw(st.booleans())).double()
    return Case(layer, torch.randn(2, draw(st.integers(1, 3)), layer.in_features, dtype=torch.float64))


class TestBias(RelaxationConformance):
    name = "positions"

    def cases(self) -> st.SearchStrategy[Case]:
        return attention()


class TestMatrix(RelaxationConformance):
    name = "positions"

    def cases(self) -> st.SearchStrategy[Case]:
        return matrix()
