from __future__ import annotations

from typing import Any, ClassVar

from anarch_core.testing import FigureConformance, ProbeConformance

FEW: dict[str, Any] = {"pairs": 2, "steps": 2, "starts": 1, "samples": 40, "radii": (0.1,), "filter_radii": (0.1,)}


class TestConformance(ProbeConformance):
    name = "sharpness"
    options = FEW


def test_memory_of_ascents_from_several_starts_is_foreseen() -> None:
    several = TestConformance()
    several.options = {"pairs": 2, "steps": 3, "samples": 40, "lengths": ("adaptive",), "quadratic": False}
    several.test_memory_is_foreseen()


class TestFigure(FigureConformance):
    name = "sharpness"
    probe_options: ClassVar[dict[str, dict[str, Any]]] = {"sharpness": FEW}
