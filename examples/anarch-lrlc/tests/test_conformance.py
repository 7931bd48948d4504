"""What anarch promises of every relaxation, every probe and every figure."""

from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance, RelaxationConformance


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


class TestSharingSpectrum(FigureConformance):
    name = "sharing-spectrum"
    relaxation = "lrlc"
