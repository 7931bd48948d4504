"""How far a weight of the lattice is from a convolution: its three orthogonal parts, and their norms.

A weight is given as its view [*labels, groups, outputs, inputs], so that a layer may keep it in any layout.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator

import attrs
import torch
from scipy import sparse

from anarch_core.constraint.maps import LabelMap, apply_per_axis
from anarch_core.constraint.parts import Drift, Part
from anarch_core.lattice.families import CONV, LCN, AbstractFamily, incidence, label_counts, share_counts
from anarch_core.lattice.geometry import Axis, ConvGeometry
from anarch_core.lattice.maps import lift_map, overlap_map, project_labels


def lattice_drift(
    family: AbstractFamily,
    geometry: ConvGeometry,
    view: torch.Tensor,
    bound: torch.Tensor,
    *,
    off_local: float | None = None,
    start: torch.Tensor | None = None,
) -> Drift:
    """The three orthogonal parts of a weight, as squared norms of the dense matrix (accumulated in float64).

    Args:
        family: of the weight.
        geometry: of the layer.
        view: the weight, [*labels, groups, outputs, inputs].
        bound: half-width of its uniform default initialisation, likewise.
        off_local: squared norm of what lies outside the receptive fields; needed where the family is dense, since the view leaves out what
            connects different groups.
        start: the shared part at an earlier moment, as :func:`shared_part` gives it.
    """
    local = local_part(family, geometry, view)
    conv = nearest_convolution(geometry, local)
    _subtract_sharing(local, conv, geometry)
    unshared = float(column_norms2(local.flatten(1)).sum())
    if off_local is None:
        off_local = 0.0 if family.local else _off_local_norm2(family, geometry, view, conv, unshared)
    return Drift(
        shared=matrix_norm2(CONV, geometry, conv),
        unshared=unshared,
        off_local=off_local,
        moved=None if start is None else matrix_norm2(CONV, geometry, conv - start),
        reference=None if start is None else matrix_norm2(CONV, geometry, start),
        initial=expected_at_initialisation(family, geometry, bound),
    )


def shared_part(family: AbstractFamily, geometry: ConvGeometry, view: torch.Tensor) -> torch.Tensor:
    """The convolution nearest to a weight [*labels, groups, outputs, inputs]: [*taps, groups, outputs, inputs], float64."""
    return nearest_convolution(geometry, local_part(family, geometry, view))


def local_part(family: AbstractFamily, geometry: ConvGeometry, view: torch.Tensor) -> torch.Tensor:
    """What of a weight lies in the receptive fields, [*labels of lcn, groups, outputs, inputs]; a copy."""
    if not family.dense:
        return project_labels(LCN, family, geometry, view, dtype=torch.float64)
    # Position by position: a receptive field is a box of pixels, and boxes are copied several times faster than listed entries.
    local = view.new_empty((*label_counts(LCN, geometry), *geometry.channel_block))
    for labels, box in _boxes(geometry):
        local[labels] = view[box]
    return local


def write_local_parts(geometry: ConvGeometry, source: torch.Tensor, target: torch.Tensor, parts: Collection[Part]) -> None:
    """Write the sum of some parts of a dense weight into the receptive fields of another; nothing else of its size is made.

    Args:
        geometry: of the layer.
        source: the weight, [*(positions, pixels) of each axis, groups, outputs, inputs].
        target: likewise; what lies outside the receptive fields is left as it is.
        parts: which.
    """
    shared, unshared = "shared" in parts, "unshared" in parts
    local = source.new_zeros((*label_counts(LCN, geometry), *geometry.channel_block))
    if shared or unshared:
        for labels, box in _boxes(geometry):
            local[labels] = source[box]
    if shared != unshared:
        conv = nearest_convolution(geometry, local)
        if shared:
            local.zero_()
            conv.neg_()
        _subtract_sharing(local, conv, geometry)
    for labels, box in _boxes(geometry):
        target[box] = local[labels]


def _boxes(geometry: ConvGeometry) -> Iterator[tuple[tuple[slice, ...], tuple[int | slice, ...]]]:
    """The entries of the receptive fields, in lcn by label and in efcn by (position, pixel) of each axis."""
    for fields in itertools.product(*(_fields(axis) for axis in geometry.axes)):
        yield tuple(field.labels for field in fields), tuple(index for field in fields for index in (field.position, field.pixels))


@attrs.frozen
class _Field:
    """What one position of an axis reads: its labels in lcn, and the pixels, which all families that are local list in ascending order."""

    position: int
    labels: slice
    pixels: slice


@functools.lru_cache(maxsize=512)
def _fields(axis: Axis) -> tuple[_Field, ...]:
    """Stretches of evenly spaced pixels; more than one for a position only where padding or a wide dilation makes gaps of other sizes."""
    pairs, fields, start = incidence(LCN, axis).pair, [], 0
    while start < len(pairs):
        position, first = divmod(int(pairs[start]), axis.size)
        end, step = start + 1, 1
        if end < len(pairs) and pairs[end] // axis.size == position:
            step = int(pairs[end] - pairs[start])
            while end < len(pairs) and pairs[end] // axis.size == position and pairs[end] - pairs[end - 1] == step:
                end += 1
        fields.append(_Field(position, slice(start, end), slice(first, first + step * (end - start - 1) + 1, step)))
        start = end
    return tuple(fields)


def nearest_convolution(geometry: ConvGeometry, local: torch.Tensor) -> torch.Tensor:
    """Weights of the convolution nearest to a local matrix, [*labels of lcn, ...] -> [*taps, ...], float64."""
    overlaps = [sparse.csr_array(incidence(CONV, axis).matrix.T @ incidence(LCN, axis).matrix) for axis in geometry.axes]
    return apply_per_axis([incidence(CONV, axis).gram_inverse for axis in geometry.axes], apply_per_axis(overlaps, local)).to(
        torch.float64, copy=True
    )


def _subtract_sharing(local: torch.Tensor, conv: torch.Tensor, geometry: ConvGeometry) -> None:
    """Take a convolution from a local matrix in place."""
    first, *others = [incidence(LCN, axis).matrix.T @ incidence(CONV, axis).matrix for axis in geometry.axes]
    for dim, factor in reversed(list(enumerate(others, start=1))):
        conv = torch.tensordot(torch.from_numpy(factor.toarray()).to(conv), conv, dims=([1], [dim])).movedim(0, dim)
    local.flatten(1).addmm_(torch.from_numpy(first.toarray()).to(local), conv.flatten(1).to(local), alpha=-1)


def expected_at_initialisation(family: AbstractFamily, geometry: ConvGeometry, bound: torch.Tensor) -> tuple[float, float, float] | None:
    """Expected squared norms of the parts (shared, unshared, off-local) at default initialisation.

    Weights are then independent with mean 0 and variance bound²/3. None where padding gives some pair two labels, so that the parts are
    not sums over labels.
    """
    grams = [incidence(f, axis).gram for axis in geometry.axes for f in (CONV, family)]
    if any(gram.nnz != (gram.diagonal() != 0).sum() for gram in grams):
        return None
    variance = bound[..., 0, 0, 0].flatten().double() ** 2 / 3
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
    return shared, max(local - shared, 0.0), max(total - local, 0.0)  # rounding may leave less than nothing


def matrix_norm2(family: AbstractFamily, geometry: ConvGeometry, labels: torch.Tensor) -> float:
    """Squared norm of the dense matrix that weights [*labels, groups, outputs, inputs] stand for."""
    exact = labels.double()
    return float((exact * apply_per_axis([incidence(family, axis).gram for axis in geometry.axes], exact)).sum())


def _off_local_norm2(family: AbstractFamily, geometry: ConvGeometry, view: torch.Tensor, conv: torch.Tensor, unshared: float) -> float:
    """Squared norm of what lies outside the receptive field, for a family that shares weights."""
    rest = view.double() - _image(lift_map(CONV, family, geometry), conv, view.double())
    return max(matrix_norm2(family, geometry, rest.reshape(*label_counts(family, geometry), *rest.shape[-3:])) - unshared, 0.0)


def receptive_fields(geometry: ConvGeometry) -> torch.Tensor:
    """Which pixels each position reads, bool, [positions, pixels], both flat."""
    return functools.reduce(torch.kron, [_reads(axis) for axis in geometry.axes])


def _reads(axis: Axis) -> torch.Tensor:
    """Which pixels each position of an axis reads, bool, [positions, pixels]."""
    reads = torch.zeros(axis.positions, axis.size, dtype=torch.bool, device="cpu")
    reads.view(-1)[torch.from_numpy(incidence(LCN, axis).pair)] = True
    return reads


def column_norms2(rows: torch.Tensor) -> torch.Tensor:
    """Sums of the squares of each column, float64; what is summed in the weight's own precision is short, and nothing is copied."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for block in torch.split(rows, 64):
        squares = torch.zeros_like(total, dtype=torch.promote_types(rows.dtype, torch.float32))
        for row in block:
            squares.addcmul_(row, row)
        total.add_(squares)
    return total


def _image(label_map: LabelMap, source: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(like)
    label_map.apply(source, out)
    return out
