"""Networks of every kind, small, in float64, with numbers everywhere that could be equal by default."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

import anarch_core
from anarch_core.alignment import symmetries
from anarch_core.alignment.slots import move
from anarch_core.models import build_model

SHAPES = {"cnn1d": (1, 20), "vanilla-cnn": (1, 28, 28), "resnet20": (1, 8, 8), "separable": (1, 20), "pruned-mlp": (1, 12)}
OPTIONS = {
    "cnn1d": {"channels": 5},
    "vanilla-cnn": {"channels": 4},
    "separable": {"channels": 6, "blocks": 2},
    "pruned-mlp": {"hidden": (7, 5), "pruned": 0.0},
}


def network(name: str, relaxation: str | None = None, *, seed: int = 0, **options: object) -> tuple[nn.Module, torch.Tensor]:
    """A model of the project, relaxed or not, that was moved off its initialisation; and some inputs."""
    shape = SHAPES[name]
    model = build_model(name, input_shape=shape, classes=3, options={**OPTIONS.get(name, {}), **options} or None, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    if relaxation is not None:
        layers = ["features.stage1.0.*", "features.stage2.0.*"] if name == "resnet20" else "*"
        model = anarch_core.relax(model, relaxation, example_input=x, layers=layers).model
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval(), x


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def permuted(model: nn.Module, x: torch.Tensor, seed: int = 1) -> nn.Module:
    """A copy with every group of its channels in a random order."""
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for group in symmetries(model, x).groups:
        move(group, torch.randperm(group.size, generator=generator), tensors(copied))
    return copied


def equal(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks hold the same numbers, to the bit."""
    return all(torch.equal(tensor, tensors(b)[name]) for name, tensor in tensors(a).items())


def difference(a: nn.Module, b: nn.Module, x: torch.Tensor) -> float:
    """Of what they compute, at most, beside the largest."""
    with torch.no_grad():
        expected = a(x)
        return float((b(x) - expected).abs().max() / expected.abs().max())


def distance(a: nn.Module, b: nn.Module) -> float:
    """Of their parameters."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return math.sqrt(sum(float((p.detach() - q.detach()).square().sum()) for p, q in pairs))
