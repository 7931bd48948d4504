"""Small networks of one shape on a card, as the branches of a run are: captured one by one, stacked, and in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from measure import Step, Table
from on_card import RATE, Size, epochs_of, milliseconds, seconds_of, training, wait
from processes import in_processes
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from anarch_core.config.values import Capture
from anarch_core.data.order import epoch_order
from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax
from anarch_core.training.graphs import graphs_on

SIGNAL, SIGNALS = (1, 40), 100


def signals(size: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = SIGNALS * size.steps
    return torch.randn(count, *SIGNAL, generator=generator).to(device), torch.randint(10, (count,), generator=generator).to(device)


def small(relaxation: str, device: torch.device, seed: int = 0) -> nn.Module:
    model = build_model("cnn1d", input_shape=SIGNAL, classes=10, seed=seed).to(device)
    example = torch.zeros(2, *SIGNAL, device=device)
    return model if relaxation == "cnn" else relax(model, relaxation, example_input=example, check=False).model


def one_by_one(relaxation: str, seeds: Sequence[int], size: Size, device: torch.device, capture: Capture) -> Step:
    loops = [epochs_of(training(small(relaxation, device, seed), signals(size, device), SIGNALS, "float32", capture)) for seed in seeds]
    return lambda: [step() for step in loops]


def compiled(relaxation: str, seeds: Sequence[int], size: Size, device: torch.device) -> Step:
    """``torch.compile(mode="reduce-overhead")``, which captures graphs of its own."""
    x, y = signals(size, device)
    every = []
    for seed in seeds:
        model = small(relaxation, device, seed)
        every.append((torch.compile(model, mode="reduce-overhead"), torch.optim.SGD(model.parameters(), lr=RATE, fused=True)))

    def step() -> None:
        for model, optimizer in every:
            for rows in torch.arange(len(y), device=device).split(SIGNALS):
                optimizer.zero_grad()
                cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()

    return step


def stacked(relaxation: str, seeds: Sequence[int], size: Size, device: torch.device) -> Step:
    """All siblings as one network whose weights are stacked, by ``vmap``, in one captured step; in ordinary ones without a card."""
    x, y = signals(size, device)
    models = [small(relaxation, device, seed) for seed in seeds]
    weights, buffers = stack_module_state(models)
    optimizer = torch.optim.SGD(weights.values(), lr=RATE, fused=True)
    orders = torch.stack([epoch_order(len(y), seed, 0) for seed in seeds]).to(device)
    rows = orders[:, :SIGNALS].clone()

    def loss(weights: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(models[0], (weights, buffers), (x,)), y)

    def step() -> None:
        optimizer.zero_grad()
        given = x.index_select(0, rows.flatten()).view(len(seeds), SIGNALS, *SIGNAL)
        vmap(loss)(weights, buffers, given, y[rows]).sum().backward()
        optimizer.step()

    play: Step = step
    if (graphs := graphs_on(device)) is not None:
        with graphs.aside(waits=True):
            step()
        optimizer.zero_grad()
        play = graphs.record(step)

    def epoch() -> None:
        for batch in orders.split(SIGNALS, dim=1):
            rows.copy_(batch)
            play()

    return epoch


def waited_for(relaxation: str, seeds: Sequence[int], size: Size, device: torch.device) -> Step:
    """Captured, one by one, until the device is done."""
    step = one_by_one(relaxation, seeds, size, device, "auto")
    return lambda: (step(), wait(device))


def divided(relaxation: str, seeds: Sequence[int], size: Size, device: torch.device, count: int) -> Step:
    """Divided among processes, as ``--jobs`` does; each captures."""
    return in_processes(waited_for, [(relaxation, list(seeds)[number::count], size, device) for number in range(count)])


def siblings(device: torch.device, size: Size) -> Iterator[Table]:
    """Small networks of one shape: what a step of one of several takes."""
    for relaxation in ("efcn", "cnn"):
        ways: dict[str, Callable[[Sequence[int]], Step]] = {
            "captured, one by one": lambda seeds, of=relaxation: one_by_one(of, seeds, size, device, "auto"),
            "not captured, one by one": lambda seeds, of=relaxation: one_by_one(of, seeds, size, device, "off"),
            "stacked by vmap, one captured step": lambda seeds, of=relaxation: stacked(of, seeds, size, device),
            **{
                f"captured, in {count} processes": lambda seeds, of=relaxation, count=count: divided(of, seeds, size, device, count)
                for count in (size.processes if relaxation == "efcn" else ())
            },
        }
        if device.type == "cuda" and relaxation == "cnn":
            ways["torch.compile, reduce-overhead"] = lambda seeds, of=relaxation: compiled(of, seeds, size, device)
        rows = []
        for name, way in ways.items():
            cells = []
            for count in size.siblings:
                few = count < max(size.siblings) and name.endswith("processes")  # which take long to begin
                many = count > 1 and name.startswith("torch.compile")
                cells.append("" if few or many else _measured(lambda way=way, count=count: way(range(count)), device, count * size.steps))
            rows.append((name, *cells))
        title = f"a step of one of several {relaxation}s on MNIST-1D, batch {SIGNALS}"
        yield Table(title, ("siblings", *map(str, size.siblings)), rows)


def _measured(make: Callable[[], Step], device: torch.device, count: int) -> str:
    """In a cell; a way that fails says how, and the others go on."""
    try:
        return milliseconds(seconds_of(make(), device, count))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
