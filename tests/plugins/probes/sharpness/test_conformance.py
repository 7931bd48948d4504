from __future__ import annotations

from typing import Any, ClassVar

from anarch_core.testing import FigureConformance, ProbeConformance

FEW: dict[str, Any] = {"pairs": 2, "steps": 2, "starts": 1, "samples": 40, "radii": (0.1,), "filter_radii": (0.1,)}


class TestConformance(ProbeConformance):
    name = "sharpness"
    options = FEW


class TestFigure(FigureConformance):
    name = "sharpness"
    probe_options: ClassVar[dict[str, dict[str, Any]]] = {"sharpness": FEW}
