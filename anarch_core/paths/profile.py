"""What was met along a path, and how high the barrier on it is, by the definitions in use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs
import torch

from anarch_core.display import Displayed, Overview, Table, frame
from anarch_core.training.evaluation import Score

if TYPE_CHECKING:
    from pandas import DataFrame

Method = Literal["linear", "curvilinear", "string", "band", "bezier", "polygon", "logits", "probabilities"]
METHODS: tuple[Method, ...] = get_args(Method)


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
        positions: from 0 (first network) to 1 (second): how much of the length of the path is behind, measured from point to point; on a
            straight path, and in output space, that is the mixing weight.
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

    def details(self) -> dict[str, Any]:
        """As a probe keeps it, JSON-ready: the barriers by data and definition, and the shift of batch-norm statistics."""
        barriers = {"train": attrs.asdict(self.train_barrier), "test": attrs.asdict(self.test_barrier)}
        return {"barriers": barriers, "statistics_shift": self.statistics_shift}

    def tensor(self, score: str) -> torch.Tensor:
        """As a probe keeps it, float64, [points, 5]: position, training loss and score, test loss and score.

        Args:
            score: its name, ``"accuracy"``.
        """
        rows = [
            (position, train.loss, train.metrics[score], test.loss, test.metrics[score])
            for position, train, test in zip(self.positions, self.train, self.test, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def _rows(self) -> list[dict[str, float]]:
        found = []
        for position, *parts in zip(self.positions, self.train, self.test, strict=True):
            row = {"position": position}
            for part, score in zip(("train", "test"), parts, strict=True):
                row |= {f"{part}.loss": score.loss, **{f"{part}.{name}": value for name, value in score.metrics.items()}}
            found.append(row)
        return found
