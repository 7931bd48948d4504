"""The leading eigenvalues of one end, each counted as often as there is, with their vectors.

A basis is kept, re-orthogonalised twice (Giraud et al. 2005) and restarted thickly when it is full (Wu and Simon 2000). The Krylov space
of one vector holds one copy of an eigenvalue that there are several of, and may hold k values that have settled before a larger one
shows. So once they have, Lanczos from a second random vector bounds what the matrix, ``H``, is outside of their vectors ``Q``
(:mod:`anarch_core.curvature.bounds`). With Ritz values ``T``, residuals ``R = HQ - QT`` and that bound ``u``, ``H`` has no more
eigenvalues above ``x > u`` than ``T + R'R / (x - u)`` has (Sylvester's law of inertia), which bounds each by its rank. If something was
missed, the space grows from another random vector beside the first, and so on.
"""

from __future__ import annotations

import functools
import math

import attrs
import torch

from anarch_core.curvature.bounds import LOOSE, Eigenvalue, End, estimates, excluded, least, least_component, reach
from anarch_core.curvature.lanczos import tridiagonal_matrix, tridiagonalise
from anarch_core.curvature.operators import AbstractOperator
from anarch_core.curvature.subspace import Subspace

MOST = 0.9
"""Of the error bound to be reached, the part that is left to what lies outside of the basis."""

LEAST_SEARCH = 5
"""Products of a search outside of the basis where none are left, so that there is a bound at all."""


@attrs.frozen(kw_only=True)
class Eigenpairs:
    """Leading eigenvalues with their vectors.

    Attributes:
        eigenvalues: k of them, from the end that was asked for inwards.
        vectors: unit eigenvectors, [k, length], where the basis was: see :func:`~anarch_core.curvature.basis.empty_basis`.
        products: products taken altogether.
        restarts: how often the basis was full.
    """

    eigenvalues: tuple[Eigenvalue, ...]
    vectors: torch.Tensor
    products: int
    restarts: int


def eigenpairs(
    operator: AbstractOperator,
    count: int,
    *,
    generator: torch.Generator,
    end: End = "largest",
    rtol: float = 1e-2,
    max_products: int = 300,
    basis_size: int | None = None,
) -> Eigenpairs:
    """The leading eigenvalues of one end, each counted as often as there is, with their vectors.

    Args:
        operator: the matrix.
        count: how many, k.
        generator: random starts, on the operator's device.
        end: from which end.
        rtol: relative residual to reach, each value by its own size.
        max_products: where to give up.
        basis_size: vectors to hold, at least k + 2; ``2 k + 20`` if None, and never more than P.

    Raises:
        ValueError: more eigenvalues are asked for than there are, or than the basis has room for.
        ProbeError: a product is not finite.
    """
    room = min(2 * count + 20 if basis_size is None else basis_size, operator.size)
    if not 1 <= count <= operator.size or (room < count + 2 and room < operator.size):
        msg = f"cannot find {count} eigenvalues of a matrix of {operator.size} rows with a basis of {room} vectors (needs {count + 2})"
        raise ValueError(msg)
    space = Subspace(operator, count, room, sign=1 if end == "largest" else -1)
    space.start(generator)
    before, owed, search = operator.products, 0, Search(upper=-math.inf)
    while True:
        space.expand()
        if space.filled == operator.size or (not space.pending and not space.start(generator)):
            search = Search(upper=-math.inf)
            break
        taken = operator.products - before
        spent = taken >= max(max_products, count)
        if not spent and (taken < owed or not _settled(space, rtol)):
            continue
        search = look_outside(space, generator, rtol, max(max_products - taken, LEAST_SEARCH))
        if spent or not search.found:
            break
        space.start(generator)
        owed = operator.products - before + search.steps * len(space.pending)
    products = operator.products - before
    found = _certified(space, search, rtol, products)
    return Eigenpairs(eigenvalues=found, vectors=space.vectors(), products=products, restarts=space.restarts)


@attrs.frozen(kw_only=True)
class Search:
    """What is known of the matrix outside of a space.

    Attributes:
        upper: no eigenvalue lies above, with the probability of the bounds.
        found: whether one lies above what is known inside.
        steps: products taken.
    """

    upper: float
    found: bool = False
    steps: int = 0


def look_outside(space: Subspace, generator: torch.Generator, rtol: float, max_products: int) -> Search:
    """Bound the matrix outside of the leading Ritz vectors of a space, until nothing much larger than their values can be there or is.

    Args:
        space: where they are.
        generator: random start.
        rtol: relative tolerance.
        max_products: where to give up.
    """
    last = float(space.values[space.count - 1])
    known = last + max(rtol * abs(last), space.floor)
    level = last + MOST * _loose(last, rtol, space.floor)
    operator = _Outside(space)
    component = least_component(operator.size - space.count)
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    value = -math.inf
    for alpha, beta in tridiagonalise(operator, operator.random_unit(generator)):
        diagonal.append(alpha)
        value = float(torch.linalg.eigvalsh(tridiagonal_matrix(diagonal, off_diagonal))[-1])
        off_diagonal.append(beta)
        if value > known or len(diagonal) >= max_products or excluded(diagonal, off_diagonal, level, component):
            break
    upper = value + reach(diagonal, off_diagonal, value, component, floor=space.floor)
    return Search(upper=upper, found=value > known, steps=len(diagonal))


class _Outside(AbstractOperator):
    """The matrix, or minus it, on what is orthogonal to the leading Ritz vectors of a space."""

    def __init__(self, space: Subspace) -> None:
        matrix = space.operator
        super().__init__(size=matrix.size, dtype=matrix.dtype, device=matrix.device, vectors=matrix.vectors)
        self.space = space

    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        out.add_(self.space.without(self.space.operator @ vector), alpha=self.space.sign)

    def random_unit(self, generator: torch.Generator) -> torch.Tensor:
        """As of any operator, from the space that the matrix acts on."""
        vector = self.space.without(self.space.operator.random_unit(generator))
        return vector.div_(self.vectors.norm(vector))


def _settled(space: Subspace, rtol: float) -> bool:
    """Whether the residuals of the leading values meet their tolerance."""
    tolerances = (rtol * space.values[: space.count].abs()).clamp_min(space.floor)
    return space.filled >= space.count and bool((space.residuals[: space.count] <= tolerances).all())


def _loose(value: float, rtol: float, floor: float) -> float:
    """The error bound of what counts as converged, less what rounding adds."""
    return max(LOOSE * rtol * abs(value) - floor, 2 * floor)


def _certified(space: Subspace, search: Search, rtol: float, products: int) -> tuple[Eigenvalue, ...]:
    """The leading values, with what is known of them after a search outside."""
    found = []
    estimate = estimates(space.values, space.residuals)
    for rank, (value, residual) in enumerate(zip(map(float, space.values), map(float, space.residuals[: space.count]), strict=False)):
        beyond = least(functools.partial(space.below, rank, search.upper, value), space.floor)
        near = residual <= max(rtol * abs(value), space.floor) and beyond <= 1.01 * _loose(value, rtol, space.floor)
        eigenvalue = Eigenvalue(
            value=space.sign * value,
            residual=residual,
            error_bound=space.floor + beyond,
            error_estimate=float(estimate[rank]),
            products=products,
            converged=near and not search.found,
        )
        found.append(eigenvalue)
    return tuple(found)
