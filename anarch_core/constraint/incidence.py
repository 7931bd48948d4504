"""Which entries of a weight are zero and which are equal, along one factor of a product: labels of entries."""

from __future__ import annotations

import functools
from typing import Self

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

Index = NDArray[np.int64]
"""Positions, as whole numbers."""

NOTHING = -1
"""In an index: where nothing stands, as in padding of zeros."""


@attrs.frozen(eq=False)
class Incidence:
    """Which labels the entries of one factor have. Entries with one label are equal, entries without one are zero.

    Attributes:
        entry: one number for each (entry, label) there is.
        label: the labels of those entries.
        labels: how many labels there are.
        entries: how many entries there are.
    """

    entry: Index
    label: Index
    labels: int
    entries: int

    @classmethod
    def identity(cls, size: int) -> Self:
        """No constraint: every entry has a label of its own."""
        return cls(np.arange(size), np.arange(size), size, size)

    @classmethod
    def of(cls, label_of: NDArray[np.integer], labels: int) -> Self:
        """Entries with one label each, or none.

        Args:
            label_of: label of every entry, flat; ``NOTHING`` (-1) where it is zero.
            labels: how many labels there are.

        Raises:
            ValueError: a label is not among 0 ... labels - 1.
        """
        flat = np.asarray(label_of, dtype=np.int64).ravel()
        if len(flat) and (flat.min() < NOTHING or flat.max() >= labels):
            msg = f"labels must lie between {NOTHING} (no label) and {labels - 1}, got {flat.min()} to {flat.max()}"
            raise ValueError(msg)
        entry = np.flatnonzero(flat != NOTHING)
        return cls(entry, flat[entry], labels, len(flat))

    @functools.cached_property
    def matrix(self) -> sparse.csr_array:
        """A, [entries, labels]; a number counts how often a label occurs at an entry."""
        ones = np.ones(len(self.entry))
        return sparse.csr_array((ones, (self.entry, self.label)), shape=(self.entries, self.labels))

    @functools.cached_property
    def gram(self) -> sparse.csr_array:
        """AᵀA, [labels, labels]; diagonal, with the share counts on it, where no entry has two labels."""
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
        """Whether different labels' weights always make different entries: no label is dead, none is an alias of others."""
        if self.single:
            return bool((self.counts > 0).all())
        return bool(np.linalg.matrix_rank(self.gram.toarray(), hermitian=True) == self.labels)

    @functools.cached_property
    def single(self) -> bool:
        """Whether no entry has two labels."""
        return len(np.unique(self.entry)) == len(self.entry)

    @functools.cached_property
    def free(self) -> bool:
        """Whether nothing is constrained: entry i has label i."""
        return (
            self.entries == self.labels == len(self.entry)
            and bool((self.entry == np.arange(self.entries)).all())
            and bool((self.label == np.arange(self.entries)).all())
        )

    @functools.cached_property
    def counts(self) -> NDArray[np.float64]:
        """How many entries each label stands for, where no entry has two, [labels]."""
        return np.bincount(self.label, minlength=self.labels).astype(np.float64)

    @functools.cached_property
    def covered(self) -> NDArray[np.bool_]:
        """Which entries have a label, [entries]."""
        covered = np.zeros(self.entries, dtype=bool)
        covered[self.entry] = True
        return covered

    @functools.cached_property
    def label_of(self) -> Index:
        """The label of each entry, where none has two, [entries]; ``NOTHING`` where there is none."""
        labels = np.full(self.entries, NOTHING, dtype=np.int64)
        labels[self.entry] = self.label
        return labels

    def lift(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """A times an axis of ``values`` that counts labels: it counts entries afterwards."""
        if self.free:
            return values
        if not self.single:
            return _multiplied(self.matrix, values, axis)
        picked = values.index_select(axis, torch.from_numpy(np.maximum(self.label_of, 0)).to(values.device))
        return picked if self.covered.all() else picked * self.mask(picked, axis)

    def total(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """Aᵀ times an axis of ``values`` that counts entries: sums over the entries of each label."""
        if self.free:
            return values
        if not self.single:
            return _multiplied(sparse.csr_array(self.matrix.T), values, axis)
        shape = (*values.shape[:axis], self.labels, *values.shape[axis + 1 :])
        picked = values.index_select(axis, torch.from_numpy(self.entry).to(values.device))
        return values.new_zeros(shape).index_add(axis, torch.from_numpy(self.label).to(values.device), picked)

    def divide(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """(AᵀA)⁺ times an axis of ``values`` that counts labels: what was summed over entries becomes a mean."""
        if not self.single:
            return _multiplied(self.gram_inverse, values, axis)
        if (self.counts == 1).all():
            return values
        counts = np.where(self.counts > 0, self.counts, np.inf)  # a quotient: the mean of equal numbers is one of them, to the bit
        return values / torch.from_numpy(counts).to(values).view(_along(axis, values.ndim))

    def multiply(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """Share counts times an axis of ``values`` that counts labels, where no entry has two."""
        if (self.counts == 1).all():
            return values
        return values * torch.from_numpy(self.counts).to(values).view(_along(axis, values.ndim))

    def mask(self, like: torch.Tensor, axis: int) -> torch.Tensor:
        """Which entries have a label, as a tensor of the device and number of axes of ``like``, all but ``axis`` of length 1."""
        return torch.from_numpy(self.covered).to(like.device).view(_along(axis, like.ndim))

    def times(self, other: Incidence) -> Incidence:
        """The product of two factors as one: their entries and labels in pairs, this one's first."""
        if self.free and other.free:
            return Incidence.identity(self.entries * other.entries)
        return Incidence(
            (self.entry[:, None] * other.entries + other.entry[None, :]).ravel(),
            (self.label[:, None] * other.labels + other.label[None, :]).ravel(),
            self.labels * other.labels,
            self.entries * other.entries,
        )

    def then(self, outer: Incidence) -> Incidence:
        """What entries of this one become in ``outer``, whose labels they are."""
        if self.free or outer.free:
            return outer if self.free else self
        both = sparse.coo_array(outer.matrix @ self.matrix)
        entry, label, often = both.row.astype(np.int64), both.col.astype(np.int64), both.data.round().astype(np.int64)
        return Incidence(np.repeat(entry, often), np.repeat(label, often), self.labels, outer.entries)


def _along(axis: int, ndim: int) -> list[int]:
    return [-1 if dim == axis else 1 for dim in range(ndim)]


def _multiplied(matrix: sparse.csr_array, values: torch.Tensor, axis: int) -> torch.Tensor:
    factor = torch.from_numpy(matrix.toarray()).to(values)
    product: torch.Tensor = torch.tensordot(factor, values, dims=([1], [axis]))
    return product.movedim(0, axis)
