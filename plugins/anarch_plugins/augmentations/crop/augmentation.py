"""Random crops of padded inputs, without padding them."""

from __future__ import annotations

import torch

from anarch_core.augmentation import AbstractAugmentation, Draws
from anarch_core.errors import ConfigError
from anarch_plugins.augmentations.crop.options import CropOptions


class Crop(AbstractAugmentation):
    """Reads every position from one that lies a random shift away, the same shift for all channels of a sample."""

    options: CropOptions

    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Inputs, shifted along every spatial axis by -padding to padding.

        Raises:
            ConfigError: they are too small to be reflected so far.
        """
        padding, spatial = self.options.padding, inputs.shape[2:]
        if self.options.mode == "reflect" and padding >= min(spatial, default=0):
            msg = f"crop: inputs of {'×'.join(map(str, spatial))} cannot be reflected {padding} positions beyond their edge; pad less"
            raise ConfigError(msg)
        shifts = draws.integers("shift", 2 * padding + 1, len(spatial)) - padding
        source = torch.zeros(len(inputs), 1, dtype=torch.int64, device=inputs.device)
        inside = torch.ones_like(source, dtype=torch.bool)
        for axis, size in enumerate(spatial):
            place = torch.arange(size, device=inputs.device) + shifts[:, axis, None]
            if self.options.mode == "reflect":
                place = size - 1 - (size - 1 - place.abs()).abs()
            inside = (inside.unsqueeze(2) & ((place >= 0) & (place < size)).unsqueeze(1)).flatten(1)
            source = (source.unsqueeze(2) * size + place.clamp(0, size - 1).unsqueeze(1)).flatten(1)
        flat = inputs.flatten(2)
        moved = flat.gather(2, source.unsqueeze(1).expand(flat.shape))
        return torch.where(inside.unsqueeze(1), moved, 0.0).view(inputs.shape)
