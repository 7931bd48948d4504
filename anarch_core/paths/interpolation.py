"""Loss and scores along a path between two networks, and the barrier on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import attrs
import torch
from torch import nn

from anarch_core.bounds import between, shown
from anarch_core.data.stored import batches
from anarch_core.data.tensor_data import TensorData
from anarch_core.display import Displayed, Overview, Table, frame
from anarch_core.errors import ProbeError
from anarch_core.models import input_dtype, warn_of_batch_dependence
from anarch_core.network import undisturbed
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import AbstractClassification
from anarch_core.objective.outputs import outputs_of
from anarch_core.paths.curves import Curvilinear, Gradient, arc_length, fractions, linear, nudged_elastic_band, straight, string
from anarch_core.paths.ends import Ends, ends, require_place
from anarch_core.paths.landscape import Landscape, copying
from anarch_core.training.evaluation import Score, Tally, evaluate

if TYPE_CHECKING:
    from pandas import DataFrame

Method = Literal["linear", "curvilinear", "string", "band", "logits", "probabilities"]
METHODS: tuple[Method, ...] = get_args(Method)

POINTS = between(3, 10_000)

COMPARED = 64
"""Samples on which the networks are seen to be of one architecture."""


@attrs.frozen(kw_only=True)
class Barrier:
    """Height of the loss between two ends, by three definitions in use.

    All are None where a loss on the path is not finite: the height of such a path is not known.

    Attributes:
        chord: highest excess over the straight line between the losses of the ends (Entezari et al. 2022).
        mean: highest loss less the mean of the ends (Frankle et al. 2020); positive on a path that only falls where the ends differ.
        excess: highest loss less that of the higher end: what a walker has to climb (Draxler et al. 2018).
        not_measured: why they are None, else None.
    """

    chord: float | None
    mean: float | None
    excess: float | None
    not_measured: str | None = None

    @classmethod
    def of(cls, positions: Sequence[float], losses: Sequence[float]) -> Barrier:
        """Read the barrier off a profile; never negative for ``chord`` and ``excess``, which are zero at the ends."""
        bad = [place for place, loss in zip(positions, losses, strict=True) if not math.isfinite(loss)]
        if bad:
            reason = f"the loss is not finite at {len(bad)} of {len(losses)} points, the first of them at {bad[0]:.3g}"
            return cls(chord=None, mean=None, excess=None, not_measured=reason)
        first, last = losses[0], losses[-1]
        above = [loss - ((1 - t) * first + t * last) for t, loss in zip(positions, losses, strict=True)]
        return cls(chord=max(above), mean=max(losses) - (first + last) / 2, excess=max(losses) - max(first, last))


@attrs.frozen(kw_only=True, repr=False)
class Profile(Displayed):
    """What was met along a path.

    Attributes:
        method: how the path was made.
        positions: from 0 (first network) to 1 (second): the mixing weight, or the arc length of a curved path.
        train: scores on the training samples.
        test: scores on the test set.
        statistics_shift: how much estimating batch-norm statistics afresh changed the training loss of the ends, the larger of the two;
            0 without batch norm, None where one of these losses is not finite.
    """

    method: Method
    positions: Sequence[float]
    train: Sequence[Score]
    test: Sequence[Score]
    statistics_shift: float | None = 0.0

    @property
    def train_barrier(self) -> Barrier:
        """In training loss."""
        return Barrier.of(self.positions, [score.loss for score in self.train])

    @property
    def test_barrier(self) -> Barrier:
        """In test loss."""
        return Barrier.of(self.positions, [score.loss for score in self.test])

    def remarks(self) -> list[str]:
        """How high the barriers are, and what became of batch-norm statistics, as sentences."""
        said = []
        for part, barrier in (("training", self.train_barrier), ("test", self.test_barrier)):
            over = f"not measurable, {barrier.not_measured}"
            if barrier.excess is not None and barrier.chord is not None:
                over = f"{barrier.excess:.4g} over the higher end, {barrier.chord:.4g} over the straight line between the ends' losses"
            said.append(f"barrier in {part} loss: {over}")
        if self.statistics_shift is None:
            said.append("batch-norm statistics were estimated anew; the ends' training loss is not finite with them or without")
        elif self.statistics_shift:
            moved = f"{self.statistics_shift:.2g}"
            said.append(f"batch-norm statistics were estimated anew, which moved the ends' training loss by up to {moved}")
        return said

    def overview(self) -> Overview:
        """Losses and scores on the way, and the barriers; shown by ``print`` and by notebooks."""
        rows = [[f"{value:.4g}" for value in row.values()] for row in self._rows()]
        table = Table(headings=[name.replace(".", " ") for name in self._rows()[0]], rows=rows, texts=0)
        return Overview(title=f"{self.method} path", tables=[table], notes=self.remarks())

    def to_dataframe(self) -> DataFrame:
        """A row for each position: loss and scores as ``train.loss`` and ``test.accuracy``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return frame(self._rows())

    def _rows(self) -> list[dict[str, float]]:
        found = []
        for position, *parts in zip(self.positions, self.train, self.test, strict=True):
            row = {"position": position}
            for part, score in zip(("train", "test"), parts, strict=True):
                row |= {f"{part}.loss": score.loss, **{f"{part}.{name}": value for name, value in score.metrics.items()}}
            found.append(row)
        return found


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

    Weight-space paths go through the architecture that both can be lifted to, in the wider of their dtypes. Floating-point buffers are
    mixed as the weights of the straight line are, so that the ends are the two networks; batch-norm statistics are estimated afresh at
    every point. Parameters that require no gradient in either network stay on the straight line. ``string`` and ``band`` start from the
    straight line and descend on minibatches. ``logits`` and ``probabilities`` mix what the networks say, as an ensemble does; a loss
    that is convex in it is convex along the path, so there can be no barrier. Probabilities are those of a classification.

    Args:
        a: the network at position 0; never changed.
        b: the network at position 1; never changed.
        data: on the networks' device.
        method: see :data:`METHODS`.
        points: on the path, both ends included, from 3 to 10,000.
        samples: training samples, class-balanced; all if None.
        steps: of descent, for ``string`` and ``band``.
        lr: step size of descent.
        stiffness: of the springs.
        batch_size: samples of a step.
        seed: order of the batches.
        progress: called with (done, total) points or steps.

    Raises:
        DataError: the data are not what their objective takes.
        ProbeError: the networks have no common architecture or differ in what cannot be mixed, the number of points is out of range, or
            the springs are unstable.
    """
    if not isinstance(points, int) or points not in POINTS or method not in METHODS:
        msg = f"a path needs a method of {', '.join(METHODS)} and {POINTS} points, got {shown(method)} and {shown(points)}"
        raise ProbeError(msg)
    if not (math.isfinite(lr) and math.isfinite(stiffness)):
        msg = f"descent needs a finite step size and stiffness, got lr {lr:g} and stiffness {stiffness:g}"
        raise ProbeError(msg)
    data.check()
    for network in (a, b):
        warn_of_batch_dependence(network)
    if method == "probabilities" and not isinstance(data.objective, AbstractClassification):
        trained_by = type(data.objective).__name__
        msg = f"the outputs of a network trained by {trained_by} are no probabilities of classes; take the method 'logits'"
        raise ProbeError(msg)
    part = data if samples is None else data.limited(samples)
    require_place(part, a, b)
    if method in ("logits", "probabilities"):
        return _output_space(a, b, part, method, points)
    pair = ends(a, b)
    first, second = pair.first, pair.second
    part = part.to(dtype=input_dtype(first, part.x_train))
    landscape = Landscape(first, part.x_train, objective=part.objective, trained=pair.trained)
    landscape.require_function_of(second, part.x_train[:COMPARED], part.y_train[:COMPARED])
    weights = landscape.weights(first), landscape.weights(second)
    positions = fractions(points)
    if method in ("string", "band"):
        descend = string if method == "string" else nudged_elastic_band
        batches = _batches(landscape, pair, part, batch_size, seed)
        chain = descend(linear(*weights, points), batches, lr=lr, stiffness=stiffness, steps=steps, progress=progress)
        positions = arc_length(chain)
        path = [copying(landscape.views(point)) for point in chain]
    else:
        curve = Curvilinear(*weights) if method == "curvilinear" else functools.partial(straight, *weights)
        path = [functools.partial(curve, place) for place in positions]
    train, test = [], []
    for index, (point, place) in enumerate(zip(path, fractions(points), strict=True)):
        network = landscape.go(point, pair.between(place))
        train.append(evaluate(network, part.inputs("train"), part.y_train, objective=part.objective))
        test.append(evaluate(network, part.inputs("test"), part.y_test, objective=part.objective))
        progress(index + 1, points)
    shift: float | None = 0.0
    if landscape.normalised:
        shifts = [abs(_undisturbed_loss(end, part) - train[at].loss) for end, at in ((first, 0), (second, -1))]
        shift = max(shifts) if all(map(math.isfinite, shifts)) else None
    return Profile(method=method, positions=positions, train=train, test=test, statistics_shift=shift)


def _undisturbed_loss(network: nn.Module, data: TensorData) -> float:
    with undisturbed(network), torch.no_grad():
        return evaluate(network, data.inputs("train"), data.y_train, objective=data.objective).loss


def _batches(landscape: Landscape, pair: Ends, data: TensorData, batch_size: int, seed: int) -> Iterator[Gradient]:
    generator = torch.Generator().manual_seed(seed)
    count = -(-len(data.y_train) // batch_size)

    def gradient(rows: torch.Tensor, point: torch.Tensor, place: float) -> tuple[float, torch.Tensor]:
        return landscape.gradient(point, data.inputs("train")[rows], data.y_train[rows], pair.between(place))

    while True:
        order = torch.randperm(len(data.y_train), generator=generator).to(data.y_train.device)
        for rows in torch.tensor_split(order, count):
            yield functools.partial(gradient, rows)


@torch.no_grad()
def _output_space(a: nn.Module, b: nn.Module, data: TensorData, method: Method, points: int) -> Profile:
    """Mix the outputs of both networks: one forward pass of each serves every point."""
    scores: list[list[Score]] = []
    for x, y in ((data.inputs("train"), data.y_train), (data.inputs("test"), data.y_test)):
        said = []
        for model in (a, b):
            with undisturbed(model), torch.no_grad():
                wanted = [slice(start, start + 1000) for start in range(0, len(y), 1000)]
                parts = zip(batches(x.to(dtype=input_dtype(model, x[:1])), wanted), torch.split(y, 1000), strict=True)
                outputs = torch.cat([outputs_of(model, inputs, targets, data.objective) for inputs, targets in parts]).double()
            said.append(outputs if method == "logits" else outputs.softmax(1))
        if said[0].shape != said[1].shape:
            msg = f"the networks tell {said[0].shape[1]} and {said[1].shape[1]} classes apart, so what they say cannot be mixed"
            raise ProbeError(msg)
        scores.append([_mixed_score(_mixed(said[0], said[1], t), y, method, data.objective) for t in fractions(points)])
    return Profile(method=method, positions=fractions(points), train=scores[0], test=scores[1])


def _mixed(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """What is said at a position; that of the network alone at its end, whatever the other one says."""
    return {0.0: a, 1.0: b}.get(t, torch.where(a == b, a, torch.lerp(a, b, t)))


def _mixed_score(outputs: torch.Tensor, targets: torch.Tensor, method: Method, objective: AbstractObjective) -> Score:
    if method == "probabilities":  # the softmax of their logarithms is what they are
        outputs = outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()
    tally = Tally.empty(objective, outputs.device)
    tally.loss += objective.loss(outputs, targets, "sum")
    tally.count(outputs, targets)
    return tally.score(len(targets))
