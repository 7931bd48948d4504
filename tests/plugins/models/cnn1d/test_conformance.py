from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestConformance(ModelConformance):
    name = "cnn1d"
    input_shape = (1, 40)
