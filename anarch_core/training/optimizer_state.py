"""What an optimizer remembers, as tensors and JSON-ready data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anarch_core.sharding.cut import Cut
from anarch_core.sharding.shared_out import cuts_of


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """An optimizer's memory as tensors named ``optimizer.<index>.<key>`` and, by index, the entries that are not tensors."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                scalars.setdefault(str(index), {})[key] = value
    return tensors, scalars


def optimizer_cuts(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Cut]:
    """What this process holds of the tensors of :func:`optimizer_state`, known before there are any.

    Args:
        optimizer: holds parameters of the network.
        model: the network.

    Returns:
        for every parameter of which this process holds a part, ``optimizer.<index>`` -> its cut, which is that of the tensors below this
        name that have the shape of the parameter; nothing for a network that one process holds.
    """
    cuts = cuts_of(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = [names.get(id(parameter)) for group in optimizer.param_groups for parameter in group["params"]]
    return {f"optimizer.{index}": cuts[name] for index, name in enumerate(held) if name in cuts}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Mapping[str, Any]]
) -> None:
    """Give a fresh optimizer the memory that :func:`optimizer_state` took; settings such as momentum stay its own."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in scalars.items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            # A copy: PyTorch keeps the tensor it is given, and one inside a file's buffer may be laid out so that rounding differs.
            state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
