"""The methods that make a path through weight space; another one is a function here and its name in :data:`METHODS`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import torch

from anarch_core.paths.curves import Curvilinear, Gradient, Progress, linear, nudged_elastic_band, straight, string
from anarch_core.paths.ground import Ground, Path
from anarch_core.paths.landscape import Point, copying
from anarch_core.paths.profile import Method
from anarch_core.paths.trained_curves import BentCurve, Height, Slopes, bezier, polygon


@attrs.frozen(kw_only=True)
class Descent:
    """How paths that are found by descent are found.

    Attributes:
        points: of a chain, both ends included.
        steps: of a chain.
        lr: step size of a chain.
        stiffness: of the springs of a chain.
        curve_steps: steps of a curve.
        curve_lr: step size of a curve.
        batch_size: samples of a step.
        seed: of the order of the batches, and of what else is drawn.
        progress: called with (steps done, steps).
    """

    points: int
    steps: int
    lr: float
    stiffness: float
    curve_steps: int
    curve_lr: float
    batch_size: int
    seed: int
    progress: Progress

    def rows(self, ground: Ground) -> Iterator[torch.Tensor]:
        """Samples of each step: all in a random order, then again in another one."""
        targets = ground.data.y_train
        generator = torch.Generator().manual_seed(self.seed)
        count = -(-len(targets) // self.batch_size)
        while True:
            yield from torch.tensor_split(torch.randperm(len(targets), generator=generator).to(targets.device), count)


def _straight(ground: Ground, descent: Descent) -> Path:
    return functools.partial(straight, *ground.weights)


def _curvilinear(ground: Ground, descent: Descent) -> Path:
    return Curvilinear(*ground.weights)


def _chain(descend: Callable[..., torch.Tensor], ground: Ground, descent: Descent) -> Path:
    """A chain of points that is held as a whole."""

    def gradient(rows: torch.Tensor, point: torch.Tensor, place: float) -> tuple[float, torch.Tensor]:
        return ground.landscape.gradient(point, *ground.batch(rows), ground.ends.between(place))

    gradients: Iterator[Gradient] = (functools.partial(gradient, rows) for rows in descent.rows(ground))
    start = linear(*ground.weights, descent.points)
    how = {"lr": descent.lr, "stiffness": descent.stiffness, "steps": descent.steps, "progress": descent.progress}
    chain = descend(start, gradients, **how)

    def path(fraction: float, out: Sequence[torch.Tensor]) -> None:
        copying(ground.landscape.views(chain[round(fraction * (descent.points - 1))]))(out)

    return path


def _bent(height: Height, ground: Ground, descent: Descent) -> Path:
    """A curve that is one vector beside the ends."""

    def slopes(rows: torch.Tensor, point: Point, place: float) -> tuple[float, list[torch.Tensor | None]]:
        return ground.landscape.slopes(point, *ground.batch(rows), ground.ends.between(place))

    steps: Iterator[Slopes] = (functools.partial(slopes, rows) for rows in descent.rows(ground))
    curve = BentCurve(*ground.weights, height)
    return curve.train(steps, lr=descent.curve_lr, steps=descent.curve_steps, seed=descent.seed, progress=descent.progress)


PATHS: Mapping[Method, Callable[[Ground, Descent], Path]] = {
    "linear": _straight,
    "curvilinear": _curvilinear,
    "string": functools.partial(_chain, string),
    "band": functools.partial(_chain, nudged_elastic_band),
    "bezier": functools.partial(_bent, bezier),
    "polygon": functools.partial(_bent, polygon),
}
"""By the names that they have in :data:`anarch_core.paths.profile.METHODS`."""
