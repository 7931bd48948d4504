from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "soft-projection"


class TestFigure(FigureConformance):
    name = "soft-projection"
