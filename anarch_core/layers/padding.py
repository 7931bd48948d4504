"""Padding as its own step, for layers that read a padded input."""

from __future__ import annotations

import torch
from torch.nn import functional

from anarch_core.lattice.geometry import ConvGeometry


def pad(x: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
    """Pad the spatial axes of [batch, channels, *input size] as the convolution would."""
    amounts = [amount for axis in reversed(geometry.axes) for amount in (axis.before, axis.after)]
    if not any(amounts):
        return x
    mode = geometry.axes[0].mode
    return functional.pad(x, amounts, mode="constant" if mode == "zeros" else mode)
