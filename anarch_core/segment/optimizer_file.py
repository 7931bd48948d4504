"""What an optimizer remembers, in a file beside a network: for segments that carry it over, and for training that goes on from there."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state, save_state
from anarch_core.sharding.shards import Shards
from anarch_core.training.optimizer_state import load_optimizer_state, optimizer_cuts, optimizer_state


def save_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path, shards: Shards | None) -> None:
    """Write it.

    Args:
        optimizer: of the network.
        model: the network.
        path: of the file.
        shards: the processes that train together, which all call this; None for one.
    """
    tensors, scalars = optimizer_state(optimizer)
    save_state(path, tensors, {SEGMENT_STATE: json.dumps(scalars)}, cuts=optimizer_cuts(optimizer, model), shards=shards)


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> bool:
    """Give it to a fresh optimizer of the network; whether there is anything that it remembers as a tensor.

    Raises:
        CheckpointError: the file cannot be read, or is of another network.
    """
    tensors, strings = load_state(path, cuts=optimizer_cuts(optimizer, model))
    load_optimizer_state(optimizer, tensors, json.loads(strings[SEGMENT_STATE]))
    return bool(tensors)
