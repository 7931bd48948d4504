"""Pieces of a chain that act on every number by itself, or only put numbers in another order."""

from __future__ import annotations

from collections.abc import Callable

import torch

from anarch_core.ops.piece import Order, Pass, Piece, in_parts

aten = torch.ops.aten

Forward = Callable[[torch.Tensor, torch.Tensor], None]
"""Writes the outputs into its second argument."""

Backward = Callable[[torch.Tensor, torch.Tensor], None]
"""Changes an output gradient into an input gradient, where the second are the outputs."""


def _rectify(x: torch.Tensor, out: torch.Tensor) -> None:
    torch.clamp_min(x, 0, out=out)


def _rectify_back(grad: torch.Tensor, y: torch.Tensor) -> None:
    aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)


def _tanh(x: torch.Tensor, out: torch.Tensor) -> None:
    torch.tanh(x, out=out)


def _tanh_back(grad: torch.Tensor, y: torch.Tensor) -> None:
    aten.tanh_backward.grad_input(grad, y, grad_input=grad)


RELU: tuple[Forward, Backward] = (_rectify, _rectify_back)
TANH: tuple[Forward, Backward] = (_tanh, _tanh_back)


class Pointwise(Piece):
    """A function of every number.

    Args:
        shape: of a sample.
        function: forward and back.
    """

    def __init__(self, shape: tuple[int, ...], function: tuple[Forward, Backward]) -> None:
        self.input_shape = self.output_shape = shape
        self.function = function

    def opened(self, batch: int, like: torch.Tensor) -> Pass:
        channels, pixels = in_parts(self.input_shape)
        return _PointwisePass(like.new_empty(channels * pixels, batch), *self.function)


class _PointwisePass(Pass):
    def __init__(self, y: torch.Tensor, forward: Forward, backward: Backward) -> None:
        self.y, self._forward, self._backward = y, forward, backward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._forward(x, self.y)
        return self.y

    def backward(self, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
        self._backward(grad, self.y)
        return grad


class Flattened(Piece):
    """Maps as features, channel after channel; nothing is done, since :class:`Reordered` did it."""

    order: Order | None = "channels"

    def __init__(self, shape: tuple[int, ...]) -> None:
        channels, pixels = in_parts(shape)
        self.input_shape, self.output_shape = shape, (channels * pixels,)

    def opened(self, batch: int, like: torch.Tensor) -> Pass:
        return _Same()


class _Same(Pass):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def backward(self, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
        return grad


class Reordered(Piece):
    """The numbers of a sample in the other order.

    Args:
        shape: of a sample.
        order: that they get.
    """

    def __init__(self, shape: tuple[int, ...], order: Order) -> None:
        self.input_shape = self.output_shape = shape
        self.order = order

    def opened(self, batch: int, like: torch.Tensor) -> Pass:
        channels, pixels = in_parts(self.input_shape)
        sizes = (pixels, channels) if self.order == "channels" else (channels, pixels)
        return _ReorderedPass(*sizes, like.new_empty(2, channels * pixels, batch))


class _ReorderedPass(Pass):
    def __init__(self, outer: int, inner: int, room: torch.Tensor) -> None:
        self._sizes = outer, inner
        self._y, self._gx = room

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _swapped(x, self._sizes, self._y)

    def backward(self, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
        return _swapped(grad, self._sizes[::-1], self._gx)


def _swapped(x: torch.Tensor, sizes: tuple[int, ...], out: torch.Tensor) -> torch.Tensor:
    outer, inner = sizes
    out.view(inner, outer, -1).copy_(x.view(outer, inner, -1).transpose(0, 1))
    return out
