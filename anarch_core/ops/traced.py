"""Products for graphs: traced by a compiler, exported, or run on tensors that have no numbers.

Nothing here reads a batch size or keeps anything from call to call, and what is known beforehand enters a graph as a constant. Imported
only where it is needed: it loads PyTorch's compiler.
"""

from __future__ import annotations

from typing import Any

import torch

from anarch_core.lattice.families import LCN
from anarch_core.lattice.geometry import Axis, ConvGeometry
from anarch_core.ops.joins import outputs, table


def traced_local_product(x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
    """As :func:`anarch_core.ops.local.local_product`, contiguous in memory."""
    groups, _, inputs = geometry.channel_block
    axes = [_numbers(axis) for axis in geometry.axes]
    pixels = [torch.tensor(_reads("pixel", *axis), dtype=torch.int64, device=x.device) for axis in axes]
    labels = [torch.tensor(_reads("label", *axis), dtype=torch.int64, device=x.device) for axis in axes]
    y = outputs(torch.unflatten(x.movedim(1, -1), -1, (groups, inputs)), weight, pixels, labels)
    return torch.unflatten(y, 1, (*geometry.output_size, geometry.out_channels)).movedim(-1, 1).contiguous()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _reads(part: str, *numbers: Any) -> list[list[int]]:
    """Pixels or labels that the positions of the axis of these numbers read, [positions, most]."""
    found = table(LCN, Axis(*numbers), "position")
    reads: list[list[int]] = (found.pixel if part == "pixel" else found.label).tolist()
    return reads


def _numbers(axis: Axis) -> tuple[Any, ...]:
    # Not attrs.astuple: a compiler has to read it.
    return axis.size, axis.kernel, axis.stride, axis.dilation, axis.before, axis.after, axis.mode
