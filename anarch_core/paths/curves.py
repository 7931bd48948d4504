"""Chains of points between two ends in weight space: straight, norm-preserving, elastic, nudged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch

from anarch_core.errors import ProbeError

Gradient = Callable[[torch.Tensor, float], tuple[float, torch.Tensor]]
"""(loss, gradient) at a point of a chain, given with its place in it from 0 to 1, for the batch of one step."""

Progress = Callable[[int, int], None]


def linear(a: torch.Tensor, b: torch.Tensor, points: int) -> torch.Tensor:
    """Evenly spaced points on the straight line, [points, P]; the ends are ``a`` and ``b`` to the bit."""
    chain = torch.empty(points, len(a), dtype=a.dtype, device=a.device)
    for row, fraction in zip(chain, fractions(points), strict=True):
        torch.lerp(a, b, fraction, out=row)
    chain[0], chain[-1] = a, b
    return chain


def curvilinear(a: torch.Tensor, b: torch.Tensor, points: int, sizes: Sequence[int]) -> torch.Tensor:
    """The straight line with every tensor rescaled to the interpolated norm ``(1 - t) |a| + t |b|``, [points, P].

    Args:
        a: one end, [P].
        b: the other.
        points: how many.
        sizes: numbers in each tensor, in the order of the vector.
    """
    chain = linear(a, b, points)
    lengths = [[float(part.norm()) for part in torch.split(end, list(sizes))] for end in (a, b)]
    for row, fraction in zip(chain[1:-1], fractions(points)[1:-1], strict=True):
        for part, start, end in zip(torch.split(row, list(sizes)), *lengths, strict=True):
            norm = float(part.norm())
            if norm > 0:
                part.mul_(((1 - fraction) * start + fraction * end) / norm)
    return chain


def string(
    chain: torch.Tensor, gradients: Iterator[Gradient], *, lr: float, stiffness: float, steps: int, progress: Progress
) -> torch.Tensor:
    """Let the inner points fall, held together by springs: gradient descent on ``sum L(x_i) + k/2 sum |x_{i+1} - x_i|²``.

    This is d'Ascoli et al. 2019, equation 2, with ``k`` as written there. The springs are taken implicitly (one small linear solve per
    step), so that every stiffness is stable; an explicit step would need ``lr * k < 1/2``.

    Args:
        chain: start, [points, P]; changed in place.
        gradients: one for each step, the same batch for all points.
        lr: step size.
        stiffness: k.
        steps: how many.
        progress: called with (steps done, steps).

    Returns:
        the chain.
    """
    inner = chain[1:-1]
    count = len(inner)
    laplacian = 2 * torch.eye(count, dtype=torch.float64) - torch.diag(torch.ones(count - 1), 1) - torch.diag(torch.ones(count - 1), -1)
    solve = torch.linalg.inv(torch.eye(count, dtype=torch.float64) + lr * stiffness * laplacian).to(chain)
    for step, gradient in zip(range(steps), gradients, strict=False):
        for point, place in zip(inner, fractions(len(chain))[1:-1], strict=True):
            point.sub_(gradient(point, place)[1], alpha=lr)
        inner[0].add_(chain[0], alpha=lr * stiffness)
        inner[-1].add_(chain[-1], alpha=lr * stiffness)
        inner.copy_(solve @ inner)
        progress(step + 1, steps)
    return chain


def nudged_elastic_band(
    chain: torch.Tensor, gradients: Iterator[Gradient], *, lr: float, stiffness: float, steps: int, progress: Progress
) -> torch.Tensor:
    """Let the inner points fall across the path, and springs even them out along it (Henkelman and Jónsson 2000).

    Args:
        chain: start, [points, P]; changed in place.
        gradients: one for each step, the same batch for all points; the ends are evaluated too.
        lr: step size.
        stiffness: of the springs.
        steps: how many.
        progress: called with (steps done, steps).

    Returns:
        the chain.

    Raises:
        ProbeError: ``lr * stiffness`` is above 1/2, where the springs oscillate and grow.
    """
    if lr * stiffness > 0.5:
        msg = f"lr * stiffness = {lr * stiffness:g} is above 0.5, where the springs of the band are unstable; lower one of them"
        raise ProbeError(msg)
    slopes = torch.empty_like(chain)
    for step, gradient in zip(range(steps), gradients, strict=False):
        losses = []
        for point, slope, place in zip(chain, slopes, fractions(len(chain)), strict=True):
            loss, found = gradient(point, place)
            losses.append(loss)
            slope.copy_(found)
        moves = slopes[1:-1]
        for index in range(1, len(chain) - 1):
            ahead, behind = chain[index + 1] - chain[index], chain[index] - chain[index - 1]
            tangent = band_tangent(ahead, behind, losses[index - 1 : index + 2])
            slope = moves[index - 1]
            pull = stiffness * (ahead.norm() - behind.norm())
            slope.sub_(tangent * (slope @ tangent + pull))
        chain[1:-1].sub_(moves, alpha=lr)
        progress(step + 1, steps)
    return chain


def band_tangent(ahead: torch.Tensor, behind: torch.Tensor, losses: Sequence[float]) -> torch.Tensor:
    """The improved tangent of a band (Henkelman and Jónsson 2000, equations 8 to 11): uphill, and continuous where the slope turns.

    Args:
        ahead: from the point to the next.
        behind: from the previous point to this.
        losses: of the previous point, this, and the next.

    Returns:
        unit vector; zero where the three points coincide.
    """
    before, here, after = losses
    if after > here > before:
        tangent = ahead
    elif after < here < before:
        tangent = behind
    else:
        larger, smaller = max(abs(after - here), abs(before - here)), min(abs(after - here), abs(before - here))
        weights = (larger, smaller) if after > before else (smaller, larger)
        tangent = ahead * weights[0] + behind * weights[1]
        if not tangent.any():  # a flat stretch has no uphill
            tangent = ahead + behind
    length = tangent.norm()
    return tangent / length if length > 0 else tangent


def fractions(points: int) -> list[float]:
    """Evenly spaced numbers from 0 to 1."""
    return [index / (points - 1) for index in range(points)]


def arc_length(chain: torch.Tensor) -> list[float]:
    """Distance travelled at each point, from 0 to 1; evenly spaced where the ends coincide, or points are not finite."""
    lengths = [float((after - before).norm()) for before, after in itertools.pairwise(chain)]
    total = sum(lengths)
    if not 0 < total < math.inf:
        return fractions(len(chain))
    travelled = [0.0]
    for length in lengths:
        travelled.append(travelled[-1] + length / total)
    return travelled
