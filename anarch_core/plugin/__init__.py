"""Components and how they are found: records that plugins return, the hooks they implement, their options, and the registry.

The door of every plugin: nothing here imports torch.
"""

from __future__ import annotations

from anarch_core.bounds import between
from anarch_core.plugin.hookspecs import API_VERSION, hookimpl
from anarch_core.plugin.options import opt
from anarch_core.plugin.records import (
    AugmentationInfo,
    CommandInfo,
    ComponentInfo,
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
from anarch_core.plugin.registry import Registry, get_registry

__all__ = [
    "API_VERSION",
    "AugmentationInfo",
    "CommandInfo",
    "ComponentInfo",
    "DatasetInfo",
    "FigureInfo",
    "ModelInfo",
    "ObjectiveInfo",
    "ObserverInfo",
    "OptimizerInfo",
    "PenaltyInfo",
    "ProbeInfo",
    "Registry",
    "RelaxationInfo",
    "ScheduleInfo",
    "WorkersInfo",
    "between",
    "get_registry",
    "hookimpl",
    "opt",
]
