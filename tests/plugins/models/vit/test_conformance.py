from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestVit(ModelConformance):
    name = "vit"
    input_shape = (1, 12)
    relaxation = "heads"


class TestVitOfImages(ModelConformance):
    name = "vit"
    input_shape = (3, 8, 12)
    options = {"kv_heads": 2, "positions": "absolute", "tied": True}


class TestResmlp(ModelConformance):
    name = "resmlp"
    input_shape = (1, 12)
    relaxation = "positions"


class TestResmlpOfImages(ModelConformance):
    name = "resmlp"
    input_shape = (3, 8, 12)
    options = {"circulant": True}
