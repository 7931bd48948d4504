"""What a run would do: its networks, their cost, its segments, and how long it would take."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from anarch_core.config import RunConfig
from anarch_core.errors import AnarchError
from anarch_core.executor import Executor
from anarch_core.memory import available_bytes, network_bytes
from anarch_core.moments import Clock, Moment
from anarch_core.preflight import check
from anarch_core.registry import Registry, get_registry
from anarch_core.relaxation_report import RelaxationReport
from anarch_core.relaxing import plan as plan_relaxation
from anarch_core.relaxing import relax
from anarch_core.resolution import complete
from anarch_core.resources import resolve_device
from anarch_core.segments import Segment, Transition, tree
from anarch_core.store import RunStore
from anarch_core.training import Training, matmul_precision

TIMED_SECONDS = 0.5
"""How long steps of one network are timed."""


@attrs.frozen(kw_only=True)
class Network:
    """The constrained network, or what a relaxation makes of it.

    Attributes:
        name: of the relaxation, ``"constrained"`` without one.
        report: layer by layer, None without a relaxation.
        parameters: numbers that are trained.
        bytes: of parameters and buffers.
        flops: floating-point operations of one forward pass of one sample (a multiply-add counts two).
        training_bytes: weights, gradients and optimizer state; activations come on top.
        step_seconds: measured time of one optimizer step, None if it was not measured.
        segments: how many segments train it.
        iterations: optimizer steps they take in all.
    """

    name: str
    report: RelaxationReport | None
    parameters: int
    bytes: int
    flops: int
    training_bytes: int
    step_seconds: float | None
    segments: int
    iterations: int


@attrs.frozen(kw_only=True)
class RunPlan:
    """What a run would do.

    Attributes:
        config: complete, with the device resolved.
        samples: sizes of the parts of the data by name.
        input_shape: of one input.
        clock: of the trunk.
        moments: switch times known beforehand; a schedule may find more while the trunk trains.
        segments: that follow from them.
        networks: that are trained.
        probe_bytes: what each probe takes on the largest network, which is among it; activations come on top.
        free_bytes: memory of the device.
        refusal: why the run would not start, None if it would.
    """

    config: RunConfig
    samples: Mapping[str, int]
    input_shape: tuple[int, ...]
    clock: Clock
    moments: tuple[Moment, ...]
    segments: tuple[Segment, ...]
    networks: tuple[Network, ...]
    probe_bytes: Mapping[str, int]
    free_bytes: int
    refusal: str | None

    @property
    def seconds(self) -> float | None:
        """Training time, if nothing else runs and as many segments are trained at once as planned; None if it was not measured."""
        spent = [network.step_seconds and network.step_seconds * network.iterations for network in self.networks]
        return None if None in spent else sum(value for value in spent if value is not None) / (self.config.jobs or 1)


def plan_run(config: RunConfig, *, timed: bool = True, registry: Registry | None = None) -> RunPlan:
    """Find out what a run would do, without training or writing anything.

    Args:
        config: the run.
        timed: take some optimizer steps with every network, as far as memory allows.
        registry: where components are looked up, the installed plugins by default.

    Raises:
        AnarchError: the data cannot be loaded, or the network not be built.
    """
    registry = registry or get_registry()
    config = complete(config, registry)
    config = attrs.evolve(config, device=resolve_device(config.device))
    executor = Executor(config, RunStore(config.out or Path()), registry)
    data = executor.data
    clock = Clock(config.epochs, executor.iterations_per_epoch)
    moments = tuple(sorted(set(executor.schedule.moments(clock))))
    segments = tree(config, clock, dict.fromkeys(config.seeds, moments), registry)
    try:
        config, refusal = check(executor, segments), None
        executor.config = config
    except AnarchError as error:
        refusal = str(error)
    networks = [_network(executor, None, [segment for segment in segments if segment.transition.relaxation is None], timed)]
    ways: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.transition.relaxation is not None:
            ways.setdefault(_label(segment.transition), []).append(segment)
    networks += [_network(executor, label, users, timed) for label, users in ways.items()]
    parts = {"train": data.y_train, "validation": data.y_validation, "test": data.y_test}
    return RunPlan(
        config=config,
        samples={name: len(labels) for name, labels in parts.items() if labels is not None},
        input_shape=data.input_shape,
        clock=clock,
        moments=moments,
        segments=segments,
        networks=tuple(networks),
        probe_bytes={name: round(probe.vectors() * max(n.bytes for n in networks)) for name, probe in executor.probes.items()},
        free_bytes=available_bytes(config.device),
        refusal=refusal,
    )


def _label(transition: Transition) -> str:
    options = ", ".join(f"{name}={value}" for name, value in transition.options.items())
    return f"{transition.relaxation} ({options})" if options else str(transition.relaxation)


def _network(executor: Executor, label: str | None, users: list[Segment], timed: bool) -> Network:
    model = executor.build(executor.config.seeds[0])
    flops = _flops(model, executor.data.x_train[:1])
    total, parameters, size = flops[""], sum(p.numel() for p in model.parameters()), network_bytes(model)
    report = None
    if label is not None:
        how = users[0].transition
        example = executor.data.x_train[:2]
        report = plan_relaxation(
            model, how.relaxation or "", example_input=example, layers=how.layers, options=how.options, registry=executor.registry
        )
        itemsize = next(model.parameters()).element_size()
        for layer in report.layers:
            total += layer.cost.flops - flops[layer.path]
            parameters += layer.cost.parameters - layer.parameters_before
            size += layer.cost.bytes - layer.parameters_before * itemsize
    training = round(size * (2 + _remembered(executor)))
    seconds = None
    if timed and training < 0.8 * available_bytes(executor.config.device) and not (report and report.refused):
        if label is not None:
            model = relax(
                model,
                how.relaxation or "",
                example_input=example,
                layers=how.layers,
                options=how.options,
                check=False,
                registry=executor.registry,
            ).model
        seconds = _step_seconds(executor, model)
    return Network(
        name=label or "constrained",
        report=report,
        parameters=parameters,
        bytes=size,
        flops=total,
        training_bytes=training,
        step_seconds=seconds,
        segments=len(users),
        iterations=sum(segment.settings.iterations for segment in users),
    )


def _flops(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Floating-point operations of one forward pass, by path of the module; ``""`` for all of it."""
    counter = FlopCounterMode(display=False)
    modes = {module: module.training for module in model.modules()}
    with counter, torch.no_grad():
        model.eval()(example)
    for module, training in modes.items():
        module.training = training
    name = type(model).__name__
    counts = {path: sum(by_kind.values()) for path, by_kind in counter.get_flop_counts().items()}
    return {"": counter.get_total_flops(), **{path.removeprefix(f"{name}."): count for path, count in counts.items() if path != name}}


def _remembered(executor: Executor) -> float:
    """Numbers the optimizer remembers per parameter."""
    tried = nn.Linear(64, 64, device=executor.device)
    optimizer = executor.optimizer(tried, executor.config.lr)
    tried(torch.zeros(1, 64, device=executor.device)).sum().backward()
    optimizer.step()
    state = [value.numel() for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)]
    return sum(state) / sum(parameter.numel() for parameter in tried.parameters())


def _step_seconds(executor: Executor, model: nn.Module) -> float:
    """Mean time of an optimizer step, the first one left out; the steps' learning rate is too small to spoil anything."""
    config, data = executor.config, executor.data
    training = Training(
        model=model,
        optimizer=executor.optimizer(model, 1e-12),
        x=data.x_train,
        y=data.y_train,
        batch_size=config.batch_size,
        seed=0,
        learning_rate=lambda _: 1e-12,
        precision=config.precision,
    )
    with matmul_precision(config.precision), _threads(config.threads):
        training.advance(1)
        _wait(executor.device)
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < TIMED_SECONDS:
            training.advance(sys.maxsize, pause=lambda: time.monotonic() - begun >= TIMED_SECONDS)
            _wait(executor.device)
    return elapsed / (training.iteration - 1)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    yield
    torch.set_num_threads(before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
