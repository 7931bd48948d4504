"""Random directions in weight space whose filters are as long as those of the network (Li et al. 2018, section 4)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from anarch_core.errors import ProbeError
from anarch_core.lattice.families import incidence
from anarch_core.layers.constrained import is_bias
from anarch_core.layers.fully_connected import FullyConnectedLayer
from anarch_core.layers.lattice_layer import LatticeLayer

NORMALISING = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Layers whose parameters have no filters; so have the vectors of any other layer, and all biases."""


def random_direction(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Gaussian numbers for every weight that is trained, each filter rescaled to the length of the network's (Li et al. 2018, equation 1).

    A filter is what one output unit reads its inputs by: a row of a dense layer, an output channel of a convolution; of a relaxed layer the
    weights of one output at one position, or at all positions that share weights. Of any other parameter with two axes or more it is a
    slice along the first. Biases and the parameters of normalisation are not moved, as Li et al. have it, and are absent.

    Args:
        model: the network; never changed.
        generator: on the CPU.

    Returns:
        by name, as large as the weights, of their dtype and on their device; numbers are drawn on the CPU, so they are the same everywhere.

    Raises:
        ProbeError: there is no such weight.
    """
    direction: dict[str, torch.Tensor] = {}
    for name, filters in filtered(model):
        weight = model.get_parameter(name).detach()
        drawn = torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device="cpu").to(weight.device)
        filters.rescale(drawn, filters.norms(weight))
        direction[name] = drawn
    if not direction:
        msg = f"this {type(model).__name__} has no weights with filters that are trained, so there is no direction to go in"
        raise ProbeError(msg)
    return direction


class Filters:
    """The filters of one parameter, where they are slices: along the first axis, or along those that hold groups and outputs.

    Args:
        shape: to see the parameter in.
        kept: axes of that shape along which filters are told apart.
    """

    def __init__(self, shape: tuple[int, ...], kept: tuple[int, ...] = (0,)) -> None:
        self._shape = shape
        self._summed = tuple(axis for axis in range(len(shape)) if axis not in kept)

    def norms(self, tensor: torch.Tensor) -> torch.Tensor:
        """Length of each filter of a tensor shaped as the parameter, float64."""
        found: torch.Tensor = torch.linalg.vector_norm(tensor.view(self._shape), dim=self._summed, keepdim=True, dtype=torch.float64)
        return found

    def rescale(self, tensor: torch.Tensor, norms: torch.Tensor) -> None:
        """Make every filter as long as it is to be, in place."""
        tensor.view(self._shape).mul_(_quotient(norms, self.norms(tensor)).to(tensor.dtype))


class LatticeFilters(Filters):
    """The filters of a weight of the lattice: by output channel and by position, positions that share weights counting as one."""

    def __init__(self, layer: LatticeLayer) -> None:
        self._layer = layer
        self._outputs = []
        for axis in layer.geometry.axes:
            pairs, of_bias = incidence(layer.family, axis), torch.from_numpy(layer.family.bias_labels(axis))
            output = torch.zeros(pairs.labels, dtype=torch.int64, device="cpu")
            output[torch.from_numpy(pairs.label)] = of_bias[torch.from_numpy(pairs.pair // axis.size)]
            self._outputs.append(output)

    def norms(self, tensor: torch.Tensor) -> torch.Tensor:
        """Length of each filter, float64 [*output positions that share nothing, groups, outputs, 1]."""
        squares: torch.Tensor = torch.linalg.vector_norm(
            self._layer.weight_view(tensor), dim=-1, keepdim=True, dtype=torch.float64
        ).square()
        for dim, output in enumerate(self._outputs):
            sums = squares.new_zeros((*squares.shape[:dim], int(output.max()) + 1, *squares.shape[dim + 1 :]))
            squares = sums.index_add_(dim, output.to(squares.device), squares)
        return squares.sqrt()

    def rescale(self, tensor: torch.Tensor, norms: torch.Tensor) -> None:
        """Make every filter as long as it is to be, in place."""
        spread = _quotient(norms, self.norms(tensor))
        for dim, output in enumerate(self._outputs):
            spread = spread.index_select(dim, output.to(spread.device))
        self._layer.weight_view(tensor).mul_(spread.to(tensor.dtype))


def filtered(model: nn.Module) -> Iterator[tuple[str, Filters]]:
    """The weights of a network that are trained and have filters, by name, each once."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad or not parameter.is_floating_point():
                continue
            seen.add(id(parameter))
            filters = _filters(module, own, parameter)
            if filters is not None:
                yield f"{path}.{own}".removeprefix("."), filters


def _filters(module: nn.Module, name: str, parameter: torch.Tensor) -> Filters | None:
    if is_bias(name) or isinstance(module, NORMALISING) or parameter.ndim < 2:
        return None
    if isinstance(module, LatticeLayer) and not isinstance(module, FullyConnectedLayer):
        return LatticeFilters(module)
    if isinstance(module, _ConvNd) and module.transposed and name == "weight":
        inputs, outputs, *kernel = parameter.shape
        return Filters((module.groups, inputs // module.groups, outputs, *kernel), (0, 2))
    return Filters(tuple(parameter.shape))


def _quotient(wanted: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    return torch.where(there > 0, wanted / there, 0.0)
