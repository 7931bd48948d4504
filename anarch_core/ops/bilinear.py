"""Layers that are linear in their inputs and in their weights, by whatever kernels take their three products fastest.

The gradients of such a layer are products of the same kind, and so are the gradients of its gradients: the three functions below are each
other's derivatives, to any order. Activations pass through them channels last.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable

from anarch_core.ops.fused import Update, planned_update
from anarch_core.ops.memory_format import empty_channels_last


class Kernels(Protocol):
    """The products of one layer. Activations are [batch, pixels * channels], contiguous; weights are contiguous.

    Attributes:
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: of the weight.
    """

    @property
    def input_shape(self) -> tuple[int, ...]: ...  # noqa: D102 (described by the class)

    @property
    def output_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def weight_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write the outputs into y, whose type is that of x and the weight."""

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write the input gradient into gx, in float32 where the output gradient and the weight are of lower precision."""

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``; what ``out`` holds does not matter where ``beta`` is 0."""


def bilinear_product(x: torch.Tensor, weight: torch.Tensor, kernels: Kernels) -> torch.Tensor:
    """The outputs of a layer; differentiable to any order.

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


def _flat(x: torch.Tensor) -> torch.Tensor:
    """[batch, channels, *pixels] as [batch, pixels * channels]; a view where the channels are last in memory."""
    return x.movedim(1, -1).flatten(1).contiguous()


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


class _Bilinear(torch.autograd.Function):
    """A product of two of the three: inputs, weights, output gradients."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        *factors, ctx.kernels = inputs
        ctx.save_for_backward(*factors)


class _Product(_Bilinear):
    """Inputs and weights to outputs."""

    @staticmethod
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


class _InputGradient(_Bilinear):
    """Output gradients and weights to input gradients."""

    @staticmethod
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


class _WeightGradient(_Bilinear):
    """Inputs and output gradients to weight gradients."""

    @staticmethod
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
            kernels.accumulate_weights(weight, _flat(x), _flat(grad), beta=update.keep, alpha=-update.learning_rate)
            update.done = True
        return gx, gw, None, None
