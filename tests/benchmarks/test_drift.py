"""Both ways to the three norms, and to the mask, agree."""

from __future__ import annotations

import drift
import pytest
import torch
from torch import nn

from anarch_core.relaxation.verbs import relax


def test_norms_by_labels_are_the_drift_and_the_mask_keeps_the_receptive_fields() -> None:
    torch.manual_seed(0)
    layer = relax(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), "efcn", example_input=torch.randn(1, 3, 6, 6)).model[0]
    layer.reset_parameters()
    expected = layer.drift()
    label = drift.labels(layer)
    shared, unshared, off_local = drift.norms_by_labels(layer, label)
    assert (shared, unshared, off_local) == pytest.approx((expected.shared, expected.unshared, expected.off_local), rel=1e-5)
    torch.testing.assert_close(layer.keep(layer.weight, drift.LOCAL), layer.weight * (label > 0))
