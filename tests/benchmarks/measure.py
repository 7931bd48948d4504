"""Times and memory of contenders in one run, and the rates of the machine they ran on."""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import torch

from anarch_core.ops import sparse_product

Step = Callable[[], object]

OURS = "anarch"
PRODUCTS = "products alone"


@attrs.frozen
class Case:
    """Contenders that do the same work.

    Attributes:
        title: the work, in words.
        contenders: what builds the step of each, by name; :data:`PRODUCTS` among them where the case has them.
        flops: floating-point operations the work takes.
        bytes: bytes it must at least move to or from memory.
        memory: whether to measure peak memory, each contender in a process of its own.
        reference: the contender in units of which the others are given.
        steps: how many times the work of the title a contender's step does; times are divided by it.
    """

    title: str
    contenders: Mapping[str, Callable[[], Step]]
    flops: float
    bytes: float
    memory: bool = True
    reference: str = OURS
    steps: int = 1


@attrs.frozen
class Table:
    """What was found, ready to be read.

    Attributes:
        title: of the table.
        columns: their names; the first holds words, the others numbers.
        rows: cells as text.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        header, *rows = ("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in [self.columns, *self.rows])
        return "\n".join([f"### {self.title}", "", header, rule, *rows])


@attrs.frozen
class Machine:
    """Rates measured in this run.

    Attributes:
        threads: that PyTorch may use.
        flops: float32 multiply-adds of a large matrix product, counted as two, per second.
        bytes: read and written by a large copy, per second.
    """

    threads: int
    flops: float
    bytes: float


def machine() -> Machine:
    """Measure the rates: the best of several tries."""
    a, b, c = (torch.randn(2048, 2048) for _ in range(3))
    source, target = torch.zeros(2**26), torch.zeros(2**26)
    product = min(seconds_of(lambda: torch.mm(a, b, out=c)) for _ in range(8))
    copy = min(seconds_of(lambda: target.copy_(source)) for _ in range(8))
    return Machine(torch.get_num_threads(), 2 * 2048**3 / product, 2 * source.nbytes / copy)


@attrs.frozen
class Figure:
    """One contender measured.

    Attributes:
        seconds: of each repeat, warm-up left out.
        peak: bytes above an idle process; None where not measured.
    """

    seconds: tuple[float, ...]
    peak: int | None = None

    @property
    def best(self) -> float:
        """The least disturbed repeat."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Of the repeats; its distance from the best tells how quiet the machine was."""
        return statistics.median(self.seconds)


def figures(case: Case, repeats: int) -> dict[str, Figure]:
    """Run every contender once per round, so that a disturbance hits them alike."""
    steps = {name: build() for name, build in case.contenders.items()}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            seconds[name].append(seconds_of(step) / case.steps)
    del steps
    gc.collect()
    return {name: Figure(tuple(times), peak(case.contenders[name]) if case.memory else None) for name, times in seconds.items()}


def seconds_of(step: Step) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def peak(build: Callable[[], Step]) -> int | None:
    """Peak resident memory of a step in a fresh process, above what it held before the contender was built; Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_peak_worker, args=(build, sender, torch.get_num_threads()))
    child.start()
    sender.close()
    try:
        return int(receiver.recv())
    except EOFError:
        return None
    finally:
        child.join()


def _peak_worker(build: Callable[[], Step], sender: multiprocessing.connection.Connection, threads: int) -> None:
    from small import ours, plain

    torch.set_num_threads(threads)
    for relaxation in "efcn", "lcn":  # so that every module is loaded before memory is looked at
        ours(relaxation, chained=False)()
        plain(relaxation)()
    if importlib.util.find_spec("numba"):
        sparse_product.add_product(*(torch.zeros(1, 1) for _ in range(3)), beta=0.0, alpha=1.0)
    before = resident("VmRSS")
    step = build()
    step()
    forget_peak()  # building is not what is measured
    step()
    step()
    sender.send(resident("VmHWM") - before)


def forget_peak() -> None:
    """Let the peak of resident memory start from what it is now."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(key: str) -> int:
    """Resident memory of this process in bytes: now (``"VmRSS"``) or at its peak (``"VmHWM"``); Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
