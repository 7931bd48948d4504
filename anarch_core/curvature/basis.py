"""Orthonormal vectors as large as the network, many of them: where they are kept, and what is done to them in place."""

from __future__ import annotations

import torch

from anarch_core.curvature.operators import AbstractOperator
from anarch_core.curvature.vectors import Vectors
from anarch_core.machine import available_bytes


def empty_basis(operator: AbstractOperator, count: int) -> torch.Tensor:
    """Room for vectors, [count, length]: beside the matrix if half of the memory that is free there will do, else in the host's memory.

    On a GPU the basis is thus never what does not fit; in the host's memory orthogonalising takes longer than multiplying.
    """
    length = operator.vectors.length
    fits = 2 * count * length * operator.dtype.itemsize <= available_bytes(operator.device)
    return torch.empty(count, length, dtype=operator.dtype, device=operator.device if fits else "cpu")


def orthogonalise(vector: torch.Tensor, basis: torch.Tensor, vectors: Vectors) -> torch.Tensor:
    """Take from a vector its components along the rows of a basis, in two passes, where the basis is.

    Args:
        vector: [length], changed in place.
        basis: orthonormal rows, [n, length].
        vectors: those of the space.

    Returns:
        the components, [n].
    """
    rest = vector.to(basis.device)
    removed = vectors.components(basis, rest)
    rest.sub_(removed @ basis)
    again = vectors.components(basis, rest)
    rest.sub_(again @ basis)
    if rest is not vector:
        vector.copy_(rest)
    return removed + again


def combine(basis: torch.Tensor, components: torch.Tensor, columns: int = 1 << 20) -> None:
    """Replace the leading rows of a basis by combinations of its rows, a stretch of columns at a time so that no second basis is needed.

    Args:
        basis: [n, length], changed in place.
        components: of each combination, [rows that take part, combinations].
        columns: length of a stretch.
    """
    weights = components.T.to(basis)
    rows = components.shape[0]
    for stretch in torch.split(basis, columns, dim=1):
        stretch[: len(weights)] = weights @ stretch[:rows]
