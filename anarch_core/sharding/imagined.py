"""The first of several processes that hold a network together, the others imagined: what it holds and sends, before they are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from anarch_core.sharding.shards import Shards

T = TypeVar("T")


class Imagined(Shards):
    """The first process, alone: it holds the longest stretch of channels, and the others are taken to have what it has.

    Tensors that it is given back have the shapes that they would have, and :attr:`sent` is what it would send. They may hold no numbers.

    Args:
        size: how many processes there would be, P.
    """

    def __init__(self, size: int) -> None:
        self.rank, self.size = 0, size

    def agreed(self, value: T) -> T:
        """What this process says."""
        return value

    def totals(self, values: Sequence[float]) -> list[float]:
        """As if the others said the same."""
        return [value * self.size for value in values]

    def send(self, tensor: torch.Tensor) -> None:
        """Nobody sends to himself."""

    def receive(self, into: torch.Tensor, rank: int) -> None:
        """What the others give is not known, and ``into`` stays as it is."""

    def _all_gather(self, own: torch.Tensor) -> list[torch.Tensor]:
        block = own.new_empty(self.size, *own.shape)  # torch.distributed gathers into one, of which it copies the parts
        parts = [own.clone() for _ in range(self.size)]
        del block
        return parts

    def _all_reduce(self, total: torch.Tensor) -> None:
        total.mul_(self.size)
