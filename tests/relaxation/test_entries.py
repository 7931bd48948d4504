"""How many entries of the matrix a weight stands for, against lifts: lengths are those of the eFCN."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.errors import ProbeError
from anarch_core.relaxation.entries import entry_counts


@pytest.mark.parametrize("relaxation", [None, "shared", "tiled", "lcn", "efcn"])
@pytest.mark.parametrize("padding", [0, 2])
def test_lengths_are_those_of_the_efcn(relaxation, padding) -> None:
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv1d(2, 3, 3, stride=2, padding=padding), nn.ReLU(), nn.Flatten(), nn.Linear(3 * (5 + padding), 2)).double()
    example = torch.randn(1, 2, 11, dtype=torch.float64)
    efcn = relax(cnn, "efcn", example_input=example).model
    network = cnn if relaxation is None else relax(cnn, relaxation, example_input=example).model
    counts = entry_counts(network, example)
    length = sum(float((parameter.detach().square() * counts.get(name, 1)).sum()) for name, parameter in network.named_parameters())
    assert length == pytest.approx(sum(float(parameter.detach().square().sum()) for parameter in efcn.parameters()), rel=1e-13)


def test_weights_that_meet_in_one_entry_are_refused() -> None:
    network = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ProbeError, match="weights of 0 have no orthonormal scale: with padding mode 'reflect'"):
        entry_counts(network, torch.randn(1, 1, 6))
