"""A training step never waits for the device: nothing in it reads a number back, and no result's shape depends on numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from anarch_core.models import build_model
from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation.verbs import relax
from anarch_core.training.averages import RunningAverage
from anarch_core.training.loop import Training
from tests.training.recorded import waits

OPTIMIZERS = [("sgd", {}), ("sgd", {"momentum": 0.9, "weight_decay": 1e-3}), ("adam", {}), ("adamw", {})]


class NoSynchronisation(TorchDispatchMode):
    """Refuses every operation for which a host would wait for its GPU.

    Copies to the host do not show on a CPU; a GPU's own check sees them too.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waits(func, args):
            msg = f"{func} waits for the device"
            raise AssertionError(msg)
        return func(*args, **(kwargs or {}))


def training(model: nn.Module, optimizer: tuple[str, dict[str, object]] = OPTIMIZERS[0], **settings: object) -> Training:
    registry = get_registry()
    info = registry.find("optimizer", optimizer[0])
    made = registry.target(info)(list(model.named_parameters()), 0.01, registry.parse_options(info, optimizer[1]))
    device = next(model.parameters()).device
    x, y = torch.randn(60, 1, 16, device=device), torch.arange(60, device=device) % 3
    return Training(model=model, optimizer=made, x=x, y=y, batch_size=10, seed=0, learning_rate=lambda step: 0.01 / (1 + step), **settings)


def relaxed(relaxation: str) -> nn.Module:
    model = build_model("cnn1d", input_shape=(1, 16), classes=3)
    return relax(model, relaxation, example_input=torch.randn(2, 1, 16)).model


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_clipped_and_averaged_steps_wait_for_nothing(relaxation: str) -> None:
    model = relaxed(relaxation)
    loop = training(model, clip_norm=0.1, average=RunningAverage(model, "ema", 0.9, 6))
    loop.advance(1)
    with NoSynchronisation():
        loop.advance(5)
    assert loop.iteration == 5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_steps_inside_an_epoch_wait_for_nothing(relaxation: str, optimizer: tuple[str, dict[str, object]], precision: str) -> None:
    loop = training(relaxed(relaxation), optimizer, precision=precision)
    loop.advance(1)
    with NoSynchronisation():
        loop.advance(5)
    assert loop.iteration == 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_steps_on_a_gpu_wait_for_nothing(relaxation: str, optimizer: tuple[str, dict[str, object]]) -> None:
    loop = training(relaxed(relaxation).cuda(), optimizer)
    loop.advance(1)
    loop._step(torch.arange(10, device="cuda"), None)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop._step(torch.arange(10, device="cuda"), None)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Waiting(nn.Module):
    """Does something to its input, or to the gradient on the way back."""

    def __init__(self, forward: Callable[[torch.Tensor], object] = id, backward: Callable[[torch.Tensor], object] = id) -> None:
        super().__init__()
        self.done = forward, backward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        forward, backward = self.done
        forward(x)
        if x.requires_grad:
            x.register_hook(lambda grad: (backward(grad), None)[1])
        return x


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: t.sum().item(),
        lambda t: bool((t > 0).any()),
        lambda t: t.nonzero(),
        lambda t: t[t > 0],
        lambda t: torch.equal(t, t),
        lambda t: t.detach().unique(),
        lambda t: t.detach().clone().index_put_((t > 0,), torch.zeros(())),
    ],
)
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_that_waits_is_caught(wait: Callable[[torch.Tensor], object], where: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), Waiting(**{where: wait}), nn.Linear(8, 3))
    loop = training(model)
    loop.advance(1)
    with NoSynchronisation(), pytest.raises(AssertionError, match="waits for the device"):
        loop.advance(5)


def test_the_end_of_an_epoch_waits() -> None:
    loop = training(relaxed("efcn"))
    loop.advance(6)
    with NoSynchronisation(), pytest.raises(AssertionError, match="waits for the device"):
        loop.end_epoch()
