"""What a chain of layers is made of: one layer forward and back, without autograd, the samples of a batch last in memory.

Activations are [numbers of a sample, batch], contiguous. What a position reads of consecutive pixels is then one block whatever the
stride, and every product is one call on views.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import nn

Order = Literal["pixels", "channels"]
"""How the numbers of a sample follow one another: pixel after pixel with all its channels, or channel after channel with all its pixels."""


class Pass(ABC):
    """A piece at work on batches of one size, in memory that it goes on using: a backward pass belongs to the forward pass before it."""

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs; x stays as it is until the backward pass is over."""

    @abstractmethod
    def backward(self, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
        """The input gradient of an output gradient, where it is wanted; taken before any parameter is changed."""

    def accumulate(self, which: int, out: torch.Tensor | None, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient`` for one of the parameters, after :meth:`backward`.

        What ``out`` holds does not matter where ``beta`` is 0.

        Args:
            which: index among the piece's parameters.
            out: shaped as the parameter; None for the parameter itself.
            beta: of what is there.
            alpha: of the gradient.
        """
        raise NotImplementedError


class Piece(ABC):
    """One layer of a chain.

    Attributes:
        parameters: that it is trained by, each once.
        input_shape: [channels, *pixels] of a sample, or [features].
        output_shape: likewise.
        order: in which it takes and gives the numbers of a sample; None where that is all the same to it.
    """

    parameters: tuple[nn.Parameter, ...] = ()
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    order: Order | None = None

    @abstractmethod
    def opened(self, batch: int, like: torch.Tensor) -> Pass:
        """A pass for batches of that size, of the dtype of ``like``."""

    def pays(self, batch: int) -> bool:
        """Whether its sizes are such that it gains beside the layer that it stands for."""
        return True


def in_parts(shape: tuple[int, ...]) -> tuple[int, int]:
    """(channels, pixels) of a sample's shape; features are channels of one pixel."""
    return shape[0], math.prod(shape[1:])
