"""The square of the parts, which penalties are made of, for every kind of constraint that is relaxed; copies have parts together."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from anarch_core import relax
from anarch_core.layers import relaxed_layers
from anarch_core.training import PartSquare


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.relu(self.inner(x)))


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5))
    prune.random_unstructured(model[0], "weight", 0.5)
    return model


CASES = {
    "ungroup": (lambda: nn.Sequential(nn.Conv1d(4, 4, 3, groups=4, padding=1)), (4, 8)),
    "ungroup efcn": (lambda: nn.Sequential(nn.Conv1d(4, 4, 3, groups=2, padding=1)), (4, 8)),
    "grow": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1)), (2, 8)),
    "grow lcn": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1)), (2, 8)),
    "untie": (Twice, (4,)),
    "unmask": (pruned, (6,)),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_the_drift_and_has_its_gradient(case: str) -> None:
    build, shape = CASES[case]
    torch.manual_seed(0)
    model = build().double()
    for relaxation in case.split():
        model = relax(model, relaxation, example_input=torch.zeros(2, *shape).double()).model
    ((path, layer),) = relaxed_layers(model).items()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    drift, square = layer.drift(), PartSquare.of(layer, ("unshared", "off-local"), path)
    assert square.drifting.item() == pytest.approx(drift.unshared + drift.off_local, rel=1e-9)
    way = {name: torch.randn_like(parameter) for name, parameter in layer.named_parameters()}
    values = []
    for far in (1e-4, -2e-4):
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                parameter.add_(way[name], alpha=far)
        values.append(sum(PartSquare.of(layer, ("unshared", "off-local")).squares.values()).item() / 2)
    slope = sum(float((square.gradients[name] * tensor).sum()) for name, tensor in way.items())
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(slope, rel=1e-6)
