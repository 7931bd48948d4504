"""The objective ``pixel-cross-entropy``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from anarch_core.objective import AbstractObjective, Metric, Reduction, described, reduced
from anarch_plugins.objectives.pixel_cross_entropy.options import PixelCrossEntropyOptions


class PixelCrossEntropy(AbstractObjective):
    """Cross-entropy in nats at every position, its mean over the positions of a sample that count; then samples weigh alike.

    Where every position counts this is the mean over all of them. A sample of which none counts has loss 0.

    * ``mean_iou``: intersection over union of what is predicted and what is there, over all samples, its mean over the classes that are
      there or predicted;
    * ``accuracy``: positions that are right, of those that count.
    """

    metrics: ClassVar = (Metric(name="mean_iou", label="mean IoU", unit="%"), Metric(name="accuracy", label="pixel accuracy", unit="%"))
    loss_unit: ClassVar = "nats"
    takes: ClassVar = "int64 [n, *spatial], the number of its class for each position"
    gives: ClassVar = "one number for each class at each position, [n, classes, *spatial]"

    options: PixelCrossEntropyOptions

    def problem(self, targets: torch.Tensor, classes: int) -> str | None:
        """Whether these are class numbers, counted from 0, or are not to count."""
        if targets.ndim < 2 or targets.dtype != torch.int64 or not targets.numel():
            return f"targets are {described(targets)}, expected {self.takes}"
        if classes < 2:
            return f"{classes} class, expected at least 2"
        counted = targets[targets != self.options.ignore]
        if not counted.numel():
            return f"no position counts: all targets are {self.options.ignore}, which is ignored"
        least, most = int(counted.min()), int(counted.max())
        if least < 0 or most >= classes:
            odd = most if most >= classes else least
            told = f"labels go from {least} to {most}, expected 0 to {classes - 1}"
            return f"{told}; if {odd} marks positions that do not count, say so: --pixel-cross-entropy-ignore {odd}"
        return None

    def output_shape(self, targets: torch.Tensor, classes: int) -> tuple[int, ...]:
        """``(classes, *spatial)``; a last class that does not count, as of 0 to 20 and 255, is none, nor are those before it."""
        if classes and self.options.ignore == classes - 1:
            counted = targets[targets != self.options.ignore]
            classes = int(counted.max()) + 1 if counted.numel() else classes
        return (classes, *targets.shape[1:])

    def mismatch(self, outputs: torch.Tensor, targets: torch.Tensor) -> str | None:
        """Whether there are fewer outputs than classes."""
        counted = targets[targets != self.options.ignore]
        largest = int(counted.max()) if counted.numel() else 0
        return (
            None
            if largest < outputs.shape[1]
            else f"labels go up to {largest}, but the network tells only {outputs.shape[1]} classes apart"
        )

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        """Cross-entropies, the mean of each sample's positions, in nats."""
        options = self.options
        losses = cross_entropy(outputs, targets, ignore_index=options.ignore, label_smoothing=options.label_smoothing, reduction="none")
        counted = (targets != options.ignore).flatten(1).sum(1).clamp_min(1)
        return reduced(losses.flatten(1).sum(1) / counted, reduction)

    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """How often which class was taken for which, [classes, classes + 1]; the last column is for outputs that are not numbers."""
        classes = outputs.shape[1]
        given = outputs.argmax(1).masked_fill(outputs.isnan().any(1), classes)
        counted = targets != self.options.ignore
        places = torch.where(counted, targets, 0) * (classes + 1) + given
        table = torch.zeros(classes * (classes + 1), dtype=torch.int64, device=outputs.device)
        table.scatter_add_(0, places.flatten(), counted.flatten().long())
        return {"confusion": table.view(classes, classes + 1)}

    def scores(self, totals: Mapping[str, torch.Tensor], samples: int) -> Mapping[str, float]:
        """Both in percent."""
        table = totals["confusion"].double().cpu()
        right, there, given = table[:, :-1].diagonal(), table.sum(1), table[:, :-1].sum(0)
        union = there + given - right
        seen = union > 0
        known = bool(seen.any())
        return {
            "mean_iou": 100 * float((right[seen] / union[seen]).mean()) if known else math.nan,
            "accuracy": 100 * float(right.sum() / there.sum()) if known else math.nan,
        }
