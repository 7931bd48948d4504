from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "alignment"


class TestFigure(FigureConformance):
    name = "alignment"
    settings = {"seeds": "0,1"}
