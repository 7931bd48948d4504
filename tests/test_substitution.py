from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.network import with_parameters


def test_new_weights_in_a_new_network_that_shares_the_rest() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = model[0].weight.detach().clone()
    other = with_parameters(model, {"0.weight": torch.zeros(2, 2)})
    assert not other[0].weight.any()
    assert torch.equal(model[0].weight, before)
    assert other[0].bias is model[0].bias
    assert other[1].running_mean is not model[1].running_mean


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    other = with_parameters(model, {"0.weight": torch.ones(2, 2)})
    assert other[1].weight is other[0].weight


def test_names_what_does_not_fit() -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(ProbeError, match=r"shape \[4\] in place of 'bias': \[3\]"):
        with_parameters(model, {"bias": torch.zeros(4)})
    with pytest.raises(ProbeError, match="'b': no such parameter"):
        with_parameters(model, {"b": torch.zeros(4)})
