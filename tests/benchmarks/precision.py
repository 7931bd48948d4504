"""What TF32 and bfloat16 do to the exactness of a lift, and to how far the relaxed network then moves.

TF32 is emulated: operands of products and convolutions are rounded to 10 bits of mantissa, sums stay in float32. What this cannot show
is the order of summation on a GPU.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from measure import Table
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from anarch_core.config.values import Precision
from anarch_core.layers.base import relaxed_layers
from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax
from anarch_core.training.loop import Training
from anarch_core.training.precision import dtype_of

aten = torch.ops.aten
# Which arguments of a product are its operands; what it adds to is not rounded.
OPERANDS = {
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.mv: (0, 1),
    aten.addmm: (1, 2),
    aten.addmm_: (1, 2),
    aten.baddbmm: (1, 2),
    aten.baddbmm_: (1, 2),
    aten.convolution: (0, 1),
    aten.convolution_backward: (0, 1, 2),
}
NAMES: dict[Precision, str] = {"float64": "float64", "float32": "float32", "tf32": "TF32, emulated", "bfloat16": "bfloat16 autocast"}
BATCH, STEPS, RATE = 50, 10, 0.05


def tf32(x: torch.Tensor) -> torch.Tensor:
    """Rounded to the nearest number with 10 bits of mantissa, halves to even; float32 only."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class EmulatedTF32(TorchDispatchMode):
    """Inside, products of float32 tensors are taken of rounded operands, in both directions."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        rounded = list(args)
        for index in OPERANDS.get(func.overloadpacket, ()):
            if args[index].dtype == torch.float32:
                rounded[index] = tf32(args[index])
        return func(*rounded, **(kwargs or {}))


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Products of a network's forward pass as in training at that precision."""
    with contextlib.ExitStack() as stack:
        if precision == "tf32":
            stack.enter_context(EmulatedTF32())
        if precision == "bfloat16":
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        yield


@torch.no_grad()
def outputs(model: nn.Module, x: torch.Tensor, precision: Precision) -> torch.Tensor:
    with products_in(precision):
        return model(x).double()


def disagreement(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest number."""
    return float((actual - expected).abs().max() / expected.abs().max())


def moved(model: nn.Module, x: torch.Tensor, y: torch.Tensor, precision: Precision) -> tuple[float, float]:
    """Norms outside of the receptive fields (δ) and of what is not shared within them, over that of the weights, after some steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)
    loop = Training(model=model, optimizer=optimizer, x=x, y=y, batch_size=BATCH, seed=0, learning_rate=lambda _: RATE, precision=precision)
    # What autocast does is part of the loop; what TF32 does is a setting of the GPU's, so that it is emulated from outside.
    with products_in("tf32") if precision == "tf32" else contextlib.nullcontext():
        loop.advance(STEPS)
    drifts = [layer.drift() for layer in relaxed_layers(model).values()]
    total = sum(drift.total for drift in drifts)
    return math.sqrt(sum(d.off_local for d in drifts) / total), math.sqrt(sum(d.unshared for d in drifts) / total)


def samples(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten noisy patterns, smooth like images."""
    generator = torch.Generator().manual_seed(0)
    patterns = functional.interpolate(torch.randn(10, shape[0], 4, 4, generator=generator), shape[1:], mode="bilinear")
    y = torch.arange(BATCH * STEPS) % 10
    return patterns[y] + torch.randn(len(y), *shape, generator=generator), y


def tables(channels: int = 64, side: int = 32) -> Iterator[Table]:
    x, y = samples((3, side, side))
    options = {"channels": channels}
    parent = build_model("vanilla-cnn", input_shape=(3, side, side), classes=10, options=options, seed=0).eval()
    exact = outputs(copy.deepcopy(parent).double(), x[:BATCH].double(), "float64")
    rows: list[tuple[str, ...]] = []
    for precision, name in NAMES.items():
        x, parent = x.to(dtype_of(precision)), parent.to(dtype_of(precision))
        expected = outputs(parent, x[:BATCH], precision)
        cells = [f"{disagreement(expected, exact):.1e}"]
        for relaxation in "efcn", "lcn":
            model = relax(parent, relaxation, example_input=x[:2], check=False).model
            cells.append(f"{disagreement(outputs(model, x[:BATCH], precision), expected):.1e}")
            off_local, unshared = moved(model, x, y, precision)
            cells += [f"{off_local:.5f}", f"{unshared:.5f}"] if relaxation == "efcn" else [f"{unshared:.5f}"]
        rows.append((name, *cells))
    columns = ("", "CNN against float64", "eFCN against CNN", "δ", "unshared", "LCN against CNN", "unshared")
    yield Table(f"precision: a fresh lift of the VanillaCNN, and drift after {STEPS} steps", columns, rows)
