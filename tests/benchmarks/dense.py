"""One training step of the VanillaCNN embedded in its fully connected network, batch 250."""

from __future__ import annotations

import functools
import importlib.util
from unittest import mock

import torch
from measure import OURS, PRODUCTS, Case, Step
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from anarch_core.models import build_model
from anarch_core.ops import sparse_product
from anarch_core.relaxation.verbs import relax
from anarch_core.training.loop import Training

BATCH, SIDE, RATE = 250, 32, 0.01
# (channels, side, padding) of the input and (channels, side) of the output of the three layers
LAYERS = [((3, 32, 2), (64, 17)), ((64, 8, 2), (64, 8)), ((64, 3, 1), (64, 3))]


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2 * BATCH, 3, SIDE, SIDE, generator=generator), torch.randint(10, (2 * BATCH,), generator=generator)


class Padded(nn.Module):
    """A dense layer between a padded map and a map, as published."""

    def __init__(self, source: tuple[int, int, int], target: tuple[int, int]) -> None:
        super().__init__()
        channels, side, padding = source
        self.pad = nn.ZeroPad2d(padding)
        self.target = (target[0], target[1], target[1])
        self.linear = nn.Linear(channels * (side + 2 * padding) ** 2, target[0] * target[1] ** 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.pad(x).flatten(1)).view(-1, *self.target)


def plain_network(padded: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for (channels, side, padding), target in LAYERS:
        source = (channels, side, padding) if padded else (channels, side, 0)
        parts += [Padded(source, target), nn.ReLU(), nn.MaxPool2d(3, 2)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(64, 10))


def plain(padded: bool) -> Step:
    return descending(plain_network(padded))


def descending(model: nn.Module) -> Step:
    """What one writes without thinking of speed: autograd, ``torch.optim.SGD``, a ``DataLoader``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    loader = DataLoader(TensorDataset(*data()), batch_size=BATCH, shuffle=True)
    batches = iter(())

    def step() -> None:
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        x, y = batch
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def ours(relaxation: str) -> Step:
    """The loop that ``anarch run`` runs."""
    x, y = data()
    model = relax(build_model("vanilla-cnn", input_shape=(3, SIDE, SIDE), classes=10), relaxation, example_input=x[:2], check=False).model
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)
    training = Training(model=model, optimizer=optimizer, x=x, y=y, batch_size=BATCH, seed=0, learning_rate=lambda _: RATE)
    return lambda: training.advance(training.iteration + 1)


def without_skipping() -> Step:
    """The same where Numba is not installed."""
    step = ours("efcn")

    def dense_step() -> None:
        with mock.patch.object(sparse_product, "pays", lambda *_: False):  # noqa: PT008 (a mock keeps what it is called with)
            step()

    return dense_step


def products() -> Step:
    """The matrix products of a step and nothing else: outputs, input gradients where they are needed, updates in place."""
    operands = []
    for (channels, side, _), (outputs, size) in LAYERS:
        weight = torch.randn(outputs * size**2, channels * side**2) / 100
        x, grad = torch.randn(BATCH, weight.shape[1]), torch.randn(BATCH, weight.shape[0]) / 1000
        operands.append((weight, x, grad, torch.empty_like(grad), torch.empty_like(x)))

    def step() -> None:
        for number, (weight, x, grad, y, gx) in enumerate(operands):
            torch.mm(x, weight.t(), out=y)
            if number:
                torch.mm(grad, weight, out=gx)
            weight.addmm_(grad.t(), x, alpha=-1e-9)

    return step


def case() -> Case:
    weights = [outputs * size**2 * channels * side**2 for (channels, side, _), (outputs, size) in LAYERS]
    products_per_weight = [2, 3, 3]  # the first layer's input needs no gradient
    return Case(
        title="eFCN training step, VanillaCNN, batch 250",
        contenders={
            "plain: padded nn.Linear": functools.partial(plain, True),
            "plain: padding folded in": functools.partial(plain, False),
            **({"anarch, without Numba": without_skipping} if importlib.util.find_spec("numba") else {}),
            OURS: functools.partial(ours, "efcn"),
            PRODUCTS: products,
        },
        flops=sum(2 * BATCH * count * weight for count, weight in zip(products_per_weight, weights, strict=True)),
        bytes=sum(4 * (count + 1) * weight for count, weight in zip(products_per_weight, weights, strict=True)),
    )
