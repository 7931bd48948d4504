"""Builds ``torch.optim.SGD``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anarch_plugins.optimizers.sgd.options import SgdOptions


def build(parameters: Sequence[tuple[str, torch.nn.Parameter]], lr: float, options: SgdOptions) -> torch.optim.Optimizer:
    """An optimizer for the parameters of ``(name, parameter)`` pairs, without state yet; one kernel per parameter and step."""
    return torch.optim.SGD(
        [parameter for _, parameter in parameters],
        lr=lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
        fused=True,
    )
