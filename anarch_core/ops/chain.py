"""Several layers, one after another, as one node of autograd: a small network at the speed of its products.

Where a network is small, what stands between its products costs more than they do: allocations, views, a node of autograd for every
operation and one more for every change of layout. A chain keeps its activations in one layout from its first layer to its last, in memory
that it uses again, and goes back the way it came. Inside :func:`~anarch_core.ops.fused.fused_sgd` it descends as it goes, so that no
gradient of a parameter is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from anarch_core.ops.fused import Update, planned_updates
from anarch_core.ops.piece import Order, Pass, Piece, in_parts
from anarch_core.ops.pointwise import Reordered

Lost = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""The loss of some outputs, a scalar, and its gradient by them."""


class Chain:
    """Layers taken as one. Its gradients are those of the layers, to rounding; it is differentiated once.

    Args:
        pieces: the layers in their order, each taking what the one before it gives.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.first: Order = next((piece.order for piece in pieces if piece.order is not None), "channels")
        self.pieces = tuple(_in_order(pieces, self.first))
        self.parameters: tuple[nn.Parameter, ...] = tuple(parameter for piece in self.pieces for parameter in piece.parameters)
        self._idle: dict[tuple[int, torch.dtype], list[_Walk]] = {}
        self._memory: list[int] = []

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return self.pieces[-1].output_shape

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs, [batch, *output shape], contiguous.

        Args:
            x: [batch, *input shape of the first piece], of the dtype of the parameters, on a CPU.
        """
        walk = self._walk(len(x), x)
        updates = planned_updates(x, self.parameters, tells=True)
        y: torch.Tensor = _Walked.apply(x, walk, updates, *self.parameters)
        if y.grad_fn is None:
            self.rest(walk)
        return y

    def descend(self, x: torch.Tensor, lost: Lost) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and back without autograd, where the chain is all of a network.

        Parameters that descend on the way, see :func:`~anarch_core.ops.fused.fused_sgd`, do; to the ``grad`` of others theirs is added.

        Args:
            x: as above.
            lost: of the outputs.

        Returns:
            the outputs and the loss.
        """
        updates = planned_updates(x, self.parameters, tells=True)
        with torch.no_grad():
            walk = self._walk(len(x), x)
            y = walk.forward(x)
            loss, grad = lost(y)
            _, gradients = walk.backward(grad, updates, [parameter.requires_grad for parameter in self.parameters], wants_input=False)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            self.rest(walk)
        return y, loss

    def _walk(self, batch: int, like: torch.Tensor) -> _Walk:
        memory = [parameter.data_ptr() for parameter in self.parameters]
        if memory != self._memory:  # a walk sees the parameters where they were when it was made
            self._memory = memory
            self._idle.clear()
        idle = self._idle.get((batch, like.dtype))
        return idle.pop() if idle else _Walk(self, batch, like, memory)

    def rest(self, walk: _Walk) -> None:
        """A walk is over; its memory may be used again."""
        if walk.memory == self._memory:
            self._idle.setdefault(walk.key, []).append(walk)


def _in_order(pieces: Sequence[Piece], order: Order) -> Iterator[Piece]:
    """The pieces, with the numbers of a sample put in another order where that is asked for."""
    for piece in pieces:
        if piece.order not in (None, order):
            order = piece.order
            if min(in_parts(piece.input_shape)) > 1:
                yield Reordered(piece.input_shape, order)
        yield piece


class _Walk:
    """One way through a chain and back, with the memory for a batch of one size."""

    def __init__(self, chain: Chain, batch: int, like: torch.Tensor, memory: list[int]) -> None:
        self.chain, self.key, self.memory = chain, (batch, like.dtype), memory
        self.passes = [piece.opened(batch, like) for piece in chain.pieces]
        self._trained = sum(bool(piece.parameters) for piece in chain.pieces)
        last: Order = next((piece.order for piece in reversed(chain.pieces) if piece.order is not None), chain.first)
        self._entry = _Border(chain.pieces[0].input_shape, chain.first, batch, like)
        self._exit = _Border(chain.pieces[-1].output_shape, last, batch, like)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, *input shape] to [batch, *output shape]."""
        inner = self._entry.inwards(x)
        for way in self.passes:
            inner = way.forward(inner)
        return self._exit.outwards(inner)

    def backward(
        self, grad: torch.Tensor, updates: Sequence[Update | None], wanted: Sequence[bool], *, wants_input: bool
    ) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
        """The input gradient and those of the parameters that are wanted; None of those that have descended."""
        inner: torch.Tensor | None = self._exit.inwards(grad)
        gradients: list[torch.Tensor | None] = [None] * len(self.chain.parameters)
        index, left = len(gradients), self._trained
        for way, piece in zip(reversed(self.passes), reversed(self.chain.pieces), strict=True):
            if inner is None:
                break
            count = len(piece.parameters)
            left -= count > 0
            inner = way.backward(inner, wanted=wants_input or left > 0)
            index -= count
            for which, parameter in enumerate(piece.parameters):
                place = index + which
                if not wanted[place]:
                    continue
                update = updates[place]
                if update is not None and update.uses == 1:
                    if update.whole is not None:
                        update.whole.norms.append((parameter, torch.linalg.vector_norm(_gradient(way, which, parameter))))
                    beta, alpha = update.numbers
                    way.accumulate(which, None, beta=beta, alpha=alpha)
                    update.done = True
                else:
                    gradients[place] = _gradient(way, which, parameter)
        return self._entry.outwards(inner) if wants_input and inner is not None else None, gradients


def _gradient(way: Pass, which: int, parameter: nn.Parameter) -> torch.Tensor:
    """That of a parameter of a piece."""
    gradient = torch.empty_like(parameter, requires_grad=False)
    way.accumulate(which, gradient, beta=0.0, alpha=1.0)
    return gradient


class _Border:
    """Where activations pass from the layout of PyTorch's layers into that of a chain, and back."""

    def __init__(self, shape: tuple[int, ...], order: Order, batch: int, like: torch.Tensor) -> None:
        channels, pixels = in_parts(shape)
        self._inside = like.new_empty(channels * pixels, batch)
        self._sizes = (pixels, channels, batch) if order == "pixels" else (channels, pixels, batch)
        self._dims = (2, 1, 0) if order == "pixels" else (2, 0, 1)
        self._shape = (batch, *shape)
        self._as_outside = self._inside.view(self._sizes).permute(self._dims)
        self._outside = (batch, channels, pixels)

    def inwards(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, *shape] to [numbers, batch]."""
        self._as_outside.copy_(x.reshape(self._outside))
        return self._inside

    def outwards(self, inner: torch.Tensor) -> torch.Tensor:
        """[numbers, batch] to [batch, *shape], contiguous, in memory of its own."""
        return inner.view(self._sizes).permute(self._dims).clone(memory_format=torch.contiguous_format).view(self._shape)


class _Walked(torch.autograd.Function):
    """A chain forward, and back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, walk: _Walk, updates: Sequence[Update | None], *parameters: torch.Tensor) -> torch.Tensor:
        ctx.walk, ctx.updates = walk, updates
        return walk.forward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        walk: _Walk | None = ctx.walk
        if walk is None:
            msg = "this graph was gone back through already; a chain remembers one pass"
            raise RuntimeError(msg)
        wants_input, _, _, *wanted = ctx.needs_input_grad
        gx, gradients = walk.backward(grad, ctx.updates, wanted, wants_input=wants_input)
        ctx.walk = None
        walk.chain.rest(walk)
        return gx, None, None, *gradients
