"""What a caller has switched on around them changes nothing about what relaxing and projecting give."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from anarch_core.relaxation.verbs import drift, project, relax


@contextlib.contextmanager
def setting(change, value, before):
    change(value)
    try:
        yield
    finally:
        change(before)


AROUND = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "another default dtype": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "another default device": lambda: setting(torch.set_default_device, "meta", None),
    "deterministic algorithms": lambda: setting(torch.use_deterministic_algorithms, True, False),
}


def network():
    torch.manual_seed(0)
    second = nn.Conv2d(2, 3, 3, padding=(1, 0), padding_mode="reflect", stride=2)
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.ReLU(inplace=True), second)


def same(a, b):
    return all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a.keys() | b.keys())


@pytest.mark.parametrize("family", ["efcn", "lcn", "shared", "tiled"])
@pytest.mark.parametrize("around", AROUND)
def test_networks_are_the_same_and_can_be_trained(family, around, x):
    model = network()
    expected = relax(model, family, example_input=x)
    with AROUND[around]():
        relaxed = relax(model, family, example_input=x)
        back = project(relaxed.model)
        parts = drift(relaxed.model).total
    assert relaxed.report.exact
    assert relaxed.report.error == expected.report.error
    assert same(relaxed.model.state_dict(), expected.model.state_dict())
    assert same(back.state_dict(), project(expected.model).state_dict())
    assert parts == drift(expected.model).total
    relaxed.model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in relaxed.model.parameters())
