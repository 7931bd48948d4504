"""Running a probe: what it lacks is told before, the network is left alone, and what it finds is JSON."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from anarch_core import measure, relax
from anarch_core.data import TensorData
from anarch_core.errors import ConfigError, PluginError
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext
from anarch_core.probe.measuring import DisturbedError, measured, missing_needs
from anarch_core.surroundings import Surroundings, beside


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
    told: list[str] = []
    found = measured(Careless(None), ProbeContext(model=model), tell=told.append)
    assert told[0].startswith(
        f"{__name__}.Careless left changed: mode of the network, mode of 0, mode of 1, gradient of 0.weight and 6 more;"
    )
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


class Act(AbstractProbe):
    """Does what its option says."""

    def measure(self, context: ProbeContext) -> Measurement:
        self.options(context)
        return Measurement(scalars={"one": 1.0})


def after(act: Callable[[ProbeContext], object], context: ProbeContext, **settings: Any) -> list[str]:
    """What is told of a probe that does something."""
    told: list[str] = []
    measured(Act(act), context, tell=told.append, **settings)
    return told


@pytest.fixture
def data() -> TensorData:
    x, y = torch.randn(6, 1, 8), torch.arange(6) % 2
    return TensorData(name="noise", x_train=x, y_train=y, x_test=x.clone(), y_test=y.clone(), classes=2)


def test_a_probe_that_leaves_everything_as_it_was_is_not_spoken_of(model: nn.Module, data: TensorData) -> None:
    assert after(lambda context: context.model(data.x_train).sum().item(), ProbeContext(model=model, data=data)) == []


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda context: torch.set_default_dtype(torch.float64), "default dtype"),
        (lambda context: torch.set_num_threads(torch.get_num_threads() + 1), "number of threads"),
        (lambda context: torch.set_default_device("meta"), "default device, modes of functions"),
        (lambda context: torch.set_flush_denormal(True), "flushing of small numbers to zero"),
        (lambda context: context.model.requires_grad_(False), "requires_grad of 0.weight, requires_grad of 0.bias"),
        (lambda context: context.model[0].register_forward_hook(print), "forward hooks of 0"),
        (lambda context: setattr(context.model, "0", nn.Identity()), "modules of the network"),
        (lambda context: setattr(context.model[0].weight, "data", torch.zeros(2, 1, 3)), "0.weight of the network"),
    ],
)
def test_what_can_be_put_back_is_put_back_and_named(model: nn.Module, act: Callable[[ProbeContext], object], named: str) -> None:
    before, there, weight = Surroundings.now(), list(model.modules()), model[0].weight.clone()
    [told] = after(act, ProbeContext(model=model))
    assert f"left changed: {named}" in told
    assert before.changed() == []
    assert list(model.modules()) == there
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model[0]._forward_hooks
    assert torch.equal(model[0].weight, weight)


def test_a_probe_is_not_blamed_for_what_an_observer_does_meanwhile(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers set variables of the environment, which they need, and start threads; a probe that does the same alone is told."""
    monkeypatch.setenv("TRACKED_BY", "nobody")
    over = threading.Event()

    def act(context: ProbeContext) -> None:
        os.environ["TRACKED_BY"] = "me"
        threading.Thread(target=over.wait, daemon=True, name="tracker").start()

    observer = threading.Thread(target=over.wait, daemon=True)
    beside(observer)
    observer.start()
    assert after(act, ProbeContext(model=model)) == []
    assert os.environ["TRACKED_BY"] == "me"
    over.set()
    observer.join()
    over.clear()
    os.environ["TRACKED_BY"] = "nobody"
    (told,) = after(act, ProbeContext(model=model))
    assert "environment variables, a thread that goes on (tracker)" in told
    over.set()


def test_numbers_of_a_network_that_a_probe_wrote_to_cannot_be_put_back(model: nn.Module) -> None:
    def halve(context: ProbeContext) -> None:
        context.model[0].weight.detach().numpy()[:] *= 0.5  # no version counter sees it

    with pytest.raises(DisturbedError, match=r"Act changed 0.weight of the network, which cannot be put back; leave the probe out"):
        after(halve, ProbeContext(model=model))


def test_a_probe_that_disturbs_and_raises_is_blamed_for_what_is_lost(model: nn.Module) -> None:
    def act(context: ProbeContext) -> None:
        context.model[0].weight.data.zero_()
        raise ZeroDivisionError

    with pytest.raises(DisturbedError, match=r"changed 0.weight"):
        after(act, ProbeContext(model=model))


def test_data_are_read_again_where_they_can_be(model: nn.Module, data: TensorData) -> None:
    def turn(context: ProbeContext) -> None:
        data.x_train.copy_(data.x_train.flip(0).clone())

    there, before = data.x_train, data.digest()
    kept = copy.deepcopy(data)
    [told] = after(turn, ProbeContext(model=model, data=data), reread=lambda: kept)
    assert "left changed: x_train of the data" in told
    assert data.x_train is there
    assert data.digest() == before
    with pytest.raises(DisturbedError, match="changed x_train of the data"):
        after(turn, ProbeContext(model=model, data=data))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "measure() gave a NoneType, expected Measurement"),
        (Measurement(scalars={"a": "high"}), "its measurement cannot be stored: ValueError"),
        (Measurement(scalars={}, details={"a": object()}), "its measurement cannot be stored: TypeError"),
        (Measurement(scalars={}, tensors={"a": [1.0]}), "its measurement cannot be stored: TypeError: 'a' is a list, expected a tensor"),
    ],
)
def test_what_is_no_measurement_is_refused_with_the_name_of_the_probe(model: nn.Module, found: Any, message: str) -> None:
    class Odd(AbstractProbe):
        def measure(self, context: ProbeContext) -> Measurement:
            return found

    with pytest.raises(PluginError, match=re.escape(f"Odd: {message}")):
        measured(Odd(None), ProbeContext(model=model))


class Wrapped(nn.Module):
    """A network that gives its logits in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.body(x)}


@pytest.mark.parametrize(
    "probe", ["ablation", "equivariance", "gradient", "hessian", "interpolation", "ntk", "sharpness", "soft-projection"]
)
def test_outputs_that_are_no_logits_are_told_by_every_probe_that_looks_at_them(probe: str) -> None:
    x, y = torch.randn(6, 1, 8), torch.arange(6) % 2
    data = TensorData(name="signals", x_train=x, y_train=y, x_test=x.clone(), y_test=y.clone(), classes=2)
    network = relax(Wrapped(), "lcn", example_input=x).model
    with pytest.raises(ConfigError, match=r"gives a dict \(logits\) for 6 inputs in evaluation mode"):
        measure(network, probe, data=data, parent=Wrapped(), reference=network)
