from __future__ import annotations

from anarch_core.testing import RelaxationConformance


class TestConformance(RelaxationConformance):
    name = "grow"


class TestOneAxis(RelaxationConformance):
    """Kernels grow differently along their axes."""

    name = "grow"
    options = {"by": (2, 0)}
    dims = (2,)
