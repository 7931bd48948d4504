"""A recurrent network is one cell, called as often as there are patches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.errors import ConfigError
from anarch_core.models import build_model


def test_equals_pytorchs_own_recurrent_network() -> None:
    model = build_model("rnn1d", input_shape=(2, 12), classes=3, options={"hidden": 4, "patch": 3})
    reference = nn.RNN(6, 4, batch_first=True)
    for name, parameter in model.cell.named_parameters():
        getattr(reference, f"{name}_l0").data = parameter.data
    x = torch.randn(5, 2, 12)
    steps = torch.stack([x[..., start : start + 3].flatten(1) for start in range(0, 12, 3)], dim=1)
    torch.testing.assert_close(model(x), model.head(reference(steps)[0][:, -1]))


@pytest.mark.parametrize("shape", [(1, 41), (3, 32, 32), (5,)])
def test_refuses_what_is_no_whole_number_of_patches(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="multiple of patch=5"):
        build_model("rnn1d", input_shape=shape, classes=2)
