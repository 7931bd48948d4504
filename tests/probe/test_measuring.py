"""Running a probe: what it lacks is told before, the network is left alone, and what it finds is JSON."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext
from anarch_core.probe.measuring import measured, missing_needs


class Careless(AbstractProbe):
    """Measures in training mode, leaves gradients, and reports what JSON does not know."""

    needs = frozenset({"data", "relaxed", "parent"})

    def measure(self, context: ProbeContext) -> Measurement:
        context.model.train()
        context.model(torch.ones(2, 1, 8)).sum().backward()
        return Measurement(
            scalars={"loss": torch.tensor(2.0), "norm": math.inf, "none": None}, details={"worst": math.nan, "layers": ("a", "b")}
        )


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.BatchNorm1d(2)).eval()


def test_needs_that_are_not_met_are_listed(model: nn.Module) -> None:
    relaxed = relax(model, "efcn", example_input=torch.ones(2, 1, 8)).model
    probe = Careless(None)
    assert missing_needs(probe, model, data=None, reference=None, parent=None) == ["data", "parent", "relaxed"]
    assert missing_needs(probe, relaxed, data="mnist1d", reference=None, parent=None) == ["parent"]
    assert missing_needs(probe, relaxed, data="mnist1d", reference=None, parent=model) == []


def test_what_is_found_is_json_and_the_network_is_as_it_was(model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = measured(Careless(None), ProbeContext(model=model))
    assert dict(found.scalars) == {"loss": 2.0, "norm": None, "none": None}
    assert json.dumps(dict(found.details)) == '{"worst": null, "layers": ["a", "b"]}'
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Bent(AbstractProbe):
    """Takes a second derivative of its own."""

    def measure(self, context: ProbeContext) -> Measurement:
        x = torch.linspace(-1, 1, 20).view(1, 5, 4)
        weight = context.model.in_proj_weight
        (slope,) = torch.autograd.grad(context.model(x, x, x)[0].square().sum(), weight, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.square().sum(), weight)
        return Measurement(scalars={"norm": float(curvature.norm())})


def test_a_probe_may_differentiate_attention_twice() -> None:
    found = measured(Bent(None), ProbeContext(model=nn.MultiheadAttention(4, 2, batch_first=True)))
    assert found.scalars["norm"] > 0
