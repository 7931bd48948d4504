"""A square of each input is blanked."""

from __future__ import annotations

import torch

from anarch_core.augmentation import AbstractAugmentation, Draws
from anarch_plugins.augmentations.cutout.options import CutoutOptions


class Cutout(AbstractAugmentation):
    """Blanks one square of each input, in all channels."""

    options: CutoutOptions

    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Inputs with a square of zeros around a random position."""
        size, spatial = self.options.size, inputs.shape[2:]
        centres = draws.uniform("centre", len(spatial))
        blank = torch.ones(len(inputs), *[1] * (inputs.ndim - 1), dtype=torch.bool, device=inputs.device)
        for axis, length in enumerate(spatial):
            first = (centres[:, axis] * length).long() - size // 2
            place = torch.arange(length, device=inputs.device)
            covered = (place >= first[:, None]) & (place < first[:, None] + size)
            blank = blank & covered.view(len(inputs), 1, *[length if other == axis else 1 for other in range(len(spatial))])
        return torch.where(blank, 0.0, inputs)
