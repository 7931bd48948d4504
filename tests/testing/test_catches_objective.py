"""A wrong objective is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from anarch_core.objective import CrossEntropy, Reduction
from anarch_core.testing import ObjectiveConformance

Kit = Callable[..., Any]


class Nameless(CrossEntropy):
    metrics = ()


class OfTheBatch(CrossEntropy):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        return super().loss(outputs - outputs.mean(0), targets, reduction)


class MeanForSum(CrossEntropy):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        return super().loss(outputs, targets, "mean" if reduction == "sum" else reduction)


class Rounded(CrossEntropy):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        return super().loss(outputs.float(), targets, reduction).double()


class Averaging(CrossEntropy):
    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"correct": (outputs.argmax(1) == targets).double().mean()}


class Growing(CrossEntropy):
    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"correct": outputs.argmax(1) == targets}


class Writing(CrossEntropy):
    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return super().tally(outputs.mul_(2), targets)


class Blind(CrossEntropy):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        return super().loss(outputs.nan_to_num(), targets, reduction)


class Rising(CrossEntropy):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        return super().loss(outputs, targets, reduction) + outputs.detach().square().sum()


class Taking(CrossEntropy):
    def problem(self, targets: torch.Tensor, classes: int) -> str | None:
        return None if targets.is_complex() else super().problem(targets, classes)


class OfTheSum(CrossEntropy):
    def loss_and_gradient(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, gradient = super().loss_and_gradient(outputs, targets)
        return loss, len(outputs) * gradient


class LossOfTheSum(CrossEntropy):
    def loss_and_gradient(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, gradient = super().loss_and_gradient(outputs, targets)
        return len(outputs) * loss, gradient


class WithAGraph(CrossEntropy):
    def loss_and_gradient(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, gradient = super().loss_and_gradient(outputs, targets)
        return loss.requires_grad_(), gradient


class WritingBack(CrossEntropy):
    def loss_and_gradient(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().loss_and_gradient(outputs.sub_(1e-3), targets)


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Nameless, "test_says_what_it_is", "`metrics` is empty"),
        (Taking, "test_other_targets_are_refused", "complex numbers are taken"),
        (OfTheBatch, "test_losses_are_those_of_samples", "depends on the others in its batch"),
        (MeanForSum, "test_losses_are_those_of_samples", "'sum' is not the sum"),
        (Rounded, "test_is_differentiable_twice", "the first derivative of the loss is not"),
        (OfTheSum, "test_gradient_is_that_of_the_loss", "for 7 samples .* another gradient .* that of the mean over the samples"),
        (LossOfTheSum, "test_gradient_is_that_of_the_loss", "for 7 samples .* another loss than"),
        (WithAGraph, "test_gradient_is_that_of_the_loss", "gives a loss with a graph"),
        (WritingBack, "test_gradient_is_that_of_the_loss", "writes to the outputs"),
        (Averaging, "test_scores_do_not_depend_on_the_batches", "scores in batches of 1"),
        (Growing, "test_scores_do_not_depend_on_the_batches", "expected int64 or float64"),
        (Writing, "test_leaves_everything_as_it_was", "writes to the outputs"),
        (Blind, "test_outputs_that_are_not_numbers_have_no_loss", "nan has a finite loss"),
        (Rising, "test_can_be_learnt", "twenty steps along the gradient"),
    ],
)
def test_caught(plugin: Kit, fails: Kit, target: type, check: str, message: str) -> None:
    plugin("objective", target)
    fails(ObjectiveConformance, check, message)


class Halved(CrossEntropy):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        return super().loss(outputs, targets, reduction) / 2


class Mixed:
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        return CrossEntropy().loss(outputs / 2, targets, reduction)


class Inheriting(Mixed, CrossEntropy):
    pass


@pytest.mark.parametrize("target", [Halved, Inheriting])
def test_a_loss_that_is_overridden_alone_has_its_own_gradient(plugin: Kit, passes: Kit, target: type) -> None:
    plugin("objective", target)
    passes(ObjectiveConformance, "test_gradient_is_that_of_the_loss")
