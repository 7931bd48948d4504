"""What an augmentation promises."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from anarch_core.augmentation import AbstractAugmentation, Augmenting
from anarch_core.errors import ConfigError
from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.snapshot import same_bits


class AugmentationConformance(ComponentConformance):
    """Tests of an augmentation.

    Attributes:
        shapes: of one input, [channels, *spatial]; at least one has to suit it.
    """

    kind = "augmentation"
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 40), (3, 16, 16), (2, 9, 14))

    def augmentation(self) -> AbstractAugmentation:
        """The augmentation with the tested options."""
        made: AbstractAugmentation = self.registry.create(self.kind, self.info.name, dict(self.options))
        return made

    def inputs(self, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        """A batch of normalised noise of every shape that is not refused."""
        taken, refused = [], []
        for shape in self.shapes:
            x = torch.randn(24, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
            try:
                self.of(x)
            except ConfigError as error:
                assert "\n" not in str(error), f"refuse in one line: {error}"
                refused.append(f"{shape}: {error}")
            else:
                taken.append(x)
        assert taken, f"inputs of every shape are refused ({'; '.join(refused)}); set `shapes` to some that suit it"
        return taken

    def of(self, x: torch.Tensor, samples: torch.Tensor | None = None, *, seed: int = 0, epoch: int = 0) -> torch.Tensor:
        """Inputs as a run would train on them."""
        samples = torch.arange(len(x)) if samples is None else samples
        return Augmenting({self.info.name: self.augmentation()}, seed)(x, samples, epoch)

    def test_gives_inputs_like_those_it_takes(self) -> None:
        """Shape, dtype and device stay, numbers are finite, and what was given is not written to."""
        for dtype in (torch.float32, torch.float64):
            for x in self.inputs(dtype):
                before = x.clone()
                changed = self.of(x)  # shape, dtype and device are checked there
                assert changed.isfinite().all(), f"inputs {tuple(x.shape)} become numbers that are not finite"
                assert same_bits(x, before), "augmented() writes to its inputs, which are there again in the next epoch; work on a copy"

    def test_is_a_function_of_its_draws(self) -> None:
        """The same sample in the same epoch looks the same to the last bit, whatever the random state, which is left alone."""
        for x in self.inputs():
            states = Surroundings.now()
            first = self.of(x)
            assert not states.changed(), f"augmented() changes the {', '.join(states.changed())}"
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(12345)
                second = self.of(x)
            assert same_bits(first, second), (
                "augmenting the same batch twice gives other numbers; take all that is random from `draws`, or a resumed run trains on "
                "other inputs"
            )

    def test_samples_are_independent_of_their_batch(self) -> None:
        """A sample looks the same alone, in another order and in a batch of another size."""
        for x in self.inputs():
            whole, samples = self.of(x), torch.arange(len(x))
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
            assert same_bits(self.of(x[order], samples[order]), whole[order]), "samples look different in another order"
            for size in (1, 7):
                parts = [self.of(*part) for part in zip(torch.split(x, size), torch.split(samples, size), strict=True)]
                assert same_bits(torch.cat(parts), whole), (
                    f"samples look different in batches of {size}; let each depend on its own row of `draws` and its own input alone"
                )

    def test_changes_with_seed_epoch_and_sample(self) -> None:
        """Equal inputs look different in other epochs, for other seeds, and as other samples."""
        for x in self.inputs():
            alike = x[:1].expand(x.shape).contiguous()
            looks = self.of(alike)
            for what, other in (("epochs", self.of(alike, epoch=1)), ("seeds", self.of(alike, seed=1))):
                assert not torch.equal(looks, other), f"24 samples look the same in two {what}; use `draws`"
            assert len({tuple(sample.flatten().tolist()) for sample in looks}) > 1, "24 equal samples all look the same; use `draws`"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_devices_agree(self) -> None:
        """Inputs on a CUDA device are changed as on the CPU."""
        for x in self.inputs():
            torch.testing.assert_close(self.of(x.cuda()).cpu(), self.of(x), atol=1e-6, rtol=1e-6)
