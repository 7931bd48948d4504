"""Loss and scores around one network, on a plane of random directions (Li et al. 2018, Visualizing the loss landscape of neural nets)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn

from anarch_core.data.tensor_data import TensorData
from anarch_core.display import Displayed, Overview
from anarch_core.errors import ProbeError
from anarch_core.models import input_dtype, warn_of_batch_dependence
from anarch_core.paths.ends import require_place
from anarch_core.paths.filters import random_direction
from anarch_core.paths.landscape import Landscape
from anarch_core.paths.surface import Surface, limited, require_points, scores, spaced, surface
from anarch_core.paths.triangle import inner_products
from anarch_core.training.evaluation import Score

if TYPE_CHECKING:
    from pandas import DataFrame


@attrs.frozen(kw_only=True, repr=False)
class RandomPlane(Displayed):
    """What was met around a network.

    Attributes:
        train: score of the network itself on the training samples, with batch-norm statistics estimated on them.
        test: likewise on samples of the test set.
        surface: loss and scores; x and y are multiples of the directions, in which every filter is as long as the network's.
        cosine: of the angle between the directions, of which Li et al. say that it is near to 0 by chance: they are not made orthogonal, as
            that would change the lengths of their filters.
    """

    train: Score
    test: Score
    surface: Surface
    cosine: float

    def overview(self) -> Overview:
        """How the loss is around the network; shown by ``print`` and by notebooks."""
        low, high = self.surface.range_of_loss()
        met = "is not finite everywhere around it" if low is None or high is None else f"from {low:.4g} to {high:.4g} around it"
        return Overview(
            title="plane of random directions",
            facts=[("training loss", f"{self.train.loss:.4g}, {met}"), ("cosine of the directions", f"{self.cosine:.2g}")],
        )

    def to_dataframe(self) -> DataFrame:
        """A row for each point, see :meth:`Surface.to_dataframe`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return self.surface.to_dataframe()


def random_plane(
    model: nn.Module,
    data: TensorData,
    *,
    points: int = 15,
    radius: float = 1.0,
    samples: int | None = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RandomPlane:
    """Evaluate the points ``w + x d + y e`` around a network, for two random directions whose filters are as long as the network's.

    So surfaces of networks compare whose layers are scaled against each other, as ReLU allows. Batch-norm statistics are estimated afresh
    at every point, of the network itself too. Beside the network a copy of it and two directions are held.

    Args:
        model: in the middle; never changed.
        data: on its device.
        points: on each side of the square, from 2 to 1000; the network is among them where they are odd.
        radius: half a side of the square; at 1 the step is as long as the network.
        samples: training samples, and samples of the test set, class-balanced; all if None.
        seed: of the directions.
        progress: called with (done, total) points.

    Raises:
        DataError: the data are not what their objective takes.
        ProbeError: the network has no weights with filters, or numbers are out of range.
    """
    require_points(points)
    if not 0 < radius <= 1e6:
        msg = f"the radius of a plane is above 0 and at most 1e6, got {radius!r}"
        raise ProbeError(msg)
    data.check()
    warn_of_batch_dependence(model)
    part = limited(data, samples)
    require_place(part, model)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    along, across = random_direction(model, generator), random_direction(model, generator)
    part = part.to(dtype=input_dtype(model, part.inputs("train")[:1]))
    landscape = Landscape(model, part.x_train, objective=part.objective)
    weights = landscape.weights(model)
    names = landscape.names

    def go(x: float, y: float) -> nn.Module:
        def write(out: Sequence[torch.Tensor]) -> None:
            for name, target, weight in zip(names, out, weights, strict=True):
                target.copy_(weight)
                if name in along:
                    target.add_(along[name], alpha=x).add_(across[name], alpha=y)

        return landscape.go(write)

    evaluated = 0

    def done() -> None:
        nonlocal evaluated
        evaluated += 1
        progress(evaluated, points**2)

    train, test = scores(go(0, 0), part)
    sides = spaced(-radius, radius, points)
    return RandomPlane(train=train, test=test, surface=surface(go, part, sides, sides, done), cosine=_cosine(along, across))


def _cosine(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    products = inner_products([list(a.values()), list(b.values())], [None] * len(a), [[1, 0], [0, 1]])
    lengths = float((products[0, 0] * products[1, 1]).sqrt())
    return float(products[0, 1]) / lengths if lengths > 0 else 0.0
