"""Mirror images of half of the inputs."""

from __future__ import annotations

import torch

from anarch_core.augmentation import AbstractAugmentation, Draws


class Flip(AbstractAugmentation):
    """Mirrors along the last axis."""

    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Inputs, each as it is or mirrored."""
        mirrored = draws.uniform("mirror").view(-1, *[1] * (inputs.ndim - 1)) < 0.5
        return torch.where(mirrored, inputs.flip(-1), inputs)
