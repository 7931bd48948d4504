"""What can be known before anything is trained: refusals, memory, and whether the network learns at all."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import attrs
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from anarch_core.config import RunConfig
from anarch_core.errors import ConfigError, SurgeryError
from anarch_core.executor import Executor
from anarch_core.memory import network_bytes
from anarch_core.relaxing import plan
from anarch_core.resources import share
from anarch_core.segments import Segment, Transition


def check(executor: Executor, segments: Sequence[Segment]) -> RunConfig:
    """The configuration with ``jobs`` and ``threads`` settled, once it is certain that nothing foreseeable goes wrong.

    Raises:
        SurgeryError: a relaxation refuses a layer, or finds none.
        OutOfMemoryError: the memory does not suffice.
        ConfigError: the network cannot be trained on the data.
    """
    config, data = executor.config, executor.data
    model = executor.build(config.seeds[0])
    own = network_bytes(model)
    largest = own
    for transition in _relaxations(segments):
        largest = max(largest, _relaxed_bytes(executor, model, transition))
    states = _try_step(executor, model)
    jobs, threads = share(
        device=config.device,
        jobs=config.jobs,
        threads=config.threads,
        parallel=len(segments),
        model_bytes=largest,
        # Weights, gradients and optimizer state while training; what the largest probe says while measuring.
        peak_bytes=int(largest * max([2 + states, *(probe.vectors() for probe in executor.probes.values())])),
        data_bytes=data.nbytes,
    )
    return attrs.evolve(config, jobs=jobs, threads=threads)


def _relaxations(segments: Sequence[Segment]) -> list[Transition]:
    found: dict[tuple[str, str], Transition] = {}
    for segment in segments:
        transition = segment.transition
        if transition.relaxation is not None:
            found.setdefault((transition.relaxation, str(sorted(transition.options.items()))), transition)
    return list(found.values())


def _relaxed_bytes(executor: Executor, model: nn.Module, transition: Transition) -> int:
    """Size of the network after a relaxation, which is planned and not done."""
    report = plan(
        model,
        transition.relaxation or "",
        example_input=executor.data.x_train[:2],
        layers=transition.layers,
        options=transition.options,
        registry=executor.registry,
    )
    if report.refused:
        reasons = "; ".join(f"{path or 'the network'} cannot be relaxed: {reason}" for path, reason in report.refused.items())
        msg = f"{reasons}. Exclude such layers by pattern, as in --layers '*,!{next(iter(report.refused))}'"
        raise SurgeryError(msg, paths=tuple(report.refused))
    if not report.layers:
        msg = f"{transition.relaxation} finds no layer to relax in {executor.spec.name}"
        raise SurgeryError(msg)
    replaced = sum(layer.parameters_before for layer in report.layers) * next(model.parameters()).element_size()
    return network_bytes(model) - replaced + report.bytes


def _try_step(executor: Executor, model: nn.Module) -> float:
    """Take one optimizer step on a copy; how many numbers the optimizer remembers per parameter.

    Raises:
        ConfigError: the network cannot be trained on the data.
    """
    tried = copy.deepcopy(model).train()
    optimizer = executor.optimizer(tried, executor.config.lr)
    size = min(executor.config.batch_size, len(executor.data.y_train))
    try:
        with torch.random.fork_rng(devices=[executor.device] if executor.device.type == "cuda" else []):
            cross_entropy(tried(executor.data.x_train[:size]), executor.data.y_train[:size]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        msg = f"model {executor.spec.name!r} cannot be trained on {executor.data.name!r}: {str(error).splitlines()[0]}"
        raise ConfigError(msg) from error
    parameters: int = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    remembered: int = sum(
        value.numel() for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    )
    return remembered / max(parameters, 1)
