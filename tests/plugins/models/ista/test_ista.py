"""Unrolled ISTA goes down its objective, with one dictionary for both directions and all steps."""

from __future__ import annotations

import torch

from anarch_core.models import build_model


def test_one_dictionary_in_two_places() -> None:
    model = build_model("ista", input_shape=(1, 40), classes=10)
    assert model.step.analysis.dictionary is model.step.synthesis.dictionary
    assert sum(parameter.numel() for parameter in model.parameters()) == 100 * 40 + 100 + 10 * 100 + 10


def test_steps_go_down_the_objective() -> None:
    model = build_model("ista", input_shape=(6,), classes=2, options={"atoms": 9})
    step, signal = model.step, torch.randn(4, 6)
    step.analysis.dictionary.data.div_(torch.linalg.matrix_norm(step.analysis.dictionary.data, 2))
    code, values = torch.zeros(4, 9), []
    with torch.no_grad():
        for _ in range(20):
            values.append(float((signal - step.synthesis(code)).square().sum() / 2 + (step.threshold * code.abs()).sum()))
            code = step(code, signal)
    assert values == sorted(values, reverse=True)
