from __future__ import annotations

import torch
from hypothesis import strategies as st

from anarch_core.testing import RelaxationConformance
from anarch_core.testing.cases import Case
from anarch_plugins.models.vit.attention import GroupedQueryAttention


@st.composite
def attention(draw: st.DrawFn) -> Case:
    kv_heads, groups, size = draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    tokens = draw(st.integers(1, 4))
    heads = kv_heads * groups
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = GroupedQueryAttention(heads * size, heads, kv_heads, draw(st.sampled_from([None, (tokens,)]))).double()
    return Case(layer, torch.randn(2, tokens, heads * size, dtype=torch.float64))


class TestHeads(RelaxationConformance):
    name = "heads"

    def cases(self) -> st.SearchStrategy[Case]:
        return attention()


class TestSomeHeads(TestHeads):
    options = {"kv_heads": 2}
