"""The probe ``weights``."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import torch

from anarch_core.layers import RelaxedLayer, ReparametrisedLayer, relaxed_layers
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, SpatialLayer, chosen_layer, in_receptive_field, spatial_layers
from anarch_plugins.probes.weights.options import WeightsOptions

LOWEST, HIGHEST = -30.0, 5.0
"""Range of the histograms of log |w|; exact zeros and what is not finite are counted apart."""

BLOCK = 2**18
"""Weights that are counted at once."""


class WeightsProbe(AbstractProbe):
    """Keeps what is needed to draw the weights.

    * ``block`` [rows, columns]: the corner of one layer's matrix from inputs to outputs, rows and columns in the order of flattened maps;
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
        layer = chosen_layer(spatial_layers(context.model, context.required_data.inputs("test")[:1]), self.options.layer)
        tensors = {"block": _block(layer, self.options.size), "edges": torch.linspace(LOWEST, HIGHEST, self.options.bins + 1)}
        details: dict[str, Any] = {"layer": layer.path, "layers": {}}
        squares, numbers = {"local": 0.0, "off_local": 0.0}, {"local": 0, "off_local": 0}
        for path, module in relaxed_layers(context.model).items():
            parts = _counted(module, self.options.bins)
            for part, count in parts.items():
                tensors[f"{path}.{part}"] = count.histogram
                squares[part] += count.square
                numbers[part] += count.weights
            details["layers"][path] = {
                part: {"weights": count.weights, "zeros": count.zeros, "not_finite": count.not_finite} for part, count in parts.items()
            }
        scalars = {f"rms_{part}": _root_mean(squares[part], numbers[part]) for part in squares}
        return Measurement(scalars=scalars, details=details, tensors=tensors)


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


def _counted(layer: RelaxedLayer, bins: int) -> dict[str, _Count]:
    """Of the weights in the receptive fields, and of those outside; block by block, so that nothing of the layer's size is made."""
    layer = layer.lattice() if isinstance(layer, ReparametrisedLayer) else layer
    weight = layer.get_parameter("weight").detach()
    counts = {part: _Count(torch.zeros(bins, dtype=torch.int64)) for part in ("local", "off_local")}
    blocks = (torch.split(tensor.reshape(-1), BLOCK) for tensor in (weight, in_receptive_field(layer)))
    for weights, local in zip(*blocks, strict=True):
        counts["local"].add(weights[local])
        counts["off_local"].add(weights[~local])
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
