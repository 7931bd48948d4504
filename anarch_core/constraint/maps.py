"""Maps between two constraints on one dense weight, neither of which need be free: sparse, by factor, and as one list of terms."""

from __future__ import annotations

import functools

import attrs
import numpy as np
import torch
from scipy import sparse

from anarch_core.constraint.incidence import Incidence


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


def lift_factor(inner: Incidence, outer: Incidence) -> sparse.csr_array | None:
    """A_G⁺ A_F of an inner constraint F and an outer one G, along one factor; None where F is not inside G."""
    matrix = outer.gram_inverse @ (outer.matrix.T @ inner.matrix)
    matrix = sparse.csr_array(matrix)
    rounded = np.round(matrix.data)
    matrix.data = np.where(np.abs(matrix.data - rounded) < 1e-9, rounded, matrix.data)
    matrix.eliminate_zeros()
    error = abs(outer.matrix @ matrix - inner.matrix)
    return matrix if error.nnz == 0 or error.max() < 1e-9 else None


def apply_per_axis(factors: list[sparse.csr_array], values: torch.Tensor) -> torch.Tensor:
    """Multiply each label axis of ``values`` [*labels, groups, outputs, inputs] by a small sparse matrix.

    The result may be ``values`` itself, and is of its dtype where all matrices are diagonal, else float64.
    """
    for axis, factor in enumerate(factors):
        coo = factor.tocoo()
        if factor.shape[0] == factor.shape[1] and (coo.row == coo.col).all():
            diagonal = factor.diagonal()
            if (diagonal != 1).any():
                values = values * torch.from_numpy(diagonal).to(values).view(-1, *[1] * (values.ndim - axis - 1))
            continue
        shape = (*values.shape[:axis], factor.shape[0], *values.shape[axis + 1 :])
        out = torch.zeros(shape, dtype=torch.float64, device=values.device)
        for row, column, value in zip(coo.row.tolist(), coo.col.tolist(), coo.data.tolist(), strict=True):
            out.select(axis, row).add_(values.select(axis, column), alpha=value)
        values = out
    return values
