"""Lanczos' method: extreme eigenvalues with certificates, from products alone.

Two variants. :func:`extreme_eigenvalues` keeps two vectors and what a product takes, and gives values only: in finite precision its Krylov
basis loses orthogonality and repeats eigenvalues it has found, which hurts neither end of the spectrum (Paige 1980). :func:`eigenpairs`
keeps a basis, re-orthogonalises it twice (Giraud et al. 2005), restarts thickly when it is full (Wu and Simon 2000), and gives the
leading k eigenvalues, once each, with their vectors.

A Ritz value ``theta`` comes with its residual ``|H x - theta x|``: some eigenvalue lies within that distance. That no larger one was missed
is known only with the high probability that a random start gives (Kuczyński and Woźniakowski 1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import attrs
import torch

from anarch_core.curvature.basis import combine, empty_basis, orthogonalise
from anarch_core.curvature.operators import AbstractOperator
from anarch_core.errors import ProbeError

End = Literal["largest", "smallest"]

ROUNDING = 100
"""Residuals below this many units of rounding of the largest eigenvalue are not believed: products and recurrence round too."""


@attrs.frozen(kw_only=True)
class Eigenvalue:
    """A Ritz value and what is known of its error.

    Attributes:
        value: the estimate.
        residual: norm of ``H x - value x`` for the unit Ritz vector ``x``: an eigenvalue lies within it.
        error_bound: the residual or, where it is smaller, its square over the gap to the next Ritz value (Kato and Temple), the gap being
            shortened by that value's own residual.
        products: products with ``H`` after which this was known.
        converged: whether the residual met its tolerance.
    """

    value: float
    residual: float
    error_bound: float
    products: int
    converged: bool


@attrs.frozen(kw_only=True)
class Eigenpairs:
    """Leading eigenvalues with their vectors.

    Attributes:
        eigenvalues: k of them, from the end that was asked for inwards.
        vectors: unit eigenvectors, [k, P], where the basis was: see :func:`~anarch_core.curvature.basis.empty_basis`.
        products: products taken altogether.
        restarts: how often the basis was full.
    """

    eigenvalues: tuple[Eigenvalue, ...]
    vectors: torch.Tensor
    products: int
    restarts: int


def tridiagonalise(
    operator: AbstractOperator, current: torch.Tensor, *, basis: torch.Tensor | None = None
) -> Iterator[tuple[float, float]]:
    """Run the Lanczos recurrence, one product a step, until the Krylov space is exhausted or the caller stops.

    Args:
        operator: the matrix.
        current: unit vector to start from, [P]; overwritten, so that nothing but two vectors and what a product takes need be held.
        basis: room for Lanczos vectors, [steps, P]; given, each new vector is orthogonalised against all before it, twice, and the
            recurrence stops when it is full.

    Yields:
        the next diagonal and off-diagonal entry of the tridiagonal matrix.

    Raises:
        ProbeError: a product is not finite.
    """
    epsilon = torch.finfo(operator.dtype).eps
    following = torch.zeros_like(current)
    beta = scale = 0.0
    step = 0
    while True:
        if basis is not None:
            basis[step] = current
        step += 1
        operator.add_product(current, following)  # to the vector before, times minus beta
        alpha = float(following @ current)
        following.sub_(current, alpha=alpha)
        if basis is not None:
            orthogonalise(following, basis[:step])
        scale = max(scale, abs(alpha) + beta)
        beta = float(following.norm())
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
    favoured: Callable[[], torch.Tensor] | None = None,
) -> dict[End, Eigenvalue]:
    """The largest and the smallest (most negative) eigenvalue, in two vectors and what a product takes.

    Each end stops at ``residual <= rtol * |value|``; the error is then of second order, about ``rtol² |value|`` over the relative gap. An
    end at zero (the smaller one of a singular positive matrix) cannot meet this and runs into ``max_products``.

    Args:
        operator: the matrix.
        generator: random start, on the operator's device.
        rtol: relative residual to reach.
        max_products: where to give up; what was not reached is marked as not converged.
        ends: which eigenvalues must converge before it stops.
        favoured: gives a direction, [P], that makes up half of the start where it is not zero; a function, so that nobody holds it
            afterwards. The gradient is a good one: it lies mostly in the leading eigenspace (Gur-Ari et al. 2018) and saves about two
            products in six. The random half keeps every eigenvector in reach.

    Returns:
        an entry for each of ``ends``.

    Raises:
        ProbeError: a product is not finite.
    """
    floor = ROUNDING * torch.finfo(operator.dtype).eps
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    found: dict[End, Eigenvalue] = {}
    for alpha, beta in tridiagonalise(operator, _start(operator, generator, favoured)):
        diagonal.append(alpha)
        steps = len(diagonal)
        values, components = torch.linalg.eigh(tridiagonal_matrix(diagonal, off_diagonal))
        scale = float(values.abs().max())
        residuals = (beta * components[-1].abs()).clamp_min(floor * scale)
        off_diagonal.append(beta)
        for end in ends:
            best = _certified(values, residuals, end=end, rank=0, floor=floor * scale, rtol=rtol, products=steps)
            known = found.get(end)
            # A converged value stands until it is bettered, or contradicted by a value outside of its bound.
            if known is None or not known.converged or best.residual <= known.residual or abs(best.value - known.value) > known.residual:
                found[end] = attrs.evolve(best, products=known.products) if known and known.converged and best.converged else best
        if steps >= max_products or all(found[end].converged for end in ends):
            break
    return found


def _start(operator: AbstractOperator, generator: torch.Generator, favoured: Callable[[], torch.Tensor] | None) -> torch.Tensor:
    """A random unit vector, half along the favoured direction."""
    start = operator.random_unit(generator)
    if favoured is not None:
        direction = favoured()
        if (length := float(direction.norm())) > 0:
            start.add_(direction, alpha=1 / length)
            start.div_(start.norm())
    return start


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
    """The leading eigenvalues of one end, each counted once, with their vectors.

    Args:
        operator: the matrix.
        count: how many, k.
        generator: random start, on the operator's device.
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
    floor = ROUNDING * torch.finfo(operator.dtype).eps
    basis = empty_basis(operator, room)
    projected = torch.zeros(room, room, dtype=torch.float64)
    following = operator.random_unit(generator)
    filled = products = restarts = 0
    chains = 1
    while True:
        basis[filled] = following
        filled += 1
        following = operator @ basis[filled - 1].to(operator.device)
        products += 1
        coefficients = orthogonalise(following, basis[:filled]).to(device="cpu", dtype=torch.float64)
        if not coefficients.isfinite().all():
            msg = f"a product with the matrix is not finite after {products} steps; the network may have diverged"
            raise ProbeError(msg)
        projected[:filled, filled - 1] = projected[filled - 1, :filled] = coefficients
        beta = float(following.norm())
        values, components = torch.linalg.eigh(projected[:filled, :filled])
        scale = float(values.abs().max())
        residuals = (beta * components[-1].abs()).clamp_min(floor * scale)
        found = tuple(
            _certified(values, residuals, end=end, rank=rank, floor=floor * scale, rtol=rtol, products=products)
            for rank in range(min(count, filled))
        )
        exhausted = beta <= floor * scale
        complete = len(found) == count and all(eigenvalue.converged for eigenvalue in found)
        if complete and chains > 1:
            last = found[-1].value
            beyond = (values - last if end == "largest" else last - values) + residuals > 0
            complete = not bool((beyond & (residuals > max(rtol * abs(last), floor * scale))).any())
        if filled == operator.size or products >= max(max_products, count) or (complete and not exhausted):
            break
        leading = _from_end(components, end)
        if filled == room:
            filled = count + (room - count) // 2
            combine(basis, leading[:, :filled])
            projected.zero_()
            projected[:filled, :filled] = torch.diag(_from_end(values[None], end)[0, :filled])
            restarts += 1
        if exhausted:
            # An invariant subspace hides further copies of its eigenvalues: go on in a random direction outside of it, until nothing that
            # comes from there can still reach the leaders.
            chains += 1
            following = operator.random_unit(generator)
            orthogonalise(following, basis[:filled])
            beta = float(following.norm())
        following.div_(beta)
    weights = _from_end(components, end)[:, : len(found)].to(basis)
    return Eigenpairs(eigenvalues=found, vectors=weights.T @ basis[:filled], products=products, restarts=restarts)


def tridiagonal_matrix(diagonal: list[float], off_diagonal: list[float]) -> torch.Tensor:
    """The symmetric tridiagonal matrix of the recurrence, float64, [m, m]."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off_diagonal:
        side = torch.tensor(off_diagonal, dtype=torch.float64)
        matrix += torch.diag(side, 1) + torch.diag(side, -1)
    return matrix


def _from_end(columns: torch.Tensor, end: End) -> torch.Tensor:
    """Columns in ascending order of eigenvalue -> from the end that is asked for."""
    return columns.flip(-1) if end == "largest" else columns


def _certified(
    values: torch.Tensor, residuals: torch.Tensor, *, end: End, rank: int, floor: float, rtol: float, products: int
) -> Eigenvalue:
    """The Ritz value of a rank counted from one end, with its bounds.

    Args:
        values: Ritz values, ascending, [m].
        residuals: theirs, [m].
        end: where ranks are counted from.
        rank: 0 is the extreme value.
        floor: residual that rounding leaves.
        rtol: relative residual that counts as converged.
        products: products taken so far.
    """
    theta = _from_end(values[None], end)[0].tolist()
    rho = _from_end(residuals[None], end)[0].tolist()
    value, residual = theta[rank], rho[rank]
    neighbours = [other for other in (rank - 1, rank + 1) if 0 <= other < len(theta)]
    gap = min((abs(theta[other] - value) - rho[other] for other in neighbours), default=0.0)
    bound = min(residual, residual**2 / gap) if gap > 0 else residual
    tolerance = max(rtol * abs(value), floor)
    return Eigenvalue(
        value=value, residual=residual, error_bound=bound, products=products, converged=math.isfinite(residual) and residual <= tolerance
    )
