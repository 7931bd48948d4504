"""Embedding the VanillaCNN in its fully connected network."""

from __future__ import annotations

import torch
from dense import LAYERS
from measure import OURS, Case, Step

from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax

SIZES = [(outputs * size**2, channels * side**2) for (channels, side, _), (outputs, size) in LAYERS]


def ours() -> Step:
    model = build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10)
    x = torch.randn(2, 3, 32, 32)
    return lambda: relax(model, "efcn", example_input=x, check=False)


def write() -> Step:
    """The result written once, with no thought of what."""
    return lambda: [torch.zeros(size).fill_(1.0) for size in SIZES]


def loop() -> Step:
    """Position by position into padded matrices, as published."""
    model = build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]

    @torch.no_grad()
    def step() -> None:
        for conv, ((channels, side, padding), (outputs, size)) in zip(convolutions, LAYERS, strict=True):
            wide, k, stride = side + 2 * padding, conv.kernel_size[0], conv.stride[0]
            matrix = torch.zeros(outputs, size, size, channels, wide, wide)
            for i in range(size):
                for j in range(size):
                    matrix[:, i, j, :, i * stride : i * stride + k, j * stride : j * stride + k] = conv.weight

    return step


def case() -> Case:
    numbers = sum(rows * columns for rows, columns in SIZES)
    return Case(
        title="lift of the VanillaCNN to its eFCN",
        contenders={"published loop": loop, OURS: ours, "write the result once": write},
        flops=0,
        bytes=4 * numbers,
    )
