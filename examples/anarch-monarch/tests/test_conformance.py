"""What anarch promises of every relaxation and every model."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from anarch_core.testing import ModelConformance, RelaxationConformance
from anarch_core.testing.cases import Case
from anarch_monarch.layers import HashedLinear, MonarchLinear

leading = st.sampled_from([(3,), (2, 4), (2, 1, 3)])


@st.composite
def monarchs(draw: st.DrawFn) -> Case:
    torch.manual_seed(draw(st.integers(0, 99)))
    blocks, rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    layer = MonarchLinear(columns * blocks, rows * blocks, blocks, draw(st.booleans())).double()
    return Case(layer, torch.randn(*draw(leading), columns * blocks, dtype=torch.float64))


@st.composite
def codebooks(draw: st.DrawFn) -> Case:
    torch.manual_seed(draw(st.integers(0, 99)))
    inputs, outputs, codes = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 9))
    layer = HashedLinear(inputs, outputs, codes, draw(st.integers(0, 9)), draw(st.booleans())).double()
    return Case(layer, torch.randn(*draw(leading), inputs, dtype=torch.float64))


class TestMonarch(RelaxationConformance):
    name = "monarch"

    def cases(self) -> st.SearchStrategy[Case]:
        return monarchs()


class TestCodebook(RelaxationConformance):
    name = "codebook"

    def cases(self) -> st.SearchStrategy[Case]:
        return codebooks()


class TestMonarchMlp(ModelConformance):
    name = "monarch-mlp"
    relaxation = "monarch"


class TestHashedMlp(ModelConformance):
    name = "hashed-mlp"
    relaxation = "codebook"
