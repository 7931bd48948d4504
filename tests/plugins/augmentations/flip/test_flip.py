"""Mirror images: half of the samples, along the last axis."""

from __future__ import annotations

import torch

from anarch_core.augmentation import Draws
from anarch_core.plugin import get_registry


def test_half_of_the_samples_are_mirrored_along_their_last_axis() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3).repeat(1000, 1, 1, 1)
    flipped = get_registry().create("augmentation", "flip").augmented(x, Draws("test", torch.arange(1000)))
    mirrored = (flipped == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], x[~mirrored])
    assert 450 < mirrored.sum() < 550
