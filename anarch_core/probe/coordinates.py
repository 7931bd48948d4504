"""Parts of parameter space: the directions of the convolution, of un-sharing, and off the receptive field; in orthonormal coordinates.

A weight that stands for ``n`` entries of the matrix from inputs to outputs moves that matrix by ``n^(1/2)`` of its own motion. Coordinates
``n^(1/2) w`` make lengths, gradients and curvatures of a CNN, of its eFCN and of everything between comparable: with the lift ``Φ``,
``Φ n^(-1/2)`` is an isometry onto the eFCN's shared part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import Part
from anarch_core.layers.base import RelaxedLayer, relaxed_layers
from anarch_core.layers.lattice_layer import inverse_root
from anarch_core.probe.locality import weighted_parts
from anarch_core.relaxation.entries import entry_counts, equal_weights

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
        layers = relaxed_layers(model)
        counts = entry_counts(model, example_input)
        owners = {
            f"{path}.{name}".removeprefix("."): (module, name) for path, module in layers.items() for name, _ in module.named_parameters()
        }
        scale = {name: inverse_root(tensor) for name, tensor in counts.items()}
        return cls(owners=owners, scale=scale, incomparable=_incomparable(list(equal_weights(model))))

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


def _incomparable(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    return (
        f"weights of {', '.join(path or 'the network' for path in paths)} were equal in the constrained network, where one number moves "
        "several of them, so that its numbers are in other units"
    )
