"""The norm of the whole gradient, where several processes hold the network together and each has a part of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from anarch_core.ops.fused import Norms
from anarch_core.sharding.shared_out import cuts_of, shards_of


def joined_norms(model: nn.Module) -> Callable[[Norms], torch.Tensor] | None:
    """How the norm of the whole gradient is made of those of parameters; None where this process has all of the network.

    Squares of parts are summed over the processes, and of what all have the first one counts its own, so that all get the same to the
    last bit. Nothing waits for the device.

    Args:
        model: in training.
    """
    shards, cuts = shards_of(model), cuts_of(model)
    if shards is None:
        return None
    parts = {id(parameter) for name, parameter in model.named_parameters() if name in cuts}

    def joined(norms: Norms) -> torch.Tensor:
        own = (norm.double().square() for parameter, norm in norms if shards.leads or id(parameter) in parts)
        squares = sum(own, start=torch.zeros((), dtype=torch.float64, device=norms[0][1].device))
        return shards.summed(squares).sqrt()

    return joined
