"""Changes to training inputs on the device, batch by batch: the interface of augmentations, and their random numbers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from anarch_core.errors import PluginError
from anarch_core.plugin.blame import answering, origin

__all__ = ["AbstractAugmentation", "Draws"]

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@attrs.frozen(eq=False)
class Draws:
    """Random numbers for the samples of a batch: functions of a key, a stream and the number of the sample, of nothing else.

    The key stands for the augmentation, the seed and the epoch. There is no generator that moves on, so that a sample meets the same
    numbers in whatever batch it is, in whatever order, on every device, after a run was resumed, and in a branch as in its control.
    The numbers are those of SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2714064.2660195), used as a hash of a counter.

    Attributes:
        key: see above; equal for all batches of an epoch.
        samples: numbers of the samples in the training set, int64 [n], on the device of the inputs.
    """

    key: str
    samples: torch.Tensor

    def uniform(self, stream: str, count: int = 1) -> torch.Tensor:
        """Numbers of 53 random bits from 0 (included) to 1 (excluded).

        Args:
            stream: what they are for; other streams have other numbers, and the same one gives the same numbers again.
            count: how many for each sample.

        Returns:
            float64, [n, count], on the device of the inputs.
        """
        # Shifts of int64 keep the sign, so what they bring in from the left is masked.
        return ((self._bits(stream, count) >> 11) & (2**53 - 1)).double() * 2.0**-53

    def integers(self, stream: str, below: int, count: int = 1) -> torch.Tensor:
        """Whole numbers from 0 to ``below - 1``, int64, [n, count]; all equally likely, to one part in 2^53 / ``below``."""
        return (self.uniform(stream, count) * below).long()

    def _bits(self, stream: str, count: int) -> torch.Tensor:
        digest = hashlib.blake2b(f"{self.key}:{stream}".encode(), digest_size=8).digest()
        start = _mixed(self.samples * _signed(_GOLDEN) + int.from_bytes(digest, "big", signed=True))
        steps = torch.arange(1, count + 1, device=start.device) * _signed(_GOLDEN)
        return _mixed(start.unsqueeze(1) + steps)


class AbstractAugmentation(ABC):
    """Changes training inputs at random. Evaluation and probes meet the inputs as they are.

    An augmentation is built with an instance of its option class (or None).
    """

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """A batch, changed.

        Each sample must be changed as if it were alone, by numbers of ``draws`` and no others, so that neither the size of batches nor the
        order of samples changes what is trained on. Operations on the whole batch keep the device busy; a loop over samples does not.

        Args:
            inputs: floating point, [n, channels, *spatial], normalised, so that 0 is the mean of a channel; not to be written to.
            draws: random numbers for the samples.

        Returns:
            a tensor of the same shape and dtype, on the same device.
        """


@attrs.frozen
class Augmenting:
    """What a network is trained on: augmentations by name, one after another, for the batches of one seed."""

    augmentations: Mapping[str, AbstractAugmentation]
    seed: int

    def __call__(self, inputs: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        """A batch, augmented.

        Args:
            inputs: [n, channels, *spatial].
            samples: their numbers in the training set, int64 [n], on any device.
            epoch: counted from the network's birth.

        Raises:
            PluginError: an augmentation raises, or gives something else than a batch of the same shape.
        """
        samples = samples.to(inputs.device)
        for name, augmentation in self.augmentations.items():
            draws = Draws(f"augment:{name}:{self.seed}:{epoch}", samples)
            changed = answering(augmentation.augmented, torch.Tensor)(inputs, draws)
            if changed.shape != inputs.shape or changed.dtype != inputs.dtype or changed.device != inputs.device:
                msg = f"{origin(augmentation)}: augmented() gave {_described(changed)} for {_described(inputs)}, expected the same"
                raise PluginError(msg)
            inputs = changed
        return inputs


def _described(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device}"


def _signed(bits: int) -> int:
    """The int64 of 64 bits."""
    return bits - 2**64 if bits >= 2**63 else bits


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    """The finalizer of SplitMix64, on int64, whose products wrap around on every device."""
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))) * _signed(_FIRST)
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))) * _signed(_SECOND)
    return bits ^ ((bits >> 31) & (2**33 - 1))
