"""The product of a locally connected layer.

Four sets of kernels take it: :mod:`anarch_core.ops.strips` on views of the activations, with nothing unfolded,
:mod:`anarch_core.ops.gathers` with few calls, :mod:`anarch_core.ops.batch_last` where channels are few and the batch is large, and
:mod:`anarch_core.ops.depthwise` where every channel is a group of its own.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import torch

from anarch_core.lattice.families import LCN, label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.ops.batch_last import batch_last_plan
from anarch_core.ops.bilinear import Kernels, bilinear_product
from anarch_core.ops.depthwise import depthwise_plan
from anarch_core.ops.gathers import gather_plan
from anarch_core.ops.local_costs import batch_last_seconds, depthwise_seconds, gathers_seconds, strips_seconds
from anarch_core.ops.ordinary import needs_ordinary_operations
from anarch_core.ops.strip_plan import strip_plan


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
    """On a CPU it depends on how many calls, copies and small matrices there would be."""
    if min(label_counts(LCN, geometry)) == 0:
        return gather_plan(geometry, torch.device("cpu"))
    strips = strip_plan(geometry)
    sets: list[tuple[float, Callable[[], Kernels]]] = [
        (strips_seconds(strips, geometry, batch), lambda: strips),
        (gathers_seconds(geometry, batch), lambda: gather_plan(geometry, torch.device("cpu"))),
        (batch_last_seconds(geometry, batch), lambda: batch_last_plan(geometry)),
    ]
    if geometry.groups > 1 and geometry.in_channels == geometry.groups:
        sets.append((depthwise_seconds(geometry, batch), lambda: depthwise_plan(geometry)))
    _, fastest = min(sets, key=operator.itemgetter(0))
    return fastest()
