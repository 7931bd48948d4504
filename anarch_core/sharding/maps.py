"""Two pairs of adjoint maps between what every process has and the stretches of channels that each has, differentiable as often as wanted.

A loss that is a function of what every process has is the same function on all of them, and its gradient by such a tensor is the same,
too. So the adjoint of gathering is to keep one's own stretch (nothing is summed: the processes compute one loss, not several that add up),
and the adjoint of giving a tensor to processes that each go on with it in their own way is to sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function

from anarch_core.sharding.shards import Shards

Map = Callable[[torch.Tensor], torch.Tensor]


def gather(part: torch.Tensor, shards: Shards, channels: int) -> torch.Tensor:
    """Stretches of channels, [batch, own channels, ...], to the whole, [batch, channels, ...], on every process."""
    own = shards.stretch(channels)
    return _mapped(
        part,
        lambda stretch: shards.gathered(stretch, 1, channels),
        lambda whole: whole.narrow(1, own.start, len(own)).contiguous(),
    )


def spread(whole: torch.Tensor, shards: Shards) -> torch.Tensor:
    """What every process has, to be used by each in its own way; the identity, whose gradient is summed over the processes."""
    return _mapped(whole, lambda same: same.view_as(same), shards.summed)


def _mapped(x: torch.Tensor, there: Map, back: Map) -> torch.Tensor:
    y: torch.Tensor = _Linear.apply(x, there, back)
    return y


class _Linear(Function):
    """A linear map, whose gradient is its adjoint, whose gradient is the map again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, there: Map, back: Map) -> torch.Tensor:
        ctx.there, ctx.back = there, back
        return there(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _mapped(grad, ctx.back, ctx.there), None, None
