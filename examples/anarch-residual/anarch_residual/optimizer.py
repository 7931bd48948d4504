"""Stochastic gradient descent at two rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from anarch_core.layers import relaxed_layers
from anarch_residual.layer import ResidualLayer
from anarch_residual.options import ResidualSgdOptions


def build(
    parameters: Sequence[tuple[str, nn.Parameter]], lr: float, options: ResidualSgdOptions, model: nn.Module
) -> torch.optim.Optimizer:
    """SGD in which the residuals have a group of their own; the run's learning rate times ``lr_scale`` is theirs.

    With rates η for A and scale · η for B, W = Φ(A) + B moves as an eFCN preconditioned with η (scale · I + ΦΦᵀ) does.
    """
    layers = relaxed_layers(model).values()
    residual = {id(p) for layer in layers if isinstance(layer, ResidualLayer) for p in layer.residual.parameters()}
    groups: list[dict[str, object]] = [{"params": [p for _, p in parameters if id(p) not in residual]}]
    if residual:
        own = [p for _, p in parameters if id(p) in residual]
        groups.append({"params": own, "lr": lr * options.scale, "lr_scale": options.scale, "weight_decay": options.weight_decay})
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum)
