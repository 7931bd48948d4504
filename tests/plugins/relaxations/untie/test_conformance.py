from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from anarch_core.testing import RelaxationConformance
from anarch_core.testing.cases import Case


class Tied(nn.Module):
    """Two layers with one matrix."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3, bias=bias)
        self.outer = nn.Linear(3, 3, bias=bias)
        self.outer.weight = self.inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.outer(torch.tanh(self.inner(x)))


@st.composite
def blocks(draw: st.DrawFn) -> Case:
    bias, calls = draw(st.booleans()), draw(st.integers(2, 4))
    made = draw(st.sampled_from(["linear", "tied", "normed", "convolution"]))
    x = torch.randn(2, 3, 5) if made == "convolution" else torch.randn(4, 3)
    layer: nn.Module = Tied(bias=bias)
    if made == "linear":
        layer = nn.Linear(3, 3, bias=bias)
    elif made == "normed":
        layer = nn.Sequential(nn.Linear(3, 4, bias=bias), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3, bias=bias))
    elif made == "convolution":
        layer = nn.Conv1d(3, 3, 3, padding=1, bias=bias)
    return Case(layer.double(), x.double(), calls=draw(st.sampled_from([1, calls])) if made == "tied" else calls)


@st.composite
def cells(draw: st.DrawFn) -> Case:
    kind, bias = draw(st.sampled_from([nn.RNNCell, nn.GRUCell, nn.LSTMCell])), draw(st.booleans())
    state = torch.randn(2, 3, dtype=torch.float64)
    return Case(
        kind(2, 3, bias=bias, dtype=torch.float64),
        (torch.randn(2, 2, dtype=torch.float64), (state, torch.randn_like(state)) if kind is nn.LSTMCell else state),
        calls=draw(st.integers(2, 4)),
    )


class TestBlocks(RelaxationConformance):
    name = "untie"

    def cases(self) -> st.SearchStrategy[Case]:
        return blocks()


class TestCells(RelaxationConformance):
    name = "untie"

    def cases(self) -> st.SearchStrategy[Case]:
        return cells()
