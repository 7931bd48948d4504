"""Builds ``torch.optim.Adam`` and ``torch.optim.AdamW``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anarch_plugins.optimizers.adam.options import AdamOptions, AdamWOptions

NamedParameters = Sequence[tuple[str, torch.nn.Parameter]]


def build_adam(parameters: NamedParameters, lr: float, options: AdamOptions) -> torch.optim.Optimizer:
    """Adam for the parameters of ``(name, parameter)`` pairs, without state yet; one kernel per parameter and step."""
    return torch.optim.Adam(_tensors(parameters), lr, _betas(options), options.eps, options.weight_decay, fused=True)


def build_adamw(parameters: NamedParameters, lr: float, options: AdamWOptions) -> torch.optim.Optimizer:
    """AdamW for the parameters of ``(name, parameter)`` pairs, without state yet; one kernel per parameter and step."""
    return torch.optim.AdamW(_tensors(parameters), lr, _betas(options), options.eps, options.weight_decay, fused=True)


def _tensors(parameters: NamedParameters) -> list[torch.nn.Parameter]:
    return [parameter for _, parameter in parameters]


def _betas(options: AdamOptions) -> tuple[float, float]:
    first, second = options.betas
    return first, second
