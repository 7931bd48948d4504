"""Random crops of padded inputs: what each sample becomes is one of the crops that padding and cutting would give."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad

from anarch_core.augmentation import Draws
from anarch_core.errors import ConfigError
from anarch_core.plugin import get_registry


def cropped(x: torch.Tensor, **options: object) -> torch.Tensor:
    return get_registry().create("augmentation", "crop", options).augmented(x, Draws("test", torch.arange(len(x))))


@pytest.mark.parametrize(("mode", "padding_mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("shape", [(2, 7), (3, 5, 6)])
def test_every_sample_is_a_crop_of_its_padded_self_and_all_crops_occur(mode: str, padding_mode: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(400, *shape, generator=torch.Generator().manual_seed(0))
    axes = len(shape) - 1
    padded = pad(x, (2, 2) * axes, mode=padding_mode)
    seen = set()
    for sample, whole in zip(cropped(x, padding=2, mode=mode), padded, strict=True):
        shifts = torch.cartesian_prod(*[torch.arange(5)] * axes).view(-1, axes).tolist()
        for shift in shifts:
            part = whole
            for axis, start in enumerate(shift):
                part = part.narrow(axis + 1, start, shape[axis + 1])
            if torch.equal(part, sample):
                seen.add(tuple(shift))
                break
        else:
            pytest.fail("a sample is no crop")
    assert len(seen) == 5**axes


def test_padding_may_be_larger_than_the_input() -> None:
    assert cropped(torch.ones(50, 1, 3), padding=9).sum(2).unique().tolist() == [0, 1, 2, 3]


def test_an_input_is_not_reflected_beyond_its_other_edge() -> None:
    with pytest.raises(ConfigError, match="crop: inputs of 3×9 cannot be reflected 3 positions beyond their edge; pad less"):
        cropped(torch.ones(2, 1, 3, 9), padding=3, mode="reflect")
