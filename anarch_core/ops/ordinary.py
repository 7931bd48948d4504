"""Where a product must be made of ordinary operations."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

PLAIN: set[type[torch.Tensor]] = {torch.Tensor, nn.Parameter}

Kind = TypeVar("Kind", bound=type[torch.Tensor])


def plain(kind: Kind) -> Kind:
    """Class decorator: let tensors of this kind go the ways of plain ones, whatever these do to them."""
    PLAIN.add(kind)
    return kind


def needs_ordinary_operations(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the product of two tensors is to be described rather than computed, or computed by others.

    So it is while a graph is traced (``torch.compile``, ``torch.export``), on the meta device, and for any kind of tensor with rules of its
    own: stand-ins without numbers, distributed tensors.
    """
    return torch.compiler.is_compiling() or type(x) not in PLAIN or type(weight) not in PLAIN or x.is_meta
