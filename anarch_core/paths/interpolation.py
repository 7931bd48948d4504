"""Loss and scores along a path between two networks, and the barrier on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn

from anarch_core.bounds import between, shown
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.objective.classification import AbstractClassification
from anarch_core.paths.chosen_layers import SIDES, Rest, chosen_layers
from anarch_core.paths.ground import Ground, measured_on
from anarch_core.paths.methods import PATHS, Descent
from anarch_core.paths.output_space import output_space
from anarch_core.paths.profile import METHODS, Method, Profile

POINTS = between(3, 10_000)


def interpolate(
    a: nn.Module,
    b: nn.Module,
    data: TensorData,
    *,
    method: Method = "linear",
    layers: str | Sequence[str] | None = None,
    rest: Rest = "first",
    points: int = 11,
    samples: int | None = 1000,
    steps: int = 200,
    lr: float = 0.05,
    stiffness: float = 1.0,
    curve_steps: int = 1000,
    curve_lr: float = 0.05,
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Evaluate a path between two networks.

    Weight-space paths go through the architecture that both can be lifted to, in the wider of their dtypes. Floating-point buffers are
    mixed as the weights of the straight line are, so that the ends are the two networks; batch-norm statistics are estimated afresh at
    every point. Parameters that require no gradient in either network stay on the straight line. ``string``, ``band``, ``bezier`` and
    ``polygon`` start from the straight line and descend on minibatches; the last two are curves of one bend, trained to have a low mean
    loss (Garipov et al. 2018). ``logits`` and ``probabilities`` mix what the networks say, as an ensemble does; a loss that is convex in
    it is convex along the path, so there can be no barrier. Probabilities are those of a classification.

    With ``layers`` these alone are moved, and the others are those of one network all along (Adilova et al. 2024): the end at the other
    network's side is then neither of the two. :func:`anarch_core.paths.layer_wise` walks a straight path for each layer.

    Args:
        a: the network at position 0; never changed.
        b: the network at position 1; never changed.
        data: on the networks' device.
        method: see :data:`METHODS`.
        layers: paths or shell patterns of the layers that move, as in :func:`anarch_core.relax`; everything if None.
        rest: the network that all else is of, ``"first"`` or ``"second"``.
        points: on the path, both ends included, from 3 to 10,000.
        samples: training samples, class-balanced; all if None.
        steps: of descent, for ``string`` and ``band``.
        lr: step size of theirs.
        stiffness: of their springs.
        curve_steps: of Adam, for ``bezier`` and ``polygon``, each at one point of the curve.
        curve_lr: step size of theirs, in units of the root mean square of what the ends differ by, tensor by tensor.
        batch_size: samples of a step.
        seed: order of the batches, and where on a curve they are taken.
        progress: called with (done, total) points or steps.

    Raises:
        DataError: the data are not what their objective takes.
        ProbeError: the networks have no common architecture or differ in what cannot be mixed, the number of points is out of range, the
            springs are unstable, or a layer pattern matches nothing.
    """
    require_points(method, points)
    if not all(map(math.isfinite, (lr, stiffness, curve_lr))):
        msg = f"descent needs a finite step size and stiffness, got lr {lr:g}, stiffness {stiffness:g} and curve_lr {curve_lr:g}"
        raise ProbeError(msg)
    require_side(rest)
    if method == "probabilities" and not isinstance(data.objective, AbstractClassification):
        trained_by = type(data.objective).__name__
        msg = f"the outputs of a network trained by {trained_by} are no probabilities of classes; take the method 'logits'"
        raise ProbeError(msg)
    part = measured_on(data, samples, a, b)
    if method not in PATHS:
        if layers is not None:
            msg = f"{method} mixes what whole networks say; layers move on a path through weight space, by {', '.join(PATHS)}"
            raise ProbeError(msg)
        return output_space(a, b, part, method, points)
    ground = Ground.between(a, b, part)
    if layers is not None:
        ground = ground.confined(frozenset().union(*chosen_layers(ground.ends, layers).values()), rest)
    descent = Descent(
        points=points,
        steps=steps,
        lr=lr,
        stiffness=stiffness,
        curve_steps=curve_steps,
        curve_lr=curve_lr,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    return ground.walk(PATHS[method](ground, descent), method, points, progress)


def require_points(method: str, points: int) -> None:
    """Refuse a method that there is not, and numbers of points that make no path."""
    if not isinstance(points, int) or points not in POINTS or method not in METHODS:
        msg = f"a path needs a method of {', '.join(METHODS)} and {POINTS} points, got {shown(method)} and {shown(points)}"
        raise ProbeError(msg)


def require_side(rest: str) -> None:
    """Refuse what is neither of the networks."""
    if rest not in SIDES:
        msg = f"layers that do not move are of the {' or '.join(SIDES)} network, got {shown(rest)}"
        raise ProbeError(msg)
