"""How many entries of the matrix from inputs to outputs each weight of a network stands for.

A weight that stands for ``n`` entries moves that matrix by ``n^(1/2)`` of its own motion, so that lengths in the coordinates ``n^(1/2) w``
are those of the matrix: of a convolution as of everything that it can be relaxed to.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from anarch_core.errors import ProbeError
from anarch_core.lattice.families import CONV, AbstractFamily, incidence, share_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.base import relaxed_layers
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.layers.lattice_layer import LatticeLayer, conv_weight_view
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.layers.rooted import RootedLayer
from anarch_core.relaxation.trace import trace


def entry_counts(model: nn.Module, example_input: torch.Tensor) -> dict[str, torch.Tensor]:
    """``n`` for the parameters of a network, by name, shaped as the parameters; 0 for weights that nothing depends on.

    Convolutions, relaxed or not, count as their eFCN's would. Parameters that are absent stand for one entry each: those of other layers,
    and those that were equal in a constrained network (:func:`equal_weights`), where only the relaxed one knows ``n``.

    Args:
        model: relaxed or not.
        example_input: with a batch dimension; gives the input sizes of plain convolutions.

    Raises:
        ProbeError: a layer has no such numbers: several of its weights meet in one entry of the matrix (padding that is not zeros), its
            parameters are no weights, or it is called at different input sizes.
    """
    counts: dict[str, torch.Tensor] = {}
    for path, module in relaxed_layers(model).items():
        lattice = module.layer if isinstance(module, RootedLayer) else module
        if isinstance(lattice, ReparametrisedLayer):
            msg = (
                f"parameters of {path or 'the network'} have no orthonormal scale: those of {module.relaxation} are not weights of the "
                "matrix from inputs to outputs; project the layer, or relax it on to efcn, first"
            )
            raise ProbeError(msg)
        if isinstance(lattice, LatticeLayer) and not lattice.family.dense:
            prefix = (f"{path}." if path else "") + ("" if lattice is module else "layer.")
            counts.update({prefix + name: tensor for name, tensor in _of_lattice(path, lattice).items()})
    equal = {f"{path}.{name}".removeprefix(".") for path, module in relaxed_layers(model).items() for name in _equal(module)}
    return counts | {name: tensor for name, tensor in _of_convolutions(model, example_input).items() if name not in equal}


def equal_weights(model: nn.Module) -> dict[str, set[str]]:
    """Parameters of relaxed layers beyond the lattice whose numbers were equal in the constrained network, or were one; by layer."""
    return {path: names for path, module in relaxed_layers(model).items() if (names := _equal(module))}


def _equal(layer: nn.Module) -> set[str]:
    if not isinstance(layer, ConstrainedLayer):
        return set()
    return {f"free.{name}" for link in layer.links if len(link.free) > 1 or not link.constraint.selects for name in link.free}


def _of_lattice(path: str, layer: LatticeLayer) -> dict[str, torch.Tensor]:
    geometry = layer.geometry
    _check_diagonal(path, layer.family, geometry)
    counts = torch.empty_like(layer.weight, requires_grad=False)
    view = layer.weight_view(counts)
    view.copy_(torch.from_numpy(share_counts(layer.family, geometry))[..., None, None, None].expand(view.shape))
    found = {"weight": counts}
    if layer.bias is not None:
        ones = layer.bias.new_ones((*geometry.output_size, geometry.out_channels), requires_grad=False)
        found["bias"] = layer.collect_bias(ones, mean=False)
    return found


def _of_convolutions(model: nn.Module, example_input: torch.Tensor) -> dict[str, torch.Tensor]:
    convolutions = {path: module for path, module in model.named_modules() if isinstance(module, _ConvNd) and not module.transposed}
    calls = trace(model, list(convolutions), example_input).calls if convolutions else {}
    found = {}
    for path, conv in convolutions.items():
        sizes = {call.input_shape[-len(conv.kernel_size) :] for call in calls[path] if call.input_shape is not None}
        if len(sizes) > 1:
            msg = f"{path} is called at {len(sizes)} different input sizes, so its weights have no one orthonormal scale"
            raise ProbeError(msg)
        if not sizes:
            continue
        geometry = ConvGeometry.of(conv, sizes.pop())  # type: ignore[arg-type]
        _check_diagonal(path, CONV, geometry)
        counts = torch.empty_like(conv.weight, requires_grad=False)
        view = conv_weight_view(geometry, counts)
        view.copy_(torch.from_numpy(share_counts(CONV, geometry))[..., None, None, None].expand(view.shape))
        prefix = f"{path}." if path else ""
        # Of a weight that is computed, under a mask for example, the parameter that it is computed of.
        held = [name for name, parameter in conv.named_parameters() if parameter.shape == counts.shape]
        found.update({f"{prefix}{name}": counts for name in held})
        if conv.bias is not None:
            found[f"{prefix}bias"] = torch.full_like(conv.bias, geometry.positions, requires_grad=False)
    return found


def _check_diagonal(path: str, family: AbstractFamily, geometry: ConvGeometry) -> None:
    for axis in geometry.axes:
        gram = incidence(family, axis).gram
        if gram.nnz != np.count_nonzero(gram.diagonal()):
            msg = (
                f"weights of {path or 'the network'} have no orthonormal scale: with padding mode {axis.mode!r} several of them meet in "
                f"one entry of the matrix; relax the layer to efcn or lcn first"
            )
            raise ProbeError(msg)
