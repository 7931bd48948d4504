"""How far a layer of the lattice is from a convolution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from anarch_core.geometry import ConvGeometry
from anarch_core.lattice import (
    CONV,
    EFCN,
    LCN,
    AbstractFamily,
    LabelMap,
    apply_per_axis,
    incidence,
    label_counts,
    lift_map,
    overlap_map,
    project_labels,
    share_counts,
)
from anarch_core.layers import Drift

if TYPE_CHECKING:
    from anarch_core.lattice_layer import LatticeLayer


def lattice_drift(layer: LatticeLayer, reference: LatticeLayer | None) -> Drift:
    """The three orthogonal parts of a layer's weight, as squared norms of the dense matrix (accumulated in float64)."""
    geometry, family = layer.geometry, layer.family
    view = layer.weight_view(layer.weight)
    conv = project_labels(CONV, family, geometry, view, dtype=torch.float64)
    local = project_labels(LCN, family, geometry, view, dtype=torch.float64)
    sharing = torch.zeros_like(local)
    lift_map(CONV, LCN, geometry).apply(conv, sharing)
    unshared = _norm2(local - sharing)
    moved = before = None
    if reference is not None:
        start = project_labels(CONV, reference.family, geometry, reference.weight_view(reference.weight), dtype=torch.float64)
        moved, before = matrix_norm2(CONV, geometry, conv - start), matrix_norm2(CONV, geometry, start)
    return Drift(
        shared=matrix_norm2(CONV, geometry, conv),
        unshared=unshared,
        off_local=_off_local_norm2(layer, local, conv, unshared),
        moved=moved,
        reference=before,
        initial=expected_at_initialisation(layer),
    )


def expected_at_initialisation(layer: LatticeLayer) -> tuple[float, float, float] | None:
    """Expected squared norms of the parts (shared, unshared, off-local) at default initialisation.

    Weights are then independent with mean 0 and variance bound²/3. None where padding gives some pair two labels, so that the parts
    are not sums over
    labels.
    """
    geometry, family = layer.geometry, layer.family
    grams = [incidence(f, axis).gram for axis in geometry.axes for f in (CONV, family)]
    if any(gram.nnz != (gram.diagonal() != 0).sum() for gram in grams):
        return None
    bound = layer.weight_bound().to(layer.weight.device).expand(layer.weight.shape)
    variance = layer.weight_view(bound)[..., 0, 0, 0].flatten().double() ** 2 / 3
    groups, outputs, inputs = geometry.channel_block
    channels = groups * outputs * inputs
    counts = torch.from_numpy(share_counts(family, geometry)).flatten().to(variance.device)
    total = float((counts * variance).sum()) * channels
    if family.across_groups:
        total *= groups

    def expected(inner: AbstractFamily) -> float:
        overlap = overlap_map(inner, family, geometry)
        value = torch.ones_like(overlap.row, dtype=torch.float64) if overlap.value is None else overlap.value
        share = torch.from_numpy(share_counts(inner, geometry)).flatten()
        return float((value**2 / share[overlap.row] * variance.cpu()[overlap.column]).sum()) * channels

    shared, local = expected(CONV), expected(LCN)
    return shared, local - shared, total - local


def matrix_norm2(family: AbstractFamily, geometry: ConvGeometry, labels: torch.Tensor) -> float:
    """Squared norm of the dense matrix that weights [*labels, groups, outputs, inputs] stand for."""
    exact = labels.double()
    return float((exact * apply_per_axis([incidence(family, axis).gram for axis in geometry.axes], exact)).sum())


def _norm2(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.double())) ** 2


def _off_local_norm2(layer: LatticeLayer, local: torch.Tensor, conv: torch.Tensor, unshared: float) -> float:
    """Squared norm of what lies outside the receptive field. A difference of norms would drown small values in rounding."""
    family, geometry = layer.family, layer.geometry
    if family.local:
        return 0.0
    if family != EFCN:
        rest = layer.weight_view(layer.weight.detach())
        rest = rest.double() - _image(lift_map(CONV, family, geometry), conv, rest.double())
        return max(matrix_norm2(family, geometry, rest.reshape(*label_counts(family, geometry), *rest.shape[-3:])) - unshared, 0.0)
    # A fully connected weight is the largest tensor there is: empty its receptive fields in place, and put back the same bits.
    weight = layer.weight.detach()
    fields = lift_map(LCN, EFCN, geometry)
    view = layer.weight_view(weight)
    try:
        fields.apply(torch.zeros_like(local), view)
        rows = max(1, 2**22 // weight.shape[1])
        return math.fsum(_norm2(weight[start : start + rows]) for start in range(0, weight.shape[0], rows))
    finally:
        fields.apply(local, view)


def _image(label_map: LabelMap, source: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(like)
    label_map.apply(source, out)
    return out
