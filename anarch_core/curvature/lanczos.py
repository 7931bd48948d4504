"""Lanczos' method in two vectors: extreme eigenvalues with certificates, from products alone.

:func:`extreme_eigenvalues` keeps two vectors and what a product takes, and gives values only: in finite precision its Krylov basis loses
orthogonality and repeats eigenvalues it has found, which hurts neither end of the spectrum (Paige 1980). For several eigenvalues of one
end, with their vectors, see :mod:`anarch_core.curvature.leading`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs
import torch

from anarch_core.curvature.basis import orthogonalise
from anarch_core.curvature.bounds import LOOSE, ROUNDING, Eigenvalue, End, estimates, excluded, least_component, reach
from anarch_core.curvature.operators import AbstractOperator
from anarch_core.errors import ProbeError


def tridiagonalise(
    operator: AbstractOperator, current: torch.Tensor, *, basis: torch.Tensor | None = None
) -> Iterator[tuple[float, float]]:
    """Run the Lanczos recurrence, one product a step, until the Krylov space is exhausted or the caller stops.

    Args:
        operator: the matrix.
        current: unit vector to start from, [length]; overwritten, so that nothing but two vectors and what a product takes need be held.
        basis: room for Lanczos vectors, [steps, length]; given, each new vector is orthogonalised against all before it, twice, and the
            recurrence stops when it is full.

    Yields:
        the next diagonal and off-diagonal entry of the tridiagonal matrix.

    Raises:
        ProbeError: a product is not finite.
    """
    vectors, epsilon = operator.vectors, torch.finfo(operator.dtype).eps
    following = torch.zeros_like(current)
    beta = scale = 0.0
    step = 0
    while True:
        if basis is not None:
            basis[step] = current
        step += 1
        operator.add_product(current, following)  # to the vector before, times minus beta
        alpha = vectors.dot(following, current)
        following.sub_(current, alpha=alpha)
        if basis is not None:
            orthogonalise(following, basis[:step], vectors)
        scale = max(scale, abs(alpha) + beta)
        beta = float(vectors.norm(following))
        if not math.isfinite(alpha + beta):
            msg = f"a product with the matrix is not finite after {step} steps; the network may have diverged"
            raise ProbeError(msg)
        exhausted = beta <= epsilon * scale
        yield alpha, beta
        if exhausted or step == (operator.size if basis is None else len(basis)):
            return
        current, following = following.div_(beta), current.mul_(-beta)


def extreme_eigenvalues(
    operator: AbstractOperator,
    *,
    generator: torch.Generator,
    rtol: float = 1e-2,
    max_products: int = 100,
    ends: tuple[End, ...] = ("largest", "smallest"),
) -> dict[End, Eigenvalue]:
    """The largest and the smallest (most negative) eigenvalue, in two vectors and what a product takes.

    Each end stops at ``residual <= rtol * |value|`` and ``error_bound <= 10 rtol * |value|``; the error is then of second order, about
    ``rtol² |value|`` over the relative gap. An end at zero (the smaller one of a singular positive matrix) cannot meet this and runs into
    ``max_products``.

    Args:
        operator: the matrix.
        generator: random start, on the operator's device.
        rtol: relative residual to reach.
        max_products: where to give up; what was not reached is marked as not converged.
        ends: which eigenvalues must converge before it stops.

    Returns:
        an entry for each of ``ends``.

    Raises:
        ProbeError: a product is not finite.
    """
    component = least_component(operator.size)
    epsilon = ROUNDING * torch.finfo(operator.dtype).eps
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    found: dict[End, _Ritz] = {}
    for alpha, beta in tridiagonalise(operator, operator.random_unit(generator)):
        diagonal.append(alpha)
        values, components = torch.linalg.eigh(tridiagonal_matrix(diagonal, off_diagonal))
        off_diagonal.append(beta)
        floor = epsilon * float(values.abs().max())
        residuals = (beta * components[-1].abs()).clamp_min(floor)
        for end in ends:
            ritz = _Ritz.of(values, residuals, end, floor)
            known = found.get(end)
            # A converged value stands until it is bettered, or contradicted by a value outside of its bound.
            if known and known.converged and ritz.residual > known.residual and abs(ritz.value - known.value) <= known.residual:
                continue
            if ritz.residual <= max(rtol * abs(ritz.value), floor):
                nothing = max(LOOSE * rtol * abs(ritz.value) - floor, floor)
                ritz.converged = excluded(ritz.outwards(diagonal), off_diagonal, ritz.distance + nothing, component)
            if known and known.converged and ritz.converged:
                ritz.products = known.products
            found[end] = ritz
        if len(diagonal) >= max_products or all(found[end].converged for end in ends):
            break
    return {end: found[end].certified(diagonal, off_diagonal, component) for end in ends}


@attrs.define
class _Ritz:
    """The outermost Ritz value of an end after some steps."""

    end: End
    value: float
    residual: float
    estimate: float
    floor: float
    steps: int
    products: int
    converged: bool = False

    @classmethod
    def of(cls, values: torch.Tensor, residuals: torch.Tensor, end: End, floor: float) -> _Ritz:
        """Of all of them, ascending, [m]."""
        at, steps = (-1 if end == "largest" else 0), len(values)
        return cls(end, float(values[at]), float(residuals[at]), float(estimates(values, residuals)[at]), floor, steps, steps)

    @property
    def distance(self) -> float:
        """How far out it lies."""
        return self.value if self.end == "largest" else -self.value

    def outwards(self, diagonal: list[float]) -> list[float]:
        """The diagonal up to where this was found, of the matrix or of minus the matrix, so that its end is the upper one."""
        return [alpha if self.end == "largest" else -alpha for alpha in diagonal[: self.steps]]

    def certified(self, diagonal: list[float], off_diagonal: list[float], component: float) -> Eigenvalue:
        """With its bound."""
        beyond = reach(self.outwards(diagonal), off_diagonal[: self.steps], self.distance, component, floor=self.floor)
        return Eigenvalue(
            value=self.value,
            residual=self.residual,
            error_bound=max(self.residual, self.floor + beyond),
            error_estimate=self.estimate,
            products=self.products,
            converged=self.converged,
        )


def tridiagonal_matrix(diagonal: list[float], off_diagonal: list[float]) -> torch.Tensor:
    """The symmetric tridiagonal matrix of the recurrence, float64, [m, m]."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off_diagonal:
        side = torch.tensor(off_diagonal, dtype=torch.float64)
        matrix += torch.diag(side, 1) + torch.diag(side, -1)
    return matrix
