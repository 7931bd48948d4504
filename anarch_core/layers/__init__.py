"""Relaxed layers: modules that stand where a constrained layer stood.

A door for authors of relaxations, and of probes and optimizers that look for relaxed layers.
"""

from __future__ import annotations

from anarch_core.layers.base import Cost, RelaxedLayer, relaxed_layers
from anarch_core.layers.constrained import ConstrainedLayer, Link
from anarch_core.layers.fully_connected import FullyConnectedLayer
from anarch_core.layers.lattice_layer import LatticeLayer, conv_weight_view, fan_in, inverse_root
from anarch_core.layers.locally_connected import LocallyConnectedLayer
from anarch_core.layers.padding import pad
from anarch_core.layers.reparametrised import ReparametrisedLayer

__all__ = [
    "ConstrainedLayer",
    "Cost",
    "FullyConnectedLayer",
    "LatticeLayer",
    "Link",
    "LocallyConnectedLayer",
    "RelaxedLayer",
    "ReparametrisedLayer",
    "conv_weight_view",
    "fan_in",
    "inverse_root",
    "pad",
    "relaxed_layers",
]
