"""What anarch promises of every relaxation and every probe."""

from __future__ import annotations

from anarch_core.testing import ProbeConformance, RelaxationConformance


class TestSeparable(RelaxationConformance):
    name = "lrlc"


class TestFull(RelaxationConformance):
    name = "lrlc"
    options = {"banks": 2, "coefficients": "full", "normalisation": "none"}


class TestSharingRank(ProbeConformance):
    name = "sharing-rank"
    relaxation = "lrlc"


class TestSharingRankOfLocallyConnectedLayers(ProbeConformance):
    name = "sharing-rank"
    relaxation = "lcn"
    input_shape = (2, 16, 16)
