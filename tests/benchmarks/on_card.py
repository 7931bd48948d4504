"""What the benchmarks on a card have in common: sizes, the time of a step, and the loop that `anarch run` runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import torch
from measure import Step
from torch import nn

from anarch_core.config.values import Capture, Precision
from anarch_core.training.loop import Training
from anarch_core.training.precision import dtype_of

RATE = 1e-4
SECONDS = 0.4
"""For which a step is repeated, at least."""


@attrs.frozen
class Size:
    """How large what is measured is.

    Attributes:
        channels: of the VanillaCNN.
        batch: samples of a step.
        steps: of an epoch.
        matrix: side of the products that tell the rate.
        siblings: numbers of small networks that are trained at once.
        processes: numbers of processes that they are divided among.
    """

    channels: int = 64
    batch: int = 250
    steps: int = 40
    matrix: int = 8192
    siblings: Sequence[int] = (1, 4, 16)
    processes: Sequence[int] = (2, 4)


SMALL = Size(channels=4, batch=20, steps=4, matrix=256, siblings=(1, 2), processes=(2,))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(step: Step, device: torch.device, count: int = 1, budget: float = SECONDS) -> float:
    """The best of some rounds, per step; the first two are not counted."""
    step()
    step()
    wait(device)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < budget or best == float("inf"):
        started = time.perf_counter()
        step()
        wait(device)
        best = min(best, time.perf_counter() - started)
    return best / count


def training(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor], batch: int, precision: Precision, capture: Capture) -> Training:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)
    x, y = data
    return Training(
        model=model, optimizer=optimizer, x=x.to(dtype_of(precision)), y=y, batch_size=batch, seed=0,
        learning_rate=lambda _: RATE, precision=precision, capture=capture, chained=x.device.type == "cpu",
    )  # fmt: skip


def epochs_of(loop: Training) -> Step:
    return lambda: loop.advance(loop.iteration + loop.iterations_per_epoch)


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3f} ms"
