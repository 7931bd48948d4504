from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestConformance(ModelConformance):
    name = "vanilla-cnn"
    input_shape = (3, 32, 32)
    options = {"channels": 8}
