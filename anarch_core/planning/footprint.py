"""What each network of a run takes: numbers, bytes, and memory while it is trained and evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import attrs
import torch
from torch import nn

from anarch_core.experiment.context import RunContext
from anarch_core.experiment.segments import Segment, Transition
from anarch_core.machine import own_randomness
from anarch_core.network import network_bytes
from anarch_core.network_state import Numbers
from anarch_core.planning.ledger import Peak
from anarch_core.planning.probe_memory import peak_of_probe
from anarch_core.planning.rehearsal import Rehearsal
from anarch_core.plugin.blame import answering
from anarch_core.probe.base import ProbeContext
from anarch_core.probe.measuring import missing_needs
from anarch_core.relaxation.report import RelaxationReport
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.verbs import applied_relaxations
from anarch_core.training import EVALUATED


@attrs.frozen(kw_only=True)
class Footprint:
    """The constrained network, or what a relaxation makes of it; nothing of it was allocated.

    Attributes:
        name: the relaxation with its options, ``"constrained"`` without one.
        transition: how it is relaxed, None for the constrained network.
        report: layer by layer, None for the constrained network.
        parameters: numbers that are trained.
        bytes: of parameters and buffers.
        batch: samples of a training step.
        training: memory of a training step: network, optimizer state, gradients where there are any, activations, temporaries.
        evaluation: memory of evaluating a batch, the optimizer's state included: it is there whenever an epoch ends.
        probes: memory of each probe's measurement by its name, with the networks that are held then: the one that is measured, the one that
            the segment started with, and the parent.
        complete: whether activations are counted; they are not where the way a network takes depends on the numbers in it.
    """

    name: str
    transition: Transition | None
    report: RelaxationReport | None
    parameters: int
    bytes: int
    batch: int
    training: Peak
    evaluation: Peak
    probes: Mapping[str, Peak]
    complete: bool = True


def network_name(transition: Transition) -> str:
    """A relaxation with its options, in words; ``"constrained"`` without one."""
    if transition.relaxation is None:
        return "constrained"
    options = ", ".join(f"{name}={value}" for name, value in transition.options.items())
    return f"{transition.relaxation} ({options})" if options else transition.relaxation


def relaxations(segments: Sequence[Segment]) -> Mapping[str, Transition]:
    """The different ways in which segments relax the network, by name."""
    found: dict[str, Transition] = {}
    for segment in segments:
        if segment.transition.relaxation is not None:
            found.setdefault(network_name(segment.transition), segment.transition)
    return found


def footprints(context: RunContext, segments: Sequence[Segment], batch: int | None = None) -> tuple[Footprint, ...]:
    """Of the constrained network and of every relaxed one.

    Args:
        context: of the run.
        segments: of the run.
        batch: samples per step, the run's by default.

    Raises:
        AnarchError: the network cannot be built, or layers be found.
    """
    model = context.build(context.config.seeds[0])
    batch = batch or min(context.config.batch_size, len(context.data.y_train))
    with _data_kept(context) if context.probes else nullcontext():
        return tuple(_footprint(context, model, transition, batch) for transition in (None, *relaxations(segments).values()))


def _footprint(context: RunContext, model: nn.Module, transition: Transition | None, batch: int) -> Footprint:
    parameters, size = sum(parameter.numel() for parameter in model.parameters()), network_bytes(model)
    found = None
    if transition is not None:
        example = context.data.x_train[:2]
        found = Selection.of(model, transition.relaxation or "", example, transition.layers, transition.options, context.registry)
        itemsize = next(model.parameters()).element_size()
        for layer in found.report().layers:
            parameters += layer.cost.parameters - layer.parameters_before
            size += layer.cost.bytes - layer.parameters_before * itemsize
    try:
        training, evaluation = _rehearsed(context, model, found, batch)
        complete = True
    except Exception:  # a network may do anything, and some of it only with numbers
        evaluation = Peak(used=size, small=0, large=size).beyond(round(size * _remembered(context)))
        training = evaluation.beyond(size)
        complete = False
    return Footprint(
        name=network_name(transition) if transition else "constrained",
        transition=transition,
        report=found.report() if found else None,
        parameters=parameters,
        bytes=size,
        batch=batch,
        training=training,
        evaluation=evaluation,
        probes=_of_probes(context, model, found, training.used - size),
        complete=complete,
    )


def _rehearsed(context: RunContext, model: nn.Module, found: Selection | None, batch: int) -> tuple[Peak, Peak]:
    config, data = context.config, context.data
    rehearsal = Rehearsal(model)
    if found is not None:
        rehearsal.relax(found)
    tested = min(EVALUATED, max(len(data.y_train), len(data.y_test)))
    evaluation = rehearsal.evaluation(data.x_train, data.y_train, tested, config.precision, data.objective)
    return (
        rehearsal.training(
            lambda network: context.optimizer(network, config.lr), data.x_train, data.y_train, batch, config.precision, data.objective
        ),
        evaluation.beyond(round(_remembered(context) * sum(parameter.nbytes for parameter in rehearsal.model.parameters()))),
    )


def _of_probes(context: RunContext, parent: nn.Module, found: Selection | None, activations: int) -> dict[str, Peak]:
    """Memory at the end of a segment, when the network that it started with is there again and what the optimizer remembered is not."""
    if not context.probes:
        return {}
    model, reference = ((parent if found is None else _relaxed(context, parent, found)) for _ in range(2))
    measured = ProbeContext(
        model=model,
        data=context.data,
        reference=reference,
        parent=None if found is None else parent,
        seed=context.config.seeds[0],
        moment="end",
    )
    # At the start of a segment there is no other network yet, but the state that was carried over to its optimizer.
    size, state = network_bytes(model), _remembered(context) if context.config.optimizer_state == "carry" else 0
    carried = max(0, round(state * size) - size)
    return {
        name: peak_of_probe(probe, measured, otherwise=activations, beside=carried)
        for name, probe in context.probes.items()
        if not missing_needs(probe, model, data=measured.data, reference=reference, parent=measured.parent)
    }


@contextmanager
def _data_kept(context: RunContext) -> Iterator[None]:
    """Read the data again if a probe changed them while it was rehearsed; when it measures, that is told."""
    numbers = Numbers.of(context.data.tensors())
    yield
    numbers.restore()
    changed = numbers.changed()
    if changed:
        fresh = context.reread().tensors()
        for name in changed:
            numbers.tensors[name].data.copy_(fresh[name])


def _relaxed(context: RunContext, model: nn.Module, found: Selection) -> nn.Module:
    """What a relaxation makes of a network, without numbers."""
    rehearsal = Rehearsal(model)
    rehearsal.relax(found)
    rehearsal.model.anarch_relaxations = (*applied_relaxations(model), found.applied(context.registry))  # type: ignore[assignment]
    return rehearsal.model


def _remembered(context: RunContext) -> float:
    """Numbers the optimizer remembers per parameter."""
    with own_randomness(context.device):
        tried = nn.Linear(64, 64, device=context.device)
    optimizer = context.optimizer(tried, context.config.lr)
    tried(torch.zeros(1, 64, device=context.device)).sum().backward()
    answering(optimizer.step)()
    state = [value.numel() for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)]
    return sum(state) / sum(parameter.numel() for parameter in tried.parameters())
