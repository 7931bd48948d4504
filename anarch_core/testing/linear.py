"""A small relaxed layer in the terms of linear algebra: all of its parameters are one vector, its parts and its lift are matrices.

Everything is found by asking the layer about unit vectors, so that it rests on nothing that the layer's author derived.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import PARTS, Part
from anarch_core.layers.base import RelaxedLayer
from anarch_core.network import copied
from anarch_core.testing.snapshot import relative

FEW = 30
"""Numbers among which all pairs are looked at."""


def vector(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All numbers of some tensors, in their order."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors.values()])


def parameters(module: nn.Module) -> torch.Tensor:
    """All parameters of a module."""
    return vector(dict(module.named_parameters()))


def tensors(module: nn.Module, numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    """The way back from a vector to tensors shaped and named as the parameters of a module."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    pieces = torch.split(numbers, [shape.numel() for shape in shapes.values()])
    return {name: piece.reshape(shape).clone() for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


@torch.no_grad()
def having(module: nn.Module, numbers: torch.Tensor) -> nn.Module:
    """A copy of a module with other parameters."""
    new = copied(module)
    given = tensors(module, numbers)
    for name, parameter in new.named_parameters():
        parameter.copy_(given[name])
    return new


def projectors(layer: RelaxedLayer) -> dict[Part, torch.Tensor]:
    """The matrix that takes parameters to each of their parts, [n, n].

    Raises:
        AnarchError: the layer has no parts.
    """
    units = torch.eye(parameters(layer).numel(), dtype=torch.float64)
    columns = {part: [vector(layer.weighted(tensors(layer, unit), {part: 1.0})) for unit in units] for part in PARTS}
    return {part: torch.stack(found, dim=1) for part, found in columns.items()}


def metric(layer: RelaxedLayer) -> torch.Tensor | None:
    """The matrix G for which ``v @ G @ v`` is the total of the drift of a layer with parameters v, [n, n].

    Parameters that drift leaves out, as biases, have their own squares. None where the total is no square of the parameters.

    Raises:
        AnarchError: the layer has no drift.
    """
    probe = copy.deepcopy(layer)
    count = parameters(layer).numel()
    units = torch.eye(count, dtype=torch.float64)

    def total(numbers: torch.Tensor) -> float:
        given = tensors(layer, numbers)
        with torch.no_grad():
            for name, parameter in probe.named_parameters():
                parameter.copy_(given[name])
        return probe.drift().total

    found = torch.diag(torch.tensor([total(unit) for unit in units], dtype=torch.float64))
    some = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    if abs(some @ found @ some - total(some)) > 1e-9 * total(some):
        if count > FEW:
            return None
        for i in range(count):
            for j in range(i):
                found[i, j] = found[j, i] = (total(units[i] + units[j]) - found[i, i] - found[j, j]) / 2
        if abs(some @ found @ some - total(some)) > 1e-9 * total(some):
            return None
    left_out = torch.cat(
        [(~piece.any()).expand(piece.shape).reshape(-1) for piece in tensors(layer, found.diagonal()).values()],
    )
    return found + torch.diag(left_out.double())


@attrs.frozen
class Lift:
    """How the parameters of a relaxed layer come out of its parent's: ``matrix @ theta + constant``.

    Attributes:
        matrix: [numbers of the relaxed layer, numbers of the parent].
        constant: [numbers of the relaxed layer].
    """

    matrix: torch.Tensor
    constant: torch.Tensor

    @classmethod
    def of(cls, lift: Callable[[nn.Module], nn.Module], parent: nn.Module) -> Lift | None:
        """Lift parents with a single parameter that is not zero; None where the lift is not linear.

        Args:
            lift: a parent -> the relaxed layer.
            parent: never changed.
        """
        units = torch.eye(parameters(parent).numel(), dtype=torch.float64)
        constant = parameters(lift(having(parent, torch.zeros_like(units[0]))))
        found = cls(torch.stack([parameters(lift(having(parent, unit))) - constant for unit in units], dim=1), constant)
        some = torch.randn(len(units), dtype=torch.float64, generator=torch.Generator().manual_seed(6))
        linear = relative(found(some), parameters(lift(having(parent, some)))) < 1e-9
        return found if linear and relative(found(parameters(parent)), parameters(lift(parent))) < 1e-9 else None

    def __call__(self, theta: torch.Tensor) -> torch.Tensor:
        """Parameters of the parent -> of the relaxed layer."""
        return self.matrix @ theta + self.constant
