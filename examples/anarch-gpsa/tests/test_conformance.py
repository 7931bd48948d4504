"""What anarch promises of every relaxation."""

from __future__ import annotations

from anarch_core.testing import RelaxationConformance


class TestAttention(RelaxationConformance):
    name = "gpsa"
