"""What anarch promises of every penalty."""

from __future__ import annotations

from anarch_core.testing import PenaltyConformance


class TestBound(PenaltyConformance):
    name = "bound"
    differentiable = False  # the norm of the weights is taken for a constant


class TestDeviationOfAFamilyThatShares(TestBound):
    relaxation = "shared"
    options = {"bound": 0.0, "of": "off-local", "ramp": "cosine"}
