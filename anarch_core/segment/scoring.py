"""What a segment is scored by while it is trained: loss and scores, and the rows of its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import nn

from anarch_core.config.early_stopping import EarlyStopping
from anarch_core.config.run_config import GRADIENT_NORM
from anarch_core.config.values import Precision
from anarch_core.data.stored import PartName
from anarch_core.data.tensor_data import TensorData
from anarch_core.experiment.segment_result import Scores
from anarch_core.experiment.store import History
from anarch_core.probe.scores import finite
from anarch_core.training.evaluation import Score, evaluate
from anarch_core.training.loop import Training

TESTING = 0.1
"""Share of the training's cost that tests on the way may take; a sample costs a third of what it costs in training."""


@attrs.frozen(kw_only=True)
class Scoring:
    """Scores networks on the data of a run.

    Attributes:
        data: on the networks' device.
        precision: arithmetic.
        iterations_per_epoch: optimizer steps per epoch.
        early_stopping: what ends training before its steps are done, None if nothing does.
    """

    data: TensorData
    precision: Precision
    iterations_per_epoch: int
    early_stopping: EarlyStopping | None = None

    def scores(self, model: nn.Module) -> Scores:
        """Of a network on the training and the test set."""
        data = self.data
        return Scores({**self._part("train", model, data.y_train), **self._part("test", model, data.y_test)})

    def validation(self, model: nn.Module) -> dict[str, float | None]:
        """Of a network on the part of the training set that is held out; empty where none is."""
        y = self.data.y_validation
        return {} if y is None else self._part("validation", model, y)

    def row(self, training: Training, score: Score, history: History, *, last: bool) -> dict[str, float | None]:
        """The history row of the epoch that just ended.

        The test scores are part of it at milestones, as far as all of that costs no more than :data:`TESTING`; and at the end.

        Args:
            training: under way.
            score: of the steps of the epoch.
            history: the rows so far.
            last: whether the steps are done; it is the last one, too, where training is stopped early by what it says.
        """
        whole, rest = divmod(training.iteration, self.iterations_per_epoch)
        row = {
            "epoch": self.epochs(training.iteration),
            "train_loss": finite(score.loss),
            **{f"train_{name}": finite(value) for name, value in score.metrics.items()},
            "learning_rate": training.optimizer.param_groups[0]["lr"],
            **({} if training.gradient_norm is None else {GRADIENT_NORM: finite(training.gradient_norm)}),
            **{column: finite(value) for column, value in training.penalised.items()},
            **self.validation(training.model),
        }
        last = last or self.enough([*history.rows, row]) is not None
        tests = 1 + sum("test_loss" in earlier for earlier in history.rows[1:])
        affordable = tests * len(self.data.y_test) <= TESTING * 3 * len(self.data.y_train) * whole
        if last or (rest == 0 and is_milestone(whole) and affordable):
            row.update(self._part("test", training.model, self.data.y_test))
        return row

    def enough(self, rows: Sequence[Mapping[str, float | None]]) -> str | None:
        """Why training is to stop early after these rows of its history, in words; None if it goes on."""
        if self.early_stopping is None:
            return None
        higher_is_better = self.early_stopping.higher_is_better(self.data.objective.directions)
        return self.early_stopping.reason(rows[1:], higher_is_better=higher_is_better)

    def epochs(self, iterations: int) -> int | float:
        """Optimizer steps in epochs; a whole number where they are whole ones."""
        whole, rest = divmod(iterations, self.iterations_per_epoch)
        return iterations / self.iterations_per_epoch if rest else whole

    def _part(self, part: PartName, model: nn.Module, y: torch.Tensor) -> dict[str, float | None]:
        score = evaluate(model, self.data.inputs(part), y, precision=self.precision, objective=self.data.objective)
        return {f"{part}_loss": finite(score.loss), **{f"{part}_{name}": finite(value) for name, value in score.metrics.items()}}


def is_milestone(epoch: int) -> bool:
    """Whether test scores are taken after this epoch: 0, 1, 2, 3, 4, 6, 8, 10, 13, 18, 23, 30, ...

    Evenly spaced on a logarithmic axis, as the relax times of d'Ascoli et al. (2019): the floors of 150^(k/19), whatever the length of
    the stretch.
    """
    k = 0
    while (milestone := int(150 ** (k / 19) + 1e-9)) < epoch:
        k += 1
    return epoch == 0 or milestone == epoch
