from __future__ import annotations

import torch
from torch import nn

from anarch_core import relax
from anarch_core.plugin.registry import get_registry
from anarch_core.probe.base import ProbeContext


def test_parts_that_are_nothing_but_rounding_are_not_measured_as_less_than_nothing() -> None:
    """Of a shared layer of this shape nothing is unshared by expectation, and rounding made it less."""
    model = nn.Sequential(nn.Conv1d(140, 140, 3, stride=2, padding=1))
    relaxed = relax(model, "shared", example_input=torch.randn(1, 140, 20), check=False).model
    found = get_registry().create("probe", "delta").measure(ProbeContext(model=relaxed))
    assert found.scalars["unshared"] == 0
    assert found.scalars["unshared_normalised"] is None
