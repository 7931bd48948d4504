"""The network a segment starts with: a function of the segment and its parent's snapshot alone."""

from __future__ import annotations

import hashlib
import warnings
from typing import cast

import attrs
import torch
from torch import nn

from anarch_core.config.run_config import GRADIENT_NORM
from anarch_core.config.values import Capture
from anarch_core.errors import InexactRelaxationWarning
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Job
from anarch_core.experiment.segments import Segment
from anarch_core.plugin.records import OptimizerInfo
from anarch_core.relaxation.optimizer_state import carry_optimizer_state
from anarch_core.relaxation.report import RelaxationReport
from anarch_core.relaxation.verbs import initialise_relaxed, project
from anarch_core.segment.optimizer_file import load_optimizer
from anarch_core.training.loop import Training


@attrs.define
class Start:
    """The network a segment starts with, and where it came from.

    Attributes:
        model: the network.
        parent: the network it was lifted from.
        report: how exactly.
        optimizer: with the state carried over; None where it is reset.
        carried: what became of the state, by parameter.
    """

    model: nn.Module
    parent: nn.Module | None = None
    report: RelaxationReport | None = None
    optimizer: torch.optim.Optimizer | None = None
    carried: dict[str, str] | None = None


def start(context: RunContext, segment: Segment) -> Start:
    """The network this segment starts with: a function of the segment and its parent's snapshot alone."""
    torch.manual_seed(_seed_of(segment))
    transition = segment.transition
    begun = _inherited(context, segment)
    if transition.action == "project":
        return Start(project(begun.model, layers=transition.layers))
    if transition.action in ("relax", "scratch"):
        begun.model.eval()  # a batch of two has no statistics to compare networks by
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InexactRelaxationWarning)  # told when the segment begins, on its own line
            if transition.action == "scratch":
                model = context.follow(begun.model, segment.steps)
                initialise_relaxed(model)
                return Start(model)
            relaxed = context.relaxed(begun.model, transition)
        old, begun = begun.optimizer, Start(relaxed.model, begun.model, relaxed.report)
        if old is not None:
            begun.optimizer = fresh_optimizer(context, segment, relaxed.model)
            info = cast(OptimizerInfo, context.registry.find("optimizer", context.config.optimizer))
            begun.carried = carry_optimizer_state(relaxed, old, begun.optimizer, roles=info.roles)
    return begun


def _inherited(context: RunContext, segment: Segment) -> Start:
    """The initialisation, or the parent's network; with the parent's optimizer state where it is carried over."""
    if segment.parent is None or segment.leaves is None:
        return Start(context.build(segment.seed))
    parent, iteration = context.store.segment(segment.parent.id), segment.leaves.iteration
    begun = Start(context.load(parent.snapshot(iteration), segment.seed))
    if segment.transition.optimizer_state == "carry":
        begun.optimizer = fresh_optimizer(context, segment, begun.model)
        remembers = load_optimizer(begun.optimizer, begun.model, parent.optimizer_snapshot(iteration))
        begun.carried = dict.fromkeys(dict(begun.model.named_parameters()), "carried" if remembers else "empty")
    return begun


def training_from(context: RunContext, job: Job, begun: Start, *, averaged: bool = True, capture: Capture | None = None) -> Training:
    """The training of a segment, at its first step.

    Args:
        context: what all segments of the run share.
        job: the segment.
        begun: what it starts with.
        averaged: for its average of the weights, if it takes one.
        capture: whether steps are captured, as the run has it by default.
    """
    segment = job.segment
    settings, iterations_per_epoch = segment.settings, context.iterations_per_epoch
    return Training(
        model=begun.model,
        optimizer=begun.optimizer or fresh_optimizer(context, segment, begun.model),
        x=context.data.inputs("train"),
        y=context.data.y_train,
        batch_size=settings.batch_size,
        seed=segment.order_seed,
        first_epoch=-(-segment.age // iterations_per_epoch),
        learning_rate=lambda iteration: settings.learning_rate.at(iteration, iterations_per_epoch),
        precision=settings.precision,
        augment=context.augmenting(segment.order_seed),
        objective=context.data.objective,
        clip_norm=settings.clip_norm,
        penalties=context.penalising(begun.model, settings.iterations, settings.penalties),
        average=context.running_average(begun.model, settings.iterations) if averaged else None,
        chained=job.chained,
        capture=capture or context.config.capture,
        follow_gradient=segment.kind == "trunk" and GRADIENT_NORM in context.config.watch,
    )


def fresh_optimizer(context: RunContext, segment: Segment, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer without state, at the learning rate that the segment starts with."""
    return context.optimizer(model, segment.settings.learning_rate.base)


def _seed_of(segment: Segment) -> int:
    """Seed of dropout and of fresh weights: other in each segment of a chain, the same in a branch and its control."""
    key = f"segment:{segment.seed}:{segment.age}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
