"""Two pairs of adjoint maps between what every process has and the stretches of channels that each has, differentiable as often as wanted.

A loss that is a function of what every process has is the same function on all of them, and its gradient by such a tensor is the same,
too. So the adjoint of gathering is to keep one's own stretch (nothing is summed: the processes compute one loss, not several that add up),
and the adjoint of giving a tensor to processes that each go on with it in their own way is to sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

from anarch_core.sharding.shards import Shards


def gather(part: torch.Tensor, shards: Shards, channels: int) -> torch.Tensor:
    """Stretches of channels, [batch, own channels, ...], to the whole, [batch, channels, ...], on every process."""
    whole: torch.Tensor = _Gather.apply(part, shards, channels)
    return whole


def spread(whole: torch.Tensor, shards: Shards) -> torch.Tensor:
    """What every process has, to be used by each in its own way; the identity, whose gradient is summed over the processes."""
    same: torch.Tensor = _Spread.apply(whole, shards)
    return same


class _Gather(Function):
    """Stretches to the whole. Its adjoint is :class:`_Slice`."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, shards: Shards, channels: int) -> torch.Tensor:
        ctx.shards, ctx.channels = shards, channels
        return shards.gathered(part, 1, channels)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Slice.apply(grad, ctx.shards, ctx.channels), None, None


class _Slice(Function):
    """The whole to this process's stretch. Its adjoint is :class:`_Gather`."""

    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, shards: Shards, channels: int) -> torch.Tensor:
        ctx.shards, ctx.channels = shards, channels
        own = shards.stretch(channels)
        return whole.narrow(1, own.start, len(own)).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Gather.apply(grad, ctx.shards, ctx.channels), None, None


class _Spread(Function):
    """The identity on what every process has. Its adjoint is :class:`_Sum`."""

    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, shards: Shards) -> torch.Tensor:
        ctx.shards = shards
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Sum.apply(grad, ctx.shards), None


class _Sum(Function):
    """The sum over the processes. Its adjoint is :class:`_Spread`."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, shards: Shards) -> torch.Tensor:
        ctx.shards = shards
        return shards.summed(part)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Spread.apply(grad, ctx.shards), None
