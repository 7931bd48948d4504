"""The exact maps along the edges of the lattice: lift, projection, and the sums between them."""

from __future__ import annotations

import functools

import torch
from scipy import sparse

from anarch_core.constraint.maps import LabelMap, apply_per_axis, lift_factor
from anarch_core.errors import SurgeryError
from anarch_core.lattice.families import AbstractFamily, incidence
from anarch_core.lattice.geometry import ConvGeometry


@functools.lru_cache(maxsize=128)
def lift_map(inner: AbstractFamily, outer: AbstractFamily, geometry: ConvGeometry) -> LabelMap:
    """The exact map from the weights of ``inner`` to those of ``outer``.

    Raises:
        SurgeryError: ``inner`` does not lie inside ``outer``.
    """
    factors = [lift_factor(incidence(inner, axis), incidence(outer, axis)) for axis in geometry.axes]
    if any(factor is None for factor in factors) or (inner.across_groups and not outer.across_groups and geometry.groups > 1):
        msg = (
            f"{inner.name} does not lie inside {outer.name}, so there is no exact lift; "
            "lift to efcn, which holds every family, or project to conv first"
        )
        raise SurgeryError(msg)
    return LabelMap.product([factor for factor in factors if factor is not None])


@functools.lru_cache(maxsize=128)
def overlap_map(inner: AbstractFamily, outer: AbstractFamily, geometry: ConvGeometry) -> LabelMap:
    """A_Fᵀ A_G: sums over the entries that each label of ``inner`` stands for."""
    return LabelMap.product([sparse.csr_array(incidence(inner, axis).matrix.T @ incidence(outer, axis).matrix) for axis in geometry.axes])


def contains(outer: AbstractFamily, inner: AbstractFamily, geometry: ConvGeometry) -> bool:
    """Whether every layer of ``inner`` is a layer of ``outer``."""
    try:
        lift_map(inner, outer, geometry)
    except SurgeryError:
        return False
    return True


def project_labels(
    inner: AbstractFamily, outer: AbstractFamily, geometry: ConvGeometry, weights: torch.Tensor, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The weights of ``inner`` whose dense matrix is nearest to that of ``weights``, summed in at least float64.

    Args:
        inner: the family to project to.
        outer: the family of ``weights``.
        geometry: of the layer.
        weights: [*labels of outer, groups, outputs, inputs].
        dtype: of the result; that of ``weights`` by default.

    Returns:
        [*labels of inner, groups, outputs, inputs]. Labels that no entry carries come out as zero.
    """
    overlap = overlap_map(inner, outer, geometry)
    sums = weights.new_zeros((*overlap.rows, *weights.shape[-3:]), dtype=torch.float64)
    overlap.apply(weights, sums)
    return apply_per_axis([incidence(inner, axis).gram_inverse for axis in geometry.axes], sums).to(dtype or weights.dtype)
