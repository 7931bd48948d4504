"""What anarch promises of every optimizer."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.relaxation import relax
from anarch_core.testing import OptimizerConformance


class TestHardThreshold(OptimizerConformance):
    name = "beta-lasso"

    def network(self) -> nn.Module:
        return relax(super().network(), "efcn", example_input=torch.zeros(1, 1, 8)).model


class TestSoftThreshold(TestHardThreshold):
    options = {"threshold": "soft"}


class TestOfConvolutions(OptimizerConformance):
    name = "beta-lasso"
