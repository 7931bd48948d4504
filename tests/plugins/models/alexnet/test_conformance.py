from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestConformance(ModelConformance):
    name = "alexnet"
    input_shape = (3, 32, 32)
