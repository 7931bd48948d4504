"""The network for MNIST-1D."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.models import build_model


def test_layers_and_parameter_count() -> None:
    model = build_model("cnn1d", input_shape=(1, 40), classes=10)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv1d)]
    assert [c.out_channels for c in convolutions] == [25, 25, 25]
    assert [(c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions] == [(5, 2, 2), (3, 2, 1), (3, 2, 1)]
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_210


@pytest.mark.parametrize(("shape", "channels"), [((2, 41), 3), ((1, 1), 4), ((3, 127), 25)])
def test_other_signals_and_widths(shape: tuple[int, ...], channels: int) -> None:
    model = build_model("cnn1d", input_shape=shape, classes=4, options={"channels": channels})
    assert model(torch.zeros(2, *shape)).shape == (2, 4)
