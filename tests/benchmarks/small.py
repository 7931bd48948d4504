"""A training step of the small networks of the default run, where calls cost more than products: MNIST-1D, batch 100."""

from __future__ import annotations

import functools

import torch
from measure import OURS, Case, Step
from torch import nn
from torch.nn import functional

from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax
from anarch_core.training.loop import Training

BATCH, RATE, STEPS = 100, 0.01, 20


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(BATCH * STEPS, 1, 40, generator=generator), torch.randint(10, (BATCH * STEPS,), generator=generator)


def network(relaxation: str) -> nn.Module:
    model = build_model("cnn1d", input_shape=(1, 40), classes=10)
    return model if relaxation == "conv" else relax(model, relaxation, example_input=data()[0][:2], check=False).model


def ours(relaxation: str) -> Step:
    """An epoch of the loop that ``anarch run`` runs."""
    x, y = data()
    model = network(relaxation)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)
    training = Training(model=model, optimizer=optimizer, x=x, y=y, batch_size=BATCH, seed=0, learning_rate=lambda _: RATE)
    return lambda: training.advance(training.iteration + STEPS)


def plain(relaxation: str) -> Step:
    """The same network under autograd and ``torch.optim.SGD``, without reading batches."""
    x, y = data()
    model = network(relaxation)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> None:
        for inputs, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    return step


def case() -> Case:
    return Case(
        title=f"{STEPS} training steps on MNIST-1D, batch {BATCH}",
        contenders={
            "convolutions, torch.optim.SGD": functools.partial(plain, "conv"),
            "eFCN, torch.optim.SGD": functools.partial(plain, "efcn"),
            f"eFCN, {OURS}": functools.partial(ours, "efcn"),
            "LCN, torch.optim.SGD": functools.partial(plain, "lcn"),
            f"LCN, {OURS}": functools.partial(ours, "lcn"),
        },
        flops=0,
        bytes=0,
        memory=False,
    )
