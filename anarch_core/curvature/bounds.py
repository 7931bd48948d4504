"""What is known of an eigenvalue that Lanczos' method gives.

A Ritz value ``theta`` never lies beyond the eigenvalue of its rank, and some eigenvalue lies within its residual ``|H x - theta x|``.
Neither says that no eigenvalue farther out was missed. The random start says it: along any one direction it has a component of at least
``delta = (1 - CONFIDENCE) sqrt(pi / 2 n)``, except with the probability ``1 - CONFIDENCE``. The coefficients of the recurrence tell how
much of the start an eigenvector of the eigenvalue ``x`` can hold at most (Christoffel's function, which falls steeply beyond the last
Ritz value), so ``x`` is excluded where that is less than ``delta`` (van Dorsselaer, Hochstenbach and van der Vorst 2000).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import attrs
import torch

End = Literal["largest", "smallest"]

CONFIDENCE = 0.99
"""Probability, over the random start, that an error bound holds."""

ROUNDING = 100
"""Residuals below this many units of rounding of the largest eigenvalue are not believed: products and recurrence round too."""

LOOSE = 10
"""The error bound of what counts as converged may be so many times the tolerance of its residual; the error itself is far smaller."""


@attrs.frozen(kw_only=True)
class Eigenvalue:
    """A Ritz value and what is known of its error.

    Attributes:
        value: the Ritz value.
        residual: norm of ``H x - value x`` for the unit Ritz vector ``x``: *some* eigenvalue lies within it, for certain.
        error_bound: the eigenvalue of this rank lies within it, with the probability :attr:`confidence` over the random start.
        error_estimate: what the error is likely to be: the residual's square over the gap to the next Ritz value, where it is less than
            the residual. No bound, as the next Ritz value need not be the next eigenvalue.
        products: products with ``H`` after which this was known.
        converged: whether the residual met its tolerance and the error bound of an extreme eigenvalue ten times that.
        confidence: that of the error bound.
    """

    value: float
    residual: float
    error_bound: float
    error_estimate: float
    products: int
    converged: bool
    confidence: float = CONFIDENCE


def least_component(size: int) -> float:
    """What a random unit vector has along any given direction, with probability :data:`CONFIDENCE`.

    Args:
        size: of the vector.
    """
    return (1 - CONFIDENCE) * math.sqrt(math.pi / (2 * size))


def excluded(diagonal: Sequence[float], off_diagonal: Sequence[float], point: float, component: float) -> bool:
    """Whether an eigenvalue at or beyond a point would have shown itself in the recurrence.

    Args:
        diagonal: of the tridiagonal matrix, [m].
        off_diagonal: beside and below it, [m].
        point: above all eigenvalues of the tridiagonal matrix.
        component: that the start has at least along the eigenvector.
    """
    enough = component**-2
    before, here, beta = 0.0, 1.0, 0.0
    total = 1.0
    for alpha, following in zip(diagonal, off_diagonal, strict=True):
        value = (point - alpha) * here - beta * before
        if value >= 1e150 * following:
            return True
        before, here, beta = here, value / following, following
        total += here * here
        if total >= enough:
            return True
    return False


def reach(diagonal: Sequence[float], off_diagonal: Sequence[float], top: float, component: float, *, floor: float) -> float:
    """How far above the largest Ritz value an eigenvalue may lie that has not shown itself.

    Args:
        diagonal: of the tridiagonal matrix, [m].
        off_diagonal: beside and below it, [m].
        top: its largest eigenvalue.
        component: that the start has at least along any eigenvector.
        floor: what is as good as nothing.
    """
    return least(lambda distance: excluded(diagonal, off_diagonal, top + distance, component), floor)


def least(true: Callable[[float], bool], floor: float) -> float:
    """The least number of which something is true, to a hundredth, where it is true of all greater ones; infinite if it is of none.

    Args:
        true: of a number.
        floor: where to begin; given back if it is true of it.
    """
    low = high = max(floor, torch.finfo(torch.float64).tiny)
    while not true(high) and high < math.inf:  # numbers that are none are true of nothing
        low, high = high, 8 * high
    while math.inf > high > 1.01 * low > 0:  # products of the largest and of the least numbers are infinite and zero
        middle = math.sqrt(low * high)
        low, high = (low, middle) if true(middle) else (middle, high)
    return high


def estimates(values: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
    """The residual or, where it is less, its square over the gap to the next Ritz value (Kato and Temple), [m].

    Args:
        values: Ritz values, in order, [m].
        residuals: theirs, [m]; the gap is shortened by that of the neighbour.
    """
    gaps = (values[:, None] - values).abs() - residuals
    gaps.fill_diagonal_(math.inf)
    nearest = gaps.amin(1)
    return torch.where(nearest > residuals, residuals**2 / nearest, residuals)
