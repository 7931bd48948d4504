"""Parts of parameter space: the directions of the convolution, of un-sharing, and off the receptive field; in orthonormal coordinates.

A weight that stands for ``n`` entries of the matrix from inputs to outputs moves that matrix by ``n^(1/2)`` of its own motion. Coordinates
``n^(1/2) w`` make lengths, gradients and curvatures of a CNN, of its eFCN and of everything between comparable: with the lift ``Φ``,
``Φ n^(-1/2)`` is an isometry onto the eFCN's shared part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from anarch_core.constraint.parts import Part
from anarch_core.errors import ProbeError
from anarch_core.lattice.families import CONV, AbstractFamily, incidence, share_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.base import RelaxedLayer, relaxed_layers
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.layers.lattice_layer import LatticeLayer, conv_weight_view, inverse_root
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.layers.rooted import RootedLayer
from anarch_core.probe.locality import weighted_parts
from anarch_core.relaxation.trace import trace

Tensors = Mapping[str, torch.Tensor]


@attrs.frozen(kw_only=True)
class ParameterParts:
    """The three orthogonal parts of the parameter space of a network.

    Parameters of layers that were not relaxed belong to the shared part: the constrained network has them too. Convolutions, relaxed or
    not, are measured as their eFCN's would be.

    Attributes:
        owners: relaxed layer and its own name of a parameter, by the parameter's name in the network.
        scale: ``n^(-1/2)``, shaped as the parameter, by name; 0 for weights that nothing depends on, absent where ``n = 1``.
        incomparable: why numbers by these coordinates do not compare with those of the constrained network, as a sentence; empty where
            they do.
    """

    owners: Mapping[str, tuple[RelaxedLayer, str]]
    scale: Tensors
    incomparable: str = ""

    @classmethod
    def of(cls, model: nn.Module, example_input: torch.Tensor) -> ParameterParts:
        """Read the parts off a network.

        Args:
            model: relaxed or not.
            example_input: with a batch dimension; gives the input sizes of plain convolutions.

        Raises:
            ProbeError: a layer has no orthonormal coordinates: several of its weights meet in one entry of the matrix (padding that is not
                zeros), its parameters are no weights, or it is called at different input sizes.
        """
        owners = {}
        scale: dict[str, torch.Tensor] = {}
        equal: dict[str, set[str]] = {}
        for path, module in relaxed_layers(model).items():
            lattice = module.layer if isinstance(module, RootedLayer) else module
            if isinstance(lattice, ReparametrisedLayer):
                msg = (
                    f"parameters of {path or 'the network'} have no orthonormal scale: those of {module.relaxation} are not weights of the "
                    "matrix from inputs to outputs; project the layer, or relax it on to efcn, first"
                )
                raise ProbeError(msg)
            prefix = f"{path}." if path else ""
            owners.update({prefix + name: (module, name) for name, _ in module.named_parameters()})
            if isinstance(module, ConstrainedLayer) and (names := _equal(module)):
                equal[path] = {f"{prefix}free.{name}" for name in names}
            if isinstance(lattice, LatticeLayer) and not lattice.family.dense:
                inner = "" if lattice is module else "layer."
                scale.update({prefix + inner + name: tensor for name, tensor in _lattice_scale(path, lattice).items()})
        of_equal = set().union(*equal.values())
        scale |= {name: tensor for name, tensor in _convolution_scale(model, example_input).items() if name not in of_equal}
        return cls(owners=owners, scale=scale, incomparable=_incomparable(list(equal)))

    def covariant(self, gradient: Tensors) -> dict[str, torch.Tensor]:
        """A gradient by the parameters -> by the orthonormal coordinates."""
        return {name: tensor * self.scale[name] if name in self.scale else tensor for name, tensor in gradient.items()}

    def project(self, vector: Tensors, part: Part) -> dict[str, torch.Tensor]:
        """Orthogonal projection onto one part, in orthonormal coordinates; the three add up to the vector.

        Raises:
            ProbeError: a layer says that its parameters have no parts.
        """
        result: dict[str, torch.Tensor] = {}
        layers: dict[RelaxedLayer, dict[str, str]] = {}
        for name, tensor in vector.items():
            if name in self.owners:
                layer, own_name = self.owners[name]
                layers.setdefault(layer, {})[own_name] = name
            else:
                result[name] = tensor if part == "shared" else torch.zeros_like(tensor)
        for layer, names in layers.items():
            scaled = {own: vector[name] * self.scale[name] if name in self.scale else vector[name] for own, name in names.items()}
            path = next(full[: -len(own) - 1] for own, full in names.items())
            for own, projected in weighted_parts(path, layer, scaled, {part: 1.0}).items():
                name = names[own]
                scale = self.scale.get(name)
                result[name] = projected if scale is None else torch.where(scale > 0, projected / scale, 0)
        return {name: result[name] for name in vector}


def _equal(layer: ConstrainedLayer) -> set[str]:
    """Parameters of the free module in which weights were equal, or that were one."""
    return {name for link in layer.links if len(link.free) > 1 or not link.constraint.selects for name in link.free}


def _incomparable(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    return (
        f"weights of {', '.join(path or 'the network' for path in paths)} were equal in the constrained network, where one number moves "
        "several of them, so that its numbers are in other units"
    )


def _lattice_scale(path: str, layer: LatticeLayer) -> dict[str, torch.Tensor]:
    geometry = layer.geometry
    _check_diagonal(path, layer.family, geometry)
    counts = torch.empty_like(layer.weight, requires_grad=False)
    view = layer.weight_view(counts)
    view.copy_(torch.from_numpy(share_counts(layer.family, geometry))[..., None, None, None].expand(view.shape))
    scale = {"weight": inverse_root(counts)}
    if layer.bias is not None:
        ones = layer.bias.new_ones((*geometry.output_size, geometry.out_channels))
        scale["bias"] = inverse_root(layer.collect_bias(ones, mean=False))
    return scale


def _convolution_scale(model: nn.Module, example_input: torch.Tensor) -> dict[str, torch.Tensor]:
    convolutions = {path: module for path, module in model.named_modules() if isinstance(module, _ConvNd) and not module.transposed}
    calls = trace(model, list(convolutions), example_input).calls if convolutions else {}
    scale = {}
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
        scale.update({f"{prefix}{name}": inverse_root(counts) for name in held})
        if conv.bias is not None:
            scale[f"{prefix}bias"] = torch.full_like(conv.bias, geometry.positions**-0.5, requires_grad=False)
    return scale


def _check_diagonal(path: str, family: AbstractFamily, geometry: ConvGeometry) -> None:
    for axis in geometry.axes:
        gram = incidence(family, axis).gram
        if gram.nnz != np.count_nonzero(gram.diagonal()):
            msg = (
                f"weights of {path or 'the network'} have no orthonormal scale: with padding mode {axis.mode!r} several of them meet in "
                f"one entry of the matrix; relax the layer to efcn or lcn first"
            )
            raise ProbeError(msg)
