"""What anarch promises of every penalty."""

from __future__ import annotations

from anarch_core.testing import PenaltyConformance


class TestParts(PenaltyConformance):
    name = "parts"


class TestRampOfAFamilyThatShares(TestParts):
    relaxation = "tiled"
    options = {"weight": 2.0, "of": "unshared", "ramp": "linear", "start": 0.5, "begins": "1ep", "ends": "8ep"}
