"""The probe ``sharing-rank``."""

from __future__ import annotations

import numpy as np
import torch

from anarch_core.errors import ProbeError
from anarch_core.lattice import LCN, Axis, incidence, project_labels
from anarch_core.layers import LatticeLayer, RelaxedLayer, ReparametrisedLayer, relaxed_layers
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext

SPECTRUM = 16
"""Singular values that go into the details; the tensors have all."""


class SharingRank(AbstractProbe):
    """How many different filters the positions of a layer share (Elsayed et al. 2020).

    The local weights of a layer are a matrix of positions and filter entries, and a convolution, all of whose rows are one filter, has
    rank 1. Only positions whose receptive field lies inside of the input have a whole row, so only these count.

    Scalars, means over the layers that have two such positions at least: ``effective_rank``, the exponential of the entropy of the
    normalised singular values (Roy & Vetterli 2007); ``beyond_first``, the norm of all but the first singular value over the norm of
    all. One filter with a gain for every position has rank 1 too, though it is no convolution.
    """

    needs = frozenset({"relaxed"})
    headline = ("effective_rank",)

    def measure(self, context: ProbeContext) -> Measurement:
        """Singular values of every relaxed layer; reads weights only.

        Raises:
            ProbeError: no layer has local weights at two or more positions inside of its input.
        """
        tensors = {}
        layers = {}
        for path, layer in relaxed_layers(context.model).items():
            matrix = local_matrix(layer)
            if matrix is not None and len(matrix) > 1:
                values = torch.linalg.svdvals(matrix).cpu()
                tensors[path or "layer"] = values
                layers[path] = {"positions": len(matrix), **_summary(values), "spectrum": (values / values[0])[:SPECTRUM].tolist()}
        if not layers:
            msg = "the probe sharing-rank found no layer with two positions whose receptive field lies inside of the input"
            raise ProbeError(msg)
        scalars = {name: sum(layer[name] for layer in layers.values()) / len(layers) for name in ("effective_rank", "beyond_first")}
        return Measurement(scalars=scalars, details={"layers": layers}, tensors=tensors)


def local_matrix(layer: RelaxedLayer) -> torch.Tensor | None:
    """The local weights of a layer at the positions inside of its input, [positions, filter entries], float64.

    None where the layer is neither of the lattice nor equal to one that is.
    """
    if isinstance(layer, ReparametrisedLayer):
        layer = layer.lattice()
    if not isinstance(layer, LatticeLayer):
        return None
    weights = project_labels(LCN, layer.family, layer.geometry, layer.weight_view(layer.weight.detach()), dtype=torch.float64)
    axes = layer.geometry.axes
    for dim, axis in enumerate(axes):
        rows = torch.from_numpy(_inside(axis)).to(weights.device)
        weights = weights.index_select(2 * dim, rows.flatten()).unflatten(2 * dim, rows.shape)
    return weights.movedim(tuple(range(0, 2 * len(axes), 2)), tuple(range(len(axes)))).flatten(0, len(axes) - 1).flatten(1)


def _inside(axis: Axis) -> np.ndarray:
    """Labels of the weights of every position whose receptive field lies inside of the axis, [such positions, kernel]."""
    first = np.arange(axis.positions) * axis.stride - axis.before
    inside = (first >= 0) & (first + (axis.kernel - 1) * axis.dilation < axis.size)
    labels = [np.flatnonzero(incidence(LCN, axis).pair // axis.size == position) for position in np.flatnonzero(inside)]
    return np.array(labels, dtype=np.int64).reshape(-1, axis.kernel)


def _summary(values: torch.Tensor) -> dict[str, float]:
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return {
        "effective_rank": float(torch.special.entr(share).sum().exp()),
        "beyond_first": float(values[1:].norm() / values.norm().clamp(min=torch.finfo(values.dtype).tiny)),
    }
