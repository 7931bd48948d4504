from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestConformance(ModelConformance):
    name = "resnet20"
    input_shape = (3, 16, 16)
