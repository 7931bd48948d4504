from __future__ import annotations

import pytest

from anarch_core.testing import ModelConformance

pytest.importorskip("torchvision", exc_type=Exception)


class TestConformance(ModelConformance):
    name = "torchvision"
    options = {"model": "resnet18"}
    input_shape = (3, 32, 32)
