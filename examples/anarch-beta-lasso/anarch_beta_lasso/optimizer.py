"""The optimizer ``beta-lasso``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import softshrink

from anarch_beta_lasso.options import BetaLassoOptions
from anarch_core.layers import relaxed_layers


class BetaLasso(torch.optim.Optimizer):
    """Plain SGD, and β-lasso for groups with a penalty λ > 0 (Neyshabur 2020, algorithm 1).

    * hard: θ ← θ − η (∇L + λ sign θ), then θ ← 0 where |θ| < βλ. The threshold does not shrink with the learning rate η, so a zero
      returns only by a single step of η |∇L| ≥ βλ: as η decays, zeros become absorbing.
    * soft: θ ← θ − η ∇L, then |θ| ← max(|θ| − ηλ, 0): the proximal step of the penalty. A zero returns as soon as |∇L| > λ, at any η.

    Args:
        groups: parameter groups; ``penalty`` is 0 where a group has none.
        lr: learning rate η.
        beta: β.
        threshold: ``"hard"`` or ``"soft"``.
    """

    def __init__(self, groups: list[dict[str, object]], lr: float, beta: float, threshold: str) -> None:
        super().__init__(groups, {"lr": lr, "penalty": 0.0})
        self.beta, self.threshold = beta, threshold

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:  # type: ignore[override]
        """One step for every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, penalty = group["lr"], group["penalty"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if penalty == 0:
                    weight.sub_(weight.grad, alpha=rate)
                elif self.threshold == "soft":
                    weight.copy_(softshrink(weight.sub_(weight.grad, alpha=rate), rate * penalty))
                else:
                    weight.sub_(weight.grad.add(weight.sign(), alpha=penalty), alpha=rate)
                    weight.masked_fill_(weight.abs() < self.beta * penalty, 0.0)
        return loss


def build(parameters: Sequence[tuple[str, nn.Parameter]], lr: float, options: BetaLassoOptions, model: nn.Module) -> torch.optim.Optimizer:
    """β-lasso on the weights of relaxed layers; biases, normalisations, heads and layers that were not relaxed follow plain SGD."""
    held = {
        id(parameter)
        for layer in relaxed_layers(model).values()
        for name, parameter in layer.named_parameters()
        if name.rpartition(".")[2] != "bias"
    }
    groups: list[dict[str, object]] = [
        {"params": [p for _, p in parameters if id(p) not in held]},
        {"params": [p for _, p in parameters if id(p) in held], "penalty": options.penalty},
    ]
    return BetaLasso([group for group in groups if group["params"]], lr, options.beta, options.threshold)
