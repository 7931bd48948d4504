"""Ten small networks of one shape, as the branches of a run are: trained one by one, as one batched network, and in two processes.

MNIST-1D's eFCN, batch 100; each sibling has its own weights and its own order of batches. Times are those of one step of one network.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

import torch
from measure import OURS, Case, Step
from small import BATCH, RATE, STEPS, data
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from anarch_core.data.order import epoch_order
from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax
from anarch_core.training.loop import Training

SIBLINGS, PROCESSES = 10, 2

Weights = Callable[[], dict[str, torch.Tensor]]
"""The weights of all siblings, stacked, by name."""


def network(seed: int) -> nn.Module:
    model = build_model("cnn1d", input_shape=(1, 40), classes=10, seed=seed)
    return relax(model, "efcn", example_input=data()[0][:2], check=False).model


def batches(seeds: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs [siblings, batch, 1, length] and labels [siblings, batch] for ever, in the order each sibling meets alone."""
    x, y = data()
    epoch = 0
    while True:
        orders = torch.stack([epoch_order(len(y), seed, epoch) for seed in seeds])
        for rows in torch.split(orders, BATCH, dim=1):
            yield x[rows], y[rows]
        epoch += 1


def one_by_one(seeds: Sequence[int]) -> tuple[Step, Weights]:
    """The loop that ``anarch run`` runs, sibling after sibling."""
    x, y = data()
    models = [network(seed) for seed in seeds]
    loops = [
        Training(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=RATE, fused=True),
            x=x,
            y=y,
            batch_size=BATCH,
            seed=seed,
            learning_rate=lambda _: RATE,
        )
        for seed, model in zip(seeds, models, strict=True)
    ]
    return lambda: [loop.advance(loop.iteration + STEPS) for loop in loops], lambda: stack_module_state(models)[0]


def mapped(seeds: Sequence[int]) -> tuple[Step, Weights]:
    """``vmap`` over stacked weights and autograd."""
    models = [network(seed) for seed in seeds]
    weights, buffers = stack_module_state(models)
    optimizer = torch.optim.SGD(weights.values(), lr=RATE, fused=True)
    feed = batches(seeds)

    def loss(weights: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(functional_call(models[0], (weights, buffers), (x,)), y)

    def step() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            vmap(loss)(weights, buffers, *next(feed)).sum().backward()
            optimizer.step()

    return step, lambda: weights


def multiplied(seeds: Sequence[int]) -> tuple[Step, Weights]:
    """As few calls as there can be: one batched product for each layer and direction, the weights updated by the product itself."""
    weights = {name: tensor.detach() for name, tensor in stack_module_state([network(seed) for seed in seeds])[0].items()}
    layers = list(zip(list(weights.values())[::2], list(weights.values())[1::2], strict=True))
    feed = batches(seeds)

    @torch.no_grad()
    def step() -> None:
        for _ in range(STEPS):
            x, y = next(feed)
            read = [x.flatten(2)]
            for weight, bias in layers:
                y_hat = torch.baddbmm(bias.unsqueeze(1), read[-1], weight.transpose(1, 2))
                read.append(y_hat.relu())
            grad = y_hat.softmax(2).sub_(functional.one_hot(y, y_hat.shape[2])).div_(BATCH)
            for number, (weight, bias) in reversed(list(enumerate(layers))):
                below = torch.bmm(grad, weight).mul_(read[number] > 0) if number else grad
                weight.baddbmm_(grad.transpose(1, 2), read[number], alpha=-RATE)
                bias.sub_(grad.sum(1), alpha=RATE)
                grad = below

    return step, lambda: weights


def side_by_side() -> Step:
    """The siblings divided among processes of one thread each, as ``--jobs`` does."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for number in range(PROCESSES):
        here, there = context.Pipe()
        context.Process(target=_serve, args=(there, range(number, SIBLINGS, PROCESSES)), daemon=True).start()
        there.close()
        pipes.append(here)

    def step() -> None:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    return step


def _serve(pipe: Connection, seeds: Sequence[int]) -> None:
    """Take steps as long as somebody asks for them."""
    torch.set_num_threads(1)
    step, _ = one_by_one(seeds)
    try:
        while pipe.recv():
            step()
            pipe.send(True)
    except EOFError:
        return


def _step(contender: Callable[[Sequence[int]], tuple[Step, Weights]]) -> Step:
    return contender(range(SIBLINGS))[0]


def case() -> Case:
    return Case(
        title=f"one step of one of {SIBLINGS} eFCNs on MNIST-1D, batch {BATCH}",
        contenders={
            f"{OURS}, one by one": functools.partial(_step, one_by_one),
            f"{OURS}, in {PROCESSES} processes of one thread": side_by_side,
            "batched: vmap, torch.optim.SGD": functools.partial(_step, mapped),
            "batched: products alone, by hand": functools.partial(_step, multiplied),
        },
        flops=0,
        bytes=0,
        memory=False,
        reference=f"{OURS}, one by one",
        steps=SIBLINGS * STEPS,
    )
