"""What anarch promises of every relaxation and every optimizer."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.relaxation import relax
from anarch_core.testing import OptimizerConformance, RelaxationConformance


class TestResidual(RelaxationConformance):
    name = "residual"


class TestResidualSgd(OptimizerConformance):
    name = "residual-sgd"
    options = {"momentum": 0.9}


class TestResidualSgdOfResiduals(OptimizerConformance):
    name = "residual-sgd"

    def network(self) -> nn.Module:
        return relax(super().network(), "residual", example_input=torch.zeros(1, 1, 8)).model
