"""The network ``rnn1d``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from anarch_core.errors import ConfigError
from anarch_plugins.models.rnn1d.options import Rnn1dOptions

CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


class Recurrent(nn.Module):
    """A cell that is called for one patch after the other, and a linear head on what it hands on last.

    Attributes:
        cell: given a patch [batch, channels * patch] and what it returned for the patch before.
        head: [batch, hidden] to [batch, classes].
        patch: pixels per step.
    """

    def __init__(self, cell: nn.Module, head: nn.Linear, patch: int) -> None:
        super().__init__()
        self.cell = cell
        self.head = head
        self.patch = patch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, length] to [batch, classes]."""
        state: Any = None
        for patch in torch.split(x, self.patch, dim=-1):
            state = self.cell(patch.flatten(1), state)
        logits: torch.Tensor = self.head(state[0] if isinstance(state, tuple) else state)
        return logits


def build(input_shape: tuple[int, ...], classes: int, options: Rnn1dOptions) -> Recurrent:
    """The network for signals of one length.

    Args:
        input_shape: [channels, length].
        classes: number of outputs.
        options: cell, width and patch.

    Raises:
        ConfigError: the inputs are not one-dimensional, or no whole number of patches.
    """
    if len(input_shape) != 2 or input_shape[1] % options.patch:
        msg = f"rnn1d takes signals [channels, length], the length a multiple of patch={options.patch}, not inputs of shape {input_shape}"
        raise ConfigError(msg)
    cell = CELLS[options.cell](input_shape[0] * options.patch, options.hidden)
    return Recurrent(cell, nn.Linear(options.hidden, classes), options.patch)
