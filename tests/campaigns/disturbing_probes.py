"""A probe changes what it may only look at: the run goes on to the same bytes, or the segment fails and names the probe."""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from campaign import Campaign, Try
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.results import Results
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import ProbeInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.probe.base import AbstractProbe, Measurement, ProbeContext
from anarch_core.running.runner import run
from anarch_core.surroundings import Surroundings

NAME = "probe 'disturbing' of plugin 'odd' (odd 1.2)"

Act = Callable[[ProbeContext], object]

acts: list[Act] = []
"""What the probe does now."""
moments: set[str] = set()
kept: list[Any] = []


class Probe(AbstractProbe):
    """Does what the try wants, at the moments that it wants."""

    def measure(self, context: ProbeContext) -> Measurement:
        if context.moment in moments:
            for act in acts:
                act(context)
        return Measurement(scalars={"one": 1.0})


class Passing(TorchDispatchMode):
    """Passes everything on."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def weight(context: ProbeContext) -> nn.Parameter:
    return next(context.model.parameters())


def leaf(context: ProbeContext) -> nn.Module:
    return next(module for module in context.model.modules() if not list(module.children()))


def data(context: ProbeContext) -> torch.Tensor:
    return context.required_data.x_train


def nothing(*_: Any) -> None:
    pass


def doubled(module: nn.Module, arguments: Any, output: Any) -> Any:
    return output * 2


def shuffle(tensor: torch.Tensor) -> None:
    tensor.copy_(tensor.flip(0).clone())


def write(tensor: torch.Tensor, change: Callable[[torch.Tensor], object]) -> None:
    with torch.no_grad():
        change(tensor.data)


def fail(context: ProbeContext) -> None:
    raise ZeroDivisionError("on purpose")


def kept_thread(context: ProbeContext) -> None:
    thread = threading.Thread(target=threading.Event().wait, args=(2,), daemon=True, name="left")
    thread.start()


def train_mode_pass(context: ProbeContext) -> None:
    context.model.train()
    context.model(data(context)[:8])


# What the process has set.
PROCESS: dict[str, Act] = {
    "number of threads": lambda c: torch.set_num_threads(2),
    "default dtype": lambda c: torch.set_default_dtype(torch.float64),
    "default device": lambda c: torch.set_default_device("meta"),
    "entered device": lambda c: torch.device("meta").__enter__(),
    "no gradients": lambda c: torch.set_grad_enabled(False),
    "deterministic algorithms": lambda c: torch.use_deterministic_algorithms(True),
    "precision of products": lambda c: torch.set_float32_matmul_precision("medium"),
    "cudnn": lambda c: setattr(torch.backends.cudnn, "benchmark", True),
    "onednn": lambda c: setattr(torch.backends.mkldnn, "enabled", False),
    "anomalies": lambda c: torch.autograd.set_detect_anomaly(True),
    "autocast": lambda c: torch.autocast("cpu", torch.bfloat16).__enter__(),
    "flush to zero": lambda c: torch.set_flush_denormal(True),
    "dispatch mode": lambda c: Passing().__enter__(),
    "hook on all modules": lambda c: nn.modules.module.register_module_forward_hook(doubled),
    "attention": lambda c: torch.backends.cuda.enable_math_sdp(False),
    "seed of torch": lambda c: torch.manual_seed(3),
    "draw of torch": lambda c: torch.rand(3),
    "seed of numpy": lambda c: np.random.seed(3),
    "seed of Python": lambda c: random.seed(3),
    "filters of warnings": lambda c: warnings.simplefilter("error"),
    "numpy raises": lambda c: np.seterr(all="raise"),
    "SIGTERM ignored": lambda c: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "SIGINT taken": lambda c: signal.signal(signal.SIGINT, nothing),
    "working directory": lambda c: os.chdir(tempfile.gettempdir()),
    "environment": lambda c: os.environ.update(OMP_NUM_THREADS="7", ANARCH_NO_PLUGINS="1"),
    "no garbage collection": lambda c: gc.disable(),
    "a thread": kept_thread,
}
# The network.
NETWORK: dict[str, Act] = {
    "requires_grad": lambda c: weight(c).requires_grad_(False),
    "all requires_grad": lambda c: c.model.requires_grad_(False),
    "training mode": lambda c: c.model.train(),
    "one module's mode": lambda c: leaf(c).train(),
    "gradients": lambda c: [setattr(p, "grad", torch.ones_like(p)) for p in c.model.parameters()],
    "forward hook": lambda c: leaf(c).register_forward_hook(doubled),
    "forward pre-hook": lambda c: c.model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,)),
    "backward hook": lambda c: c.model.register_full_backward_hook(lambda module, inputs, outputs: (None,)),
    "hook on a parameter": lambda c: weight(c).register_hook(lambda gradient: gradient * 2),
    "hook after gradients": lambda c: weight(c).register_post_accumulate_grad_hook(lambda p: p.grad.zero_()),
    "module added": lambda c: c.model.add_module("more", nn.Linear(2, 2)),
    "module replaced": lambda c: setattr(c.model, next(iter(c.model._modules)), nn.Identity()),
    "module removed": lambda c: delattr(c.model, list(c.model._modules)[-1]),
    "parameter replaced": lambda c: setattr(leaf(c), next(iter(leaf(c)._parameters), "weight"), nn.Parameter(torch.zeros(1))),
    "forward replaced": lambda c: setattr(c.model, "forward", nothing),
    "attribute": lambda c: setattr(leaf(c), "padding", (7,)),
    "in float64": lambda c: c.model.double(),
    "other memory": lambda c: setattr(weight(c), "data", torch.zeros_like(weight(c))),
    "a buffer": lambda c: c.model.register_buffer("more", torch.zeros(2)),
    "statistics of batch norm": train_mode_pass,
    "weights in place": lambda c: write(weight(c), lambda w: w.mul_(0.5)),
    "weights in place by numpy": lambda c: weight(c).detach().numpy().__imul__(0.5),
    "weights turned around": lambda c: write(weight(c), shuffle),
    "a step": lambda c: torch.optim.SGD(c.model.parameters(), lr=1.0).step(nothing) or write(weight(c), lambda w: w.add_(1)),
    "vectorised hook list": lambda c: leaf(c)._forward_hooks.update({99: doubled}),
    "reference": lambda c: c.reference is None or write(next(c.reference.parameters()), torch.Tensor.zero_),
    "parent": lambda c: c.parent is None or write(next(c.parent.parameters()), torch.Tensor.zero_),
    "parent's mode": lambda c: c.parent is None or c.parent.train(not c.parent.training),
}
# The data.
DATA: dict[str, Act] = {
    "normalised in place": lambda c: data(c).sub_(data(c).mean()).div_(data(c).std()),
    "one number": lambda c: data(c).view(-1).__setitem__(5, 3.0),
    "by numpy": lambda c: data(c).numpy().__imul__(2),
    "turned around": lambda c: shuffle(data(c)),
    "turned around unseen": lambda c: write(data(c), shuffle),
    "labels": lambda c: c.required_data.y_train.zero_(),
    "other memory of the data": lambda c: setattr(data(c), "data", torch.zeros_like(data(c))),
    "test part": lambda c: c.required_data.x_test.zero_(),
    "data that require gradients": lambda c: data(c).requires_grad_(True),
    "data of another size": lambda c: data(c).resize_(2, 1, 16),
}
EVERY = {**PROCESS, **NETWORK, **DATA}


@functools.cache
def configuration() -> RunConfig:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(30) % 3
    x = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)[:, None] + 0.5 * torch.randn(30, 1, 16, generator=generator)
    folder = Path(tempfile.mkdtemp(prefix="campaign-data-"))
    save_file({"x": x[:20].clone(), "y": y[:20].clone(), "x_test": x[20:].clone(), "y_test": y[20:].clone()}, folder / "waves.safetensors")
    return resolve(
        {
            "data": f"tensors:{folder / 'waves.safetensors'}",
            "model": "cnn1d",
            "options": {"cnn1d": {"channels": 3}},
            "batch_size": 10,
            "relax": "efcn",
            "epochs": 2,
            "branch_epochs": 1,
            "switch": "at:1",
            "control": "none",
            "jobs": 1,
            "threads": 1,
            "device": "cpu",
        }
    )


def registry() -> Registry:
    info = ProbeInfo(name="disturbing", summary="Disturbs.", target=f"{__name__}:Probe")
    plugin = PluginRecord(name="odd", module="odd", distribution="odd", version="1.2", status=Status.LOADED, components=(info,))
    return Registry((*get_registry().plugins, plugin))


def done(folder: Path) -> Results:
    config = attrs.evolve(configuration(), probe=("disturbing",))
    return run(config, out=folder / "run", registry=registry(), progress="silent")


def finals(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("run/segments/*/final.safetensors")}


@functools.cache
def undisturbed() -> dict[str, bytes]:
    acts[:] = []
    with tempfile.TemporaryDirectory() as folder:
        done(Path(folder))
        return finals(Path(folder))


def attempt(name: str, wanted: list[str], when: set[str], raising: bool) -> Try:
    def held(folder: Path) -> None:
        expected = undisturbed()
        before = Surroundings.now()
        acts[:], moments_now = [EVERY[one] for one in wanted], when
        if raising:
            acts.append(fail)
        moments.clear()
        moments.update(moments_now)
        try:
            results = done(folder)
            after = [name for name in before.changed() if name not in ("environment variables", "filters of warnings")]
            said = str({**results.failed, **results.skipped}) + str([segment.probe_notes for segment in results.segments])
            got = finals(folder)
        finally:
            acts.clear()
            before.restore()
        failed = list(results.failed.values())
        assert all(NAME in segment.error for segment in failed), said[:500]
        wrong = [name for name, content in got.items() if not failed and content != expected[name]]
        assert not wrong, "other bytes, and nothing said" if NAME not in said else "other bytes"
        assert failed or got.keys() == expected.keys(), said[:500]
        assert not after, f"left changed: {after}"
        assert NAME in said, "unnoticed"

    return Try(name, held)


def tries(source: random.Random) -> Iterator[Try]:
    first = ["requires_grad", "normalised in place", "default dtype", "weights in place", "forward hook", "module replaced"]
    for number, one in enumerate([*first, *(name for name in EVERY if name not in first)]):
        moment = ("start", "end")[number % 2]
        yield attempt(f"{one} at the {moment}", [one], {moment}, raising=False)
    for number, one in enumerate([*first, *(name for name in EVERY if name not in first)]):
        moment = ("end", "start")[number % 2]
        yield attempt(f"{one} at the {moment}, and raises", [one], {moment}, raising=True)
    while True:
        some = source.sample(sorted(EVERY), source.randint(2, 4))
        when = set(source.choice([["start"], ["end"], ["start", "end"]]))
        raising = source.random() < 0.3
        yield attempt(f"{' + '.join(some)} at {'/'.join(sorted(when))}{', and raises' if raising else ''}", some, when, raising)


CAMPAIGN = Campaign(
    promise="a probe that disturbs changes nothing of a run, or its segment fails and names it",
    tries=tries,
    count=180,
    in_suite=2,
)
