from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize, prune

from anarch_core.testing import RelaxationConformance
from anarch_core.testing.cases import Case


class Multiplied(nn.Module):
    """A parametrization: a fixed mask."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.kept


class Masked(nn.Linear):
    """A layer with a mask of its own, as in autoregressive networks."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, mask: torch.Tensor) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


@st.composite
def masked(draw: st.DrawFn) -> Case:
    bias, amount = draw(st.booleans()), draw(st.sampled_from([0.3, 0.8]))
    kind = draw(st.sampled_from(["pruned", "pruned twice", "convolution", "parametrized", "own"]))
    x = torch.randn(2, 3, 5) if kind == "convolution" else torch.randn(2, 4, 3)
    layer: nn.Module = nn.Conv1d(3, 2, 3, bias=bias) if kind == "convolution" else nn.Linear(3, 4, bias=bias)
    if kind in {"pruned", "pruned twice", "convolution"}:
        prune.l1_unstructured(layer, "weight", amount)
        if bias:
            prune.random_unstructured(layer, "bias", 1)
    if kind == "pruned twice":
        prune.ln_structured(layer, "weight", 1, n=2, dim=1)
    mask = (torch.rand(4, 3) > amount).float()
    mask[0, 0], mask[1, 1] = 0, 1
    if kind == "parametrized":
        parametrize.register_parametrization(layer, "weight", Multiplied(mask))
    elif kind == "own":
        layer = Masked(3, 4, bias=bias, mask=mask)
    return Case(layer.double(), x.double(), calls=draw(st.integers(1, 2)))


class TestConformance(RelaxationConformance):
    name = "unmask"

    def cases(self) -> st.SearchStrategy[Case]:
        return masked()
