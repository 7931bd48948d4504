"""The objective ``mse``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from anarch_core.objective import AbstractObjective, Metric, Reduction, described, reduced


class MeanSquaredError(AbstractObjective):
    """The squared difference of outputs and targets, its mean over the numbers of a sample.

    * ``r2``: 1 less the squared residuals over the squared deviations of the targets from their mean, each summed over all samples and
      numbers; a network that gives the mean has 0. Not defined where targets do not vary;
    * ``rmse``, ``mae``: root mean square and mean absolute difference, in the unit of the targets.
    """

    metrics: ClassVar = (
        Metric(name="r2", label="R²", digits=3),
        Metric(name="rmse", label="root mean square error", higher_is_better=False, digits=4),
        Metric(name="mae", label="mean absolute error", higher_is_better=False, digits=4),
    )
    loss_label: ClassVar = "mean squared error"
    takes: ClassVar = "floating point [n] or [n, ...], the numbers to predict for each sample"
    gives: ClassVar = "the numbers to predict for each sample"

    def problem(self, targets: torch.Tensor, classes: int) -> str | None:
        """Whether these are finite numbers."""
        if not targets.is_floating_point():
            return f"targets are {described(targets)}, expected {self.takes}"
        if not targets.numel():
            return f"targets are {described(targets)}, which holds nothing"
        return None if bool(targets.isfinite().all()) else "some targets are not finite (nan or infinity)"

    def output_shape(self, targets: torch.Tensor, classes: int) -> tuple[int, ...]:
        """That of the targets; ``(1,)`` for one number per sample."""
        return tuple(targets.shape[1:]) or (1,)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        """Squared errors, the mean of each sample."""
        return reduced((outputs - targets.view(outputs.shape)).square().flatten(1).mean(1), reduction)

    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Sums of residuals, and of targets for their mean, per number; in float64."""
        wanted = targets.reshape(len(targets), -1).double()
        residual = outputs.reshape(len(outputs), -1).double() - wanted
        return {
            "squares": residual.square().sum(),
            "absolute": residual.abs().sum(),
            "targets": wanted.sum(0),
            "squared_targets": wanted.square().sum(0),
        }

    def scores(self, totals: Mapping[str, torch.Tensor], samples: int) -> Mapping[str, float]:
        """R2, and errors in the unit of the targets."""
        squares, count = totals["squares"].item(), samples * totals["targets"].numel()
        variation = totals["squared_targets"] - totals["targets"].square() / samples
        rounding = samples * torch.finfo(torch.float64).eps * float(totals["squared_targets"].sum())
        varied = float(variation.sum())
        return {
            "r2": 1 - squares / varied if varied > rounding else math.nan,
            "rmse": math.sqrt(squares / count),
            "mae": totals["absolute"].item() / count,
        }
