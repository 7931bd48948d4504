"""The relaxation ``codebook``: entries of one code are equal, until they are free."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from anarch_core import drift, project, relax
from anarch_core.errors import NoEffectWarning
from anarch_monarch.layers import HashedLinear


def test_the_hash_spreads_entries_evenly_and_is_the_same_everywhere():
    counts = np.bincount(HashedLinear(128, 128, 64, seed=5).hash().ravel(), minlength=64)
    assert abs(counts - 256).max() < 5 * 16  # five deviations of a Poisson count
    assert HashedLinear(3, 2, 1000).hash().tolist() == [[535, 700, 679], [444, 747, 90]]
    assert (HashedLinear(3, 2, 1000, seed=1).hash() != HashedLinear(3, 2, 1000).hash()).all()


def test_every_code_goes_back_to_the_mean_of_its_entries():
    torch.manual_seed(0)
    model = nn.Sequential(HashedLinear(6, 5, 4)).double()
    relaxed = relax(model, "codebook", example_input=torch.zeros(1, 6, dtype=torch.float64)).model
    with torch.no_grad():
        relaxed[0].free.weight.normal_()
    weight, codebook, code = relaxed[0].free.weight.detach(), project(relaxed)[0].codebook.detach(), model[0].code
    for number in range(4):
        assert float(codebook[number]) == pytest.approx(float(weight[code == number].mean()))
    variance = sum(float(weight[code == number].var(correction=0)) * int((code == number).sum()) for number in range(4))
    assert drift(relaxed).total.unshared == pytest.approx(variance)


def test_codes_that_no_entry_has_are_kept():
    model = nn.Sequential(HashedLinear(2, 2, 9))
    relaxed = relax(model, "codebook", example_input=torch.zeros(1, 2))
    assert torch.equal(project(relaxed.model)[0].codebook, model[0].codebook)


def test_where_no_two_entries_share_a_code_there_is_nothing_to_relax():
    with pytest.warns(NoEffectWarning, match="no two of its entries have one code"):
        relax(nn.Sequential(HashedLinear(2, 1, 10**6)), "codebook", example_input=torch.zeros(1, 2))
