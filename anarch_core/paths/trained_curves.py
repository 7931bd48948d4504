"""Curves with one bend that is trained: quadratic Bezier curves and polygonal chains (Garipov et al. 2018, equations 2 to 5).

Both are the straight line and a multiple of one vector, phi(t) = (1 - t) a + t b + h(t) d. The bend that the paper trains is
theta = (a + b) / 2 + d, and h(t) = 2 t (1 - t) makes the Bezier curve (1 - t)^2 a + 2 t (1 - t) theta + t^2 b, while
h(t) = 2 min(t, 1 - t) makes the two straight pieces that meet in theta.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random

import torch

from anarch_core.paths.curves import Progress, straight
from anarch_core.paths.landscape import Point

Height = Callable[[float], float]
"""How much of the bend is in the point at t: from 0 at the ends to its most at 1/2."""

Slopes = Callable[[Point, float], tuple[float, list[torch.Tensor | None]]]
"""(loss, gradient) at a point, given with its t, for the batch of one step; None for weights that are not trained. The list is used up."""

DECAY, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam."""


def bezier(t: float) -> float:
    """Of the quadratic Bezier curve."""
    return 2 * t * (1 - t)


def polygon(t: float) -> float:
    """Of the polygonal chain."""
    return 2 * min(t, 1 - t)


class BentCurve:
    """A curve between two ends; straight until it is trained.

    Args:
        a: one end.
        b: the other.
        height: of the bend, which makes the kind of the curve.

    Attributes:
        bend: d, shaped as the ends are.
    """

    def __init__(self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], height: Height) -> None:
        self._ends, self._height = (a, b), height
        self.bend = [torch.zeros_like(part) for part in a]

    def __call__(self, fraction: float, out: Sequence[torch.Tensor]) -> None:
        """Write the point at t, from 0 to 1; nothing else of its size is made, and the ends are those given, to the bit."""
        straight(*self._ends, fraction, out)
        if height := self._height(fraction):
            for part, bend in zip(out, self.bend, strict=True):
                part.add_(bend, alpha=height)

    def train(self, slopes: Iterator[Slopes], *, lr: float, steps: int, seed: int, progress: Progress) -> BentCurve:
        """Minimise the mean loss over t, uniform from 0 to 1, by Adam (Kingma and Ba 2015, algorithm 1).

        Every step draws one t and takes h(t) times the gradient at phi(t). Step sizes are in units of the root mean square of what the ends
        differ by, tensor by tensor, so that one suits every network: weights that are small, or hardly moved from end to end, are not
        carried away. Where the ends have a tensor alike, the root mean square over all tensors is taken. The step size is ``lr`` for the
        first half of the steps and falls from there on a straight line, to a hundredth at nine tenths, as the authors' does; they descend
        with momentum, which needs another step size for every network. Beside the curve, two vectors of its size are held.

        Args:
            slopes: one for each step.
            lr: step size, as a share of that difference.
            steps: how many.
            seed: of the values of t, which have a generator of their own.
            progress: called with (steps done, steps).

        Returns:
            the curve.
        """
        means, squares = ([torch.zeros_like(part) for part in self.bend] for _ in range(2))
        units = self._differences(means)
        places = Random(f"places on a curve: {seed}")
        for step, slope in enumerate(itertools.islice(slopes, steps), 1):
            t = places.random()
            height = self._height(t)
            _, found = slope(functools.partial(self, t), t)
            unbiased = 1 - DECAY[0] ** step, 1 - DECAY[1] ** step
            for index, (part, mean, square, unit) in enumerate(zip(self.bend, means, squares, units, strict=True)):
                if (along := found[index]) is not None:
                    mean.mul_(DECAY[0]).add_(along, alpha=(1 - DECAY[0]) * height)
                    square.mul_(DECAY[1]).addcmul_(along, along, value=(1 - DECAY[1]) * height**2)
                    found[index] = along = None  # its room is needed for the root
                    root = square.sqrt().div_(math.sqrt(unbiased[1])).add_(EPSILON)
                    part.addcdiv_(mean, root, value=-lr * unit * _share((step - 1) / steps) / unbiased[0])
            progress(step, steps)
        return self

    def _differences(self, room: Sequence[torch.Tensor]) -> list[float]:
        """Root mean squares of the difference of the ends by tensor; ``room`` is written to, and zero in the end."""
        lengths = []
        for start, end, difference in zip(*self._ends, room, strict=True):
            lengths.append(float(torch.sub(end, start, out=difference).norm()))
            difference.zero_()
        overall = math.sqrt(sum(length**2 for length in lengths) / max(sum(part.numel() for part in room), 1))
        return [length / math.sqrt(part.numel()) if length else overall for length, part in zip(lengths, room, strict=True)]


def _share(done: float) -> float:
    """Of the step size that is left once this much of the training is done."""
    return max(0.01, min(1.0, 1 - 0.99 * (done - 0.5) / 0.4))
