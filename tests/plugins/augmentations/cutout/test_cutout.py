"""One square of each input is blanked, in all channels, wherever its centre falls."""

from __future__ import annotations

import torch

from anarch_core.augmentation import Draws
from anarch_core.plugin import get_registry


def blanked(x: torch.Tensor, size: int) -> torch.Tensor:
    """Where samples were set to zero."""
    return get_registry().create("augmentation", "cutout", {"size": size}).augmented(x, Draws("test", torch.arange(len(x)))) == 0


def test_a_square_is_blank_in_all_channels_and_cut_off_at_the_edges() -> None:
    blank = blanked(torch.ones(500, 3, 8, 10), 4)
    assert torch.equal(blank[:, :1].expand(blank.shape), blank)
    for mask in blank[:, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert 2 <= rows.sum() <= 4
        assert 2 <= columns.sum() <= 4
    assert blank[:, 0].any(0).all()


def test_signals_lose_a_stretch() -> None:
    assert set(blanked(torch.ones(200, 1, 20), 5).sum((1, 2)).tolist()) == {3, 4, 5}
