from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "interpolation"
    options = {"points": 3}


class TestEveryMethod(ProbeConformance):
    name = "interpolation"
    options = {"points": 3, "steps": 2, "methods": ("linear", "curvilinear", "string", "band", "logits", "probabilities")}


class TestPaths(FigureConformance):
    name = "paths"
