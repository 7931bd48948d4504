"""Plain stochastic gradient descent inside the backward pass.

The gradient of a dense weight is a matrix product, δᵀx, and plain descent adds a multiple of it to the weight. So the update is one
product that accumulates into the weight, W ← (1 − ηλ) W − η δᵀx: no gradient is ever stored, and the weight is read and written once
instead of the three passes of a gradient that is written, read and added. The step is that of ``torch.optim.SGD`` up to rounding.

A weight may be changed only when nothing will read its old value any more. That is so once its layer's input gradient is computed,
provided that the layer was used once; where it was used more often, its gradient is left to the optimizer as usual.

Under bfloat16 autocast a card takes the same product of operands that were rounded as autocast rounds them: TF32 holds such numbers
exactly, so that it goes straight into a weight of float32, at the price of reading it.

Where the whole gradient is to be shortened first, descent waits for its norm; where the norm is only to be known, it is told on the way,
and the steps are the same to the bit. That of one weight's gradient is known without the gradient:
‖δᵀx‖² is the sum of (δδᵀ) ∘ (xxᵀ), two products over the samples of a batch, which are few beside the weights of a dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import attrs
import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from anarch_core.float32_products import float32_products
from anarch_core.ops import sparse_product

ROUNDED_ON = frozenset({"cuda"})
"""Kinds of devices on which descent goes with bfloat16 autocast; a processor has no product of rounded operands that is worth it."""

Norms = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Parameters, each with the norm of its gradient."""


@attrs.define(eq=False)
class Update:
    """What the backward pass of one step is to do to one weight.

    Attributes:
        learning_rate: η; a scalar on the device where a recorded step is to read it there, see :mod:`anarch_core.training.captured`.
        weight_decay: λ.
        whole: where the norm of the whole gradient is asked for; None if it is not.
        uses: products the weight took part in.
        done: the weight was changed, or its step is among those that wait.
        rounded: the factors of its gradient are numbers of bfloat16.
    """

    learning_rate: float | torch.Tensor
    weight_decay: float
    whole: Whole | None = None
    uses: int = 0
    done: bool = False
    rounded: bool = False

    @property
    def numbers(self) -> tuple[float, float]:
        """β = 1 − ηλ and α = −η of a step W ← β W + α δᵀx; a rate on the device is waited for."""
        rate = float(self.learning_rate)
        return 1.0 - rate * self.weight_decay, -rate

    def factors(self, weight: torch.Tensor, grad: torch.Tensor) -> tuple[float, torch.Tensor, float]:
        """What such a step is to be made of, β, δ and α, without waiting for the device.

        Products take no factor from there, so a rate that is on the device is taken into δ, and the weight shrunk before.

        Args:
            weight: W; shrunk where the rate is on the device.
            grad: δ.
        """
        rate = self.learning_rate
        if not isinstance(rate, torch.Tensor):
            beta, alpha = self.numbers
            return beta, grad, alpha
        if self.weight_decay:
            weight.mul_(1.0 - rate * self.weight_decay)
        return 1.0, grad * rate, -1.0

    @property
    def waits(self) -> bool:
        """Whether the weight may not be changed before the norm of the whole gradient is known."""
        return self.whole is not None and self.whole.waits


@attrs.frozen(eq=False)
class Whole:
    """What the norm of a step's whole gradient needs to know of weights whose gradients are not kept.

    Attributes:
        largest: norm to which a longer gradient is shortened, so that no weight is changed before the norm is known; None where it is only
            asked for.
        joined: gives the norm of the whole gradient of parameters with the norms of theirs, where this process has a part of some; None
            where it has all of all.
        norms: of the gradients of weights that have descended, with them.
        descents: the steps that wait.
    """

    largest: float | None
    joined: Callable[[Norms], torch.Tensor] | None = None
    norms: list[tuple[torch.Tensor, torch.Tensor]] = attrs.field(factory=list)
    descents: list[Descent] = attrs.field(factory=list)

    @property
    def waits(self) -> bool:
        """Whether steps wait for the norm."""
        return self.largest is not None

    def told(self, descent: Descent) -> None:
        """Of a step that waits, or will be taken now."""
        if self.waits:
            self.descents.append(descent)
        else:
            self.norms.append((descent.weight, descent.norm()))


@attrs.frozen(eq=False)
class Descent:
    """A step of one weight that waits for a factor: W ← (1 − ηλ) W − η c δᵀx.

    Attributes:
        weight: [outputs, inputs].
        grad: δ, of the layer's outputs, [batch, outputs].
        x: its inputs, [batch, inputs].
        update: η and λ.
    """

    weight: torch.Tensor
    grad: torch.Tensor
    x: torch.Tensor
    update: Update

    def norm(self) -> torch.Tensor:
        """The 2-norm of the gradient, a scalar."""
        return ((self.grad @ self.grad.t()) * (self.x @ self.x.t())).sum().clamp_(min=0).sqrt()

    def take(self, factor: torch.Tensor) -> None:
        """Take the step, with the gradient times a scalar."""
        _descend(self.weight, self.grad * factor, self.x, self.update)


_updates: ContextVar[Mapping[torch.Tensor, Update] | None] = ContextVar("updates", default=None)


def is_plain_sgd(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step only adds a multiple of the gradient and shrinks the weights."""
    return type(optimizer) is torch.optim.SGD and not any(
        group["momentum"] or group["maximize"] or group["differentiable"] for group in optimizer.param_groups
    )


def is_watched(weight: torch.Tensor) -> bool:
    """Whether somebody wants to see the gradient of a weight on its way, or to change it there."""
    return bool(weight._backward_hooks or weight._post_accumulate_grad_hooks)


def has_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether any parameter has one."""
    return any(weight.grad is not None for group in optimizer.param_groups for weight in group["params"])


def has_descended(optimizer: torch.optim.Optimizer) -> bool:
    """Whether plain descent has no step left to take, because ``backward`` took all of it, and nobody waits for one."""
    watched = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return is_plain_sgd(optimizer) and not watched and not has_gradients(optimizer)


@contextmanager
def fused_sgd(optimizer: torch.optim.Optimizer, whole: Whole | None = None) -> Iterator[None]:
    """Inside, one training step: one forward pass, one ``backward``, then ``optimizer.step()``.

    Under plain SGD the weights of fully and locally connected layers that are used once are updated by ``backward`` itself, and their
    ``grad`` stays None, so that ``step`` passes over them; with any other optimizer nothing changes. Outside, ``backward`` never touches
    a weight.

    Args:
        optimizer: whose learning rate and weight decay apply.
        whole: gets what ``backward`` leaves out of the gradients, for :func:`clip_norm`.
    """
    updates: dict[torch.Tensor, Update] = {}
    if is_plain_sgd(optimizer):
        for group in optimizer.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            updates.update({weight: Update(_in_range(rate, weight), decay, whole) for weight in group["params"] if not is_watched(weight)})
    token = _updates.set(updates)
    try:
        yield
    finally:
        _updates.reset(token)


@torch.no_grad()
def clip_norm(optimizer: torch.optim.Optimizer, whole: Whole) -> torch.Tensor:
    """Shorten the whole gradient to a 2-norm where that is wanted, and take the steps that waited for it; nothing waits for the device.

    Returns the norm that it had.

    Args:
        optimizer: of the parameters; what has no gradient has none, or ``whole`` knows of it.
        whole: see :func:`fused_sgd`; where no descent waits and this process has all of the parameters, all is as in
            :func:`torch.nn.utils.clip_grad_norm_`, else equal to rounding.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
    if whole.largest is not None and not whole.descents and whole.joined is None:
        return clip_grad_norm_(parameters, whole.largest)
    gradients = [parameter.grad for parameter in parameters]
    waiting = [(descent.weight, descent.norm()) for descent in whole.descents]
    norms = [*zip(parameters, map(torch.linalg.vector_norm, gradients), strict=True), *whole.norms, *waiting]
    norm: torch.Tensor
    norm = torch.linalg.vector_norm(torch.stack([one for _, one in norms])) if whole.joined is None else whole.joined(norms)
    if whole.largest is not None:
        factor = (whole.largest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
        for descent in whole.descents:
            descent.take(factor)
    return norm


@torch.no_grad()
def add_the_rest(optimizer: torch.optim.Optimizer) -> None:
    """Inside :func:`fused_sgd`, after ``backward``: complete the steps of weights that others used, too, by whatever operations.

    Such a weight has a gradient, beside the one that it descended along; the optimizer would shrink it a second time.
    """
    updates = _updates.get() or {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if weight.grad is not None and (update := updates.get(weight)) is not None and update.done and not update.waits:
                rate = update.learning_rate
                if isinstance(rate, torch.Tensor):
                    weight.sub_(weight.grad * rate)
                else:
                    weight.add_(weight.grad, alpha=-rate)
                weight.grad = None


def _in_range(rate: float | torch.Tensor, weight: torch.Tensor) -> float | torch.Tensor:
    """A learning rate beyond the numbers of a weight is infinite, as it is for the optimizer; products would refuse it."""
    if isinstance(rate, torch.Tensor):
        return rate
    return float(rate) if rate <= torch.finfo(weight.dtype).max else math.inf


def planned_update(x: torch.Tensor, weight: torch.Tensor) -> Update | None:
    """What is to be done to a weight that is about to be multiplied with ``x``; None where its gradient is to be computed as usual.

    So it is wherever :func:`planned_updates` says so, and where the norm of the whole gradient is asked for.

    Raises:
        RuntimeError: inside :func:`fused_sgd`, after ``backward``.
    """
    return planned_updates(x, (weight,), tells=False)[0]


def planned_updates(x: torch.Tensor, weights: Sequence[torch.Tensor], *, tells: bool) -> list[Update | None]:
    """Likewise of several weights of one dtype, all of them parameters of what ``x`` is given to.

    Gradients are computed as usual in a traced graph, which would hold on to the rate of one step, and under ``torch.func``, which has
    gradients of its own; also where the norm of the whole gradient is asked for, unless the caller's backward pass tells that of its own
    before it descends (``tells``), and where descent waits for it.
    """
    updates = _of_this_step(x)
    return [_taken_on(updates.get(weight), x, weight, tells=tells, may_wait=False) for weight in weights]


def _of_this_step(x: torch.Tensor, *, rounded: bool = False) -> Mapping[torch.Tensor, Update]:
    """Of the weights that are to descend in what ``x`` takes part in, under autocast if it is ``rounded``; empty outside of a step."""
    updates = None if torch.compiler.is_compiling() else _updates.get()
    if not updates or not torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type) != rounded:
        return {}
    return {} if torch._C._are_functorch_transforms_active() else updates


def _taken_on(update: Update | None, x: torch.Tensor, weight: torch.Tensor, *, tells: bool, may_wait: bool) -> Update | None:
    if update is None or (x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type)):
        return None
    if update.whole is not None and not (may_wait if update.waits else tells):
        return None
    if update.done:
        msg = "backward has updated this weight already; a step under fused_sgd is one forward pass, one backward pass and optimizer.step()"
        raise RuntimeError(msg)
    update.uses += 1
    return update


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``functional.linear``, whose backward pass inside :func:`fused_sgd` updates the weight.

    Args:
        x: [batch, inputs].
        weight: [outputs, inputs].
        bias: [outputs] or None.
    """
    rounded = _is_rounded(x, weight)
    update = _of_this_step(x, rounded=rounded).get(weight)
    if update is not None:  # only then are sizes compared: in a traced graph they are unknown, and stay so
        cheap = len(x) * sum(weight.shape) < weight.numel()  # to know the norm of the gradient without the gradient
        update = _taken_on(update, x, weight, tells=cheap, may_wait=cheap)
    if update is None:
        return functional.linear(x, weight, bias)
    update.rounded = rounded
    y: torch.Tensor = _FusedLinear.apply(x.bfloat16() if rounded else x, weight, bias, update)
    return y


def _is_rounded(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether autocast rounds the operands of a product to bfloat16, and descent goes with it."""
    device = x.device.type
    return (
        device in ROUNDED_ON
        and weight.dtype == torch.float32
        and torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.bfloat16
    )


class _FusedLinear(torch.autograd.Function):
    """A dense product that descends in its weight on the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, update: Update) -> torch.Tensor:
        operand = weight.to(x.dtype)
        ctx.save_for_backward(x, weight, operand)
        ctx.update = update
        return functional.linear(x, operand, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None]:
        x, weight, operand = ctx.saved_tensors
        update: Update = ctx.update
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        gx = _product(grad, operand) if needs_x else None
        x, grad = x.to(weight.dtype), grad.to(weight.dtype)
        gb = grad.sum(0) if needs_bias else None
        gw = None
        if needs_weight and update.uses > 1:
            gw = grad.t() @ x
        elif needs_weight:
            if update.whole is not None:
                update.whole.told(Descent(weight, grad, x, update))
            if not update.waits:
                _descend(weight, grad, x, update)
            update.done = True
        return gx, gw, gb, None


def _product(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``grad @ weight``, the input gradient."""
    gx = grad.new_empty(len(grad), weight.shape[1])
    if sparse_product.pays(grad, weight, gx):
        sparse_product.add_product(gx, grad, weight, beta=0.0, alpha=1.0)
        return gx
    return torch.mm(grad, weight, out=gx)


def _descend(weight: torch.Tensor, grad: torch.Tensor, x: torch.Tensor, update: Update) -> None:
    """W ← (1 − ηλ) W − η δᵀx."""
    keep, grad, alpha = update.factors(weight, grad)
    left = grad.t()
    if sparse_product.pays(left, x, weight):
        sparse_product.add_product(weight, left, x, beta=keep, alpha=alpha)
        return
    with float32_products(tf32=True) if update.rounded else nullcontext():
        weight.addmm_(left, x, beta=keep, alpha=alpha)
