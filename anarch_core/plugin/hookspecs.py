"""What a plugin can register.

A plugin is a module named by an entry point of the group ``anarch.plugins``. It implements any of the hooks below, each of which
returns records of :mod:`anarch_core.plugin`. A complete plugin::

    from anarch_core.plugin import ProbeInfo, hookimpl

    @hookimpl
    def anarch_probes():
        return [ProbeInfo(name="norms", summary="Norm of every parameter.", target="my_package.probe:Norms")]

Hooks are for discovery only: training never goes through them. ``API_VERSION`` covers them, the records' fields, and the names that the
doors give (docs/architecture.md): what is new raises its minor number; anything else the major one. A plugin module may set
``anarch_api = (major, minor)`` to say what it was written for.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from anarch_core.plugin.records import (
    AugmentationInfo,
    CommandInfo,
    DatasetInfo,
    FigureInfo,
    ModelInfo,
    ObjectiveInfo,
    ObserverInfo,
    OptimizerInfo,
    PenaltyInfo,
    ProbeInfo,
    RelaxationInfo,
    ScheduleInfo,
    WorkersInfo,
)

PROJECT = "anarch"
GROUP = "anarch.plugins"
API_VERSION = (1, 3)
"""The version of the interface that plugins are written for, (major, minor)."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as one of the hooks, by which anarch learns what it brings."""


@hookspec
def anarch_relaxations() -> Iterable[RelaxationInfo]:  # type: ignore[empty-body]
    """Relaxations: exact embeddings of a constrained layer into a larger family."""


@hookspec
def anarch_probes() -> Iterable[ProbeInfo]:  # type: ignore[empty-body]
    """Probes: measurements of a network that leave it as it was."""


@hookspec
def anarch_schedules() -> Iterable[ScheduleInfo]:  # type: ignore[empty-body]
    """Schedules: when to switch."""


@hookspec
def anarch_models() -> Iterable[ModelInfo]:  # type: ignore[empty-body]
    """Models: constrained networks to start from."""


@hookspec
def anarch_datasets() -> Iterable[DatasetInfo]:  # type: ignore[empty-body]
    """Data sets: train and test tensors."""


@hookspec
def anarch_optimizers() -> Iterable[OptimizerInfo]:  # type: ignore[empty-body]
    """Optimizers: how weights move."""


@hookspec
def anarch_augmentations() -> Iterable[AugmentationInfo]:  # type: ignore[empty-body]
    """Augmentations: random changes to training inputs."""


@hookspec
def anarch_objectives() -> Iterable[ObjectiveInfo]:  # type: ignore[empty-body]
    """Objectives: what networks are trained for."""


@hookspec
def anarch_penalties() -> Iterable[PenaltyInfo]:  # type: ignore[empty-body]
    """Penalties: terms beside the loss, which hold relaxed layers near to the constrained ones."""


@hookspec
def anarch_observers() -> Iterable[ObserverInfo]:  # type: ignore[empty-body]
    """Observers: who is told what happens in a run."""


@hookspec
def anarch_workers() -> Iterable[WorkersInfo]:  # type: ignore[empty-body]
    """Workers: who trains the segments of a run, and where."""


@hookspec
def anarch_figures() -> Iterable[FigureInfo]:  # type: ignore[empty-body]
    """Figures: what a report shows of the runs."""


@hookspec
def anarch_commands() -> Iterable[CommandInfo]:  # type: ignore[empty-body]
    """Commands: further subcommands of ``anarch``."""
