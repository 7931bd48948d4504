"""Classification: one class for each sample. What objectives of that kind share, and the one that is used unless another is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from anarch_core.labels import labels_problem
from anarch_core.objective.base import AbstractObjective, Metric, Reduction


class AbstractClassification(AbstractObjective):
    """One class for each sample, told by the largest output; scored by accuracy. What is left to say is the loss."""

    metrics: ClassVar = (Metric(name="accuracy", label="accuracy", unit="%"),)
    takes: ClassVar = "int64 [n], the number of its class for each sample"
    gives: ClassVar = "one number for each class of each sample"

    def problem(self, targets: torch.Tensor, classes: int) -> str | None:
        """Whether these are class numbers, counted from 0."""
        if (wrong := labels_problem(targets)) is not None:
            return wrong
        if classes < 2:
            return f"{classes} class, expected at least 2"
        least, most = int(targets.min()), int(targets.max())
        if least < 0 or most >= classes:
            counted = "; they seem to be counted from 1, so subtract 1" if least == 1 and most == classes else ""
            return f"labels go from {least} to {most}, expected 0 to {classes - 1}{counted}"
        return None

    def output_shape(self, targets: torch.Tensor, classes: int) -> tuple[int, ...]:
        """``(classes,)``."""
        return (classes,)

    def mismatch(self, outputs: torch.Tensor, targets: torch.Tensor) -> str | None:
        """Whether there are fewer outputs than classes."""
        largest = int(targets.max())
        told = f"labels go up to {largest}, but the network tells only {outputs.shape[1]} classes apart"
        return None if largest < outputs.shape[1] else told

    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Samples that are classified rightly: none of those that are given nan, which argmax would take for the largest."""
        return {"correct": ((outputs.argmax(1) == targets) & ~outputs.isnan().any(1)).sum()}

    def scores(self, totals: Mapping[str, torch.Tensor], samples: int) -> Mapping[str, float]:
        """Accuracy in percent."""
        return {"accuracy": 100.0 * totals["correct"].item() / samples}

    def decisions(self, outputs: torch.Tensor) -> torch.Tensor | None:
        """The class of the largest output."""
        return outputs.argmax(1)


class CrossEntropy(AbstractClassification):
    """Cross-entropy in nats between a class and the softmax of the outputs.

    Args:
        options: with ``label_smoothing`` s: the loss is that of the distribution ``(1 - s) one-hot + s / classes`` (Szegedy et al. 2016),
            in training and wherever else it is measured. None for none.
    """

    loss_unit: ClassVar = "nats"

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._smoothing: float = 0.0 if options is None else options.label_smoothing

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        """Cross-entropies of samples, in nats."""
        return cross_entropy(outputs, targets, reduction=reduction, label_smoothing=self._smoothing)

    def loss_and_gradient(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean, and the softmax of the outputs less the distribution of the targets, over the samples."""
        if outputs.ndim != 2 or type(outputs) is not torch.Tensor:
            return super().loss_and_gradient(outputs, targets)
        n, classes = outputs.shape
        with torch.no_grad():
            log_probabilities = log_softmax(outputs, 1)
            loss = nll_loss(log_probabilities, targets)
            if self._smoothing:
                loss = (1 - self._smoothing) * loss - self._smoothing * log_probabilities.mean()
            gradient = log_probabilities.exp_()
            gradient.scatter_(1, targets.unsqueeze(1), self._smoothing - 1, reduce="add")
            if self._smoothing:
                gradient.sub_(self._smoothing / classes)
        return loss, gradient.div_(n)
