"""The lattice of constraints between a convolution and a fully connected layer: an index map, families of layers, exact maps between them.

A door for authors of relaxations and probes. Here are numbers and no modules; a layer that holds them is in :mod:`anarch_core.layers`.
"""

from __future__ import annotations

from anarch_core.constraint.incidence import NOTHING, Index
from anarch_core.constraint.parts import PARTS, Drift, Part
from anarch_core.lattice.families import CONV, EFCN, LCN, AbstractFamily, Incidence, incidence, label_counts, share_counts
from anarch_core.lattice.geometry import Axis, ConvGeometry, Convolution
from anarch_core.lattice.maps import lift_map, project_labels

__all__ = [
    "CONV",
    "EFCN",
    "LCN",
    "NOTHING",
    "PARTS",
    "AbstractFamily",
    "Axis",
    "ConvGeometry",
    "Convolution",
    "Drift",
    "Incidence",
    "Index",
    "Part",
    "incidence",
    "label_counts",
    "lift_map",
    "project_labels",
    "share_counts",
]
