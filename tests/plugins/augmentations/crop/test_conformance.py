from __future__ import annotations

from anarch_core.testing import AugmentationConformance


class TestConformance(AugmentationConformance):
    name = "crop"
    options = {"padding": 3, "mode": "reflect"}


class TestPaddedWithZeros(AugmentationConformance):
    name = "crop"
