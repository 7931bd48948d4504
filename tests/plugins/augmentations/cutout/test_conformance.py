from __future__ import annotations

from anarch_core.testing import AugmentationConformance


class TestConformance(AugmentationConformance):
    name = "cutout"
    options = {"size": 5}
