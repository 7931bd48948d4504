"""The lattice of constraints between a convolution and a fully connected layer, and the exact maps along its edges.

A *family* says which entries of the dense matrix from inputs to outputs may be non-zero and which of them are equal: on every axis it
gives each
(position, pixel) pair at most a few *labels*, and pairs with one label share one weight. With A the incidence matrix of pairs and
labels, a layer
with parameters θ is the dense matrix W = A θ (times the channels, which no family mixes). So for a family F inside a family G

* the lift is ``A_G⁺ A_F`` (exact: A_G times it gives A_F back, which is what being inside means),
* the orthogonal projection is ``A_F⁺ A_G``, nearest in the norm of the dense matrix.

All of it is a Kronecker product over the axes, kept sparse and per axis until it is applied.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from anarch_core.errors import SurgeryError
from anarch_core.geometry import NOTHING, Axis, ConvGeometry, Index


@attrs.frozen(eq=False)
class Incidence:
    """Which labels each (position, pixel) pair of one axis has.

    Attributes:
        pair: position * pixels + pixel, one entry per (pair, label).
        label: the labels of those entries.
        labels: how many labels there are.
        pairs: how many pairs there are: positions * pixels.
    """

    pair: Index
    label: Index
    labels: int
    pairs: int

    @functools.cached_property
    def matrix(self) -> sparse.csr_array:
        """A, [pairs, labels]; an entry counts how often a label occurs at a pair."""
        ones = np.ones(len(self.pair))
        return sparse.csr_array((ones, (self.pair, self.label)), shape=(self.pairs, self.labels))

    @functools.cached_property
    def gram(self) -> sparse.csr_array:
        """AᵀA, [labels, labels]; diagonal, with the share counts on it, where no pair has two labels."""
        return sparse.csr_array(self.matrix.T @ self.matrix)

    @functools.cached_property
    def gram_inverse(self) -> sparse.csr_array:
        """Pseudo-inverse of the Gram matrix."""
        diagonal = self.gram.diagonal()
        if self.gram.nnz == np.count_nonzero(diagonal):
            with np.errstate(divide="ignore"):
                return sparse.csr_array(sparse.diags_array(np.where(diagonal > 0, 1 / diagonal, 0.0)))
        return sparse.csr_array(np.linalg.pinv(self.gram.toarray(), rcond=1e-12, hermitian=True))

    @functools.cached_property
    def injective(self) -> bool:
        """Whether different weights always make different matrices: no label is dead, none is an alias of others."""
        diagonal = self.gram.diagonal()
        if self.gram.nnz == np.count_nonzero(diagonal):
            return bool((diagonal > 0).all())
        return bool(np.linalg.matrix_rank(self.gram.toarray(), hermitian=True) == self.labels)


class AbstractFamily(ABC):
    """A set of layers between convolutions and fully connected layers.

    Families compare by what they are, so subclasses are frozen attrs classes.

    Attributes:
        name: for messages.
        local: no weight lies outside the receptive field.
        across_groups: input and output channels of different groups are connected.
    """

    name: str
    local: bool
    across_groups: bool = False

    @abstractmethod
    def incidence(self, axis: Axis) -> Incidence:
        """Labels of the weights along one axis."""

    @abstractmethod
    def bias_labels(self, axis: Axis) -> Index:
        """Label of the bias of each position along one axis, [positions]; labels count from 0."""


@attrs.frozen
class Convolutional(AbstractFamily):
    """Local and shared: the labels are the taps."""

    name: str = "conv"
    local: bool = True

    def incidence(self, axis: Axis) -> Incidence:
        reads = axis.reads()
        position, tap = np.nonzero(reads != NOTHING)
        return Incidence(position * axis.size + reads[position, tap], tap, axis.kernel, axis.positions * axis.size)

    def bias_labels(self, axis: Axis) -> Index:
        return np.zeros(axis.positions, dtype=np.int64)


@attrs.frozen
class LocallyConnected(AbstractFamily):
    """Local, not shared: the labels are the distinct pairs of a position and a pixel of its receptive field, position by position."""

    name: str = "lcn"
    local: bool = True

    def incidence(self, axis: Axis) -> Incidence:
        pair = np.unique(CONV.incidence(axis).pair)
        return Incidence(pair, np.arange(len(pair)), len(pair), axis.positions * axis.size)

    def bias_labels(self, axis: Axis) -> Index:
        return np.arange(axis.positions)


@attrs.frozen
class FullyConnected(AbstractFamily):
    """Neither local nor shared, and connected across groups: every pair is a label of its own."""

    name: str = "efcn"
    local: bool = False
    across_groups: bool = True

    def incidence(self, axis: Axis) -> Incidence:
        pairs = axis.positions * axis.size
        return Incidence(np.arange(pairs), np.arange(pairs), pairs, pairs)

    def bias_labels(self, axis: Axis) -> Index:
        return np.arange(axis.positions)


CONV = Convolutional()
LCN = LocallyConnected()
EFCN = FullyConnected()


@functools.lru_cache(maxsize=512)
def incidence(family: AbstractFamily, axis: Axis) -> Incidence:
    """The incidence of a family along an axis, computed once."""
    return family.incidence(axis)


def label_counts(family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
    """Labels of the family along each axis; their product times the channel block is the number of weights."""
    return tuple(incidence(family, axis).labels for axis in geometry.axes)


def share_counts(family: AbstractFamily, geometry: ConvGeometry) -> NDArray[np.float64]:
    """How many entries of the dense matrix each label stands for, [labels of axis 1, labels of axis 2, ...]."""
    counts = [incidence(family, axis).gram.diagonal() for axis in geometry.axes]
    return np.asarray(functools.reduce(np.multiply.outer, counts))


def dense_entries(family: AbstractFamily, geometry: ConvGeometry) -> int:
    """Entries of the dense matrix that may be non-zero, without counting channels twice over groups."""
    groups, outputs, inputs = geometry.channel_block
    pairs = 1
    for axis in geometry.axes:
        pairs *= len(np.unique(incidence(family, axis).pair))
    return pairs * (geometry.out_channels * geometry.in_channels if family.across_groups else groups * outputs * inputs)


@attrs.frozen(eq=False)
class LabelMap:
    """A sparse linear map between the labels of two families: ``out[row] += value * in[column]``, all channels alike.

    Attributes:
        rows: labels of the result per axis.
        columns: labels of the argument per axis.
        row: flat labels of the result, int64 tensor [n].
        column: flat labels of the argument, int64 tensor [n].
        value: float64 tensor [n], or None where every value is 1.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    row: torch.Tensor
    column: torch.Tensor
    value: torch.Tensor | None

    @classmethod
    def product(cls, factors: list[sparse.csr_array]) -> LabelMap:
        """The Kronecker product of one sparse matrix per axis."""
        rows, columns = tuple(f.shape[0] for f in factors), tuple(f.shape[1] for f in factors)
        row = column = np.zeros(1, dtype=np.int64)
        value = np.ones(1)
        for factor in factors:
            coo = factor.tocoo()
            row = (row[:, None] * factor.shape[0] + coo.row.astype(np.int64)[None, :]).ravel()
            column = (column[:, None] * factor.shape[1] + coo.col.astype(np.int64)[None, :]).ravel()
            value = (value[:, None] * coo.data[None, :]).ravel()
        ones = bool((value == 1).all())
        return cls(rows, columns, torch.from_numpy(row), torch.from_numpy(column), None if ones else torch.from_numpy(value))

    def apply(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Write the image of ``source`` into ``target``, which holds zeros.

        Args:
            source: [*columns, groups, outputs, inputs], a view of any strides; an axis of pairs may be split into (positions, pixels).
            target: [*rows, groups, outputs, inputs], likewise; written in place.
        """
        row = torch.unravel_index(self.row.to(target.device), target.shape[:-3])
        column = torch.unravel_index(self.column.to(source.device), source.shape[:-3])
        values = source[column].to(target.dtype)
        if self.value is not None:
            values = values * self.value.to(values.device, values.dtype)[:, None, None, None]
        if self.one_to_one:
            target[row] = values
        else:
            target.index_put_(row, values, accumulate=True)

    @functools.cached_property
    def one_to_one(self) -> bool:
        """Whether no row occurs twice, so that values can be written instead of added."""
        return len(torch.unique(self.row)) == len(self.row)


def _axis_lift(inner: Incidence, outer: Incidence) -> sparse.csr_array | None:
    """A_G⁺ A_F along one axis, or None where F is not inside G."""
    matrix = outer.gram_inverse @ (outer.matrix.T @ inner.matrix)
    matrix = sparse.csr_array(matrix)
    rounded = np.round(matrix.data)
    matrix.data = np.where(np.abs(matrix.data - rounded) < 1e-9, rounded, matrix.data)
    matrix.eliminate_zeros()
    error = abs(outer.matrix @ matrix - inner.matrix)
    return matrix if error.nnz == 0 or error.max() < 1e-9 else None


@functools.lru_cache(maxsize=128)
def lift_map(inner: AbstractFamily, outer: AbstractFamily, geometry: ConvGeometry) -> LabelMap:
    """The exact map from the weights of ``inner`` to those of ``outer``.

    Raises:
        SurgeryError: ``inner`` does not lie inside ``outer``.
    """
    factors = [_axis_lift(incidence(inner, axis), incidence(outer, axis)) for axis in geometry.axes]
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


def apply_per_axis(factors: list[sparse.csr_array], values: torch.Tensor) -> torch.Tensor:
    """Multiply each label axis of ``values`` [*labels, groups, outputs, inputs] by a small sparse matrix.

    The result may be ``values`` itself, and is of its dtype where all matrices are diagonal, else float64.
    """
    for axis, factor in enumerate(factors):
        coo = factor.tocoo()
        if factor.shape[0] == factor.shape[1] and (coo.row == coo.col).all():
            diagonal = torch.from_numpy(factor.diagonal()).to(values.device, values.dtype)
            if not bool((diagonal == 1).all()):
                values = values * diagonal.view(-1, *[1] * (values.ndim - axis - 1))
            continue
        shape = (*values.shape[:axis], factor.shape[0], *values.shape[axis + 1 :])
        out = torch.zeros(shape, dtype=torch.float64, device=values.device)
        for row, column, value in zip(coo.row.tolist(), coo.col.tolist(), coo.data.tolist(), strict=True):
            out.select(axis, row).add_(values.select(axis, column), alpha=value)
        values = out
    return values


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
