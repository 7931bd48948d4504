"""A dense layer as a piece of a chain."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.ops.bilinear import accumulate
from anarch_core.ops.piece import Order, Pass, Piece

LARGEST = 2**20
"""Weights of a dense layer that is taken so; a larger one is bound by its products, and there are better ways to take them."""


class FullProduct(Piece):
    """Every output joined to every input, y = W x + b.

    Args:
        weight: [outputs, inputs].
        bias: [outputs], or None.
        input_shape: of a sample, with as many numbers as there are inputs, channel after channel.
        output_shape: likewise.
    """

    order: Order | None = "channels"

    def __init__(
        self, weight: nn.Parameter, bias: nn.Parameter | None, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> None:
        self.parameters = (weight,) if bias is None else (weight, bias)
        self.input_shape, self.output_shape = input_shape, output_shape

    def pays(self, batch: int) -> bool:
        return self.parameters[0].numel() <= LARGEST

    def opened(self, batch: int, like: torch.Tensor) -> Pass:
        return _FullPass(self, batch, like)


class _FullPass(Pass):
    def __init__(self, piece: FullProduct, batch: int, like: torch.Tensor) -> None:
        self._own = [parameter.detach() for parameter in piece.parameters]
        weight, *bias = self._own
        outputs, inputs = weight.shape
        self._weight, self._transposed = weight, weight.t()
        self._bias = bias[0].unsqueeze(1) if bias else None
        self._y, self._gx = like.new_empty(outputs, batch), like.new_empty(inputs, batch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._x = x
        if self._bias is None:
            return torch.mm(self._weight, x, out=self._y)
        return torch.addmm(self._bias, self._weight, x, out=self._y)

    def backward(self, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
        self._grad = grad
        return torch.mm(self._transposed, grad, out=self._gx) if wanted else None

    def accumulate(self, which: int, out: torch.Tensor | None, *, beta: float, alpha: float) -> None:
        own = self._own[which] if out is None else out
        if which == 0:
            own.addmm_(self._grad, self._x.t(), beta=beta, alpha=alpha)
        else:
            accumulate(own, self._grad.sum(1), beta=beta, alpha=alpha)
