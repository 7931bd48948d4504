from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "plane"
    options = {"points": 3}


class TestRandom(ProbeConformance):
    name = "plane"
    options = {"points": 3, "through": ("random",)}


class TestEveryPlane(ProbeConformance):
    name = "plane"
    options = {"points": 2, "through": ("parent", "control", "random")}


class TestFigure(FigureConformance):
    name = "plane"
