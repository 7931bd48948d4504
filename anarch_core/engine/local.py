"""The product of a locally connected layer.

Activations are channels last in memory, the format in which PyTorch's element-wise and pooling layers are at their best too. Two sets of
kernels take the products: :mod:`anarch_core.engine.strips` on views, with nothing unfolded, and :mod:`anarch_core.engine.gathers` with
few calls.

The layer is linear in its inputs and in its weights, so the gradients are products of the same kind, and the gradients of the gradients
too: the three functions below are each other's derivatives, to any order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from anarch_core.engine.fused import Update, planned_update
from anarch_core.engine.gathers import Gathers, gather_plan
from anarch_core.engine.memory_format import empty_channels_last
from anarch_core.engine.strip_plan import strip_plan
from anarch_core.engine.strips import Strips
from anarch_core.geometry import ConvGeometry
from anarch_core.lattice import LCN, label_counts

CALL, GATHER = 10e-6, 2.5e-9  # seconds on a CPU: of one small product, and to gather a number and have it multiplied


def local_product(x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
    """Sum over each position's own receptive field with its own weights; differentiable to any order.

    Args:
        x: [batch, in_channels, *input size].
        weight: [*pairs of each axis, groups, in_channels / groups, out_channels / groups], the pairs of an axis ordered by position,
            then pixel.
        geometry: of the layer.

    Returns:
        [batch, out_channels, *output size], channels last in memory; under autocast of autocast's dtype.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = (tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in (x, weight))
    update = planned_update(x, weight)
    y: torch.Tensor = _Product.apply(x, weight, geometry) if update is None else _FusedProduct.apply(x, weight, geometry, update)
    return y


def _kernels(geometry: ConvGeometry, x: torch.Tensor) -> Strips | Gathers:
    """What takes the products of a batch fastest: on a GPU calls are dear and copies cheap; on a CPU it depends on how many of them."""
    if x.device.type != "cpu":
        return gather_plan(geometry, x.device)
    strips = strip_plan(geometry)
    gathered = math.prod(label_counts(LCN, geometry)) * (geometry.in_channels + geometry.out_channels) * len(x)
    return strips if strips.terms * CALL < gathered * GATHER else gather_plan(geometry, x.device)


def _flat(x: torch.Tensor) -> torch.Tensor:
    """[batch, channels, *pixels] as [batch, pixels * channels]; a view where the channels are last in memory."""
    return x.movedim(1, -1).flatten(1).contiguous()


class _Product(torch.autograd.Function):
    """Inputs and weights to outputs."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
        y = empty_channels_last(x, geometry.out_channels, geometry.output_size, x.dtype)
        _kernels(geometry, x).write_outputs(_flat(y), _flat(x), weight.contiguous())
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, weight, ctx.geometry = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gx = _InputGradient.apply(grad, weight, ctx.geometry) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.geometry) if ctx.needs_input_grad[1] else None
        return gx, gw, None


class _InputGradient(torch.autograd.Function):
    """Output gradients and weights to input gradients."""

    @staticmethod
    def forward(grad: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
        # Summed in float32 where the products are of lower precision, so that a sum is rounded once.
        exact = torch.promote_types(grad.dtype, torch.float32)
        gx = empty_channels_last(grad, geometry.in_channels, geometry.input_size, exact)
        _kernels(geometry, grad).write_input_gradient(_flat(gx), _flat(grad), weight.contiguous())
        return gx.to(grad.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        grad, weight, ctx.geometry = inputs
        ctx.save_for_backward(grad, weight)

    @staticmethod
    def backward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        grad, weight = ctx.saved_tensors
        gy = _Product.apply(x, weight, ctx.geometry) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.geometry) if ctx.needs_input_grad[1] else None
        return gy, gw, None


class _WeightGradient(torch.autograd.Function):
    """Inputs and output gradients to weight gradients."""

    @staticmethod
    def forward(x: torch.Tensor, grad: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
        groups, outputs, inputs = geometry.channel_block
        gw = x.new_empty(*label_counts(LCN, geometry), groups, inputs, outputs)
        _kernels(geometry, x).accumulate_weights(gw, _flat(x), _flat(grad), beta=0.0, alpha=1.0)
        return gw

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, grad, ctx.geometry = inputs
        ctx.save_for_backward(x, grad)

    @staticmethod
    def backward(ctx: Any, weight: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, grad = ctx.saved_tensors
        gx = _InputGradient.apply(grad, weight, ctx.geometry) if ctx.needs_input_grad[0] else None
        gy = _Product.apply(x, weight, ctx.geometry) if ctx.needs_input_grad[1] else None
        return gx, gy, None


class _FusedProduct(torch.autograd.Function):
    """A product that descends in its weight on the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry, update: Update) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.update = geometry, update
        return _Product.forward(x, weight, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        geometry, update = ctx.geometry, ctx.update
        gx = _InputGradient.forward(grad, weight, geometry) if ctx.needs_input_grad[0] else None
        gw = None
        if ctx.needs_input_grad[1] and (update.uses > 1 or not weight.is_contiguous()):
            gw = _WeightGradient.forward(x, grad, geometry)
        elif ctx.needs_input_grad[1]:
            kernels = _kernels(geometry, x)
            kernels.accumulate_weights(weight, _flat(x), _flat(grad), beta=update.keep, alpha=-update.learning_rate)
            update.done = True
        return gx, gw, None, None
