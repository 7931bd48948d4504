"""One notion of a linear constraint on the weights of any module: W = Aθ, where A says which entries are zero and which are equal.

A door for authors of relaxations. Here is mathematics on tensors and no modules; the lattice of convolutions
(:mod:`anarch_core.lattice`) is an instance of it, and a layer that holds constrained weights is
:class:`anarch_core.layers.ConstrainedLayer`.
"""

from __future__ import annotations

from anarch_core.constraint.incidence import NOTHING, Incidence, Index
from anarch_core.constraint.parts import PARTS, Drift, Part
from anarch_core.constraint.product import Constraint

__all__ = ["NOTHING", "PARTS", "Constraint", "Drift", "Incidence", "Index", "Part"]
