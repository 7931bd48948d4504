"""What each position of a layer sees: rows of its matrix from inputs to outputs, and how its weights are spread over the image.

Works alike for a convolution and for every layer of the lattice, so that the networks before and after a switch can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import attrs
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.lattice.families import CONV, AbstractFamily, incidence
from anarch_core.lattice.geometry import Axis, ConvGeometry, Convolution
from anarch_core.layers.base import RelaxedLayer, whole_modules
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.layers.lattice_layer import LatticeLayer, conv_weight_view
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.probe.locality import in_receptive_field
from anarch_core.relaxation.constraint import constrained_module
from anarch_core.relaxation.lattice import CONVOLUTIONS, is_convolution
from anarch_core.relaxation.trace import inputs_of


@attrs.frozen(kw_only=True)
class SpatialLayer:
    """A convolution, a layer of the lattice, or a convolution that was freed of constraints on its weights, with its geometry.

    Attributes:
        path: in the network.
        module: the layer.
        linear: the layer that holds the weights: ``module``, the layer of the lattice it equals as a linear map, or the convolution in it.
        family: of its weights.
        geometry: of the convolution it is or was.
        input: what the layer was given when the example ran through the network, [batch, in_channels, *input size].
    """

    path: str
    module: nn.Module
    linear: nn.Module
    family: AbstractFamily
    geometry: ConvGeometry
    input: torch.Tensor

    @property
    def relaxed(self) -> bool:
        """Whether a relaxation made it."""
        return isinstance(self.module, RelaxedLayer)

    def weights(self) -> torch.Tensor:
        """The weight as [*labels, groups, outputs, inputs]; for a dense family the labels of an axis are (positions, pixels)."""
        return self._view(self.linear.get_parameter("weight").detach())

    def _view(self, weight: torch.Tensor) -> torch.Tensor:
        if isinstance(self.linear, LatticeLayer):
            return self.linear.weight_view(weight)
        return conv_weight_view(self.geometry, weight)

    def filters(self, position: Sequence[int]) -> torch.Tensor:
        """Rows of the matrix at one output position, as images over the whole input.

        Args:
            position: one index per axis.

        Returns:
            [out_channels, in_channels / groups, *input size]; zeros where the layer has no weight.
        """
        return self._rows(self.weights(), position)

    def inside(self, position: Sequence[int]) -> torch.Tensor:
        """What of the input the constrained layer could read at one output position: 1 there, and 0 elsewhere, [*input size]."""
        if isinstance(self.module, ConstrainedLayer):
            local = in_receptive_field(self.module, "free.weight").to(self.weights().dtype)
            return (self._rows(self._view(local), position).flatten(0, 1).amax(0) > 0).to(local.dtype)
        inside = torch.ones((), device=self.weights().device)
        for axis, index in zip(self.geometry.axes, position, strict=True):
            read = torch.from_numpy(axis.reads()[index]).to(inside.device)
            seen = torch.zeros(axis.size, device=inside.device).index_fill_(0, read[read >= 0], 1)
            inside = inside.unsqueeze(-1) * seen
        return inside

    def _rows(self, weights: torch.Tensor, position: Sequence[int]) -> torch.Tensor:
        if self.family.dense:
            for dim, index in enumerate(position):
                weights = weights.select(dim, index)
        else:
            for dim, (axis, index) in enumerate(zip(self.geometry.axes, position, strict=True)):
                rows = incidence(self.family, axis).matrix[index * axis.size : (index + 1) * axis.size]
                select = torch.from_numpy(rows.toarray()).to(weights)
                weights = torch.tensordot(select, weights, dims=([1], [dim])).movedim(0, dim)
        return weights.movedim((-3, -2, -1), (0, 1, 2)).flatten(0, 1)

    def spread(self, power: int) -> torch.Tensor:
        """Sum over the input channels of ``|w|^power`` for every entry of the matrix.

        Returns:
            [*(positions, pixels) of each axis, out_channels].

        Raises:
            ProbeError: weights add up in one entry (padding that is not zeros), so that powers of them say nothing.
        """
        # Label by label of the first axis, so that nothing of the weight's size is made.
        sums = torch.cat([rows.abs().pow_(power).sum(-1).flatten(-2) for rows in torch.split(self.weights(), 1)])
        if self.family.dense:
            return sums
        for dim, axis in enumerate(self.geometry.axes):
            pairs = incidence(self.family, axis)
            if len(set(pairs.pair.tolist())) < len(pairs.pair):
                msg = f"weights of {self.path} meet in one entry of the matrix (padding mode {axis.mode!r}), so their spread is not defined"
                raise ProbeError(msg)
            matrix = torch.from_numpy(pairs.matrix.toarray()).to(sums)
            sums = torch.tensordot(matrix, sums, dims=([1], [2 * dim])).movedim(0, 2 * dim)
            sums = sums.unflatten(2 * dim, (axis.positions, axis.size))
        return sums

    def statistics(self) -> tuple[float, float]:
        """How far and how evenly each output's weights are spread, averaged over the outputs.

        Returns:
            the root mean square distance from the centre of the receptive field in pixels, weighted by ``w²``; and the inverse
            participation ratio ``(Σ w²)² / Σ w⁴``, the number of weights that matter. Both nan where all weights are zero, or one is not
            finite.

        Raises:
            ProbeError: see :meth:`spread`.
        """
        square = self.spread(2)
        axes = len(self.geometry.axes)
        pixels = tuple(range(1, 2 * axes, 2))
        total = square.sum(pixels)
        moment = torch.zeros_like(total)
        for dim, axis in enumerate(self.geometry.axes):
            shape = [1] * square.ndim
            shape[2 * dim], shape[2 * dim + 1] = axis.positions, axis.size
            moment += (square * _squared_distance(axis).to(square).view(shape)).sum(pixels)
        alive = total > 0
        if not alive.any() or not total.isfinite().all():
            return math.nan, math.nan
        distance = (moment[alive] / total[alive]).sqrt().mean()
        participation = (total[alive] ** 2 / self.spread(4).sum(pixels)[alive]).mean()
        return float(distance), float(participation)


def spatial_layers(model: nn.Module, example_input: torch.Tensor) -> dict[str, SpatialLayer]:
    """Convolutions and layers of the lattice by path, in the order of the network; those called once on the example, at one size.

    Args:
        model: never changed.
        example_input: with a batch dimension.
    """
    kinds = (LatticeLayer, ReparametrisedLayer, *CONVOLUTIONS)
    modules = {
        path: module for path, module in whole_modules(model) if isinstance(module, kinds) or is_convolution(constrained_module(module))
    }
    inputs = inputs_of(model, list(modules), example_input)
    layers = {}
    for path, module in modules.items():
        if len(inputs[path]) != 1:
            continue
        (given,) = inputs[path]
        linear: nn.Module = module.lattice() if isinstance(module, ReparametrisedLayer) else constrained_module(module)
        if isinstance(linear, LatticeLayer):
            family, geometry = linear.family, linear.geometry
        else:
            conv = cast(Convolution, linear)
            family, geometry = CONV, ConvGeometry.of(conv, tuple(given.shape[-len(conv.kernel_size) :]))
        layers[path] = SpatialLayer(path=path, module=module, linear=linear, family=family, geometry=geometry, input=given)
    return layers


def chosen_layer(layers: dict[str, SpatialLayer], path: str | None) -> SpatialLayer:
    """The layer of a path, or the first relaxed one (the first of all where none is) if None.

    Raises:
        ProbeError: there is no such layer.
    """
    if path is None and layers:
        return next((layer for layer in layers.values() if layer.relaxed), next(iter(layers.values())))
    if path not in layers:
        msg = f"no convolution or relaxed layer {path or ''!r}; the network has {', '.join(layers) or 'none'}"
        raise ProbeError(msg)
    return layers[path]


def _squared_distance(axis: Axis) -> torch.Tensor:
    """From the centre of the receptive field of each position to each pixel, [positions, pixels]."""
    centre = torch.arange(axis.positions) * axis.stride - axis.before + axis.dilation * (axis.kernel - 1) / 2
    return (torch.arange(axis.size)[None, :] - centre[:, None]) ** 2
