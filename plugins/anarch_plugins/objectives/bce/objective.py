"""The objective ``bce``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from anarch_core.objective import AbstractObjective, Metric, Reduction, described, reduced


class BinaryCrossEntropy(AbstractObjective):
    """Cross-entropy in nats between each label and the sigmoid of its output, its mean over the labels of a sample.

    A label is given where its output is positive; a target counts as there above one half.

    * ``f1``: ``2 tp / (2 tp + fp + fn)`` over all labels of all samples (micro-averaged). Not defined where no label is there or given;
    * ``accuracy``: labels that are right;
    * ``exact``: samples whose labels all are.
    """

    metrics: ClassVar = (
        Metric(name="f1", label="F1", unit="%"),
        Metric(name="accuracy", label="label accuracy", unit="%"),
        Metric(name="exact", label="exact match", unit="%"),
    )
    loss_unit: ClassVar = "nats"
    takes: ClassVar = "[n, labels], 1 where a label is there and 0 where not, or a probability between"
    gives: ClassVar = "one number for each label of each sample"

    def problem(self, targets: torch.Tensor, classes: int) -> str | None:
        """Whether these are numbers from 0 to 1, a row for each sample."""
        if targets.ndim != 2 or not targets.numel() or targets.is_complex():
            return f"targets are {described(targets)}, expected {self.takes}"
        if not bool(((targets >= 0) & (targets <= 1)).all()):
            return f"targets go from {targets.min().item():g} to {targets.max().item():g}, expected {self.takes}"
        return None

    def output_shape(self, targets: torch.Tensor, classes: int) -> tuple[int, ...]:
        """``(labels,)``."""
        return tuple(targets.shape[1:])

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        """Binary cross-entropies, the mean of each sample's labels, in nats."""
        losses = binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none")
        return reduced(losses.mean(1), reduction)

    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Labels by what became of them; an output of nan is wrong whatever the target is."""
        there, given, told = targets > 0.5, outputs > 0, ~outputs.isnan()
        right = (there == given) & told
        return {
            "found": (there & right).sum(),
            "wrong": (~right).sum(),
            "right": right.sum(),
            "exact": right.all(1).sum(),
        }

    def scores(self, totals: Mapping[str, torch.Tensor], samples: int) -> Mapping[str, float]:
        """All in percent."""
        found, wrong, right = (int(totals[name]) for name in ("found", "wrong", "right"))
        return {
            "f1": 100 * 2 * found / (2 * found + wrong) if found + wrong else math.nan,
            "accuracy": 100 * right / (right + wrong),
            "exact": 100 * int(totals["exact"]) / samples,
        }
