"""Loss and accuracy along a path between two networks, and the barrier on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import attrs
import torch
from torch import nn

from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.network import undisturbed
from anarch_core.paths.common import common_architecture
from anarch_core.paths.curves import Gradient, arc_length, curvilinear, fractions, linear, nudged_elastic_band, string
from anarch_core.paths.landscape import Landscape
from anarch_core.training import Score, evaluate

Method = Literal["linear", "curvilinear", "string", "band", "logits", "probabilities"]
METHODS: tuple[Method, ...] = get_args(Method)


@attrs.frozen(kw_only=True)
class Barrier:
    """Height of the loss between two ends, by three definitions in use.

    Attributes:
        chord: highest excess over the straight line between the losses of the ends (Entezari et al. 2022).
        mean: highest loss less the mean of the ends (Frankle et al. 2020); positive on a path that only falls where the ends differ.
        excess: highest loss less that of the higher end: what a walker has to climb (Draxler et al. 2018).
    """

    chord: float
    mean: float
    excess: float

    @classmethod
    def of(cls, positions: Sequence[float], losses: Sequence[float]) -> Barrier:
        """Read the barrier off a profile; never negative for ``chord`` and ``excess``, which are zero at the ends."""
        first, last = losses[0], losses[-1]
        above = [loss - ((1 - t) * first + t * last) for t, loss in zip(positions, losses, strict=True)]
        return cls(chord=max(above), mean=max(losses) - (first + last) / 2, excess=max(losses) - max(first, last))


@attrs.frozen(kw_only=True)
class Profile:
    """What was met along a path.

    Attributes:
        method: how the path was made.
        positions: from 0 (first network) to 1 (second): the mixing weight, or the arc length of a curved path.
        train: scores on the training samples.
        test: scores on the test set.
        statistics_shift: how much estimating batch-norm statistics afresh changed the training loss of the ends, the larger of the two;
            0 without batch norm.
    """

    method: Method
    positions: Sequence[float]
    train: Sequence[Score]
    test: Sequence[Score]
    statistics_shift: float = 0.0

    @property
    def train_barrier(self) -> Barrier:
        """In training loss."""
        return Barrier.of(self.positions, [score.loss for score in self.train])

    @property
    def test_barrier(self) -> Barrier:
        """In test loss."""
        return Barrier.of(self.positions, [score.loss for score in self.test])


def interpolate(
    a: nn.Module,
    b: nn.Module,
    data: TensorData,
    *,
    method: Method = "linear",
    points: int = 11,
    samples: int | None = 1000,
    steps: int = 200,
    lr: float = 0.05,
    stiffness: float = 1.0,
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Evaluate a path between two networks.

    Weight-space paths go through the architecture that both can be lifted to. ``string`` and ``band`` start from the straight line and
    descend on minibatches. ``logits`` and ``probabilities`` mix what the networks say, as an ensemble does; their loss is convex along the
    path, so there can be no barrier.

    Args:
        a: the network at position 0; never changed.
        b: the network at position 1; never changed.
        data: on the networks' device.
        method: see :data:`METHODS`.
        points: on the path, both ends included, at least 3.
        samples: training samples, class-balanced; all if None.
        steps: of descent, for ``string`` and ``band``.
        lr: step size of descent.
        stiffness: of the springs.
        batch_size: samples of a step.
        seed: order of the batches.
        progress: called with (done, total) points or steps.

    Raises:
        ProbeError: the networks have no common architecture, there are too few points, or the springs are unstable.
    """
    if points < 3 or method not in METHODS:
        msg = f"a path needs a method of {', '.join(METHODS)} and at least 3 points, got {method!r} and {points}"
        raise ProbeError(msg)
    part = data if samples is None else data.limited(samples)
    dtype = next((parameter.dtype for parameter in a.parameters()), data.x_train.dtype)
    part = part.to(dtype=dtype)
    if method in ("logits", "probabilities"):
        return _output_space(a, b, part, method, points)
    first, second = common_architecture(a, b)
    landscape = Landscape(first, part.x_train)
    chain = linear(landscape.point(first), landscape.point(second), points)
    positions = fractions(points)
    if method == "curvilinear":
        sizes = [parameter.numel() for parameter in landscape.parameters]
        chain = curvilinear(chain[0], chain[-1], points, sizes)
    elif method != "linear":
        descend = string if method == "string" else nudged_elastic_band
        batches = _batches(landscape, part, batch_size, seed)
        chain = descend(chain, batches, lr=lr, stiffness=stiffness, steps=steps, progress=progress)
        positions = arc_length(chain)
    train, test = [], []
    for index, point in enumerate(chain):
        network = landscape.go(point)
        train.append(evaluate(network, part.x_train, part.y_train))
        test.append(evaluate(network, part.x_test, part.y_test))
        progress(index + 1, points)
    shift = 0.0
    if landscape.normalised:
        shift = max(abs(evaluate(end, part.x_train, part.y_train).loss - train[at].loss) for end, at in ((first, 0), (second, -1)))
    return Profile(method=method, positions=positions, train=train, test=test, statistics_shift=shift)


def _batches(landscape: Landscape, data: TensorData, batch_size: int, seed: int) -> Iterator[Gradient]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(data.y_train), generator=generator).to(data.y_train.device)
        for rows in torch.split(order, batch_size):
            yield functools.partial(landscape.gradient, x=data.x_train[rows], y=data.y_train[rows])


@torch.no_grad()
def _output_space(a: nn.Module, b: nn.Module, data: TensorData, method: Method, points: int) -> Profile:
    """Mix the outputs of both networks: one forward pass of each serves every point."""
    scores: list[list[Score]] = []
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        ends = []
        for model in (a, b):
            with undisturbed(model), torch.no_grad():
                logits = torch.cat([model(inputs) for inputs in torch.split(x, 1000)]).double()
            ends.append(logits if method == "logits" else logits.softmax(1))
        scores.append([_mixed_score(torch.lerp(ends[0], ends[1], t), y, method) for t in fractions(points)])
    return Profile(method=method, positions=fractions(points), train=scores[0], test=scores[1])


def _mixed_score(outputs: torch.Tensor, labels: torch.Tensor, method: Method) -> Score:
    logarithms = outputs.log_softmax(1) if method == "logits" else outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()
    loss = nn.functional.nll_loss(logarithms, labels)
    return Score(float(loss), 100 * float((outputs.argmax(1) == labels).double().mean()))
