from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "equivariance"


class TestEquivariance(FigureConformance):
    name = "equivariance"
