"""What every process has of a network, kept the same on all of them."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import cuts_of


@torch.no_grad()
def align_copies(model: nn.Module, shards: Shards) -> None:
    """Give all processes the first one's numbers of what each of them has.

    They compute the same, so on a CPU these are the same bits anyway. Kernels of a GPU that do not repeat their last digits let them part.
    """
    cuts = cuts_of(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in cuts and isinstance(tensor, torch.Tensor):
            shards.copied_from_first(tensor)
