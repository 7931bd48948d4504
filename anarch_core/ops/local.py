"""The product of a locally connected layer.

Three sets of kernels take it: :mod:`anarch_core.ops.strips` on views of the activations, with nothing unfolded,
:mod:`anarch_core.ops.gathers` with few calls, and :mod:`anarch_core.ops.depthwise` where every channel is a group of its own.
"""

from __future__ import annotations

import functools
import math

import torch

from anarch_core.lattice.families import LCN, label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.ops.bilinear import Kernels, bilinear_product
from anarch_core.ops.depthwise import depthwise_plan
from anarch_core.ops.gathers import gather_plan
from anarch_core.ops.ordinary import needs_ordinary_operations
from anarch_core.ops.strip_plan import strip_plan

CALL, GATHER = 10e-6, 2.5e-9  # seconds on a CPU: of one small product, and to gather a number and have it multiplied


def local_product(x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
    """Sum over each position's own receptive field with its own weights; differentiable to any order.

    Args:
        x: [batch, in_channels, *input size].
        weight: [*pairs of each axis, groups, in_channels / groups, out_channels / groups], the pairs of an axis ordered by position,
            then pixel.
        geometry: of the layer.

    Returns:
        [batch, out_channels, *output size], channels last in memory; under autocast of autocast's dtype.
    """
    if needs_ordinary_operations(x, weight):
        from anarch_core.ops.traced import traced_local_product

        return traced_local_product(x, weight, geometry)
    return bilinear_product(x, weight, _kernels(geometry, x))


def _kernels(geometry: ConvGeometry, x: torch.Tensor) -> Kernels:
    """What takes the products of a batch fastest."""
    return _cpu_kernels(geometry, len(x)) if x.is_cpu else gather_plan(geometry, x.device)  # on a GPU calls are dear and copies cheap


@functools.lru_cache(maxsize=1024)
def _cpu_kernels(geometry: ConvGeometry, batch: int) -> Kernels:
    """On a CPU it depends on how many calls and copies there would be."""
    groups, outputs, inputs = geometry.channel_block
    if groups > 1 and inputs == 1:
        return depthwise_plan(geometry)
    strips = strip_plan(geometry)
    activations = groups * (inputs + outputs) * batch
    gathered = math.prod(label_counts(LCN, geometry)) * (activations + groups * inputs * outputs)
    return strips if strips.terms * CALL < gathered * GATHER else gather_plan(geometry, torch.device("cpu"))
