from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestConformance(ModelConformance):
    name = "separable"
    input_shape = (1, 40)
    options = {"channels": 8}
