"""Outputs of classes of positions, put together."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from anarch_core.ops import empty_channels_last


class Interleaved(torch.autograd.Function):
    """The parts of all classes of positions, each in its places; its gradient copies nothing."""

    @staticmethod
    def forward(size: tuple[int, ...], classes: tuple[int, ...], laid_out: bool, *parts: torch.Tensor) -> torch.Tensor:
        batch, channels = parts[0].shape[:2]
        y = empty_channels_last(parts[0], channels, size, parts[0].dtype) if laid_out else parts[0].new_empty((batch, channels, *size))
        for where, part in zip(itertools.product(*map(range, classes)), parts, strict=True):
            y[_places(where, classes)] = part
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.layout = inputs[:3]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _, classes, _ = ctx.layout
        return None, None, None, *(grad[_places(where, classes)] for where in itertools.product(*map(range, classes)))

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = Interleaved.apply(*ctx.layout, *tangents[3:])
        return y

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], size: tuple[int, ...], classes: tuple[int, ...], laid_out: bool, *parts: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        stacks = [
            part.expand(info.batch_size, *part.shape) if dim is None else part.movedim(dim, 0)
            for part, dim in zip(parts, in_dims[3:], strict=True)
        ]
        y: torch.Tensor = Interleaved.apply(size, classes, laid_out, *(stack.flatten(0, 1) for stack in stacks))
        return torch.unflatten(y, 0, stacks[0].shape[:2]), 0


# ``apply`` asks for it at every call, and Python would work it out anew.
Interleaved.forward.__signature__ = inspect.signature(Interleaved.forward)  # type: ignore[attr-defined]


def interleave(parts: Sequence[torch.Tensor], size: tuple[int, ...], classes: tuple[int, ...]) -> torch.Tensor:
    """As :class:`Interleaved`, in operations that a graph may hold.

    Args:
        parts: [batch, channels, *places] of each class of positions.
        size: of the output.
        classes: along each axis.
    """
    for dim in reversed(range(len(size))):
        count, length = classes[dim], size[dim]
        before = [sum(len(range(other, length, count)) for other in range(first)) for first in range(count)]
        order = torch.tensor([before[place % count] + place // count for place in range(length)], device=parts[0].device)
        parts = [torch.cat(list(parts[k : k + count]), 2 + dim).index_select(2 + dim, order) for k in range(0, len(parts), count)]
    return parts[0]


def _places(where: tuple[int, ...], classes: tuple[int, ...]) -> tuple[Any, ...]:
    """Of one class of positions, as an index."""
    return (..., *(slice(first, None, count) for first, count in zip(where, classes, strict=True)))
