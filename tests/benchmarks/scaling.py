"""Step time and memory against width, image side and batch, and where each relaxation stops fitting.

    python tests/benchmarks/scaling.py [--threads N] [--plot FILE] [--json FILE] [--limits N]

The VanillaCNN and what it is relaxed to, trained by the loop that ``anarch run`` runs, each point in a fresh process, beside what
``anarch plan`` predicts and beside the floor: the larger of the FLOPs over the rate of a large matrix product and the bytes over the rate
of a large copy. Memory is looked at twice: what PyTorch's allocator gave out, and what the process held above the idle one, which is more,
since the C library keeps what was freed. Points that are predicted not to fit are not run.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import attrs
import measure
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from anarch_core.machine import available_bytes
from anarch_core.models import build_model
from anarch_core.network import network_bytes
from anarch_core.planning.rehearsal import Peak, Rehearsal
from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.verbs import relax
from anarch_core.training.loop import Training

NETWORKS = {"conv": "CNN", "efcn": "eFCN", "lcn": "LCN", "shared": "shared", "tiled": "tiled"}
BATCHES = 2  # that the data set has
RATE = 0.01


@attrs.frozen(kw_only=True)
class Point:
    """One network at one size.

    Attributes:
        network: a relaxation, or ``"conv"`` for none.
        width: channels of every convolution.
        side: of the square images.
        batch: samples per step.
    """

    network: str
    width: int = 64
    side: int = 32
    batch: int = 250


SWEEPS: Mapping[str, Sequence[int]] = {"width": (32, 64, 128), "side": (32, 48, 64), "batch": (50, 250, 1000)}
LABELS = {"width": "channels of each convolution", "side": "side of the images (pixels)", "batch": "samples per step"}
GIGABYTES = (8, 24)


@attrs.frozen(kw_only=True)
class Measured:
    """What a process took.

    Attributes:
        seconds: of each step, the first one left out.
        used: bytes given out by PyTorch's allocator, at the peak of a step.
        held: resident memory above the idle process at the peak of a step; None where it cannot be looked at.
    """

    seconds: Sequence[float]
    used: int
    held: int | None


@attrs.frozen(kw_only=True)
class Expected:
    """What is known beforehand.

    Attributes:
        memory: of a step with the data set, as ``anarch plan`` tells it.
        flops: floating-point operations of a step; those on zeros, which an eFCN may skip, included.
        bytes: that a step must at least move: every weight read by each product and written, every activation written and read.
    """

    memory: Peak
    flops: float
    bytes: float


def constrained(point: Point) -> nn.Module:
    return build_model("vanilla-cnn", input_shape=(3, point.side, point.side), classes=10, options={"channels": point.width})


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=RATE, fused=True)


def training(point: Point) -> Training:
    """The loop that ``anarch run`` runs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCHES * point.batch, 3, point.side, point.side, generator=generator)
    y = torch.randint(10, (len(x),), generator=generator)
    model = constrained(point)
    if point.network != "conv":
        model = relax(model, point.network, example_input=x[:2], check=False).model
    return Training(model=model, optimizer=optimizer(model), x=x, y=y, batch_size=point.batch, seed=0, learning_rate=lambda _: RATE)


def expected(point: Point) -> Expected:
    """What the step will take, found without allocating anything of it."""
    model = constrained(point)
    x, y = torch.zeros(2, 3, point.side, point.side), torch.zeros(2, dtype=torch.int64)
    rehearsal = Rehearsal(model)
    forward = _flops(model, x[:1])
    if point.network != "conv":
        found = Selection.of(model, point.network, x, "*", None, get_registry())
        rehearsal.relax(found)
        forward = {layer.path: layer.cost.flops for layer in found.report().layers}
    peak = rehearsal.training(optimizer, x, y, point.batch)
    data = BATCHES * point.batch * (x[0].nbytes + y[0].nbytes)
    weights = network_bytes(rehearsal.model)
    # Outputs, input gradients and updates; the input of the first layer needs no gradient.
    flops = point.batch * (3 * sum(forward.values()) - next(iter(forward.values())))
    return Expected(memory=peak.beyond(data), flops=flops, bytes=4 * weights + 2 * max(peak.used - weights, 0))


def _flops(model: nn.Module, x: torch.Tensor) -> dict[str, int]:
    """Floating-point operations of a forward pass by convolution."""
    counts: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):

            def count(module: nn.Module, given: tuple[torch.Tensor, ...], y: torch.Tensor, path: str = path) -> None:
                counts[path] = 2 * y[0].numel() * module.weight[0].numel()

            module.register_forward_hook(count)
    model(x)
    for module in model.modules():
        module._forward_hooks.clear()
    return counts


def measured(point: Point, threads: int, repeats: int) -> Measured | None:
    """Train in a fresh process; None where it died."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is quiet
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scaling"])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_worker, args=(point, threads, repeats, sender))
    child.start()
    sender.close()
    try:
        found: Measured = receiver.recv()
    except EOFError:
        return None
    finally:
        child.join()
    return found


def largest_side(network: str, memory: float, batch: int, step: int = 8) -> int:
    """The largest image side, a multiple of ``step``, at which a network of 64 channels is predicted to fit.

    Memory grows as a power of the side that is found on the way.
    """

    @functools.cache
    def needed(side: int) -> float:
        return expected(Point(network=network, side=side, batch=batch)).memory.held

    side, power = 64, 4.0 if network == "efcn" else 2.0
    tried: set[int] = set()
    while side not in tried:
        tried.add(side)
        guess = max(32, int(side * (memory / needed(side)) ** (1 / power)) // step * step)
        if guess != side:
            power = math.log(needed(guess) / needed(side)) / math.log(guess / side)
        side = guess
    while needed(side) > memory:
        side -= step
    return side


def _worker(point: Point, threads: int, repeats: int, sender: Connection) -> None:
    torch.set_num_threads(threads)
    _warm(point.network)
    linux = Path("/proc/self/clear_refs").exists()
    idle = measure.resident("VmRSS") if linux else 0
    loop = training(point)
    loop.advance(1)
    if linux:
        measure.forget_peak()
    seconds = [measure.seconds_of(lambda: loop.advance(loop.iteration + 1)) for _ in range(repeats)]
    held = measure.resident("VmHWM") - idle if linux else None
    sender.send(Measured(seconds=seconds, used=allocated(loop), held=held))  # the profiler takes memory of its own


def allocated(loop: Training) -> int:
    """Bytes given out by PyTorch's allocator at the peak of the next step."""
    lasting = [*loop.model.parameters(), *loop.model.buffers(), loop.x, loop.y]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        loop.advance(loop.iteration + 1)
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(tensor.nbytes for tensor in lasting) + max(itertools.accumulate(changes, initial=0))


def _warm(network: str) -> None:
    """Load all code before memory is looked at."""
    small = training(Point(network=network, width=4, side=28, batch=8))
    small.advance(1)
    if network == "efcn" and importlib.util.find_spec("numba"):
        from anarch_core.ops import sparse_product

        sparse_product.add_product(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), beta=0.0, alpha=1.0)


def sweep(axis: str) -> Iterator[Point]:
    for network in NETWORKS:
        for value in SWEEPS[axis]:
            yield Point(network=network, **{axis: value})


Results = dict[Point, tuple[Expected, Measured | None]]


def table(axis: str, results: Results, machine: measure.Machine) -> measure.Table:
    columns = (axis, "network", "best step", "floor", "allocated", "predicted", "ratio", "held", "predicted", "ratio")
    rows = []
    for point in sorted(sweep(axis), key=lambda point: (getattr(point, axis), list(NETWORKS).index(point.network))):
        before, found = results[point]
        floor = max(before.flops / machine.flops, before.bytes / machine.bytes)
        known = (found.used, found.held) if found else (None, None)
        memory = [cell for size, said in zip(known, (before.memory.used, before.memory.held), strict=True) for cell in _beside(size, said)]
        rows.append((str(getattr(point, axis)), NETWORKS[point.network], _time(found and min(found.seconds)), _time(floor), *memory))
    base = Point(network="conv")
    others = ", ".join(f"{name} {getattr(base, name)}" for name in SWEEPS if name != axis)
    return measure.Table(f"Against {axis} ({others})", columns, rows)


def _beside(size: int | None, said: int) -> tuple[str, str, str]:
    return ("not run", _size(said), "") if size is None else (_size(size), _size(said), f"{size / said:.2f}")


def _size(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def _time(seconds: float | None) -> str:
    return "not run" if seconds is None else f"{1e3 * seconds:,.0f} ms"


def limits(batch: int) -> measure.Table:
    """The largest image sides that fit."""
    columns = ("network", *(f"{memory} GB" for memory in GIGABYTES))
    rows = [(NETWORKS[network], *(str(largest_side(network, 1e9 * memory, batch)) for memory in GIGABYTES)) for network in NETWORKS]
    return measure.Table(f"Largest image side that fits, 64 channels, batch {batch}, predicted", columns, rows)


def plot(results: Results, path: Path) -> None:
    """Step time and memory against each axis; lines are what was predicted, dots what was measured."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(SWEEPS), figsize=(11, 6.5), sharey="row", sharex="col", layout="constrained")
    for column, (axis, values) in enumerate(SWEEPS.items()):
        for number, network in enumerate(NETWORKS):
            points = [Point(network=network, **{axis: value}) for value in values]
            ran = [(value, found) for value, point in zip(values, points, strict=True) if (found := results[point][1])]
            style = {"color": f"C{number}", "label": NETWORKS[network]}
            axes[0, column].plot([value for value, _ in ran], [min(found.seconds) for _, found in ran], "o-", **style)
            axes[1, column].plot(values, [results[point][0].memory.used / 1e9 for point in points], "-", color=style["color"])
            axes[1, column].plot([value for value, _ in ran], [found.used / 1e9 for _, found in ran], "o", **style)
            axes[1, column].plot([value for value, _ in ran], [(found.held or math.nan) / 1e9 for _, found in ran], "+", **style)
        for ax in axes[:, column]:
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xticks(values, [str(value) for value in values])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            ax.spines[["top", "right"]].set_visible(False)
        axes[1, column].set_xlabel(LABELS[axis])
    axes[0, 0].set_ylabel("time of a training step (s)")
    axes[1, 0].set_ylabel("peak memory (GB)\nlines predicted, dots allocated, crosses held")
    axes[0, 0].legend(fontsize=9, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=1, help="timed steps of each point")
    parser.add_argument("--json", type=Path, help="write what was predicted and measured here")
    parser.add_argument("--plot", type=Path, help="draw it here")
    parser.add_argument("--limits", type=int, metavar="BATCH", help="instead, print the largest image sides that fit at this batch")
    arguments = parser.parse_args()
    if arguments.limits:
        print(limits(arguments.limits).markdown())
        return
    torch.set_num_threads(arguments.threads)
    machine = measure.machine()
    print(f"PyTorch {torch.__version__}, {machine.threads} threads, {machine.flops / 1e9:.0f} GFLOP/s, {machine.bytes / 1e9:.1f} GB/s\n")
    results: Results = {}
    for axis in SWEEPS:
        for point in sweep(axis):
            if point not in results:
                before = expected(point)
                fits = before.memory.held < 0.9 * available_bytes("cpu")
                results[point] = before, measured(point, arguments.threads, arguments.repeats) if fits else None
        print(table(axis, results, machine).markdown(), end="\n\n", flush=True)
    if arguments.json:
        record = [
            {**attrs.asdict(point), **attrs.asdict(before), "measured": found and attrs.asdict(found)}
            for point, (before, found) in results.items()
        ]
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
