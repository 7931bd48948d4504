"""The probe ``weights``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from anarch_core.layers import RelaxedLayer, ReparametrisedLayer, relaxed_layers
from anarch_core.probe import (
    AbstractProbe,
    Measurement,
    ProbeContext,
    RelaxedWeight,
    SpatialLayer,
    chosen_layer,
    in_receptive_field,
    relaxed_weights,
    spatial_layers,
)
from anarch_plugins.probes.weights.options import WeightsOptions

LOWEST, HIGHEST = -30.0, 5.0
"""Range of the histograms of log |w|; exact zeros and what is not finite are counted apart."""

BLOCK = 2**18
"""Weights that are counted at once."""


class WeightsProbe(AbstractProbe):
    """Keeps what is needed to draw the weights.

    * ``block`` [rows, columns]: the corner of one layer's matrix from inputs to outputs, rows and columns in the order of flattened maps;
      of a layer that is no convolution and was none, of its first weight that is a matrix, and left out where there is none;
    * ``edges`` [bins + 1] and, for every relaxed layer, ``<path>.local`` and ``<path>.off_local`` [bins]: histograms of the natural
      logarithm of ``|w|``. Weights that are exactly zero, or not finite, are counted in the details.

    The scalars are root mean squares over all relaxed layers.
    """

    needs = frozenset({"data"})

    options: WeightsOptions

    def measure(self, context: ProbeContext) -> Measurement:
        """Take block and histograms.

        Raises:
            ProbeError: there are no data to size the layers by, or no such layer.
        """
        relaxed = relaxed_layers(context.model)
        where, block = self._block(context, relaxed)
        tensors = {"edges": torch.linspace(LOWEST, HIGHEST, self.options.bins + 1)} | ({} if block is None else {"block": block})
        details: dict[str, Any] = {"layer": where, "layers": {}}
        squares, numbers = {"local": 0.0, "off_local": 0.0}, {"local": 0, "off_local": 0}
        plain = (weight for weight in relaxed_weights(context.model) if not weight.is_bias)
        weights = {layer: list(own) for layer, own in itertools.groupby(plain, key=lambda weight: weight.layer)}
        for path, module in relaxed.items():
            parts = _counted(module, weights.get(module, []), self.options.bins)
            for part, count in parts.items():
                tensors[f"{path}.{part}"] = count.histogram
                squares[part] += count.square
                numbers[part] += count.weights
            details["layers"][path] = {
                part: {"weights": count.weights, "zeros": count.zeros, "not_finite": count.not_finite} for part, count in parts.items()
            }
        scalars = {f"rms_{part}": _root_mean(squares[part], numbers[part]) for part in squares}
        missing = bool(relaxed) and block is None
        omitted = "no layer was a convolution, and no relaxed weight is a matrix, so there is no block" if missing else ""
        return Measurement(scalars=scalars, details=details, tensors=tensors, omitted=omitted)

    def _block(self, context: ProbeContext, relaxed: Mapping[str, RelaxedLayer]) -> tuple[str | None, torch.Tensor | None]:
        """Path of the layer that is looked at, and the corner of its matrix."""
        size, chosen = self.options.size, self.options.layer
        spatial = spatial_layers(context.model, context.required_data.inputs("test")[:1])
        others = relaxed if chosen is None else {path: layer for path, layer in relaxed.items() if path == chosen}
        of_others = [weight for weight in relaxed_weights(context.model) if weight.tensor.ndim == 2 and weight.layer in others.values()]
        if of_others and (not any(layer.relaxed for layer in spatial.values()) if chosen is None else chosen not in spatial):
            path = next(path for path, layer in relaxed.items() if layer is of_others[0].layer)
            return path, of_others[0].tensor[:size, :size].clone()
        if not spatial and (chosen is None or others):
            return None, None
        layer = chosen_layer(spatial, chosen)
        return layer.path, _block(layer, size)


@attrs.define
class _Count:
    """What is counted of some weights."""

    histogram: torch.Tensor
    weights: int = 0
    zeros: int = 0
    not_finite: int = 0
    square: float = 0.0

    def add(self, weights: torch.Tensor) -> None:
        self.weights += weights.numel()
        self.zeros += int((weights == 0).sum())
        self.not_finite += int((~weights.isfinite()).sum())
        self.square += float(weights.double().square().sum())
        logarithms = weights[(weights != 0) & weights.isfinite()].abs().double().log().clamp(LOWEST, HIGHEST).cpu()
        self.histogram += torch.histc(logarithms, len(self.histogram), LOWEST, HIGHEST).long()


def _counted(layer: RelaxedLayer, weights: Sequence[RelaxedWeight], bins: int) -> dict[str, _Count]:
    """Of the local weights, and of the others; block by block, so that nothing of the layer's size is made."""
    found = [(weight.tensor, weight.local()) for weight in weights]
    if isinstance(layer, ReparametrisedLayer) and type(layer).gram is ReparametrisedLayer.gram:  # its parameters are not the matrix's
        lattice = layer.lattice()
        found = [(lattice.weight.detach(), in_receptive_field(lattice))]
    counts = {part: _Count(torch.zeros(bins, dtype=torch.int64)) for part in ("local", "off_local")}
    for tensor, inside in found:
        for numbers, local in zip(torch.split(tensor.reshape(-1), BLOCK), torch.split(inside.reshape(-1), BLOCK), strict=True):
            counts["local"].add(numbers[local])
            counts["off_local"].add(numbers[~local])
    return counts


def _block(layer: SpatialLayer, size: int) -> torch.Tensor:
    """The first rows and columns of the matrix; where channels are grouped, columns are those of the row's own group."""
    sizes = layer.geometry.output_size
    rows = min(size, layer.geometry.out_channels * layer.geometry.positions)
    block: list[torch.Tensor | None] = [None] * rows
    for flat in range(min(rows, layer.geometry.positions)):
        position = [int(index) for index in np.unravel_index(flat, sizes)]
        filters = layer.filters(position).flatten(1)[:, :size]
        for channel, row in enumerate(range(flat, rows, layer.geometry.positions)):
            block[row] = filters[channel]
    return torch.stack([row for row in block if row is not None])


def _root_mean(total: float, count: int) -> float | None:
    return math.sqrt(total / count) if count and math.isfinite(total) else None
