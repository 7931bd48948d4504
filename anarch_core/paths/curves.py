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

BLOCK = 2**16
"""Numbers of each point that springs are solved for at once."""


def straight(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], fraction: float, out: Sequence[torch.Tensor]) -> None:
    """Write a point of the straight line, tensor by tensor; at 0 and 1 it is ``a`` and ``b`` to the bit.

    Args:
        a: one end.
        b: the other.
        fraction: where, from 0 to 1.
        out: written to; nothing else of this size is made.
    """
    ends = {0.0: a, 1.0: b}
    for start, end, point in zip(a, b, out, strict=True):
        torch.lerp(start, end, fraction, out=point)
    if fraction in ends:
        for point, given in zip(out, ends[fraction], strict=True):
            point.copy_(given)


def linear(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], points: int) -> torch.Tensor:
    """Evenly spaced points on the straight line, each as one vector, [points, P]."""
    sizes = [part.numel() for part in a]
    chain = torch.empty(points, sum(sizes), dtype=a[0].dtype, device=a[0].device)
    for row, fraction in zip(chain, fractions(points), strict=True):
        straight(a, b, fraction, [part.view_as(like) for part, like in zip(torch.split(row, sizes), a, strict=True)])
    return chain


class Curvilinear:
    """The straight line with every tensor rescaled to the interpolated norm ``(1 - t) |a| + t |b|``.

    Args:
        a: one end.
        b: the other.
    """

    def __init__(self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> None:
        self._ends = a, b
        self._lengths = [[float(part.norm()) for part in end] for end in (a, b)]

    def __call__(self, fraction: float, out: Sequence[torch.Tensor]) -> None:
        """Write the point at a fraction from 0 to 1; nothing else of its size is made."""
        straight(*self._ends, fraction, out)
        if 0 < fraction < 1:
            for part, start, end in zip(out, *self._lengths, strict=True):
                norm = float(part.norm())
                if norm > 0:
                    part.mul_(((1 - fraction) * start + fraction * end) / norm)


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
        for columns in torch.split(inner, BLOCK, dim=1):
            columns.copy_(solve @ columns)
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
    moves = torch.empty_like(chain[1:-1])
    for step, gradient in zip(range(steps), gradients, strict=False):
        losses = []
        for index, (point, place) in enumerate(zip(chain, fractions(len(chain)), strict=True)):
            loss, found = gradient(point, place)
            losses.append(loss)
            if 0 < index < len(chain) - 1:
                moves[index - 1].copy_(found)
            del found
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


def arc_length(lengths: Sequence[float]) -> list[float]:
    """How much of the way is behind at each point, from 0 to 1; evenly spaced where there is no way, or its length is not finite.

    Args:
        lengths: from each point to the next.
    """
    total = sum(lengths)
    if not 0 < total < math.inf:
        return fractions(len(lengths) + 1)
    return [travelled / total for travelled in itertools.accumulate(lengths, initial=0.0)]
