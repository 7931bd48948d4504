"""Layers that are linear in their inputs and in their weights, by whatever kernels take their three products fastest.

The gradients of such a layer are products of the same kind, and so are the gradients of its gradients: the three functions below are each
other's derivatives, to any order, forwards as well as backwards. Activations pass through them channels last.

Mapped over stacks of activations (``torch.func.vmap``) they take the whole stack as one batch. Where weights are stacked too, or wanted for
every sample, kernels have nothing to offer, and the joins of the layer take the product in ordinary operations.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable

from anarch_core.ops.fused import Update, planned_update
from anarch_core.ops.joins import Joins
from anarch_core.ops.memory_format import empty_channels_last


class Kernels(Protocol):
    """The products of one layer. Activations are [batch, pixels * channels], contiguous; weights are contiguous.

    Attributes:
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: of the weight.
        joins: which weights join what.
    """

    @property
    def input_shape(self) -> tuple[int, ...]: ...  # noqa: D102 (described by the class)

    @property
    def output_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def weight_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def joins(self) -> Joins: ...  # noqa: D102

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write the outputs into y, whose type is that of x and the weight."""

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write the input gradient into gx, in float32 where the output gradient and the weight are of lower precision."""

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``; what ``out`` holds does not matter where ``beta`` is 0."""


def bilinear_product(x: torch.Tensor, weight: torch.Tensor, kernels: Kernels) -> torch.Tensor:
    """The outputs of a layer; differentiable to any order, and mapped by ``torch.func``.

    Args:
        x: [batch, *input shape].
        weight: of the kernels' weight shape.
        kernels: of the layer, for the type and place that x and weight have under autocast.

    Returns:
        [batch, *output shape], channels last in memory; under autocast of autocast's dtype.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = (tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in (x, weight))
    update = planned_update(x, weight)
    y: torch.Tensor = _Product.apply(x, weight, kernels) if update is None else _FusedProduct.apply(x, weight, kernels, update)
    return y


def _flat(x: torch.Tensor, *, stack: bool = False) -> torch.Tensor:
    """[batch, channels, *pixels] as [batch, pixels * channels], or stacks of them; a view where the channels are last in memory."""
    return x.movedim(1 + stack, -1).flatten(1 + stack).contiguous()


def _unflat(flat: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., pixels * channels] as [..., channels, *pixels]."""
    channels, *pixels = shape
    return torch.unflatten(flat, -1, (*pixels, channels)).movedim(-1, -len(shape))


def _empty(like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return empty_channels_last(like, shape[0], shape[1:], dtype)


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``total += left @ right`` of matrices or of stacks of them, in float32 where the factors are of lower precision."""
    if total.dtype != left.dtype:
        return total.add_(left @ right)
    return total.addmm_(left, right) if total.ndim == 2 else total.baddbmm_(left, right)


def accumulate(out: torch.Tensor, values: torch.Tensor, *, beta: float, alpha: float) -> None:
    """``out = beta * out + alpha * values``; what ``out`` holds does not matter where ``beta`` is 0."""
    if beta == 0:
        out.zero_()
    elif beta != 1:
        out.mul_(beta)
    out.add_(values, alpha=alpha)


def signed(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Decorator: keep the signature with the function. ``apply`` asks for it at every call, and Python would work it out anew."""
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward


class _Bilinear(torch.autograd.Function):
    """A product of two of the three: inputs, weights, output gradients."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        *factors, ctx.kernels = inputs
        ctx.save_for_backward(*factors)
        ctx.save_for_forward(*factors)

    @classmethod
    def jvp(cls, ctx: Any, along_left: torch.Tensor, along_right: torch.Tensor, _: None) -> torch.Tensor:
        left, right = ctx.saved_tensors
        moved: torch.Tensor = cls.apply(along_left, right, ctx.kernels) + cls.apply(left, along_right, ctx.kernels)
        return moved

    @classmethod
    def vmap(
        cls, info: Any, in_dims: tuple[int | None, ...], left: torch.Tensor, right: torch.Tensor, kernels: Kernels
    ) -> tuple[torch.Tensor, int]:
        stacked = in_dims[0] is not None, in_dims[1] is not None
        left, right = (x if dim is None else x.movedim(dim, 0) for x, dim in zip((left, right), in_dims, strict=False))
        return cls.over_stacks(left, right, kernels, stacked), 0

    @classmethod
    @abstractmethod
    def over_stacks(cls, left: torch.Tensor, right: torch.Tensor, kernels: Kernels, stacked: tuple[bool, bool]) -> torch.Tensor:
        """The products of stacks; of factors that are not ``stacked``, with the same one every time."""


class _OfWeight(_Bilinear):
    """A product of activations and a weight."""

    @classmethod
    def over_stacks(cls, left: torch.Tensor, right: torch.Tensor, kernels: Kernels, stacked: tuple[bool, bool]) -> torch.Tensor:
        if not stacked[1]:
            return torch.unflatten(cls.apply(left.flatten(0, 1), right, kernels), 0, left.shape[:2])
        return cls.joined(_flat(left, stack=stacked[0]), right, kernels, stacked)

    @staticmethod
    @abstractmethod
    def joined(flat: torch.Tensor, weight: torch.Tensor, kernels: Kernels, stacked: tuple[bool, bool]) -> torch.Tensor:
        """The product in ordinary operations."""


class _Product(_OfWeight):
    """Inputs and weights to outputs."""

    @staticmethod
    @signed
    def forward(x: torch.Tensor, weight: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        y = _empty(x, kernels.output_shape, x.dtype)
        kernels.write_outputs(_flat(y), _flat(x), weight.contiguous())
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gx = _InputGradient.apply(grad, weight, ctx.kernels) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.kernels) if ctx.needs_input_grad[1] else None
        return gx, gw, None

    @staticmethod
    def joined(flat: torch.Tensor, weight: torch.Tensor, kernels: Kernels, stacked: tuple[bool, bool]) -> torch.Tensor:
        return _unflat(kernels.joins.outputs(flat, weight, stacked=stacked), kernels.output_shape)


class _InputGradient(_OfWeight):
    """Output gradients and weights to input gradients."""

    @staticmethod
    @signed
    def forward(grad: torch.Tensor, weight: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        # Summed in float32 where the products are of lower precision, so that a sum is rounded once.
        exact = torch.promote_types(grad.dtype, torch.float32)
        gx = _empty(grad, kernels.input_shape, exact)
        kernels.write_input_gradient(_flat(gx), _flat(grad), weight.contiguous())
        return gx.to(grad.dtype)

    @staticmethod
    def backward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        grad, weight = ctx.saved_tensors
        gy = _Product.apply(x, weight, ctx.kernels) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.kernels) if ctx.needs_input_grad[1] else None
        return gy, gw, None

    @staticmethod
    def joined(flat: torch.Tensor, weight: torch.Tensor, kernels: Kernels, stacked: tuple[bool, bool]) -> torch.Tensor:
        return _unflat(kernels.joins.input_gradient(flat, weight, stacked=stacked), kernels.input_shape)


class _WeightGradient(_Bilinear):
    """Inputs and output gradients to weight gradients."""

    @staticmethod
    @signed
    def forward(x: torch.Tensor, grad: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        gw = x.new_empty(kernels.weight_shape)
        kernels.accumulate_weights(gw, _flat(x), _flat(grad), beta=0.0, alpha=1.0)
        return gw

    @staticmethod
    def backward(ctx: Any, weight: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, grad = ctx.saved_tensors
        gx = _InputGradient.apply(grad, weight, ctx.kernels) if ctx.needs_input_grad[0] else None
        gy = _Product.apply(x, weight, ctx.kernels) if ctx.needs_input_grad[1] else None
        return gx, gy, None

    @classmethod
    def over_stacks(cls, left: torch.Tensor, right: torch.Tensor, kernels: Kernels, stacked: tuple[bool, bool]) -> torch.Tensor:
        flat = _flat(left, stack=stacked[0]), _flat(right, stack=stacked[1])
        return torch.unflatten(kernels.joins.weight_gradient(*flat, stacked=stacked).flatten(1), 1, kernels.weight_shape)


class _FusedProduct(torch.autograd.Function):
    """A product that descends in its weight on the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, kernels: Kernels, update: Update) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.kernels, ctx.update = kernels, update
        return _Product.forward(x, weight, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        kernels, update = ctx.kernels, ctx.update
        gx = _InputGradient.forward(grad, weight, kernels) if ctx.needs_input_grad[0] else None
        gw = None
        if ctx.needs_input_grad[1] and (update.uses > 1 or not weight.is_contiguous()):
            gw = _WeightGradient.forward(x, grad, kernels)
        elif ctx.needs_input_grad[1]:
            beta, grad, alpha = update.factors(weight, grad)
            kernels.accumulate_weights(weight, _flat(x), _flat(grad), beta=beta, alpha=alpha)
            update.done = True
        return gx, gw, None, None
