"""The tangent kernel of a network in its shared, unshared and off-local part, in coordinates that a CNN and its relaxations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import PARTS
from anarch_core.curvature.tangent import TangentKernel, tangent_kernel
from anarch_core.layers.base import relaxed_layers
from anarch_core.probe.coordinates import ParameterParts
from anarch_core.probe.layer_kernels import layer_kernels

Rows = Mapping[str, torch.Tensor]


def tangent_kernel_in_parts(
    model: nn.Module,
    inputs: torch.Tensor,
    *,
    network: Callable[[torch.Tensor], torch.Tensor] | None = None,
    sketch: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TangentKernel:
    """The kernel by all trained parameters, in orthonormal coordinates, as the sum of its three parts.

    The shared part of a relaxed network at the switch is the kernel of the network that it was relaxed from.

    Args:
        model: relaxed or not, in float32 or float64; left as it was.
        inputs: [n, ...], on its device.
        network: what calls the model and gives its outputs, [n, ...]; the model itself if None.
        sketch: no more than what shows how much memory is taken, for a rehearsal: the kernel is of no use.
        progress: called with the backward passes that are done, and their number.

    Returns:
        parts ``"shared"``, ``"unshared"``, ``"off-local"``.

    Raises:
        ProbeError: a layer has no orthonormal coordinates or no parts, or autograd cannot tell; see :meth:`ParameterParts.of` and
            :func:`anarch_core.curvature.tangent_kernel`.
    """
    parts = ParameterParts.of(model, inputs[:1])
    relaxed = {id(layer): path for path, layer in relaxed_layers(model).items()}

    def layer_of(name: str) -> str:
        return relaxed[id(parts.owners[name][0])] if name in parts.owners else name.rpartition(".")[0]

    def split(row: Rows) -> Mapping[str, Rows]:
        scaled = parts.covariant(row)
        owned = any(name in parts.owners for name in row)
        return {part: parts.project(scaled, part) for part in PARTS} if owned else {PARTS[0]: scaled}

    layers = layer_kernels(model, parts.scale)
    found = tangent_kernel(model, inputs, network=network, layers=layers, split=split, layer_of=layer_of, sketch=sketch, progress=progress)
    nothing = torch.zeros(len(inputs), len(inputs), dtype=torch.float64, device=inputs.device)
    return attrs.evolve(found, parts={part: found.parts.get(part, nothing) for part in PARTS})
