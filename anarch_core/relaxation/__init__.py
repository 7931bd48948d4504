"""From layers to networks: the interface of relaxations, finding and replacing layers in any network, and whether the result is exact.

A door for authors of relaxations, and for those who relax networks of their own.
"""

from __future__ import annotations

from anarch_core.layers.base import Cost
from anarch_core.plugin.records import TensorRole
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.constraint import AbstractConstraintRelaxation, Loosened, constrained_module
from anarch_core.relaxation.lattice import (
    CONVOLUTIONS,
    AbstractLatticeRelaxation,
    is_convolution,
    lift_layer,
    refusal_of_convolution,
    transport_state,
)
from anarch_core.relaxation.optimizer_state import carry_optimizer_state
from anarch_core.relaxation.own_loop import Switched, switch, switch_back
from anarch_core.relaxation.report import AppliedRelaxation, DriftReport, LayerReport, RelaxationReport, Relaxed
from anarch_core.relaxation.verbs import applied_relaxations, drift, plan, project, relax

__all__ = [
    "CONVOLUTIONS",
    "AbstractConstraintRelaxation",
    "AbstractLatticeRelaxation",
    "AbstractRelaxation",
    "AppliedRelaxation",
    "Cost",
    "DriftReport",
    "LayerReport",
    "Loosened",
    "RelaxationReport",
    "Relaxed",
    "Site",
    "Switched",
    "TensorRole",
    "applied_relaxations",
    "carry_optimizer_state",
    "constrained_module",
    "drift",
    "is_convolution",
    "lift_layer",
    "plan",
    "project",
    "refusal_of_convolution",
    "relax",
    "switch",
    "switch_back",
    "transport_state",
]
