"""Where a product must be made of ordinary operations."""

from __future__ import annotations

import torch
from torch import nn

NUMBERS = (torch.Tensor, nn.Parameter)


def needs_ordinary_operations(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the product of two tensors is to be described rather than computed, or computed by others.

    So it is while a graph is traced (``torch.compile``, ``torch.export``), on the meta device, and for any kind of tensor with rules of its
    own: stand-ins without numbers, distributed tensors.
    """
    return torch.compiler.is_compiling() or type(x) not in NUMBERS or type(weight) not in NUMBERS or x.is_meta
