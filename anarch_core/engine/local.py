"""The product of a locally connected layer, with nothing unfolded.

Activations are held pixel by pixel, [*pixels, channels, batch]. What one position reads of consecutive pixels of the last axis is then
one contiguous (taps · channels) × batch block, and so are the weights it is multiplied by. Neighbouring positions read overlapping blocks
at a fixed distance, so a strip of positions is one batched matrix product on overlapping views, and the layer is a sum of such products:
one per strip and row of the kernel. Nothing is copied but the activations themselves, once, into that order.

The layer is linear in its inputs and in its weights, so the gradients are products of the same kind over the same blocks, and the
gradients of the gradients too: the three functions below are each other's derivatives, to any order.
"""

from __future__ import annotations

from typing import Any

import torch

from anarch_core.engine.local_plan import Block, LocalPlan, local_plan
from anarch_core.geometry import ConvGeometry


def local_product(x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
    """Sum over each position's own receptive field with its own weights; differentiable to any order.

    Args:
        x: [batch, in_channels, *input size].
        weight: [*pairs of each axis, groups, in_channels / groups, out_channels / groups], the pairs of an axis ordered by position,
            then pixel.
        geometry: of the layer.

    Returns:
        [batch, out_channels, *output size], a view of a tensor whose last dimension is the batch; under autocast of autocast's dtype.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = (tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in (x, weight))
    d = len(geometry.axes)
    y: torch.Tensor = _Product.apply(_pixel_major(x), weight, local_plan(geometry))
    return y.view(*geometry.output_size, geometry.out_channels, -1).permute(d + 1, d, *range(d))


def _pixel_major(x: torch.Tensor) -> torch.Tensor:
    """[batch, channels, *pixels] as a contiguous [pixels * channels, batch]."""
    return x.flatten(2).permute(2, 1, 0).contiguous().flatten(0, 1)


class _Product(torch.autograd.Function):
    """Inputs and weights to outputs."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor, plan: LocalPlan) -> torch.Tensor:
        weight = weight.contiguous()
        y = _accumulator(x, plan.output_rows)
        for block in plan.blocks:
            _accumulate(_outputs(y, block), _weights(weight, block).transpose(1, 2), _inputs(x, block))
        return y.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, weight, ctx.plan = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        gx = _InputGradient.apply(grad, weight, ctx.plan) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.plan) if ctx.needs_input_grad[1] else None
        return gx, gw, None


class _InputGradient(torch.autograd.Function):
    """Output gradients and weights to input gradients."""

    @staticmethod
    def forward(grad: torch.Tensor, weight: torch.Tensor, plan: LocalPlan) -> torch.Tensor:
        weight = weight.contiguous()
        gx = _accumulator(grad, plan.input_rows)
        for block in plan.disjoint_blocks:
            _accumulate(_inputs(gx, block), _weights(weight, block), _outputs(grad, block))
        return gx.to(grad.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        grad, weight, ctx.plan = inputs
        ctx.save_for_backward(grad, weight)

    @staticmethod
    def backward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        grad, weight = ctx.saved_tensors
        x = x.contiguous()
        gy = _Product.apply(x, weight, ctx.plan) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.plan) if ctx.needs_input_grad[1] else None
        return gy, gw, None


class _WeightGradient(torch.autograd.Function):
    """Inputs and output gradients to weight gradients."""

    @staticmethod
    def forward(x: torch.Tensor, grad: torch.Tensor, plan: LocalPlan) -> torch.Tensor:
        gw = x.new_empty(plan.weight_shape)
        for block in plan.blocks:
            torch.bmm(_inputs(x, block), _outputs(grad, block).transpose(1, 2), out=_weights(gw, block))
        return gw

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, grad, ctx.plan = inputs
        ctx.save_for_backward(x, grad)

    @staticmethod
    def backward(ctx: Any, weight: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, grad = ctx.saved_tensors
        gx = _InputGradient.apply(grad, weight, ctx.plan) if ctx.needs_input_grad[0] else None
        gy = _Product.apply(x, weight, ctx.plan) if ctx.needs_input_grad[1] else None
        return gx, gy, None


def _accumulator(like: torch.Tensor, rows: int) -> torch.Tensor:
    """Zeros to sum into, [rows, batch]; float32 where the products are of lower precision, so that a sum is rounded once."""
    return like.new_zeros(rows, like.shape[1], dtype=torch.promote_types(like.dtype, torch.float32))


def _accumulate(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if out.dtype == left.dtype:
        out.baddbmm_(left, right)
    else:
        out.add_(torch.bmm(left, right))


def _inputs(x: torch.Tensor, block: Block) -> torch.Tensor:
    """[count, rows, batch] of [pixels * in_channels, batch]; overlapping where positions share pixels."""
    batch = x.shape[1]
    return x.as_strided((block.count, block.rows, batch), (block.x_step * batch, batch, 1), x.storage_offset() + block.x_start * batch)


def _outputs(y: torch.Tensor, block: Block) -> torch.Tensor:
    """[count, outputs, batch] of [positions * out_channels, batch]."""
    batch = y.shape[1]
    return y.as_strided((block.count, block.outputs, batch), (block.y_step * batch, batch, 1), y.storage_offset() + block.y_start * batch)


def _weights(weight: torch.Tensor, block: Block) -> torch.Tensor:
    """[count, rows, outputs]."""
    size = (block.count, block.rows, block.outputs)
    return weight.as_strided(size, (block.w_step, block.outputs, 1), weight.storage_offset() + block.w_start)
