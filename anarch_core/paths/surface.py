"""Loss and scores on a rectangle of a plane in weight space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import torch
from torch import nn

from anarch_core.bounds import between, shown
from anarch_core.data.tensor_data import TensorData
from anarch_core.display import frame
from anarch_core.errors import ProbeError
from anarch_core.training.evaluation import Score, evaluate

if TYPE_CHECKING:
    from pandas import DataFrame

SIDE = between(2, 1000)
"""Points on a side of a rectangle."""


@attrs.frozen(kw_only=True)
class Surface:
    """Scores on a rectangle of points.

    Attributes:
        x: of the columns, increasing.
        y: of the rows, increasing.
        train: scores on the training samples, a list for each y, with a score for each x.
        test: likewise on samples of the test set.
    """

    x: Sequence[float]
    y: Sequence[float]
    train: Sequence[Sequence[Score]]
    test: Sequence[Sequence[Score]]

    def table(self, part: Literal["train", "test"], name: str = "loss") -> torch.Tensor:
        """The loss, or a score by its name, float64 [y, x]; not finite where it is not."""
        rows = self.train if part == "train" else self.test
        return torch.tensor([[getattr(score, name) for score in row] for row in rows], dtype=torch.float64, device="cpu")

    def range_of_loss(self) -> tuple[float | None, float | None]:
        """Lowest and highest training loss of all points; None where one of them is not finite."""
        losses = [score.loss for row in self.train for score in row]
        return (min(losses), max(losses)) if all(map(math.isfinite, losses)) else (None, None)

    def to_dataframe(self) -> DataFrame:
        """A row for each point: x, y, loss and scores as ``train.loss`` and ``test.accuracy``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        found = []
        for row, y in enumerate(self.y):
            for column, x in enumerate(self.x):
                point = {"x": x, "y": y}
                for part, score in (("train", self.train[row][column]), ("test", self.test[row][column])):
                    point |= {f"{part}.loss": score.loss, **{f"{part}.{name}": value for name, value in score.metrics.items()}}
                found.append(point)
        return frame(found)


def scores(network: nn.Module, data: TensorData) -> tuple[Score, Score]:
    """Of a network, on the training samples and on the test set."""
    train = evaluate(network, data.inputs("train"), data.y_train, objective=data.objective)
    return train, evaluate(network, data.inputs("test"), data.y_test, objective=data.objective)


def surface(
    go: Callable[[float, float], nn.Module], data: TensorData, x: Sequence[float], y: Sequence[float], done: Callable[[], None]
) -> Surface:
    """Evaluate every point of a rectangle.

    Args:
        go: the network at a point; it may be the same object every time.
        data: what it is evaluated on.
        x: of the columns.
        y: of the rows.
        done: called after every point.
    """
    train: list[list[Score]] = []
    test: list[list[Score]] = []
    for height in y:
        train.append([])
        test.append([])
        for place in x:
            for rows, score in zip((train, test), scores(go(place, height), data), strict=True):
                rows[-1].append(score)
            done()
    return Surface(x=x, y=y, train=train, test=test)


def spaced(low: float, high: float, points: int) -> list[float]:
    """Evenly spaced numbers, both ends included to the bit."""
    inner = [low + (high - low) * index / (points - 1) for index in range(1, points - 1)]
    return [low, *inner, high]


def limited(data: TensorData, samples: int | None) -> TensorData:
    """As many training samples and as many of the test set, class-balanced both; all if None."""
    if samples is None:
        return data
    test = attrs.evolve(data, x_train=data.inputs("test"), y_train=data.y_test).limited(samples)
    return attrs.evolve(data.limited(samples), x_test=test.inputs("train"), y_test=test.y_train)


def require_points(points: object) -> None:
    """Refuse a number of points on a side that is none.

    Raises:
        ProbeError: it is out of range.
    """
    if not isinstance(points, int) or points not in SIDE:
        msg = f"a plane needs {SIDE} points on a side, got {shown(points)}"
        raise ProbeError(msg)
