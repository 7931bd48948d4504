"""Small networks of one shape, as the branches of a run are: trained one by one, in two processes, and as one batched network.

MNIST-1D, batch 100; each sibling has its own weights and its own order of batches. Times are those of one step of one network. What is
written by hand is as little as there can be, and keeps neither losses nor scores, as the loop does: batched it tells the most that anarch
could gain, and beside the same code on one sibling after another what batching gives of that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import processes
import torch
from measure import OURS, Case, Step, Table, figures
from small import BATCH, NAMES, RATE, SHAPE, STEPS, data, loop, network
from stacked import Stacked
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from anarch_core.data.order import epoch_order

PROCESSES = 2
COUNTS = (1, 4, 16)
RELAXATIONS = ("conv", "efcn", "lcn")
REPEATS = 8

Weights = Callable[[], dict[str, torch.Tensor]]
"""The weights of all siblings, stacked, by name."""

Contender = Callable[[str, Sequence[int]], tuple[Step, Weights]]
"""Of a relaxation and seeds: what trains these siblings for some steps, and their weights."""


def batches(seeds: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs [siblings, batch, *shape] and labels [siblings, batch] for ever, in the order each sibling meets alone."""
    x, y = data()
    epoch = 0
    while True:
        orders = torch.stack([epoch_order(len(y), seed, epoch) for seed in seeds])
        for rows in torch.split(orders, BATCH, dim=1):
            yield x.index_select(0, rows.flatten()).view(len(seeds), BATCH, *SHAPE), y[rows]
        epoch += 1


def one_by_one(relaxation: str, seeds: Sequence[int]) -> tuple[Step, Weights]:
    """The loop that ``anarch run`` runs, sibling after sibling."""
    models = [network(relaxation, seed) for seed in seeds]
    loops = [loop(model, seed=seed) for seed, model in zip(seeds, models, strict=True)]
    return lambda: [each.advance(each.iteration + STEPS) for each in loops], lambda: stack_module_state(models)[0]


def mapped(relaxation: str, seeds: Sequence[int]) -> tuple[Step, Weights]:
    """``vmap`` over stacked weights and autograd."""
    models = [network(relaxation, seed) for seed in seeds]
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


def by_hand(relaxation: str, seeds: Sequence[int]) -> tuple[Step, Weights]:
    """One batched product for each layer and direction, into memory that lies ready, descending on the way back."""
    stacked = Stacked([network(relaxation, seed) for seed in seeds], BATCH)
    feed = batches(seeds)

    @torch.no_grad()
    def step() -> None:
        for _ in range(STEPS):
            stacked.step(*next(feed), RATE)

    return step, stacked.weights


def by_hand_one_by_one(relaxation: str, seeds: Sequence[int]) -> tuple[Step, Weights]:
    """The same code on one sibling after another: what is left between this and :func:`by_hand` is what batching gives."""
    steps, weights = zip(*(by_hand(relaxation, [seed]) for seed in seeds), strict=True)

    def stacked() -> dict[str, torch.Tensor]:
        each = [own() for own in weights]
        return {name: torch.cat([own[name] for own in each]) for name in each[0]}

    return lambda: [step() for step in steps], stacked


def in_processes(contender: Contender, relaxation: str, count: int) -> Step:
    """The siblings divided among processes of one thread each, as ``--jobs`` does; a single one has one of its own."""
    shares = (range(number, count, PROCESSES) for number in range(min(PROCESSES, count)))
    return processes.in_processes(step_of, [(contender, relaxation, share) for share in shares])


def step_of(contender: Contender, relaxation: str, seeds: Sequence[int]) -> Step:
    """What trains the siblings, without their weights."""
    step, _ = contender(relaxation, seeds)
    return step


def with_threads(threads: int, contender: Contender, relaxation: str, count: int) -> Step:
    """In this process, with so many threads."""
    step = step_of(contender, relaxation, range(count))

    def taken() -> None:
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            step()
        finally:
            torch.set_num_threads(usual)

    return taken


WAYS: dict[str, Callable[[str, int], Step]] = {
    f"{OURS}, one by one, 1 thread": functools.partial(with_threads, 1, one_by_one),
    f"{OURS}, in {PROCESSES} processes of 1 thread": functools.partial(in_processes, one_by_one),
    f"by hand, one by one, in {PROCESSES} processes of 1 thread": functools.partial(in_processes, by_hand_one_by_one),
    "batched by vmap, torch.optim.SGD, 2 threads": functools.partial(with_threads, 2, mapped),
    "batched by hand, 1 thread": functools.partial(with_threads, 1, by_hand),
    "batched by hand, 2 threads": functools.partial(with_threads, 2, by_hand),
    f"batched by hand, in {PROCESSES} processes of 1 thread": functools.partial(in_processes, by_hand),
}
"""How siblings are trained; given a relaxation and how many there are."""


def case(relaxation: str, count: int) -> Case:
    contenders = {name: functools.partial(way, relaxation, count) for name, way in WAYS.items()}
    return Case(f"{count} siblings, {NAMES[relaxation]}", contenders, flops=0, bytes=0, memory=False, steps=count * STEPS)


def tables() -> Iterator[Table]:
    """One for each kind of network, siblings by their number."""
    for relaxation in RELAXATIONS:
        found = {count: figures(case(relaxation, count), REPEATS) for count in COUNTS}
        rows = [(name, *(f"{1e3 * found[count][name].best:.2f} ms" for count in COUNTS)) for name in WAYS]
        title = f"one step of one of several {NAMES[relaxation]}s on MNIST-1D, batch {BATCH}; two cores"
        yield Table(title, ("siblings", *map(str, COUNTS)), rows)
