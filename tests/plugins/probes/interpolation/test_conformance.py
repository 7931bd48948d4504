from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "interpolation"
    options = {"points": 3}


class TestEveryMethod(ProbeConformance):
    name = "interpolation"
    options = {"points": 3, "steps": 2, "methods": ("linear", "curvilinear", "string", "band", "logits", "probabilities")}


class TestCurves(ProbeConformance):
    name = "interpolation"
    options = {"points": 3, "curve_steps": 2, "methods": ("bezier", "polygon")}


class TestLayerByLayer(ProbeConformance):
    name = "interpolation"
    options = {"points": 3, "layer_wise": True, "rest": "network"}


class TestPaths(FigureConformance):
    name = "paths"


class TestLayerPaths(FigureConformance):
    name = "layer-paths"
    probe_options = {"interpolation": {"points": 3, "layer_wise": True}}
