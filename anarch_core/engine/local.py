"""The product of a locally connected layer, with nothing unfolded.

Activations are held pixel by pixel, [*pixels, channels, batch]. What one position reads of consecutive pixels of the last axis is then
one contiguous (taps · channels) × batch block, and so are the weights it is multiplied by. Neighbouring positions read overlapping blocks
at a fixed distance, so a strip of positions is one batched matrix product on overlapping views, and the layer is a sum of such products:
one per strip and row of the kernel. Nothing is copied but the activations themselves, once, into that order.

The layer is linear in its inputs and in its weights, so the gradients are products of the same kind over the same blocks, and the
gradients of the gradients too: the three functions below are each other's derivatives, to any order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from anarch_core.engine.fused import Update, planned_update
from anarch_core.engine.local_plan import Block, LocalPlan, Part, local_plan
from anarch_core.geometry import ConvGeometry

# On a CPU PyTorch transposes large matrices well, and moves whole rows well, but is several times slower at both in one step. Some samples
# are transposed at a time, so that the matrix between the two steps stays in a cache.
LARGE, SLICE = 2**18, 64


def local_product(x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
    """Sum over each position's own receptive field with its own weights; differentiable to any order.

    Args:
        x: [batch, in_channels, *input size].
        weight: [*pairs of each axis, groups, in_channels / groups, out_channels / groups], the pairs of an axis ordered by position,
            then pixel.
        geometry: of the layer.

    Returns:
        [batch, out_channels, *output size] with the batch last in memory; under autocast of autocast's dtype.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = (tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in (x, weight))
    x, plan, update = _pixel_major(x), local_plan(geometry), planned_update(x, weight)
    y: torch.Tensor = _Product.apply(x, weight, plan) if update is None else _FusedProduct.apply(x, weight, plan, update)
    return y


def _pixel_major(x: torch.Tensor) -> torch.Tensor:
    """The same tensor [batch, channels, *pixels], contiguous as [*pixels, channels, batch]: a memory format, like channels-last."""
    if x.permute(*range(2, x.ndim), 1, 0).is_contiguous():
        return x
    y: torch.Tensor = _PixelMajor.apply(x)
    return y


def _empty(like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> torch.Tensor:
    """An uninitialised pixel-major tensor [batch, *shape]; not a view, so that it may be changed in place by those who get it."""
    batch, (channels, *pixels) = like.shape[0], shape
    strides = [math.prod(pixels[k + 1 :]) * channels * batch for k in range(len(pixels))]
    return torch.empty_strided((batch, *shape), (1, batch, *strides), dtype=dtype or like.dtype, device=like.device)


class _PixelMajor(torch.autograd.Function):
    """The identity, into the pixel-major layout."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = _empty(x, tuple(x.shape[1:]))
        rows = y.permute(*range(2, y.ndim), 1, 0).flatten(0, -3)  # [pixels, channels, batch]
        if x.device.type != "cpu" or x.numel() <= LARGE:
            rows.copy_(x.flatten(2).permute(2, 1, 0))
            return y
        for target, samples in zip(torch.split(rows, SLICE, 2), torch.split(x, SLICE), strict=True):
            transposed = samples.flatten(1).t().contiguous()
            target.copy_(transposed.view(x.shape[1], -1, len(samples)).transpose(0, 1))
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


class _Product(torch.autograd.Function):
    """Inputs and weights to outputs."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor, plan: LocalPlan) -> torch.Tensor:
        weight = weight.contiguous()
        y = _accumulator(x, plan.output_shape)
        if not plan.complete:
            y.zero_()
        for block in plan.blocks:
            x_rows = _gathered([_inputs(x, block, part) for part in block.parts])
            w_rows = _gathered([_weights(weight, block, part) for part in block.parts])
            _add_product(_outputs(y, block), w_rows.transpose(1, 2), x_rows, overwrite=block.first)
        return y.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, weight, ctx.plan = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = _pixel_major(grad)
        gx = _InputGradient.apply(grad, weight, ctx.plan) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.plan) if ctx.needs_input_grad[1] else None
        return gx, gw, None


class _InputGradient(torch.autograd.Function):
    """Output gradients and weights to input gradients."""

    @staticmethod
    def forward(grad: torch.Tensor, weight: torch.Tensor, plan: LocalPlan) -> torch.Tensor:
        weight = weight.contiguous()
        gx = _accumulator(grad, plan.input_shape).zero_()
        for block in plan.blocks:
            y_rows = _outputs(grad, block)
            if len(block.parts) == 1:
                x_rows, w_rows, stagger = (
                    _inputs(gx, block, block.parts[0]),
                    _weights(weight, block, block.parts[0]),
                    block.stagger(block.parts[0]),
                )
                for k in range(stagger):  # neighbours overlap, and no call may write to one place twice
                    _add_product(x_rows[k::stagger], w_rows[k::stagger], y_rows[k::stagger])
                continue
            product = torch.bmm(_gathered([_weights(weight, block, part) for part in block.parts]), y_rows)
            for part, rows in zip(block.parts, torch.split(product, [part.rows for part in block.parts], 1), strict=True):
                x_rows, stagger = _inputs(gx, block, part), block.stagger(part)
                for k in range(stagger):
                    x_rows[k::stagger].add_(rows[k::stagger])
        return gx.to(grad.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        grad, weight, ctx.plan = inputs
        ctx.save_for_backward(grad, weight)

    @staticmethod
    def backward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        grad, weight = ctx.saved_tensors
        x = _pixel_major(x)
        gy = _Product.apply(x, weight, ctx.plan) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, grad, ctx.plan) if ctx.needs_input_grad[1] else None
        return gy, gw, None


class _WeightGradient(torch.autograd.Function):
    """Inputs and output gradients to weight gradients."""

    @staticmethod
    def forward(x: torch.Tensor, grad: torch.Tensor, plan: LocalPlan) -> torch.Tensor:
        gw = x.new_empty(plan.weight_shape)
        _accumulate_weights(gw, x, grad, plan, beta=0.0, alpha=1.0)
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


class _FusedProduct(torch.autograd.Function):
    """A product that descends in its weight on the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, plan: LocalPlan, update: Update) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.plan, ctx.update = plan, update
        return _Product.forward(x, weight, plan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        plan, update = ctx.plan, ctx.update
        grad = _pixel_major(grad)
        gx = _InputGradient.forward(grad, weight, plan) if ctx.needs_input_grad[0] else None
        gw = None
        if ctx.needs_input_grad[1] and (update.uses > 1 or not weight.is_contiguous()):
            gw = _WeightGradient.forward(x, grad, plan)
        elif ctx.needs_input_grad[1]:
            _accumulate_weights(weight, x, grad, plan, beta=update.keep, alpha=-update.learning_rate)
            update.done = True
        return gx, gw, None, None


def _accumulate_weights(out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, plan: LocalPlan, *, beta: float, alpha: float) -> None:
    """``out = beta * out + alpha * gradient``, weight by weight once; what ``out`` holds does not matter where ``beta`` is 0."""
    for block in plan.blocks:
        y_columns = _outputs(grad, block).transpose(1, 2)
        if len(block.parts) == 1:
            _weights(out, block, block.parts[0]).baddbmm_(_inputs(x, block, block.parts[0]), y_columns, beta=beta, alpha=alpha)
            continue
        product = torch.bmm(_gathered([_inputs(x, block, part) for part in block.parts]), y_columns)
        for part, rows in zip(block.parts, torch.split(product, [part.rows for part in block.parts], 1), strict=True):
            weights = _weights(out, block, part)
            if beta == 0:
                weights.zero_()
            elif beta != 1:
                weights.mul_(beta)
            weights.add_(rows, alpha=alpha)


def _accumulator(like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A pixel-major tensor to sum into; float32 where the products are of lower precision, so that a sum is rounded once."""
    return _empty(like, shape, torch.promote_types(like.dtype, torch.float32))


def _add_product(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, overwrite: bool = False) -> None:
    """``out += left @ right``, or ``=``."""
    if out.dtype == left.dtype:
        out.baddbmm_(left, right, beta=0 if overwrite else 1)
    elif overwrite:
        out.copy_(torch.bmm(left, right))
    else:
        out.add_(torch.bmm(left, right))


def _gathered(parts: list[torch.Tensor]) -> torch.Tensor:
    """Parts [count, rows of the part, n] side by side, [count, rows, n]; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _inputs(x: torch.Tensor, block: Block, part: Part) -> torch.Tensor:
    """[count, rows, batch] of pixel-major inputs; overlapping where positions share pixels."""
    batch = x.shape[0]
    return x.as_strided((block.count, part.rows, batch), (block.x_step * batch, batch, 1), x.storage_offset() + part.x_start * batch)


def _outputs(y: torch.Tensor, block: Block) -> torch.Tensor:
    """[count, outputs, batch] of pixel-major outputs."""
    batch = y.shape[0]
    return y.as_strided((block.count, block.outputs, batch), (block.y_step * batch, batch, 1), y.storage_offset() + block.y_start * batch)


def _weights(weight: torch.Tensor, block: Block, part: Part) -> torch.Tensor:
    """[count, rows, outputs]."""
    size = (block.count, part.rows, block.outputs)
    return weight.as_strided(size, (block.w_step, block.outputs, 1), weight.storage_offset() + part.w_start)
