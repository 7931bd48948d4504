from __future__ import annotations

import torch
from hypothesis import strategies as st

from anarch_core.testing import ModelConformance, RelaxationConformance
from anarch_core.testing.cases import Case
from anarch_plugins.relaxations.p4.layer import P4Conv2d


@st.composite
def layers(draw: st.DrawFn) -> Case:
    """Convolutions over p4, lifting or not, and square images of any batch size."""
    lifting, kernel, padding = draw(st.booleans()), draw(st.integers(1, 4)), draw(st.integers(0, 2))
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = P4Conv2d(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        kernel,
        lifting=lifting,
        stride=draw(st.integers(1, 2)),
        padding=padding,
        bias=draw(st.booleans()),
        dtype=torch.float64,
    )
    side = draw(st.integers(max(1, kernel - 2 * padding), 6))
    channels = layer.in_channels * (1 if lifting else 4)
    return Case(layer, torch.randn(2, channels, side, side, dtype=torch.float64))


class TestRelaxation(RelaxationConformance):
    name = "p4"

    def cases(self) -> st.SearchStrategy[Case]:
        return layers()

    def large(self) -> Case:
        layer = P4Conv2d(1 << 9, 1 << 9, 3, device="meta")
        return Case(layer, torch.empty(1, 1 << 11, 8, 8, device="meta"))


class TestModel(ModelConformance):
    name = "p4-cnn"
    relaxation = "p4"
    input_shape = (3, 12, 12)
    options = {"channels": 3}
