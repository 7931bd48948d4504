"""A wrong augmentation is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from anarch_core.augmentation import AbstractAugmentation, Draws
from anarch_core.testing import AugmentationConformance

Kit = Callable[..., Any]


class Still(AbstractAugmentation):
    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        return inputs


class Writing(AbstractAugmentation):
    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        return inputs.mul_(draws.uniform("x").to(inputs.dtype).view(-1, *[1] * (inputs.ndim - 1)))


class Global(AbstractAugmentation):
    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        return inputs + torch.rand_like(inputs)


class Mixing(AbstractAugmentation):
    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        return inputs + inputs.mean(0) * draws.uniform("x").to(inputs.dtype).view(-1, *[1] * (inputs.ndim - 1))


class Infinite(AbstractAugmentation):
    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        return inputs / 0


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Still, "test_changes_with_seed_epoch_and_sample", "24 samples look the same in two epochs; use `draws`"),
        (Writing, "test_gives_inputs_like_those_it_takes", "writes to its inputs"),
        (Infinite, "test_gives_inputs_like_those_it_takes", "not finite"),
        (Global, "test_is_a_function_of_its_draws", "changes the "),
        (Mixing, "test_samples_are_independent_of_their_batch", "samples look different in "),
    ],
)
def test_a_wrong_augmentation(fails: Kit, plugin: Kit, target: type, check: str, message: str) -> None:
    plugin("augmentation", target)
    fails(AugmentationConformance, check, message)
