"""What each network of a run takes: numbers, bytes, and memory while it is trained and evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import attrs
import torch
from torch import nn

from anarch_core.errors import PenaltyError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.segments import Segment
from anarch_core.machine import own_randomness
from anarch_core.network import network_bytes
from anarch_core.network_state import Numbers
from anarch_core.planning.architecture import Architecture, architectures
from anarch_core.planning.ledger import Peak
from anarch_core.planning.probe_memory import peak_of_probe
from anarch_core.planning.rehearsal import Rehearsal
from anarch_core.planning.together import obstacle
from anarch_core.plugin.blame import answering
from anarch_core.probe.base import ProbeContext
from anarch_core.probe.measuring import missing_needs
from anarch_core.relaxation.report import RelaxationReport
from anarch_core.relaxation.verbs import applied_relaxations
from anarch_core.training.evaluation import EVALUATED


@attrs.frozen(kw_only=True)
class Footprint:
    """What a network of a run takes; nothing of it was allocated.

    Attributes:
        architecture: which network.
        parameters: numbers that are trained.
        bytes: of parameters and buffers.
        processes: that hold it together, each a part of every relaxed layer; what follows is of the first one, which has as much as any.
        held: bytes of the parameters and buffers that it has.
        sent: bytes that it sends to the others in a training step.
        batch: samples of a training step.
        training: memory of a training step: network, optimizer state, gradients where there are any, activations, temporaries, and the
            average of the weights if one is taken.
        evaluation: memory of evaluating a batch, the optimizer's state included: it is there whenever an epoch ends; so is the average.
        probes: memory of each probe's measurement by its name, with the networks that are held then: the one that is measured, the one that
            the segment started with, and the parent.
        watched: likewise of those that are watched while it is trained, with what the optimizer remembers.
        complete: whether activations are counted; they are not where the way a network takes depends on the numbers in it.
    """

    architecture: Architecture
    parameters: int
    bytes: int
    processes: int
    held: int
    sent: int
    batch: int
    training: Peak
    evaluation: Peak
    probes: Mapping[str, Peak]
    watched: Mapping[str, Peak] = attrs.field(factory=dict)
    complete: bool = True

    @property
    def name(self) -> str:
        """Of the network."""
        return self.architecture.name

    @property
    def report(self) -> RelaxationReport | None:
        """What is relaxed, layer by layer; None for the constrained network."""
        return self.architecture.report


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
    with _data_kept(context) if context.probes or context.watched else nullcontext():
        return tuple(_footprint(context, model, architecture, batch) for architecture in architectures(context, model, segments))


def _footprint(context: RunContext, model: nn.Module, architecture: Architecture, batch: int) -> Footprint:
    parameters, size = sum(parameter.numel() for parameter in model.parameters()), network_bytes(model)
    itemsize = next(model.parameters()).element_size()
    for layer in (layer for part in architecture.parts for layer in part.report().layers):
        parameters += layer.cost.parameters - layer.parameters_before
        size += layer.cost.bytes - layer.parameters_before * itemsize
    processes = context.config.shards if obstacle(context, architecture) is None else 1
    held = size if processes == 1 else _held(model, architecture, processes)
    try:
        training, evaluation, sent = _rehearsed(context, model, architecture, batch, processes)
        complete = True
    except PenaltyError:
        raise
    except Exception:  # a network may do anything, and some of it only with numbers
        evaluation = Peak(used=held, small=0, large=held).beyond(round(held * _remembered(context)) + _averaged(context, held))
        training, sent = evaluation.beyond(held), 0
        complete = False
    return Footprint(
        architecture=architecture,
        parameters=parameters,
        bytes=size,
        processes=processes,
        held=held,
        sent=sent,
        batch=batch,
        training=training,
        evaluation=evaluation,
        probes=_of_probes(context, model, architecture, training.used - held, processes),
        watched={} if architecture.parts else _of_watched(context, model, training.used - held),
        complete=complete,
    )


def _held(model: nn.Module, architecture: Architecture, processes: int) -> int:
    """Bytes of the parameters and buffers of the first of some processes."""
    return network_bytes(_rehearsal(model, architecture, processes).model)


def _rehearsal(model: nn.Module, architecture: Architecture, processes: int) -> Rehearsal:
    rehearsal = Rehearsal(model, processes)
    for part in architecture.parts:
        rehearsal.relax(part)
    return rehearsal


def _rehearsed(context: RunContext, model: nn.Module, architecture: Architecture, batch: int, processes: int) -> tuple[Peak, Peak, int]:
    """Memory of training and of evaluation, and the bytes that are sent in a training step."""
    config, data = context.config, context.data
    rehearsal = _rehearsal(model, architecture, processes)
    tested = min(EVALUATED, max(len(data.y_train), len(data.y_test)))
    evaluation = rehearsal.evaluation(data.inputs("train"), data.y_train, tested, config.precision, data.objective)
    training = rehearsal.training(
        lambda network: context.optimizer(network, config.lr),
        data.inputs("train"),
        data.y_train,
        batch,
        config.precision,
        data.objective,
        config.clip_norm,
        lambda network: context.penalising(network, config.branch_epochs * context.iterations_per_epoch),
    )
    remembered = round(_remembered(context) * sum(parameter.nbytes for parameter in rehearsal.model.parameters()))
    average = _averaged(context, network_bytes(rehearsal.model))
    return training.beyond(average), evaluation.beyond(remembered + average), rehearsal.sent


def _of_probes(context: RunContext, parent: nn.Module, architecture: Architecture, activations: int, processes: int) -> dict[str, Peak]:
    """Memory at the end of a segment, when the network that it started with is there again and what the optimizer remembered is not."""
    if not context.probes:
        return {}
    model, reference, alike = ((_relaxed(context, parent, architecture, processes) if architecture.parts else parent) for _ in range(3))
    measured = ProbeContext(
        model=model,
        data=context.data,
        reference=reference,
        parent=parent if architecture.parts else None,
        seed=context.config.seeds[0],
        moment="end",
    )
    others = {"twin": alike, "control": parent if architecture.parts else None, "sibling": alike}
    # At the start of a segment there is no other network yet, but the state that was carried over to its optimizer; at the end the average.
    size, state = network_bytes(model), _remembered(context) if context.config.optimizer_state == "carry" else 0
    beside = max(0, round(state * size) - size, _averaged(context, size), size * bool(context.config.probe_at))
    return {
        name: peak_of_probe(probe, given, otherwise=activations, beside=beside)
        for name, probe in context.probes.items()
        for given in [measured.beside({need: network for need, network in others.items() if need in probe.needs})]
        if not missing_needs(probe, model, data=given.data, **given.others) and (processes == 1 or probe.sharded)
    }


def _of_watched(context: RunContext, model: nn.Module, activations: int) -> dict[str, Peak]:
    """Memory between two epochs of the trunk, when the optimizer's state is there, and no network but the one that is trained."""
    if not context.watched:
        return {}
    measured = ProbeContext(model=model, data=context.data, seed=context.config.seeds[0])
    beside = round(_remembered(context) * network_bytes(model))
    return {
        name: peak_of_probe(probe, measured, otherwise=activations, beside=beside)
        for name, probe in context.watched.items()
        if not missing_needs(probe, model, data=measured.data)
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


def _relaxed(context: RunContext, model: nn.Module, architecture: Architecture, processes: int) -> nn.Module:
    """What relaxations make of a network, without numbers; what the first of some processes has of it."""
    rehearsal = _rehearsal(model, architecture, processes)
    applied = [part.applied(context.registry) for part in architecture.parts]
    rehearsal.model.anarch_relaxations = (*applied_relaxations(model), *applied)  # type: ignore[assignment]
    return rehearsal.model


def _averaged(context: RunContext, size: int) -> int:
    """Bytes of the average of the weights of a network of that size, where one is kept."""
    return 0 if context.config.average is None else size


def _remembered(context: RunContext) -> float:
    """Numbers the optimizer remembers per parameter."""
    with own_randomness(context.device):
        tried = nn.Linear(64, 64, device=context.device)
    optimizer = context.optimizer(tried, context.config.lr)
    tried(torch.zeros(1, 64, device=context.device)).sum().backward()
    answering(optimizer.step)()
    state = [value.numel() for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)]
    return sum(state) / sum(parameter.numel() for parameter in tried.parameters())
