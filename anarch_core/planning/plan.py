"""What a run would do: its networks, their cost, its segments, and how long it would take."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from anarch_core.cards import in_use
from anarch_core.config.resolution import complete
from anarch_core.config.run_config import RunConfig
from anarch_core.data.stored import Stored
from anarch_core.errors import AnarchError, ConfigError, OutOfMemoryError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.placement import looked_into_on, trained_elsewhere
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.machine import available_bytes, processor_threads, resident_bytes
from anarch_core.network import in_evaluation_mode
from anarch_core.planning.by_shards import by_shards, fewest
from anarch_core.planning.chaining import tried
from anarch_core.planning.footprint import Footprint, footprints
from anarch_core.planning.preflight import bytes_needed, foreseen
from anarch_core.planning.run_plan import NetworkPlan, RunPlan
from anarch_core.planning.sharing import shared
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.schedule import Clock
from anarch_core.training.precision import matmul_precision

TIMED_SECONDS = 0.5
"""How long steps of one network are timed."""


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
    asked = config.device
    config = attrs.evolve(config, device=looked_into_on(config, registry))
    with in_use(config.device):
        return _planned(config, asked, timed, registry)


def _planned(config: RunConfig, asked: str, timed: bool, registry: Registry) -> RunPlan:
    """Find it out on a device.

    Args:
        config: the run, complete, with the device resolved on which it is looked into.
        asked: the device as the user says it.
        timed: take some optimizer steps.
        registry: where components are looked up.
    """
    elsewhere = trained_elsewhere(config, registry)
    context = RunContext.open(config, RunStore(config.out or Path()), registry)
    data = context.data
    clock = Clock(config.epochs, context.iterations_per_epoch)
    moments = tuple(sorted(set(context.moments(clock))))
    segments = tree(config, clock, dict.fromkeys(config.seeds, moments), registry)
    found = footprints(context, segments)
    share, refusal, rows = None, None, config.shards > 1
    try:
        share = shared(context, foreseen(context, found), len(segments), grows=config.asks_schedule and not moments)
    except AnarchError as error:
        refusal = str(error)
        rows = isinstance(error, OutOfMemoryError) and (rows or context.device.type == "cuda")
        timed = timed and not isinstance(error, ConfigError)  # the network cannot take a step
    else:
        config = attrs.evolve(config, jobs=share.jobs, threads=share.threads)
    shared_out = by_shards(context, found, segments) if rows else ()
    if refusal is not None and config.shards == 1 and (enough := fewest(shared_out)) is not None:
        refusal += f"; or have {enough} processes hold it together (--shards {enough})"
    context = attrs.evolve(context, config=config)
    larger = footprints(attrs.evolve(context, probes={}, watched={}), segments, 2 * config.batch_size)
    networks = tuple(_network_plan(context, *pair, segments, timed) for pair in zip(found, larger, strict=True))
    parts = {"train": data.y_train, "validation": data.y_validation, "test": data.y_test}
    return RunPlan(
        config=attrs.evolve(config, device=asked) if elsewhere else config,
        samples={name: len(labels) for name, labels in parts.items() if labels is not None},
        input_shape=data.input_shape,
        read_in_batches=isinstance(data.inputs("train"), Stored),
        clock=clock,
        moments=moments,
        segments=segments,
        networks=networks,
        free_bytes=available_bytes(context.device),
        elsewhere=elsewhere,
        room_bytes=_room(context),
        places=share.places if share else (),
        shared_out=shared_out if len(shared_out) > 1 else (),
        notes=(*(share.notes if share else ()), *config.idle),
        refusal=refusal,
    )


def _network_plan(context: RunContext, footprint: Footprint, larger: Footprint, segments: Sequence[Segment], timed: bool) -> NetworkPlan:
    """Put together what is known of a network.

    Args:
        context: of the run.
        footprint: of the network.
        larger: the same for twice the batch.
        segments: of the run.
        timed: take some optimizer steps, if memory allows, and a single process takes them.
    """
    model = context.build(context.config.seeds[0])
    by_layer = _flops(model, context.data.inputs("train")[:1])
    flops, report = by_layer[""], footprint.report
    users = [segment for segment in segments if segment.id in footprint.architecture.segments]
    for layer in report.layers if report else ():
        flops += layer.cost.flops - by_layer[layer.path]
    seconds = None
    if (
        timed
        and context.config.shards == 1
        and footprint.training.held < 0.9 * available_bytes(context.device)
        and not (report and report.refused)
    ):
        model = context.follow(model, footprint.architecture.steps, check=False)
        seconds = _step_seconds(context, model)
    return NetworkPlan(
        footprint=footprint,
        flops=flops,
        needed_bytes=bytes_needed(footprint),
        largest_batch=_largest_batch(context, footprint, larger),
        step_seconds=seconds,
        segments=len(users),
        iterations=sum(segment.settings.iterations for segment in users),
    )


def _largest_batch(context: RunContext, footprint: Footprint, larger: Footprint) -> int | None:
    """Samples per step that fit: memory grows in proportion to them, beside what does not depend on them."""
    if not (footprint.complete and larger.complete):
        return None
    each = max(larger.training.held - footprint.training.held, 1) / (larger.batch - footprint.batch)
    return max(0, int(footprint.batch + (_room(context) - footprint.training.held) / each))


def _room(context: RunContext) -> int:
    """Bytes that a process can have for its networks; on a processor, where several share one memory, beside what all of them take."""
    free, shards = available_bytes(context.device), context.config.shards
    return free if shards == 1 or context.device.type == "cuda" else max(0, free // shards - resident_bytes())


def _flops(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Floating-point operations of one forward pass, by path of the module; ``""`` for all of it."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), in_evaluation_mode(model):
        model(example)
    name = type(model).__name__
    counts = {path: sum(by_kind.values()) for path, by_kind in counter.get_flop_counts().items()}
    return {"": counter.get_total_flops(), **{path.removeprefix(f"{name}."): count for path, count in counts.items() if path != name}}


def _step_seconds(context: RunContext, model: nn.Module) -> float:
    """Mean time of an optimizer step, the first one left out, and the one in which a card sees whether it can capture them.

    With penalties they are those in the middle of a stretch, when a ramp from 0 has begun.
    """
    training = tried(context, model, chained=True)
    warm = training.iteration + (1 if context.device.type == "cpu" else 2)
    with matmul_precision(context.config.precision), processor_threads(context.config.threads):
        while training.iteration < warm:
            training.advance(training.iteration + 1)
        _wait(context.device)
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < TIMED_SECONDS:
            training.advance(sys.maxsize, pause=lambda: time.monotonic() - begun >= TIMED_SECONDS)
            _wait(context.device)
    return elapsed / (training.iteration - warm)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
